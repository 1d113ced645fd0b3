import assert from "node:assert/strict";
import { ATTRIBUTES, handleEvent, type LogLine } from "./handler.ts";
import { OutOfTimeError } from "./function/errors.ts";
import { BrokenBodyError } from "./function/read.ts";
import {
  awsError,
  clipped,
  event,
  fakes,
  handle,
  NAMES,
  object,
  record,
  recordOf,
  toldOf,
} from "./tests/outside.ts";

/** What S3 says of an object under a key of the customer's own. */
const SSE_C = "The object was stored using a form of Server Side Encryption. The correct " +
  "parameters must be provided to retrieve the object.";

Deno.test("F1 F10 handleEvent() writes the row of a created object, every attribute of it", async () => {
  const { rows, aws, log } = await handle(record({ key: "a+b.txt", size: 5 }), {
    objects: { "a b.txt": object("Hello") },
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
  assert.deepEqual(rows, [{ ...row, content_preview: "Hello" }]);
  assert.deepEqual(Object.keys(rows[0]).toSorted(), ATTRIBUTES.toSorted());
  assert.deepEqual(aws, ["GET a b.txt v1", "PUT a b.txt"]);
  const { timestamp: event_time, ...fields } = row;
  const timestamp = "2026-01-02T03:04:07.500Z"; // the line's own: Lambda takes it for its time
  const line = { ...fields, event_time, object: undefined, duration_ms: 300 };
  assert.deepEqual(log, [{ timestamp, level: "INFO", outcome: "written", ...line }]);
});

Deno.test("F35 F36 handleEvent() makes two calls for an object, a HEAD in place of a GET when it is empty", async () => {
  const { rows, aws } = await handle(record({ key: "dir/", size: 0 }), {
    objects: { "dir/": object("") },
  });
  assert.deepEqual(aws, ["HEAD dir/ v1", "PUT dir/"]);
  assert.deepEqual([rows[0].file_size, rows[0].content_type], [0, "text/plain"]);
  assert.equal("content_preview" in rows[0], false);
});

Deno.test("handleEvent() succeeds without a row for events about nothing created", async (t) => {
  const ignored = (event_name: string) => ({ level: "WARN", outcome: "ignored", event_name });
  const test = { level: "INFO", outcome: "test", message: "S3 test event" };
  const cases: [name: string, input: unknown, log: unknown[]][] = [
    ["F13 s3:TestEvent", { Service: "Amazon S3", Event: "s3:TestEvent" }, [test]],
    ["F15 no records", event(), []],
    ...[
      "ObjectRemoved:Delete",
      "LifecycleExpiration:Delete",
      "ObjectTagging:Put",
      "IntelligentTiering",
    ]
      .map((eventName): [string, unknown, unknown[]] => [
        `F16 ${eventName}`,
        event(record({}, { eventName }), record({}, { eventName: `s3:${eventName}` })),
        [ignored(eventName), ignored(eventName)],
      ]),
    ["F16 s3: within", event(record({}, { eventName: "Xs3:Y" })), [ignored("Xs3:Y")]],
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

Deno.test("handleEvent() throws for a payload that is no S3 event", async (t) => {
  for (const input of [undefined, null, {}, "text", 7, [], { Records: {} }, { Records: "x" }]) {
    await t.step(`F14 ${JSON.stringify(input) ?? "undefined"}`, async () => {
      await assert.rejects(handleEvent(input, fakes().outside), {
        name: "InvalidEventError",
        message: "Cannot handle the event: it has no list of Records",
      });
    });
  }
});

const BAD_KEY = "its key is not form-encoded UTF-8 of 1 to 1024 bytes";
const badTime = (value: string) =>
  `its eventTime ${value} is no ISO 8601 time since 1970 with a zone`;
const BAD_VERSION = "its versionId is no text of at most 1024 characters";
const LONG = "x".repeat(1025);
const REFUSED: [name: string, input: unknown, why: string, names?: Partial<LogLine>][] = [
  [
    "F17 another service",
    record({}, { eventSource: "aws:sqs" }),
    "its eventSource is not aws:s3",
  ],
  ["null", null, "its eventSource is not aws:s3", {}],
  ["a list", [record()], "its eventSource is not aws:s3", {}],
  [
    "no more than a source",
    { eventSource: "aws:s3" },
    "its eventVersion undefined is not 2.x",
    {},
  ],
  ...["3.0", "12.0", "2.1x", "2."].map((eventVersion): [string, unknown, string] => [
    `F19 version ${eventVersion}`,
    record({}, { eventVersion }),
    `its eventVersion "${eventVersion}" is not 2.x`,
  ]),
  [
    "a version that is a number",
    record({}, { eventVersion: 2.1 }),
    "its eventVersion 2.1 is not 2.x",
  ],
  ["no eventName", record({}, { eventName: undefined }), "it has no eventName", NAMES.noEvent],
  ["a long eventName", record({}, { eventName: LONG }), "it has no eventName", NAMES.noEvent],
  ["no bucket", record({}, { s3: { object: { key: "x" } } }), "it names no bucket", {
    event_name: "ObjectCreated:Put",
    file_key: "x",
  }],
  [
    "a bucket that is no text",
    recordOf({ name: ["uploads"] }),
    "it names no bucket",
    NAMES.noBucket,
  ],
  ["a bucket's long name", recordOf({ name: LONG }), "it names no bucket", NAMES.noBucket],
  [
    "F80 another bucket",
    recordOf({ name: "other" }),
    'its bucket is not this function\'s, "uploads"',
    {
      ...NAMES.all,
      bucket_name: "other",
    },
  ],
  ...["", undefined, 5, ["k"]].map((value): [string, unknown, string, Partial<LogLine>] => [
    `no key, ${JSON.stringify(value)}`,
    record({ key: value }),
    BAD_KEY,
    NAMES.noKey,
  ]),
  ...["100%", "%zz", "%C3", "\ud800", "k".repeat(1025), "%C3%A9".repeat(512) + "a"].map(
    (encoded): [string, unknown, string, Partial<LogLine>] => [
      `F26 key ${encoded.slice(0, 9)}`,
      record({ key: encoded }),
      BAD_KEY,
      {
        ...NAMES.noKey,
        encoded_key: clipped(encoded),
      },
    ],
  ),
  ...[LONG, 7, {}, "\ud800"].map((versionId): [string, unknown, string, Partial<LogLine>] => [
    `F82 version id ${JSON.stringify(versionId).slice(0, 9)}`,
    record({ versionId }),
    BAD_VERSION,
    NAMES.noVersion,
  ]),
  ["F85 no time", record({}, { eventTime: undefined }), badTime("undefined")],
  ["F85 a time that is a number", record({}, { eventTime: 1 }), badTime("1")],
  ...[
    "2026-01-02T03:04:05",
    "2026-02-30T03:04:05Z",
    "0001-01-01T00:00:00Z",
    "+2026-01-02T03:04:05Z",
    "2026-01-02T03:04:05Z.",
    "x",
  ]
    .map((eventTime): [string, unknown, string] => [
      `F85 time ${eventTime}`,
      record({}, { eventTime }),
      badTime(`"${eventTime}"`),
    ]),
];

Deno.test("F83 handleEvent() throws for a record that it cannot read, and names what it can, after doing the others", async (t) => {
  for (const [name, input, why, names = NAMES.all] of REFUSED) {
    await t.step(name, async () => {
      const { error, rows, log } = await handle(
        [record({ key: "1" }), input, record({ key: "3" })],
      );
      const list = Object.entries(names).map(([name, value]) =>
        `${name} ${clipped(JSON.stringify(value))}`
      );
      const brackets = list.length > 0 ? ` (${list.join(", ")})` : "";
      const message = `Cannot handle a record: ${why}${brackets}`;
      const failure = `InvalidEventError: ${clipped(message)}`;
      assert.equal(error, `RecordsFailedError: 1 of 3 records failed: ${failure}`);
      assert.deepEqual(rows.map((row) => row.file_key).sort(), ["1", "3"]);
      const line = log.find(({ outcome }) => outcome === "failed");
      assert.deepEqual(line, {
        timestamp: line!.timestamp,
        level: "ERROR",
        outcome: "failed",
        ...names,
        error: failure,
        duration_ms: line!.duration_ms,
      });
    });
  }
});

Deno.test("F18 handleEvent() takes any minor version and unknown fields", async () => {
  for (const eventVersion of ["2.0", "2.1", "2.3", "2.9", "2.10"]) {
    const { rows } = await handle(record({}, { eventVersion, news: { a: 1 } }));
    assert.equal(rows.length, 1);
  }
});

const notFound = awsError("NotFound", 404);
const badRequest = awsError("Unknown", 400);
const noKey = awsError("NoSuchKey", 404);
const archived = awsError("InvalidObjectState", 403);
const emptyNow = awsError("InvalidRange", 416);
const sseC = awsError("InvalidRequest", 400, SSE_C);
const FACTS: [
  name: string,
  size: number,
  get: Error,
  heads: Error[],
  fact: string,
  aws: string,
][] = [
  ["F57 deleted since", 9, noKey, [], "gone", "GET PUT QUERY"],
  ["F57 deleted since, empty", 0, noKey, [notFound], "gone", "HEAD GET PUT QUERY"],
  ["F57 version deleted since", 9, awsError("NoSuchVersion", 404), [], "gone", "GET PUT QUERY"],
  ["F57 a delete marker", 9, awsError("MethodNotAllowed", 405), [], "gone", "GET PUT QUERY"],
  [
    "F57 a delete marker, empty",
    0,
    awsError("MethodNotAllowed", 405),
    [awsError("Unknown", 405)],
    "gone",
    "HEAD GET PUT QUERY",
  ],
  [
    "F11 overwritten since",
    9,
    awsError("PreconditionFailed", 412),
    [],
    "replaced",
    "GET PUT QUERY",
  ],
  [
    "F11 overwritten since, empty",
    0,
    awsError("PreconditionFailed", 412),
    [awsError("Unknown", 412)],
    "replaced",
    "HEAD GET PUT QUERY",
  ],
  ["F37 empty by now", 9, emptyNow, [], "empty", "GET HEAD PUT"],
  ["F37 empty by now, then gone", 9, emptyNow, [notFound], "empty", "GET HEAD PUT QUERY"],
  ["F67 archived", 9, archived, [], "archived", "GET HEAD PUT"],
  [
    "F67 archived, under a customer's key",
    9,
    archived,
    [badRequest],
    "archived",
    "GET HEAD PUT QUERY",
  ],
  ["F81 under a customer's key", 9, sseC, [], "customer-encrypted", "GET PUT QUERY"],
  [
    "F81 under a customer's key, empty",
    0,
    sseC,
    [badRequest],
    "customer-encrypted",
    "HEAD GET PUT QUERY",
  ],
  [
    "F81 under a customer's key, the range first",
    0,
    emptyNow,
    [badRequest, badRequest],
    "empty",
    "HEAD GET HEAD PUT QUERY",
  ],
];

Deno.test("handleEvent() writes a row without preview for facts about the object", async (t) => {
  for (const [name, size, get, heads, fact, expected] of FACTS) {
    await t.step(name, async () => {
      const { error, aws, rows, log } = await handle(record({ size }), {
        getErrors: [get],
        headErrors: [...heads],
      });
      assert.equal(error, undefined);
      assert.deepEqual(aws.map((call) => call.split(" ")[0]).join(" "), expected);
      assert.equal("content_preview" in rows[0], false);
      const isAnswered = expected === "GET HEAD PUT"; // else its age is unknown: a backfill may have been there
      assert.equal(rows[0].file_size, isAnswered ? 4 : size);
      assert.equal(rows[0].content_type, isAnswered ? "text/plain" : undefined);
      assert.equal(log[0].object, fact);
    });
  }
  await t.step("a refused HEAD whose GET is answered is no fact", async () => {
    const { rows, log } = await handle(record({ size: 0 }), { headErrors: [notFound] });
    assert.deepEqual([rows[0].content_preview, log[0].object], ["text", undefined]);
  });
});

const FAILURES: [name: string, error: Error, told?: string][] = [
  ["F58 denied", awsError("AccessDenied", 403)],
  ["F58 denied to all", awsError("AllAccessDisabled", 403)],
  ["F61 failing", awsError("InternalError", 500)],
  ["F61 slow", awsError("SlowDown", 503)],
  ["F65 silent", awsError("TimeoutError")],
  ["F65 out of time", new OutOfTimeError("no"), "OutOfTimeError: no"],
  ["F84 404 with HTML", awsError("NotFound", 404)],
  ["F84 416 with HTML", awsError("Unknown", 416)],
  ["F62 a plain error", new Error("no"), "no"],
  ["F62 no error at all", "no" as unknown as Error, "no"],
  ["F68 a disabled key", awsError("KMS.DisabledException", 400)],
  ["F80 no such bucket", awsError("NoSuchBucket", 404)],
  ["F84 in another region", awsError("PermanentRedirect", 301)],
  ["F84 signed for another region", awsError("AuthorizationHeaderMalformed", 400)],
  ["F81 any other invalid request", awsError("InvalidRequest", 400)],
  ["F81 the words alone", awsError("Other", 400, SSE_C), `Other: ${SSE_C} (HTTP 400)`],
  ["F84 an expired token", awsError("ExpiredToken", 400)],
  ["F84 no such thing", awsError("NoSuchUpload", 404)],
  ["F84 a conflict", awsError("OperationAborted", 409)],
  ["F84 not modified", awsError("Unknown", 304)],
  ["F70 throttled", awsError("ThrottlingException", 400)],
  ["F84 a name of every object", awsError("constructor", 400)],
];

Deno.test("handleEvent() throws what is no fact about the object, and says which object and why", async (t) => {
  for (const [name, given, told = toldOf(given)] of FAILURES) {
    const failure = (action: string) =>
      `RecordsFailedError: 1 of 1 records failed: Cannot ${action} "key" from "uploads": ${told}`;
    await t.step(`GET: ${name}`, async () => {
      const { error, aws } = await handle(record(), { getErrors: [given] });
      assert.equal(error, failure("read"));
      assert.deepEqual(aws, ["GET key v1"]);
    });
    await t.step(`GET after HEAD: ${name}`, async () => {
      const head = awsError("NotFound", 404);
      const { error, rows } = await handle(record({ size: 0 }), {
        getErrors: [given],
        headErrors: [head],
      });
      assert.equal(error, failure("read"));
      assert.deepEqual(rows, []);
    });
    await t.step(`PUT: ${name}`, async () => {
      const { error } = await handle(record(), { putErrors: [given] });
      assert.equal(error, failure("write the row of"));
    });
  }
  const refusals = [awsError("Unknown", 403), awsError("Unknown", 500), awsError("TimeoutError")];
  for (const head of [...refusals, new OutOfTimeError("no")]) {
    for (const [size, expected] of [[0, ["HEAD"]], [9, ["GET", "HEAD"]]] as const) {
      await t.step(`F58 F61 F65 HEAD: ${toldOf(head)}, size ${size}`, async () => {
        const { error, aws } = await handle(record({ size }), {
          getErrors: [awsError("InvalidRange", 416)],
          headErrors: [head],
        });
        assert.match(
          error!,
          /: Cannot read "key" from "uploads": (Unknown|TimeoutError|OutOfTimeError): no/,
        );
        assert.deepEqual(aws.map((call) => call.split(" ")[0]), expected);
      });
    }
  }
  await t.step("F68 a message is cut after 1,024 characters", async () => {
    for (const [length, cut] of [[1024, ""], [1025, "…"]] as const) {
      const getErrors = [awsError("A", 400, "x".repeat(length))];
      const { error } = await handle(record(), { getErrors });
      assert.ok(error!.endsWith(`A: ${"x".repeat(1024)}${cut} (HTTP 400)`));
    }
  });
});

Deno.test("F83 handleEvent() logs a failed record with all that its event says", async () => {
  const { log } = await handle(record(), { getErrors: [awsError("AccessDenied", 403)] });
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

Deno.test("F80 handleEvent() takes any bucket where it does not know its own", async () => {
  const { outside, calls } = fakes();
  delete outside.bucket;
  await handleEvent(event(recordOf({ name: "other" })), outside);
  assert.equal(calls.rows[0].bucket_name, "other");
});

Deno.test("F2 F71 handleEvent() takes a refused condition as success and changes nothing", async () => {
  const { log, rows } = await handle([record(), record()]);
  assert.deepEqual(log.map((line) => line.outcome), ["written", "unchanged"]);
  assert.equal(rows.length, 1);
});

Deno.test("F63 F64 handleEvent() reads again when a body breaks, at most three times, while there is time", async (t) => {
  const cases: [broken: number, remainingMs: number, gets: number, error?: RegExp][] = [
    [2, 1000, 3],
    [3, 1000, 3, /Cannot read "key" from "uploads": BrokenBodyError: it broke/],
    [1, 999, 1, /BrokenBodyError/],
  ];
  for (const [broken, remainingMs, gets, error] of cases) {
    await t.step(`${broken} times, ${remainingMs} ms left`, async () => {
      const getErrors = Array.from({ length: broken }, () => new BrokenBodyError("it broke"));
      const { outside, calls } = fakes({ getErrors });
      let looks = 0;
      outside.remainingMs = () => looks++ === 0 ? 1000 : remainingMs;
      const done = handleEvent(event(record()), outside);
      await (error ? assert.rejects(done, error) : done);
      assert.equal(calls.aws.filter((call) => call.startsWith("GET")).length, gets);
      assert.equal(calls.rows.length, error ? 0 : 1);
    });
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
  assert.ok(most > 1 && most <= 32, `${most} at the same time`);
});

Deno.test("handleEvent() bounds the error of many failures", async (t) => {
  for (
    const [count, end] of [[19, ""], [20, ""], [21, "; and 1 more"], [1000, "; and 980 more"]]
  ) {
    await t.step(`${count}`, async () => {
      const length = Number(count);
      const records = Array.from({ length }, () => record({ key: "%".repeat(2000) }));
      const { error } = await handle(records);
      assert.ok(error!.startsWith(`RecordsFailedError: ${count} of ${count} records failed: Inv`));
      assert.ok(error!.endsWith(`%…${end}`));
      assert.ok(error!.length < 30_000, `${error!.length} characters`);
    });
  }
});
