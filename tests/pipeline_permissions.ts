/** Steps of the end-to-end tests: what the deployer and the function may do, all of it needed. */

import assert from "node:assert/strict";
import { BACKFILLED } from "../function/one_row.ts";
import { emptyBucket } from "../tasks/bucket.ts";
import { invoke } from "../tasks/invoke.ts";
import { readLog } from "../tasks/logs.ts";
import { replayFailures } from "../tasks/replay.ts";
import { queryRows } from "../tasks/table.ts";
import { grantDeployer, type Policy } from "../tasks/stand_in.ts";
import { read, toAttributes } from "./fixtures.ts";
import { toRecord } from "./outside.ts";
import { type Deployed, invokeWith, type Steps, upload } from "./pipeline.ts";

/** Checked by AWS alone: who may hand a role on. The stand-in has no S3 Batch Operations either. */
const NOT_CHECKED_BY_THE_STAND_IN = [
  "PassFunctionRole",
  "PassBatchRole",
  "MakeBatchJobs",
  "ReadBatchJobs",
  "EndBatchJobs",
];

/**
 * ListBucket is no call: S3 looks for it to answer 404 rather than 403. Lambda itself writes the log
 * and sends the failed events to the queue, as this role.
 */
const ROLE_WITHOUT_CALLS = ["TellMissingFromForbidden", "WriteOwnLogs", "SendFailedEvents"];

export const PERMISSIONS: Steps<Deployed> = {
  "without any one statement of its policy the deployer fails": async (deployed, t) => {
    const { iam } = deployed.root;
    const policy: Policy = JSON.parse(await read("docs/deployer_policy.json"));
    const needs = needsOf(deployed);
    const untried = policy.Statement.map(({ Sid }) => Sid).filter((sid) => !needs[sid]);
    assert.deepEqual(untried, NOT_CHECKED_BY_THE_STAND_IN);
    try {
      for (const [sid, need] of Object.entries(needs)) {
        await t.step(sid, async () => {
          const Statement = policy.Statement.filter(({ Sid }) => Sid !== sid);
          assert.equal(Statement.length, policy.Statement.length - 1);
          await grantDeployer(iam, { ...policy, Statement });
          await assert.rejects(need(), /denied|not authorized|refused|UnknownError|failed/);
          await grantDeployer(iam, policy);
          await need();
        });
      }
    } finally {
      await grantDeployer(iam, policy);
    }
  },

  "the function's role allows what the function calls, and no more": async (deployed) => {
    const { iam, outputs } = deployed.root;
    const role = { RoleName: outputs.lambda_function_name, PolicyName: "metadata" };
    const { PolicyDocument } = await iam.getRolePolicy(role);
    const document: Policy = JSON.parse(decodeURIComponent(PolicyDocument!));
    const { Statement } = document;
    const used = Statement.filter(({ Sid }) => !ROLE_WITHOUT_CALLS.includes(Sid));
    const needs = await recordsOfActions(deployed);
    assert.deepEqual(Object.keys(needs).sort(), used.flatMap(({ Action }) => Action).sort());

    const put = async (statements: object[]) => {
      const PolicyDocument = JSON.stringify({ ...document, Statement: statements });
      await iam.putRolePolicy({ ...role, PolicyDocument });
    };
    try {
      for (const [action, record] of Object.entries(needs)) {
        const less = Statement.map((statement) => ({
          ...statement,
          Action: [statement.Action].flat().filter((name) => name !== action),
        }));
        await put(less.filter(({ Action }) => Action.length > 0));
        const error = await invokeWith(deployed, record);
        assert.match(error ?? "", /AccessDenied|HTTP 403/, action);
      }
    } finally {
      await put(Statement);
    }
    for (const record of Object.values(needs)) {
      assert.equal(await invokeWith(deployed, record), undefined);
    }
  },
};

/** By a statement's id: what fails without it, and succeeds with it. */
function needsOf({ deployer, root }: Deployed): Record<string, () => Promise<unknown>> {
  const { outputs, s3, dynamo, sqs, logs, iam, lambda, cloudwatch } = deployer;
  const { s3_bucket_name: Bucket, lambda_function_name: FunctionName } = outputs;
  const arn = (service: string, name: string) =>
    `arn:aws:${service}:${outputs.aws_region}:${outputs.account_id}:${name}`;
  const group = arn("logs", `log-group:${outputs.log_group_name}`);
  const alarm = arn("cloudwatch", `alarm:${FunctionName}-errors`);
  const prefix = "needed/a";
  const object = { Bucket, Key: prefix, Body: "1" };
  return {
    Bucket: () => s3.getBucketVersioning({ Bucket }),
    Table: () => dynamo.describeTable({ TableName: outputs.dynamodb_table_name }),
    Queue: () => sqs.listQueueTags({ QueueUrl: outputs.failure_queue_url }),
    LogGroup: () => logs.listTagsForResource({ resourceArn: group }),
    ListLogGroups: () => logs.describeLogGroups({}),
    FunctionRole: () => iam.getRole({ RoleName: FunctionName }),
    Function: () => lambda.getPolicy({ FunctionName }),
    Alarms: () => cloudwatch.listTagsForResource({ ResourceARN: alarm }),
    ListAlarms: () => cloudwatch.describeAlarms({}),
    ChangeInPlace: () => lambda.updateFunctionConfiguration({ FunctionName, Timeout: 30 }),
    EmptyBucket: () => root.s3.putObject(object).then(() => emptyBucket(s3, Bucket, { prefix })),
    VerifyFiles: () => s3.putObject(object),
    OperateRows: () => queryRows(deployer, "any"),
    OperateFunction: () => invoke(deployer, { Records: [] }),
    OperateQueue: () => replayFailures(deployer, { dryRun: true, max: 1 }),
    ReadLog: () => Array.fromAsync(readLog(deployer, { sinceMs: Date.now(), follow: false })),
  };
}

/** By an action of the role: a record that can't be handled without it. All events are late. */
async function recordsOfActions(deployed: Deployed): Promise<Record<string, unknown>> {
  const { bucket, root: { dynamo, outputs } } = deployed;
  const { versionId } = await upload(deployed, "role/a", "text");
  const empty = await upload(deployed, "role/empty", "");
  const backfilled = await upload(deployed, "role/backfilled", "text");
  await dynamo.putItem({
    TableName: outputs.dynamodb_table_name,
    Item: toAttributes({
      file_key: "role/backfilled",
      timestamp: "2026-01-01T00:00:00.000000Z",
      event_name: BACKFILLED,
      version_id: backfilled.versionId!,
    }),
  });
  return {
    "s3:GetObject": toRecord(bucket, { key: "role/a" }),
    "s3:GetObjectVersion": toRecord(bucket, { key: "role/a", versionId, sequencer: "0A" }),
    "dynamodb:PutItem": toRecord(bucket, { key: "role/empty", size: 0, ...empty }),
    "dynamodb:Query": toRecord(bucket, { key: "role/a" }),
    "dynamodb:DeleteItem": toRecord(bucket, { key: "role/backfilled", ...backfilled }),
  };
}
