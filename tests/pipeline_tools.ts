/** Steps of the end-to-end tests: another clone of the project, and the stand-in's tools in it. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { ROOT, run } from "../tasks/shell.ts";
import { targetOf } from "../tasks/target.ts";
import { optionsOf, type Pipeline, RESOURCES, type Steps, taskIn } from "./pipeline_context.ts";

/** Where a stand-in is that is killed, and the options that name it. */
const KILLED = targetOf({ env: "deno-task-test-killed", local: true });
export const KILLED_ENVIRONMENT = optionsOf(KILLED);

const S3 = { bucket: "b", key: "k", region: "us-east-1" };

/** Files in which a state is said to be elsewhere. */
const BACKENDS = {
  "backend.tf.json": JSON.stringify({ terraform: { backend: { s3: S3 } } }),
  "backend.tf": 'terraform {\n  backend "s3" {}\n}\n',
  "team.tf": 'terraform {\n  required_version = "~> 1.9"\n  backend "http" { address = "x" }\n}\n',
  "cloud.tf":
    'terraform {\n  cloud {\n    organization = "us"\n    workspaces { name = "w" }\n  }\n}\n',
};

export const TOOLS: Steps<Pipeline> = {
  "a half-made virtual environment is made again": async ({ shell, clone }) => {
    const venv = join(clone, ".local", "venv");
    await run("python3", ["-m", "venv", "--without-pip", venv], { quiet: true });
    const plan = await taskIn(clone, shell, "plan", ...KILLED_ENVIRONMENT);
    assert.equal(plan.code, 0, plan.stderr);
    assert.match(plan.stderr, /Installing MiniStack and Node/);
    assert.match(plan.stderr, new RegExp(`: ${RESOURCES + 2} to add, 0 to change, 0 to destroy`));
  },

  "a backend of the user's own does not concern the stand-in": async ({ shell, clone }) => {
    for (const [name, text] of Object.entries(BACKENDS)) {
      await Deno.writeTextFile(join(clone, name), text);
      const { code, stderr } = await taskIn(clone, shell, "status", ...KILLED_ENVIRONMENT);
      assert.equal(code, 2);
      assert.match(stderr, /^Nothing is deployed on the stand-in in environment /, name);
      await Deno.remove(join(clone, name));
    }
  },

  "a backend without its settings is told how to get them": async ({ shell, clone }) => {
    const file = join(clone, "backend.tf");
    await Deno.writeTextFile(file, BACKENDS["backend.tf"]);
    const { code, stderr } = await taskIn(clone, shell, "status");
    assert.equal(code, 2);
    assert.match(stderr, /^terraform init failed: .* terraform init -backend-config=FILE, /m);
    await Deno.remove(file);
  },

  "a killed stand-in is cleared away by destroy, and by no look": async (
    { shell, clone },
  ) => {
    const running = join(clone, ".local", KILLED.workspace, "running.json");
    const { pid } = JSON.parse(await Deno.readTextFile(running));
    Deno.kill(-pid, "SIGKILL");
    const folder = join(clone, ".local", KILLED.workspace);
    const verify = await taskIn(clone, shell, "verify", ...KILLED_ENVIRONMENT);
    assert.equal(verify.code, 1);
    const ended = new RegExp(
      `^The local stand-in, process ${pid}, has ended, and all .* lost$`,
      "m",
    );
    assert.match(verify.stderr, ended);
    assert.match(verify.stderr, /^Nothing is deployed/m);
    await Deno.stat(folder);
    const destroy = await taskIn(clone, shell, "destroy", ...KILLED_ENVIRONMENT);
    assert.equal(destroy.code, 0);
    assert.match(destroy.stderr, ended);
    await assert.rejects(Deno.stat(folder), Deno.errors.NotFound);
  },
};

/** Ends the stand-in of {@link KILLED_ENVIRONMENT} where a failed step left it. */
export async function endKilled({ shell, clone }: Pipeline): Promise<void> {
  await taskIn(clone, shell, "destroy", ...KILLED_ENVIRONMENT);
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
