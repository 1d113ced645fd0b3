/** Steps of the end-to-end tests: what fails is kept, and the operator's tasks bring it back. */

import assert from "node:assert/strict";
import { BACKFILLED } from "../function/one_row.ts";
import { forEachParallel } from "../function/parallel.ts";
import { type BackfillReport, emptyReport } from "../tasks/backfill.ts";
import { countVersions } from "../tasks/bucket.ts";
import type { ReplayReport } from "../tasks/replay.ts";
import type { Status } from "../tasks/status.ts";
import { deleteRow, type Item, queryRows } from "../tasks/table.ts";
import { toEvent } from "./outside.ts";
import {
  type Deployed,
  failedMessage,
  interruptedTask,
  invokeLater,
  recordOfRow,
  settleAtOnce,
  type Steps,
  task,
  waitFor,
} from "./pipeline.ts";
import { timeless, uploadedRows } from "./pipeline_rows.ts";

/** A stack whose function gets an event that always fails, and so stays in the failure queue. */
interface Failing extends Deployed {
  event: unknown;
}

export async function withFailure(deployed: Deployed): Promise<Failing> {
  const event = toEvent(deployed.bucket, ["poison/%zz", "poison/good.txt"], 7);
  await invokeLater(deployed, event);
  return { ...deployed, event };
}

export const FAIL: Steps<Failing> = {
  "an event that can't be handled is retried, then kept whole": async (deployed) => {
    const envelope = JSON.parse(await waitFor(60_000, () => failedMessage(deployed)));
    assert.deepEqual(envelope.requestPayload, deployed.event);
    assert.equal(envelope.requestContext.condition, "RetriesExhausted");
    assert.equal(envelope.requestContext.approximateInvokeCount, 3);
    const answer = JSON.stringify(envelope.responsePayload);
    assert.match(answer, /1 of 2 records failed: .*poison\/%zz/);
    // The event's other object does not exist, which is a fact and no failure.
    const [row] = await queryRows(deployed.root, "poison/good.txt");
    assert.equal(row.file_size, 7);
    assert.equal(row.content_preview, undefined);
  },

  "status, logs and a dry replay say what is wrong with it": async (deployed) => {
    const status = await task(deployed, "status", "--json", "--quick");
    assert.equal(status.code, 1, status.stderr);
    const { ok, failureQueue, problems }: Status = JSON.parse(status.stdout);
    assert.equal(ok, false);
    assert.deepEqual(failureQueue, { visible: 1, inFlight: 0 });
    assert.match(
      problems.join(),
      /^1 event in the failure queue: deno task logs --local.* says why.* again$/,
    );

    const logs = await task(deployed, "logs", "--since", "5m");
    assert.equal(logs.code, 0, logs.stderr);
    assert.match(logs.stdout, /^\S+Z {2}ERROR {2}failed .* form-encoded.*"poison\/%zz"/m);
    assert.match(logs.stdout, /^\S+Z {2}INFO {3}written +\d+ ms {2}poison\/good\.txt/m);
    assert.doesNotMatch(logs.stdout, /RequestId/);

    const look = await task(deployed, "replay", "--dry-run", "--json");
    assert.equal(look.code, 0, look.stderr);
    const { replayed, events: [event] = [] }: ReplayReport = JSON.parse(look.stdout);
    assert.equal(replayed, 1);
    assert.deepEqual(event.keys, ["poison/%zz", "poison/good.txt"]);
    assert.equal(event.tries, 3);
    assert.ok(Date.now() - Date.parse(event.failedAt) < 600_000, event.failedAt);
    assert.match(event.error!, /1 of 2 records failed/);
  },
};

export const OPERATE: Steps<Deployed> = {
  "replay, stopped in the middle and run again: all rows, exact": async (deployed) => {
    const before = await uploadedRows(deployed);
    const lost = before.slice(0, 300);
    await forget(deployed, lost);
    await queueEvents(deployed, lost);
    const { code, stderr } = await interruptedTask(deployed, /Replaying: [1-9]/, "replay");
    assert.equal(code, 130, stderr);
    const { length } = await uploadedRows(deployed);
    assert.ok(length > before.length - lost.length && length < before.length, `${length} rows`);
    const again = await task(deployed, "replay", "--json");
    assert.equal(again.code, 1); // the event that always fails
    const report: ReplayReport = JSON.parse(again.stdout);
    assert.deepEqual(report.failures.map(({ reason }) => /form-encoded.*%zz/.test(reason)), [true]);
    assert.ok(report.replayed < lost.length, `${report.replayed} replayed`);
    assert.deepEqual(report.left, { visible: 1, inFlight: 0 });
    assert.deepEqual(timeless(await uploadedRows(deployed)), timeless(before));
  },

  "backfill, stopped in the middle and run again: a row each": async (deployed) => {
    const before = await uploadedRows(deployed);
    await settleAtOnce(deployed);
    await forget(deployed, before);
    const line = /: [1-9]\d* done, \d+ recorded, 0 failed/;
    const slowly = ["backfill", "--concurrency", "1"] as const;
    const { code, stderr } = await interruptedTask(deployed, line, ...slowly);
    assert.equal(code, 130, stderr);
    const some = (await uploadedRows(deployed)).length;
    assert.ok(some > 0 && some < before.length, `${some} rows`);
    const again = await task(deployed, "backfill", "--json");
    assert.equal(again.code, 0, again.stderr);
    const report: BackfillReport = JSON.parse(again.stdout);
    const { objects, written, unchanged } = report;
    assert.deepEqual(report, { ...emptyReport(false), objects, written, unchanged });
    // The function has ended the run that nobody waited for.
    assert.ok(written > 0 && unchanged >= some && written + unchanged === objects, again.stdout);
    const rows = await uploadedRows(deployed);
    assert.deepEqual(identities(rows), identities(before));
    assert.ok(rows.every(({ event_name }) => event_name === BACKFILLED));
  },

  "Ctrl-C in verify removes verify's own files": async (deployed) => {
    const { root, bucket } = deployed;
    const before = await countVersions(root.s3, bucket, 100_000);
    const { code } = await interruptedTask(deployed, /Uploading 8 files/, "verify");
    assert.equal(code, 130);
    assert.equal(await countVersions(root.s3, bucket, 100_000), before);
  },
};

function forget({ root }: Deployed, rows: Item[]): Promise<void> {
  return forEachParallel(rows, 8, (row) => deleteRow(root, row));
}

/**
 * Puts the events of rows into the failure queue, in the envelope of the one that is there; one of
 * ten without an envelope, as in a dead-letter queue.
 */
async function queueEvents(deployed: Deployed, rows: Item[]): Promise<void> {
  const { sqs, outputs: { failure_queue_url: QueueUrl } } = deployed.root;
  const envelope = JSON.parse((await failedMessage(deployed))!);
  await forEachParallel(rows.entries(), 8, async ([i, row]) => {
    const requestPayload = { Records: [recordOfRow(deployed, row)] };
    const message = i % 10 === 0 ? requestPayload : { ...envelope, requestPayload };
    await sqs.sendMessage({ QueueUrl, MessageBody: JSON.stringify(message) });
  });
}

/** What a row has in common with any other row of the same version. */
function identities(rows: Item[]) {
  const names = ["file_key", "version_id", "etag", "file_size"];
  return rows.map((row) => names.map((name) => row[name]));
}
