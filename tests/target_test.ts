/** What --env and --local mean, where Terraform runs then, and which values its variables get. */

import assert from "node:assert/strict";
import { join } from "node:path";
import * as logs from "@aws-sdk/client-cloudwatch-logs";
import * as dynamo from "@aws-sdk/client-dynamodb";
import * as lambda from "@aws-sdk/client-lambda";
import * as s3 from "@aws-sdk/client-s3";
import * as sqs from "@aws-sdk/client-sqs";
import { namesIn } from "../tasks/files.ts";
import { ROOT } from "../tasks/shell.ts";
import { findDeleted, targetOf } from "../tasks/target.ts";
import { ownFolder, sourcesOf } from "../tasks/workspace.ts";
import { fakeStack } from "./fixtures.ts";
import { awsError } from "./outside.ts";

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
  const older = awsError("AWS.SimpleQueueService.NonExistentQueue");
  const cases: [Error, part: string][] = [
    [new s3.NoSuchBucket(why), "bucket uploads"],
    [new dynamo.ResourceNotFoundException(why), "table files"],
    [new lambda.ResourceNotFoundException(why), "function fn"],
    [new logs.ResourceNotFoundException(why), "log group log"],
    [new sqs.QueueDoesNotExist(why), "failure queue queue"],
    [older, "failure queue queue"],
  ];
  for (const [error, part] of cases) {
    const [first] = findDeleted(error, stack)!.sentence.split(" makes it again");
    assert.equal(first, `The ${part} does not exist any more: deno task deploy --env x`);
  }
  const attached = { ...stack, outputs: { ...stack.outputs, existing_bucket: "uploads" } };
  assert.deepEqual(findDeleted(new s3.NoSuchBucket(why), attached), {
    address: "data.aws_s3_bucket.existing[0]",
    sentence: "The bucket uploads does not exist any more, and is not the stack's own: make it " +
      "again, or run deno task destroy --env x",
  });
  // NotFound is the answer to a HEAD, also of an object.
  for (const error of [new s3.NoSuchKey(why), new s3.NotFound(why), new Error("other")]) {
    assert.equal(findDeleted(error, stack), undefined);
  }
});

const FILES = [
  ...["a.auto.tfvars", "default.tfvars", "demo.tfvars", "local--demo.tfvars", "local-prod.tfvars"],
  ...["local.tfvars", "main.tf", "prod.tfvars", "terraform.tfvars", "test.tfvars.json"],
];

Deno.test("sourcesOf() reads an environment's files, and says which", () => {
  const automatic = "a.auto.tfvars, terraform.tfvars";
  const onAws = `Variables: TF_VAR_x, ${automatic}`;
  const unread = `; for AWS, not read here: ${automatic}`;
  const cases: [workspace: string, files: string[], line: string][] = [
    ["default", ["default.tfvars"], `${onAws}, default.tfvars`],
    ["prod", ["prod.tfvars"], `${onAws}, prod.tfvars`],
    ["other", [], onAws],
    ["terraform", [], onAws],
    ["local", ["local.tfvars"], "Variables: local.tfvars"],
    [
      "local-prod",
      ["prod.tfvars", "local-prod.tfvars"],
      "Variables: prod.tfvars, local-prod.tfvars",
    ],
    ["local-test", ["test.tfvars.json"], "Variables: test.tfvars.json"],
    ["local-terraform", [], "Variables: all at their defaults"],
    ["local--demo", [], "Variables: all at their defaults"],
  ];
  for (const [workspace, files, words] of cases) {
    const line = workspace.startsWith("local") ? words + unread : words;
    assert.deepEqual(sourcesOf(workspace, FILES, ["HOME", "TF_VAR_x"]), { files, line });
  }
  const none = { files: [], line: "Variables: all at their defaults" };
  for (const workspace of ["default", "local"]) {
    assert.deepEqual(sourcesOf(workspace, [], []), none);
  }
});

Deno.test("ownFolder() has what Terraform reads, as it is now, and a local backend", async () => {
  const module = join(ROOT, "deno-task-test-module");
  const namesNow = async () => {
    const folder = await ownFolder();
    const override = await Deno.readTextFile(join(folder, "zz_local_override.tf"));
    assert.match(override, /^ {2}backend "local" \{\}$/m);
    return await namesIn(join(folder, "deno-task-test-module"));
  };
  await Deno.mkdir(module, { recursive: true });
  try {
    for (const name of ["main.tf", "team.tf.json", "notes.md", "for_aws.auto.tfvars"]) {
      await Deno.writeTextFile(join(module, name), "");
    }
    await Deno.symlink("me@host.1", join(module, ".#main.tf")); // as Emacs marks a file that is edited
    assert.deepEqual(await namesNow(), ["main.tf", "team.tf.json"]);
    await Deno.remove(join(module, "team.tf.json"));
    assert.deepEqual(await namesNow(), ["main.tf"]);
  } finally {
    await Deno.remove(module, { recursive: true });
    assert.deepEqual(await namesNow(), []);
  }
});
