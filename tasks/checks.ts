/** Checks: what `deno task test` runs. */

import { writeZip } from "./build.ts";
import { run, type RunOptions } from "./shell.ts";
import { stopStandIns } from "./stand_in.ts";
import { readyTerraform } from "./target.ts";
import { withProgress } from "./terminal.ts";
import { outputs } from "./terraform.ts";
import { makeTools, requirePrograms } from "./tools.ts";

/**
 * Packages that only tests need are in a lock file of their own: a task fetches all that is in
 * deno.lock. The tests that need them are not named as tests, so that a plain `deno test` passes by.
 */
const OF_TESTS = "--lock=tests/deno.lock";
const PROPERTIES = ["tests/properties.ts", "tests/one_row_properties.ts"];

/** Terraform's own tests: they run before the others, as they need as much memory as a pipeline. */
const OF_TERRAFORM = "tests/terraform_test.ts";

/** End-to-end tests by what they are about. A deploy mostly waits, so they run side by side. */
const END_TO_END = ["rows", "changes", "clone"].map((about) => `tests/end_to_end_${about}.ts`);

export const TESTS_WITH_PACKAGES = [...END_TO_END, ...PROPERTIES];

/** The tests' stand-ins are in workspaces that begin so. */
const TEST_WORKSPACES = "local-deno-task-test";

/** Every check, and every test. */
export async function checkAll(): Promise<void> {
  await requirePrograms({ standIn: true });
  await readyTerraform(TEST_WORKSPACES);
  await outputs(TEST_WORKSPACES); // initialises anew what is out of date, as two tests would at once
  // Terraform and its provider start a hundred times, and spend 30 % of that on collecting garbage:
  // they need some 130 MB each.
  Deno.env.set("GOGC", "off");
  Deno.env.set("GOMEMLIMIT", "140MiB");
  try {
    // The tools, too.
    await together([makeTools(), checkFirst()]);
    const tests = [...END_TO_END.map((file) => [file]), [".", `--ignore=${OF_TERRAFORM}`]];
    await withProgress(
      "Running every test; the output of each run comes at its end",
      together(tests.map(runTests)),
    );
  } finally {
    await stopStandIns(TEST_WORKSPACES);
  }
}

/** What fails within half a minute, before the tests that take more. */
async function checkFirst(): Promise<void> {
  await runDeno(["fmt", "--check"]);
  await runDeno(["lint"]);
  await runDeno(["check", OF_TESTS]); // of all files at once, not of each test's again
  await run("terraform", ["fmt", "-check", "-diff", ".", "docs", "tests"]);
  await writeZip();
  await runTests([OF_TERRAFORM, ...PROPERTIES]);
}

function runTests(files: string[]): Promise<void> {
  return runDeno(["test", "--allow-all", "--no-check", OF_TESTS, ...files], { output: "atEnd" });
}

async function runDeno(args: string[], options?: RunOptions): Promise<void> {
  await run(Deno.execPath(), args, options);
}

/** Waits for all, then throws the first failure; the programs have shown what failed. */
async function together(all: Promise<unknown>[]): Promise<void> {
  for (const ended of await Promise.allSettled(all)) {
    if (ended.status === "rejected") throw ended.reason;
  }
}
