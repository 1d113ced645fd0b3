/** What an interrupted apply leaves in AWS is found by the stack's name. */

import assert from "node:assert/strict";
import { findNamed, lackingIn, NAMED } from "../tasks/leftovers.ts";
import { type Answers, fakeStack, read } from "./fixtures.ts";
import { awsError } from "./outside.ts";

/** Resources of main.tf without a name of their own: making one twice is no error. */
const SETTINGS = [
  "aws_iam_role_policy.batch",
  "aws_iam_role_policy.function",
  "aws_lambda_function_event_invoke_config.metadata",
  "aws_s3_bucket_lifecycle_configuration.uploads",
  "aws_s3_bucket_logging.uploads",
  "aws_s3_bucket_notification.uploads",
  "aws_s3_bucket_ownership_controls.uploads",
  "aws_s3_bucket_policy.uploads",
  "aws_s3_bucket_public_access_block.uploads",
  "aws_s3_bucket_server_side_encryption_configuration.uploads",
  "aws_s3_bucket_versioning.uploads",
];

/** AWS with the whole of the stack `app`, and with names that begin with one of its. */
const WHOLE: Answers = {
  GetCallerIdentityCommand: () => ({ Account: "123456789012" }),
  HeadBucketCommand: () => ({}),
  DescribeTableCommand: () => ({ Table: { TableStatus: "ACTIVE" } }),
  GetQueueUrlCommand: ({ QueueName }) => ({ QueueUrl: `https://sqs/1/${QueueName}` }),
  DescribeLogGroupsCommand: ({ logGroupNamePrefix: logGroupName }) => ({
    logGroups: [{ logGroupName }, { logGroupName: `${logGroupName}-2` }],
  }),
  GetRoleCommand: ({ RoleName }) => ({ Role: { RoleName } }),
  GetFunctionCommand: ({ FunctionName }) => ({ Configuration: { FunctionName } }),
  GetPolicyCommand: () => policy("Mine", "AllowUploadsBucket"),
  DescribeAlarmsCommand: ({ AlarmNames }) => ({
    MetricAlarms: [{ AlarmName: "another" }, { AlarmName: AlarmNames[0] }],
  }),
};

const ALL = NAMED.map(({ address, name }) => ({
  address,
  id: (name === "NAME-failures" ? "https://sqs/1/" : "") + name.replace("NAME", "app"),
}));

Deno.test("each resource of main.tf has a name, or is a setting of one that has", async () => {
  const resources = [...(await read("main.tf")).matchAll(/^resource "(aws_\w+)" "(\w+)"/gm)];
  const known = NAMED.map(({ address }) => address.replace(/\[.*/, ""));
  assert.deepEqual(
    resources.map(([, type, name]) => `${type}.${name}`).toSorted(),
    [...new Set([...known, ...SETTINGS])].toSorted(),
  );
});

Deno.test("OPERATE.md lists the same resources with their ids", async () => {
  const rows = (await read("docs/OPERATE.md")).matchAll(/^\| `(.+?)` +\| `(.+?)` +\|$/gm);
  const queues = "https://sqs.REGION.amazonaws.com/ACCOUNT/";
  assert.deepEqual(
    [...rows].map(([, address, id]) => [address, id.replace(queues, "")]),
    NAMED.map(({ address, name }) => [address, name]),
  );
});

/** Instead of the whole stack these answers, and what then is not the stack's, or does not exist. */
const LACKS: [name: string, answers: Answers, lacks: RegExp][] = [
  ["all is there", {}, /^$/],
  ["names that only begin like the stack's", {
    DescribeLogGroupsCommand: () => ({ logGroups: [{ logGroupName: "/aws/lambda/app-2" }] }),
    DescribeAlarmsCommand: () => ({ MetricAlarms: [{ AlarmName: "app-errors-2" }] }),
    GetPolicyCommand: () => policy("Allow"),
  }, /log_group|alarm|permission/],
  ["a role's name that is too long for IAM", {
    GetRoleCommand: ({ RoleName }) =>
      RoleName === "app-batch" ? awsError("ValidationError", 400) : { Role: { RoleName } },
  }, /role\.batch/],
  ["another account's bucket", { HeadBucketCommand: () => awsError("Forbidden", 403) }, /bucket/],
  ["a bucket in another region", { HeadBucketCommand: () => awsError("Moved", 301) }, /bucket/],
  ["a table that is being made", { DescribeTableCommand: tableThat("CREATING", "ACTIVE") }, /^$/],
  ["a table that is being deleted", { DescribeTableCommand: tableThat("DELETING", "") }, /table/],
  ...["NotFound", "NoSuchEntityException", "QueueDoesNotExist", "ResourceNotFoundException"].map(
    (name): [string, Answers, RegExp] => {
      const answers = Object.keys(WHOLE).map((command) => [command, () => awsError(name, 404)]);
      const { GetCallerIdentityCommand } = WHOLE;
      return [name, { ...Object.fromEntries(answers), GetCallerIdentityCommand }, /./];
    },
  ),
];

Deno.test("findNamed() finds all that is named after the stack, with the ids to import", async (t) => {
  for (const [name, answers, lacks] of LACKS) {
    await t.step(name, async () => {
      const { stack, calls } = fakeStack({ ...WHOLE, ...answers });
      assert.deepEqual(
        await findNamed(stack, "app"),
        ALL.filter(({ address }) => !lacks.test(address)),
      );
      const ExpectedBucketOwner = "123456789012";
      const [asked] = calls.filter((call) => call.name === "HeadBucketCommand");
      assert.deepEqual(asked.input, { Bucket: "app", ExpectedBucketOwner });
      const notAsked = Object.values(answers).filter(Array.isArray).flat();
      assert.deepEqual(notAsked, []);
    });
  }
});

Deno.test("findNamed() takes a refusal for no answer", async () => {
  const GetQueueUrlCommand = () => awsError("AccessDenied", 403);
  const { stack } = fakeStack({ ...WHOLE, GetQueueUrlCommand });
  await assert.rejects(findNamed(stack, "app"), { name: "AccessDenied" });
});

Deno.test("lackingIn() names what the state has not, or as tainted", () => {
  const named = (address: string, tainted = false) => ({ address, tainted, attributes: {} });
  const resources = [
    named("whole"),
    named("tainted", true),
    // As an earlier main.tf has them.
    named("aws_s3_bucket.uploads"),
    named("aws_cloudwatch_metric_alarm.failures_waiting"),
  ];
  const found = [
    ...["whole", "tainted", "unknown", "aws_s3_bucket.uploads[0]"],
    'aws_cloudwatch_metric_alarm.function["failures-waiting"]',
  ].map((address) => ({ address, id: "i" }));
  const lacking = lackingIn({ resources }, found);
  assert.deepEqual(lacking.map(({ address }) => address), ["tainted", "unknown"]);
});

/** A table in these states, one after another; without a state it does not exist. */
function tableThat(...statuses: string[]): object[] {
  return statuses.map((TableStatus) =>
    TableStatus ? { Table: { TableStatus } } : awsError("ResourceNotFoundException", 400)
  );
}

function policy(...sids: string[]) {
  return { Policy: JSON.stringify({ Statement: sids.map((Sid) => ({ Sid })) }) };
}
