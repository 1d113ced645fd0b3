/** Steps of the end-to-end tests: building, deploying, and what must not be deployed. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { TASKS } from "../tasks.ts";
import { namesIn } from "../tasks/files.ts";
import { ROOT } from "../tasks/shell.ts";
import type { Policy } from "../tasks/stand_in.ts";
import { pullState } from "../tasks/terraform.ts";
import type { Report } from "../tasks/verify.ts";
import { read } from "./fixtures.ts";
import {
  type Deployed,
  interruptedTask,
  optionsOf,
  type Pipeline,
  standInsOf,
  type Steps,
  task,
  taskIn,
} from "./pipeline.ts";
import { runTask } from "./run_task.ts";

/** By a type of resource: the action without which AWS does not answer its tags. */
const READS_TAGS: Record<string, string> = {
  aws_cloudwatch_log_group: "logs:ListTagsForResource",
  aws_cloudwatch_metric_alarm: "cloudwatch:ListTagsForResource",
  aws_dynamodb_table: "dynamodb:ListTagsOfResource",
  aws_iam_role: "iam:GetRole",
  aws_lambda_function: "lambda:ListTags",
  aws_s3_bucket: "s3:GetBucketTagging",
  aws_sqs_queue: "sqs:ListQueueTags",
};

/** Before anything is deployed. */
export const BUILT: Steps<Pipeline> = {
  "Ctrl-C while the stand-in starts leaves no process": async (pipeline) => {
    const starting = /Starting the local/;
    const { code, stderr } = await interruptedTask(pipeline, starting, "deploy", "--yes");
    assert.equal(code, 130);
    const goesOn = `Interrupted: deno task deploy${pipeline.target.flags} --yes goes on`;
    assert.match(stderr, new RegExp(goesOn));
    assert.deepEqual(await standInsOf(pipeline.target), []);
  },

  "the zip has the same bytes in any time zone, umask and folder": async ({ shell, clone }) => {
    const hashes = [];
    const cases = [
      [ROOT, "America/Los_Angeles", 0o077],
      [ROOT, "Asia/Tokyo", 0o000],
      [clone, "UTC", 0o022],
    ] as const;
    for (const [folder, TZ, umask] of cases) {
      const before = Deno.umask(umask);
      try {
        hashes.push((await taskIn(folder, { ...shell, TZ }, "build")).stdout);
      } finally {
        Deno.umask(before);
      }
    }
    assert.match(hashes[0], /^build\/lambda.zip {2}\d+ bytes {2}SHA-256 \S+\n$/);
    assert.deepEqual(hashes.slice(1), [hashes[0], hashes[0]]);
    const zip = await Deno.readFile(join(ROOT, "build", "lambda.zip"));
    assert.equal(zipEntryMode(zip), 0o644);
  },
};

export const DEPLOY: Steps<Pipeline> = {
  "deploy makes everything, whatever is set in the shell": async (pipeline) => {
    const { shell, target, project } = pipeline;
    const deploy = await task({ ...pipeline, shell: hostile(shell) }, "deploy", "--yes");
    assert.equal(deploy.code, 0, deploy.stderr);
    const name = `^s3_bucket_name = ${project}-${target.workspace}-[0-9a-f]{10}$`;
    assert.match(deploy.stdout, new RegExp(name, "m"));
    const where = `Account 123456789012, region us-east-1, environment ${target.workspace}`;
    assert.ok(deploy.stderr.includes(where), deploy.stderr);
  },
};

export const VERIFY: Steps<Pipeline> = {
  "F1 F2 verify finds every file's row, exact": async (pipeline) => {
    const { shell } = pipeline;
    const verify = await task({ ...pipeline, shell: hostile(shell) }, "verify", "--json");
    assert.equal(verify.code, 0, verify.stdout + verify.stderr);
    const report: Report = JSON.parse(verify.stdout);
    assert.deepEqual(report.problems, []);
    assert.equal(report.files.length, 8);
    assert.ok(report.files.every(({ row, rowAfterMs }) => row?.sequencer && rowAfterMs! >= 0));
    assert.deepEqual(report.failureQueue, { before: 0, after: 0 });
  },
};

export const SHELL: Steps<Deployed> = {
  "the shell, and the command that help shows, reach the stand-in": async (deployed) => {
    const { shell, target, bucket, root: { outputs } } = deployed;
    const example = TASKS.shell.words!.says.replace("for example:", "");
    for (const words of ["", example]) {
      const task = ["shell", ...optionsOf(target), ...words.trim().split(" ").filter(Boolean)];
      const { code, stdout, stderr } = await runTask(task, shell);
      assert.equal(code, 0, stderr);
      const names = `^Bucket ${bucket}, table ${outputs.dynamodb_table_name}$`;
      assert.match(stderr, new RegExp(names, "m"));
      if (words.includes("terraform output")) {
        assert.match(stdout, new RegExp(` "${bucket}"$`, "m"));
      }
    }
    // What Terraform keeps of it is where no backend of the user's looks.
    const workspaces = await namesIn(join(ROOT, "terraform.tfstate.d"));
    assert.equal(workspaces.includes(target.workspace), false);
  },
};

export const TAGS: Steps<Deployed> = {
  "every resource has its tags, and the deployer may read them": async ({ target, project }) => {
    const policy: Policy = JSON.parse(await read("docs/deployer_policy.json"));
    const allowed = policy.Statement.flatMap(({ Action }) => Action);
    const { resources } = await pullState(target.workspace);
    const tagged = resources.filter(({ attributes }) => "tags_all" in attributes);
    const types = new Set(tagged.map(({ address }) => address.split(".")[0]));
    assert.deepEqual([...types].sort(), Object.keys(READS_TAGS));
    assert.deepEqual(Object.values(READS_TAGS).filter((action) => !allowed.includes(action)), []);
    const tags = { Project: project, Environment: target.workspace, ManagedBy: "terraform" };
    for (const { address, attributes } of tagged) {
      assert.deepEqual(attributes.tags_all, tags, address);
    }
  },
};

/** The Unix mode of a zip's first entry, from its central directory. */
function zipEntryMode(zip: Uint8Array): number {
  const view = new DataView(zip.buffer);
  const end = zip.length - 22; // the record that ends a zip without a comment
  assert.equal(view.getUint32(end, true), 0x06054b50);
  const entry = view.getUint32(end + 16, true);
  return view.getUint32(entry + 38, true) >>> 16;
}

/** A shell with settings that must not get in; environment_test.ts has more of them. */
function hostile(shell: Record<string, string>): Record<string, string> {
  return {
    ...shell,
    AWS_PROFILE: "somebody",
    AWS_ENDPOINT_URL_S3: "https://127.0.0.1:1",
    AWS_REGION: "eu-west-3",
    HTTPS_PROXY: "http://127.0.0.1:1",
    TF_WORKSPACE: "prod",
    TF_VAR_aws_region: "eu-west-3",
    TF_CLI_ARGS: "-no-such-option",
    LD_LIBRARY_PATH: "/nowhere", // of CUDA, conda or Nix: it stays, and Deno runs programs with it
  };
}
