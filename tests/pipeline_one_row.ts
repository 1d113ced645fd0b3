/** Steps of the end-to-end tests: one row a version, however events and backfills meet. */

import assert from "node:assert/strict";
import { BACKFILLED, ON_TIME_MS } from "../function/one_row.ts";
import { forEachParallel } from "../function/parallel.ts";
import { backfillRows } from "../tasks/backfill.ts";
import { deleteRow, type Item } from "../tasks/table.ts";
import {
  type Deployed,
  invokeWithRetries,
  recordOfRow,
  setEnvironment,
  settleAtOnce,
  type Steps,
} from "./pipeline.ts";
import { timeless, uploadedRows } from "./pipeline_rows.ts";

const BACKFILL = { prefix: "", dryRun: false, concurrency: 1 };

export const ONE_ROW: Steps<Deployed> = {
  // From two machines: nothing keeps these runs apart but the function.
  "F97 F98 events and backfills that meet leave each version its event's row": async (deployed) => {
    await settleAtOnce(deployed);
    const before = await uploadedRows(deployed);
    const lost = before.slice(0, 100);
    await forEachParallel(lost, 8, (row) => deleteRow(deployed.root, row));
    const replay = (rows: Item[]) =>
      forEachParallel(rows, 2, async (row) => {
        assert.equal(await invokeWithRetries(deployed, [recordOfRow(deployed, row)]), undefined);
      });
    const backfill = () => backfillRows(deployed.root, BACKFILL);

    await replay(lost.slice(0, 30));
    assert.deepEqual(
      timeless(await uploadedRows(deployed)),
      timeless(before.filter((row) => !lost.slice(30).includes(row))),
    );
    const reports = await Promise.all([backfill(), backfill(), replay(lost.slice(30, 60))]);
    for (const report of reports) if (report) assert.deepEqual(report.failures, []);
    const between = await uploadedRows(deployed);
    assert.deepEqual(versions(between), versions(before));
    const ofBackfill = between.filter(({ event_name }) => event_name === BACKFILLED);
    assert.deepEqual(versions(ofBackfill), versions(lost.slice(60)));
    for (const row of ofBackfill) {
      assert.equal(row.timestamp, String(row.last_modified).replace(".000Z", ".000000Z"));
    }
    await replay(lost);
    assert.deepEqual(timeless(await uploadedRows(deployed)), timeless(before));
    const { written, unchanged, objects } = await backfill();
    assert.deepEqual([written, unchanged], [0, objects]);
    await setEnvironment(deployed, { ON_TIME_MS: String(ON_TIME_MS) });
  },
};

function versions(rows: Item[]) {
  return rows.map(({ file_key, version_id }) => [file_key, version_id]);
}
