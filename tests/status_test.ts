/** The task status against fake clients: what the stand-in cannot be made to answer. */

import assert from "node:assert/strict";
import { ResourceNotFoundException as NoLog } from "@aws-sdk/client-cloudwatch-logs";
import { ResourceNotFoundException as NoTable } from "@aws-sdk/client-dynamodb";
import { ResourceNotFoundException as NoFunction } from "@aws-sdk/client-lambda";
import { driftIn, readStatus, statusToText } from "../tasks/status.ts";
import { parsePlan } from "../tasks/terraform.ts";
import {
  type Answers,
  clockAt,
  fakeStack,
  NO_FAILURES,
  NOTIFIES,
  row,
  toAttributes,
} from "./fixtures.ts";
import { awsError } from "./outside.ts";

Deno.test("readStatus() names each part that was deleted by hand, and looks at the others", async () => {
  const why = { message: "gone", Message: "gone", Type: "User", $metadata: {} };
  const gone = {
    GetBucketNotificationConfigurationCommand: () => awsError("NoSuchBucket"),
    GetFunctionCommand: () => new NoFunction(why),
    FilterLogEventsCommand: () => new NoLog(why),
    GetQueueAttributesCommand: () => awsError("QueueDoesNotExist"),
  };
  const noTable = { DescribeTableCommand: () => new NoTable(why) };
  const parts = ["The bucket", "The function", "The failure queue", "The log group"];
  for (const [answers, names] of [[gone, parts], [noTable, ["The table"]]] as const) {
    const { ok, problems } = await readStatus(
      fakeStack({ ...SOUND, ...answers }).stack,
      "hash",
      [],
    );
    assert.deepEqual([ok, problems.length], [false, names.length]);
    for (const name of names) assert.ok(problems.some((problem) => problem.startsWith(name)), name);
  }
  const { stack: denied } = fakeStack({
    GetFunctionCommand: () => awsError("AccessDeniedException"),
  });
  await assert.rejects(readStatus(denied, "", []), { name: "AccessDeniedException" });
});

Deno.test("readStatus() names what is not as main.tf has it, and each part once", async () => {
  const change = (address: string, actions: string[], before?: object, after?: object) => ({
    address,
    type: address.split(".")[0],
    change: { actions, before: before ?? null, after: after ?? null },
  });
  const plan = JSON.stringify({
    resource_changes: [
      change("aws_s3_bucket.uploads[0]", ["no-op"], { id: "a" }, { id: "a" }),
      change("aws_iam_role_policy.function", ["create"], undefined, { name: "metadata" }),
      change("aws_sqs_queue.failures", ["create"]),
      change("terraform_data.function_role", ["create"]), // in the state alone
      change("aws_s3_bucket_notification.uploads[0]", ["create"]),
      change("aws_dynamodb_table.files", ["update"], { hash_key: "a" }, { hash_key: "b" }),
      // Its `last_modified` is not known before the apply; its code is looked at by itself.
      change(
        "aws_lambda_function.metadata",
        ["update"],
        { environment: [{ A: "1" }], timeout: 3, source_code_hash: "old", last_modified: "then" },
        { environment: [{ A: "2" }], timeout: 3, source_code_hash: "new" },
      ),
      change("aws_lambda_permission.uploads", ["update"], { id: "a" }, {}), // follows from others
      change("aws_iam_role_policy.batch", ["update"], { id: "a", policy: "by hand" }, { id: "a" }),
      change("aws_cloudwatch_metric_alarm.a", ["update"], { period: 0 }, { period: 300 }),
    ],
    resource_drift: [
      change("aws_iam_role_policy.batch", ["update"], { policy: "ours" }, { policy: "by hand" }),
    ],
  });
  const { stack } = fakeStack({
    ...SOUND,
    GetQueueAttributesCommand: () => awsError("QueueDoesNotExist"),
    GetBucketNotificationConfigurationCommand: () => ({}),
    DescribeTableCommand: () => ({ Table: { TableStatus: "INACCESSIBLE_ENCRYPTION_CREDENTIALS" } }),
    GetFunctionCommand: () => ({
      Configuration: { State: "Active", CodeSha256: "saved", LastModified: "2026-01-02" },
    }),
    DescribeAlarmsCommand: ({ AlarmNamePrefix, StateValue }) => ({
      MetricAlarms: [{ AlarmName: `${AlarmNamePrefix}${StateValue}` }],
    }),
  });
  const status = await readStatus(stack, "deployed", driftIn(parsePlan(plan).changes));
  const deploy = "deno task deploy --env x";
  assert.deepEqual(status.problems, [
    `The failure queue queue does not exist any more: ${deploy} makes it again, and backfill ` +
    "records the objects that then have no row",
    `the bucket uploads does not call the function; ${deploy} puts it right`,
    "the table files is INACCESSIBLE_ENCRYPTION_CREDENTIALS, not ACTIVE",
    `not there: aws_iam_role_policy.function; ${deploy} makes it`,
    `aws_lambda_function.metadata is not as main.tf has it (environment); ${deploy} puts it right`,
    `aws_iam_role_policy.batch is not as main.tf has it (policy); ${deploy} puts it right`,
    `aws_cloudwatch_metric_alarm.a is not as main.tf has it (period); ${deploy} puts it right`,
    "since 2026-01-02 the function runs code that was not deployed, as dev lets it while it runs, " +
    `and leaves it when it is killed; ${deploy} puts it right`,
    "the alarm fn-ALARM is in ALARM",
  ]);
  assert.match(statusToText(status), /^code +saved, not as deployed$/m);
});

Deno.test("status compares an existing bucket's entries with what is deployed", async () => {
  const entry = (event: string, Name: string, Value: string, name = "fn") => ({
    LambdaFunctionArn: `arn:aws:lambda:r:1:function:${name}`,
    Events: [`s3:ObjectCreated:${event}`],
    Filter: { Key: { FilterRules: [{ Name, Value }] } },
  });
  const [prefix, suffix] = [entry("*", "Prefix", "in/"), entry("*", "Suffix", ".txt")];
  const foreign = entry("*", "Prefix", "in/", "f");
  const { stack } = fakeStack({
    ...SOUND,
    GetBucketNotificationConfigurationCommand: [
      [foreign, entry("*", "suffix", ".txt"), entry("*", "prefix", "in/")],
      [foreign, foreign],
      [prefix],
      [prefix, entry("Put", "Suffix", ".txt")],
      [entry("*", "Prefix", "in"), suffix],
    ].map((LambdaFunctionConfigurations) => ({ LambdaFunctionConfigurations })),
  });
  const notification_json = JSON.stringify([prefix, suffix]);
  const outputs = { ...stack.outputs, existing_bucket: "uploads", notification_json };
  const look = async () => (await readStatus({ ...stack, outputs }, "hash", [])).problems;
  assert.deepEqual(await look(), []);
  for (let others = 0; others < 4; others++) {
    assert.deepEqual(await look(), [
      "the bucket uploads does not call the function, or by other events or filters; " +
      "deno task deploy --env x says how to put it right",
    ]);
  }
});

Deno.test("statusToText() is content with a sound stack, on one screen", async () => {
  const { stack } = fakeStack(SOUND);
  using _clock = clockAt(() => NOW_MS);
  const status = await readStatus(stack, "hash", []);
  assert.equal(status.ok, true);
  assert.deepEqual(statusToText(status).split("\n"), [
    "bucket         uploads, calls the function",
    "function       fn, nodejs22.x, Active, changed 3 h ago",
    "code           hash, as deployed",
    "failure queue  0 events",
    "alarms         none in ALARM",
    "",
    "key       bytes  type   age  preview",
    "in/b.txt                5 s",
    "in/a.txt               60 s  hi\\n",
    "",
    "All is well.",
  ]);
  assert.match(
    statusToText(await readStatus(stack, "hash")),
    /^The trigger, .* are well; no more was looked at\.$/m,
  );
});

Deno.test("status says where it stopped looking, and nothing where it saw all", async () => {
  let nowMs = NOW_MS;
  using _clock = clockAt(() => nowMs);
  const { stack } = fakeStack({
    ...SOUND,
    FilterLogEventsCommand: () => {
      nowMs += 5000; // a call takes that long
      const line = { timestamp: NOW_MS - 15_000, message: "START" };
      return { events: nowMs - NOW_MS > 5000 ? [] : [line], nextToken: "more" };
    },
  });
  const status = await readStatus(stack, "hash", []);
  assert.equal(nowMs, NOW_MS + 15_000);
  assert.deepEqual(statusToText(status).split("\n").slice(6), [
    "No row was written lately.",
    "The log is large: rows written more than 30 s ago were not looked for.",
    "",
    "All is well.",
  ]);
});

const NOW_MS = Date.parse("2100-01-01T00:00:00.000Z");

function ago(ms: number): string {
  return new Date(NOW_MS - ms).toISOString();
}

/** A line of the function's log about a row. */
function written(key: string) {
  const { file_key, timestamp } = row(key, {});
  return { message: JSON.stringify({ outcome: "written", file_key, event_time: timestamp }) };
}

const SOUND: Answers = {
  ...NOTIFIES,
  GetFunctionCommand: () => ({
    Configuration: {
      State: "Active",
      LastModified: ago(3 * 3_600_000),
      Runtime: "nodejs22.x",
      CodeSha256: "hash",
    },
  }),
  ...NO_FAILURES,
  // One is of a row that was deleted since.
  FilterLogEventsCommand: () => ({
    events: ["in/deleted.txt", "in/b.txt", "in/a.txt"].map(written),
  }),
  BatchGetItemCommand: () => ({
    Responses: {
      files: [
        toAttributes(row("in/a.txt", { processed_at: ago(60_000), content_preview: "hi\n" })),
        toAttributes(row("in/b.txt", { processed_at: ago(5000) })),
      ],
    },
  }),
};
