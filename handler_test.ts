import assert from "node:assert/strict";
import fc from "fast-check";
import {
  BrokenBodyError,
  decodeKey,
  handleEvent,
  type LogLine,
  type ObjectAnswer,
  OutOfTimeError,
  type Outside,
  PREFIX_BYTES,
  type Put,
  readPrefix,
  recordToUpload,
  type Row,
  rowToPut,
  toJsonLine,
  toRow,
  UndecodableKeyError,
  type Upload,
} from "./handler.ts";
import { previewOf } from "./function/preview.ts";

const NAMED_ERRORS = ["NotAnS3EventError", "RecordsFailedError"];

Deno.test("F1 handleEvent() writes the row of a created object, every attribute of it", async () => {
  const { outside, calls } = fakes({ objects: { "a b.txt": object("Hello") } });
  await handleEvent(event(record({ key: "a+b.txt", size: 5 })), outside);
  assert.deepEqual(calls.rows, [{
    file_key: "a b.txt",
    timestamp: "2026-01-02T03:04:05.678Z",
    bucket_name: "uploads",
    event_name: "ObjectCreated:Put",
    processed_at: "2026-01-02T03:04:07.000Z",
    file_size: 5,
    content_type: "text/plain",
    last_modified: "2026-01-02T03:04:05.000Z",
    etag: "e1",
    version_id: "v1",
    sequencer: "0055AED6DCD90281E5",
    content_preview: "Hello",
  }]);
  assert.deepEqual(calls.aws, ["GET a b.txt v1", "PUT a b.txt"]);
});

Deno.test("F35 F36 handleEvent() makes two calls for an object, a HEAD in place of a GET when it is empty", async () => {
  const { outside, calls } = fakes({ objects: { "dir/": object("") } });
  await handleEvent(event(record({ key: "dir/", size: 0 })), outside);
  assert.deepEqual(calls.aws, ["HEAD dir/ v1", "PUT dir/"]);
  assert.equal(calls.rows[0].file_size, 0);
  assert.equal("content_preview" in calls.rows[0], false);
});

Deno.test("handleEvent() succeeds without a row for events about nothing created", async (t) => {
  const cases = [
    {
      name: "F13 s3:TestEvent",
      input: { Service: "Amazon S3", Event: "s3:TestEvent" },
      outcome: "test",
    },
    { name: "F15 no records", input: { Records: [] }, outcome: undefined },
    ...[
      "ObjectRemoved:Delete",
      "LifecycleExpiration:Delete",
      "ObjectTagging:Put",
      "s3:ObjectRemoved:Delete",
    ]
      .map((eventName) => ({
        name: `F16 ${eventName}`,
        input: event(record({}, { eventName })),
        outcome: "ignored",
      })),
  ];
  for (const { name, input, outcome } of cases) {
    await t.step(name, async () => {
      const { outside, calls } = fakes();
      await handleEvent(input, outside);
      assert.deepEqual(calls.aws, []);
      assert.deepEqual(calls.log.map((line) => line.outcome), outcome ? [outcome] : []);
    });
  }
});

Deno.test("handleEvent() throws for a payload that is no S3 event", async (t) => {
  for (const input of [undefined, null, {}, "text", 7, [], { Records: {} }, { Records: "x" }]) {
    await t.step(`F14 ${JSON.stringify(input) ?? "undefined"}`, async () => {
      await assert.rejects(handleEvent(input, fakes().outside), {
        name: "NotAnS3EventError",
        message: "Cannot handle the event: it has no list of Records",
      });
    });
  }
});

Deno.test("handleEvent() throws for a record that it cannot read, after doing the others", async (t) => {
  const cases = [
    {
      name: "F17 another service",
      input: record({}, { eventSource: "aws:sqs" }),
      error: /InvalidRecordError: .*eventSource is not aws:s3/,
    },
    { name: "null", input: null, error: /InvalidRecordError/ },
    {
      name: "F19 version 3.0",
      input: record({}, { eventVersion: "3.0" }),
      error: /UnsupportedVersionError: .*unsupported version "3.0"/,
    },
    {
      name: "no version",
      input: record({}, { eventVersion: undefined }),
      error: /UnsupportedVersionError/,
    },
    {
      name: "no bucket",
      input: { ...record(), s3: { object: { key: "x" } } },
      error: /names no bucket/,
    },
    { name: "no key", input: record({ key: "" }), error: /names no object key/ },
    { name: "no time", input: record({}, { eventTime: undefined }), error: /eventTime undefined/ },
    {
      name: "a time without zone",
      input: record({}, { eventTime: "2026-01-02T03:04:05" }),
      error: /eventTime/,
    },
    { name: "no eventName", input: record({}, { eventName: undefined }), error: /no eventName/ },
    ...["100%", "%zz", "%C3", "\ud800", "k".repeat(1025)].map((key) => ({
      name: `F26 key ${key.slice(0, 9)}`,
      input: record({ key }),
      error: /UndecodableKeyError: Cannot (decode|take) the object key/,
    })),
  ];
  for (const { name, input, error } of cases) {
    await t.step(name, async () => {
      const { outside, calls } = fakes();
      await assert.rejects(
        handleEvent(event(record({ key: "1" }), input, record({ key: "3" })), outside),
        {
          name: "RecordsFailedError",
          message: error,
        },
      );
      assert.deepEqual(calls.rows.map((row) => row.file_key).sort(), ["1", "3"]);
      assert.deepEqual(calls.log.filter((line) => line.level === "ERROR").length, 1);
    });
  }
});

Deno.test("F18 handleEvent() takes any minor version and unknown fields", async () => {
  for (const eventVersion of ["2.0", "2.1", "2.3", "2.9", "2.10"]) {
    const { outside, calls } = fakes();
    await handleEvent(event(record({}, { eventVersion, news: { a: 1 } })), outside);
    assert.equal(calls.rows.length, 1);
  }
});

Deno.test("handleEvent() writes a row without preview for facts about the object", async (t) => {
  const cases = [
    {
      name: "F57 deleted since",
      error: { name: "NoSuchKey", status: 404 },
      fact: "gone",
      calls: ["GET", "PUT"],
    },
    {
      name: "F57 version deleted since",
      error: { name: "NoSuchVersion", status: 404 },
      fact: "gone",
      calls: ["GET", "PUT"],
    },
    {
      name: "F57 a delete marker",
      error: { name: "MethodNotAllowed", status: 405 },
      fact: "gone",
      calls: ["GET", "PUT"],
    },
    {
      name: "F11 overwritten since, no versions",
      error: { name: "PreconditionFailed", status: 412 },
      fact: "replaced",
      calls: ["GET", "PUT"],
    },
    {
      name: "F37 empty by now",
      error: { name: "InvalidRange", status: 416 },
      fact: "empty",
      calls: ["GET", "HEAD", "PUT"],
    },
    {
      name: "F67 archived",
      error: { name: "InvalidObjectState", status: 403 },
      fact: "archived",
      calls: ["GET", "HEAD", "PUT"],
    },
  ];
  for (const { name, error, fact, calls: expected } of cases) {
    await t.step(name, async () => {
      const { outside, calls } = fakes({
        objects: { key: object("text") },
        getErrors: [awsError(error)],
      });
      await handleEvent(event(record({ size: 10 })), outside);
      assert.deepEqual(calls.aws.map((call) => call.split(" ")[0]), expected);
      assert.equal("content_preview" in calls.rows[0], false);
      const fromHead = expected.includes("HEAD");
      assert.equal(calls.rows[0].file_size, fromHead ? 4 : 10);
      assert.equal(calls.rows[0].content_type, fromHead ? "text/plain" : undefined);
      assert.equal(calls.log[0].object, fact);
    });
  }
});

Deno.test("F58 F61 F68 F70 handleEvent() throws what the SDK gave up on, and says which object and why", async (t) => {
  const cases = [
    { name: "AccessDenied", status: 403 },
    { name: "KMS.DisabledException", status: 400 },
    { name: "SlowDown", status: 503 },
    { name: "InternalError", status: 500 },
    { name: "TimeoutError", status: undefined },
  ];
  const http = ({ status }: { status?: number }) => status ? ` (HTTP ${status})` : "";
  for (const error of cases) {
    await t.step(`GET: ${error.name}`, async () => {
      const { outside, calls } = fakes({ getErrors: [awsError(error)] });
      await assert.rejects(handleEvent(event(record()), outside), {
        name: "RecordsFailedError",
        message: `1 of 1 records failed: Cannot read "key" from "uploads": ${error.name}: no${
          http(error)
        }`,
      });
      assert.deepEqual(calls.rows, []);
    });
    await t.step(`PUT: ${error.name}`, async () => {
      const { outside } = fakes({ putErrors: [awsError(error)] });
      await assert.rejects(handleEvent(event(record()), outside), {
        name: "RecordsFailedError",
        message:
          `1 of 1 records failed: Cannot write the row of "key" from "uploads": ${error.name}: no${
            http(error)
          }`,
      });
    });
  }
});

Deno.test("F2 F71 handleEvent() takes a refused condition as success and changes nothing", async () => {
  const { outside, calls } = fakes();
  await handleEvent(event(record()), outside);
  await handleEvent(event(record()), outside);
  assert.deepEqual(calls.log.map((line) => line.outcome), ["written", "unchanged"]);
  assert.equal(calls.rows.length, 1);
});

Deno.test("F63 F64 handleEvent() reads again when a body breaks, at most three times", async () => {
  const broken = () => new BrokenBodyError("the body broke after 3 bytes");
  const twice = fakes({ getErrors: [broken(), broken()] });
  await handleEvent(event(record()), twice.outside);
  assert.equal(twice.calls.rows.length, 1);

  const thrice = fakes({ getErrors: [broken(), broken(), broken()] });
  await assert.rejects(handleEvent(event(record()), thrice.outside), /BrokenBodyError/);
  assert.equal(thrice.calls.aws.length, 3);
  assert.deepEqual(thrice.calls.rows, []);
});

Deno.test("F76 handleEvent() begins no record without time for it", async () => {
  const { outside, calls } = fakes();
  let remainingMs = 1999;
  outside.remainingMs = () => remainingMs -= 500; // each look costs half a second
  const late = [record({ key: "1" }), record({ key: "2" }), record({ key: "3" })];
  await assert.rejects(handleEvent(event(...late), outside), {
    name: "RecordsFailedError",
    message: /^2 of 3 records failed: OutOfTimeError: Cannot begin "2": .*Cannot begin "3"/,
  });
  assert.deepEqual(calls.rows.map((row) => row.file_key), ["1"]);
});

Deno.test("F65 handleEvent() passes on that a call ran out of time", async () => {
  const { outside } = fakes({ getErrors: [new OutOfTimeError("no answer within 8000 ms")] });
  await assert.rejects(
    handleEvent(event(record()), outside),
    /OutOfTimeError: no answer within 8000 ms/,
  );
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

Deno.test("handleEvent() bounds the error of many failures", async () => {
  const records = Array.from({ length: 1000 }, () => record({ key: "%".repeat(2000) }));
  await assert.rejects(handleEvent(event(...records), fakes().outside), (error: Error) => {
    assert.match(error.message, /^1000 of 1000 records failed: .*; and 980 more$/);
    return error.message.length < 30_000;
  });
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
      assert.ok(NAMED_ERRORS.includes(error.name), String(error));
    });
    for (const line of calls.log) assertOneJsonLine(line);
  }));
});

Deno.test("F5 F6 F7 handleEvent() leaves the same table for any order and number of deliveries", async () => {
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

Deno.test("F8 F9 recordToUpload() leaves out what the event does not know", () => {
  const input = record({ size: undefined, eTag: undefined, versionId: undefined, sequencer: "" });
  assert.deepEqual(withoutUndefined(recordToUpload(input)!), {
    bucket: "uploads",
    key: "key",
    timestamp: "2026-01-02T03:04:05.678Z",
    eventName: "ObjectCreated:Put",
  });
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
  assert.throws(() => decodeKey("%C3%A9".repeat(512) + "a"), UndecodableKeyError);
});

Deno.test("F40 toRow() keeps sizes of terabytes exact, from a Content-Range", () => {
  for (const size of [5 * 1024 ** 4, 50 * 1024 ** 4, 0]) {
    const answer = { ContentRange: `bytes 0-2047/${size}`, ContentLength: 2048 };
    assert.equal(toRow(upload(), answer, undefined, "now").file_size, size);
  }
  assert.equal(toRow(upload(), { ContentLength: 7 }, undefined, "now").file_size, 7);
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

Deno.test("F39 F41 readPrefix() takes the limit and closes an endless body", async () => {
  let closed = false;
  async function* endless() {
    try {
      while (true) yield await Promise.resolve(new Uint8Array(1000).fill(65));
    } finally {
      closed = true;
    }
  }
  const bytes = await readPrefix(endless(), undefined);
  assert.equal(bytes.length, PREFIX_BYTES);
  assert.ok(closed);
});

Deno.test("F64 readPrefix() never gives less than was announced", async (t) => {
  const cases = [
    { name: "short", chunks: ["abc"], announced: 4 },
    { name: "nothing", chunks: [], announced: 1 },
    { name: "broken", chunks: ["abc", new Error("aborted")], announced: 2000 },
    {
      name: "broken, of unknown length",
      chunks: ["abc", new Error("aborted")],
      announced: undefined,
    },
  ];
  for (const { name, chunks, announced } of cases) {
    await t.step(name, async () => {
      await assert.rejects(readPrefix(body(...chunks), announced), BrokenBodyError);
    });
  }
  assert.deepEqual(await readPrefix(body("ab", "cd"), 4), new TextEncoder().encode("abcd"));
  assert.deepEqual(await readPrefix(body(), 0), new Uint8Array());
});

Deno.test("previewOf() decides by type, by charset and by the bytes", async (t) => {
  const utf8 = (text: string) => new TextEncoder().encode(text);
  const latin1 = Uint8Array.of(0x63, 0xe9);
  const pdf = utf8("%PDF-1.7\n");
  const gzip = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0);
  const cases: [name: string, type: string | undefined, bytes: Uint8Array, preview?: string][] = [
    ["plain text", "text/plain", utf8("a"), "a"],
    ["F52 case and spaces", "TEXT/PLAIN ; Charset=UTF-8", utf8("é"), "é"],
    [
      "F54 markup is stored as it is",
      "text/html",
      utf8("<script>1</script>"),
      "<script>1</script>",
    ],
    ["F54 a formula is stored as it is", "text/csv", utf8("=1+1"), "=1+1"],
    ["F51 json", "application/json", utf8("{}"), "{}"],
    ["F51 xml", "application/xml", utf8("<a/>"), "<a/>"],
    ["F51 +json", "application/problem+json", utf8("{}"), "{}"],
    ["+xml", "application/atom+xml", utf8("<a/>"), "<a/>"],
    ["yaml", "application/yaml", utf8("a: 1"), "a: 1"],
    ["x-yaml", "application/x-yaml", utf8("a: 1"), "a: 1"],
    ["ndjson", "application/x-ndjson", utf8("{}\n{}"), "{}\n{}"],
    ["javascript", "application/javascript", utf8("1"), "1"],
    ["sql", "application/sql", utf8("SELECT 1"), "SELECT 1"],
    ["csv", "application/csv", utf8("a,b"), "a,b"],
    ["F51 svg", "image/svg+xml", utf8("<svg/>"), "<svg/>"],
    ["F53 no type, text", undefined, utf8("a,ü\r\n\t\f"), "a,ü\r\n\t\f"],
    ["F53 empty type, text", "", utf8("a"), "a"],
    ["F53 octet-stream, text", "application/octet-stream", utf8("a"), "a"],
    ["F53 binary/octet-stream, text", "binary/octet-stream", utf8("a"), "a"],
    ["F53 nonsense type, text", "nonsense", utf8("a"), "a"],
    ["octet-stream, a byte order mark", "application/octet-stream", utf8("\ufeffa"), "a"],
    ["octet-stream, not UTF-8", "application/octet-stream", latin1],
    ["F53 octet-stream, a control character", "application/octet-stream", utf8("a\x01")],
    ["octet-stream, a C1 control character", "application/octet-stream", utf8("a\x85")],
    ["F53 no type, NUL", undefined, utf8("a\0")],
    ["no type, gzip", undefined, gzip],
    ["no type, cut character at its end", undefined, utf8("é").slice(0, 1)],
    ["F53a png, whatever the bytes", "image/png", utf8("text")],
    ["F53a audio", "audio/mpeg", utf8("text")],
    ["F53a video", "video/mp4", utf8("text")],
    ["F53a font", "font/woff2", utf8("text")],
    ["F53a pdf", "application/pdf", pdf],
    ["F53a zip", "application/zip", utf8("text")],
    ["x-gzip", "application/x-gzip", utf8("text")],
    ["tar", "application/x-tar", utf8("text")],
    ["F50 text with NUL", "text/plain", utf8("a\0b")],
    ["F45 invalid UTF-8 in text", "text/plain", latin1, "c\ufffd"],
    ["F48 latin 1", "text/plain; charset=iso-8859-1", latin1, "cé"],
    ["quoted charset", 'text/plain; charset="ISO-8859-1"', latin1, "cé"],
    ["F49 unknown charset", "text/plain; charset=bogus", utf8("é"), "é"],
    ["F49 unclosed quote", 'text/plain; charset="utf-8', utf8("é"), "é"],
    ["F49 a charset of 10 kB", `text/plain; charset=${"x".repeat(10_000)}`, utf8("é"), "é"],
    ["a charset that only encodes", "text/plain; charset=replacement", utf8("a"), "a"],
    ["F46 UTF-8 mark wins over charset", "text/plain; charset=iso-8859-1", utf8("\ufeffé"), "é"],
    [
      "F47 UTF-16LE mark",
      "text/plain",
      Uint8Array.of(0xff, 0xfe, 0x61, 0, 0x3d, 0xd8, 0, 0xde),
      "a😀",
    ],
    ["F47 UTF-16BE mark", "text/plain", Uint8Array.of(0xfe, 0xff, 0, 0x61), "a"],
    ["F47 UTF-16LE, odd", "text/plain", Uint8Array.of(0xff, 0xfe, 0x61, 0, 0x62), "a\ufffd"],
    ["UTF-16 without mark", "text/plain", Uint8Array.of(0x61, 0)],
    ["nothing", "text/plain", new Uint8Array()],
    ["only a mark", "text/plain", utf8("\ufeff")],
  ];
  for (const [name, contentType, bytes, preview] of cases) {
    await t.step(
      name,
      () => assert.equal(previewOf(bytes, { contentType, complete: true }), preview),
    );
  }
});

Deno.test("F55 F56 previewOf() looks into no compressed object", () => {
  const bytes = new TextEncoder().encode("text");
  const preview = (contentEncoding: string) =>
    previewOf(bytes, { contentType: "text/plain", contentEncoding, complete: true });
  for (const coding of ["gzip", "GZIP", "br", "aws-chunked, gzip", "zstd,identity", "what"]) {
    assert.equal(preview(coding), undefined, coding);
  }
  for (const coding of ["", "identity", "aws-chunked", "AWS-Chunked, Identity"]) {
    assert.equal(preview(coding), "text", coding);
  }
});

Deno.test("F38 F43 previewOf() takes 500 characters, none of them half", () => {
  const options = { contentType: "text/plain", complete: true };
  for (const [length, expected] of [[1, 1], [499, 499], [500, 500], [501, 500]]) {
    const bytes = new TextEncoder().encode("a".repeat(length));
    assert.equal(previewOf(bytes, options), "a".repeat(expected));
  }
  const bytes = new TextEncoder().encode("a".repeat(499) + "😀b");
  assert.equal(previewOf(bytes, options), "a".repeat(499) + "😀");
});

Deno.test("F42 F43 F44 previewOf() is a well-formed beginning of the text, wherever the bytes are cut", () => {
  const text = fc.string({ unit: "binary", minLength: 1, maxLength: 1000 });
  fc.assert(fc.property(text, fc.nat(PREFIX_BYTES), (text, cut) => {
    const all = new TextEncoder().encode(text);
    const bytes = all.slice(0, cut);
    const preview = previewOf(bytes, { contentType: "text/plain", complete: cut >= all.length }) ??
      "";
    assert.ok(preview.isWellFormed());
    assert.ok(Array.from(preview).length <= 500);
    assert.ok(text.replace(/^\ufeff/, "").startsWith(preview));
  }));
});

Deno.test("F45 F49 F50 previewOf() takes any bytes, type and encoding without a throw or a NUL", () => {
  const type = fc.oneof(
    fc.string(),
    fc.constantFrom(
      "text/plain",
      "application/json",
      "text/plain; charset=utf-16",
      "image/png",
      "",
    ),
    fc.string().map((charset) => `text/plain; charset=${charset}`),
  );
  const any = fc.record({
    contentType: fc.option(type, { nil: undefined }),
    contentEncoding: fc.option(fc.constantFrom("", "gzip"), { nil: undefined }),
    complete: fc.boolean(),
  });
  fc.assert(fc.property(fc.uint8Array({ maxLength: PREFIX_BYTES }), any, (bytes, options) => {
    const preview = previewOf(bytes, options) ?? "a";
    assert.ok(preview.isWellFormed() && preview !== "" && !preview.includes("\0"));
    assert.ok(Array.from(preview).length <= 500);
  }));
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
function awsError({ name, status }: { name: string; status?: number }): Error {
  return Object.assign(new Error("no"), { name, $metadata: { httpStatusCode: status } });
}

function body(...chunks: (string | Error)[]): AsyncIterable<Uint8Array> {
  return {
    async *[Symbol.asyncIterator]() {
      for (const chunk of chunks) {
        if (chunk instanceof Error) throw chunk;
        yield await Promise.resolve(new TextEncoder().encode(chunk));
      }
    },
  };
}

/** An outside of objects by key (any other is "text") and a table with DynamoDB's condition. */
function fakes(
  given: {
    objects?: Record<string, ObjectAnswer & { bytes: Uint8Array }>;
    getErrors?: Error[];
    putErrors?: Error[];
  } = {},
) {
  const { objects = {}, getErrors = [], putErrors = [] } = given;
  const calls = {
    aws: [] as string[],
    rows: [] as Row[],
    table: new Map<string, Row>(),
    log: [] as LogLine[],
  };
  const find = ({ key }: Upload) => Object.hasOwn(objects, key) ? objects[key] : object("text");
  const outside: Outside = {
    async getObject(upload) {
      await Promise.resolve();
      calls.aws.push(`GET ${upload.key} ${upload.versionId}`);
      const error = getErrors.shift();
      if (error) throw error;
      return find(upload);
    },
    async headObject(upload) {
      await Promise.resolve();
      calls.aws.push(`HEAD ${upload.key} ${upload.versionId}`);
      const { bytes: _, ...answer } = find(upload);
      return answer;
    },
    async putItem(put: Put) {
      await Promise.resolve();
      const row = Object.fromEntries(
        Object.entries(put.Item).map((
          [name, value],
        ) => [name, "N" in value ? Number(value.N) : value.S]),
      ) as unknown as Row;
      calls.aws.push(`PUT ${row.file_key}`);
      const error = putErrors.shift();
      if (error) throw error;
      const id = JSON.stringify([row.file_key, row.timestamp]);
      if (!holds(put, calls.table.get(id))) {
        throw awsError({ name: "ConditionalCheckFailedException", status: 400 });
      }
      calls.table.set(id, row);
      calls.rows.push(row);
    },
    now: () => Date.parse("2026-01-02T03:04:07Z"),
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
