/** What holds of the core for any event, in any order. */

import assert from "node:assert/strict";
import fc from "npm:fast-check@4.10.2";
import { handleEvent } from "../handler.ts";
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
