import assert from "node:assert/strict";
import fc from "fast-check";
import {
  decodeKey,
  handleEvent,
  type LogLine,
  OutOfTimeError,
  type Outside,
  type Put,
  recordToUpload,
  type Row,
  rowToPut,
  toJsonLine,
  toRow,
  unquoted,
  type Upload,
  versionOf,
} from "./handler.ts";
import { BrokenBodyError, type ObjectAnswer, readPrefix } from "./function/read.ts";

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
  assert.deepEqual(aws, ["GET a b.txt v1", "PUT a b.txt"]);
  assert.deepEqual(log, [
    { level: "INFO", outcome: "written", ...row, object: undefined, duration_ms: 200 },
  ]);
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
      assert.deepEqual(calls.log, log);
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

Deno.test("F83 handleEvent() throws for a record that it cannot read, and names what it can, after doing the others", async (t) => {
  const key = "its key is not form-encoded UTF-8 of 1 to 1024 bytes";
  const time = (value: string) => `its eventTime ${value} is no ISO 8601 time with a zone`;
  const version = "its versionId is no text of at most 1024 characters";
  const long = "x".repeat(1025);
  const cases: [name: string, input: unknown, why: string, names?: Partial<LogLine>][] = [
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
    ["a long eventName", record({}, { eventName: long }), "it has no eventName", NAMES.noEvent],
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
    ["a bucket's long name", recordOf({ name: long }), "it names no bucket", NAMES.noBucket],
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
      key,
      NAMES.noKey,
    ]),
    ...["100%", "%zz", "%C3", "\ud800", "k".repeat(1025), "%C3%A9".repeat(512) + "a"].map(
      (encoded): [string, unknown, string, Partial<LogLine>] => [
        `F26 key ${encoded.slice(0, 9)}`,
        record({ key: encoded }),
        key,
        {
          ...NAMES.noKey,
          encoded_key: clipped(encoded),
        },
      ],
    ),
    ...[long, 7, {}, "\ud800"].map((versionId): [string, unknown, string, Partial<LogLine>] => [
      `F82 version id ${JSON.stringify(versionId).slice(0, 9)}`,
      record({ versionId }),
      version,
      NAMES.noVersion,
    ]),
    ["F85 no time", record({}, { eventTime: undefined }), time("undefined")],
    ["F85 a time that is a number", record({}, { eventTime: 1 }), time("1")],
    ...[
      "2026-01-02T03:04:05",
      "2026-02-30T03:04:05Z",
      "+2026-01-02T03:04:05Z",
      "2026-01-02T03:04:05Z.",
      "x",
    ]
      .map((eventTime): [string, unknown, string] => [
        `F85 time ${eventTime}`,
        record({}, { eventTime }),
        time(`"${eventTime}"`),
      ]),
  ];
  for (const [name, input, why, names = NAMES.all] of cases) {
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

Deno.test("handleEvent() writes a row without preview for facts about the object", async (t) => {
  const notFound = awsError("NotFound", 404);
  const badRequest = awsError("Unknown", 400);
  const noKey = awsError("NoSuchKey", 404);
  const archived = awsError("InvalidObjectState", 403);
  const emptyNow = awsError("InvalidRange", 416);
  const sseC = awsError("InvalidRequest", 400, SSE_C);
  const cases: [
    name: string,
    size: number,
    get: Error,
    heads: Error[],
    fact: string,
    aws: string,
  ][] = [
    ["F57 deleted since", 9, noKey, [], "gone", "GET PUT"],
    ["F57 deleted since, empty", 0, noKey, [notFound], "gone", "HEAD GET PUT"],
    ["F57 version deleted since", 9, awsError("NoSuchVersion", 404), [], "gone", "GET PUT"],
    ["F57 a delete marker", 9, awsError("MethodNotAllowed", 405), [], "gone", "GET PUT"],
    [
      "F57 a delete marker, empty",
      0,
      awsError("MethodNotAllowed", 405),
      [awsError("Unknown", 405)],
      "gone",
      "HEAD GET PUT",
    ],
    ["F11 overwritten since", 9, awsError("PreconditionFailed", 412), [], "replaced", "GET PUT"],
    [
      "F11 overwritten since, empty",
      0,
      awsError("PreconditionFailed", 412),
      [awsError("Unknown", 412)],
      "replaced",
      "HEAD GET PUT",
    ],
    ["F37 empty by now", 9, emptyNow, [], "empty", "GET HEAD PUT"],
    ["F37 empty by now, then gone", 9, emptyNow, [notFound], "empty", "GET HEAD PUT"],
    ["F67 archived", 9, archived, [], "archived", "GET HEAD PUT"],
    ["F67 archived, under a customer's key", 9, archived, [badRequest], "archived", "GET HEAD PUT"],
    ["F81 under a customer's key", 9, sseC, [], "customer-encrypted", "GET PUT"],
    [
      "F81 under a customer's key, empty",
      0,
      sseC,
      [badRequest],
      "customer-encrypted",
      "HEAD GET PUT",
    ],
    [
      "F81 under a customer's key, the range first",
      0,
      emptyNow,
      [badRequest, badRequest],
      "empty",
      "HEAD GET HEAD PUT",
    ],
  ];
  for (const [name, size, get, heads, fact, expected] of cases) {
    await t.step(name, async () => {
      const { error, aws, rows, log } = await handle(record({ size }), {
        getErrors: [get],
        headErrors: [...heads],
      });
      assert.equal(error, undefined);
      assert.deepEqual(aws.map((call) => call.split(" ")[0]).join(" "), expected);
      assert.equal("content_preview" in rows[0], false);
      const isAnswered = expected === "GET HEAD PUT" && heads.length === 0;
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

Deno.test("handleEvent() throws what is no fact about the object, and says which object and why", async (t) => {
  const cases: [name: string, error: Error, told?: string][] = [
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
  for (const [name, given, told = toldOf(given)] of cases) {
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
  await t.step("F68 the thrown error has no end", async () => {
    const { error } = await handle(record(), { getErrors: [awsError("A", 400, "x".repeat(9999))] });
    assert.ok(error!.endsWith(`A: ${"x".repeat(1024)}… (HTTP 400)`));
  });
});

Deno.test("F83 handleEvent() logs a failed record with all that its event says", async () => {
  const { log } = await handle(record(), { getErrors: [awsError("AccessDenied", 403)] });
  assert.deepEqual(log, [{
    level: "ERROR",
    outcome: "failed",
    file_key: "key",
    timestamp: "2026-01-02T03:04:05.678Z",
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
  let running = 0;
  let most = 0;
  const { putItem } = outside;
  outside.putItem = async (put) => {
    most = Math.max(most, ++running);
    await new Promise((resolve) => queueMicrotask(() => resolve(undefined)));
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

Deno.test("handleEvent() throws nothing but its own errors, for any payload", async () => {
  const nearlyRecord = fc.record({
    eventSource: fc.constantFrom("aws:s3", "aws:sqs"),
    eventVersion: fc.oneof(fc.constantFrom("2.1", "3.0"), fc.anything()),
    eventName: fc.oneof(fc.constant("ObjectCreated:Put"), fc.anything()),
    eventTime: fc.oneof(fc.constant("2026-01-02T03:04:05.678Z"), fc.anything()),
    s3: fc.oneof(
      fc.record({ bucket: fc.record({ name: fc.anything() }), object: fc.anything() }),
      fc.anything(),
    ),
  }, { requiredKeys: [] });
  const payload = fc.oneof(
    fc.jsonValue(),
    fc.record({ Records: fc.array(fc.oneof(nearlyRecord, fc.anything())) }),
  );
  await fc.assert(fc.asyncProperty(payload, async (input) => {
    const { outside, calls } = fakes();
    await handleEvent(input, outside).catch((error) => {
      assert.ok(["InvalidEventError", "RecordsFailedError"].includes(error.name), String(error));
    });
    for (const line of calls.log) assertOneJsonLine(line);
  }));
});

Deno.test("F4 F5 F6 F7 handleEvent() leaves the same table for any order and number of deliveries", async () => {
  const sequencer = fc.stringMatching(/^[0-9A-F]{4,18}$/);
  const upload = fc.record({
    key: fc.constantFrom("a", "b"),
    eventTime: fc.constantFrom("2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00.001Z"),
    sequencer,
  });
  const deliveries = fc.uniqueArray(upload, {
    minLength: 1,
    maxLength: 8,
    selector: (u) => u.sequencer,
  })
    .chain((uploads) =>
      fc.tuple(
        fc.constant(uploads),
        fc.array(fc.constantFrom(...uploads), { maxLength: 8 }).chain((again) =>
          fc.shuffledSubarray([...uploads, ...again], {
            minLength: uploads.length + again.length,
          })
        ),
      )
    );
  await fc.assert(fc.asyncProperty(deliveries, async ([uploads, order]) => {
    const { outside, calls } = fakes();
    for (const { key, eventTime, sequencer } of order) {
      await handleEvent(event(record({ key, sequencer }, { eventTime })), outside);
    }
    const expected = new Map<string, string>();
    for (const { key, eventTime, sequencer } of uploads) {
      const id = `${key} ${eventTime}`;
      const highest = expected.get(id);
      if (highest === undefined || highest < sequencer) expected.set(id, sequencer);
    }
    const actual = [...calls.table.values()].map((row) =>
      [`${row.file_key} ${row.timestamp}`, row.sequencer!] as const
    );
    assert.deepEqual(new Map(actual), expected);
  }));
});

Deno.test("F8 F9 F82 recordToUpload() leaves out what the event does not know", () => {
  const known = {
    bucket: "uploads",
    key: "key",
    timestamp: "2026-01-02T03:04:05.678Z",
    eventName: "ObjectCreated:Put",
  };
  for (const size of [undefined, -1, 1.5, NaN, "4"]) {
    for (const versionId of [undefined, null, "", "null"]) {
      const input = record({ size, eTag: "", versionId, sequencer: null });
      assert.deepEqual(withoutUndefined(recordToUpload(input)!), known);
    }
  }
});

Deno.test("recordToUpload() takes an event's name with and without its prefix, and 1,024 characters of an id", () => {
  const versionId = "v".repeat(1024);
  const upload = recordToUpload(record({ versionId }, { eventName: "s3:ObjectCreated:s3:Put" }))!;
  assert.deepEqual([upload.eventName, upload.versionId], ["ObjectCreated:s3:Put", versionId]);
});

Deno.test("F82 versionOf() takes an absent, an empty and a null version for one", () => {
  for (const id of [undefined, null, "", "null", 7]) assert.equal(versionOf(id), undefined);
  for (const id of ["v1", "NULL", " null"]) assert.equal(versionOf(id), id);
});

Deno.test("unquoted() takes the quotes off a tag, if it has both", () => {
  const cases = [['"e"', "e"], ["e", "e"], ['"e', '"e'], ['e"', 'e"'], ['a"e"', 'a"e"'], [
    '"e"a',
    '"e"a',
  ]];
  for (const [etag, expected] of cases) assert.equal(unquoted(etag), expected);
  for (const none of ['""', "", undefined]) assert.equal(unquoted(none), undefined);
});

Deno.test("F78 recordToUpload() spells one moment one way", () => {
  const cases = [
    ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z"],
    ["2026-01-02T03:04:05.678901Z", "2026-01-02T03:04:05.678Z"],
    ["2026-01-02T05:04:05+02:00", "2026-01-02T03:04:05.000Z"],
  ];
  for (const [eventTime, timestamp] of cases) {
    assert.equal(recordToUpload(record({}, { eventTime }))!.timestamp, timestamp);
  }
});

Deno.test("F23 F24 F25 F29 F34 decodeKey() decodes once", () => {
  const cases = [
    ["a+b.txt", "a b.txt"],
    ["a%2Bb.txt", "a+b.txt"],
    ["100%25", "100%"],
    ["a%252Fb", "a%2Fb"],
    ["..%2Fx", "../x"],
    ["//", "//"],
    ["%E3%81%82%0A%00", "あ\n\0"],
    ["__proto__", "__proto__"],
  ];
  for (const [encoded, key] of cases) assert.equal(decodeKey(encoded), key);
});

Deno.test("F27 F28 F31 F32 decodeKey() gives back any encoded key", () => {
  const key = fc.string({ unit: "binary", minLength: 1, maxLength: 100 })
    .filter((key) => new TextEncoder().encode(key).length <= 1024);
  fc.assert(fc.property(key, (key) => {
    const encoded = encodeURIComponent(key).replaceAll("%20", "+").replaceAll("%2F", "/");
    assert.equal(decodeKey(encoded), key);
  }));
  assert.equal(decodeKey("%C3%A9".repeat(512)), "é".repeat(512));
  for (const encoded of ["%C3%A9".repeat(512) + "a", "%zz", ""]) {
    assert.throws(() => decodeKey(encoded), {
      name: "InvalidEventError",
      message: /^Cannot decode the key ".*: no form-encoded UTF-8 of 1 to 1024 bytes$/,
    });
  }
});

Deno.test("F40 toRow() keeps sizes of terabytes exact, from a Content-Range", () => {
  const cases: [answer: ObjectAnswer, size?: number][] = [
    ...[5 * 1024 ** 4, 50 * 1024 ** 4, 0].map((size): [ObjectAnswer, number] => [
      { ContentRange: `bytes 0-2047/${size}`, ContentLength: 2048 },
      size,
    ]),
    [{ ContentLength: 7 }, 7],
    [{ ContentRange: "bytes 0-2047/*", ContentLength: 7 }, 7],
    [{ ContentRange: "bytes 0-1/2 or 3/4x", ContentLength: 7 }, 7],
    [{ ContentRange: `bytes 0-2047/${2 ** 53}` }],
    [{ ContentLength: -1 }],
    [{}],
  ];
  for (const [answer, size] of cases) {
    assert.equal(toRow(upload(), answer, undefined, "now").file_size, size);
  }
});

Deno.test("F42 F56 toRow() makes a preview by the answer's encoding, and of a cut object leaves a cut character out", () => {
  const bytes = new TextEncoder().encode("aé").slice(0, 2);
  const cases: [answer: ObjectAnswer | undefined, preview?: string][] = [
    [undefined, "a"],
    [{ ContentType: "text/plain", ContentLength: 2 }, "a\ufffd"],
    [{ ContentType: "text/plain", ContentRange: "bytes 0-1/3", ContentLength: 2 }, "a"],
    [{ ContentType: "text/plain", ContentEncoding: "gzip", ContentRange: "bytes 0-1/3" }],
    [{ ContentType: "image/png", ContentRange: "bytes 0-1/3" }],
  ];
  for (const [answer, preview] of cases) {
    assert.equal(toRow(upload(), answer, bytes, "now").content_preview, preview);
  }
});

Deno.test("F75 toRow() stays far below an item's 400 KB at the longest", () => {
  const row = toRow(
    { ...upload(), key: "é".repeat(512), bucket: "b".repeat(63), versionId: "v".repeat(1024) },
    { ContentType: "text/plain;" + "ü".repeat(8000), ETag: `"${"e".repeat(1024)}"` },
    new TextEncoder().encode("😀".repeat(512)),
    "2026-01-02T03:04:07.000Z",
  );
  assert.equal(Array.from(row.content_type!).length, 1024);
  assert.equal(row.content_preview, "😀".repeat(500));
  assert.ok(new TextEncoder().encode(JSON.stringify(row)).length < 16_000);
});

Deno.test("F12 toRow() takes size and tag from S3's answer where the event has none", () => {
  const row = toRow(upload(), object("text"), undefined, "now");
  assert.deepEqual([row.file_size, row.etag], [4, "e1"]);
});

Deno.test("toRow() leaves out a last modification that is no date", () => {
  const row = toRow(upload(), { LastModified: new Date(NaN) }, undefined, "now");
  assert.equal("last_modified" in row, false);
});

Deno.test("F7 F8 rowToPut() makes a condition that only ever goes forward", () => {
  const row = { ...toRow(upload(), undefined, undefined, "now"), file_size: 7 };
  assert.deepEqual(rowToPut(row), {
    Item: {
      file_key: { S: "key" },
      timestamp: { S: "2026-01-02T03:04:05.678Z" },
      bucket_name: { S: "uploads" },
      event_name: { S: "ObjectCreated:Put" },
      processed_at: { S: "now" },
      sequencer: { S: "0055AED6DCD90281" },
      file_size: { N: "7" },
    },
    ConditionExpression: "attribute_not_exists(file_key) OR sequencer < :sequencer",
    ExpressionAttributeValues: { ":sequencer": { S: "0055AED6DCD90281" } },
  });
  const { sequencer: _, ...without } = row;
  assert.equal(rowToPut(without).ConditionExpression, "attribute_not_exists(file_key)");
  assert.equal(rowToPut(without).ExpressionAttributeValues, undefined);
});

Deno.test("F39 F41 readPrefix() reads up to its limit, and closes a body of which more would come", async (t) => {
  // By its chunks, of 8 bytes wanted: what is read, how many chunks are taken, and if it is closed.
  const cases: [
    chunks: string[],
    announced: number | undefined,
    bytes: string,
    taken: number,
    closed: boolean,
  ][] = [
    [["abc", "def", "ghi", "jkl"], undefined, "abcdefgh", 3, true],
    [["abc", "def", "ghi", "jkl"], 12, "abcdefgh", 3, true],
    [["abcdefgh", "i"], 9, "abcdefgh", 1, true],
    [["abcd", "efgh"], 8, "abcdefgh", 2, false],
    [["ab", "cd"], 4, "abcd", 2, false],
    [["abc"], undefined, "abc", 1, false],
    [[], 0, "", 0, false],
    [[], undefined, "", 0, false],
  ];
  for (const [chunks, announced, bytes, taken, closed] of cases) {
    await t.step(`${chunks.join(" ")} of ${announced}`, async () => {
      const given = body(...chunks);
      assert.deepEqual(await readPrefix(given, announced, 8), new TextEncoder().encode(bytes));
      assert.deepEqual([given.taken, given.ended], [taken, closed ? "closed" : "read"]);
    });
  }
});

Deno.test("F64 readPrefix() never gives less than was announced", async (t) => {
  const cases: [chunks: (string | Error)[], announced: number | undefined, message: string][] = [
    [["abc"], 4, "the body ended after 3 of 4 bytes"],
    [[], 1, "the body ended after 0 of 1 bytes"],
    [["abc"], 2000, "the body ended after 3 of 8 bytes"],
    [["abc", new Error("aborted")], 2000, "the body broke after 3 bytes"],
    [["abc", new Error("aborted")], undefined, "the body broke after 3 bytes"],
  ];
  for (const [chunks, announced, message] of cases) {
    await t.step(`${message} of ${announced}`, async () => {
      const cause = chunks.find((chunk) => chunk instanceof Error);
      const error = await readPrefix(body(...chunks), announced, 8).catch((error) => error);
      assert.deepEqual([error.name, error.message, error.cause], [
        "BrokenBodyError",
        message,
        cause,
      ]);
    });
  }
});

Deno.test("F79 the log has one JSON line a record, with the key and without the content", async () => {
  const key = fc.string({ unit: "binary", minLength: 1, maxLength: 50 });
  await fc.assert(fc.asyncProperty(key, async (key) => {
    const content = "SECRET-" + crypto.randomUUID();
    const { outside, calls } = fakes({ objects: { [key]: object(content) } });
    await handleEvent(event(record({ key: encodeURIComponent(key) })), outside);
    assert.equal(calls.log.length, 1);
    const line = assertOneJsonLine(calls.log[0]);
    assert.equal(line.file_key, key);
    assert.equal(JSON.stringify(line).includes(content), false);
  }));
});

Deno.test("F31 F79 toJsonLine() escapes whatever ends a line or moves a terminal", () => {
  const key = '\0\u0001\t\n\r\u001b[31m\u007f\u0085\u009b\u2028\u2029"\\\ud83d\ude00';
  assert.equal(
    assertOneJsonLine({ level: "INFO", outcome: "written", file_key: key }).file_key,
    key,
  );
});

/** A line that no reader of lines breaks in two, and that parses. */
function assertOneJsonLine(line: LogLine): LogLine {
  const text = toJsonLine(line);
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(text, /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/);
  return JSON.parse(text);
}

/** What a message or a log line can name of {@link record}, and of one that lacks something. */
const NAMES = (() => {
  const all = {
    bucket_name: "uploads",
    event_name: "ObjectCreated:Put",
    version_id: "v1",
    file_key: "key",
  };
  const { bucket_name: _b, ...noBucket } = all;
  const { event_name: _e, ...noEvent } = all;
  const { version_id: _v, ...noVersion } = all;
  const { file_key: _k, ...noKey } = all;
  return { all, noBucket, noEvent, noVersion, noKey };
})();

/** An S3 event record; `fields` are the object's, `top` the record's own. */
function record(fields: Record<string, unknown> = {}, top: Record<string, unknown> = {}) {
  return {
    eventVersion: "2.1",
    eventSource: "aws:s3",
    awsRegion: "us-east-1",
    eventTime: "2026-01-02T03:04:05.678Z",
    eventName: "ObjectCreated:Put",
    s3: {
      bucket: { name: "uploads" },
      object: {
        key: "key",
        size: 4,
        eTag: "e1",
        versionId: "v1",
        sequencer: "0055AED6DCD90281E5",
        ...fields,
      },
    },
    ...top,
  };
}

/** A record about another bucket. */
function recordOf(bucket: Record<string, unknown>) {
  const { s3, ...rest } = record();
  return { ...rest, s3: { ...s3, bucket } };
}

function event(...records: unknown[]) {
  return { Records: records };
}

function upload(): Upload {
  return {
    bucket: "uploads",
    key: "key",
    timestamp: "2026-01-02T03:04:05.678Z",
    eventName: "ObjectCreated:Put",
    sequencer: "0055AED6DCD90281",
  };
}

function object(content: string): ObjectAnswer & { bytes: Uint8Array } {
  const bytes = new TextEncoder().encode(content);
  return {
    bytes,
    ContentLength: bytes.length,
    ContentType: "text/plain",
    ETag: '"e1"',
    LastModified: new Date("2026-01-02T03:04:05Z"),
  };
}

/** An error as the SDK throws it. */
function awsError(name: string, status?: number, message = "no"): Error {
  return Object.assign(new Error(message), { name, $metadata: { httpStatusCode: status } });
}

/** What the log and the thrown error tell of it. */
function toldOf(error: Error & { $metadata?: { httpStatusCode?: number } }): string {
  const status = error.$metadata?.httpStatusCode;
  return `${error.name}: no` + (status === undefined ? "" : ` (HTTP ${status})`);
}

function clipped(text: string): string {
  return text.length > 1024 ? text.slice(0, 1024) + "…" : text;
}

/** A body that tells how many of its chunks were taken and how it ended. */
function body(...chunks: (string | Error)[]) {
  const given = {
    taken: 0,
    ended: "open",
    async *[Symbol.asyncIterator]() {
      given.ended = "closed"; // unless it comes to its end
      for (const chunk of chunks) {
        if (chunk instanceof Error) throw chunk;
        given.taken++;
        yield await Promise.resolve(new TextEncoder().encode(chunk));
      }
      given.ended = "read";
    },
  };
  return given;
}

/** What was asked of an {@link Outside}, in order. */
interface Calls {
  aws: string[];
  rows: Row[];
  table: Map<string, Row>;
  log: LogLine[];
}

/** Objects by key, any other being "text", and errors that the next calls end in. */
interface Given {
  objects?: Record<string, ObjectAnswer & { bytes: Uint8Array }>;
  getErrors?: Error[];
  headErrors?: Error[];
  putErrors?: Error[];
}

/** Handles an event of some records; answers the error, and what was called. */
async function handle(records: unknown, given?: Given) {
  const { outside, calls } = fakes(given);
  let error: string | undefined;
  try {
    await handleEvent(event(...Array.isArray(records) ? records : [records]), outside);
  } catch (thrown) {
    error = String(thrown);
  }
  return { ...calls, error };
}

/** An outside of S3's objects and a table with DynamoDB's condition, whose clock ticks as it is read. */
function fakes({ objects = {}, getErrors = [], headErrors = [], putErrors = [] }: Given = {}) {
  const calls: Calls = { aws: [], rows: [], table: new Map(), log: [] };
  const find = ({ key }: Upload) => Object.hasOwn(objects, key) ? objects[key] : object("text");
  const call = async (name: string, errors: Error[]) => {
    await Promise.resolve();
    calls.aws.push(name);
    const error = errors.shift();
    if (error) throw error;
  };
  let nowMs = Date.parse("2026-01-02T03:04:07Z");
  const outside: Outside = {
    bucket: "uploads",
    async getObject(upload) {
      await call(`GET ${upload.key} ${upload.versionId}`, getErrors);
      return find(upload);
    },
    async headObject(upload) {
      await call(`HEAD ${upload.key} ${upload.versionId}`, headErrors);
      const { bytes: _, ...answer } = find(upload);
      return answer;
    },
    async putItem(put: Put) {
      const values = Object.entries(put.Item).map(([name, value]) =>
        [name, "N" in value ? Number(value.N) : value.S] as const
      );
      const row = Object.fromEntries(values) as unknown as Row;
      await call(`PUT ${row.file_key}`, putErrors);
      const id = JSON.stringify([row.file_key, row.timestamp]);
      if (!holds(put, calls.table.get(id))) throw awsError("ConditionalCheckFailedException", 400);
      calls.table.set(id, row);
      calls.rows.push(row);
    },
    now: () => nowMs += 100,
    remainingMs: () => 28_000,
    log: (line) => calls.log.push(line),
  };
  return { outside, calls };
}

/** DynamoDB's answer to a condition: alternatives of an absence and of comparisons with a value. */
function holds({ ConditionExpression, ExpressionAttributeValues }: Put, old: Row | undefined) {
  return ConditionExpression.split(" OR ").some((condition) => {
    if (condition === "attribute_not_exists(file_key)") return old === undefined;
    const [, name, operator, value] = condition.match(/^(\w+) ([<>]) (:\w+)$/)!;
    const attribute = old?.[name as keyof Row];
    if (attribute === undefined) return false; // a comparison with nothing is false
    const given = ExpressionAttributeValues![value].S;
    return operator === "<" ? attribute < given : attribute > given;
  });
}

function withoutUndefined(object: object) {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}
