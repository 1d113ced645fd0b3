/**
 * What holds of the core for any event in any order, any key and any bytes. Only `deno task test` runs
 * it: a plain `deno test` would fetch fast-check, and so would every task from then on.
 */

import assert from "node:assert/strict";
import fc from "npm:fast-check@4.10.2";
import { toJsonLine } from "../function/errors.ts";
import type { ObjectAnswer } from "../function/read.ts";
import { isDeleted } from "../function/removals.ts";
import {
  handleEvent,
  PREFIX_BYTES,
  PREVIEW_CHARACTERS,
  recordToUpload,
  toRow,
} from "../handler.ts";
import { assertOneJsonLine, event, fakes, object, record } from "./outside.ts";

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
    for (const line of calls.log) {
      assertOneJsonLine(toJsonLine(line));
      // The clock's time, whatever the event says: Lambda takes it for the line's.
      assert.match(line.timestamp, /^2026-01-02T03:04:\d\d\.\d00Z$/);
    }
  }));
});

Deno.test("F4 F5 F6 F7 F113 F114 handleEvent() leaves the same table for any order and number of deliveries", async () => {
  const upload = fc.record({
    key: fc.constantFrom("a", "b"),
    eventTime: fc.constantFrom("2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00.001Z"),
    sequencer: fc.stringMatching(/^[0-9A-F]{4,18}$/),
    isRemoved: fc.boolean(),
  });
  const selector = (one: { sequencer: string }) => one.sequencer;
  const uploads = fc.uniqueArray(upload, { minLength: 1, maxLength: 8, selector });
  const deliveries = uploads.chain((uploads) =>
    fc.tuple(
      fc.constant(uploads),
      fc.array(fc.constantFrom(...uploads), { maxLength: 8 }).chain((again) =>
        fc.shuffledSubarray([...uploads, ...again], { minLength: uploads.length + again.length })
      ),
    )
  );
  await fc.assert(fc.asyncProperty(deliveries, async ([uploads, order]) => {
    const { outside, calls } = fakes();
    outside.recordsRemovals = true;
    for (const { key, eventTime, sequencer, isRemoved } of order) {
      const eventName = `Object${isRemoved ? "Removed:DeleteMarkerCreated" : "Created:Put"}`;
      const fields = { key, sequencer, versionId: sequencer };
      await handleEvent(event(record(fields, { eventTime, eventName })), outside);
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

    const orderOf = ({ eventTime, sequencer }: typeof uploads[number]) => eventTime + sequencer;
    for (const key of ["a", "b"]) {
      const events = uploads.filter((each) => each.key === key);
      const last = events.reduce((a, b) => orderOf(a) > orderOf(b) ? a : b, events[0]);
      const rows = [...calls.table.values()].filter(({ file_key }) => file_key === key);
      assert.equal(isDeleted(rows), last?.isRemoved ?? false);
    }
  }));
});

Deno.test("F27 F28 F31 F32 F79 the log has one JSON line a record, with any key and without the content", async () => {
  const key = fc.string({ unit: "binary", minLength: 1, maxLength: 256 }); // 4 bytes each at most
  await fc.assert(fc.asyncProperty(key, async (key) => {
    const content = "SECRET-" + crypto.randomUUID();
    const { outside, calls } = fakes({ objects: { [key]: object(content) } });
    const encoded = encodeURIComponent(key).replaceAll("%20", "+").replaceAll("%2F", "/");
    await handleEvent(event(record({ key: encoded })), outside);
    assert.equal(calls.log.length, 1);
    const line = assertOneJsonLine(toJsonLine(calls.log[0]));
    assert.deepEqual([line.file_key, calls.rows[0].file_key], [key, key]);
    assert.equal(JSON.stringify(line).includes(content), false);
  }));
});

Deno.test("F42 F43 F44 a preview is a well-formed beginning of the text, wherever the bytes are cut", () => {
  const text = fc.string({ unit: "binary", minLength: 1, maxLength: PREFIX_BYTES / 2 });
  fc.assert(fc.property(text, fc.nat(PREFIX_BYTES), (text, cut) => {
    const all = new TextEncoder().encode(text);
    const preview = previewOf(all.slice(0, cut), {
      ContentType: "text/plain",
      ContentLength: all.length,
    });
    assert.ok(text.replace(/^\ufeff/, "").startsWith(preview ?? ""));
  }));
});

Deno.test("F45 F49 F50 a preview is made of any bytes, type and encoding without a throw or a NUL", () => {
  const types = ["text/plain", "application/json", "text/plain; charset=utf-16", "image/png", ""];
  const charsets = "euc-kr big5 euc-jp iso-2022-jp gb18030 shift_jis windows-1252 bogus".split(" ");
  const type = fc.oneof(
    fc.string(),
    fc.constantFrom(...types, ...charsets.map((charset) => `text/html; charset=${charset}`)),
    fc.string().map((charset) => `text/plain; charset=${charset}`),
  );
  const answer = fc.record({
    ContentType: fc.option(type, { nil: undefined }),
    ContentEncoding: fc.option(fc.constantFrom("", "gzip", "none"), { nil: undefined }),
    ContentLength: fc.nat(PREFIX_BYTES),
  });
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: PREFIX_BYTES }),
    fc.uint8Array({ min: 0x1b, maxLength: PREFIX_BYTES }), // no NUL, so that there is a preview
  );
  fc.assert(fc.property(bytes, answer, fc.boolean(), (bytes, answer, isWhole) => {
    previewOf(bytes, isWhole ? { ...answer, ContentLength: bytes.length } : answer);
  }));
});

function previewOf(bytes: Uint8Array, answer: ObjectAnswer): string | undefined {
  const { content_preview } = toRow(
    recordToUpload(record(), { bucket: "uploads" })!,
    answer,
    bytes,
    "now",
  );
  if (content_preview === undefined) return undefined;
  assert.ok(content_preview.isWellFormed() && content_preview !== "");
  assert.ok(!content_preview.includes("\0"));
  assert.ok(Array.from(content_preview).length <= PREVIEW_CHARACTERS);
  return content_preview;
}
