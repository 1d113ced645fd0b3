/** From a record to an upload, a row and a put: the pure steps of the core. */

import assert from "node:assert/strict";
import { rowToPut } from "../function/one_row.ts";
import { decodeKey, recordToUpload, toRow, unquoted, versionOf } from "../handler.ts";
import { type ObjectAnswer } from "../function/read.ts";
import { assertOneJsonLine, object, record, upload, withoutUndefined } from "./outside.ts";

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

Deno.test("F27 F32 decodeKey() takes keys of 1 to 1,024 bytes, and nothing else", () => {
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
    [{ ContentType: "text/plain; charset=cp437", ContentRange: "bytes 0-1/3" }],
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

Deno.test("F31 F79 toJsonLine() escapes whatever ends a line or moves a terminal", () => {
  const key = '\0\u0001\t\n\r\u001b[31m\u007f\u0085\u009b\u2028\u2029"\\\ud83d\ude00';
  const line = { timestamp: "t", level: "INFO", outcome: "written", file_key: key } as const;
  assert.equal(assertOneJsonLine(line).file_key, key);
});
