/** Dev's board against a fake stack, its loop against a fake workshop, and the real workshop. */

import assert from "node:assert/strict";
import { join } from "node:path";
import * as esbuild from "esbuild";
import { unzipSync } from "fflate";
import { replay } from "../dev/dev.ts";
import type { Workshop } from "../dev/loop.ts";
import * as loop from "../dev/loop.ts";
import type { Code, Message } from "../dev/messages.ts";
import { makeBuilder, placeOf, toTypeErrors, watch } from "../dev/workshop.ts";
import { build } from "../tasks/build.ts";
import { logLine, makeBoard, pause, queue, quiet, row, until, watchBoard } from "./dev_fixtures.ts";
import { copyOfCode, fakeStack, toAttributes } from "./fixtures.ts";

Deno.test("the board has one poller for all pages, and none without one", async () => {
  const { stack, calls } = fakeStack(quiet());
  const board = makeBoard(stack, 50);
  const looks = () => calls.filter(({ name }) => name === "GetQueueAttributesCommand").length;
  await pause(30);
  assert.equal(looks(), 0);
  const pages = setInterval(() => [1, 2, 3].forEach(() => board.since(0)), 5);
  await until(() => looks() > 3);
  const [before, startMs] = [looks(), performance.now()];
  await pause(100);
  const polls = (looks() - before) / ((performance.now() - startMs) / 10);
  assert.ok(polls < 2, `${polls} polls in the time of one`);
  clearInterval(pages);
  await pause(100);
  const after = looks();
  await pause(50);
  assert.equal(looks(), after);
  board.since(0);
  await until(() => looks() > after);
  board.end();
});

Deno.test("the board asks for each upload's row, however many are open", async () => {
  let asks = 0;
  let most = 0;
  let open = 0;
  const { stack } = fakeStack({
    ...quiet(),
    QueryCommand: async ({ ExpressionAttributeValues: values }) => {
      most = Math.max(most, ++open);
      await pause(1);
      open--;
      const { S: key } = (values as { ":key": { S: string } })[":key"];
      return { Items: ++asks > 700 ? [toAttributes(row(key))] : [] };
    },
  });
  const board = makeBoard(stack);
  const keys = Array.from({ length: 150 }, (_, i) => `${i}.txt`);
  for (const key of keys) board.expect({ key, versionId: "1" });
  const ended = (told: Message[]) => told.filter(({ type }) => type === "upload");
  const told = await watchBoard(board, (told) => ended(told).length >= keys.length);
  board.end();
  const outcomes = ended(told) as (Message & { type: "upload" })[];
  assert.deepEqual(outcomes.map(({ id }) => id).sort(), keys.map((key) => `${key} 1`).sort());
  assert.ok(outcomes.every(({ ms }) => ms! > 0), JSON.stringify(outcomes));
  assert.equal(told.filter(({ type }) => type === "row").length, keys.length);
  assert.ok(most <= 32, `${most} at once`);
});

Deno.test("Replay all says that the failure queue is empty", async () => {
  const { stack } = fakeStack({ GetQueueAttributesCommand: () => queue(0) });
  assert.match(await replay(stack, "replay-test"), /^The failure queue is empty: /);
  assert.match(
    await replay(stack, "replay-test", "a.txt"),
    /^It is not in the failure queue yet: /,
  );
});

Deno.test("the board shows no failure whose line comes after its row was written", async () => {
  const writtenMs = Date.parse(String(row("a.txt").processed_at));
  const looks = [
    [logLine("written", "a.txt", writtenMs)],
    [logLine("failed", "a.txt", writtenMs - 1)],
    [],
  ];
  const { stack } = fakeStack({
    ...quiet(),
    FilterLogEventsCommand: ({ filterPattern }) => // The pattern of the newest rows names one outcome.
    ({ events: String(filterPattern).includes("||") ? looks.shift() ?? [] : [] }),
    BatchGetItemCommand: () => ({ Responses: { files: [toAttributes(row("a.txt"))] } }),
  });
  const board = makeBoard(stack);
  const told = await watchBoard(board, () => looks.length === 0);
  board.end();
  const failures = told.filter((message) => message.type === "failures");
  assert.deepEqual(failures.flatMap(({ failures }) => failures), []);
});

Deno.test("the board keeps a failure with its tries until the row is there", async () => {
  const nowMs = Date.now();
  const looks = [
    [],
    [logLine("failed", "a.txt", nowMs)],
    [logLine("failed", "a.txt", nowMs + 1)],
    [logLine("written", "a.txt", nowMs + 2)],
  ];
  const { stack } = fakeStack({
    ...quiet(),
    FilterLogEventsCommand: ({ filterPattern }) => // The pattern of the newest rows names one outcome.
    ({ events: String(filterPattern).includes("||") ? looks.shift() ?? [] : [] }),
    BatchGetItemCommand: () => ({ Responses: { files: [toAttributes(row("a.txt"))] } }),
    QueryCommand: () => ({ Items: [] }),
  });
  const board = makeBoard(stack);
  board.expect({ key: "a.txt", versionId: "1" });
  const told = await watchBoard(board, (told) => told.some(({ type }) => type === "row"));
  board.end();
  const texts = told.map((message) => {
    switch (message.type) {
      case "failures":
        return message.failures.map(({ key, reason, tries }) => `${key} ${reason} ${tries}`).join();
      case "upload":
        return `${message.id} ${message.hasFailed ? "failed" : `after ${message.ms} ms`}`;
      case "row":
        return `row ${message.row.file_key}`;
      default:
        return "";
    }
  });
  assert.deepEqual(
    new Set(texts.filter((text) => text !== "")),
    new Set([
      "a.txt no 1",
      "a.txt no 2",
      "a.txt 1 failed",
      "row a.txt",
      "a.txt 1 after undefined ms", // what it took until a retry is no latency
    ]),
  );
});

Deno.test("the board tells of queued events that the log does not know", async () => {
  const nowMs = Date.now();
  const tries = [0, 1, 2].map((ms) => logLine("failed", "a.txt", nowMs + ms));
  let queued = 1;
  const { stack } = fakeStack({
    ...quiet(),
    FilterLogEventsCommand: ({ filterPattern }) => ({
      events: String(filterPattern).includes("||") ? tries.splice(0) : [],
    }),
    GetQueueAttributesCommand: () => queue(queued),
  });
  const board = makeBoard(stack);
  const notes = (told: Message[]) =>
    told.filter((message) => message.type === "failures").map(({ note }) => note);
  const known = await watchBoard(
    board,
    (told) => told.some((message) => message.type === "failures" && message.failures.length > 0),
  );
  assert.deepEqual(notes(known).filter((note) => note !== ""), []);
  queued = 3;
  const told = await watchBoard(board, (told) => notes(told).at(-1) !== "");
  board.end();
  assert.equal(
    notes(told).at(-1),
    "The failure queue holds 2 more events. They failed before this page looked, or Lambda was " +
      "throttled, which leaves no line in its log. To list them, run deno task replay --dry-run " +
      "--env x.",
  );
});

Deno.test("the board says what AWS refuses, goes on, and takes it back", async () => {
  let refuses = true;
  const { stack } = fakeStack({
    ...quiet(),
    GetQueueAttributesCommand: () =>
      refuses ? Object.assign(new Error("who?"), { name: "AccessDenied" }) : queue(0),
  });
  const board = makeBoard(stack);
  const troubles = (told: Message[]) => told.filter((message) => message.type === "trouble");
  const first = await watchBoard(board, (told) => troubles(told).length === 1);
  refuses = false;
  const then = await watchBoard(board, (told) => troubles(told).at(-1)?.text === "");
  board.end();
  assert.match(troubles(first)[0].text, /AccessDenied: who\?/);
  assert.ok(then.some(({ type }) => type === "ready"));
});

Deno.test("a page that was away gets the last message about each thing, once", () => {
  const { stack } = fakeStack(quiet());
  const board = makeBoard(stack);
  board.setCode({ state: "building", text: "building" });
  const { last } = board.since(0);
  board.setCode({ state: "running", text: "new code runs" });
  const code = (after: number) => board.since(after).messages.filter(({ type }) => type === "code");
  const running = { type: "code", code: { state: "running", text: "new code runs" } };
  assert.deepEqual([code(0), code(last)], [[running], [running]]);
  assert.deepEqual(code(board.since(0).last), []);
  board.end();
});

const SAVES: Record<string, (context: typeof import("../dev/loop.ts")) => void | Promise<void>> = {
  "edits in quick succession end with the last one": async ({ Loop }) => {
    const shop = makeShop();
    const loop = new Loop(shop.workshop, "old");
    for (const text of ["1", "2", "3"]) {
      shop.source = text;
      loop.save();
      await pause(3);
    }
    await loop.idle();
    assert.equal(shop.running, "3");
    assert.equal(shop.most, 1);
    assert.match(shop.told.at(-1)!, /^running new code runs, 0\.\d s$/);
    assert.equal(loop.sha256, "3");
  },
  "what does not build changes nothing, and the next save runs": async (
    { Loop, BrokenCodeError },
  ) => {
    const shop = makeShop();
    const loop = new Loop(shop.workshop, "old");
    shop.fails = new BrokenCodeError("handler.ts:1:2: no");
    loop.save();
    await loop.idle();
    assert.deepEqual([shop.running, loop.sha256], ["old", "old"]);
    assert.equal(shop.told.at(-1), "broken handler.ts:1:2: no");
    assert.equal(loop.hasUpdated, false);
    assert.equal(shop.checks, 0);
    shop.fails = undefined;
    shop.source = "new";
    loop.save();
    await loop.idle();
    assert.equal(shop.running, "new");
  },
  "code that fails at its start is told, and again after a save without a change": async (
    { Loop, BrokenCodeError },
  ) => {
    const shop = makeShop();
    const loop = new Loop(shop.workshop, "old");
    shop.source = "new";
    shop.crashes = new BrokenCodeError("handler.ts:3:4: Error: boom");
    for (let saves = 0; saves < 2; saves++) {
      loop.save();
      await loop.idle();
      assert.equal(shop.told.at(-1), "broken handler.ts:3:4: Error: boom");
    }
    assert.equal(shop.updates, 1);
  },
  "a refused update is told, and the next save tries it again": async ({ Loop }) => {
    const shop = makeShop();
    const loop = new Loop(shop.workshop, "old");
    shop.source = "new";
    shop.refuses = Object.assign(new Error("busy"), { name: "ResourceConflictException" });
    loop.save();
    await loop.idle();
    assert.equal(shop.told.at(-1), "broken AWS refused: ResourceConflictException: busy");
    assert.deepEqual([loop.sha256, loop.hasUpdated], ["old", true]);
    shop.refuses = undefined;
    loop.save();
    await loop.idle();
    assert.equal(shop.running, "new");
  },
  "a trial that never ends is broken off by the next save, and by the end": async ({ Loop }) => {
    const shop = makeShop();
    const loop = new Loop(shop.workshop, "old");
    for (const source of ["1", "2"]) {
      shop.source = source;
      shop.hangs = true;
      loop.save();
      await until(() => shop.running === source && shop.trials === Number(source));
    }
    shop.hangs = false;
    shop.source = "3";
    loop.save();
    await loop.idle();
    assert.match(shop.told.at(-1)!, /^running new code runs/);
    shop.hangs = true;
    shop.source = "4";
    loop.save();
    await until(() => shop.trials === 4);
    await loop.end();
    assert.ok(!shop.told.some((text) => text.startsWith("broken")), shop.told.join("; "));
  },
  "type errors follow, of the last save alone": async ({ Loop }) => {
    const shop = makeShop();
    const loop = new Loop(shop.workshop, "old");
    shop.typeErrors = ["handler.ts:1:1: TS1: no"];
    shop.source = "new";
    loop.save();
    await until(() => shop.told.at(-1)!.includes("TS1"));
    assert.match(shop.told.at(-1)!, /^running new code runs, 0\.\d s, handler\.ts:1:1: TS1: no$/);
  },
};

Deno.test("the loop makes the last save run, one at a time", async (t) => {
  for (const [name, save] of Object.entries(SAVES)) {
    await t.step(name, async () => await save(loop));
  }
});

const BUILDS: Record<
  string,
  (context: Awaited<ReturnType<typeof openBuilder>>) => void | Promise<void>
> = {
  "the same bytes as deploy's": async ({ builder, expected }) => {
    assert.equal((await builder.build()).sha256, expected.sha256);
  },
  "what does not build names file, line and column, and no plugin": async (
    { builder, handler, source },
  ) => {
    await Deno.writeTextFile(
      handler,
      source.replace("export const PREFIX_BYTES", "export PREFIX"),
    );
    await assert.rejects(builder.build(), (error: Error) => {
      assert.equal(error.name, "BrokenCodeError");
      const [first, second, ...others] = error.message.split("\n");
      assert.equal(first, "It does not build, so nothing was changed.");
      assert.match(second, /^handler\.ts:\d+:\d+: Unexpected "PREFIX"$/);
      assert.deepEqual(others, []);
      return true;
    });
  },
  "a place in the bundle is a place in a file": async ({ builder, handler, source, placeOf }) => {
    const lines = source.split("\n");
    const at = lines.findIndex((line) => line.startsWith("export async function handleEvent"));
    lines.splice(at + 1, 0, '  if (event === 7) throw new RangeError("seven");');
    await Deno.writeTextFile(handler, lines.join("\n"));
    const { sourceMap, zip } = await builder.build();
    const code = new TextDecoder().decode(unzipSync(zip)["bundle.cjs"]);
    const offset = code.indexOf('RangeError("seven")') - "new ".length;
    const before = code.slice(0, offset).split("\n");
    const trace = [
      "RangeError: seven",
      `    at k (/var/task/bundle.cjs:${before.length}:${before.at(-1)!.length + 1})`,
    ];
    const place = placeOf({ errorType: "RangeError", errorMessage: "seven", trace }, sourceMap);
    assert.equal(place, `handler.ts:${at + 2}:${lines[at + 1].indexOf("new Range") + 1}`);
  },
  "each save is seen once, however the editor writes": async (
    { handler, source, folder, watch },
  ) => {
    let saves = 0;
    using _watching = watch(folder, () => saves++);
    const save = async (write: () => Promise<void>) => {
      const before = saves;
      await write();
      await pause(500);
      return saves - before;
    };
    await pause(200); // the first look
    assert.equal(await save(() => Deno.writeTextFile(handler, source)), 1);
    assert.equal(
      await save(async () => {
        await Deno.writeTextFile(handler + ".tmp", source);
        await Deno.rename(handler + ".tmp", handler);
      }),
      1,
    );
    const preview = join(folder, "function", "preview.ts");
    assert.equal(
      await save(async () => Deno.writeTextFile(preview, await Deno.readTextFile(preview))),
      1,
    );
    assert.equal(await save(() => Deno.utime(preview, new Date(0), new Date(0))), 1); // as git does
    const slowly = async () => {
      for (let part = 0; part < 20; part++) {
        await Deno.writeTextFile(handler, "// more\n", { append: true });
        await pause(30);
      }
    };
    assert.ok(await save(slowly) < 4, "half a file was taken for a save");
    assert.equal(await save(() => Deno.remove(preview)), 1);
    assert.equal(await save(() => Deno.writeTextFile(join(folder, "notes.txt"), "x")), 0);
    assert.equal(await save(() => Deno.writeTextFile(join(folder, "handler_test.ts"), "x")), 0);
  },
};

Deno.test("a folder's code is built, with the places of its errors", async (t) => {
  await using copy = await copyOfCode();
  const context = await openBuilder(copy.path);
  try {
    for (const [name, step] of Object.entries(BUILDS)) {
      await t.step(name, async () => await step(context));
    }
  } finally {
    await context.builder.dispose();
    await esbuild.stop();
  }
  await t.step("deno check's errors have their places in front", () => {
    const text = [
      "TS2322 [ERROR]: Type 'number' is not assignable to type 'string'.",
      "const a: string = 1;",
      "      ^",
      "    at file:///p%20q/handler.ts:3:7",
      "",
      "error: Type checking failed.",
    ].join("\n");
    assert.deepEqual(toTypeErrors(text, "/p q"), [
      "handler.ts:3:7: TS2322: Type 'number' is not assignable to type 'string'.",
    ]);
    const other = "error: no lock\n  it is frozen\n\nStack backtrace:\n   0: <unknown>\n";
    assert.deepEqual(toTypeErrors(other, "/p q"), ["error: no lock", "  it is frozen"]);
  });
});

async function openBuilder(folder: string) {
  const expected = await build();
  const handler = join(folder, "handler.ts");
  const source = await Deno.readTextFile(handler);
  return { builder: await makeBuilder(folder), expected, handler, source, folder, placeOf, watch };
}

/** A workshop of fakes, in which building and updating take their time. */
function makeShop() {
  const shop = {
    source: "old",
    running: "old",
    updates: 0,
    checks: 0,
    trials: 0,
    hangs: false,
    atOnce: 0,
    most: 0,
    fails: undefined as Error | undefined,
    refuses: undefined as Error | undefined,
    crashes: undefined as Error | undefined,
    typeErrors: [] as string[],
    told: [] as string[],
  };
  const workshop: Workshop = {
    async build() {
      const sha256 = shop.source;
      shop.most = Math.max(shop.most, ++shop.atOnce);
      await pause(10);
      shop.atOnce--;
      if (shop.fails) throw shop.fails;
      return { zip: new Uint8Array(), sha256, sourceMap: "" };
    },
    async update({ sha256 }) {
      shop.most = Math.max(shop.most, ++shop.atOnce);
      await pause(10);
      shop.atOnce--;
      if (shop.refuses) throw shop.refuses;
      shop.updates++;
      shop.running = sha256;
    },
    tryOut: async (_code, signal) => {
      shop.trials++;
      if (shop.hangs) {
        await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal)));
      }
      if (shop.crashes) throw shop.crashes;
    },
    check: () => {
      shop.checks++;
      return Promise.resolve(shop.typeErrors);
    },
    tell: ({ state, text, typeErrors = [] }: Code) =>
      void shop.told.push([`${state} ${text}`, ...typeErrors].join(", ")),
  };
  return Object.assign(shop, { workshop });
}
