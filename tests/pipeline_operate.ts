/** Steps of the end-to-end tests: what fails is kept, and the operator's tasks bring it back. */

import assert from "node:assert/strict";
import { SetAlarmStateCommand } from "@aws-sdk/client-cloudwatch";
import { BatchWriteItemCommand } from "@aws-sdk/client-dynamodb";
import { PutBucketNotificationConfigurationCommand } from "@aws-sdk/client-s3";
import { PurgeQueueCommand, SendMessageBatchCommand } from "@aws-sdk/client-sqs";
import { BACKFILLED } from "../function/one_row.ts";
import { type BackfillReport, emptyReport } from "../tasks/backfill.ts";
import { countVersions } from "../tasks/bucket.ts";
import { forEachParallel } from "../function/parallel.ts";
import type { ReplayReport } from "../tasks/replay.ts";
import { type Item, queryRows, rowKey } from "../tasks/table.ts";
import type { Status } from "../tasks/status.ts";
import { pullState } from "../tasks/terraform.ts";
import {
  ageStack,
  type Deployed,
  failedMessage,
  interruptedTask,
  invokeLater,
  invokeWith,
  poison,
  recordOf,
  recordOfRow,
  rowsBelow,
  settleAtOnce,
  type Steps,
  task,
  waitFor,
} from "./pipeline_context.ts";
import type { Recorded } from "./pipeline_rows.ts";
import type { Ended } from "./run_task.ts";

/** An event that always fails, and stays in the failure queue from here on. */
export const FAIL: Steps<Deployed> = {
  "F57a a 404 fails in the stack's first 15 minutes, and is a fact after them": async (
    deployed,
  ) => {
    const key = "poison/missing.txt";
    const invoked = () => invokeWith(deployed, [recordOf(deployed, { key, size: 7 })]);
    assert.equal(
      await ageStack(deployed, 10),
      (await pullState(deployed.target.workspace)).created,
    );
    assert.match(await invoked() ?? "", /NoSuchKey \(HTTP 404\): until .*, 15 minutes after/);
    assert.deepEqual(await queryRows(deployed.root, key), []);
    await ageStack(deployed, 20);
    assert.equal(await invoked(), undefined);
    assert.equal((await queryRows(deployed.root, key)).length, 1);
  },

  "an event that can't be handled is retried, then parked whole": async (deployed) => {
    const event = poison(deployed);
    await invokeLater(deployed, event);
    const envelope = JSON.parse(await waitFor(60_000, () => failedMessage(deployed)));
    assert.deepEqual(envelope.requestPayload, event);
    assert.equal(envelope.requestContext.condition, "RetriesExhausted");
    assert.equal(envelope.requestContext.approximateInvokeCount, 3);
    const answer = JSON.stringify(envelope.responsePayload);
    assert.match(answer, /1 of 2 records failed: .*poison\/%zz/);
    // The event's other object does not exist, which is a fact and no failure.
    const [row] = await queryRows(deployed.root, "poison/good.txt");
    assert.equal(row.file_size, 7);
    assert.equal(row.content_preview, undefined);
  },

  "status, logs and replay say what is wrong with it, and keep it": async (deployed) => {
    const status = await task(deployed, "status", "--json", "--quick");
    assert.equal(status.code, 1, status.stderr);
    const { ok, failureQueue, rows, problems }: Status = JSON.parse(status.stdout);
    assert.equal(ok, false);
    assert.deepEqual(failureQueue, { visible: 1, inFlight: 0 });
    assert.match(
      problems.join(),
      /^1 event in the failure queue: deno task logs --local.* says why.* again$/,
    );
    assert.equal(rows[0].file_key, "poison/good.txt");

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

    const replay = await task(deployed, "replay", "--json");
    assert.equal(replay.code, 1);
    const report: ReplayReport = JSON.parse(replay.stdout);
    assert.equal(report.replayed, 0);
    assert.match(report.failures[0].reason, /InvalidEventError: .*form-encoded.*%zz/);
    assert.deepEqual(report.left, { visible: 1, inFlight: 0 });
  },
};

export const OPERATE: Steps<Recorded> = {
  "replay, stopped in the middle and run again: all rows, exact": async (deployed) => {
    const { loaded } = deployed;
    const parked = loaded.slice(0, 300);
    await forgetLoaded(deployed);
    await parkEvents(deployed, parked);
    const replaying = /Replaying: [1-9]/;
    const { code, stderr } = await interruptedTask(deployed, replaying, "replay", "--json");
    assert.equal(code, 130, stderr);
    await assertSomeRows(deployed, parked.length);
    const again = await task(deployed, "replay", "--json");
    assert.equal(again.code, 1); // the event that always fails
    const report: ReplayReport = JSON.parse(again.stdout);
    assert.equal(report.failures.length, 1);
    assert.ok(report.replayed < parked.length, `${report.replayed} replayed`);
    assert.deepEqual(report.left, { visible: 1, inFlight: 0 });
    assert.deepEqual(timeless(await rowsBelow(deployed, "load/")), timeless(parked));
  },

  "backfill, stopped in the middle and run again: a row each": async (deployed) => {
    const { loaded } = deployed;
    const backfill = ["backfill", "--json", "--prefix", "load/"] as const;
    await settleAtOnce(deployed);
    await forgetLoaded(deployed);
    const dry = await task(deployed, "backfill", "--json", "--prefix", "load/1", "--dry-run");
    assert.equal(dry.code, 0, dry.stderr);
    assert.equal(backfillReport(dry).written, 111); // 1, 10 to 19, 100 to 199
    assert.equal((await rowsBelow(deployed, "load/")).length, 0);

    const line = /: [1-9]\d* done, \d+ recorded, 0 failed, at "/;
    const slowly = [...backfill, "--concurrency", "1"] as const;
    const { code, stderr } = await interruptedTask(deployed, line, ...slowly);
    assert.equal(code, 130, stderr);
    const some = await assertSomeRows(deployed, loaded.length);
    const again = await task(deployed, ...backfill);
    assert.equal(again.code, 0, again.stderr);
    const { written, unchanged, ...report } = backfillReport(again);
    const none = emptyReport(false);
    assert.deepEqual({ ...none, ...report }, { ...none, objects: 1000 });
    // The function has ended the run that nobody waited for.
    assert.ok(written > 0 && unchanged >= some && written + unchanged === 1000, again.stdout);
    const rows = await rowsBelow(deployed, "load/");
    assert.deepEqual(identities(rows), identities(loaded));
    assert.ok(rows.every(({ event_name }) => event_name === BACKFILLED));
  },

  "replayed events that come after a backfill replace its rows, exact": async (deployed) => {
    const late = deployed.loaded.slice(0, 50);
    await parkEvents(deployed, late);
    assert.equal((await task(deployed, "replay")).code, 1); // the event that always fails
    const rows = await rowsBelow(deployed, "load/");
    assert.deepEqual(identities(rows), identities(deployed.loaded));
    const ofEvents = rows.filter(({ event_name }) => event_name !== BACKFILLED);
    assert.deepEqual(timeless(ofEvents), timeless(late));
  },

  "backfill finds that every other object has its row": async (deployed) => {
    const ended = await task(deployed, "backfill", "--dry-run", "--json");
    const { objects, ...others } = backfillReport(ended);
    assert.ok(objects > 1500, ended.stdout);
    assert.deepEqual({ objects, ...others }, { ...emptyReport(true), objects, unchanged: objects });
    assert.equal(ended.code, 0);
  },

  "status no longer names the queue when it is empty, but a fired alarm": async (deployed) => {
    const { outputs, sqs, cloudwatch } = deployed.root;
    await sqs.send(new PurgeQueueCommand({ QueueUrl: outputs.failure_queue_url }));
    const AlarmName = `${outputs.lambda_function_name}-errors`;
    const alarm = { AlarmName, StateValue: "ALARM" as const, StateReason: "Tried \u202e" };
    await cloudwatch.send(new SetAlarmStateCommand(alarm));
    // Without the plan, which names what these steps set in the function's environment.
    const { code, stdout } = await task(deployed, "status", "--quick");
    assert.equal(code, 1);
    assert.match(stdout, /^code .*, as deployed$/m);
    assert.match(stdout, /^failure queue +0 events$/m);
    assert.match(stdout, /-errors, \d+ s ago: Tried \\u\{202e\}/);
    assert.match(stdout, /^WRONG: the alarm \S+-errors is in ALARM$/m);
    assert.doesNotMatch(stdout, /^WRONG: (?!the alarm)/m);
  },

  "Ctrl-C in verify removes verify's own files": async (deployed) => {
    const { root, bucket } = deployed;
    const before = await countVersions(root.s3, bucket, 100_000);
    const { code } = await interruptedTask(deployed, /Uploading 8 files/, "verify");
    assert.equal(code, 130);
    assert.equal(await countVersions(root.s3, bucket, 100_000), before);
  },

  "verify fails, and says why, when the bucket no longer calls": async (deployed) => {
    const none = { Bucket: deployed.bucket, NotificationConfiguration: {} };
    await deployed.root.s3.send(new PutBucketNotificationConfigurationCommand(none));
    const { code, stdout } = await task(deployed, "verify");
    assert.equal(code, 1);
    assert.match(stdout, /WRONG: the bucket \S+ has no notification that calls the function/);
  },
};

function backfillReport({ stdout }: Ended): BackfillReport {
  return JSON.parse(stdout);
}

async function forgetLoaded(deployed: Deployed): Promise<void> {
  const rows = await rowsBelow(deployed, "load/");
  const { dynamo, outputs: { dynamodb_table_name } } = deployed.root;
  await forEachParallel(batches(rows, 25), 4, async (batch) => {
    const requests = batch.map((row) => ({ DeleteRequest: { Key: rowKey(row) } }));
    const RequestItems = { [dynamodb_table_name]: requests };
    const { UnprocessedItems } = await dynamo.send(new BatchWriteItemCommand({ RequestItems }));
    assert.deepEqual(UnprocessedItems, {});
  });
  assert.equal((await rowsBelow(deployed, "load/")).length, 0);
}

/** How many rows there are: some, but not all. */
async function assertSomeRows(deployed: Deployed, all: number): Promise<number> {
  const { length } = await rowsBelow(deployed, "load/");
  assert.ok(length > 0 && length < all, `${length} rows`);
  return length;
}

/**
 * Puts the events of rows into the failure queue, in the envelope of the one that is there; one of
 * ten without an envelope, as in a dead-letter queue.
 */
async function parkEvents(deployed: Deployed, rows: Item[]): Promise<void> {
  const envelope = JSON.parse((await failedMessage(deployed))!);
  const messages = rows.map((row, i) => {
    const requestPayload = { Records: [recordOfRow(deployed, row)] };
    const message = i % 10 === 0 ? requestPayload : { ...envelope, requestPayload };
    return { Id: String(i % 10), MessageBody: JSON.stringify(message) };
  });
  const QueueUrl = deployed.root.outputs.failure_queue_url;
  await forEachParallel(batches(messages, 10), 8, async (Entries) => {
    await deployed.root.sqs.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
  });
}

/** Items by as many as a call takes. */
function batches<T>(items: T[], most: number): T[][] {
  const { length } = items;
  return Array.from(
    { length: Math.ceil(length / most) },
    (_, i) => items.slice(most * i, most * (i + 1)),
  );
}

/** Rows but for when they were written. */
export function timeless(rows: Item[]) {
  return rows.map(({ processed_at: _, ...rest }) => rest);
}

/** What a row has in common with any other row of the same version. */
function identities(rows: Item[]) {
  return rows.map(({ file_key, version_id, etag, file_size }) => [
    file_key,
    version_id,
    etag,
    file_size,
  ]);
}
