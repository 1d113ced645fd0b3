/**
 * An end-to-end test: the whole pipeline on a stand-in of its own, as its users run it, by `deno task`
 * and by plain Terraform. Each step goes on from where the last one ended. It needs every permission,
 * Terraform, Python and some minutes. The tests are files of their own, so that they can run side by
 * side: to enter a stand-in is to replace the process's environment.
 *
 * To add a step, put its name and function into the table of its subject's file.
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { removeIfThere } from "../tasks/files.ts";
import { ROOT } from "../tasks/shell.ts";
import { enterStandIn, stopStandIn } from "../tasks/stand_in.ts";
import { targetOf } from "../tasks/target.ts";
import { type Pipeline, type Steps } from "./pipeline_context.ts";

interface Options {
  /** The stand-in's environment that is the test's own. */
  env: string;
  /** The value of project_name; main.tf's own by default. */
  project?: string;
}

/** What a test does with its pipeline. */
interface Run {
  pipeline: Pipeline;
  /** Makes this process enter the pipeline's stand-in, and returns its certificate (PEM). */
  enter(): Promise<string>;
  /** Runs steps in order. */
  steps<Context>(steps: Steps<Context>, context: Context): Promise<void>;
}

/** Defines a test with an environment and another clone of its own, of which nothing is left. */
export function endToEndTest(
  name: string,
  { env, project = "file-metadata" }: Options,
  work: (run: Run) => Promise<void>,
): void {
  Deno.test(`${name}, end to end on the stand-in`, async (t) => {
    const target = targetOf({ env, local: true });
    const variables = join(ROOT, `${target.workspace}.tfvars`);
    const cleanUp = async () => {
      await stopStandIn(target.workspace);
      await removeIfThere(variables);
    };
    await cleanUp(); // of a run that was killed
    await using held = new AsyncDisposableStack();
    held.defer(cleanUp);
    await Deno.writeTextFile(variables, `project_name = "${project}"\n`);
    const shell = Deno.env.toObject(); // before the stand-in's environment replaces it
    const clone = await Deno.makeTempDir({ prefix: "ä b%20#1 " });
    held.defer(() => Deno.remove(clone, { recursive: true }));
    await copyAsWindowsClone(clone);
    const pipeline = { shell, target, variables, project, clone };

    await using entered = new AsyncDisposableStack();
    const enter = async () => {
      const standIn = (await enterStandIn(target.workspace, "start"))!;
      entered.defer(standIn.leave);
      return standIn.ca;
    };
    await work({ pipeline, enter, steps: (steps, context) => runSteps(t, steps, context) });
    await entered.disposeAsync();
    assert.deepEqual(Deno.env.toObject(), shell);
  });
}

async function runSteps<Context>(t: Deno.TestContext, steps: Steps<Context>, context: Context) {
  for (const [name, step] of Object.entries(steps)) {
    await t.step(name, async (t) => {
      try {
        await step(context, t);
      } catch (error) {
        console.error(error); // now, as Deno tells it minutes later
        throw error;
      }
    });
  }
}

/** The project's files, as git on Windows may write them. */
async function copyAsWindowsClone(folder: string): Promise<void> {
  for (const part of [".", "dev", "docs", "function", "tasks", "tests"]) {
    await Deno.mkdir(join(folder, part), { recursive: true });
    for await (const { name, isFile } of Deno.readDir(join(ROOT, part))) {
      if (!isFile || /\.tfvars$|^terraform\.tfstate/.test(name)) continue;
      const text = await Deno.readTextFile(join(ROOT, part, name));
      await Deno.writeTextFile(join(folder, part, name), text.replace(/\r?\n/g, "\r\n"));
    }
  }
}
