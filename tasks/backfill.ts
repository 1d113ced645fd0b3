/**
 * Backfill: rows for objects that have none, as they are older than the trigger, or their event was
 * lost. It plays the part of S3 Batch Operations: it lists the bucket and invokes the function with
 * a job's tasks, one an object. The function alone decides what gets a row.
 */

import { paginateListObjectsV2 } from "@aws-sdk/client-s3";
import type {
  Invocation,
  JobAnswer,
  JobArguments,
  Task as JobTask,
  TaskResult,
} from "../function/job.ts";
import { forEachParallel } from "../function/parallel.ts";
import { decodeKey, letsThrough } from "../handler.ts";
import { listVersions } from "./bucket.ts";
import { narrowest, toArguments } from "./filters.ts";
import { runFunction, toReason } from "./invoke.ts";
import { interrupted, TIME, type Time } from "./signals.ts";
import type { Stack } from "./target.ts";
import { clip, plural, sayEvery, visible } from "./terminal.ts";

/** Objects of one invocation: few enough to end long before the function's time limit. */
const INVOCATION_OBJECTS = 125;

/** It stops after so many failures: then the cause is not in the objects. */
const FAILURE_LIMIT = 1000;

/** How often an object is tried, and the first pause; each later one is 4 times as long. */
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
  time?: Time;
}

/** A backfill that runs. */
interface Backfill {
  stack: Stack;
  report: BackfillReport;
  time: Time;
  /** How far the listing is. */
  lastKey: string;
}

/**
 * Has the function record the current objects that have no row. Where Lambda throttles, the SDK
 * sends less and tries again. A later run goes on where this one ended.
 *
 * @throws {UserError} the trigger's filter lets no key below the prefix through
 */
export async function backfillRows(
  stack: Stack,
  { prefix: wanted, dryRun, concurrency, time = TIME }: BackfillOptions,
): Promise<BackfillReport> {
  const prefixes = narrowest(wanted, stack.outputs.filter_prefixes);
  const report = emptyReport(dryRun);
  const backfill: Backfill = { stack, report, time, lastKey: "" };
  using _progress = sayEvery(() => progressLine(backfill));
  try {
    await forEachParallel(
      listTasks(backfill, prefixes),
      concurrency,
      (tasks) => recordAll(backfill, tasks),
    );
  } catch (error) {
    if (!interrupted.aborted) throw error; // calls that Ctrl-C ended; the report has the others
  }
  report.ok = report.failures.length === 0;
  return report;
}

/** The report of a backfill that has found nothing yet. */
export function emptyReport(dryRun: boolean): BackfillReport {
  const counts = { objects: 0, written: 0, unchanged: 0, young: 0 };
  return { ok: true, dryRun, ...counts, ignored: {}, failures: [] };
}

/** The current objects as a job's tasks, as many at once as one invocation has. */
async function* listTasks(backfill: Backfill, prefixes: string[]): AsyncGenerator<JobTask[]> {
  const { stack: { outputs }, report } = backfill;
  let tasks: JobTask[] = [];
  for await (const { Contents = [] } of listObjects(backfill.stack, prefixes)) {
    for (const { Key = "", LastModified, ETag, Size } of Contents) {
      if (!letsThrough(outputs, decodeKey(Key))) continue;
      tasks.push({
        taskId: String(tasks.length),
        s3Key: Key, // encoded, as a job has it
        s3VersionId: null,
        s3Bucket: outputs.s3_bucket_name,
        listed: { lastModified: LastModified!.toISOString(), etag: ETag, size: Size },
      });
      if (tasks.length < INVOCATION_OBJECTS) continue;
      if (interrupted.aborted || report.failures.length >= FAILURE_LIMIT) return;
      backfill.lastKey = Key;
      yield tasks;
      tasks = [];
    }
  }
  if (tasks.length > 0 && !interrupted.aborted) yield tasks;
}

/** Pages of the objects with one of some prefixes, or of all. */
async function* listObjects({ s3, outputs }: Stack, prefixes: string[]) {
  for (const Prefix of prefixes.length > 0 ? prefixes : [""]) {
    yield* paginateListObjectsV2({ client: s3 }, {
      Bucket: outputs.s3_bucket_name,
      Prefix,
      EncodingType: "url", // XML can't carry every character of a key
    });
  }
}

/** Has the function record some objects, and a few times more those that may succeed later. */
async function recordAll(backfill: Backfill, tasks: JobTask[]): Promise<void> {
  let left = await recordOnce(backfill, tasks, false);
  for (let tries = 2; left.length > 0 && !interrupted.aborted; tries++) {
    const pauseMs = FIRST_PAUSE_MS * 4 ** (tries - 2);
    // Not all at the same moment. Ctrl-C ends the pause: what is left is for the next backfill.
    await backfill.time.pause(pauseMs * (0.5 + Math.random() / 2)).catch(() => {});
    if (!interrupted.aborted) left = await recordOnce(backfill, left, tries >= MOST_TRIES);
  }
}

/** Invokes the function once, counts its results, and returns the tasks to try again. */
async function recordOnce(
  backfill: Backfill,
  tasks: JobTask[],
  isLast: boolean,
): Promise<JobTask[]> {
  const { stack, report } = backfill;
  const results = await invokeOnce(stack, tasks, report.dryRun);
  const again: JobTask[] = [];
  for (const task of tasks) {
    const { resultCode, resultString } = results.find(({ taskId }) => taskId === task.taskId)!;
    if (resultCode === "TemporaryFailure" && !isLast) again.push(task);
    else if (resultString === "ignored: SSE-C" && task.s3VersionId === null) {
      again.push({ ...task, s3VersionId: await versionIdOf(stack, decodeKey(task.s3Key)) });
    } else if (resultCode === "Succeeded") count(report, resultString);
    else {
      report.objects++;
      report.failures.push({ key: decodeKey(task.s3Key), reason: resultString });
    }
  }
  return again;
}

/** A result of each task. A run that was refused, or failed, is a failure of all. */
async function invokeOnce(
  stack: Stack,
  tasks: JobTask[],
  dryRun: boolean,
): Promise<TaskResult[]> {
  const userArguments: JobArguments = toArguments(stack.outputs);
  if (dryRun) userArguments.dryRun = "true";
  const invocation: Invocation = {
    invocationSchemaVersion: "2.0",
    invocationId: crypto.randomUUID(),
    job: { id: "backfill", userArguments },
    tasks,
  };
  const { answer, failure } = await runFunction(stack, invocation);
  if (failure === undefined) return (answer as JobAnswer).results;
  const failed = { resultCode: "TemporaryFailure", resultString: toReason(failure) } as const;
  return tasks.map(({ taskId }) => ({ taskId, ...failed }));
}

/** The version of an SSE-C object, which S3 tells in a listing of versions alone. */
async function versionIdOf({ s3, outputs }: Stack, key: string): Promise<string> {
  for await (const versions of listVersions(s3, outputs.s3_bucket_name, key)) {
    const current = versions.find(({ Key, IsLatest }) => Key === key && IsLatest);
    return current?.VersionId ?? "";
  }
  return "";
}

function count(report: BackfillReport, result: string): void {
  const [outcome, why] = result.split(/: (.*)/s);
  if (outcome === "young") {
    report.young++;
    if (!(why < report.youngUntil!)) report.youngUntil = why;
    return;
  }
  report.objects++;
  if (outcome === "written" || outcome === "missing") report.written++;
  else if (outcome === "unchanged") report.unchanged++;
  else report.ignored[why] = (report.ignored[why] ?? 0) + 1;
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

function progressLine({ report, lastKey }: Backfill): string {
  const { objects, written, failures, dryRun } = report;
  const at = lastKey === "" ? "" : `, at "${clip(decodeKey(lastKey), 60)}"`;
  return `${dryRun ? "Looking" : "Backfilling"}: ${objects} done, ` +
    `${written} ${dryRun ? "without a row" : "recorded"}, ${failures.length} failed${at}`;
}
