/** Removals: which have rows, what these say, and what they tell of a key. */

import assert from "node:assert/strict";
import { isDeleted } from "../function/removals.ts";
import { handleEvent } from "../handler.ts";
import { event, fakes, record } from "./outside.ts";

const removal = (eventName: string, fields = {}, top = {}) =>
  record({ size: 0, eTag: "d41d8", ...fields }, { eventName, ...top });

/** Handles records one by one, with removals on, at a time that is late for all. */
async function handleAll(records: unknown[], recordsRemovals = true) {
  const { outside, calls } = fakes({ now: "2026-02-02T00:00:00Z" });
  for (const each of records) await handleEvent(event(each), { ...outside, recordsRemovals });
  return calls;
}

Deno.test("F113 F114 handleEvent() puts the row of a removal by one call, late and again too", async () => {
  const marker = removal("ObjectRemoved:DeleteMarkerCreated", { versionId: "m" });
  const { aws, rows, log } = await handleAll([marker, marker]);
  assert.deepEqual(aws, ["PUT key", "PUT key"]);
  assert.deepEqual(log.map(({ outcome }) => outcome), ["written", "unchanged"]);
  assert.deepEqual(rows, [{
    file_key: "key",
    timestamp: "2026-01-02T03:04:05.678Z",
    bucket_name: "uploads",
    event_name: "ObjectRemoved:DeleteMarkerCreated",
    version_id: "m",
    sequencer: "0055AED6DCD90281E5",
    processed_at: rows[0].processed_at,
  }]);
});

Deno.test("F16 F115 handleEvent() records the removals that it should, and no others", async (t) => {
  const [none, some] = [undefined, "v1"];
  const cases: [eventName: string, versionId: unknown, isRecorded: boolean][] = [
    ["ObjectRemoved:Delete", some, true],
    ["s3:ObjectRemoved:Delete", none, true],
    ["LifecycleExpiration:DeleteMarkerCreated", some, true],
    ["LifecycleExpiration:Delete", none, true],
    ["LifecycleExpiration:Delete", some, false],
    ["LifecycleExpiration:Delete", "null", false],
    ["ObjectRemoved:DeleteOther", some, false],
    ["xObjectRemoved:Delete", some, false],
  ];
  for (const [eventName, versionId, isRecorded] of cases) {
    await t.step(`${eventName} of ${versionId}`, async () => {
      const on = await handleAll([removal(eventName, { versionId })]);
      assert.equal(on.rows.length, isRecorded ? 1 : 0);
      const bad = removal(eventName, { key: "%" });
      const off = await handleAll([removal(eventName, { versionId }), bad], false);
      assert.deepEqual(off.log.map(({ outcome }) => outcome), ["ignored", "ignored"]);
      assert.deepEqual(off.aws, []);
    });
  }
});

Deno.test("F116 rows of versions that one request deletes never meet, and need no order", async () => {
  const versions = Array.from(
    { length: 30 },
    (_, index) => `3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbr${index}`,
  );
  const created = versions.map((versionId) => record({ versionId }));
  const deleted = versions.map((versionId) => removal("ObjectRemoved:Delete", { versionId }));
  const { table } = await handleAll([...deleted, ...deleted, ...created]);
  const rows = [...table.values()];
  assert.equal(rows.length, versions.length + 1);
  const time = /^2026-01-02T03:04:05\.678(\d{6})?Z$/;
  assert.ok(rows.every(({ timestamp }) => time.test(timestamp)));
  assert.equal(isDeleted(rows), true);
});

Deno.test("F117 isDeleted() goes by the newest row of a version that is not deleted", async (t) => {
  const row = (name: string, seconds: number, version_id?: string) => ({
    event_name: name,
    timestamp: `2026-01-02T03:04:0${seconds}.000Z`,
    version_id,
  });
  const [put, marker, gone] = [
    "ObjectCreated:Put",
    "ObjectRemoved:DeleteMarkerCreated",
    "ObjectRemoved:Delete",
  ];
  const cases: [name: string, rows: ReturnType<typeof row>[], isDeleted: boolean][] = [
    ["no row", [], false],
    ["a marker is the newest", [row(put, 1, "a"), row(marker, 2, "m")], true],
    ["created after a marker", [row(put, 3, "b"), row(marker, 2, "m")], false],
    ["the marker deleted", [row(put, 1, "a"), row(marker, 2, "m"), row(gone, 3, "m")], false],
    ["the older of two", [row(put, 1, "a"), row(put, 2, "b"), row(gone, 3, "a")], false],
    ["one, a marker below it", [row(marker, 1, "m"), row(put, 2, "b"), row(gone, 3, "b")], true],
    ["nothing but a deletion", [row(gone, 3, "b")], true],
    ["without versions", [row(put, 1), row(gone, 2)], true],
    ["without versions, again", [row(put, 1), row(gone, 2), row(put, 3)], false],
    ["by the lifecycle", [row(put, 1), row("LifecycleExpiration:Delete", 2)], true],
    ["a version above one without", [row(put, 1), row(put, 2, "b"), row(gone, 3, "b")], false],
    ["the null version alone", [row(put, 1), row(put, 2, "b"), row(gone, 3)], false],
  ];
  for (const [name, rows, expected] of cases) {
    await t.step(name, () => {
      assert.equal(isDeleted(rows), expected);
      assert.equal(isDeleted(rows.toReversed()), expected);
    });
  }
});
