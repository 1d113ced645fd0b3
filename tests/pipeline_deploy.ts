/** Steps of the end-to-end tests: what is refused before anything is made, and deploying. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { TASKS } from "../tasks.ts";
import { zipOf } from "../tasks/build.ts";
import { namesIn } from "../tasks/files.ts";
import { updateCode } from "../tasks/invoke.ts";
import { ROOT } from "../tasks/shell.ts";
import type { Report } from "../tasks/verify.ts";
import { read } from "./fixtures.ts";
import {
  type Deployed,
  failedMessage,
  interruptedTask,
  optionsOf,
  type Pipeline,
  plainTerraform,
  RESOURCES,
  standInsOf,
  type Steps,
  task,
  taskIn,
  withoutAws,
} from "./pipeline_context.ts";
import { type Ended, runTask } from "./run_task.ts";
import { removeOtherBucket } from "./pipeline_losses.ts";

/** Without a stand-in that runs. */
export const REFUSED: Steps<Pipeline> = {
  "verify and destroy say that nothing is deployed": async (pipeline) => {
    const sentence = /Nothing is deployed on the stand-in in environment deno-task-test/;
    const verify = await task(pipeline, "verify");
    assert.equal(verify.code, 1);
    assert.match(verify.stderr, sentence);
    assert.match(verify.stderr, /: run /);
    const destroy = await task(pipeline, "destroy", "--yes");
    assert.equal(destroy.code, 0);
    assert.match(destroy.stderr, sentence);
  },

  "without credentials one sentence says so, soon": async ({ shell }) => {
    // A metadata service that accepts and never answers, as behind a container's hop limit.
    using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const env = {
      ...withoutAws(shell),
      AWS_EC2_METADATA_SERVICE_ENDPOINT: `http://127.0.0.1:${silent.addr.port}`,
    };
    const startMs = performance.now();
    const { code, stderr } = await taskIn(ROOT, env, "deploy", "--env", "nobody", "--yes");
    assert.equal(code, 1);
    const sentence = /No AWS credentials found .*\n.* --http-put-response-hop-limit 2 .*$/;
    assert.match(stderr.trimEnd(), sentence);
    assert.ok(performance.now() - startMs < 60_000);
  },

  "Ctrl-C while the stand-in starts leaves no process": async (pipeline) => {
    const { code, stderr } = await interruptedTask(
      pipeline,
      /Starting the local/,
      "deploy",
      "--yes",
    );
    assert.equal(code, 130);
    const goesOn = `Interrupted: deno task deploy${pipeline.target.flags} --yes goes on`;
    assert.match(stderr, new RegExp(goesOn));
    assert.deepEqual(await standInsOf(pipeline.target), pipeline.standInsBefore);
  },
};

/** Before anything is deployed. */
export const BUILT: Steps<Pipeline> = {
  "a region that is none is refused at plan": async (pipeline) => {
    const { variables, project } = pipeline;
    await Deno.writeTextFile(variables, 'aws_region = "eu-nowhere-9"');
    const plan = await task(pipeline, "plan");
    assert.equal(plan.code, 1);
    const last = plan.stderr.trimEnd().split("\n").at(-1)!;
    assert.match(
      last,
      /^terraform plan failed: the aws provider here knows no such region; correct/,
    );
    await Deno.writeTextFile(variables, `project_name = "${project}"\n`);
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
    const name = new RegExp(
      `^s3_bucket_name = ${project}-${target.workspace}-[0-9a-f]{10}$`,
      "m",
    );
    assert.match(deploy.stdout, name);
    const where = `Account 123456789012, region us-east-1, environment ${target.workspace}`;
    assert.ok(deploy.stderr.includes(where), deploy.stderr);
    assert.match(deploy.stderr, /^The stack is younger than 15 minutes, in which S3 may .* 404/m);
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
    assert.ok(report.files.every(({ checks, rowAfterMs }) => checks >= 12 && rowAfterMs! >= 0));
    assert.deepEqual(report.failureQueue, { before: 0, after: 0 });
  },
};

export const SHELL: Steps<Deployed> = {
  "README's shell, and the command that help shows, reach the stand-in": async (deployed) => {
    const { shell, target, bucket, root: { outputs } } = deployed;
    const examples = [
      ...(await read("README.md")).matchAll(/^deno task shell --local(.*?)( +#.*)?$/gm),
    ]
      .map(([, words]) => words);
    assert.ok(examples.length > 0);
    for (const words of [...examples, TASKS.shell.words!.says.replace("for example:", "")]) {
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
    assert.equal(
      (await namesIn(join(ROOT, "terraform.tfstate.d"))).includes(target.workspace),
      false,
    );
  },
};

/** A stack, whose twin plain Terraform applies meanwhile in the other clone. */
interface WithTwin extends Deployed {
  twin: Promise<Ended>;
}

/** Begins to deploy the stack's twin. */
export function deployTwin(deployed: Deployed): WithTwin {
  const twin = plainTerraform(deployed, ["apply", "-input=false", "-auto-approve"]);
  twin.catch(() => {}); // the step that awaits it tells
  return { ...deployed, twin };
}

/** Two stacks with the same variables, and two deploys of one. */
const NOT_DEPLOYED = "the function runs code that was not deployed";

export const DEPLOY_TWICE: Steps<WithTwin> = {
  "two clones with the same variables live side by side": async (deployed) => {
    const applied = await deployed.twin;
    assert.equal(applied.code, 0, applied.stderr);
    const output = await plainTerraform(deployed, ["output", "-raw", "s3_bucket_name"]);
    const { project, target } = deployed;
    assert.match(output.stdout, new RegExp(`^${project}-${target.workspace}-[0-9a-f]{10}$`));
    assert.notEqual(output.stdout, deployed.bucket);

    const gone = await removeOtherBucket(deployed, output.stdout);
    const destroyed = await plainTerraform(deployed, ["destroy", "-auto-approve"]);
    assert.equal(destroyed.code, 0, destroyed.stderr);
    assert.match(destroyed.stdout, new RegExp(`Resources: ${RESOURCES + 2 - gone} destroyed`));
    assert.ok(await failedMessage(deployed));
  },

  "code that was left by a dev that was killed is named by status": async (deployed) => {
    await updateCode(deployed.root, zipOf(new TextEncoder().encode("left")));
    const { code, stdout } = await task(deployed, "status");
    assert.equal(code, 1);
    assert.match(stdout, new RegExp(`^WRONG: since \\S+ ${NOT_DEPLOYED}.* puts it right$`, "m"));
  },

  "deploy puts that right, and a replay waits meanwhile": async (deployed) => {
    let replay: Promise<Ended> | undefined;
    const deploy = await runTask(
      ["deploy", ...optionsOf(deployed.target), "--yes"],
      deployed.shell,
      {
        onStderr: (text) => {
          if (/\$ terraform .*plan /.test(text)) {
            replay ??= task(deployed, "replay", "--dry-run");
          }
        },
      },
    );
    assert.equal(deploy.code, 0, deploy.stderr);
    assert.match(deploy.stderr, new RegExp(`^Note: since \\S+ ${NOT_DEPLOYED}`, "m"));
    // Its role was deleted by hand.
    assert.match(deploy.stderr, /^aws_lambda_function\.metadata: Creation complete/m);
    const { code, stderr } = await replay!;
    assert.equal(code, 0, stderr);
    const waits = /Waiting for another task on this environment: deploy --local .*, process \d+/;
    assert.match(stderr, waits);
    // The other clone's destroy and these changes left the stack whole.
    const verify = await task(deployed, "verify");
    assert.equal(verify.code, 0, verify.stdout + verify.stderr);
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

/** A shell full of settings that must not get in. */
function hostile(shell: Record<string, string>): Record<string, string> {
  return {
    ...shell,
    AWS_PROFILE: "somebody",
    AWS_ENDPOINT_URL_S3: "https://127.0.0.1:1",
    AWS_EC2_METADATA_DISABLED: "true",
    AWS_REGION: "eu-west-3",
    HTTPS_PROXY: "http://127.0.0.1:1",
    TF_WORKSPACE: "prod",
    TF_VAR_environment: "prod",
    TF_VAR_aws_region: "eu-west-3",
    TF_CLI_ARGS_plan: "-destroy",
    TF_CLI_ARGS: "-no-such-option",
  };
}
