/**
 * Backfill: rows for objects that have none, as they are older than the trigger, or their event was
 * lost. It plays the part of S3 Batch Operations: it lists the bucket and invokes the function with
 * tasks. The function alone decides what gets a row.
 */

import { paginateListObjectsV2 } from "@aws-sdk/client-s3";
import type { Invocation, JobAnswer, JobArguments, Task, TaskResult } from "../function/job.ts";
import { forEachParallel } from "../function/parallel.ts";
import { decodeKey, letsThrough } from "../handler.ts";
import { listVersions } from "./bucket.ts";
import { runFunction, toReason } from "./invoke.ts";
import { makePace, type Pace } from "./pace.ts";
import { interrupted, pause } from "./signals.ts";
import type { Stack } from "./target.ts";
import { clip, plural, sayEvery, UserError, visible } from "./terminal.ts";

/** Objects of one invocation: few enough to end long before the function's time limit. */
const INVOCATION_TASKS = 125;

/** It stops after so many failures: then the cause is not in the objects. */
const FAILURE_LIMIT = 1000;

/** How often an object is tried, and the pause after its first try; each later one is 4 times as long. */
const MOST_TRIES = 5;
const FIRST_PAUSE_MS = 1000;

export interface BackfillReport {
  ok: boolean;
  dryRun: boolean;
  /** Current objects that the trigger's filter lets through, and that are old enough. */
  objects: number;
  /** Of these, recorded now; in a dry run, those without a row. */
  written: number;
  /** Of these, with a row of their version already. */
  unchanged: number;
  /** Of these, left without a row: how many, by reason. */
  ignored: Record<string, number>;
  /** Of these, without a row as far as is known, and why. */
  failures: { key: string; reason: string }[];
  /** Objects that are left to their own events, and from when on a run includes them all. */
  young: number;
  youngUntil?: string;
}

export interface BackfillOptions {
  prefix: string;
  dryRun: boolean;
  /** The most invocations at the same time. */
  concurrency: number;
  firstPauseMs?: number;
}

/** A backfill under way. */
interface Backfill {
  stack: Stack;
  prefix: string;
  userArguments: JobArguments;
  report: BackfillReport;
  pace: Pace;
  firstPauseMs: number;
  startMs: number;
  /** How far the listing is. */
  lastKey: string;
}

/**
 * Has the function record the current objects that have no row. More invocations run at the same time,
 * up to `concurrency`, until Lambda throttles. Running it again goes on where it ended.
 *
 * @throws {UserError} the trigger's filter lets no key below the prefix through
 */
export async function backfillRows(
  stack: Stack,
  { prefix, dryRun, concurrency, firstPauseMs = FIRST_PAUSE_MS }: BackfillOptions,
): Promise<BackfillReport> {
  const { filter_prefix, filter_suffix } = stack.outputs;
  const report = emptyReport(dryRun);
  const backfill: Backfill = {
    stack,
    prefix: narrowest(prefix, filter_prefix),
    userArguments: { filter_prefix, filter_suffix, ...(dryRun && { dryRun: "true" }) },
    report,
    pace: makePace(concurrency),
    firstPauseMs,
    startMs: performance.now(),
    lastKey: "",
  };
  using _progress = sayEvery(2000, () => progressLine(backfill));
  await forEachParallel(
    listTasks(backfill),
    backfill.pace.limit,
    (tasks) => recordAll(backfill, tasks),
  );
  report.ok = report.failures.length === 0;
  return report;
}

/** The report of a backfill that has found nothing yet. */
export function emptyReport(dryRun: boolean): BackfillReport {
  return {
    ok: true,
    dryRun,
    objects: 0,
    written: 0,
    unchanged: 0,
    ignored: {},
    failures: [],
    young: 0,
  };
}

/** Tasks for the current objects, as many at once as one invocation has. */
async function* listTasks(backfill: Backfill): AsyncGenerator<Task[]> {
  const { stack: { s3, outputs }, prefix, report } = backfill;
  const pages = paginateListObjectsV2({ client: s3 }, {
    Bucket: outputs.s3_bucket_name,
    Prefix: prefix,
    EncodingType: "url", // XML can't carry every character of a key
  });
  let tasks: Task[] = [];
  for await (const { Contents = [] } of pages) {
    for (const { Key = "", LastModified, ETag, Size } of Contents) {
      if (!letsThrough(outputs, decodeKey(Key))) continue;
      tasks.push({
        taskId: String(tasks.length),
        s3Key: Key, // encoded, as tasks have it
        s3VersionId: null,
        s3Bucket: outputs.s3_bucket_name,
        listed: { lastModified: LastModified!.toISOString(), etag: ETag, size: Size },
      });
      if (tasks.length < INVOCATION_TASKS) continue;
      if (interrupted.aborted || report.failures.length >= FAILURE_LIMIT) return;
      yield tasks;
      tasks = [];
    }
    backfill.lastKey = Contents.at(-1)?.Key ?? backfill.lastKey;
  }
  if (tasks.length > 0 && !interrupted.aborted) yield tasks;
}

/** Has the function do some tasks, and a few times more those that may succeed later. */
async function recordAll(backfill: Backfill, tasks: Task[]): Promise<void> {
  let left = tasks;
  let pauseMs = backfill.firstPauseMs;
  for (let tries = 1;; tries++, pauseMs *= 4) {
    left = await recordOnce(backfill, left, tries >= MOST_TRIES);
    if (left.length === 0 || interrupted.aborted) return;
    // Not all again at the same moment. Ctrl-C ends the pause: the objects are left for next time.
    await pause(pauseMs * (0.5 + Math.random() / 2)).catch((error) => {
      if (!interrupted.aborted) throw error;
    });
  }
}

/** Invokes the function once, counts its results, and returns the tasks to try again. */
async function recordOnce(backfill: Backfill, tasks: Task[], isLast: boolean): Promise<Task[]> {
  const { stack, report, pace } = backfill;
  const beganMs = performance.now();
  const { results, attempts } = await invokeOnce(backfill, tasks);
  const again: Task[] = [];
  for (const task of tasks) {
    const { resultCode, resultString } = results.get(task.taskId) ?? NO_RESULT;
    if (isTemporary({ resultCode }) && !isLast) again.push(task);
    else if (resultCode !== "Succeeded") {
      report.failures.push({ key: decodeKey(task.s3Key), reason: resultString });
    } else if (resultString === "ignored: customer-encrypted" && task.s3VersionId === null) {
      again.push({ ...task, s3VersionId: await versionIdOf(stack, decodeKey(task.s3Key)) });
    } else count(report, resultString);
  }
  // The SDK repeats a throttled call by itself: only the number of its attempts tells.
  const isTooMuch = attempts > 1 || results.values().some(isTemporary);
  if (isTooMuch) pace.throttled(beganMs);
  else pace.ended();
  const { written, unchanged, ignored, failures } = report;
  const ignoredCount = Object.values(ignored).reduce((sum, each) => sum + each, 0);
  report.objects = written + unchanged + ignoredCount + failures.length;
  return again;
}

const NO_RESULT: Omit<TaskResult, "taskId"> = {
  resultCode: "TemporaryFailure",
  resultString: "the function told no result of it",
};

/** What comes of throttling, by Lambda, S3 or DynamoDB, and of time-outs. */
function isTemporary({ resultCode }: Pick<TaskResult, "resultCode">): boolean {
  return resultCode === "TemporaryFailure";
}

/** The result of each task. A run that was refused, or failed, is a temporary failure of all. */
async function invokeOnce(
  { stack, userArguments }: Backfill,
  tasks: Task[],
): Promise<{ results: Map<string, Omit<TaskResult, "taskId">>; attempts: number }> {
  const invocation: Invocation = {
    invocationSchemaVersion: "2.0",
    invocationId: crypto.randomUUID(),
    job: { id: "backfill", userArguments },
    tasks,
  };
  const { answer, failure, attempts } = await runFunction(stack, invocation);
  const failed = failure && { ...NO_RESULT, resultString: toReason(failure) };
  const each = failed === undefined
    ? (answer as JobAnswer).results
    : tasks.map(({ taskId }) => ({ taskId, ...failed }));
  return { results: new Map(each.map((result) => [result.taskId, result])), attempts };
}

/** Of an object under a customer's key (SSE-C) S3 tells the version in a listing of versions alone. */
async function versionIdOf({ s3, outputs }: Stack, key: string): Promise<string> {
  for await (const versions of listVersions(s3, outputs.s3_bucket_name, key)) {
    const current = versions.find(({ Key, IsLatest }) => Key === key && IsLatest);
    return current?.VersionId ?? "";
  }
  return "";
}

function count(report: BackfillReport, result: string): void {
  const [outcome, why] = result.split(/: (.*)/s);
  if (outcome === "written" || outcome === "missing") report.written++;
  else if (outcome === "unchanged") report.unchanged++;
  else if (outcome === "young") {
    report.young++;
    if (!(why < report.youngUntil!)) report.youngUntil = why;
  } else report.ignored[why] = (report.ignored[why] ?? 0) + 1;
}

/** A report for people: what failed and why, then the counts. */
export function backfillToText(report: BackfillReport): string {
  const { dryRun, objects, written, unchanged, ignored, failures, young, youngUntil } = report;
  const lines = failures.map(({ key, reason }) => `FAILED: ${visible(key)}: ${visible(reason)}`);
  lines.push(
    [
      `${plural(objects, "object")}: ${unchanged} had a row`,
      `${written} ${dryRun ? "without one" : "recorded now"}`,
      ...Object.entries(ignored).map(([why, count]) => `${count} ignored (${visible(why)})`),
      `${failures.length} failed`,
    ].join(", "),
  );
  if (young > 0) {
    lines.push(
      `Left to S3's events, as they are young: ${plural(young, "object")}; run it again after ` +
        `${youngUntil} for those whose event is lost`,
    );
  }
  if (failures.length >= FAILURE_LIMIT) {
    lines.push(`Stopped after ${failures.length} failures: fix their cause, then run it again`);
  }
  return lines.join("\n");
}

/** The narrower of two prefixes, of which one must begin with the other. */
export function narrowest(wanted: string, filter: string): string {
  if (wanted.startsWith(filter)) return wanted;
  if (filter.startsWith(wanted)) return filter;
  throw new UserError(
    `No object below "${visible(wanted)}" is recorded: the stack's filter_prefix is "${filter}"`,
  );
}

function progressLine({ report, pace, startMs, lastKey }: Backfill): string {
  const { objects, written, failures, dryRun } = report;
  const perSecond = Math.round(objects / (performance.now() - startMs) * 1000);
  const at = lastKey === "" ? "" : `, at "${clip(decodeKey(lastKey), 60)}"`;
  return `${dryRun ? "Looking" : "Backfilling"}: ${objects} done, ` +
    `${written} ${dryRun ? "without a row" : "recorded"}, ${failures.length} failed, ` +
    `${perSecond} a second, ${plural(pace.limit(), "invocation")} at once${at}`;
}
