/** Steps of the end-to-end test: what is refused before anything is made, and deploying. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { ROOT, run } from "../tasks/shell.ts";
import type { Report } from "../tasks/verify.ts";
import {
  type Deployed,
  ENVIRONMENT,
  failedMessage,
  interruptedTask,
  KILLED_ENVIRONMENT,
  KILLED_WORKSPACE,
  LONGEST_PROJECT,
  type Pipeline,
  plainTerraform,
  RESOURCES,
  type Steps,
  task,
  taskIn,
  VARIABLES,
} from "./pipeline_context.ts";
import { type Ended, runTask } from "./run_task.ts";
import { removeOtherBucket } from "./pipeline_losses.ts";

/** Up to a stack that works. */
export const DEPLOY: Steps<Pipeline> = {
  "verify and destroy say that nothing is deployed": async ({ shell }) => {
    const sentence = /Nothing is deployed on the stand-in in environment deno-task-test/;
    const verify = await task(shell, "verify");
    assert.equal(verify.code, 1);
    assert.match(verify.stderr, sentence);
    assert.match(verify.stderr, /: run /);
    const destroy = await task(shell, "destroy", "--yes");
    assert.equal(destroy.code, 0);
    assert.match(destroy.stderr, sentence);
  },

  "Ctrl-C while the stand-in starts leaves no process": async (pipeline) => {
    const start = /Starting the local/;
    const { code, stderr } = await interruptedTask(pipeline.shell, start, "deploy", "--yes");
    assert.equal(code, 130);
    assert.match(
      stderr,
      /Interrupted: deno task deploy --local --env deno-task-test --yes goes on/,
    );
    assert.deepEqual(await pipeline.standIns(), pipeline.standInsBefore);
  },

  "a region that is none is refused at plan": async ({ shell }) => {
    await Deno.writeTextFile(VARIABLES, 'aws_region = "eu-nowhere-9"');
    const plan = await task(shell, "plan");
    assert.equal(plan.code, 1);
    const last = plan.stderr.trimEnd().split("\n").at(-1)!;
    assert.match(
      last,
      /^terraform plan failed: the aws provider here knows no such region; correct/,
    );
    await Deno.writeTextFile(VARIABLES, `project_name = "${LONGEST_PROJECT}"\n`);
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
  "deploy makes everything, whatever is set in the shell": async ({ hostileShell }) => {
    const deploy = await task(hostileShell, "deploy", "--yes");
    assert.equal(deploy.code, 0, deploy.stderr);
    const name = new RegExp(
      `^s3_bucket_name = ${LONGEST_PROJECT}-local-deno-task-test-[0-9a-f]{10}$`,
      "m",
    );
    assert.match(deploy.stdout, name);
    assert.match(
      deploy.stderr,
      /Account 123456789012, region us-east-1, environment local-deno-task-test/,
    );
    assert.match(deploy.stderr, /^The stack is younger than 15 minutes, in which S3 may .* 404/m);
  },

  "a half-made virtual environment is made again": async ({ otherTools }) => {
    const { plan } = await otherTools;
    assert.equal(plan.code, 0, plan.stderr);
    assert.match(plan.stderr, /Installing MiniStack and Node/);
    assert.match(plan.stderr, new RegExp(`: ${RESOURCES + 1} to add, 0 to change, 0 to destroy`));
  },

  "a killed stand-in is cleared away, with the state of what it held": async ({ otherTools }) => {
    const { verify, state } = await otherTools;
    assert.equal(verify.code, 1);
    assert.match(verify.stderr, /was killed or does not answer: it is cleared away/);
    assert.match(verify.stderr, /its Terraform state is removed/);
    assert.match(verify.stderr, /Nothing is deployed/);
    await assert.rejects(Deno.stat(state), Deno.errors.NotFound);
  },

  "F1 F2 verify finds every file's row, exact": async ({ hostileShell }) => {
    const verify = await task(hostileShell, "verify", "--json");
    assert.equal(verify.code, 0, verify.stdout + verify.stderr);
    const report: Report = JSON.parse(verify.stdout);
    assert.deepEqual(report.problems, []);
    assert.equal(report.files.length, 8);
    assert.ok(report.files.every(({ checks, rowAfterMs }) => checks >= 12 && rowAfterMs! >= 0));
    assert.deepEqual(report.failureQueue, { before: 0, after: 0 });
  },
};

/** Two stacks with the same variables, and two deploys of one. */
export const DEPLOY_TWICE: Steps<Deployed> = {
  "two clones with the same variables live side by side": async (deployed) => {
    const applied = await deployed.otherApply;
    assert.equal(applied.code, 0, applied.stderr);
    const output = await plainTerraform(deployed, ["output", "-raw", "s3_bucket_name"]);
    assert.match(
      output.stdout,
      new RegExp(`^${LONGEST_PROJECT}-local-deno-task-test-[0-9a-f]{10}$`),
    );
    assert.notEqual(output.stdout, deployed.bucket);

    const gone = await removeOtherBucket(deployed, output.stdout);
    const destroyed = await plainTerraform(deployed, ["destroy", "-auto-approve"]);
    assert.equal(destroyed.code, 0, destroyed.stderr);
    assert.match(destroyed.stdout, new RegExp(`Resources: ${RESOURCES + 1 - gone} destroyed`));
    assert.ok(await failedMessage(deployed));
  },

  "a backfill waits while a deploy changes the stack": async ({ shell }) => {
    let backfill: Promise<Ended> | undefined;
    const deploy = await runTask(["deploy", ...ENVIRONMENT, "--yes"], shell, {
      onStderr: (text) => {
        if (/\$ terraform plan/.test(text)) backfill ??= task(shell, "backfill", "--dry-run");
      },
    });
    assert.equal(deploy.code, 0, deploy.stderr);
    const { code, stderr } = await backfill!;
    assert.equal(code, 0, stderr);
    const waits = /Waiting for another task on this environment: deploy --local .*, process \d+/;
    assert.match(stderr, waits);
    // The other clone's destroy and these changes left the stack whole.
    const verify = await task(shell, "verify");
    assert.equal(verify.code, 0, verify.stdout + verify.stderr);
  },
};

/**
 * A plan with a half-made virtual environment, then verify with a stand-in that was killed: in the
 * other clone, so that this one's tools stay, and beside this one's deploy, which mostly waits.
 */
export async function runOtherTools(shell: Record<string, string>, clone: string) {
  const venv = join(clone, ".local", "venv");
  await run("python3", ["-m", "venv", "--without-pip", venv], { quiet: true });
  const plan = await taskIn(clone, shell, "plan", ...KILLED_ENVIRONMENT);

  const running = join(clone, ".local", KILLED_WORKSPACE, "running.json");
  const { pid } = JSON.parse(await Deno.readTextFile(running));
  Deno.kill(-pid, "SIGKILL");
  const state = join(clone, "terraform.tfstate.d", KILLED_WORKSPACE);
  await Deno.mkdir(state, { recursive: true });
  const text = JSON.stringify({ version: 4, resources: [{ mode: "managed" }] }, null, 2);
  await Deno.writeTextFile(join(state, "terraform.tfstate"), text);
  const verify = await taskIn(clone, shell, "verify", ...KILLED_ENVIRONMENT);
  return { plan, verify, state };
}

/** The project's files, as git on Windows may write them. */
export async function copyAsWindowsClone(folder: string): Promise<void> {
  for (const part of [".", "dev", "docs", "function", "tasks", "tests"]) {
    await Deno.mkdir(join(folder, part), { recursive: true });
    for await (const { name, isFile } of Deno.readDir(join(ROOT, part))) {
      if (!isFile || /\.tfvars$|^terraform\.tfstate/.test(name)) continue;
      const text = await Deno.readTextFile(join(ROOT, part, name));
      await Deno.writeTextFile(join(folder, part, name), text.replace(/\r?\n/g, "\r\n"));
    }
  }
}

/** The Unix mode of a zip's first entry, from its central directory. */
function zipEntryMode(zip: Uint8Array): number {
  const view = new DataView(zip.buffer);
  const end = zip.length - 22; // the record that ends a zip without a comment
  assert.equal(view.getUint32(end, true), 0x06054b50);
  const entry = view.getUint32(end + 16, true);
  return view.getUint32(entry + 38, true) >>> 16;
}
