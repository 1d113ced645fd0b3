/** Parts of a stack that were removed by other means than Terraform. */

import { CloudWatchLogsServiceException } from "@aws-sdk/client-cloudwatch-logs";
import { DynamoDBServiceException } from "@aws-sdk/client-dynamodb";
import { LambdaServiceException } from "@aws-sdk/client-lambda";
import { denoTask } from "./commands.ts";
import type { Stack } from "./target.ts";
import { visible } from "./terminal.ts";
import type { Outputs } from "./terraform.ts";

/** By its address in main.tf, what a part is called, and what deploy does about it. */
const PARTS = {
  "aws_s3_bucket.uploads": ["bucket", "makes it again, empty; the rows stay"],
  "aws_lambda_function.metadata": [
    "function",
    "makes it again, and backfill records what was uploaded meanwhile",
  ],
  "aws_dynamodb_table.files": [
    "table",
    "makes it again, empty, and backfill records what is in the bucket",
  ],
  "aws_sqs_queue.failures": [
    "failure queue",
    "makes it again, empty, and backfill records the objects of its events",
  ],
  "aws_cloudwatch_log_group.function": ["log group", "makes it again, empty; the rows stay"],
};

type Part = [address: keyof typeof PARTS, name: string];

/** A part that is gone: its address in main.tf, and a sentence that says what to do. */
export interface Gone {
  address: string;
  sentence: string;
}

/** The part whose absence is behind an error; undefined for any other error. */
export function findGone(
  error: unknown,
  stack: Pick<Stack, "outputs" | "flags">,
): Gone | undefined {
  const part = partOf(error, stack.outputs);
  if (part === undefined) return undefined;
  const [address, name] = part;
  const [kind, madeAgain] = PARTS[address];
  const gone = `The ${kind} ${visible(name)} does not exist any more`;
  return { address, sentence: `${gone}: ${denoTask(stack, "deploy")} ${madeAgain}` };
}

function partOf(error: unknown, outputs: Outputs): Part | undefined {
  const { name } = error as Error;
  if (name === "NoSuchBucket") return ["aws_s3_bucket.uploads", outputs.s3_bucket_name];
  // SQS has the second name in its older protocol.
  if (/^QueueDoesNotExist$|NonExistentQueue$/.test(name)) {
    return ["aws_sqs_queue.failures", outputs.failure_queue_url.split("/").at(-1)!];
  }
  if (name !== "ResourceNotFoundException") return undefined;
  if (error instanceof DynamoDBServiceException) {
    return ["aws_dynamodb_table.files", outputs.dynamodb_table_name];
  }
  if (error instanceof LambdaServiceException) {
    return ["aws_lambda_function.metadata", outputs.lambda_function_name];
  }
  if (error instanceof CloudWatchLogsServiceException) {
    return ["aws_cloudwatch_log_group.function", outputs.log_group_name];
  }
}
