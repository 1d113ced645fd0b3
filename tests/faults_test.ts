/**
 * The built bundle in the runtime's own Node version, against a stand-in behind a proxy that breaks
 * things (microburst), and against a server that answers as no proxy can. Timeouts are small here;
 * steps are named by the number of the fault that FAULTS.md lists.
 */

import assert from "node:assert/strict";
import { forEachParallel } from "../function/parallel.ts";
import {
  breakBy,
  BUCKET,
  CALL_TIMEOUT_MS,
  countRequests,
  type Setup,
  startSetup,
} from "./faults_setup.ts";
import { toEvent } from "./fixtures.ts";
import type { FunctionProcess } from "./function_process.ts";
import { HUGE_BYTES, OddServer } from "./odd_server.ts";
import { countingProxy, firstAnswer500Proxy, forward, serveLocally } from "./proxies.ts";

const TEXT = "Gr\u00fc\u00dfe \ud83d\ude00 ".repeat(400); // 5,600 bytes: more than is read
const TEXT_BYTES = new TextEncoder().encode(TEXT).length;
const PREVIEW = Array.from(TEXT).slice(0, 500).join("");

/** Two tries of a broken body more, each after the SDK's longest backoff. */
const READ_BACKOFF_MS = 3500;

/** What microburst does to a call, the first `times` times or always. */
type Fault = string | Record<string, unknown>;
const get = (fault: Fault, times?: number) => rule("s3", "GetObject", fault, times);
const put = (fault: Fault, times?: number) => rule("dynamodb", "PutItem", fault, times);

/** A fault that is a text is an error as "404 NoSuchKey". */
function rule(service: string, operation: string, fault: Fault, times?: number) {
  if (typeof fault !== "string") return { service, operation, times, ...fault };
  const [status, code] = fault.split(" ");
  return { service, operation, times, error: { code, status: Number(status) } };
}

/** The row: with preview, without, none, or none until the same event comes again. */
type RowWith = "preview" | "no preview" | "no row" | "retry";

const CASES: [
  name: string,
  fault: ReturnType<typeof rule>,
  row: RowWith,
  s3Requests: number,
  dynamodbRequests: number,
  error?: RegExp,
][] = [
  ["F57 the object is gone", get("404 NoSuchKey"), "no preview", 1, 2],
  ["F57 the version is gone", get("404 NoSuchVersion"), "no preview", 1, 2],
  ["F57 the version is a delete marker", get("405 MethodNotAllowed"), "no preview", 1, 2],
  ["F11 overwritten since, no versions", get("412 PreconditionFailed"), "no preview", 1, 2],
  ["F37 empty by now", get("416 InvalidRange"), "no preview", 2, 1],
  ["F67 archived", get("403 InvalidObjectState"), "no preview", 2, 1],
  ["F58 denied", get("403 AccessDenied"), "no row", 1, 0, /AccessDenied.*HTTP 403/],
  ["F59 denied once", get("403 AccessDenied", 1), "retry", 1, 0, /AccessDenied/],
  ["F60 throttled twice", get("503 SlowDown", 2), "preview", 3, 1],
  ["F61 500 for ever", get("500 InternalError"), "no row", 3, 0, /InternalError/],
  ["F62 reset before headers, once", get({ reset: true }, 1), "preview", 2, 1],
  ["F63 reset in the body, once", get({ response: { abort_frac: 0.5 } }, 1), "preview", 2, 1],
  [
    "F64 reset in the body for ever",
    get({ response: { abort_frac: 0.5 } }),
    "no row",
    3,
    0,
    /BrokenBodyError: the body broke/,
  ],
  ["F65 no answer", get({ timeout_ms: 60_000 }), "no row", 3, 0, /TimeoutError|OutOfTimeError/],
  ["F68 the key is disabled", get("400 KMS.DisabledException"), "no row", 1, 0, /KMS.Disabled/],
  [
    "F69 throttled twice",
    put("400 ProvisionedThroughputExceededException", 2),
    "preview",
    1,
    3,
  ],
  [
    "F70 throttled for ever",
    put("400 ThrottlingException"),
    "no row",
    1,
    4,
    /ThrottlingException|OutOfTimeError/,
  ],
  ["F72 reset after the write", put({ response: { abort_bytes: 0 } }, 1), "preview", 1, 2],
  ["F73 no such table", put("400 ResourceNotFoundException"), "no row", 1, 1, /ResourceNotFound/],
  ["F73 write denied", put("400 AccessDeniedException"), "no row", 1, 1, /AccessDenied/],
  ["F73 not valid", put("400 ValidationException"), "no row", 1, 1, /ValidationException/],
  ["F80 the bucket is gone", get("404 NoSuchBucket"), "no row", 1, 0, /"faults": NoSuchBucket/],
  ["F84 another region", get("301 PermanentRedirect"), "no row", 1, 0, /Redirect.*HTTP 301/],
  ["F84 an expired token", get("400 ExpiredToken"), "no row", 1, 0, /ExpiredToken.*HTTP 400/],
];

Deno.test("the bundle under faults", async (t) => {
  await using resources = new AsyncDisposableStack();
  const setup = await startSetup(resources);
  const lambda = await setup.startFunction({ AWS_ENDPOINT_URL: setup.proxy });
  await warmUp(setup, lambda);
  for (const [index, testCase] of CASES.entries()) {
    await t.step(testCase[0], () => underFault(setup, lambda, `${index}.txt`, testCase));
  }
  for (const [name, step] of Object.entries(STEPS)) await t.step(name, () => step(setup, lambda));
  await t.step("answers that S3 should not give", async (t) => {
    using server = new OddServer();
    const endpoints = { AWS_ENDPOINT_URL: setup.standIn, AWS_ENDPOINT_URL_S3: server.url };
    const lambda = await setup.startFunction(endpoints);
    await lambda.invoke(eventOf(["cold"]));
    for (const oddCase of ODD_CASES) {
      await t.step(oddCase.name, () => underOddAnswer(setup, lambda, server, oddCase));
    }
  });
});

/** Takes the time that the servers' first answers and the function's first event need. */
async function warmUp(setup: Setup, lambda: FunctionProcess) {
  await setup.putObject("cold", TEXT);
  const patient = { ATTEMPT_TIMEOUT_MS: "60000", CALL_TIMEOUT_MS: "60000" };
  const other = await setup.startFunction({ AWS_ENDPOINT_URL: setup.proxy, ...patient });
  for (const size of [TEXT_BYTES, 0]) { // by a GET, by a HEAD
    for (const each of [other, lambda]) {
      assert.equal((await each.invoke(eventOf(["cold"], size))).error, undefined);
    }
  }
}

async function underFault(
  setup: Setup,
  lambda: FunctionProcess,
  key: string,
  [, fault, row, s3, dynamodb, error]: typeof CASES[number],
) {
  await setup.putObject(key, TEXT);
  await breakBy(setup.proxy, [fault]);
  const before = await countRequests(setup.proxy);
  const ended = await lambda.invoke(eventOf([key]));
  const after = await countRequests(setup.proxy);
  await breakBy(setup.proxy, []);

  if (error) {
    assert.match(ended.error ?? "", /^RecordsFailedError: 1 of 1 records failed: Cannot /);
    assert.match(ended.error!, error);
  } else assert.equal(ended.error, undefined);
  const requests = { s3: after.s3 - before.s3, dynamodb: after.dynamodb - before.dynamodb };
  assert.deepEqual(requests, { s3, dynamodb });
  // One read and one write, each within its limit.
  assert.ok(ended.ms < 2 * CALL_TIMEOUT_MS + 500, `${ended.ms} ms`);
  assert.equal(ended.log.length, 1);
  assert.equal(ended.log.join().includes("Gr\u00fc\u00dfe"), false);

  const contents = async () =>
    (await setup.rowsOf(key)).map((row) => [Number(row.file_size.N), row.content_preview?.S]);
  const whole = [[TEXT_BYTES, PREVIEW]];
  const rows = { "preview": whole, "no preview": [[TEXT_BYTES, undefined]] };
  assert.deepEqual(await contents(), rows[row as keyof typeof rows] ?? []);
  if (row !== "retry") return;
  assert.equal((await lambda.invoke(eventOf([key]))).error, undefined);
  assert.deepEqual(await contents(), whole);
}

interface OddCase {
  name: string;
  key: string;
  error?: RegExp;
  row?: [size: number, preview: string];
}

const A500 = "a".repeat(500);

const ODD_CASES: OddCase[] = [
  { name: "F40 5 GB, of which the range is read", key: "large", row: [HUGE_BYTES, A500] },
  { name: "F41 200 with an endless body", key: "endless", row: [HUGE_BYTES, A500] },
  { name: "F64 a body shorter than announced", key: "short", error: /BrokenBodyError/ },
  { name: "F64 a chunked body cut off", key: "cut-chunked", error: /BrokenBodyError/ },
  {
    name: "F65 headers, then silence",
    key: "silent-body",
    error: /BrokenBodyError|OutOfTimeError/,
  },
  {
    name: "F65 a byte every 100 ms",
    key: "drip",
    error: /OutOfTimeError: no answer within 8000 ms/,
  },
  { name: "F65 nothing at all", key: "silent", error: /TimeoutError|OutOfTimeError/ },
  {
    name: "F66 502 with HTML",
    key: "html",
    error: /Cannot read "html" from "faults": .*HTTP 502/,
  },
];

async function underOddAnswer(
  setup: Setup,
  lambda: FunctionProcess,
  server: OddServer,
  { key, error, row }: OddCase,
) {
  const good = `good-${key}`;
  const ended = await lambda.invoke(eventOf([key, good]));
  assert.ok(ended.ms < 2 * CALL_TIMEOUT_MS + READ_BACKOFF_MS, `${ended.ms} ms`);
  if (error) assert.match(ended.error!, error);
  else assert.equal(ended.error, undefined);
  const rows = await setup.rowsOf(key);
  assert.deepEqual(
    rows.map(({ file_size, content_preview }) => [Number(file_size.N), content_preview?.S]),
    row ? [row] : [],
  );
  // The event's other record is done all the same.
  assert.equal((await setup.rowsOf(good))[0].content_preview.S, "good");
  assert.ok(server.heads.every((head) => /^range: bytes=0-2047\r?$/im.test(head)));
}

const STEPS: Record<string, (setup: Setup, lambda: FunctionProcess) => Promise<void>> = {
  "F57a 404 in the stack's first 15 minutes is thrown, by GET and HEAD; then it is a fact": async (
    setup,
  ) => {
    await setup.putObject("early.txt", TEXT);
    const startAged = (minutes: number) => {
      const created = new Date(Date.now() - minutes * 60_000).toISOString();
      return setup.startFunction({ AWS_ENDPOINT_URL: setup.proxy, STACK_CREATED: created });
    };
    const early = await startAged(1);
    await early.invoke(eventOf(["cold"]));
    await breakBy(setup.proxy, [get("404 NoSuchKey", 1)]);
    const message =
      /(NoSuchKey|NotFound) \(HTTP 404\): until .*, 15 minutes after the stack was made/;
    const first = await early.invoke(eventOf(["early.txt"]));
    assert.match(first.error!, message);
    assert.equal((await setup.rowsOf("early.txt")).length, 0);
    assert.equal((await early.invoke(eventOf(["early.txt"]))).error, undefined);
    assert.equal((await setup.rowsOf("early.txt"))[0].content_preview.S, PREVIEW);

    assert.match((await early.invoke(eventOf(["missing.txt"], 0))).error!, message);
    const old = await startAged(16);
    assert.equal((await old.invoke(eventOf(["missing.txt"], 0))).error, undefined);
    assert.equal((await setup.rowsOf("missing.txt")).length, 1);
  },

  "F71 500 after the write was applied": async (setup) => {
    await setup.putObject("applied.txt", TEXT);
    await using server = firstAnswer500Proxy(setup.standIn);
    const lambda = await setup.startFunction({
      AWS_ENDPOINT_URL: setup.standIn,
      AWS_ENDPOINT_URL_DYNAMODB: server.url,
    });
    const { error, log } = await lambda.invoke(eventOf(["applied.txt"]));
    assert.equal(error, undefined);
    assert.equal(JSON.parse(log[0]).outcome, "unchanged"); // by its own first write
    assert.equal(server.requests, 2);
    assert.equal((await setup.rowsOf("applied.txt")).length, 1);
  },

  "F21 the second of three records fails, and the retry writes only that one": async (setup) => {
    for (const key of ["one", "two", "three"]) await setup.putObject(key, key);
    let denied = true;
    await using server = serveLocally((request) => {
      const { pathname } = new URL(request.url);
      const refused = denied && pathname === `/${BUCKET}/two`;
      if (refused) return Promise.resolve(new Response(null, { status: 403 }));
      return forward(setup.standIn, request);
    });
    const lambda = await setup.startFunction({ AWS_ENDPOINT_URL: server.url });
    const event = eventOf(["one", "two", "three"]);
    const first = await lambda.invoke(event);
    denied = false;
    const message = /1 of 3 records failed: Cannot read "two" from "faults": .*HTTP 403/;
    assert.match(first.error!, message);
    const before = await setup.rowsOf("one");
    assert.equal((await setup.rowsOf("two")).length, 0);
    const second = await lambda.invoke(event);
    assert.equal(second.error, undefined);
    const outcomes = second.log.map((line) => JSON.parse(line))
      .map(({ file_key, outcome }) => `${file_key} ${outcome}`);
    assert.deepEqual(outcomes.sort(), ["one unchanged", "three unchanged", "two written"]);
    assert.deepEqual(await setup.rowsOf("one"), before);
  },

  "F22 1,000 records in one event, two calls each, on few connections": async (setup) => {
    const keys = Array.from({ length: 1000 }, (_, i) => `many/${i}`);
    await forEachParallel(keys, 32, (key) => setup.putObject(key, key));
    await using counter = countingProxy(setup.standIn);
    const lambda = await setup.startFunction({
      AWS_ENDPOINT_URL: counter.url,
      CALL_TIMEOUT_MS: "20000",
      ATTEMPT_TIMEOUT_MS: "20000",
    });
    const { error } = await lambda.invoke(eventOf(keys), { remainingMs: 300_000 });
    assert.equal(error, undefined);
    assert.equal(counter.requests.length, 2000);
    const { mostAtOnce } = counter;
    assert.ok(mostAtOnce > 8 && mostAtOnce <= 32, `${mostAtOnce} at once`);
    assert.equal(await setup.countRows("many/"), 1000);
  },

  "F39 2,048 bytes of any object are read, in two calls, never without a range": async (setup) => {
    await using counter = countingProxy(setup.standIn);
    const lambda = await setup.startFunction({ AWS_ENDPOINT_URL: counter.url });
    for (const size of [1, 2047, 2048, 2049, 8_000_000]) {
      const key = `${size} bytes`;
      await setup.putObject(key, "a".repeat(size));
      counter.requests.length = 0;
      const encoded = encodeURIComponent(key);
      assert.equal((await lambda.invoke(eventOf([encoded]))).error, undefined);
      const [read, write] = counter.requests;
      assert.equal(counter.requests.length, 2);
      const { range, bytes } = read;
      assert.deepEqual({ range, bytes }, { range: "bytes=0-2047", bytes: Math.min(size, 2048) });
      assert.equal(write.method, "POST");
      assert.equal((await setup.rowsOf(key))[0].file_size.N, String(size));
    }
    await setup.putObject("empty", "");
    counter.requests.length = 0;
    assert.equal((await lambda.invoke(eventOf(["empty"], 0))).error, undefined);
    assert.deepEqual(counter.requests.map(({ method }) => method), ["HEAD", "POST"]);
  },

  "F90 F91 F92 F93 a job's task, under faults and twice": async (setup) => {
    // Objects are old at once.
    const env = { AWS_ENDPOINT_URL: setup.proxy, ON_TIME_MS: "1" };
    const lambda = await setup.startFunction(env);
    await setup.putObject("a task", TEXT);
    const { LastModified } = await setup.headObject("a task");
    const answerTo = async (s3Key: string) => {
      const tasks = [{ taskId: "1", s3Key, s3VersionId: null, s3Bucket: BUCKET }];
      const invocation = { invocationSchemaVersion: "2.0", invocationId: "i", job: {}, tasks };
      const { error, answer } = await lambda.invoke(invocation);
      assert.equal(error, undefined);
      const [{ resultCode, resultString }] = (answer as { results: Record<string, string>[] })
        .results;
      return `${resultCode}: ${resultString}`;
    };
    for (const fault of [get("503 SlowDown"), get({ timeout_ms: 60_000 }), put("500 Internal")]) {
      await breakBy(setup.proxy, [fault]);
      assert.match(
        await answerTo("a+task"),
        /^TemporaryFailure: Cannot (read|write the row of) "a/,
      );
    }
    await breakBy(setup.proxy, []);
    assert.equal((await setup.rowsOf("a task")).length, 0);
    assert.equal(await answerTo("a+task"), "Succeeded: written");
    const rows = await setup.rowsOf("a task");
    const before = await countRequests(setup.proxy);
    assert.equal(await answerTo("a+task"), "Succeeded: unchanged");
    const { dynamodb } = await countRequests(setup.proxy);
    assert.equal(dynamodb - before.dynamodb, 1); // its row is found: it is not put again
    assert.deepEqual(await setup.rowsOf("a task"), rows);
    const [{ timestamp, event_name, content_preview }] = rows;
    assert.deepEqual(
      [rows.length, timestamp.S, event_name.S, content_preview.S],
      [1, LastModified!.toISOString().replace("Z", "000Z"), "ObjectCreated:Backfill", PREVIEW],
    );
    assert.equal(await answerTo("gone"), "Succeeded: ignored: gone");
    assert.equal((await setup.rowsOf("gone")).length, 0);
  },

  "F74 cut JSON from PutItem": async (setup) => {
    await setup.putObject("cut-json", TEXT);
    using server = new OddServer();
    const lambda = await setup.startFunction({
      AWS_ENDPOINT_URL: setup.standIn,
      AWS_ENDPOINT_URL_DYNAMODB: server.url,
    });
    const { error } = await lambda.invoke(eventOf(["cut-json"]));
    assert.match(error!, /Cannot write the row of "cut-json" from "faults"/);
    const again = await setup.startFunction({ AWS_ENDPOINT_URL: setup.standIn });
    assert.equal((await again.invoke(eventOf(["cut-json"]))).error, undefined);
    assert.equal((await setup.rowsOf("cut-json")).length, 1);
  },

  // Here and not in the pipeline: the stand-in's IAM does not match a line feed in a key.
  "F30 a key with line feeds, and NUL": async (setup) => {
    const key = "new\nline \r\n\0";
    const withoutNul = key.replace("\0", "");
    const lambda = await setup.startFunction({ AWS_ENDPOINT_URL: setup.standIn });
    await setup.putObject(withoutNul, "text");
    const read = await lambda.invoke(eventOf([encodeURIComponent(withoutNul)]));
    assert.equal(read.error, undefined);
    assert.equal((await setup.rowsOf(withoutNul))[0].content_preview.S, "text");
    await lambda.invoke(eventOf([encodeURIComponent(key)])); // of an object that is gone
    assert.equal((await setup.rowsOf(key)).length, 1);
  },

  "F76 without time left no record is begun": async (_, lambda) => {
    const { error } = await lambda.invoke(eventOf(["late"]), { remainingMs: 2500 });
    assert.match(error!, /OutOfTimeError: Cannot begin "late": no time left in this run/);
  },

  "F77 without TABLE_NAME the function does not start, and says why": async (setup) => {
    const cases = [["TABLE_NAME", undefined, "not set"], [
      "STACK_CREATED",
      "soon",
      "no time",
    ]] as const;
    for (const [name, value, why] of cases) {
      const { init } = await setup.startFunction({ [name]: value });
      assert.equal(init.error, `Error: Cannot start: the environment variable ${name} is ${why}`);
    }
  },

  "F78 another time zone changes no time": async (setup) => {
    await setup.putObject("zone", TEXT);
    const env = { AWS_ENDPOINT_URL: setup.standIn, TZ: "Asia/Kathmandu" };
    const lambda = await setup.startFunction(env);
    const event = eventOf(["zone"]);
    const { log } = await lambda.invoke(event);
    const [{ eventTime }] = event.Records;
    const [row] = await setup.rowsOf("zone");
    const line = JSON.parse(log[0]);
    assert.equal(line.event_time, eventTime);
    const { LastModified } = await setup.headObject("zone");
    assert.equal(row.timestamp.S, eventTime);
    assert.equal(row.last_modified.S, LastModified!.toISOString());
    for (const time of [row.processed_at.S!, line.timestamp]) {
      assert.ok(Math.abs(Date.parse(time) - Date.now()) < 60_000, time);
    }
  },

  "F80 another bucket is refused, asked for or not": async (setup) => {
    await using counter = countingProxy(setup.standIn);
    const env = { AWS_ENDPOINT_URL: counter.url };
    const unaware = await setup.startFunction({ ...env, BUCKET_NAME: undefined });
    const aware = await setup.startFunction({ ...env, BUCKET_NAME: BUCKET });
    for (const size of [4, 0]) { // by GET, and by HEAD, whose 404 has no body
      const event = toEvent("other", ["test/key"], size);
      const asked = await unaware.invoke(event);
      assert.match(asked.error!, /Cannot read "test\/key" from "other": NoSuchBucket/);
      const before = counter.requests.length;
      const refused = await aware.invoke(event);
      assert.match(refused.error!, /its bucket is not this function's, "faults" .*"other"/);
      assert.equal(counter.requests.length, before);
    }
    assert.deepEqual(counter.requests.map(({ method }) => method), ["GET", "HEAD", "GET"]);
    assert.equal((await setup.rowsOf("test/key")).length, 0);
  },

  "F81 an object under the customer's own key gets its row": async (setup) => {
    await using server = serveLocally(({ method }) => {
      const headers = { "content-type": "application/xml" };
      const body = method === "HEAD" ? null : SSE_C;
      return Promise.resolve(new Response(body, { status: 400, headers }));
    });
    const lambda = await setup.startFunction({
      AWS_ENDPOINT_URL: setup.standIn,
      AWS_ENDPOINT_URL_S3: server.url,
    });
    for (const [key, size] of [["sse-c", 4], ["sse-c-empty", 0]] as const) {
      const { error, log } = await lambda.invoke(eventOf([key], size));
      assert.equal(error, undefined);
      assert.equal(JSON.parse(log[0]).object, "customer-encrypted");
      const [row] = await setup.rowsOf(key);
      assert.deepEqual([row.file_size.N, row.content_preview], [String(size), undefined]);
    }
  },
};

/** S3's answer to a GET without the key of an object that was put with one (SSE-C). */
const SSE_C = `<Error><Code>InvalidRequest</Code><Message>The object was stored using a form of \
Server Side Encryption. The correct parameters must be provided to retrieve the object.</Message>\
</Error>`;

function eventOf(encodedKeys: string[], size = TEXT_BYTES) {
  return toEvent(BUCKET, encodedKeys, size);
}
