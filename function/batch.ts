/**
 * A job of S3 Batch Operations invokes the function for objects that have no event: each task becomes
 * a record, and what becomes of it the task's result.
 *
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-invoke-lambda.html
 */

import {
  type Complete,
  forEachParallel,
  handleEvent,
  handleRecord,
  InvalidEventError,
  isObject,
  type Outside,
  PARALLEL_RECORDS,
  versionOf,
} from "../handler.ts";

/** The `event_name` of a row that a backfill made. */
export const BACKFILLED = "ObjectCreated:Backfill";

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
  { invocationSchemaVersion, invocationId }: Record<string, unknown>,
  tasks: unknown[],
  outside: Outside,
): Promise<BatchAnswer> {
  if (typeof invocationSchemaVersion !== "string" || !/^[12]\.\d+$/.test(invocationSchemaVersion)) {
    throw new InvalidEventError("Cannot handle a job's tasks: their schema is not 1.x or 2.x");
  }
  if (typeof invocationId !== "string" || !tasks.every(hasId)) {
    throw new InvalidEventError("Cannot answer a job's tasks: the invocation or a task has no id");
  }
  const complete = completeBefore(outside.stackCreatedMs ?? Infinity);
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

/**
 * Takes time and version from S3's answer: without one (gone, SSE-C) a row would have no time. What is
 * as new as the stack is left to its own event, whose row has another time.
 */
function completeBefore(stackCreatedMs: number): Complete {
  return (upload, answer) => {
    const createdMs = answer?.LastModified?.getTime() ?? NaN;
    if (!(createdMs < stackCreatedMs)) return undefined;
    const versionId = upload.versionId ?? versionOf(answer?.VersionId);
    return { ...upload, versionId, timestamp: new Date(createdMs).toISOString() };
  };
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
