/** The steps of a record, one by one: what its event says, what is read, its row. Many at a time. */

import assert from "node:assert/strict";
import { toJsonLine } from "../function/errors.ts";
import { rowToPut } from "../function/one_row.ts";
import { forEachParallel } from "../function/parallel.ts";
import { textOf } from "../function/preview.ts";
import { type ObjectAnswer, readPrefix } from "../function/read.ts";
import {
  decodeKey,
  type Filter,
  letsThrough,
  PREFIX_BYTES,
  PREVIEW_CHARACTERS,
  recordToUpload,
  toRow,
  unquoted,
  type Upload,
  versionOf,
} from "../handler.ts";
import { assertOneJsonLine, object, record } from "./outside.ts";
import { CASES } from "./texts.ts";

/** What every event tells. */
const UPLOAD: Upload = {
  bucket: "uploads",
  key: "key",
  timestamp: "2026-01-02T03:04:05.678Z",
  eventName: "ObjectCreated:Put",
};

const OWN = { bucket: "uploads" };

Deno.test("F8 F9 F82 recordToUpload() leaves out what the event does not know", () => {
  for (const size of [undefined, -1, 1.5, NaN, "4"]) {
    for (const versionId of [undefined, null, "", "null"]) {
      const input = record({ size, eTag: "", versionId, sequencer: null });
      assert.deepEqual(JSON.parse(JSON.stringify(recordToUpload(input, OWN))), UPLOAD);
    }
  }
});

Deno.test("recordToUpload() takes an event's name with and without its prefix, and 1,024 characters of an id", () => {
  const versionId = "v".repeat(1024);
  const input = record({ versionId }, { eventName: "s3:ObjectCreated:s3:Put" });
  const upload = recordToUpload(input, OWN)!;
  assert.deepEqual([upload.eventName, upload.versionId], ["ObjectCreated:s3:Put", versionId]);
});

Deno.test("F78 recordToUpload() spells one moment one way", () => {
  for (
    const [eventTime, timestamp] of [
      ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z"],
      ["2026-01-02T03:04:05.678901Z", "2026-01-02T03:04:05.678Z"],
      ["2026-01-02T05:04:05+02:00", "2026-01-02T03:04:05.000Z"],
    ]
  ) assert.equal(recordToUpload(record({}, { eventTime }), OWN)!.timestamp, timestamp);
});

Deno.test("F82 versionOf() takes an absent, an empty and a null version for one", () => {
  for (const id of [undefined, null, "", "null", 7]) assert.equal(versionOf(id), undefined);
  for (const id of ["v1", "NULL", " null"]) assert.equal(versionOf(id), id);
});

Deno.test("unquoted() takes the quotes off an ETag, if it has both", () => {
  const alike = ['"e', 'e"', 'a"e"', '"e"a', "e"];
  for (const [etag, expected] of [['"e"', "e"], ...alike.map((etag) => [etag, etag])]) {
    assert.equal(unquoted(etag), expected);
  }
  for (const none of ['""', "", undefined]) assert.equal(unquoted(none), undefined);
});

Deno.test("letsThrough() wants any of the prefixes, and any of the suffixes", () => {
  const filter = { filter_prefixes: ["in/", "new/"], filter_suffixes: [".csv", ".txt"] };
  const keys = ["in/a.csv", "new/a.txt", "in/a", "a.csv", "in/.csv"];
  const cases: [Filter, string[]][] = [
    [{}, keys],
    [{ filter_prefixes: [], filter_suffixes: [] }, keys],
    [{ filter_prefixes: filter.filter_prefixes }, ["in/a.csv", "new/a.txt", "in/a", "in/.csv"]],
    [{ filter_suffixes: filter.filter_suffixes }, ["in/a.csv", "new/a.txt", "a.csv", "in/.csv"]],
    [filter, ["in/a.csv", "new/a.txt", "in/.csv"]],
  ];
  for (const [filter, expected] of cases) {
    assert.deepEqual(keys.filter((key) => letsThrough(filter, key)), expected);
  }
});

Deno.test("F23 F24 F25 F29 F32 F34 decodeKey() decodes once, and throws for what is no key", () => {
  const keys = {
    "a+b.txt": "a b.txt",
    "a%2Bb.txt": "a+b.txt",
    "100%25": "100%",
    "a%252Fb": "a%2Fb",
    "..%2Fx": "../x",
    "//": "//",
    "%E3%81%82%0A%00": "あ\n\0",
    "constructor": "constructor",
    ["%C3%A9".repeat(512)]: "é".repeat(512),
  };
  for (const [encoded, key] of Object.entries(keys)) assert.equal(decodeKey(encoded), key);
  assert.throws(() => decodeKey("%zz"), {
    name: "InvalidEventError",
    message: 'Cannot decode the key "%zz": no form-encoded UTF-8 of 1 to 1024 bytes',
  });
});

Deno.test("F39 F41 readPrefix() reads up to its limit, and closes a body of which more would come", async (t) => {
  const cases: [chunks: string[], announced: number | undefined, expected: string][] = [
    [["abc", "def", "ghi", "jkl"], undefined, "abcdefgh, closed after 3"],
    [["abc", "def", "ghi", "jkl"], 12, "abcdefgh, closed after 3"],
    [["abcdefgh", "i"], 9, "abcdefgh, closed after 1"],
    [["abcd", "efgh"], 8, "abcdefgh, read after 2"],
    [["ab", "cd"], 4, "abcd, read after 2"],
    [["abc"], undefined, "abc, read after 1"],
    [[], 0, ", read after 0"],
  ];
  for (const [chunks, announced, expected] of cases) {
    await t.step(`${chunks.join(" ")} of ${announced}`, async () => {
      const body = bodyOf(...chunks);
      const text = new TextDecoder().decode(await readPrefix(body, announced, 8));
      assert.equal(`${text}, ${body.ended} after ${body.taken}`, expected);
    });
  }
});

Deno.test("F64 readPrefix() never gives less than was announced", async (t) => {
  const aborted = new Error("aborted");
  const cases: [chunks: (string | Error)[], announced: number | undefined, message: string][] = [
    [["abc"], 4, "the body ended after 3 of 4 bytes"],
    [[], 1, "the body ended after 0 of 1 bytes"],
    [["abc"], 2000, "the body ended after 3 of 8 bytes"],
    [["abc", aborted], 2000, "the body broke after 3 bytes"],
    [["abc", aborted], undefined, "the body broke after 3 bytes"],
  ];
  for (const [chunks, announced, message] of cases) {
    await t.step(`${message} of ${announced}`, async () => {
      const broken = { name: "BrokenBodyError", message };
      await assert.rejects(readPrefix(bodyOf(...chunks), announced, 8), broken);
    });
  }
});

Deno.test("F40 toRow() keeps sizes of terabytes exact, from a Content-Range", () => {
  const TB = 1024 ** 4;
  const cases: [answer: ObjectAnswer, size?: number][] = [
    [{ ContentRange: `bytes 0-99/${50 * TB}`, ContentLength: 100 }, 50 * TB],
    [{ ContentRange: "bytes 0-99/0", ContentLength: 100 }, 0],
    [{ ContentLength: 7 }, 7],
    [{ ContentRange: "bytes 0-99/*", ContentLength: 7 }, 7],
    [{ ContentRange: "bytes 0-1/2 or 3/4x", ContentLength: 7 }, 7],
    [{ ContentRange: `bytes 0-99/${2 ** 53}` }],
    [{ ContentLength: -1 }],
    [{}],
  ];
  for (const [answer, size] of cases) assert.equal(rowOf(answer).file_size, size);
});

Deno.test("F42 F56 toRow() makes a preview by the answer's encoding, and of a cut object leaves a cut character out", () => {
  const bytes = new TextEncoder().encode("aé").slice(0, 2);
  const [ContentType, ContentRange] = ["text/plain", "bytes 0-1/3"];
  const cases: [answer: ObjectAnswer | undefined, preview?: string][] = [
    [undefined, "a"],
    [{ ContentType, ContentLength: 2 }, "a\ufffd"],
    [{ ContentType, ContentRange, ContentLength: 2 }, "a"],
    [{ ContentType, ContentRange, ContentEncoding: "gzip" }],
    [{ ContentType: "text/plain; charset=cp437", ContentRange }],
  ];
  for (const [answer, preview] of cases) {
    assert.equal(rowOf(answer, bytes).content_preview, preview);
  }
});

Deno.test("F38 F43 toRow() takes so many characters of a preview, none of them half", () => {
  const [less, most] = [PREVIEW_CHARACTERS - 1, PREVIEW_CHARACTERS];
  for (const [length, expected] of [[1, 1], [less, less], [most, most], [most + 1, most]]) {
    const { content_preview } = rowOf(undefined, new TextEncoder().encode("a".repeat(length)));
    assert.equal(content_preview, "a".repeat(expected));
  }
  const pairs = new TextEncoder().encode("\ufeff" + "😀".repeat(most));
  assert.equal(rowOf(undefined, pairs.slice(0, PREFIX_BYTES)).content_preview, "😀".repeat(most));
});

/** Values of user metadata, and what they mean. */
const DECODED = {
  "=?UTF-8?B?0J/RgNC40LLQtdGC?=": "Привет",
  "=?utf-8?b?2LPZhNin2YU?=": "سلام",
  "=?UTF-8?B?YQ?=": "a",
  "=?UTF-8?Q?=E6=97=a5_a?=": "日 a",
  "=?UTF-8?Q??=": "",
  "a =?UTF-8?B?4pw=?= =?UTF-8?Q?=93?= b": "a ✓ b", // words that cut a character
  "=?UTF-8?B?77u/AA0KGw==?=": "\ufeff\0\r\n\u001b",
  "Ð\x9fÑ\x80Ð¸": "При", // UTF-8 taken for Latin-1
  "=?UTF-8?B?w4PChA==?=": "Ä",
  "a Ð\x9f": "a П",
  "=?UTF-8?B?w4PCpA==?=": "Ã¤", // which may be real Latin-1
};

/** Values that stay as they are: US-ASCII, and what cannot be decoded for sure. */
const KEPT = [
  ...["", " a  b ", "a_b", "a=20b", "=?", "=?UTF-8?B?", "1"],
  ...["=?UTF-8?B?4pw?=", "=?UTF-8?B?=4?=", "=?UTF-8?B?4?="], // malformed Base64
  ...["=?UTF-8?Q?=4?=", "=?UTF-8?Q?a=?=", "=?UTF-8?Q?=FF?="], // malformed Q
  ...["=?koi8-r?B?8NLJ18XU?=", "=?UTF-8?X?a?=", "x=?UTF-8?Q?a?="], // no such words
  ...["CAFÉ®", "Ã¤"], // may be real Latin-1
  ...["\x93a\x94", "\u0416\x9f", "\u0416Ð\x9f", "Ã\x84\u2026"], // C1 controls that are no UTF-8
];

Deno.test("F110 F111 toRow() decodes user metadata, and makes no character that may be false", () => {
  const cases = [...Object.entries(DECODED), ...KEPT.map((value) => [value, value])];
  for (const [value, text] of cases) {
    assert.deepEqual(rowOf({ Metadata: { name: value } }).user_metadata, { name: text });
  }
});

Deno.test("F111 toRow() takes user metadata of odd names, but of none", () => {
  const odd = JSON.parse('{"__proto__": "p", "constructor": "c", "a b": "s"}');
  assert.deepEqual(rowOf({ Metadata: { ...odd, "": "no name" } }).user_metadata, odd);
  const { M } = rowToPut(rowOf({ Metadata: odd })).Item.user_metadata;
  const told = '{"__proto__":{"S":"p"},"constructor":{"S":"c"},"a b":{"S":"s"}}';
  assert.equal(JSON.stringify(M), told);
  assert.equal("user_metadata" in rowOf({ Metadata: { "": "no name" } }), false);
});

Deno.test("F112 toRow() knows the storage class of an object that was read", () => {
  for (
    const [answer, storage_class] of [
      [{ Metadata: {} }, "STANDARD"],
      [{ Metadata: {}, StorageClass: "DEEP_ARCHIVE" }, "DEEP_ARCHIVE"],
      [{ LastModified: new Date(0) }, undefined], // from a listing
      [undefined, undefined],
    ] as const
  ) assert.equal(rowOf(answer).storage_class, storage_class);
});

Deno.test("F75 toRow() stays far below an item's 400 KB at the longest", () => {
  const row = toRow(
    { ...UPLOAD, key: "é".repeat(512), bucket: "b".repeat(63), versionId: "v".repeat(1024) },
    { ContentType: "text/plain;" + "ü".repeat(8000), ETag: `"${"e".repeat(1024)}"` },
    new TextEncoder().encode("😀".repeat(PREVIEW_CHARACTERS)),
    "2026-01-02T03:04:07.000Z",
  );
  assert.equal(Array.from(row.content_type!).length, 1024);
  assert.ok(new TextEncoder().encode(JSON.stringify(row)).length < 16_000);
});

Deno.test("F12 toRow() takes size and ETag from S3's answer where the event has none, but no invalid date", () => {
  const { file_size, etag, ...rest } = rowOf({ ...object("text"), LastModified: new Date(NaN) });
  assert.deepEqual([file_size, etag, "last_modified" in rest], [4, "e1", false]);
});

Deno.test("textOf() decides by type, encoding and bytes", async (t) => {
  for (const { name, bytes, options, text } of CASES) {
    await t.step(name, () => assert.equal(textOf(bytes, options), text));
  }
});

Deno.test("F42 textOf() leaves out a character that is cut at the end of the range", () => {
  const cut = new TextEncoder().encode("aé").slice(0, 2);
  for (const contentType of ["text/plain", undefined, "text/plain; charset=euc-kr"]) {
    assert.equal(textOf(cut, { contentType, isWhole: false }), "a");
  }
  assert.equal(textOf(cut, { contentType: "text/plain", isWhole: true }), "a\ufffd");
  assert.equal(textOf(cut, { isWhole: true }), undefined);
  const controlZ = new TextEncoder().encode("a\x1a"); // which ends a whole text only
  assert.equal(textOf(controlZ, { isWhole: false }), undefined);
});

Deno.test("F31 F79 toJsonLine() escapes whatever ends a line or moves a terminal", () => {
  const key = '\0\u0001\t\n\r\u001b[31m\u007f\u0085\u009b\u2028\u2029"\\\ud83d\ude00';
  assert.deepEqual(assertOneJsonLine(toJsonLine({ file_key: key })), { file_key: key });
});

Deno.test("forEachParallel() loses no failure, and begins nothing after one", async () => {
  for (const limit of [1, 2, 8]) {
    const begun: number[] = [];
    const work = async (item: number) => {
      begun.push(item);
      await Promise.resolve();
      if (item === 1) throw new Error("first");
    };
    await assert.rejects(forEachParallel(slowly([1, 2, 3, 4, 5]), limit, work), /^Error: first$/);
    assert.ok(begun.length <= 2, `${begun}`);
  }
});

Deno.test("forEachParallel() waits for what runs, also when the stream breaks", async () => {
  let ended = 0;
  const work = async () => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    ended++;
  };
  const items = slowly([1, 2], new Error("broken"));
  await assert.rejects(forEachParallel(items, 8, work), /^Error: broken$/);
  assert.equal(ended, 2);
});

function rowOf(answer: ObjectAnswer | undefined, bytes?: Uint8Array) {
  return toRow(UPLOAD, answer, bytes, "now");
}

/** A body that tells how many of its chunks were taken and how it ended. */
function bodyOf(...chunks: (string | Error)[]) {
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

async function* slowly(items: number[], end?: Error): AsyncGenerator<number> {
  for (const item of items) {
    yield item;
    await new Promise((resolve) => setTimeout(resolve));
  }
  if (end) throw end;
}
