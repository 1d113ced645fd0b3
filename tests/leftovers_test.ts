/** What an interrupted apply leaves in AWS is found by the stack's name. */

import assert from "node:assert/strict";
import { findNamed, lackingIn, NAMED } from "../tasks/leftovers.ts";
import type { Clients } from "../tasks/target.ts";
import { type Answers, fakeStack, read } from "./fixtures.ts";

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
  GetPolicyCommand: () => ({
    Policy: JSON.stringify({ Statement: [{ Sid: "Mine" }, { Sid: "AllowUploadsBucket" }] }),
  }),
  DescribeAlarmsCommand: ({ AlarmNames }) => ({
    MetricAlarms: [{ AlarmName: "another" }, { AlarmName: (AlarmNames as string[])[0] }],
  }),
};

Deno.test("each resource of main.tf has a name, or is a setting of one that has", async () => {
  const resources = [...(await read("main.tf")).matchAll(/^resource "(aws_\w+)" "(\w+)"/gm)];
  const known = NAMED.map(({ address }) => address.replace(/\[.*/, ""));
  assert.deepEqual(
    resources.map(([, type, name]) => `${type}.${name}`).toSorted(),
    [...new Set([...known, ...SETTINGS])].toSorted(),
  );
});

Deno.test("INTERRUPTED.md lists the same resources with their ids", async () => {
  const rows = (await read("docs/INTERRUPTED.md")).matchAll(/^\| `(.+?)` +\| `(.+?)` +\|$/gm);
  const queues = "https://sqs.REGION.amazonaws.com/ACCOUNT/";
  assert.deepEqual(
    [...rows].map(([, address, id]) => [address, id.replace(queues, "")]),
    NAMED.map(({ address, name }) => [address, name]),
  );
});

Deno.test("findNamed() finds all that bears the name, with the ids to import", async () => {
  const expected = NAMED.map(({ address, name }) => ({
    address,
    id: (name === "NAME-failures" ? "https://sqs/1/" : "") + name.replace("NAME", "app"),
  }));
  assert.deepEqual(await found(WHOLE), expected);
});

Deno.test("findNamed() takes nothing for the stack's that is not", async (t) => {
  for (const name of ["NotFound", "NoSuchEntityException", "QueueDoesNotExist"]) {
    await t.step(`${name} is nothing`, async () => {
      const answers = Object.keys(WHOLE).map((command) => [command, () => failure(name, 404)]);
      const all = { ...Object.fromEntries(answers), ...only("GetCallerIdentityCommand") };
      assert.deepEqual(await found(all), []);
    });
  }
  await t.step("names that only begin so", async () => {
    const others: Answers = {
      DescribeLogGroupsCommand: () => ({ logGroups: [{ logGroupName: "/aws/lambda/app-2" }] }),
      DescribeAlarmsCommand: () => ({ MetricAlarms: [{ AlarmName: "app-errors-2" }] }),
      GetPolicyCommand: () => ({ Policy: JSON.stringify({ Statement: [{ Sid: "Allow" }] }) }),
    };
    const addresses = (await found({ ...WHOLE, ...others })).map(({ address }) => address);
    assert.equal(addresses.some((address) => /log_group|alarm|permission/.test(address)), false);
  });
  await t.step("a role whose name IAM could not have", async () => {
    const asked: unknown[] = [];
    const GetRoleCommand = ({ RoleName }: Record<string, unknown>) => {
      asked.push(RoleName);
      return String(RoleName).length > 64
        ? failure("ValidationError", 400)
        : { Role: { RoleName } };
    };
    const longest = "a".repeat(63);
    assert.ok((await found({ ...WHOLE, GetRoleCommand }, longest)).length > 0);
    assert.deepEqual(asked, [longest]);
  });
  await t.step("a bucket of another account, or in another region", async () => {
    for (const status of [301, 403]) {
      const asked: unknown[] = [];
      const addresses = await found({
        ...WHOLE,
        HeadBucketCommand: (input) => {
          asked.push(input);
          return failure("Forbidden", status);
        },
      });
      const ExpectedBucketOwner = "123456789012";
      assert.deepEqual(asked, [{ Bucket: "app", ExpectedBucketOwner }]);
      assert.equal(addresses.some(({ address }) => address.startsWith("aws_s3_bucket.")), false);
    }
  });
});

Deno.test("lackingIn() names what the state has not, or not whole", () => {
  const resource = (address: string, tainted: boolean, attributes: Record<string, unknown>) => ({
    address,
    tainted,
    attributes,
  });
  const resources = [
    resource("whole", false, { arn: "arn:1" }),
    resource("tainted", true, { arn: "arn:2" }),
    resource("without an ARN", true, { id: "3" }),
    resource("interrupted", true, { arn: null }),
    resource("interrupted early", true, { arn: "" }),
  ];
  const found = [...resources, { address: "unknown" }].map(({ address }) => ({ address, id: "i" }));
  assert.deepEqual(lackingIn({ resources }, found).map(({ address }) => address), [
    "interrupted",
    "interrupted early",
    "unknown",
  ]);
});

Deno.test("findNamed() waits for a table that is being made or deleted", async () => {
  const table = async (...statuses: string[]) => {
    const answers = statuses.map((TableStatus) => ({ Table: { TableStatus } }));
    const DescribeTableCommand = () => answers.shift() ?? failure("ResourceNotFoundException", 400);
    const all = await found({ ...WHOLE, DescribeTableCommand });
    assert.deepEqual(answers, []);
    return all.some(({ address }) => address === "aws_dynamodb_table.files");
  };
  assert.equal(await table("CREATING", "ACTIVE"), true);
  assert.equal(await table("DELETING"), false);
});

Deno.test("findNamed() takes a refusal for no answer", async () => {
  const GetQueueUrlCommand = () => failure("AccessDenied", 403);
  await assert.rejects(found({ ...WHOLE, GetQueueUrlCommand }), { name: "AccessDenied" });
});

/** What is found of a stack. */
async function found(answers: Answers, name = "app") {
  const { stack } = fakeStack(answers);
  return await findNamed(stack as Clients, name);
}

function only(command: string): Answers {
  return { [command]: WHOLE[command] };
}

function failure(name: string, httpStatusCode: number): Error {
  return Object.assign(new Error(name), { name, $metadata: { httpStatusCode } });
}
