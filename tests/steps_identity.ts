/**
 * End-to-end steps: what was removed by other means is made again beside the data that is left, and
 * `--yes` deletes no data. They end with the bucket gone, so only destroy may follow.
 */

import assert from "node:assert/strict";
import { DeleteBucketCommand } from "@aws-sdk/client-s3";
import { GetQueueAttributesCommand, SendMessageCommand } from "@aws-sdk/client-sqs";
import { GetItemCommand, PutItemCommand } from "@aws-sdk/client-dynamodb";
import { emptyBucket } from "../tasks/bucket.ts";
import type { Stack } from "../tasks/target.ts";

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

/** What is deployed on a stand-in, and how to act on it. */
export interface Deployed {
  /** Runs a task on it. */
  task(name: string, ...args: string[]): Promise<Ended>;
  /** Runs Terraform in its workspace. */
  terraform(...args: string[]): Promise<Ended>;
  /** Its clients, as an administrator of the account. */
  stack: Stack;
}

const KEY = { file_key: { S: "identity/kept" }, timestamp: { S: "2026-01-02T03:04:05.000Z" } };

export async function identitySteps(t: Deno.TestContext, deployed: Deployed): Promise<void> {
  await fill(deployed.stack);
  for (const address of ["aws_dynamodb_table.files", "aws_sqs_queue.failures"]) {
    await t.step(`--yes does not replace ${address}`, () => refusesReplacement(deployed, address));
  }
  await t.step("a bucket removed by hand takes nothing with it", () => losesBucketAlone(deployed));
}

/** A row and a failed event that must stay. */
async function fill({ dynamo, sqs, outputs }: Stack): Promise<void> {
  await dynamo.send(new PutItemCommand({ TableName: outputs.dynamodb_table_name, Item: KEY }));
  const QueueUrl = outputs.failure_queue_url;
  await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: "identity" }));
}

/** Terraform replaces a tainted resource. */
async function refusesReplacement(deployed: Deployed, address: string): Promise<void> {
  const taint = await deployed.terraform("taint", address);
  assert.equal(taint.code, 0, taint.stderr);
  try {
    const { code, stderr } = await deployed.task("deploy", "--yes");
    assert.equal(code, 1, stderr);
    const { dynamodb_table_name: name } = deployed.stack.outputs;
    const contents = address.startsWith("aws_sqs") ? /^\d+ failed events?$/ : /^\d+ rows?$/;
    const line = stderr.split("\n").find((line) => line.startsWith(`  ${address}  ${name}`));
    assert.match(line?.split("  ").at(-1) ?? "", contents);
    const last = stderr.trimEnd().split("\n").at(-1)!;
    assert.match(last, /^Nothing was changed, as --yes alone does not delete data: .* type /);
    await assertKept(deployed.stack);
  } finally {
    await deployed.terraform("untaint", address);
  }
}

async function losesBucketAlone(deployed: Deployed): Promise<void> {
  const { stack: { s3, outputs } } = deployed;
  await emptyBucket(s3, outputs.s3_bucket_name);
  await s3.send(new DeleteBucketCommand({ Bucket: outputs.s3_bucket_name }));

  const status = await deployed.task("status");
  assert.match(status.stdout, /the bucket \S+ does not exist any more: deploy makes it again, /);

  const { code, stdout, stderr } = await deployed.task("plan");
  assert.equal(code, 0, stderr);
  const text = stdout + stderr;
  assert.match(text, /, 0 to destroy$/m);
  const created = [...text.matchAll(/^ *# (\w+)\.\S+ will be created$/gm)].map(([, type]) => type);
  assert.ok(created.length > 0 && created.every((type) => type.startsWith("aws_s3_bucket")), text);
  assert.ok(text.includes(`= "${outputs.s3_bucket_name}"`), "under the same name");
  await assertKept(deployed.stack);
}

async function assertKept({ dynamo, sqs, outputs }: Stack): Promise<void> {
  const { dynamodb_table_name: TableName, failure_queue_url: QueueUrl } = outputs;
  const { Item } = await dynamo.send(
    new GetItemCommand({ TableName, Key: KEY, ConsistentRead: true }),
  );
  assert.deepEqual(Item, KEY);
  const { Attributes } = await sqs.send(
    new GetQueueAttributesCommand({
      QueueUrl,
      AttributeNames: ["ApproximateNumberOfMessages"],
    }),
  );
  assert.ok(Number(Attributes?.ApproximateNumberOfMessages) >= 1, "the failed event is there");
}
