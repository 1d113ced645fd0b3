/** What an event does about a backfill's row of its version. */

import assert from "node:assert/strict";
import { putBackfillRow } from "../function/one_row.ts";
import { handleEvent, type Row } from "../handler.ts";
import { awsError, event, fakes, handle, object, record } from "./outside.ts";

/** What S3 answers of an object, with its time. */
const FOUND: ReturnType<typeof object> = object("text");

Deno.test("F97 handleEvent() looks for a backfill's row after its put, unless the event is on time", async (t) => {
  const second = "2026-01-02T03:04:05.000000Z to 2026-01-02T03:04:05.999999Z";
  const before = "0 to 2026-01-02T03:04:10.999999Z"; // the event's time and five seconds
  const modified = (time: string) => ({ ...object("text"), LastModified: new Date(time) });
  const cases: [name: string, now: string, answer: typeof FOUND, span?: string][] = [
    ["five minutes less a moment", "2026-01-02T03:09:04.600Z", FOUND],
    ["five minutes after LastModified", "2026-01-02T03:09:05Z", FOUND, second],
    [
      "five minutes after the event, though not after LastModified",
      "2026-01-02T03:09:05.700Z",
      modified("2026-01-02T03:04:10Z"),
      "2026-01-02T03:04:10.000000Z to 2026-01-02T03:04:10.999999Z",
    ],
    [
      "another object's LastModified",
      "2026-01-02T03:04:20Z",
      modified("2026-01-02T03:04:11Z"),
      before,
    ],
    [
      "no LastModified",
      "2026-01-02T03:04:07Z",
      { ...object("text"), LastModified: undefined },
      before,
    ],
    [
      "a multipart upload's, which is its beginning",
      "2026-01-02T03:04:07Z",
      modified("2026-01-01T00:00:00Z"),
      "2026-01-01T00:00:00.000000Z to 2026-01-01T00:00:00.999999Z",
    ],
  ];
  for (const [name, now, answer, span] of cases) {
    await t.step(name, async () => {
      const { aws } = await handle(record(), { objects: { key: answer }, now });
      const query = span === undefined ? [] : [`QUERY key ${span} down`];
      assert.deepEqual(aws, ["GET key v1", "PUT key", ...query]);
    });
  }
});

Deno.test("F97 handleEvent() deletes the backfill's row of its version, and no other", async (t) => {
  const late = "2026-01-02T04:00:00Z";
  const at = (microseconds: string) => `2026-01-02T03:04:05.${microseconds}Z`;
  const backfilled = { event_name: "ObjectCreated:Backfill", etag: "e1" };
  const cases: [name: string, fields: Partial<Row>, isDeleted: boolean][] = [
    ["its version's", { version_id: "v1" }, true],
    ["another version's of the same bytes", { version_id: "v2" }, false],
    ["one without a version", {}, false],
    ["an event's", { version_id: "v1", event_name: "ObjectCreated:Put" }, false],
    [
      "one of another second",
      { version_id: "v1", timestamp: at("000000").replace(":05", ":04") },
      false,
    ],
  ];
  for (const [name, fields, isDeleted] of cases) {
    await t.step(name, async () => {
      const { outside, calls } = fakes({ now: late });
      const row = { file_key: "key", timestamp: at("000001"), ...backfilled, ...fields } as Row;
      calls.table.set(JSON.stringify(["key", row.timestamp]), row);
      for (const _again of [1, 2]) await handleEvent(event(record()), outside);
      const times = [...calls.table.values()].map(({ timestamp }) => timestamp);
      assert.deepEqual(
        times.toSorted(),
        [
          ...(isDeleted ? [] : [row.timestamp]),
          "2026-01-02T03:04:05.678Z",
        ].toSorted(),
      );
    });
  }
  await t.step("without versions, that of its ETag and LastModified", async () => {
    for (
      const [fields, left] of [
        [{}, 1],
        [{ etag: "e2" }, 2],
        [{ last_modified: at("000").replace(":05", ":06") }, 2],
        [{ version_id: "v1" }, 2],
      ] as const
    ) {
      const { outside, calls } = fakes({ now: late });
      const last_modified = at("000");
      const timestamp = at("000000");
      const row = { file_key: "key", timestamp, last_modified, ...backfilled, ...fields } as Row;
      calls.table.set(JSON.stringify(["key", timestamp]), row);
      await handleEvent(event(record({ versionId: undefined })), outside);
      assert.equal(calls.table.size, left);
    }
  });
  await t.step("a look or a deletion that fails is thrown, and done by the retry", async () => {
    for (const errors of ["queryErrors", "deleteErrors"] as const) {
      const given = { now: late, [errors]: [awsError("AccessDeniedException", 400)] };
      const { outside, calls } = fakes(given);
      const row = {
        file_key: "key",
        timestamp: at("000000"),
        ...backfilled,
        version_id: "v1",
      } as Row;
      calls.table.set(JSON.stringify(["key", row.timestamp]), row);
      await assert.rejects(
        handleEvent(event(record()), outside),
        /Cannot (look for the rows|delete a second row) of "key" from "uploads": AccessDenied/,
      );
      assert.equal(calls.table.size, 2);
      await handleEvent(event(record()), outside);
      assert.deepEqual([...calls.table.values()].map(({ event_name }) => event_name), [
        "ObjectCreated:Put",
      ]);
    }
  });
});

Deno.test("F98 putBackfillRow() leaves the first of a version's rows, and in a dry run all", async () => {
  const { outside, calls } = fakes();
  const last_modified = "2026-01-02T03:04:05.000Z";
  const bucket_name = "uploads";
  const row = { file_key: "key", bucket_name, event_name: "ObjectCreated:Backfill", last_modified };
  const times = [0, 1, 2].map((n) => last_modified.replace("000Z", `00000${n}Z`));
  for (const timestamp of times.toReversed()) {
    const stored = { ...row, timestamp, version_id: "v1" } as unknown as Row;
    calls.table.set(JSON.stringify(["key", timestamp]), stored);
  }
  const put = { ...row, version_id: "v1" } as unknown as Row & { last_modified: string };
  for (const [dryRun, left] of [[true, times], [false, times.slice(0, 1)]] as const) {
    assert.equal(await putBackfillRow(put, { dryRun }, outside), "unchanged");
    assert.deepEqual([...calls.table.values()].map((row) => row.timestamp).toSorted(), left);
  }
});

Deno.test("F98 putBackfillRow() tries five times, if others take each time that is free", async () => {
  const { outside } = fakes();
  let puts = 0;
  outside.putItem = () => {
    puts++;
    return Promise.reject(awsError("ConditionalCheckFailedException", 400));
  };
  const put = {
    file_key: "key",
    bucket_name: "uploads",
    last_modified: "2026-01-02T03:04:05.000Z",
  };
  await assert.rejects(
    putBackfillRow(put as unknown as Row & { last_modified: string }, { dryRun: false }, outside),
    /Cannot write the row of "key" from "uploads": others took every time that was free$/,
  );
  assert.equal(puts, 5);
});
