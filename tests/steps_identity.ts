/** End-to-end steps: `--yes` deletes no data, and what is made again replaces nothing else. */

import assert from "node:assert/strict";
import { GetItemCommand, PutItemCommand } from "@aws-sdk/client-dynamodb";
import { DeleteBucketCommand, type S3Client } from "@aws-sdk/client-s3";
import { GetQueueAttributesCommand, SendMessageCommand } from "@aws-sdk/client-sqs";
import type { Stack } from "../tasks/target.ts";

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

const TABLE = "aws_dynamodb_table.files";
const QUEUE = "aws_sqs_queue.failures";
const KEY = { file_key: { S: "identity/kept" }, timestamp: { S: "2026-01-02T03:04:05.000Z" } };

/**
 * Taints table and failure queue, which Terraform then replaces, and sees `deploy --yes` refuse it.
 * `terraform` acts on the deployed state, `deploy` runs `deploy --yes`.
 */
export async function yesDeletesNoData(
  stack: Pick<Stack, "dynamo" | "sqs" | "outputs">,
  terraform: (args: string[]) => Promise<unknown>,
  deploy: () => Promise<Ended>,
): Promise<void> {
  const { dynamodb_table_name: TableName, failure_queue_url: QueueUrl } = stack.outputs;
  await stack.dynamo.send(new PutItemCommand({ TableName, Item: KEY }));
  await stack.sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: "identity" }));
  await terraform(["taint", TABLE]);
  await terraform(["taint", QUEUE]);

  const { code, stderr } = await deploy();
  assert.equal(code, 1, stderr);
  const lines = stderr.trimEnd().split("\n");
  const contentsOf = (address: string, name: string) =>
    lines.find((line) => line.startsWith(`  ${address}  ${name}  `))?.split("  ").at(-1) ?? "";
  assert.match(contentsOf(TABLE, TableName), /^\d+ rows?$/);
  assert.match(contentsOf(QUEUE, `${TableName}-failures`), /^\d+ failed events?$/);
  assert.match(
    lines.at(-1)!,
    /^Nothing was changed, as --yes alone does not delete data: .* type /,
  );

  const { Item } = await stack.dynamo.send(
    new GetItemCommand({ TableName, Key: KEY, ConsistentRead: true }),
  );
  assert.deepEqual(Item, KEY);
  const AttributeNames = ["ApproximateNumberOfMessages" as const];
  const { Attributes } = await stack.sqs.send(
    new GetQueueAttributesCommand({ QueueUrl, AttributeNames }),
  );
  assert.ok(Number(Attributes?.ApproximateNumberOfMessages) >= 1);
  await terraform(["untaint", TABLE]);
  await terraform(["untaint", QUEUE]);
}

/**
 * Deletes a stack's empty bucket, and sees a plan make it and its settings again, under the same
 * name, and delete nothing. Answers the number of resources that are gone.
 */
export async function bucketTakesNothingAlong(
  s3: S3Client,
  bucket: string,
  plan: () => Promise<Ended>,
): Promise<number> {
  await s3.send(new DeleteBucketCommand({ Bucket: bucket }));
  const { code, stdout, stderr } = await plan();
  assert.equal(code, 0, stderr);
  const created = [...stdout.matchAll(/^ *# (\w+)\.\S+ will be created$/gm)].map(([, type]) =>
    type
  );
  assert.deepEqual(created.filter((type) => !type.startsWith("aws_s3_bucket")), []);
  assert.match(
    stdout,
    new RegExp(`^Plan: ${created.length} to add, \\d+ to change, 0 to destroy`, "m"),
  );
  assert.match(stdout, new RegExp(`^ *\\+ bucket += "${bucket}"$`, "m"));
  return created.length;
}
