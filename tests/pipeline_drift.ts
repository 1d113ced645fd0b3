/**
 * Steps of the end-to-end tests: what was changed, removed or left by hand. `status` names it, and a
 * deploy puts it right without losing data.
 */

import assert from "node:assert/strict";
import { isDeleted } from "../function/removals.ts";
import { zipOf } from "../tasks/build.ts";
import { updateCode } from "../tasks/invoke.ts";
import { run } from "../tasks/shell.ts";
import type { Status } from "../tasks/status.ts";
import { outputs } from "../tasks/terraform.ts";
import { makeTools } from "../tasks/tools.ts";
import {
  type Deployed,
  invokeWith,
  optionsOf,
  recordOfRow,
  rowsBelow,
  type Steps,
  task,
  upload,
  waitFor,
} from "./pipeline.ts";
import { type Ended, runTask } from "./run_task.ts";

const NOT_DEPLOYED = "the function runs code that was not deployed";

/** A row, whose table Terraform would replace as tainted. */
const KEPT = { file_key: { S: "identity/kept" }, timestamp: { S: "2026-01-02T03:04:05.000Z" } };

const FILTERS_AND_STREAM = `filter_prefixes = ["in/", "new/"]
filter_suffixes = [".csv", ".txt"]
table_stream = true
record_removals = true
`;

/** With what MiniStack brings: the project has no client of streams. */
const READ_STREAM = `import botocore.session, sys
streams = botocore.session.get_session().create_client("dynamodbstreams")
[shard] = streams.describe_stream(StreamArn=sys.argv[1])["StreamDescription"]["Shards"]
at = streams.get_shard_iterator(
    StreamArn=sys.argv[1], ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")
for record in streams.get_records(ShardIterator=at["ShardIterator"])["Records"]:
    print(record["eventName"], record["dynamodb"]["NewImage"]["file_key"]["S"])
`;

/** What somebody changes, and how `status` begins to say so; status_test.ts has more. */
const CHANGES: Record<string, (root: Deployed["root"]) => Promise<unknown>> = {
  "aws_s3_bucket_notification.uploads[0] is not as main.tf has it (lambda_function)": (root) =>
    root.s3.putBucketNotificationConfiguration({
      Bucket: root.outputs.s3_bucket_name,
      NotificationConfiguration: {
        LambdaFunctionConfigurations: [{
          LambdaFunctionArn: root.outputs.lambda_function_arn,
          Events: ["s3:ObjectCreated:Copy"],
        }],
      },
    }),
  "aws_lambda_function.metadata is not as main.tf has it (environment, timeout)": (root) =>
    root.lambda.updateFunctionConfiguration({
      FunctionName: root.outputs.lambda_function_name,
      Timeout: 1,
      Environment: { Variables: { TABLE_NAME: "another" } },
    }),
  "aws_iam_role_policy.function is not as main.tf has it (policy)": (root) =>
    root.iam.putRolePolicy({
      RoleName: root.outputs.lambda_function_name,
      PolicyName: "metadata",
      PolicyDocument: JSON.stringify({
        Version: "2012-10-17",
        Statement: [{ Effect: "Allow", Action: "dynamodb:PutItem", Resource: "*" }],
      }),
    }),
  // A plan then does not know what the policy of the role will be.
  "aws_dynamodb_table.files is not as main.tf has it (deletion_protection_enabled)": (root) =>
    root.dynamo.updateTable({
      TableName: root.outputs.dynamodb_table_name,
      DeletionProtectionEnabled: true,
    }),
  "not there: aws_s3_bucket_public_access_block.uploads[0]": (root) =>
    root.s3.deletePublicAccessBlock({ Bucket: root.outputs.s3_bucket_name }),
};

export const DRIFT: Steps<Deployed> = {
  "status names each part that was changed or removed by hand": async (deployed) => {
    for (const change of Object.values(CHANGES)) await change(deployed.root);
    await updateCode(deployed.root, zipOf(new TextEncoder().encode("left"))); // by a killed dev
    const { code, stdout, stderr } = await task(deployed, "status", "--json");
    assert.equal(code, 1, stderr);
    const { problems }: Status = JSON.parse(stdout);
    for (const beginning of Object.keys(CHANGES)) {
      assert.ok(problems.some((problem) => problem.startsWith(beginning)), problems.join("\n"));
    }
    assert.ok(problems.some((problem) => problem.includes(NOT_DEPLOYED)), problems.join("\n"));
  },

  // Terraform replaces what is tainted, as by an interrupted apply; deploy_test.ts has other causes.
  "deploy puts that right, keeps tainted data, and a replay waits meanwhile": async (deployed) => {
    const { root, bucket, shell, target, variables } = deployed;
    const { dynamodb_table_name: TableName, lambda_function_name: RoleName } = root.outputs;
    await root.iam.deleteRolePolicy({ RoleName, PolicyName: "metadata" });
    await root.iam.deleteRole({ RoleName }); // which IAM refuses where it has a policy
    await Deno.writeTextFile(variables, FILTERS_AND_STREAM, { append: true });
    await root.dynamo.putItem({ TableName, Item: KEPT });
    const words = ["--", "terraform", "taint", "aws_dynamodb_table.files"];
    const tainted = await task(deployed, "shell", ...words);
    assert.equal(tainted.code, 0, tainted.stderr);
    assert.match(tainted.stderr, new RegExp(`^Bucket ${bucket}, table ${TableName}$`, "m"));
    let replay: Promise<Ended> | undefined;
    const deploy = await runTask(["deploy", ...optionsOf(target), "--yes"], shell, {
      onStderr: (text) => {
        if (/\$ terraform .*plan /.test(text)) replay ??= task(deployed, "replay", "--dry-run");
      },
    });
    assert.equal(deploy.code, 0, deploy.stderr);
    assert.match(deploy.stderr, new RegExp(`^Note: since \\S+ ${NOT_DEPLOYED}`, "m"));
    // Its role was deleted.
    assert.match(deploy.stderr, /^aws_lambda_function\.metadata: Creation complete/m);
    const kept = await root.dynamo.getItem({ TableName, Key: KEPT, ConsistentRead: true });
    assert.deepEqual(kept.Item, KEPT);
    const { code, stderr } = await replay!;
    assert.equal(code, 0, stderr);
    const waits = /Waiting for another task on this environment: deploy --local .*, process \d+/;
    assert.match(stderr, waits);
  },

  "a second plan changes nothing, and status is content": async (deployed) => {
    const plan = await task(deployed, "plan");
    assert.match(plan.stderr, /: 0 to add, 0 to change, 0 to destroy$/m);
    const status = await task(deployed, "status");
    assert.match(status.stdout, /^All is well\.$/m);
    assert.equal(status.code, 0, status.stderr);
  },

  "an object of each pair of filters has one row, and its stream one record": async (deployed) => {
    const keys = ["in/a.csv", "in/a.txt", "new/a.csv", "new/a.txt"];
    const uploads = ["in/a", "a.csv", "news/a.txt", ...keys];
    for (const key of uploads) await upload(deployed, key, "text");
    const rows = await waitFor(30_000, async () => {
      const all = await rowsBelow(deployed, "");
      const rows = all.filter(({ file_key }) => uploads.includes(String(file_key)));
      return rows.length >= keys.length ? rows : undefined;
    });
    assert.deepEqual(rows.map(({ file_key }) => file_key), keys);
    for (const row of rows) {
      assert.equal(await invokeWith(deployed, recordOfRow(deployed, row)), undefined);
    }
    const { table_stream_arn } = (await outputs(deployed.target.workspace))!;
    const { python } = await makeTools();
    const args = ["-c", READ_STREAM, table_stream_arn!];
    const read = await run(python, args, { output: "return", quiet: true });
    assert.deepEqual(read.trim().split("\n").sort(), keys.map((key) => `INSERT ${key}`));
  },

  "F113 F117 a deletion is one more row, and its own undoes it": async (deployed) => {
    const { root: { s3 }, bucket: Bucket } = deployed;
    const Key = "in/a.csv";
    const rowsAre = (count: number) =>
      waitFor(30_000, async () => {
        const rows = await rowsBelow(deployed, Key);
        return rows.length >= count ? isDeleted(rows) : undefined;
      });
    const { VersionId } = await s3.deleteObject({ Bucket, Key });
    assert.equal(await rowsAre(2), true);
    await s3.deleteObject({ Bucket, Key, VersionId });
    assert.equal(await rowsAre(3), false);
  },
};
