/** Deploys, records objects of every kind and in any order, and operates on what failed. */

import assert from "node:assert/strict";
import { waitUntilFunctionUpdatedV2 } from "@aws-sdk/client-lambda";
import { BACKFILLED } from "../function/one_row.ts";
import { forEachParallel } from "../function/parallel.ts";
import { type BackfillReport, backfillRows, emptyReport } from "../tasks/backfill.ts";
import { countVersions } from "../tasks/bucket.ts";
import type { ReplayReport } from "../tasks/replay.ts";
import type { Status } from "../tasks/status.ts";
import { deleteRow, type Item, queryRows } from "../tasks/table.ts";
import { type Report, reportToText } from "../tasks/verify.ts";
import { corpus, type Sample } from "./corpus.ts";
import { EVENT_TIME, toEvent, toRecord } from "./outside.ts";
import {
  type Deployed,
  endToEndTest,
  interruptedTask,
  invokeWith,
  openDeployed,
  recordOfRow,
  rowsBelow,
  runSteps,
  type Steps,
  task,
  upload,
  waitFor,
} from "./pipeline.ts";
import { listProcesses } from "./run_task.ts";

/** A stack whose function gets an event that always fails, and so stays in the failure queue. */
interface Failing extends Deployed {
  failing: unknown;
}

endToEndTest("rows", async (t, pipeline) => {
  const { code, stderr } = await task(pipeline, "deploy", "--yes");
  assert.equal(code, 0, stderr);
  const deployed = await openDeployed(pipeline);
  // In a stack that is not new an object which is not there is a fact.
  const STACK_CREATED = new Date(Date.now() - 20 * 60_000).toISOString();
  await setEnvironment(deployed, { STACK_CREATED });
  const failing = toEvent(deployed.bucket, ["poison/%zz", "poison/good.txt"], 7);
  await runSteps(t, STEPS, { ...deployed, failing });
});

const LATER = "2026-01-02T03:04:06.000Z";

/** Three events of one key: when, with which sequencer, and the content of its version. */
const EVENTS = [
  [EVENT_TIME, "0055AED6DCD90281", "first"],
  [EVENT_TIME, "0055AED6DCD90281E5", "second"],
  [LATER, "0055AED6DCD90282", "third"],
];

const STEPS: Steps<Failing> = {
  "F1 F2 verify finds every file's row, exact": async (deployed) => {
    const verify = await task(deployed, "verify", "--json");
    assert.equal(verify.code, 0, verify.stdout + verify.stderr);
    const report: Report = JSON.parse(verify.stdout);
    assert.match(reportToText(report), /^upload to row: p50 [1-9]\d* ms, max [1-9]\d* ms$/m);
    assert.deepEqual(report.problems, []);
    assert.equal(report.files.length, 8);
    assert.ok(report.files.every(({ row, rowAfterMs }) => row?.sequencer && rowAfterMs! >= 0));
    assert.deepEqual(report.failureQueue, { before: 0, after: 0 });
  },

  "F23-F55 objects of every kind get their one row, exact": async (deployed) => {
    const { root, bucket, failing } = deployed;
    await invokeLater(deployed, failing); // its tries end while other steps run
    const samples = corpus();
    assert.ok(samples.length > 500, `${samples.length} objects`);
    await forEachParallel(samples, 8, async ({ key, body, type, encoding }) => {
      const object = { Key: key, Body: body, ContentType: type, ContentEncoding: encoding };
      await root.s3.putObject({ Bucket: bucket, ...object });
    });
    await waitFor(120_000, async () => {
      const keys = new Set((await uploadedRows(deployed)).map(({ file_key }) => file_key));
      return samples.every(({ key }) => keys.has(key)) || undefined;
    });
    const wrong: string[] = [];
    await forEachParallel(samples, 16, async (sample) => {
      wrong.push(...await checkSample(deployed, sample));
    });
    assert.deepEqual(wrong, []);
  },

  "F3 F4 F5 F6 F7 F10 each time keeps its last version, in any order": async (deployed) => {
    const key = "order";
    const records: unknown[] = [];
    for (const [time, sequencer, body] of EVENTS) {
      const { versionId } = await upload(deployed, key, body);
      records.push(toRecord(deployed.bucket, { key, versionId, sequencer }, time));
    }
    const copies = Array.from({ length: 20 }, () => records).flat();
    await forEachParallel(shuffled(copies), 8, async (record) => {
      assert.equal(await invokeWith(deployed, record), undefined);
    });
    // The uploads' own events have other times.
    const rows = (await queryRows(deployed.root, key))
      .map((row) => [row.timestamp, row.sequencer, row.content_preview])
      .filter(([time]) => EVENTS.some((event) => event[0] === time));
    assert.deepEqual(rows.sort(), EVENTS.slice(1));
  },

  "the function killed in the middle of an event: the retry records it": async (deployed) => {
    const keys = Array.from({ length: 300 }, (_, i) => `killed/${i}`); // there are no such objects
    await invokeLater(deployed, toEvent(deployed.bucket, keys, 7));
    const count = async () => (await rowsBelow(deployed, "killed/")).length;
    const some = await waitFor(30_000, async () => await count() || undefined);
    const { lambda_function_name } = deployed.root.outputs;
    const workers = (await listProcesses()).filter(({ command }) =>
      command.includes("ministack-lambda-") && command.includes(lambda_function_name)
    );
    assert.ok(workers.length > 0, "no process runs the function");
    for (const { pid } of workers) Deno.kill(pid, "SIGKILL");
    assert.ok(some < keys.length, `${some} rows were there already`);
    await waitFor(120_000, async () => await count() === keys.length || undefined);
  },

  "an event that can't be handled is retried, then kept whole": async (deployed) => {
    const envelope = JSON.parse(await waitFor(60_000, () => failedMessage(deployed)));
    assert.deepEqual(envelope.requestPayload, deployed.failing);
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
    const sentence = /^1 event in the failure queue: deno task logs --local.* says why.* again$/;
    assert.match(problems.join(), sentence);

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
    assert.match(event.error!, /1 of 2 records failed/);
  },

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

  // From two machines: nothing keeps the two runs apart but the function.
  "F97 F98 backfill, stopped, run twice at once and beside events: a row each": async (
    deployed,
  ) => {
    const before = await uploadedRows(deployed);
    // From now on events are late after a second, and objects old enough for a backfill after two.
    await setEnvironment(deployed, { ON_TIME_MS: "1000" });
    await forget(deployed, before);
    const line = /: [1-9]\d* done, \d+ recorded, 0 failed/;
    const slowly = ["backfill", "--concurrency", "1"] as const;
    const { code, stderr } = await interruptedTask(deployed, line, ...slowly);
    assert.equal(code, 130, stderr);
    const some = (await uploadedRows(deployed)).length;
    assert.ok(some > 0 && some < before.length, `${some} rows`);

    const backfill = () =>
      backfillRows(deployed.root, { prefix: "", dryRun: false, concurrency: 1 });
    const [again, other] = await Promise.all([
      task(deployed, "backfill", "--json"),
      backfill(),
      resend(deployed, before.slice(0, 60)),
    ]);
    assert.equal(again.code, 0, again.stderr);
    const { objects, written, unchanged }: BackfillReport = JSON.parse(again.stdout);
    assert.equal(written + unchanged, objects, again.stdout);
    assert.deepEqual(other.failures, []);
    const rows = await uploadedRows(deployed);
    assert.deepEqual(identities(rows), identities(before));
    const backfilled = rows.filter(({ event_name }) => event_name === BACKFILLED);
    assert.deepEqual(identities(backfilled), identities(before.slice(60)));

    await resend(deployed, before.slice(60, 100));
    const sent = (await uploadedRows(deployed)).slice(0, 100);
    assert.deepEqual(timeless(sent), timeless(before.slice(0, 100)));
    assert.deepEqual(await backfill(), { ...emptyReport(false), objects, unchanged: objects });
  },

  "Ctrl-C in verify removes verify's own files": async (deployed) => {
    const { root, bucket } = deployed;
    const before = await countVersions(root.s3, bucket, 100_000);
    const { code } = await interruptedTask(deployed, /Uploading 8 files/, "verify");
    assert.equal(code, 130);
    assert.equal(await countVersions(root.s3, bucket, 100_000), before);
  },
};

/** What is wrong with the rows of a sample. */
async function checkSample({ root, bucket }: Deployed, sample: Sample): Promise<string[]> {
  const { name, key, body, preview } = sample;
  const rows = await queryRows(root, key);
  const head = await root.s3.headObject({ Bucket: bucket, Key: key });
  const type = Array.from(head.ContentType!).slice(0, 1024).join("");
  const actual = rows.map((row) => [
    row.file_size,
    row.content_type,
    row.version_id,
    row.content_preview,
  ]);
  const expected = [[body.length, type, head.VersionId, preview]];
  if (JSON.stringify(actual) === JSON.stringify(expected)) return [];
  return [`${name} ${JSON.stringify(key)}: ${JSON.stringify({ actual, expected })}`];
}

function shuffled<T>(items: T[]): T[] {
  return items.map((item) => [Math.random(), item] as const).sort(([a], [b]) => a - b)
    .map(([, item]) => item);
}

/** The rows of the objects of every kind, sorted by key. */
async function uploadedRows(deployed: Deployed): Promise<Item[]> {
  const keys = new Set(corpus().map(({ key }) => key));
  return (await rowsBelow(deployed, "")).filter(({ file_key }) => keys.has(String(file_key)));
}

/** Rows but for when they were written. */
function timeless(rows: Item[]) {
  return rows.map(({ processed_at: _, ...rest }) => rest);
}

/** What a row has in common with any other row of the same version. */
function identities(rows: Item[]) {
  const names = ["file_key", "version_id", "etag", "file_size"];
  return rows.map((row) => names.map((name) => row[name]));
}

function forget({ root }: Deployed, rows: Item[]): Promise<void> {
  return forEachParallel(rows, 8, (row) => deleteRow(root, row));
}

/** Sends the events of rows again, each as often as Lambda does where it fails. */
function resend(deployed: Deployed, rows: Item[]): Promise<void> {
  return forEachParallel(rows, 2, async (row) => {
    const record = recordOfRow(deployed, row);
    let error = await invokeWith(deployed, record);
    for (let tries = 1; error !== undefined && tries < 3; tries++) {
      error = await invokeWith(deployed, record);
    }
    assert.equal(error, undefined);
  });
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

/** The body of a message in the failure queue, which stays there. */
async function failedMessage({ root }: Deployed): Promise<string | undefined> {
  const QueueUrl = root.outputs.failure_queue_url;
  const { Messages = [] } = await root.sqs.receiveMessage({ QueueUrl, VisibilityTimeout: 0 });
  return Messages[0]?.Body;
}

/** Sends the function an event as S3 does, and does not wait. */
async function invokeLater({ root }: Deployed, event: unknown): Promise<void> {
  const FunctionName = root.outputs.lambda_function_name;
  const Payload = new TextEncoder().encode(JSON.stringify(event));
  await root.lambda.invoke({ FunctionName, InvocationType: "Event", Payload });
}

/** Sets variables of the function's environment, until the next deploy. */
async function setEnvironment(
  { root: { lambda, outputs } }: Deployed,
  variables: Record<string, string>,
): Promise<void> {
  const name = { FunctionName: outputs.lambda_function_name };
  const { Environment } = await lambda.getFunctionConfiguration(name);
  const Variables = { ...Environment?.Variables, ...variables };
  await lambda.updateFunctionConfiguration({ ...name, Environment: { Variables } });
  await waitUntilFunctionUpdatedV2({ client: lambda, maxWaitTime: 60, minDelay: 0.1 }, name);
}
