/**
 * The whole pipeline on the stand-in, as its users run it: by `deno task` and by plain Terraform,
 * with a workspace and a stand-in of the test's own. Each step goes on from where the last one
 * ended. It needs every permission, Terraform, Python and some minutes.
 *
 * To add a step, put its name and function into the table of its subject's file.
 */

import { join } from "node:path";
import { permittedTest } from "./fixtures.ts";
import type { Deployed, Steps } from "./pipeline_context.ts";

permittedTest("the pipeline, end to end on the stand-in", async (t) => {
  // Imported here: the SDK reads the environment, which plain `deno test` may not.
  const { KILLED_ENVIRONMENT, openDeployed, processesOf, taskIn, VARIABLES, WORKSPACE } =
    await import("./pipeline_context.ts");
  const { copyAsWindowsClone, DEPLOY, DEPLOY_TWICE, runOtherTools } = await import(
    "./pipeline_deploy.ts"
  );
  const { lateProxy } = await import("./pipeline_interrupted.ts");
  const { enterStandIn, stopStandIn } = await import("../tasks/stand_in.ts");
  const { removeIfThere } = await import("../tasks/files.ts");
  const { ROOT } = await import("../tasks/shell.ts");

  const cleanUp = async () => {
    await stopStandIn(WORKSPACE);
    await removeIfThere(VARIABLES);
  };
  await cleanUp(); // of a run that was killed
  await using resources = new AsyncDisposableStack();
  resources.defer(cleanUp);
  const shell = Deno.env.toObject(); // before the stand-in's environment replaces it
  const clone = await Deno.makeTempDir({ prefix: "ä b%20#1 " });
  resources.defer(() => Deno.remove(clone, { recursive: true }));
  await copyAsWindowsClone(clone);
  resources.defer(async () => void await taskIn(clone, shell, "destroy", ...KILLED_ENVIRONMENT));
  const standIns = async () =>
    (await processesOf(join(ROOT, ".local", "venv"))).filter((line) =>
      line.endsWith(` ${WORKSPACE}`)
    );
  const standInsBefore = await standIns();
  const otherTools = runOtherTools(shell, clone);
  otherTools.catch(() => {}); // the step that awaits it tells
  const hostileShell = hostile(shell);
  const pipeline = { shell, hostileShell, clone, standIns, standInsBefore, otherTools };

  await runSteps(t, DEPLOY, pipeline);
  const standIn = await enterStandIn(WORKSPACE, "find");
  if (standIn === undefined) throw new Error("The stand-in does not run: deploying failed");
  try {
    using late = lateProxy(Number(new URL(Deno.env.get("AWS_ENDPOINT_URL")!).port));
    const deployed = await openDeployed(pipeline, standIn.ca, late);
    for (const steps of await stepsOfStack(DEPLOY_TWICE)) await runSteps(t, steps, deployed);
  } finally {
    await standIn.leave();
  }
  const { LEFT } = await import("./pipeline_destroy.ts");
  await runSteps(t, LEFT, pipeline);
});

/** What is tried on the deployed stack, in order. */
async function stepsOfStack(twice: Steps<Deployed>): Promise<Steps<Deployed>[]> {
  const { PLAN } = await import("./pipeline_plan.ts");
  const { DEV } = await import("./pipeline_dev.ts");
  const { FAIL, OPERATE } = await import("./pipeline_operate.ts");
  const { INTERRUPTED, OWN_BACKEND } = await import("./pipeline_interrupted.ts");
  const { PERMISSIONS, CALLS } = await import("./pipeline_permissions.ts");
  const { LOSSES } = await import("./pipeline_losses.ts");
  const { ROWS, MANY_ROWS } = await import("./pipeline_rows.ts");
  const { DESTROY } = await import("./pipeline_destroy.ts");
  // Dev before the event that stays in the failure queue; plans before the keys of every kind, as the
  // stand-in fails a plan while one holds a control character.
  const first = [DEV, PLAN, FAIL, twice, INTERRUPTED, LOSSES, OWN_BACKEND, PERMISSIONS];
  return [...first, ROWS, CALLS, MANY_ROWS, OPERATE, DESTROY];
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
