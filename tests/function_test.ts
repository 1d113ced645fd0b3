/**
 * The built zip's own files, in the runtime's own Node, before a stub over TLS: that it wastes nothing,
 * and what becomes of faults on the way to S3 and DynamoDB. What the rules make of each refusal is
 * handler_test.ts's; here the SDK is between.
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { unzipSync } from "fflate";
import { type LogLine, PREFIX_BYTES, PREVIEW_CHARACTERS } from "../handler.ts";
import { build } from "../tasks/build.ts";
import { temporaryFolder } from "../tasks/files.ts";
import { freePort } from "../tasks/stand_in.ts";
import { makeTools } from "../tasks/tools.ts";
import {
  type Environment,
  eventOf,
  type FunctionProcess,
  type Invocation,
  startFunction,
  writeFunction,
} from "./function_process.ts";
import { toEvent } from "./outside.ts";
import {
  type Answer,
  contentOf,
  HUGE_BYTES,
  s3Error,
  type Script,
  Stub,
  tableError,
  USUAL_BYTES,
} from "./stub.ts";

/** What is asked of every object. */
const RANGE = `bytes=0-${PREFIX_BYTES - 1}`;

/** The preview of each object. */
const PREVIEW = contentOf(PREVIEW_CHARACTERS);

/** With this, init ends soon only by a limit of its own. */
const PATIENT = { ATTEMPT_TIMEOUT_MS: "20000" };
const SOON_MS = 5000;

interface Setup {
  t: Deno.TestContext;
  stub: Stub;
  /** Starts the function in front of the stub. */
  start(env?: Environment, flags?: string[]): Promise<FunctionProcess>;
}

Deno.test("the function wastes nothing, and no fault loses or falsifies a row", async (t) => {
  const { node } = await makeTools();
  await using folder = await temporaryFolder();
  const { zip } = await build();
  const bundle = await writeFunction(join(folder.path, "bundle"), unzipSync(zip));
  for (const [name, step] of Object.entries({ ...WASTE, ...FAULTS })) {
    await t.step(name, async (t) => {
      await using resources = new AsyncDisposableStack();
      const stub = resources.use(await Stub.start());
      const start = async (given: Environment = {}, flags: string[] = []) => {
        const env = { AWS_ENDPOINT_URL: stub.server.url, ...given };
        return resources.use(await startFunction(node, bundle, env, flags));
      };
      await step({ t, stub, start });
    });
  }
});

const WASTE: Record<string, (setup: Setup) => Promise<void>> = {
  "init opens one connection a service, which every event then uses": async ({ stub, start }) => {
    const lambda = await start();
    assert.equal(lambda.init.error, undefined);
    assert.equal(stub.server.connections, 2);
    const warmUp = stub.requests.splice(0);
    assert.deepEqual(warmUp.map(({ operation }) => operation).sort(), ["GET", "PutItem"]);

    assert.equal((await lambda.invoke(eventOf("key"), { times: 200 })).error, undefined);
    assert.equal(stub.server.connections, 2);
    const calls = stub.requests.map(({ operation, headers, connection }) =>
      [operation, headers.range, connection].join(" ")
    );
    const [get, put] = ["GET", "PutItem"].map((operation) =>
      warmUp.find((request) => request.operation === operation)!.connection
    );
    const each = [`GET ${RANGE} ${get}`, `PutItem  ${put}`]; // two calls an object
    assert.deepEqual(calls, Array(200).fill(each).flat());
    assert.ok(stub.requests.every(({ headers }) => headers.authorization !== undefined));
  },

  "WARM_UP=off makes no connection before the first event": async ({ stub, start }) => {
    const lambda = await start({ WARM_UP: "off" });
    assert.equal(lambda.init.error, undefined);
    assert.deepEqual([stub.server.connections, stub.requests.length], [0, 0]);
    assert.equal((await lambda.invoke(eventOf("key"))).error, undefined);
    assert.deepEqual([stub.server.connections, stub.requests.length], [2, 2]);
  },

  "init waits little for a silent server, and sends it no secret": async ({ stub, start }) => {
    stub.scripts.set("warm-up", { GET: [{ then: "silence" }] });
    stub.scripts.set("", { PutItem: [{ then: "silence" }] });
    const lambda = await start(PATIENT);
    await assertInit(lambda);
    assert.equal(stub.requests.length, 2); // and no second try
    for (const { operation, headers, body } of stub.requests) {
      assert.equal(headers.authorization, undefined);
      assert.equal(headers["x-amz-security-token"], undefined);
      if (operation === "PutItem") assert.deepEqual(JSON.parse(body).Item, {}); // no table takes it
    }
  },

  "init survives a server that refuses, is silent or hangs up, and does not ask again": async (
    { start },
  ) => {
    using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 }); // it ends no handshake
    using closing = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    let closed = 0;
    (async () => {
      for await (const connection of closing) {
        closed++;
        connection.close();
      }
    })().catch(() => {});
    for (const port of [freePort(), silent.addr.port, closing.addr.port]) {
      const AWS_ENDPOINT_URL = `https://127.0.0.1:${port}`;
      await assertInit(await start({ ...PATIENT, AWS_ENDPOINT_URL }));
    }
    assert.equal(closed, 2);
  },

  "memory stays as it is": async ({ start }) => {
    // Compiled code is the only thing else that grows from event to event.
    const lambda = await start({}, ["--expose-gc", "--jitless", "--no-expose-wasm"]);
    const [first, last] = [
      await lambda.invoke(eventOf("first"), { times: 200 }),
      await lambda.invoke(eventOf("last"), { times: 200 }),
    ];
    const kept = (last.heapMb! - first.heapMb!) * 1024 ** 2 / 200;
    assert.ok(kept < 100, `${kept} bytes are kept of each event`);
  },

  "F39 F40 only the range is read of any object, in two calls": async ({ stub, start }) => {
    const lambda = await start();
    for (const size of [1, PREFIX_BYTES - 1, PREFIX_BYTES, PREFIX_BYTES + 1, HUGE_BYTES]) {
      stub.sizes.set("key-0", size);
      stub.bytesSent = stub.requests.length = 0;
      assert.equal((await lambda.invoke(eventOf("key"))).error, undefined);
      const calls = stub.requests.map(({ operation, headers }) => [operation, headers.range]);
      assert.deepEqual(calls, [["GET", RANGE], ["PutItem", undefined]]);
      assert.equal(stub.bytesSent, Math.min(size, PREFIX_BYTES));
      assert.equal(JSON.parse(stub.requests[1].body).Item.file_size.N, String(size));
    }
    assert.equal(stub.server.connections, 2);
  },

  "F41 the body of a server that ignores the range is closed": async ({ stub, start }) => {
    const lambda = await start();
    const endless = {
      status: 200,
      headers: { "content-length": HUGE_BYTES },
      body: new Uint8Array(65_536).fill(97),
      then: { repeatAfterMs: 0 },
    };
    stub.scripts.set("endless-0", { GET: [endless] });
    stub.bytesSent = 0;
    const whole = await lambda.invoke(eventOf("endless"));
    assert.equal(whole.error, undefined);
    assert.equal([...stub.rows.values()][0].file_size, HUGE_BYTES);
    const sent = stub.bytesSent;
    // The sockets' buffers hold some megabytes that nobody reads.
    assert.ok(sent < 25 * 1024 ** 2, `${sent} bytes were sent`);
    assert.equal((await lambda.invoke(eventOf("small"))).error, undefined);
    assert.equal(stub.bytesSent, sent + PREFIX_BYTES); // and no more of it came
  },
};

/** Init went well, ended soon, and left nothing that keeps the process alive. */
async function assertInit(lambda: FunctionProcess) {
  const { error, ms } = lambda.init;
  assert.equal(error, undefined);
  assert.ok(ms < SOON_MS, `${ms} ms`);
  assert.equal(await lambda.end(), 0);
}

const SSE_C = s3Error(
  400,
  "InvalidRequest",
  "The object was stored using a form of Server Side Encryption. The correct parameters must be " +
    "provided to retrieve the object.",
);
const HTML: Answer = { status: 502, body: "<h1>502 Bad Gateway</h1>" };
const RESET: Answer = { then: "reset" };
const HALF = { status: 206, headers: { "content-length": PREFIX_BYTES }, body: "half" };
const CUT: Answer = { ...HALF, then: "reset" };
const CUT_CHUNKED: Answer = { status: 206, body: "half", then: "reset" };
const CUT_JSON: Answer = { ...CUT, status: 200, body: '{"Attri', isApplied: true };
const APPLIED_500: Answer = { ...tableError(500, "InternalServerError"), isApplied: true };
const APPLIED_RESET: Answer = { ...RESET, isApplied: true };
const EXCEEDED = "400 ProvisionedThroughputExceededException";
const BROKEN = /BrokenBodyError: .* after 4 bytes/;

/** What happens to a call, the first times: an answer, or a refusal as "404 NoSuchKey". */
type Fault = Answer | string;

/** Then an object's calls, and how they end: with a preview or none, or an error and no row. */
type Case = [
  name: string,
  operation: "GET" | "PutItem",
  fault: Fault,
  times: number,
  calls: string,
  end: "text" | "no text" | RegExp,
];

const CASES: Case[] = [
  ["F30 a key with line feeds and NUL", "GET", "", 0, "GET PUT", "text"],
  ["F57 deleted", "GET", "404 NoSuchKey", 1, "GET PUT QUERY", "no text"],
  ["F67 archived", "GET", "403 InvalidObjectState", 1, "GET HEAD PUT", "no text"],
  ["F81 under SSE-C", "GET", SSE_C, 1, "GET PUT QUERY", "no text"],
  ["F58 F59 denied once", "GET", "403 AccessDenied", 1, "GET", /AccessDenied.*HTTP 403/],
  ["F60 throttled twice", "GET", "503 SlowDown", 2, "GET GET GET PUT", "text"],
  ["F61 500 for ever", "GET", "500 InternalError", 3, "GET GET GET", /InternalError/],
  ["F62 reset before the answer", "GET", RESET, 1, "GET GET PUT", "text"],
  ["F63 reset in the body", "GET", CUT, 1, "GET GET PUT", "text"],
  ["F64 a body that always breaks", "GET", CUT, 3, "GET GET GET", BROKEN],
  ["F64 a chunked body that always breaks", "GET", CUT_CHUNKED, 3, "GET GET GET", BROKEN],
  ["F66 502 with HTML", "GET", HTML, 3, "GET GET GET", /Cannot read "F66 .*HTTP 502/],
  ["F69 throttled twice", "PutItem", EXCEEDED, 2, "GET PUT PUT PUT", "text"],
  ["F70 throttled", "PutItem", "400 ThrottlingException", 4, "GET PUT PUT PUT PUT", /Thrott/],
  ["F71 500 after the write", "PutItem", APPLIED_500, 1, "GET PUT PUT", "text"],
  ["F72 reset after the write", "PutItem", APPLIED_RESET, 1, "GET PUT PUT", "text"],
  ["F73 no table", "PutItem", "400 ResourceNotFoundException", 1, "GET PUT", /ResourceNotF/],
  ["F73 not valid", "PutItem", "400 ValidationException", 1, "GET PUT", /Validation/],
  ["F74 a cut answer to the write", "PutItem", CUT_JSON, 4, "GET PUT PUT PUT PUT", /Cannot write/],
  ["F84 another region", "GET", "301 PermanentRedirect", 1, "GET", /Redirect.*HTTP 301/],
];

function scriptOf(operation: "GET" | "PutItem", fault: Fault, times: number): Script {
  const [status, code] = String(fault).split(" ");
  const refuse = operation === "GET" ? s3Error : tableError;
  const answer = typeof fault === "string" ? refuse(Number(status), code) : fault;
  return { [operation]: Array(times).fill(answer) };
}

/** Here and not in the pipeline: the stand-in's IAM does not match a line feed in a key. */
const KEY_END = "\r\n\0";

const FAULTS: Record<string, (setup: Setup) => Promise<void>> = {
  "the bundle under faults": async (setup) => {
    const ran = await runTwice(setup);
    for (const testCase of CASES) await setup.t.step(testCase[0], () => assertCase(ran, testCase));
    for (const [name, check] of Object.entries(CHECKS)) {
      await setup.t.step(name, () => check(ran));
    }
  },

  "F65 no answer, a silent body and bytes that drip are given up in time": async (
    { stub, start },
  ) => {
    const lambda = await start({ ATTEMPT_TIMEOUT_MS: "500", CALL_TIMEOUT_MS: "2500" });
    stub.scripts.set("silent", scriptOf("GET", { then: "silence" }, 3));
    stub.scripts.set("silent-body", scriptOf("GET", { ...HALF, then: "silence" }, 3));
    stub.scripts.set("drip", scriptOf("GET", { ...HALF, then: { repeatAfterMs: 100 } }, 3));
    const failing = [...stub.scripts.keys()];
    const ran = await lambda.invoke(toEvent("bucket", [...failing, "good"], USUAL_BYTES));
    assert.match(ran.error!, /^RecordsFailedError: 3 of 4 records failed: /);
    const errorOf = (key: string) => linesOf(ran).find(({ file_key }) => file_key === key)!.error!;
    assert.match(errorOf("silent"), /TimeoutError/);
    assert.match(errorOf("silent-body"), /BrokenBodyError/);
    assert.match(errorOf("drip"), /OutOfTimeError: no answer within 2500 ms/);
    assert.ok(ran.ms < 5000, `${ran.ms} ms`); // no call after a call that failed
    assert.deepEqual([...stub.rows.values()].map(({ file_key }) => file_key), ["good"]);
  },

  "F57a a new stack does not take S3's 404 for a fact, by GET or HEAD": async ({ stub, start }) => {
    const minuteAgo = new Date(Date.now() - 60_000).toISOString();
    const lambda = await start({ STACK_CREATED: minuteAgo });
    const notFound = s3Error(404, "NoSuchKey");
    stub.scripts.set("new", { GET: [notFound], HEAD: [notFound] });
    for (const size of [4, 0]) {
      const { error } = await lambda.invoke(toEvent("bucket", ["new"], size));
      assert.match(error!, /(NoSuchKey|NotFound) \(HTTP 404\): until .*, 15 minutes after/);
    }
    assert.equal(stub.rows.size, 0);
  },

  "F76 without time left no record is begun": async ({ stub, start }) => {
    const lambda = await start({ WARM_UP: "off" });
    const { error } = await lambda.invoke(eventOf("late"), { remainingMs: 2500 });
    assert.match(error!, /OutOfTimeError: Cannot begin "late-0": no time left in this run/);
    assert.equal(stub.requests.length, 0);
  },

  "F77 without its names the function does not start, and says why": async ({ start }) => {
    const cases = [
      ["TABLE_NAME", undefined, "not set"],
      ["BUCKET_NAME", undefined, "not set"],
      ["STACK_CREATED", "soon", "no time"],
    ] as const;
    for (const [name, value, why] of cases) {
      const { init } = await start({ [name]: value });
      assert.equal(init.error, `Error: Cannot start: the environment variable ${name} is ${why}`);
    }
  },
};

type Ran = Awaited<ReturnType<typeof runTwice>>;

/** All cases are records of one event. It comes twice, and the second time nothing fails. */
async function runTwice({ stub, start }: Setup) {
  for (const [name, operation, fault, times] of CASES) {
    stub.scripts.set(name + KEY_END, scriptOf(operation, fault, times));
  }
  // With these limits no call is repeated only because the machine is busy.
  const limits = { ATTEMPT_TIMEOUT_MS: "20000", CALL_TIMEOUT_MS: "60000" };
  const lambda = await start({ ...limits, TZ: "Asia/Kathmandu" });
  const keys = CASES.map(([name]) => encodeURIComponent(name + KEY_END));
  const event = toEvent("bucket", keys, USUAL_BYTES);
  const first = await lambda.invoke(event);
  const requests = stub.requests.splice(0);
  const rows = [...stub.rows.values()];
  const second = await lambda.invoke(event);
  return { stub, event, first, requests, rows, second, rowsAfter: [...stub.rows.values()] };
}

function assertCase({ first, requests, rows }: Ran, [name, , fault, , calls, end]: Case) {
  const key = name + KEY_END;
  const lines = linesOf(first).filter(({ file_key }) => file_key === key);
  assert.equal(lines.length, 1);
  const [{ outcome, error }] = lines;
  const isThrown = end instanceof RegExp;
  if (isThrown) assert.match(error!, end);
  const isApplied = typeof fault === "object" && fault.isApplied;
  assert.equal(outcome, isThrown ? "failed" : isApplied ? "unchanged" : "written");
  const made = requests.filter((request) => request.key === key);
  const names = made.map(({ operation }) => operation.replace("Item", "").toUpperCase());
  assert.equal(names.join(" "), calls);
  const previews = rows.filter(({ file_key }) => file_key === key)
    .map(({ file_size, content_preview }) => [file_size, content_preview]);
  const row = [USUAL_BYTES, end === "no text" ? undefined : PREVIEW];
  assert.deepEqual(previews, isThrown && !isApplied ? [] : [row]);
}

function linesOf({ log }: Invocation): LogLine[] {
  return log.map((line) => JSON.parse(line));
}

const CHECKS: Record<string, (ran: Ran) => void> = {
  "F21 the retry writes only what failed, exact": ({ first, second, rows, rowsAfter }) => {
    const failures = CASES.filter((testCase) => testCase.at(-1) instanceof RegExp).length;
    const message = `RecordsFailedError: ${failures} of ${CASES.length} records failed: Cannot `;
    assert.ok(first.error?.startsWith(message), first.error);
    assert.equal(second.error, undefined);
    assert.deepEqual(rowsAfter.slice(0, rows.length), rows);
    const added = rowsAfter.slice(rows.length);
    const written = linesOf(second).filter(({ outcome }) => outcome === "written");
    assert.deepEqual(keysOf(added), keysOf(written));
    assert.ok(added.every(({ content_preview }) => content_preview === PREVIEW));
    assert.deepEqual(keysOf(rowsAfter), CASES.map(([name]) => name + KEY_END).sort());
  },

  "F78 another time zone changes no time": ({ stub, event, rows }) => {
    const { eventTime } = event.Records[0];
    const modified = `${stub.modified.toISOString().slice(0, -5)}.000Z`; // as HTTP tells it
    for (const { timestamp, last_modified = modified, processed_at } of rows) {
      assert.deepEqual([timestamp, last_modified], [eventTime, modified]);
      assert.ok(Math.abs(Date.parse(processed_at) - Date.parse(eventTime)) < 60_000, processed_at);
    }
  },
};

function keysOf(lines: { file_key?: string }[]) {
  return lines.map(({ file_key }) => file_key).sort();
}
