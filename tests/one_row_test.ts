/** What an event and a backfill do about each other's rows of a version. */

import assert from "node:assert/strict";
import { putBackfillRow } from "../function/one_row.ts";
import { handleEvent, type Row } from "../handler.ts";
import { awsError, event, fakes, handleRecords, object, record } from "./outside.ts";

/** The second of LastModified, and so of a backfill's row, with the digits after its point. */
const at = (digits: string) => `2026-01-02T03:04:05.${digits}Z`;

/** An event's time of that second, and a time when it is late. */
const EVENT_TIME = at("678");
const LATE = "2026-01-02T04:00:00Z";

/** A backfill's row of the event's version. */
const BACKFILLED = {
  file_key: "key",
  bucket_name: "uploads",
  timestamp: at("000000"),
  event_name: "ObjectCreated:Backfill",
  etag: "e1",
  version_id: "v1",
  last_modified: at("000"),
  processed_at: "now",
};

/** {@link fakes} whose table has these rows, without what is undefined. */
function fakesWith(rows: Row[], given?: Parameters<typeof fakes>[0]) {
  const { outside, calls } = fakes({ now: LATE, ...given });
  for (const row of rows) {
    calls.table.set(JSON.stringify([row.file_key, row.timestamp]), JSON.parse(JSON.stringify(row)));
  }
  const times = () => [...calls.table.values()].map(({ timestamp }) => timestamp).toSorted();
  return { outside, times };
}

Deno.test("F97 handleEvent() looks for a backfill's row after its put, unless the event is on time", async (t) => {
  const cases: [name: string, now: string, modified?: string, isUnknown?: boolean][] = [
    ["five minutes after LastModified", "03:09:05", "03:04:05"],
    ["five minutes after the event, not after LastModified", "03:09:05.700", "03:04:10"],
    ["a multipart upload's, which is its beginning", "03:04:07", "00:00:00"],
    ["another object's LastModified", "03:04:20", "03:04:11", true],
    ["no LastModified", "03:04:07", undefined, true],
  ];
  const atTime = (time: string) => `2026-01-02T${time}Z`;
  const handleAt = (now: string, modified?: string) => {
    const LastModified = modified === undefined ? undefined : new Date(atTime(modified));
    const objects = { key: { ...object("text"), LastModified } };
    return handleRecords(record(), { objects, now: atTime(now) });
  };
  for (const [name, now, modified, isUnknown] of cases) {
    await t.step(name, async () => {
      const from = isUnknown ? "0" : atTime(`${modified}.000000`);
      const last = isUnknown ? "03:04:10" : modified; // the event's time and five seconds
      const query = `QUERY key ${from} to ${atTime(`${last}.999999`)} down`;
      const { aws } = await handleAt(now, modified);
      assert.deepEqual(aws, ["GET key v1", "PUT key", query]);
    });
  }
  await t.step("five minutes less a moment", async () => {
    const { aws } = await handleAt("03:09:04.600", "03:04:05");
    assert.deepEqual(aws, ["GET key v1", "PUT key"]);
  });
});

Deno.test("F97 handleEvent() deletes the backfill's row of its version, and no other", async (t) => {
  const bare = { version_id: undefined };
  const cases: [
    name: string,
    versionId: string | undefined,
    fields: Partial<Row>,
    isDeleted: boolean,
  ][] = [
    ["its version's", "v1", { timestamp: at("000001") }, true],
    ["another version's of the same bytes", "v1", { version_id: "v2" }, false],
    ["one without a version", "v1", bare, false],
    ["an event's", "v1", { event_name: "ObjectCreated:Put" }, false],
    ["one of another second", "v1", { timestamp: "2026-01-02T03:04:04.000000Z" }, false],
    ["without versions, that of its ETag and time", undefined, bare, true],
    ["of another ETag", undefined, { ...bare, etag: "e2" }, false],
    ["of none", undefined, { ...bare, etag: undefined }, false],
    ["of another time", undefined, { ...bare, last_modified: "2026-01-02T03:04:06.000Z" }, false],
    ["one with a version", undefined, {}, false],
  ];
  for (const [name, versionId, fields, isDeleted] of cases) {
    await t.step(name, async () => {
      const row = { ...BACKFILLED, ...fields };
      const { outside, times } = fakesWith([row]);
      for (const _again of [1, 2]) await handleEvent(event(record({ versionId })), outside);
      assert.deepEqual(times(), isDeleted ? [EVENT_TIME] : [row.timestamp, EVENT_TIME].toSorted());
    });
  }
  await t.step("a look or a deletion that fails is thrown, and done by the retry", async () => {
    for (const errors of ["queryErrors", "deleteErrors"] as const) {
      const denied = { [errors]: [awsError("AccessDeniedException", 400)] };
      const { outside, times } = fakesWith([BACKFILLED], denied);
      await assert.rejects(
        handleEvent(event(record()), outside),
        /Cannot (look for the rows|delete a second row) of "key" from "uploads": AccessDenied/,
      );
      assert.deepEqual(times(), [BACKFILLED.timestamp, EVENT_TIME]);
      await handleEvent(event(record()), outside);
      assert.deepEqual(times(), [EVENT_TIME]);
    }
  });
});

Deno.test("F118 putBackfillRow() puts its row beside the removal of its version, which stays", async () => {
  const removal = { ...BACKFILLED, event_name: "ObjectRemoved:Delete", timestamp: at("678000001") };
  const { outside, times } = fakesWith([{ ...removal, etag: undefined, last_modified: undefined }]);
  for (const _again of [1, 2]) await putBackfillRow(BACKFILLED, { dryRun: false }, outside);
  assert.deepEqual(times(), [BACKFILLED.timestamp, removal.timestamp]);
});

Deno.test("F98 putBackfillRow() leaves the first of a version's rows, and in a dry run all", async () => {
  const all = [at("000000"), at("000001"), at("000002")];
  const rows = all.map((timestamp) => ({ ...BACKFILLED, timestamp })).reverse();
  const { outside, times } = fakesWith(rows);
  const seen = [...rows, ...rows]; // two pages may overlap, and the second has the newest first
  for (const [dryRun, left] of [[true, all], [false, all.slice(0, 1)]] as const) {
    assert.equal(await putBackfillRow(BACKFILLED, { seen, dryRun }, outside), "unchanged");
    assert.deepEqual(times(), left);
  }
});

Deno.test("F98 putBackfillRow() tries five times, if others take each time that is free", async () => {
  const { outside } = fakes();
  let puts = 0;
  outside.putItem = () => {
    puts++;
    return Promise.reject(awsError("ConditionalCheckFailedException", 400));
  };
  await assert.rejects(
    putBackfillRow(BACKFILLED, { dryRun: false }, outside),
    /Cannot write the row of "key" from "uploads": others took every time that was free$/,
  );
  assert.equal(puts, 5);
});
