/**
 * What becomes of faults on the way to S3 and DynamoDB: the built bundle in the runtime's own Node,
 * over TLS. What the rules make of each refusal is handler_test.ts's; here the SDK is between.
 */

import assert from "node:assert/strict";
import { type LogLine, PREFIX_BYTES, PREVIEW_CHARACTERS } from "../handler.ts";
import { toEvent } from "./fixtures.ts";
import {
  builtFunction,
  type Environment,
  type FunctionProcess,
  type Invocation,
} from "./function_process.ts";
import {
  type Answer,
  contentOf,
  s3Error,
  type Script,
  Stub,
  tableError,
  USUAL_BYTES,
} from "./stub.ts";

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
  ["F73 denied", "PutItem", "400 AccessDeniedException", 1, "GET PUT", /AccessDenied/],
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

interface Setup {
  stub: Stub;
  /** Starts the function in front of the stub; without a warm-up, as calls are counted. */
  start(env?: Environment): Promise<FunctionProcess>;
}

Deno.test("the bundle under faults", async (t) => {
  await using resources = new AsyncDisposableStack();
  const { start } = await builtFunction(resources);
  const withStub = async (work: (setup: Setup) => Promise<void>) => {
    await using stub = await Stub.start();
    await work({ stub, start: (env) => start(stub.server.url, { WARM_UP: "off", ...env }) });
  };
  await withStub(async (setup) => {
    const ran = await runTwice(setup);
    for (const testCase of CASES) await t.step(testCase[0], () => assertCase(ran, testCase));
    for (const [name, check] of Object.entries(CHECKS)) await t.step(name, () => check(ran));
  });
  for (const [name, step] of Object.entries(STEPS)) await t.step(name, () => withStub(step));
});

type Ran = Awaited<ReturnType<typeof runTwice>>;

/** All cases are records of one event. It comes twice, and the second time nothing fails. */
async function runTwice({ stub, start }: Setup) {
  for (const [name, operation, fault, times] of CASES) {
    stub.scripts.set(name + KEY_END, scriptOf(operation, fault, times));
  }
  // With these limits no call is repeated only because the machine is busy.
  const limits = { ATTEMPT_TIMEOUT_MS: "20000", CALL_TIMEOUT_MS: "60000" };
  const lambda = await start({ ...limits, TZ: "Asia/Kathmandu" });
  const event = eventOf(CASES.map(([name]) => name + KEY_END));
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

const STEPS: Record<string, (setup: Setup) => Promise<void>> = {
  "F65 no answer, a silent body and bytes that drip are given up in time": async (setup) => {
    const { stub, start } = setup;
    const [ATTEMPT_TIMEOUT_MS, CALL_TIMEOUT_MS] = ["500", "2500"];
    const lambda = await start({ ATTEMPT_TIMEOUT_MS, CALL_TIMEOUT_MS });
    stub.scripts.set("silent", scriptOf("GET", { then: "silence" }, 3));
    stub.scripts.set("silent-body", scriptOf("GET", { ...HALF, then: "silence" }, 3));
    stub.scripts.set("drip", scriptOf("GET", { ...HALF, then: { repeatAfterMs: 100 } }, 3));
    const failing = [...stub.scripts.keys()];
    const { error, log, ms } = await lambda.invoke(eventOf([...failing, "good"]));
    assert.match(error!, /^RecordsFailedError: 3 of 4 records failed: /);
    const errorOf = (key: string) =>
      log.map((line) => JSON.parse(line)).find(({ file_key }) => file_key === key).error;
    assert.match(errorOf("silent"), /TimeoutError/);
    assert.match(errorOf("silent-body"), /BrokenBodyError/);
    assert.match(errorOf("drip"), /OutOfTimeError: no answer within 2500 ms/);
    assert.ok(ms < 5000, `${ms} ms`); // no call after a call that failed
    assert.deepEqual([...stub.rows.values()].map(({ file_key }) => file_key), ["good"]);
  },

  "F57a a new stack does not take S3's 404 for a fact, by GET or HEAD": async ({ stub, start }) => {
    const minuteAgo = new Date(Date.now() - 60_000).toISOString();
    const lambda = await start({ STACK_CREATED: minuteAgo });
    const notFound = s3Error(404, "NoSuchKey");
    stub.scripts.set("new", { GET: [notFound], HEAD: [notFound] });
    for (const size of [4, 0]) {
      const { error } = await lambda.invoke(eventOf(["new"], size));
      assert.match(error!, /(NoSuchKey|NotFound) \(HTTP 404\): until .*, 15 minutes after/);
    }
    assert.equal(stub.rows.size, 0);
  },

  "F76 without time left no record is begun": async ({ stub, start }) => {
    const lambda = await start();
    const { error } = await lambda.invoke(eventOf(["late"]), { remainingMs: 2500 });
    assert.match(error!, /OutOfTimeError: Cannot begin "late": no time left in this run/);
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

  "F80 another bucket than its own is refused": async ({ stub, start }) => {
    const lambda = await start();
    const { error } = await lambda.invoke(toEvent("other", ["key"], USUAL_BYTES));
    assert.match(error!, /not this function's, "bucket" .*"other"/);
    assert.equal(stub.requests.length, 0);
  },
};

/** The preview of each object. */
const PREVIEW = contentOf(PREVIEW_CHARACTERS);

function eventOf(keys: string[], size = USUAL_BYTES) {
  return toEvent("bucket", keys.map(encodeURIComponent), size);
}
