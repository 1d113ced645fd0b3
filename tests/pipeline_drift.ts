/** Steps of the end-to-end tests: `status` names what was changed or removed by hand, deploy mends it. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { DeleteAlarmsCommand, PutMetricAlarmCommand } from "@aws-sdk/client-cloudwatch";
import { DeleteLogGroupCommand, PutRetentionPolicyCommand } from "@aws-sdk/client-cloudwatch-logs";
import { UpdateTableCommand } from "@aws-sdk/client-dynamodb";
import {
  DeleteRoleCommand,
  DeleteRolePolicyCommand,
  PutRolePolicyCommand,
  UpdateAssumeRolePolicyCommand,
} from "@aws-sdk/client-iam";
import {
  DeleteFunctionEventInvokeConfigCommand,
  PutFunctionConcurrencyCommand,
  PutFunctionEventInvokeConfigCommand,
  RemovePermissionCommand,
  UpdateFunctionConfigurationCommand,
} from "@aws-sdk/client-lambda";
import {
  DeleteBucketPolicyCommand,
  DeletePublicAccessBlockCommand,
  PutBucketNotificationConfigurationCommand,
  PutBucketPolicyCommand,
  PutBucketVersioningCommand,
} from "@aws-sdk/client-s3";
import { SetQueueAttributesCommand } from "@aws-sdk/client-sqs";
import { readDrift } from "../tasks/drift.ts";
import { ROOT } from "../tasks/shell.ts";
import { grantInstanceRole, type Policy } from "../tasks/stand_in.ts";
import type { Status } from "../tasks/status.ts";
import type { Stack } from "../tasks/target.ts";
import { type Deployed, type Steps, task } from "./pipeline_context.ts";

/** By a resource and what of it changes: how somebody changes it by hand. */
const CHANGES: [part: string, change: (stack: Stack, names: Names) => Promise<unknown>[]][] = [
  ["aws_s3_bucket_versioning.uploads (versioning_configuration)", ({ s3 }, { Bucket }) => [
    s3.send(
      new PutBucketVersioningCommand({ Bucket, VersioningConfiguration: { Status: "Suspended" } }),
    ),
  ]],
  ["aws_s3_bucket_notification.uploads (lambda_function)", ({ s3, outputs }, { Bucket }) => [
    s3.send(
      new PutBucketNotificationConfigurationCommand({
        Bucket,
        NotificationConfiguration: {
          LambdaFunctionConfigurations: [{
            Id: "object-created",
            LambdaFunctionArn: outputs.lambda_function_arn,
            Events: ["s3:ObjectCreated:Copy"],
          }],
        },
      }),
    ),
  ]],
  ["aws_s3_bucket_policy.uploads (policy)", ({ s3, outputs }, { Bucket }) => [
    s3.send(
      new PutBucketPolicyCommand({
        Bucket,
        Policy: policyOf("s3:DeleteBucket", outputs.s3_bucket_arn, {
          AWS: outputs.account_id,
        }),
      }),
    ),
  ]],
  [
    "aws_lambda_function.metadata (environment, reserved_concurrent_executions, timeout)",
    ({ lambda }, { FunctionName }) => [
      lambda.send(
        new UpdateFunctionConfigurationCommand({
          FunctionName,
          Timeout: 1,
          Environment: { Variables: { TABLE_NAME: "another" } },
        }),
      ),
      lambda.send(
        new PutFunctionConcurrencyCommand({ FunctionName, ReservedConcurrentExecutions: 0 }),
      ),
    ],
  ],
  [
    "aws_lambda_function_event_invoke_config.metadata (destination_config, maximum_retry_attempts)",
    ({ lambda }, { FunctionName }) => [
      lambda.send(
        new PutFunctionEventInvokeConfigCommand({
          FunctionName,
          MaximumRetryAttempts: 0,
          MaximumEventAgeInSeconds: 21600,
        }),
      ),
    ],
  ],
  ["aws_iam_role.function (assume_role_policy)", ({ iam }, { RoleName }) => [
    iam.send(
      new UpdateAssumeRolePolicyCommand({
        RoleName,
        PolicyDocument: policyOf("sts:AssumeRole", undefined, { Service: "ec2.amazonaws.com" }),
      }),
    ),
  ]],
  ["aws_iam_role_policy.function (policy)", ({ iam, outputs }, { RoleName }) => [
    iam.send(
      new PutRolePolicyCommand({
        RoleName,
        PolicyName: "metadata",
        PolicyDocument: policyOf("dynamodb:PutItem", outputs.dynamodb_table_arn),
      }),
    ),
  ]],
  ["aws_sqs_queue.failures (message_retention_seconds)", ({ sqs, outputs }) => [
    sqs.send(
      new SetQueueAttributesCommand({
        QueueUrl: outputs.failure_queue_url,
        Attributes: { MessageRetentionPeriod: "3600" },
      }),
    ),
  ]],
  // A plan then does not know what the policy of the role will be.
  ["aws_dynamodb_table.files (deletion_protection_enabled)", ({ dynamo, outputs }) => [
    dynamo.send(
      new UpdateTableCommand({
        TableName: outputs.dynamodb_table_name,
        DeletionProtectionEnabled: true,
      }),
    ),
  ]],
  ["aws_cloudwatch_log_group.function (retention_in_days)", ({ logs }, { logGroupName }) => [
    logs.send(new PutRetentionPolicyCommand({ logGroupName, retentionInDays: 1 })),
  ]],
  [
    'aws_cloudwatch_metric_alarm.function["errors"] (threshold)',
    ({ cloudwatch }, { FunctionName }) => [
      cloudwatch.send(
        new PutMetricAlarmCommand({
          AlarmName: `${FunctionName}-errors`,
          Namespace: "AWS/Lambda",
          MetricName: "Errors",
          ComparisonOperator: "GreaterThanThreshold",
          EvaluationPeriods: 1,
          Threshold: 1000,
        }),
      ),
    ],
  ],
];

/** By a resource, as status names it: how somebody removes it by hand. */
const REMOVALS: [part: string, remove: (stack: Stack, names: Names) => Promise<unknown>][] = [
  [
    'aws_cloudwatch_metric_alarm.function["errors"]',
    ({ cloudwatch }, { FunctionName }) =>
      cloudwatch.send(new DeleteAlarmsCommand({ AlarmNames: [`${FunctionName}-errors`] })),
  ],
  [
    "The log group /aws/lambda/",
    ({ logs }, { logGroupName }) => logs.send(new DeleteLogGroupCommand({ logGroupName })),
  ],
  [
    "aws_lambda_permission.uploads",
    ({ lambda }, { FunctionName }) =>
      lambda.send(new RemovePermissionCommand({ FunctionName, StatementId: "AllowUploadsBucket" })),
  ],
  [
    "aws_lambda_function_event_invoke_config.metadata",
    ({ lambda }, { FunctionName }) =>
      lambda.send(new DeleteFunctionEventInvokeConfigCommand({ FunctionName })),
  ],
  [" does not call the function; ", ({ s3 }, { Bucket }) =>
    s3.send(
      new PutBucketNotificationConfigurationCommand({ Bucket, NotificationConfiguration: {} }),
    )],
  [
    "aws_s3_bucket_policy.uploads",
    ({ s3 }, { Bucket }) => s3.send(new DeleteBucketPolicyCommand({ Bucket })),
  ],
  [
    "aws_s3_bucket_public_access_block.uploads",
    ({ s3 }, { Bucket }) => s3.send(new DeletePublicAccessBlockCommand({ Bucket })),
  ],
  [
    "aws_iam_role_policy.function",
    ({ iam }, { RoleName }) =>
      iam.send(new DeleteRolePolicyCommand({ RoleName, PolicyName: "metadata" })),
  ],
  // IAM removes no role that has a policy.
  [
    "aws_iam_role.function",
    ({ iam }, { RoleName }) => iam.send(new DeleteRoleCommand({ RoleName })),
  ],
];

/** Names as the services' calls have them. */
type Names = Record<"Bucket" | "FunctionName" | "RoleName" | "logGroupName", string>;

/** What somebody did by hand. The next deploy is to put it right. */
export const DRIFT: Steps<Deployed> = {
  "status says what it may not look at": async (deployed) => {
    const { iam } = deployed.root;
    const text = await Deno.readTextFile(join(ROOT, "docs", "deployer_policy.json"));
    const policy: Policy = JSON.parse(text);
    const Statement = policy.Statement.filter(({ Sid }) => Sid !== "FunctionRole");
    await grantInstanceRole(iam, { ...policy, Statement });
    try {
      await assert.rejects(readDrift(deployed.target), {
        message: /iam:GetRole[^]*lacks a permission, which is named above; add it/,
      });
    } finally {
      await grantInstanceRole(iam, policy);
    }
  },

  "status names each part that was changed by hand": async (deployed) => {
    const { root } = deployed;
    for (const [, change] of CHANGES) await Promise.all(change(root, namesOf(root)));
    const problems = await problemsOf(deployed);
    const { flags } = deployed.target;
    for (const [part] of CHANGES) {
      const [address, names] = part.slice(0, -1).split(" (");
      const isNamed = (problem: string) =>
        problem.startsWith(`${address} is not as main.tf has it (`) &&
        names.split(", ").every((name) => problem.includes(name)) &&
        problem.endsWith(`; deno task deploy${flags} puts it right`);
      assert.ok(problems.some(isNamed), `${part}\n\n${problems.join("\n")}`);
    }
  },

  "status names each part that was removed by hand": async (deployed) => {
    const { root } = deployed;
    for (const [, remove] of REMOVALS) await remove(root, namesOf(root));
    const problems = await problemsOf(deployed);
    for (const [part] of REMOVALS) {
      assert.ok(problems.some((problem) => problem.includes(part)), `${part}: ${problems}`);
    }
  },
};

export const MENDED: Steps<Deployed> = {
  "status finds nothing changed after deploy": async (deployed) => {
    const [failed, ...others] = await problemsOf(deployed);
    assert.match(failed, /^1 event in the failure queue: /);
    // The event's own errors may still be counted.
    assert.deepEqual(others.filter((problem) => !problem.endsWith("-errors is in ALARM")), []);
  },
};

function namesOf({ outputs }: Stack): Names {
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

async function problemsOf(deployed: Deployed): Promise<string[]> {
  const { code, stdout, stderr } = await task(deployed, "status", "--json");
  assert.equal(code, 1, stdout + stderr);
  return (JSON.parse(stdout) as Status).problems;
}
