/** Dev's board on a fake stack; its server, attacked over HTTP as other sites and users would. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { once } from "node:events";
import * as http from "node:http";
import * as consumers from "node:stream/consumers";
import * as esbuild from "esbuild";
import { Board } from "../dev/board.ts";
import { forwarding } from "../dev/dev.ts";
import type { Message } from "../dev/messages.ts";
import { serve } from "../dev/server.ts";
import type { Item } from "../tasks/table.ts";
import type { Stack } from "../tasks/target.ts";
import {
  type Answers,
  fakeStack,
  NO_FAILURES,
  pause,
  progressOf,
  queue,
  toAttributes,
  until,
} from "./fixtures.ts";
import { EVENT_TIME } from "./outside.ts";

function row(file_key: string): Item {
  return { file_key, timestamp: EVENT_TIME, version_id: "1", processed_at: EVENT_TIME };
}

function logLine(outcome: string, file_key: string, timestamp: number) {
  const error = outcome === "failed" ? "no" : undefined;
  const time = new Date(timestamp).toISOString();
  const known = { file_key, event_time: EVENT_TIME, version_id: "1", error };
  const line = { timestamp: time, level: "INFO", outcome, ...known };
  return { eventId: crypto.randomUUID(), timestamp, message: JSON.stringify(line) };
}

/** What a stack answers in which nothing happens. */
const QUIET: Answers = {
  ...NO_FAILURES,
  GetFunctionCommand: () => ({ Configuration: { State: "Active", Runtime: "nodejs22.x" } }),
  DescribeAlarmsCommand: () => ({ MetricAlarms: [] }),
  GetBucketNotificationConfigurationCommand: () => ({}),
  FilterLogEventsCommand: () => ({ events: [] }),
};

/** What happens, and what a page is told of rows, failures and uploads. */
interface Scene {
  uploads?: string[];
  /** After so many questions the row of an upload is there. */
  asks?: number;
  /** Lines of the function's log, look by look. */
  log?: ReturnType<typeof logLine>[][];
  queued?: number;
  /** What its rows have more. */
  more?: Item;
  told: string[];
}

/** What is told of an upload first; a page may come too late for it. */
const WAITS = "uploaded, waiting for its row …";

const NOW_MS = Date.now();
const WRITTEN_MS = Date.parse(String(row("in/a.txt").processed_at));
const MANY = Array.from({ length: 101 }, (_, index) => `in/${index}`);
const failed = (afterMs: number) => logLine("failed", "in/a.txt", NOW_MS + afterMs);

const SCENES: Record<string, Scene> = {
  "F117 a removal is told, and that its key is deleted": {
    log: [[logLine("written", "in/a.txt", WRITTEN_MS)]],
    more: { event_name: "ObjectRemoved:DeleteMarkerCreated" },
    told: ["row in/a.txt deleted", "key in/a.txt true", "failures"],
  },
  "an upload's row is asked for": {
    uploads: ["in/a.txt"],
    asks: 6,
    told: [
      "row in/a.txt",
      "in/a.txt: done: row after MS",
      "failures",
    ],
  },
  "an upload without a row says what tells more": {
    uploads: ["in/a.txt"],
    told: ["in/a.txt: : no row yet: deno task why KEY --env x tells more", "failures"],
  },
  "an upload that the bucket's filter leaves out has no row": {
    uploads: ["out.txt"],
    told: [
      "out.txt: failed: no row: the bucket records only keys that begin with " +
      '"in/" and end with ".txt"',
      "failures",
    ],
  },
  "a failure stays with its tries until the row is there": {
    uploads: ["in/a.txt"],
    log: [[failed(0), failed(1)], [failed(2)], [logLine("written", "in/a.txt", NOW_MS + 3)]],
    told: [
      "in/a.txt: failed: failed: see below",
      "failures in/a.txt no 2",
      "failures in/a.txt no 3",
      "row in/a.txt",
      "in/a.txt: done: row, after it had failed", // what it took until then is no latency
      "failures",
    ],
  },
  "a failure whose line comes after its row was written is not shown": {
    log: [
      [logLine("written", "in/a.txt", WRITTEN_MS)],
      [logLine("failed", "in/a.txt", WRITTEN_MS - 1)],
    ],
    told: ["row in/a.txt", "failures"],
  },
  "a failure ends with its row, though the line that tells of the row does not come": {
    uploads: ["in/a.txt"],
    asks: 6,
    log: [[logLine("failed", "in/a.txt", WRITTEN_MS - 1)]],
    told: [
      "in/a.txt: failed: failed: see below",
      "failures in/a.txt no 1",
      "row in/a.txt",
      "in/a.txt: done: row, after it had failed",
      "failures",
    ],
  },
  "of many failures the newest are shown": {
    log: [MANY.map((key, index) => logLine("failed", key, NOW_MS + index))],
    told: [
      ["failures", ...MANY.slice(1).map((key) => `${key} no 1`)].join(" "),
    ],
  },
  "queued events that the log does not know are told": {
    queued: 2,
    told: [
      "failures The failure queue holds 2 events. To list them, run deno task replay --dry-run " +
      "--env x.",
    ],
  },
};

Deno.test("the board tells what became of uploads", async (t) => {
  for (const [name, scene] of Object.entries(SCENES)) {
    const { uploads = [], asks = Infinity, log = [], queued = 0, more, told } = scene;
    await t.step(name, async () => {
      let asked = 0;
      const { stack } = fakeStack({
        ...QUIET,
        // The pattern of the newest rows names one outcome.
        FilterLogEventsCommand: ({ filterPattern }) => ({
          events: String(filterPattern).includes("||") ? log.shift() ?? [] : [],
        }),
        BatchGetItemCommand: () => ({
          Responses: { files: [toAttributes({ ...row("in/a.txt"), ...more })] },
        }),
        GetQueueAttributesCommand: () => queue(queued),
        QueryCommand: ({ ExpressionAttributeValues: { ":key": { S: key } } }) => ({
          Items: ++asked > asks ? [toAttributes(row(key))] : [],
        }),
      });
      using board = makeBoard(stack);
      for (const key of uploads) board.expect(key, { key, versionId: "1" });
      const texts = new Set<string>();
      await watch(board, (messages) => {
        messages.map(toText).filter((text) => text !== "").forEach((text) => texts.add(text));
        return log.length === 0 && texts.size >= told.length;
      });
      assert.deepEqual(texts, new Set(told));
    });
  }
});

/** What a message says of rows, failures and uploads. */
function toText(message: Message): string {
  switch (message.type) {
    case "failures": {
      const failures = message.failures.map(({ key, reason, tries }) => [key, reason, tries]);
      return ["failures", ...failures.flat(), message.note].join(" ").trim();
    }
    case "outcome": {
      const { id, result, note, ms } = message.outcome;
      return note === WAITS ? "" : `${id}: ${result}: ${note.replace(`${ms} ms`, "MS")}`;
    }
    case "row":
      return `row ${message.row.file_key} ${message.removal ?? ""}`.trim();
    case "key":
      return `key ${message.key} ${message.isDeleted}`;
    default:
      return "";
  }
}

Deno.test("the board says what AWS refuses, goes on, and takes it back", async () => {
  let refuses = true;
  const { stack } = fakeStack({
    ...QUIET,
    GetQueueAttributesCommand: () =>
      refuses ? Object.assign(new Error("who?"), { name: "AccessDenied" }) : queue(0),
  });
  const troubles: string[] = [];
  using board = makeBoard(stack);
  await watch(board, (messages) => {
    for (const message of messages) if (message.type === "trouble") troubles.push(message.text);
    refuses = troubles.length === 0;
    return troubles.length === 2;
  });
  assert.match(troubles[0], /AccessDenied: who\?/);
  assert.equal(troubles[1], "");
});

Deno.test("a page that was away gets the last message about each thing, once", () => {
  using board = makeBoard(fakeStack(QUIET).stack);
  board.setCode({ state: "building", text: "building" });
  const { last } = board.since(0);
  const running = { state: "running", text: "new code runs" } as const;
  board.setCode(running);
  const codes = (after: number) =>
    board.since(after).messages.filter(({ type }) => type === "code");
  const expected = [{ type: "code", code: running }];
  assert.deepEqual([codes(0), codes(last)], [expected, expected]);
  assert.deepEqual(codes(board.since(0).last), []);
});

Deno.test("the board asks AWS only while a page asks it", async () => {
  const { stack, calls } = fakeStack(QUIET);
  const asked = () => calls.length;
  using board = makeBoard(stack, 300);
  await pause(30);
  assert.equal(asked(), 0);
  for (const _ of [1, 2]) {
    board.since(0);
    const first = asked();
    await until(() => asked() > first);
    await pause(600);
    const last = asked();
    await pause(50);
    assert.equal(asked(), last);
  }
});

function makeBoard(stack: Stack, idleMs = 60_000): Board {
  return new Board(stack, "on the stand-in", { pollMs: 10, idleMs, lateMs: 1000 });
}

/** A page that asks a board until it has seen enough, and a while longer. */
async function watch(board: Board, see: (messages: Message[]) => boolean): Promise<void> {
  let last = 0;
  const ask = () => {
    const update = board.since(last);
    last = update.last;
    return see(update.messages);
  };
  await until(ask);
  await pause(30);
  ask();
}

Deno.test("forwarding() is for machines without a screen, and those reached by SSH", () => {
  const ssh = "ssh -N -L 8421:127.0.0.1:8421 ";
  const cases: [Record<string, string>, typeof Deno.build.os, string | undefined][] = [
    [{ DISPLAY: ":0", USER: "ann" }, "linux", undefined],
    [{ WAYLAND_DISPLAY: "wayland-0" }, "linux", undefined],
    [{ WSL_DISTRO_NAME: "Ubuntu" }, "linux", undefined], // its browser is Windows' own
    [{ USER: "ann" }, "darwin", undefined],
    [{}, "windows", undefined],
    [{ SSH_CONNECTION: "…", USER: "ann", DISPLAY: "localhost:10.0" }, "linux", ssh + "ann@HOST"],
    [{ SSH_CONNECTION: "…", SUDO_USER: "ann", USER: "root" }, "darwin", ssh + "ann@HOST"],
    [{}, "linux", ssh + "USER@HOST"], // as in Session Manager
    [{ USER: "$(id)" }, "linux", ssh + "'$(id)@HOST'"],
  ];
  for (const [env, os, expected] of cases) assert.equal(forwarding(8421, env, os), expected);
});

const CHANGES = ["POST /upload?key=in/a.txt", "POST /replay"];
const SECRETS = ["GET /news", "GET /deno.json", "GET /%2e%2e/deno.json"];
const FILES = ["GET /", "GET /page.css", "GET /page.js", "GET /icon.svg"];

Deno.test("the server answers nobody but its own page", async (t) => {
  const { stack, calls } = fakeStack(QUIET);
  await using server = await startServer(stack);
  const { host, port, token } = server;
  const authorization = `Bearer ${token}`;
  await t.step("a name that leads here is another name (DNS rebinding)", async () => {
    for (const name of ["evil.example", "127.0.0.1.nip.io", "me@127.0.0.1", "0.0.0.0", ""]) {
      const headers = { host: `${name}:${port}`, authorization };
      await answers(server, 421, ["GET /news", ...FILES], headers);
    }
  });
  await t.step("a forwarded port is another number, but the page's own", async () => {
    for (const host of ["localhost", "127.0.0.1:1", "[::1]:65535"]) {
      const own = { host, authorization };
      await answers(server, 200, ["GET /news"], own);
      await answers(server, 200, ["POST /replay"], { ...own, origin: `http://${host}` });
      for (const origin of [`https://${host}`, "http://localhost:2"]) {
        await answers(server, 403, ["POST /replay"], { ...own, origin });
      }
    }
  });
  await t.step("without the token, or with another one, only the page's files", async () => {
    const others = ["Bearer ", `Bearer ${"x".repeat(token.length)}`];
    for (const wrong of [{}, ...others.map((authorization) => ({ authorization }))]) {
      const headers = { host, ...wrong };
      await answers(server, 401, [...SECRETS, `GET /news?token=${token}`], headers);
      await answers(server, 401, CHANGES, { ...headers, origin: `http://${host}` });
      await answers(server, 200, FILES, headers);
    }
  });
  await t.step("another site that has the token gets nothing", async () => {
    const own = { host, authorization };
    for (const origin of ["http://evil.example", "null", `http://localhost:${port}`]) {
      await answers(server, 403, ["GET /news", "OPTIONS /news", ...CHANGES], { ...own, origin });
    }
    // What changes something says where it comes from: a browser always does.
    await answers(server, 403, CHANGES, own);
  });
  await t.step("it listens on 127.0.0.1 alone", async () => {
    const addresses = Deno.networkInterfaces()
      .filter(({ family, address }) => family === "IPv4" && address !== "127.0.0.1");
    for (const { address: hostname } of addresses) {
      await assert.rejects(Deno.connect({ hostname, port }), hostname);
    }
  });
  assert.equal(Buffer.from(token, "base64url").length, 16);
  assert.equal(calls.some(({ name }) => /Put|Upload|Receive/.test(name)), false);
});

/** Sends requests with just these headers: fetch would set Host and Origin itself. */
async function answers(
  { port, token }: Server,
  status: number,
  requests: string[],
  headers: Record<string, string>,
): Promise<void> {
  for (const asked of requests) {
    const [method, path] = asked.split(" ");
    const request = http.request({ port, method, path, headers, agent: false }).end();
    const [answer] = await once(request, "response") as [http.IncomingMessage];
    assert.equal(answer.statusCode, status, `${asked} ${JSON.stringify(headers)}`);
    assert.equal((await consumers.text(answer)).includes(token), false);
    assert.equal(answer.headers["access-control-allow-origin"], undefined);
    for (const [name, value] of Object.entries(FORBIDS)) {
      assert.equal(answer.headers[name], value, name);
    }
  }
}

/** What every answer forbids: nothing is inline or from elsewhere, and nobody may frame it. */
const FORBIDS = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
    "require-trusted-types-for 'script'; trusted-types 'none'",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "cache-control": "no-store",
};

Deno.test("a taken port is told, and the next free one is used", async () => {
  const { stack } = fakeStack(QUIET);
  await using first = await startServer(stack);
  const said = await progressOf(async () => {
    await using second = await startServer(stack, first.port);
    assert.ok(second.port > first.port);
  });
  assert.match(said, new RegExp(`^Port ${first.port} is not free, so the page is at port \\d+\n$`));
});

Deno.test("an upload goes through to S3 as it is, or not at all", async () => {
  const { stack, calls } = fakeStack({
    ...QUIET,
    PutObjectCommand: () => ({ VersionId: "1", ETag: '"tag"' }),
  });
  await using server = await startServer(stack);
  const origin = `http://${server.host}`;
  const headers = { origin, authorization: `Bearer ${server.token}`, "content-type": "text/plain" };
  const post = { method: "POST", headers };
  const url = `${origin}/upload?id=page's&key=${encodeURIComponent("in/ü b.txt")}`;
  const { status } = await fetch(url, { ...post, body: "Hello" });
  const { messages } = await (await fetch(`${origin}/news?last=0`, { headers })).json();
  const { outcome } = messages.find(({ type }: Message) => type === "outcome");
  assert.deepEqual([status, outcome], [200, { id: "page's", result: "", note: WAITS }]);
  const puts = () => calls.filter(({ name }) => /Put|Complete/.test(name));
  const [{ input: { Body, ...rest } }] = puts();
  assert.equal(new TextDecoder().decode(Body), "Hello");
  const expected = { Bucket: "uploads", Key: "in/ü b.txt", ContentType: "text/plain" };
  assert.deepEqual(JSON.parse(JSON.stringify(rest)), expected);

  const body = new ReadableStream({
    start: (controller) => controller.enqueue(new TextEncoder().encode("only this")),
  });
  await assert.rejects(fetch(url, { ...post, body, signal: AbortSignal.timeout(50) }));
  await pause(200);
  assert.equal(puts().length, 1, "a body that broke off left something");
});

type Server = Awaited<ReturnType<typeof startServer>>;

async function startServer(stack: Stack, wanted = 0) {
  // lib-storage asks the client where it is.
  Object.assign(stack.s3, { config: { requestHandler: {}, endpoint: () => ({ hostname: "s3" }) } });
  const held = new AsyncDisposableStack();
  held.defer(() => esbuild.stop());
  const board = held.use(makeBoard(stack));
  const server = held.use(await serve(board, () => Promise.resolve("replayed"), wanted));
  const { host, port, hash } = new URL(server.url);
  return Object.assign(held, { host, port: Number(port), token: hash.slice(1) });
}
