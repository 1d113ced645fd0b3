/** What --env and --local mean, and why a task cannot act there. */

import assert from "node:assert/strict";
import * as logs from "@aws-sdk/client-cloudwatch-logs";
import * as dynamo from "@aws-sdk/client-dynamodb";
import * as lambda from "@aws-sdk/client-lambda";
import * as s3 from "@aws-sdk/client-s3";
import * as sqs from "@aws-sdk/client-sqs";
import { findDeleted, targetOf } from "../tasks/target.ts";
import { fakeStack } from "./fixtures.ts";

Deno.test("targetOf() refuses what cannot be an environment's name", () => {
  const refused = /^--env must be 1 to 32 lower-case letters, digits and inner hyphens, not "/;
  const cases: [env: string, local: boolean, sentence: RegExp][] = [
    ...["Prod", "a_b", "-a", "a-", "", "a".repeat(33), "a\u001b[31m", "../x"].map(
      (env): [string, boolean, RegExp] => [env, false, refused],
    ),
    ["a\u001b[31m", true, /not "a\\u\{1b\}\[31m"$/],
    ["default", false, /^'default' is already the default: leave --env out$/],
    ["local", false, /^--env local names a stand-in's environment: add --local,/],
    ["local-x", false, /^--env local-x names a stand-in's environment: add --local,/],
  ];
  for (const [env, local, message] of cases) {
    assert.throws(() => targetOf({ env, local }), { name: "UserError", message }, env);
  }
});

Deno.test("targetOf() names the workspace, the place and the flags", () => {
  const env = "a".repeat(32);
  const cases = [
    [{ local: false }, "default", "on AWS in the default workspace", ""],
    [{ local: true }, "local", "on the stand-in", " --local"],
    [{ env: "prod", local: false }, "prod", "on AWS in environment prod", " --env prod"],
    [
      { env, local: true },
      `local-${env}`,
      `on the stand-in in environment ${env}`,
      ` --local --env ${env}`,
    ],
  ] as const;
  for (const [where, workspace, place, flags] of cases) {
    const target = targetOf(where);
    assert.deepEqual([target.workspace, target.place, target.flags], [workspace, place, flags]);
  }
});

Deno.test("findDeleted() names the part that was deleted and what to do, in every task", () => {
  const { stack } = fakeStack({});
  const why = { message: "gone", Message: "gone", Type: "User", $metadata: {} };
  const older = Object.assign(new Error(), { name: "AWS.SimpleQueueService.NonExistentQueue" });
  const cases: [Error, RegExp][] = [
    [
      new s3.NoSuchBucket(why),
      /^The bucket uploads does not exist any more: deno task deploy --env x makes it again, empty/,
    ],
    [new dynamo.ResourceNotFoundException(why), /^The table files .* makes it again, empty/],
    [new lambda.ResourceNotFoundException(why), /^The function fn .* makes it again, and backfill/],
    [new logs.ResourceNotFoundException(why), /^The log group log .* makes it again/],
    [new sqs.QueueDoesNotExist(why), /^The failure queue queue .* makes it again, empty/],
    [older, /^The failure queue queue /],
  ];
  for (const [error, sentence] of cases) {
    assert.match(findDeleted(error, stack)?.sentence ?? "", sentence);
  }
  const attached = { ...stack, outputs: { ...stack.outputs, existing_bucket: "uploads" } };
  const { address, sentence } = findDeleted(new s3.NoSuchBucket(why), attached)!;
  assert.equal(address, "data.aws_s3_bucket.existing[0]");
  assert.match(
    sentence,
    /^The bucket \S+ does not exist any more, .*: make it again, or run deno task destroy/,
  );
  // NotFound is the answer to a HEAD, also of an object.
  for (const error of [new s3.NoSuchKey(why), new s3.NotFound(why), new Error("other")]) {
    assert.equal(findDeleted(error, stack), undefined);
  }
});
