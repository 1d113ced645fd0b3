/** What was changed or deleted by hand: by Terraform's own plan, or by the error of a service. */

import { CloudWatchLogsServiceException } from "@aws-sdk/client-cloudwatch-logs";
import { DynamoDBServiceException } from "@aws-sdk/client-dynamodb";
import { LambdaServiceException } from "@aws-sdk/client-lambda";
import { writeZip, ZIP_URL } from "./build.ts";
import { denoTask } from "./commands.ts";
import type { Stack, Target } from "./target.ts";
import { visible, withProgress } from "./terminal.ts";
import * as terraform from "./terraform.ts";

/** Compares every resource with AWS. It changes nothing, and waits for no other Terraform. */
export async function readDrift({ workspace }: Target): Promise<terraform.Change[]> {
  await Deno.stat(ZIP_URL).catch(writeZip); // without it main.tf refuses to plan
  const planning = terraform.plan(workspace, { quiet: true });
  await using file = await withProgress("terraform plan", planning);
  return driftIn((await terraform.readPlan(workspace, file)).changes);
}

/** The changes of what is in AWS, which are no mere consequence of others. */
export function driftIn(changes: terraform.Change[]): terraform.Change[] {
  return changes.map(({ attributes, ...change }) => {
    // Of code that is saved here and not deployed.
    const isExpected = (name: string) =>
      change.type === "aws_lambda_function" && name === "source_code_hash";
    return { ...change, attributes: attributes.filter((name) => !isExpected(name)) };
  }).filter(({ type, actions, attributes }) =>
    type !== "terraform_data" && (actions[0] !== "update" || attributes.length > 0)
  );
}

/** A sentence for all that is not there, and one for each resource that was changed. */
export function driftToProblems(
  changes: terraform.Change[],
  target: Pick<Target, "flags">,
): string[] {
  const deploy = denoTask(target, "deploy");
  const isMissing = ({ actions }: terraform.Change) => actions.join() === "create";
  const missing = changes.filter(isMissing).map(({ address }) => address);
  const changed = changes.filter((change) => !isMissing(change));
  return [
    ...(missing.length === 0 ? [] : [`not there: ${missing.join(", ")}; ${deploy} makes it`]),
    ...changed.map(({ address, attributes }) => {
      const names = attributes.length === 0 ? "" : ` (${attributes.join(", ")})`;
      return `${address} is not as main.tf has it${names}; ${deploy} puts it right`;
    }),
  ];
}

/** The part whose absence is behind an error, and a sentence about it; undefined for other errors. */
export function findDeleted(
  error: unknown,
  { outputs, flags }: Pick<Stack, "outputs" | "flags">,
): { address: string; sentence: string } | undefined {
  const found = (address: string, part: string, name: string, madeAgain: string) => ({
    address,
    sentence: `The ${part} ${visible(name)} does not exist any more: ` +
      `${denoTask({ flags }, "deploy")} makes it again, ${madeAgain}`,
  });
  const { name } = error as Error;
  if (name === "NoSuchBucket") {
    const bucket = outputs.s3_bucket_name;
    return found("aws_s3_bucket.uploads[0]", "bucket", bucket, "empty; the rows stay");
  }
  // SQS has the second name in its older protocol.
  if (/^QueueDoesNotExist$|NonExistentQueue$/.test(name)) {
    const queue = outputs.failure_queue_url.split("/").at(-1)!;
    const madeAgain = "empty, and backfill records the objects of its events";
    return found("aws_sqs_queue.failures", "failure queue", queue, madeAgain);
  }
  if (name !== "ResourceNotFoundException") return undefined;
  if (error instanceof DynamoDBServiceException) {
    const madeAgain = "empty, and backfill records what is in the bucket";
    return found("aws_dynamodb_table.files", "table", outputs.dynamodb_table_name, madeAgain);
  }
  if (error instanceof LambdaServiceException) {
    const madeAgain = "and backfill records what was uploaded meanwhile";
    const { lambda_function_name } = outputs;
    return found("aws_lambda_function.metadata", "function", lambda_function_name, madeAgain);
  }
  if (error instanceof CloudWatchLogsServiceException) {
    const { log_group_name } = outputs;
    const madeAgain = "empty; the rows stay";
    return found("aws_cloudwatch_log_group.function", "log group", log_group_name, madeAgain);
  }
}
