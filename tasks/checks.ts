/** Checks: what `deno task test` runs. */

import { writeZip } from "./build.ts";
import { run, type RunOptions } from "./shell.ts";
import { stopStandIns } from "./stand_in.ts";
import { readyTerraform } from "./target.ts";
import { copyFor } from "./terraform.ts";
import { makeTools, requirePrograms } from "./tools.ts";
import { writeDefaults } from "./variables.ts";

/**
 * Packages that only tests need are in a lock file of their own: a task fetches all that is in
 * deno.lock. The tests that need them are not named as tests, so that a plain `deno test` passes by.
 */
const OF_TESTS = "--lock=tests/deno.lock";
const PIPELINE = "tests/pipeline.ts";
const PROPERTIES = ["tests/properties.ts", "tests/rows_properties.ts"];
export const TESTS_WITH_PACKAGES = [PIPELINE, ...PROPERTIES];

/** The tests' stand-ins are in workspaces that begin so. */
const TEST_WORKSPACES = "local-deno-task-test";

/** Every check, then every test. */
export async function checkAll(): Promise<void> {
  await requirePrograms({ standIn: true });
  await readyTerraform(TEST_WORKSPACES);
  await makeTools(); // now, as two would make them below
  // Terraform's provider starts a hundred times, and spends 40 % of that on collecting garbage.
  Deno.env.set("GOGC", "off");
  Deno.env.set("GOMEMLIMIT", "1GiB");
  try {
    await runDeno(["fmt", "--check"]);
    await runDeno(["lint"]);
    await run("terraform", ["fmt", "-check", "-diff", ".", "docs", "tests"]);
    await writeZip();
    await together([runDeno(["check", OF_TESTS]), testTerraform()]);
    // A deploy mostly waits; the pipeline's bursts of events come when the other tests have ended.
    await together([
      runDeno(["test", "--allow-all", OF_TESTS, PIPELINE]),
      runDeno(["test", "--allow-all", OF_TESTS, ".", ...PROPERTIES], { output: "atEnd" }),
    ]);
  } finally {
    await stopStandIns(TEST_WORKSPACES);
  }
}

function runDeno(args: string[], options?: RunOptions): Promise<unknown> {
  return run(Deno.execPath(), args, options);
}

async function testTerraform(): Promise<void> {
  const files = [await writeDefaults(), "docs/hardened.tfvars"].map((file) => `-var-file=${file}`);
  const copy = await copyFor(TEST_WORKSPACES);
  const env = { TF_WORKSPACE: "default", ...copy?.env };
  for (const args of [["validate"], ["test", ...files]]) {
    await run("terraform", [...copy?.args ?? [], ...args], { env, output: "atEnd" });
  }
}

/** Waits for all, then throws the first failure. */
async function together(all: Promise<unknown>[]): Promise<void> {
  await Promise.allSettled(all);
  await Promise.all(all);
}
