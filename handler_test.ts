import assert from "node:assert/strict";
import { ATTRIBUTES, handleEvent, type LogLine } from "./handler.ts";
import { MAX_TEXT_LENGTH, OutOfTimeError, type SdkError } from "./function/errors.ts";
import { BrokenBodyError } from "./function/read.ts";
import {
  awsError,
  event,
  fakes,
  handleRecords,
  namesOfCalls,
  object,
  record,
  recordOf,
} from "./tests/outside.ts";

Deno.test("F1 F10 handleEvent() writes the row of a created object, every attribute of it", async () => {
  const Metadata = { a: "=?UTF-8?Q?=C3=A9?=" };
  const given = { StorageClass: "GLACIER_IR", Metadata, MissingMeta: 1 } as const;
  const { rows, aws, log } = await handleRecords(record({ key: "a+b.txt", size: 5 }), {
    objects: { "a b.txt": { ...object("Hello"), ...given } },
  });
  const row = {
    file_key: "a b.txt",
    timestamp: "2026-01-02T03:04:05.678Z",
    bucket_name: "uploads",
    event_name: "ObjectCreated:Put",
    processed_at: "2026-01-02T03:04:07.200Z",
    file_size: 5,
    content_type: "text/plain",
    last_modified: "2026-01-02T03:04:05.000Z",
    etag: "e1",
    version_id: "v1",
    sequencer: "0055AED6DCD90281E5",
  };
  const untold = {
    content_preview: "Hello",
    storage_class: "GLACIER_IR",
    user_metadata: { a: "é" },
  };
  assert.deepEqual(rows, [{ ...row, ...untold }]);
  assert.deepEqual(Object.keys(rows[0]).toSorted(), ATTRIBUTES.toSorted());
  assert.deepEqual(aws, ["GET a b.txt v1", "PUT a b.txt"]);
  const { timestamp: event_time, ...fields } = row;
  const timestamp = "2026-01-02T03:04:07.500Z"; // the line's own: Lambda takes it for its time
  const line = { ...fields, event_time, object: undefined, missing_metadata: 1, duration_ms: 300 };
  assert.deepEqual(log, [{ timestamp, level: "INFO", outcome: "written", ...line }]);
});

Deno.test("F35 F36 handleEvent() asks for an empty object's HEAD in place of a GET", async () => {
  const { rows, aws } = await handleRecords(record({ key: "dir/", size: 0 }), {
    objects: { "dir/": object("") },
  });
  assert.deepEqual(aws, ["HEAD dir/ v1", "PUT dir/"]);
  assert.deepEqual([rows[0].file_size, rows[0].content_type], [0, "text/plain"]);
  assert.equal("content_preview" in rows[0], false);
});

Deno.test("handleEvent() succeeds without a row for events about nothing created", async (t) => {
  const ignored = (event_name: string) => ({ level: "WARN", outcome: "ignored", event_name });
  const test = { level: "INFO", outcome: "test", message: "S3 test event" };
  const named = (eventName: string) => event(record({}, { eventName }));
  const cases: [name: string, input: unknown, log: unknown[]][] = [
    ["F13 s3:TestEvent", { Service: "Amazon S3", Event: "s3:TestEvent" }, [test]],
    ["F15 no records", event(), []],
    ["F16 deleted", named("ObjectRemoved:Delete"), [ignored("ObjectRemoved:Delete")]],
    ["F16 tagged, prefixed", named("s3:ObjectTagging:Put"), [ignored("ObjectTagging:Put")]],
    ["F16 a prefix within", named("Xs3:Y"), [ignored("Xs3:Y")]],
  ];
  for (const [name, input, log] of cases) {
    await t.step(name, async () => {
      const { outside, calls } = fakes();
      await handleEvent(input, outside);
      assert.deepEqual(calls.aws, []);
      assert.deepEqual(calls.log.map(({ timestamp: _, ...line }) => line), log);
    });
  }
});

Deno.test("F14 handleEvent() throws for a payload that is no S3 event", async () => {
  for (const input of [undefined, null, {}, "text", 7, [], { Records: {} }, { Records: "x" }]) {
    await assert.rejects(handleEvent(input, fakes().outside), {
      name: "InvalidEventError",
      message: "Cannot handle the event: it has no list of Records",
    });
  }
});

/** What is named of a record. */
const NAMES = {
  bucket_name: "uploads",
  event_name: "ObjectCreated:Put",
  version_id: "v1",
  file_key: "key",
};
const NOTHING = Object.fromEntries(Object.keys(NAMES).map((name) => [name, undefined]));

const NO_SOURCE = "its eventSource is not aws:s3";
const NOT_OURS = 'its bucket is not this function\'s, "uploads"';
const BAD_KEY = "its key is not form-encoded UTF-8 of 1 to 1024 bytes";
const BAD_ID = "its versionId is no text of at most 1024 characters";
const BAD_TIME = "its eventTime ? is no ISO 8601 time since 1970 with a zone";

const LONG = "x".repeat(MAX_TEXT_LENGTH + 1);
const NAMELESS = [undefined, LONG];
const MAJORS = [undefined, "3.0", "12.0", "2.1x", "2.", 2.1];
const BUCKETS = [undefined, { name: 1 }, { name: LONG }];
const ESCAPES = ["100%", "%zz", "%C3", "\ud800", "k".repeat(1025), "%C3%A9".repeat(512) + "a"];
const IDS = [LONG, 7, {}, "\ud800"];
const TIMES = [
  ...[undefined, 1, "x", "2026-01-02T03:04:05", "2026-02-30T03:04:05Z", "0001-01-01T00:00:00Z"],
  ...["+2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z."],
];

/** A record with one field of its own, or one of its object's. */
const top = (name: string) => (value: unknown) => record({}, { [name]: value });
const inObject = (name: string) => (value: unknown) => record({ [name]: value });
const itself = (value: unknown) => value;

/** Values that make a record unreadable: why, where "?" is the value, and what else is named of it. */
const REFUSED: [
  name: string,
  toRecord: (value: unknown) => unknown,
  values: unknown[],
  why: string,
  names: Partial<LogLine>,
][] = [
  ["F17 another service", top("eventSource"), ["aws:sqs"], NO_SOURCE, {}],
  ["no record", itself, [null, [record()]], NO_SOURCE, NOTHING],
  ["F19 another version", top("eventVersion"), MAJORS, "its eventVersion ? is not 2.x", {}],
  ["no name", top("eventName"), NAMELESS, "it has no eventName", { event_name: undefined }],
  ["no bucket", recordOf, BUCKETS, "it names no bucket", { bucket_name: undefined }],
  ["F80 another bucket", recordOf, [{ name: "other" }], NOT_OURS, { bucket_name: "other" }],
  ["no key", inObject("key"), ["", undefined, 5, ["k"]], BAD_KEY, { file_key: undefined }],
  ["F26 a malformed key", inObject("key"), ESCAPES, BAD_KEY, { file_key: undefined }],
  ["F82 no version id", inObject("versionId"), IDS, BAD_ID, { version_id: undefined }],
  ["F85 no time", top("eventTime"), TIMES, BAD_TIME, {}],
];

Deno.test("F83 handleEvent() throws for a record that it cannot read, and names what it can, after doing the others", async (t) => {
  for (const [name, toRecord, values, why, others] of REFUSED) {
    for (const value of values) {
      await t.step(`${name}: ${JSON.stringify(value)?.slice(0, 40)}`, async () => {
        const input = [record({ key: "1" }), toRecord(value), record({ key: "3" })];
        const { error, rows, log } = await handleRecords(input);
        const encoded_key = name.startsWith("F26") ? clipped(value as string) : undefined;
        const names = Object.entries({ ...NAMES, ...others, encoded_key })
          .filter(([, value]) => value !== undefined);
        const list = names.map(([name, value]) => `${name} ${clipped(JSON.stringify(value))}`);
        const brackets = list.length > 0 ? ` (${list.join(", ")})` : "";
        const reason = why.replace("?", JSON.stringify(value) ?? "undefined");
        const message = clipped(`Cannot handle a record: ${reason}${brackets}`);
        const failure = `InvalidEventError: ${message}`;
        assert.equal(error, `RecordsFailedError: 1 of 3 records failed: ${failure}`);
        assert.deepEqual(rows.map((row) => row.file_key).sort(), ["1", "3"]);
        const { timestamp: _t, duration_ms: _d, ...line } = log.find((line) => line.error)!;
        const failed = { level: "ERROR", outcome: "failed", error: failure };
        assert.deepEqual(line, { ...failed, ...Object.fromEntries(names) });
      });
    }
  }
});

Deno.test("F18 handleEvent() takes any minor version and unknown fields", async () => {
  for (const eventVersion of ["2.0", "2.1", "2.10"]) {
    const { rows } = await handleRecords(record({}, { eventVersion, news: { a: 1 } }));
    assert.equal(rows.length, 1);
  }
});

const SSE_C = "The object was stored using a form of Server Side Encryption. The correct " +
  "parameters must be provided to retrieve the object.";
const notFound = awsError("NotFound", 404);
const refused = awsError("Unknown", 400);
const noKey = awsError("NoSuchKey", 404);
const noVersion = awsError("NoSuchVersion", 404);
const marker = awsError("MethodNotAllowed", 405);
const replaced = awsError("PreconditionFailed", 412);
const archived = awsError("InvalidObjectState", 403);
const emptyNow = awsError("InvalidRange", 416);
const sseC = awsError("InvalidRequest", 400, SSE_C);
const FACTS: [
  name: string,
  size: number,
  get: SdkError,
  heads: SdkError[],
  fact: string,
  aws: string,
][] = [
  ["F57 no key", 9, noKey, [], "deleted", "GET PUT QUERY"],
  ["F57 no key, empty", 0, noKey, [notFound], "deleted", "HEAD GET PUT QUERY"],
  ["F57 no version", 9, noVersion, [], "deleted", "GET PUT QUERY"],
  ["F57 a marker", 9, marker, [], "deleted", "GET PUT QUERY"],
  ["F57 a marker, empty", 0, marker, [awsError("U", 405)], "deleted", "HEAD GET PUT QUERY"],
  ["F11 overwritten", 9, replaced, [], "replaced", "GET PUT QUERY"],
  ["F11 the same, empty", 0, replaced, [awsError("U", 412)], "replaced", "HEAD GET PUT QUERY"],
  ["F37 empty by now", 9, emptyNow, [], "empty", "GET HEAD PUT"],
  ["F37 then deleted", 9, emptyNow, [notFound], "empty", "GET HEAD PUT QUERY"],
  ["F67 archived", 9, archived, [], "archived", "GET HEAD PUT"],
  ["F67 archived, SSE-C", 9, archived, [refused], "archived", "GET HEAD PUT QUERY"],
  ["F81 SSE-C", 9, sseC, [], "SSE-C", "GET PUT QUERY"],
  ["F81 SSE-C, empty", 0, sseC, [refused], "SSE-C", "HEAD GET PUT QUERY"],
  ["F81 the range first", 0, emptyNow, [refused, refused], "empty", "HEAD GET HEAD PUT QUERY"],
];

Deno.test("handleEvent() writes a row without preview for facts about the object", async (t) => {
  for (const [name, size, get, heads, fact, expected] of FACTS) {
    await t.step(name, async () => {
      const given = { getErrors: [get], headErrors: [...heads] };
      const { error, aws, rows, log } = await handleRecords(record({ size }), given);
      assert.equal(error, undefined);
      assert.equal(namesOfCalls(aws).join(" "), expected);
      assert.equal("content_preview" in rows[0], false);
      // Else its age is unknown, and a backfill may have been there.
      const isAnswered = expected === "GET HEAD PUT";
      assert.equal(rows[0].file_size, isAnswered ? 4 : size);
      assert.equal(rows[0].content_type, isAnswered ? "text/plain" : undefined);
      assert.equal(log[0].object, fact);
    });
  }
  await t.step("a refused HEAD whose GET is answered is no fact", async () => {
    const { rows, log } = await handleRecords(record({ size: 0 }), { headErrors: [notFound] });
    assert.deepEqual([rows[0].content_preview, log[0].object], ["text", undefined]);
  });
});

Deno.test("F57a handleEvent() throws a 404 until the stack is 15 minutes old", async (t) => {
  const early = 'RecordsFailedError: 1 of 1 records failed: Cannot read "key" from "uploads": ' +
    "? (HTTP 404): until 2026-01-02T03:04:08.000Z, 15 minutes after the stack was made, " +
    "S3 may answer so for an object that is there; run it again after that";
  for (const [name, size, get, heads, fact] of FACTS) {
    await t.step(name, async () => {
      const given = { getErrors: [get], headErrors: [...heads], stackCreated: "02:49:08" };
      const { error, rows, log } = await handleRecords(record({ size }), given);
      const is404 = [get, ...heads].some(({ $metadata }) => $metadata?.httpStatusCode === 404);
      assert.equal(error?.replace(/\w+ \(HTTP/, "? (HTTP"), is404 ? early : undefined);
      assert.deepEqual([rows.length, log[0].object], is404 ? [0, undefined] : [1, fact]);
    });
  }
  await t.step("no longer", async () => {
    const { log } = await handleRecords(record(), { getErrors: [noKey], stackCreated: "02:49:07" });
    assert.equal(log[0].object, "deleted");
  });
});

const FAILURES: [name: string, error: Error, told: string][] = [
  ["F65 silent", awsError("TimeoutError"), "TimeoutError: no"],
  ["F84 404 with HTML", awsError("NotFound", 404), "NotFound: no (HTTP 404)"],
  ["F62 a plain error", new Error("no"), "no"],
  ["F62 no error at all", "no" as unknown as Error, "no"],
  ["F68 a disabled key", awsError("KMS.Disabled", 400), "KMS.Disabled: no (HTTP 400)"],
  ["F80 no such bucket", awsError("NoSuchBucket", 404), "NoSuchBucket: no (HTTP 404)"],
  ["F81 any other reason", awsError("InvalidRequest", 400), "InvalidRequest: no (HTTP 400)"],
  ["F81 the words alone", awsError("Other", 400, SSE_C), `Other: ${SSE_C} (HTTP 400)`],
  ["F84 a name of every object", awsError("constructor", 400), "constructor: no (HTTP 400)"],
];

Deno.test("handleEvent() throws what is no fact about the object, and says which object and why", async (t) => {
  const one = "RecordsFailedError: 1 of 1 records failed: ";
  for (const [name, given, told] of FAILURES) {
    await t.step(name, async () => {
      const get = await handleRecords(record(), { getErrors: [given] });
      assert.equal(get.error, `${one}Cannot read "key" from "uploads": ${told}`);
      assert.deepEqual(get.aws, ["GET key v1"]);
      const errors = { getErrors: [given], headErrors: [notFound] };
      const getAfterHead = await handleRecords(record({ size: 0 }), errors);
      assert.equal(getAfterHead.error, get.error);
      assert.deepEqual(getAfterHead.aws, ["HEAD key v1", "GET key v1"]);
      const { error } = await handleRecords(record(), { putErrors: [given] });
      assert.equal(error, `${one}Cannot write the row of "key" from "uploads": ${told}`);
    });
  }
  for (const head of [awsError("Forbidden", 403), new OutOfTimeError("no")]) {
    for (const [size, expected] of [[0, ["HEAD"]], [9, ["GET", "HEAD"]]] as const) {
      await t.step(`F58 F65 HEAD: ${head.name}, size ${size}`, async () => {
        const errors = { getErrors: [emptyNow], headErrors: [head] };
        const { error, aws } = await handleRecords(record({ size }), errors);
        assert.ok(error!.startsWith(`${one}Cannot read "key" from "uploads": ${head.name}: no`));
        assert.deepEqual(namesOfCalls(aws), expected);
      });
    }
  }
  await t.step("F68 a message is cut after 1,024 characters", async () => {
    for (const [length, cut] of [[1024, ""], [1025, "…"]] as const) {
      const getErrors = [awsError("A", 400, "x".repeat(length))];
      const { error } = await handleRecords(record(), { getErrors });
      assert.ok(error!.endsWith(`A: ${"x".repeat(1024)}${cut} (HTTP 400)`));
    }
  });
});

Deno.test("F83 handleEvent() logs a failed record with all that its event says", async () => {
  const { log } = await handleRecords(record(), { getErrors: [awsError("AccessDenied", 403)] });
  assert.deepEqual(log, [{
    timestamp: "2026-01-02T03:04:07.300Z",
    level: "ERROR",
    outcome: "failed",
    file_key: "key",
    event_time: "2026-01-02T03:04:05.678Z",
    bucket_name: "uploads",
    event_name: "ObjectCreated:Put",
    file_size: 4,
    etag: "e1",
    version_id: "v1",
    sequencer: "0055AED6DCD90281E5",
    error: 'Cannot read "key" from "uploads": AccessDenied: no (HTTP 403)',
    duration_ms: 100,
  }]);
});

Deno.test("F2 F8 F71 handleEvent() takes a refused condition as success and changes nothing", async () => {
  for (const sequencer of ["0055", undefined]) {
    const { log, rows } = await handleRecords([record({ sequencer }), record({ sequencer })]);
    assert.deepEqual(log.map((line) => line.outcome), ["written", "unchanged"]);
    assert.equal(rows.length, 1);
  }
});

Deno.test("F63 F64 handleEvent() reads again when a body breaks, at most three times, while there is time", async () => {
  const cases: [broken: number, remainingMs: number, gets: number, error?: RegExp][] = [
    [2, 1000, 3],
    [3, 1000, 3, /Cannot read "key" from "uploads": BrokenBodyError: it broke/],
    [1, 999, 1, /BrokenBodyError/],
  ];
  for (const [broken, remainingMs, gets, error] of cases) {
    const getErrors = Array.from({ length: broken }, () => new BrokenBodyError("it broke"));
    const { outside, calls } = fakes({ getErrors });
    let looks = 0;
    outside.remainingMs = () => looks++ === 0 ? 1000 : remainingMs;
    const done = handleEvent(event(record()), outside);
    await (error ? assert.rejects(done, error) : done);
    assert.equal(calls.aws.filter((call) => call.startsWith("GET")).length, gets);
    assert.equal(calls.rows.length, error ? 0 : 1);
  }
});

Deno.test("F76 handleEvent() begins no record without time for it", async () => {
  const { outside, calls } = fakes();
  let remainingMs = 1500;
  outside.remainingMs = () => remainingMs -= 500; // each look costs half a second
  const late = [record({ key: "1" }), record({ key: "2" }), record({ key: "3" })];
  await assert.rejects(handleEvent(event(...late), outside), {
    name: "RecordsFailedError",
    message: "2 of 3 records failed: " +
      'OutOfTimeError: Cannot begin "2": no time left in this run; ' +
      'OutOfTimeError: Cannot begin "3": no time left in this run',
  });
  assert.deepEqual(calls.rows.map((row) => row.file_key), ["1"]);
});

Deno.test("F22 handleEvent() works on many records at once, but not on all", async () => {
  const { outside, calls } = fakes();
  outside.onTimeMs = Infinity; // the clock ticks for each of them
  let running = 0;
  let most = 0;
  const { putItem } = outside;
  outside.putItem = async (put) => {
    most = Math.max(most, ++running);
    await new Promise((resolve) => setTimeout(resolve));
    running--;
    return putItem(put);
  };
  const records = Array.from({ length: 1000 }, (_, i) => record({ key: `k${i}` }));
  await handleEvent(event(...records), outside);
  assert.equal(new Set(calls.rows.map((row) => row.file_key)).size, 1000);
  assert.equal(most, 32);
});

Deno.test("handleEvent() bounds the error of many failures", async () => {
  const cases = [[20, ""], [21, "; and 1 more"], [1000, "; and 980 more"]] as const;
  for (const [length, end] of cases) {
    const records = Array.from({ length }, () => record({ key: "%".repeat(2000) }));
    const { error } = await handleRecords(records);
    assert.ok(error!.startsWith(`RecordsFailedError: ${length} of ${length} records failed: Inv`));
    assert.ok(error!.endsWith(`%…${end}`));
    assert.ok(error!.length < 30_000, `${error!.length} characters`);
  }
});

function clipped(text: string): string {
  return text.length > MAX_TEXT_LENGTH ? text.slice(0, MAX_TEXT_LENGTH) + "…" : text;
}
