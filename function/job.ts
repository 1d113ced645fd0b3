/**
 * Objects that have no event are tasks: of a job of S3 Batch Operations, or of `backfill`, which lists
 * the bucket itself and speaks the same protocol. What becomes of an object is its task's result.
 *
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-invoke-lambda.html
 */

import {
  type Filter,
  isObject,
  letsThrough,
  log,
  type LogLine,
  namesOf,
  type Outside,
  recordToUpload,
  toLogFields,
  toRow,
  unquoted,
  versionOf,
} from "../handler.ts";
import { describe, InvalidEventError } from "./errors.ts";
import { BACKFILLED, findRows, type Identity, putBackfillRow } from "./one_row.ts";
import { forEachParallel } from "./parallel.ts";
import { type ObjectAnswer, type ObjectFact, readObject, requireTime } from "./read.ts";

/** Tasks in work at the same time: more of them would only wait for the CPU, a seventh at 256 MB. */
const PARALLEL_TASKS = 8;

/** What a job says to the function, schema 1.x or 2.x. */
export interface Invocation {
  invocationSchemaVersion: string;
  invocationId: string;
  /** Arguments came with schema 2.0. */
  job: { id: string; userArguments?: JobArguments | null };
  tasks: Task[];
}

/** The trigger's filter in JSON, and whether to look only. S3 takes nothing but texts. */
export interface JobArguments {
  filter?: string;
  dryRun?: "true";
}

export interface Task {
  taskId: string;
  /** Form-encoded. */
  s3Key: string;
  s3VersionId?: string | null;
  s3Bucket?: string;
  s3BucketArn?: string;
  /** What a listing says of the object. Only `backfill` sends it. */
  listed?: Listed;
}

export interface Listed {
  /** ISO 8601. */
  lastModified: string;
  etag?: string;
  size?: number;
}

/** What a job is told of its tasks. */
export interface JobAnswer {
  invocationSchemaVersion: string;
  treatMissingKeysAs: "TemporaryFailure";
  invocationId: string;
  results: TaskResult[];
}

export interface TaskResult {
  taskId: string;
  resultCode: "Succeeded" | "TemporaryFailure" | "PermanentFailure";
  /** Why the task failed; else its outcome, and after ": " the {@link Outcome.why}. */
  resultString: string;
}

/** What a job asks for each of its tasks. */
interface Asked {
  filter: Filter;
  dryRun: boolean;
}

/** What became of an object. */
interface Outcome {
  outcome: "written" | "unchanged" | "missing" | "young" | "ignored";
  /** Why it is ignored, or from when on a young object is recorded, ISO 8601. */
  why?: string;
  /** For the log. */
  line?: Partial<LogLine>;
}

/** Whether a payload is a job's, and no event. */
export function isInvocation(payload: unknown): payload is Record<string, unknown> {
  return isObject(payload) && Array.isArray(payload.tasks);
}

/**
 * Writes a row for each task whose version has none. The caller tries a temporary failure again: all
 * that an event would be tried again for.
 *
 * @throws {InvalidEventError} the payload is no invocation that could be answered
 */
export async function handleJob(
  payload: Record<string, unknown>,
  outside: Outside,
): Promise<JobAnswer> {
  const { invocationSchemaVersion, invocationId, job, tasks } = payload;
  if (typeof invocationSchemaVersion !== "string" || !/^[12]\.\d+$/.test(invocationSchemaVersion)) {
    throw new InvalidEventError("Cannot handle a job's tasks: their schema is not 1.x or 2.x");
  }
  if (typeof invocationId !== "string" || !Array.isArray(tasks) || !tasks.every(hasId)) {
    throw new InvalidEventError("Cannot answer a job's tasks: the invocation or a task has no id");
  }
  const given = isObject(job) && isObject(job.userArguments) ? job.userArguments : {};
  const { filter = "{}", dryRun }: JobArguments = given;
  const asked = { filter: JSON.parse(filter), dryRun: dryRun === "true" };
  const results: TaskResult[] = [];
  await forEachParallel(tasks, PARALLEL_TASKS, async (task) => {
    results.push(await tryTask(task, asked, outside));
  });
  // Our own results name what is missing; this is about tasks without a result, and there are none.
  const treatMissingKeysAs = "TemporaryFailure";
  return { invocationSchemaVersion, treatMissingKeysAs, invocationId, results };
}

function hasId(task: unknown): task is Task {
  return isObject(task) && typeof task.taskId === "string";
}

/** Does one task. A log line is for what changes or needs somebody: else a run would fill the log. */
async function tryTask(task: Task, asked: Asked, outside: Outside): Promise<TaskResult> {
  const { taskId } = task;
  const startMs = outside.now();
  const record = toRecord(task);
  const names = namesOf(record);
  try {
    const { outcome, why, line } = await recordObject(task, record, asked, outside);
    if (outcome === "written" || outcome === "ignored") {
      const duration_ms = outside.now() - startMs;
      log(outside, { level: "INFO", outcome, ...names, ...line, duration_ms });
    }
    const resultString = why === undefined ? outcome : `${outcome}: ${why}`;
    return { taskId, resultCode: "Succeeded", resultString };
  } catch (error) {
    const failure = describe(error);
    const duration_ms = outside.now() - startMs;
    log(outside, { level: "ERROR", outcome: "failed", ...names, error: failure, duration_ms });
    const resultCode = error instanceof InvalidEventError ? "PermanentFailure" : "TemporaryFailure";
    return { taskId, resultCode, resultString: failure };
  }
}

/** The record that S3 would have sent. Its time is none: S3's answer, or the listing, has it. */
function toRecord({ s3Key, s3VersionId, s3Bucket, s3BucketArn, listed }: Task) {
  const name = s3Bucket ?? s3BucketArn?.split(":").at(-1);
  const { size, etag } = listed ?? {};
  return {
    eventVersion: "2.1",
    eventSource: "aws:s3",
    eventTime: "1970-01-01T00:00:00Z",
    eventName: BACKFILLED,
    s3: { bucket: { name }, object: { key: s3Key, versionId: s3VersionId, size, eTag: etag } },
  };
}

/** Records an object whose version has no row. A listed one whose row is there costs a query alone. */
async function recordObject(
  { s3VersionId, listed }: Task,
  record: unknown,
  { filter, dryRun }: Asked,
  outside: Outside,
): Promise<Outcome> {
  const upload = recordToUpload(record, outside)!;
  if (!letsThrough(filter, upload.key)) {
    return { outcome: "ignored", why: "the trigger's filter leaves it out" };
  }
  requireTime(upload, outside);

  let seen: Identity[] | undefined;
  if (listed !== undefined) {
    const createdMs = Date.parse(listed.lastModified);
    const young = youngUntil(createdMs, outside);
    if (young !== undefined) return young;
    const names = { file_key: upload.key, bucket_name: upload.bucket };
    seen = await findRows(names, createdMs, outside);
    if (hasRow(seen, listed)) return { outcome: "unchanged" };
  }

  const { bytes, fact, ...read } = await readObject(upload, outside);
  const answer = read.answer ?? fromListing(fact, listed, s3VersionId);
  const createdMs = answer?.LastModified?.getTime() ?? NaN;
  if (Number.isNaN(createdMs)) {
    const why = fact ?? "S3 tells no time of it";
    return { outcome: "ignored", why, line: { object: fact } };
  }
  const young = youngUntil(createdMs, outside);
  if (young !== undefined) return young;

  const versionId = upload.versionId ?? versionOf(answer?.VersionId);
  const timestamp = toIso(createdMs);
  const row = {
    ...toRow({ ...upload, versionId, timestamp }, answer, bytes, toIso(outside.now())),
    last_modified: timestamp,
  };
  const put = await putBackfillRow(row, { seen, dryRun }, outside);
  if (typeof put === "string") return { outcome: put };
  return { outcome: "written", line: { ...toLogFields(put), object: fact } };
}

/** An object that is left to its own event, as that may still come on time; undefined for an older. */
function youngUntil(createdMs: number, { now, onTimeMs }: Outside): Outcome | undefined {
  const untilMs = createdMs + 2 * onTimeMs;
  return now() < untilMs ? { outcome: "young", why: toIso(untilMs) } : undefined;
}

/**
 * Whether a listed object has its row for sure, though a listing tells no version: one row is of its
 * bytes and of its time. If two are, only reading it tells which version it is.
 */
function hasRow(rows: Identity[], { lastModified, etag }: Listed): boolean {
  const second = (time = "") => Math.floor(Date.parse(time) / 1000); // a listing may be more precise
  const alike = rows.filter((row) =>
    row.etag === unquoted(etag) && second(row.last_modified) === second(lastModified)
  );
  return alike.length === 1;
}

/**
 * What a listing knows of an object under a customer's key (SSE-C), of which S3 tells nothing. Its
 * version must be known, as its event's row, which may come, is told apart by it.
 */
function fromListing(
  fact: ObjectFact | undefined,
  listed: Listed | undefined,
  s3VersionId: string | null | undefined,
): ObjectAnswer | undefined {
  if (fact !== "SSE-C" || listed === undefined || !s3VersionId) return undefined;
  const { lastModified, etag, size } = listed;
  return { LastModified: new Date(lastModified), ETag: etag, ContentLength: size };
}

function toIso(ms: number): string {
  return new Date(ms).toISOString();
}
