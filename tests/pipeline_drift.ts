/**
 * Steps of the end-to-end tests: what was changed, removed or left by hand. `status` names it, and a
 * deploy puts it right without losing data.
 */

import assert from "node:assert/strict";
import { isDeleted } from "../function/removals.ts";
import { zipOf } from "../tasks/build.ts";
import { readDrift } from "../tasks/status.ts";
import { updateCode } from "../tasks/invoke.ts";
import { run } from "../tasks/shell.ts";
import type { Status } from "../tasks/status.ts";
import { outputs } from "../tasks/terraform.ts";
import { makeTools } from "../tasks/tools.ts";
import {
  type Deployed,
  invokeWith,
  optionsOf,
  ownTerraform,
  recordOfRow,
  rowsBelow,
  type Steps,
  task,
  upload,
  waitFor,
} from "./pipeline.ts";
import { type Ended, runTask } from "./run_task.ts";

type ByHand = (root: Deployed["root"], names: Names) => Promise<unknown>[];

/** Names as the services' calls have them. */
type Names = Record<"Bucket" | "FunctionName" | "RoleName" | "logGroupName", string>;

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

/** By a resource and what of it changes: how somebody changes it. */
const CHANGES: [part: string, change: ByHand][] = [
  ["aws_s3_bucket_versioning.uploads[0] (versioning_configuration)", ({ s3 }, { Bucket }) => [
    s3.putBucketVersioning({ Bucket, VersioningConfiguration: { Status: "Suspended" } }),
  ]],
  ["aws_s3_bucket_notification.uploads[0] (lambda_function)", ({ s3, outputs }, { Bucket }) => [
    s3.putBucketNotificationConfiguration({
      Bucket,
      NotificationConfiguration: {
        LambdaFunctionConfigurations: [{
          Id: "object-created",
          LambdaFunctionArn: outputs.lambda_function_arn,
          Events: ["s3:ObjectCreated:Copy"],
        }],
      },
    }),
  ]],
  ["aws_s3_bucket_policy.uploads[0] (policy)", ({ s3, outputs }, { Bucket }) => {
    const owner = { AWS: outputs.account_id };
    const Policy = policyOf("s3:DeleteBucket", outputs.s3_bucket_arn, owner);
    return [s3.putBucketPolicy({ Bucket, Policy })];
  }],
  [
    "aws_lambda_function.metadata (environment, reserved_concurrent_executions, timeout)",
    ({ lambda }, { FunctionName }) => [
      lambda.updateFunctionConfiguration({
        FunctionName,
        Timeout: 1,
        Environment: { Variables: { TABLE_NAME: "another" } },
      }),
      lambda.putFunctionConcurrency({ FunctionName, ReservedConcurrentExecutions: 0 }),
    ],
  ],
  [
    "aws_lambda_function_event_invoke_config.metadata (destination_config, maximum_retry_attempts)",
    ({ lambda }, { FunctionName }) => [
      lambda.putFunctionEventInvokeConfig({
        FunctionName,
        MaximumRetryAttempts: 0,
        MaximumEventAgeInSeconds: 21600,
      }),
    ],
  ],
  ["aws_iam_role.function (assume_role_policy)", ({ iam }, { RoleName }) => {
    const ec2 = { Service: "ec2.amazonaws.com" };
    const PolicyDocument = policyOf("sts:AssumeRole", undefined, ec2);
    return [iam.updateAssumeRolePolicy({ RoleName, PolicyDocument })];
  }],
  ["aws_iam_role_policy.function (policy)", ({ iam, outputs }, { RoleName }) => {
    const PolicyDocument = policyOf("dynamodb:PutItem", outputs.dynamodb_table_arn);
    return [iam.putRolePolicy({ RoleName, PolicyName: "metadata", PolicyDocument })];
  }],
  ["aws_sqs_queue.failures (message_retention_seconds)", ({ sqs, outputs }) => {
    const Attributes = { MessageRetentionPeriod: "3600" };
    return [sqs.setQueueAttributes({ QueueUrl: outputs.failure_queue_url, Attributes })];
  }],
  // A plan then does not know what the policy of the role will be.
  ["aws_dynamodb_table.files (deletion_protection_enabled)", ({ dynamo, outputs }) => [
    dynamo.updateTable({
      TableName: outputs.dynamodb_table_name,
      DeletionProtectionEnabled: true,
    }),
  ]],
  ["aws_cloudwatch_log_group.function (retention_in_days)", ({ logs }, { logGroupName }) => [
    logs.putRetentionPolicy({ logGroupName, retentionInDays: 1 }),
  ]],
  [
    'aws_cloudwatch_metric_alarm.function["errors"] (threshold)',
    ({ cloudwatch }, { FunctionName }) => [
      cloudwatch.putMetricAlarm({
        AlarmName: `${FunctionName}-errors`,
        Namespace: "AWS/Lambda",
        MetricName: "Errors",
        ComparisonOperator: "GreaterThanThreshold",
        EvaluationPeriods: 1,
        Threshold: 1000,
      }),
    ],
  ],
];

/** By a resource, of which nothing is changed before: how somebody removes it. */
const REMOVALS: [part: string, remove: ByHand][] = [
  ["aws_lambda_permission.uploads", ({ lambda }, { FunctionName }) => [
    lambda.removePermission({ FunctionName, StatementId: "AllowUploadsBucket" }),
  ]],
  ["aws_s3_bucket_public_access_block.uploads[0]", ({ s3 }, { Bucket }) => [
    s3.deletePublicAccessBlock({ Bucket }),
  ]],
];

export const DRIFT: Steps<Deployed> = {
  "status names each part that was changed or removed by hand": async (deployed) => {
    const { root, target: { flags } } = deployed;
    for (const [, act] of [...CHANGES, ...REMOVALS]) await Promise.all(act(root, namesOf(root)));
    await updateCode(root, zipOf(new TextEncoder().encode("left"))); // as by a dev that was killed
    const { code, stdout, stderr } = await task(deployed, "status", "--json");
    assert.equal(code, 1, stderr);
    const { problems } = JSON.parse(stdout) as Status;
    for (const [part] of CHANGES) {
      const [address, names] = part.slice(0, -1).split(" (");
      const isNamed = (problem: string) =>
        problem.startsWith(`${address} is not as main.tf has it (`) &&
        names.split(", ").every((name) => problem.includes(name)) &&
        problem.endsWith(`; deno task deploy${flags} puts it right`);
      assert.ok(problems.some(isNamed), `${part}\n\n${problems.join("\n")}`);
    }
    const [missing] = problems.filter((problem) => problem.startsWith("not there: "));
    for (const [part] of REMOVALS) assert.ok(missing?.includes(part), `${part}: ${problems}`);
    assert.ok(problems.some((problem) => problem.includes(NOT_DEPLOYED)), problems.join("\n"));
  },

  // Terraform replaces what is tainted, as by an interrupted apply; deploy_test.ts has other causes.
  "deploy puts that right, keeps tainted data, and a replay waits meanwhile": async (deployed) => {
    const { root, shell, target, variables } = deployed;
    await removeMore(root);
    await Deno.writeTextFile(variables, FILTERS_AND_STREAM, { append: true });
    const TableName = root.outputs.dynamodb_table_name;
    await root.dynamo.putItem({ TableName, Item: KEPT });
    await ownTerraform(deployed, "taint", "aws_dynamodb_table.files");
    let replay: Promise<Ended> | undefined;
    const deploy = await runTask(["deploy", ...optionsOf(target), "--yes"], shell, {
      onStderr: (text) => {
        if (/\$ terraform .*plan /.test(text)) replay ??= task(deployed, "replay", "--dry-run");
      },
    });
    assert.equal(deploy.code, 0, deploy.stderr);
    assert.match(deploy.stderr, new RegExp(`^Note: since \\S+ ${NOT_DEPLOYED}`, "m"));
    // Its role was deleted by hand.
    assert.match(deploy.stderr, /^aws_lambda_function\.metadata: Creation complete/m);
    const kept = await root.dynamo.getItem({ TableName, Key: KEPT, ConsistentRead: true });
    assert.deepEqual(kept.Item, KEPT);
    const { code, stderr } = await replay!;
    assert.equal(code, 0, stderr);
    const waits = /Waiting for another task on this environment: deploy --local .*, process \d+/;
    assert.match(stderr, waits);
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
    const again = rows.map((row) => recordOfRow(deployed, row));
    assert.equal(await invokeWith(deployed, [...again, ...again]), undefined);
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

  "a second plan changes nothing, and what was mended works": async (deployed) => {
    assert.deepEqual(await readDrift(deployed.target), []);
    const verify = await task(deployed, "verify");
    assert.equal(verify.code, 0, verify.stdout + verify.stderr);
  },
};

/** Removes most of what {@link CHANGES} changed; status_test.ts shows how status names it. */
async function removeMore(root: Deployed["root"]): Promise<void> {
  const { cloudwatch, iam, lambda, logs, s3, sqs } = root;
  const { Bucket, FunctionName, RoleName, logGroupName } = namesOf(root);
  // As it was: the provider waits half a minute after any change of a queue.
  const Attributes = { MessageRetentionPeriod: String(14 * 24 * 3600) };
  await sqs.setQueueAttributes({ QueueUrl: root.outputs.failure_queue_url, Attributes });
  await Promise.all([
    cloudwatch.deleteAlarms({ AlarmNames: [`${FunctionName}-errors`] }),
    logs.deleteLogGroup({ logGroupName }),
    lambda.deleteFunctionEventInvokeConfig({ FunctionName }),
    s3.deleteBucketPolicy({ Bucket }),
    s3.putBucketNotificationConfiguration({ Bucket, NotificationConfiguration: {} }),
    iam.deleteRolePolicy({ RoleName, PolicyName: "metadata" }),
  ]);
  await iam.deleteRole({ RoleName }); // which IAM refuses where it has a policy
}

function namesOf({ outputs }: Deployed["root"]): Names {
  const { lambda_function_name: FunctionName } = outputs;
  return {
    Bucket: outputs.s3_bucket_name,
    FunctionName,
    RoleName: FunctionName,
    logGroupName: outputs.log_group_name,
  };
}

function policyOf(Action: string, Resource?: string, Principal?: unknown): string {
  const Statement = [{ Effect: "Allow", Action, Resource, Principal }];
  return JSON.stringify({ Version: "2012-10-17", Statement });
}
