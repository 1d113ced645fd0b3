/** Parts of a stack that were removed by other means than Terraform. */

import { CloudWatchLogsServiceException } from "@aws-sdk/client-cloudwatch-logs";
import { DynamoDBServiceException } from "@aws-sdk/client-dynamodb";
import { LambdaServiceException } from "@aws-sdk/client-lambda";
import { denoTask } from "./commands.ts";
import type { Stack } from "./target.ts";
import { visible } from "./terminal.ts";
import type { Outputs } from "./terraform.ts";

/** What deploy does about each part, and what that does not bring back. */
const MADE_AGAIN = {
  "bucket": "makes it again, empty; the rows stay",
  "function": "makes it again, and backfill records what was uploaded meanwhile",
  "table": "makes it again, empty, and backfill records what is in the bucket",
  "failure queue": "makes it again, empty, and backfill records the objects of its events",
  "log group": "makes it again, empty; the rows stay",
};

type Part = [kind: keyof typeof MADE_AGAIN, name: string];

/**
 * A sentence that names the part whose absence is behind an error, and what to do; undefined for any
 * other error.
 */
export function sayGone(
  error: unknown,
  stack: Pick<Stack, "outputs" | "flags">,
): string | undefined {
  const part = partOf(error, stack.outputs);
  if (part === undefined) return undefined;
  const [kind, name] = part;
  return `The ${kind} ${visible(name)} does not exist any more: ` +
    `${denoTask(stack, "deploy")} ${MADE_AGAIN[kind]}`;
}

function partOf(error: unknown, outputs: Outputs): Part | undefined {
  const { name } = error as Error;
  if (name === "NoSuchBucket") return ["bucket", outputs.s3_bucket_name];
  // SQS has the second name in its older protocol.
  if (/^QueueDoesNotExist$|NonExistentQueue$/.test(name)) {
    return ["failure queue", outputs.failure_queue_url.split("/").at(-1)!];
  }
  if (name !== "ResourceNotFoundException") return undefined;
  if (error instanceof DynamoDBServiceException) return ["table", outputs.dynamodb_table_name];
  if (error instanceof LambdaServiceException) return ["function", outputs.lambda_function_name];
  if (error instanceof CloudWatchLogsServiceException) return ["log group", outputs.log_group_name];
}
