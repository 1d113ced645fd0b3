/** Steps of the end-to-end tests: another clone of the project, and the stand-in's tools in it. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { ROOT, run } from "../tasks/shell.ts";
import { targetOf } from "../tasks/target.ts";
import { optionsOf, type Pipeline, RESOURCES, type Steps, taskIn } from "./pipeline_context.ts";

/** Where a stand-in is that is killed, and the options that name it. */
const KILLED = targetOf({ env: "deno-task-test-killed", local: true });
export const KILLED_ENVIRONMENT = optionsOf(KILLED);

export const TOOLS: Steps<Pipeline> = {
  "a half-made virtual environment is made again": async ({ shell, clone }) => {
    const venv = join(clone, ".local", "venv");
    await run("python3", ["-m", "venv", "--without-pip", venv], { quiet: true });
    const plan = await taskIn(clone, shell, "plan", ...KILLED_ENVIRONMENT);
    assert.equal(plan.code, 0, plan.stderr);
    assert.match(plan.stderr, /Installing MiniStack and Node/);
    assert.match(plan.stderr, new RegExp(`: ${RESOURCES + 1} to add, 0 to change, 0 to destroy`));
  },

  "a killed stand-in is cleared away by destroy, with the state of what it held": async (
    { shell, clone },
  ) => {
    const running = join(clone, ".local", KILLED.workspace, "running.json");
    const { pid } = JSON.parse(await Deno.readTextFile(running));
    Deno.kill(-pid, "SIGKILL");
    const state = join(clone, "terraform.tfstate.d", KILLED.workspace);
    await Deno.mkdir(state, { recursive: true });
    const text = JSON.stringify({ version: 4, resources: [{ mode: "managed" }] }, null, 2);
    await Deno.writeTextFile(join(state, "terraform.tfstate"), text);

    const verify = await taskIn(clone, shell, "verify", ...KILLED_ENVIRONMENT);
    assert.equal(verify.code, 1);
    const ended = new RegExp(
      `^The local stand-in, process ${pid}, has ended, and all .* lost$`,
      "m",
    );
    assert.match(verify.stderr, ended);
    assert.match(verify.stderr, /^Nothing is deployed/m);
    await Deno.stat(state);
    const destroy = await taskIn(clone, shell, "destroy", ...KILLED_ENVIRONMENT);
    assert.equal(destroy.code, 0);
    assert.match(destroy.stderr, ended);
    await assert.rejects(Deno.stat(state), Deno.errors.NotFound);
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
