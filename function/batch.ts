/**
 * A job of S3 Batch Operations invokes the function for objects that have no event: each task becomes
 * a record, and what becomes of it the task's result.
 *
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-invoke-lambda.html
 */

import {
  cannot,
  forEachParallel,
  handleEvent,
  handleRecord,
  InvalidEventError,
  isObject,
  type Outside,
  PARALLEL_RECORDS,
  unquoted,
  type Upload,
  versionOf,
} from "../handler.ts";
import type { ObjectAnswer } from "./read.ts";

/** The `event_name` of a row that a backfill made. */
export const BACKFILLED = "ObjectCreated:Backfill";

/** The job's argument, ISO 8601: what was created then or later is left to its own event. */
export const CREATED_BEFORE = "createdBefore";

/** `eventTime` should never be before LastModified; the clocks of S3's own machines may differ. */
export const CLOCK_MARGIN_MS = 60_000;

/** An upload as the answer to its read completes it, or why it gets no row now. */
export type Complete = (
  upload: Upload,
  answer?: ObjectAnswer,
) => Promise<Upload | "ignored" | "unchanged">;

/** A query of rows, in DynamoDB's own terms but for the table's name. */
export interface RowQuery {
  KeyConditionExpression: string;
  ProjectionExpression: string;
  ExpressionAttributeNames: Record<string, string>;
  ExpressionAttributeValues: Record<string, { S: string }>;
  ConsistentRead: boolean;
}

/** What a job is told of its tasks. */
export interface BatchAnswer {
  invocationSchemaVersion: string;
  treatMissingKeysAs: "TemporaryFailure";
  invocationId: string;
  results: {
    taskId: string;
    resultCode: "Succeeded" | "TemporaryFailure" | "PermanentFailure";
    resultString: string;
  }[];
}

/**
 * Handles an S3 event as {@link handleEvent} does, or the tasks of a job.
 *
 * @throws {InvalidEventError} the payload is neither
 * @throws {RecordsFailedError} see {@link handleEvent}; a job is told of each task instead
 */
export function handle(event: unknown, outside: Outside): Promise<BatchAnswer | void> {
  return isObject(event) && Array.isArray(event.tasks)
    ? handleBatch(event, event.tasks, outside)
    : handleEvent(event, outside);
}

/**
 * Writes a backfill's row for each task. The job tries a temporary failure again: all that an event
 * would be tried again for. Its report names the permanent ones.
 *
 * @throws {InvalidEventError} the payload is no invocation that could be answered
 */
async function handleBatch(
  { invocationSchemaVersion, invocationId, job }: Record<string, unknown>,
  tasks: unknown[],
  outside: Outside,
): Promise<BatchAnswer> {
  if (typeof invocationSchemaVersion !== "string" || !/^[12]\.\d+$/.test(invocationSchemaVersion)) {
    throw new InvalidEventError("Cannot handle a job's tasks: their schema is not 1.x or 2.x");
  }
  if (typeof invocationId !== "string" || !tasks.every(hasId)) {
    throw new InvalidEventError("Cannot answer a job's tasks: the invocation or a task has no id");
  }
  const limitMs = limitOf(isObject(job) ? job.userArguments : undefined);
  const complete: Complete = (upload, answer) => completeBefore(limitMs, upload, answer, outside);
  const results: BatchAnswer["results"] = [];
  await forEachParallel(tasks, PARALLEL_RECORDS, async (task) => {
    const { outcome, failure, isFinal } = await handleRecord(toRecord(task), outside, complete);
    const failed = isFinal ? "PermanentFailure" : "TemporaryFailure";
    results.push({
      taskId: task.taskId,
      resultCode: failure === undefined ? "Succeeded" : failed,
      resultString: failure ?? outcome,
    });
  });
  const treatMissingKeysAs = "TemporaryFailure"; // there are none
  return { invocationSchemaVersion, treatMissingKeysAs, invocationId, results };
}

type Task = Record<string, unknown> & { taskId: string };

function hasId(task: unknown): task is Task {
  return isObject(task) && typeof task.taskId === "string";
}

/** Milliseconds since 1970. @throws {InvalidEventError} the argument is no time */
function limitOf(userArguments: unknown): number {
  const limit = isObject(userArguments) ? userArguments[CREATED_BEFORE] : undefined;
  const limitMs = limit === undefined ? Infinity : Date.parse(String(limit));
  if (!Number.isNaN(limitMs)) return limitMs;
  throw new InvalidEventError(`Cannot handle a job's tasks: its ${CREATED_BEFORE} is no time`);
}

/**
 * Takes time and version from S3's answer: without one (gone, SSE-C) a row would have no time. A
 * version whose own event came has its row under the time of that.
 */
async function completeBefore(
  limitMs: number,
  upload: Upload,
  answer: ObjectAnswer | undefined,
  outside: Outside,
): Promise<Upload | "ignored" | "unchanged"> {
  const createdMs = answer?.LastModified?.getTime() ?? NaN;
  if (!(createdMs < limitMs)) return "ignored";
  const versionId = upload.versionId ?? versionOf(answer?.VersionId);
  const whole = { ...upload, versionId, timestamp: new Date(createdMs).toISOString() };
  return await hasRow(whole, unquoted(answer?.ETag), createdMs, outside) ? "unchanged" : whole;
}

/** Rows come in the order of time, so that one page has the version's own: it is among the first. */
async function hasRow(
  { key, bucket, versionId }: Upload,
  etag: string | undefined,
  createdMs: number,
  outside: Outside,
): Promise<boolean> {
  const query: RowQuery = {
    KeyConditionExpression: "file_key = :key AND #timestamp >= :from",
    ProjectionExpression: "version_id, etag",
    ExpressionAttributeNames: { "#timestamp": "timestamp" }, // a reserved word
    ExpressionAttributeValues: {
      ":key": { S: key },
      ":from": { S: new Date(createdMs - CLOCK_MARGIN_MS).toISOString() },
    },
    ConsistentRead: true,
  };
  const rows = await outside.queryRows(query).catch((error) => {
    throw cannot("look for the row of", { key, bucket }, error);
  });
  return rows.some((row) =>
    versionOf(row.version_id?.S) === versionId && (versionId !== undefined || row.etag?.S === etag)
  );
}

/** The record that S3 would have sent. Its time is none: see {@link completeBefore}. */
function toRecord({ s3Key, s3VersionId, s3Bucket, s3BucketArn }: Task) {
  const name = s3Bucket ?? (typeof s3BucketArn === "string" ? s3BucketArn.split(":").at(-1) : "");
  return {
    eventVersion: "2.1",
    eventSource: "aws:s3",
    eventTime: "1970-01-01T00:00:00Z",
    eventName: BACKFILLED,
    s3: { bucket: { name }, object: { key: s3Key, versionId: s3VersionId } },
  };
}
