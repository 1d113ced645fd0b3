/** Steps of the end-to-end tests: `--yes` deletes no data, and what is made again replaces nothing. */

import assert from "node:assert/strict";
import { GetItemCommand, PutItemCommand } from "@aws-sdk/client-dynamodb";
import { DeleteBucketCommand } from "@aws-sdk/client-s3";
import { countFailures } from "../tasks/invoke.ts";
import {
  type Deployed,
  ownTerraform,
  plainTerraform,
  type Steps,
  task,
} from "./pipeline_context.ts";

const TABLE = "aws_dynamodb_table.files";
const QUEUE = "aws_sqs_queue.failures";
const KEY = { file_key: { S: "identity/kept" }, timestamp: { S: "2026-01-02T03:04:05.000Z" } };

export const LOSSES: Steps<Deployed> = {
  // Terraform replaces what is tainted, as by an interrupted apply; losses_test.ts has other causes.
  "--yes does not replace a tainted table and queue that hold data": async (deployed) => {
    const { root } = deployed;
    const { dynamodb_table_name: TableName } = root.outputs;
    await root.dynamo.send(new PutItemCommand({ TableName, Item: KEY }));
    for (const address of [TABLE, QUEUE]) {
      await ownTerraform(deployed, "taint", address);
    }

    const { code, stderr } = await task(deployed, "deploy", "--yes");
    assert.equal(code, 0, stderr);
    assert.match(stderr, / 0 to add, \d+ to change, 0 to destroy$/m);
    const kept = new GetItemCommand({ TableName, Key: KEY, ConsistentRead: true });
    assert.deepEqual((await root.dynamo.send(kept)).Item, KEY);
    assert.ok((await countFailures(root)).visible >= 1);
  },
};

/**
 * Deletes the other clone's empty bucket, and sees a plan make it and its settings again, under the
 * same name, and delete nothing. Returns the number of resources that are gone.
 */
export async function removeOtherBucket(deployed: Deployed, bucket: string): Promise<number> {
  await deployed.root.s3.send(new DeleteBucketCommand({ Bucket: bucket }));
  const { code, stdout, stderr } = await plainTerraform(deployed, ["plan", "-input=false"]);
  assert.equal(code, 0, stderr);
  const created = [...stdout.matchAll(/^ *# (\w+)\.\S+ will be created$/gm)]
    .map(([, type]) => type);
  assert.deepEqual(created.filter((type) => !type.startsWith("aws_s3_bucket")), []);
  const { length } = created;
  assert.match(stdout, new RegExp(`^Plan: ${length} to add, \\d+ to change, 0 to destroy`, "m"));
  assert.match(stdout, new RegExp(`^ *\\+ bucket += "${bucket}"$`, "m"));
  return length;
}
