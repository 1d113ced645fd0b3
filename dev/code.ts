/** The function's code while dev runs: what is saved, and at the end what was deployed. */

import { GetFunctionCommand } from "@aws-sdk/client-lambda";
import { sha256Of, ZIP_URL } from "../tasks/build.ts";
import { denoTask } from "../tasks/commands.ts";
import { strayCode, updateCode } from "../tasks/invoke.ts";
import { lockWorkspace, type Stack, type Target } from "../tasks/target.ts";
import { confirm, say, visible } from "../tasks/terminal.ts";
import { deployedCode } from "../tasks/terraform.ts";
import { Loop, type Workshop } from "./loop.ts";
import { makeBuilder, makeWorkshop, watch } from "./workshop.ts";

/**
 * Says what running saved code means on AWS, and asks.
 *
 * @throws {UserError} the answer is not yes
 */
export async function confirmCode({ outputs }: Stack, { yes }: { yes: boolean }): Promise<void> {
  const { account_id, aws_region, environment, lambda_function_name } = outputs;
  say(
    `Account ${account_id}, region ${aws_region}, environment ${environment}: the function ` +
      `${lambda_function_name} will run what is saved in this folder, at once and after each save. ` +
      "Every upload to its bucket runs that, by whomever, until this ends",
  );
  if (!yes) await confirm("Run what is saved?");
}

/** Says so if the function runs code that was not deployed: another dev's, or a killed one's. */
export async function sayStray(stack: Stack, target: Target): Promise<void> {
  const { CodeSha256, LastModified = "" } = await readCode(stack);
  const deployedSha256 = await deployedCode(target.workspace);
  if (deployedSha256 === "" || CodeSha256 === deployedSha256) return;
  say(`Note: ${strayCode(LastModified)}; ${denoTask(target, "deploy")} puts it right`);
}

/** Runs what is saved in `folder` until it is ended, which puts the deployed code back. */
export async function runSaved(
  stack: Stack,
  target: Target,
  folder: string,
  show: Workshop["tell"],
): Promise<{ end(): Promise<void> }> {
  const { workspace } = target;
  const { CodeSha256 = "" } = await readCode(stack);
  const deployedSha256 = await deployedCode(workspace);
  const zip = await Deno.readFile(ZIP_URL).catch(() => undefined);
  const builder = await makeBuilder(folder);
  const workshop = makeWorkshop(stack, {
    workspace,
    folder,
    build: builder.build,
    tell: (code, sha256) => {
      show(code, sha256);
      if (code.state === "building") return;
      for (const line of code.typeErrors ?? code.text.split("\n")) say(visible(line));
    },
  });
  const isStray = deployedSha256 !== "" && CodeSha256 !== deployedSha256;
  const loop = new Loop(workshop, CodeSha256);
  const watching = watch(folder, () => loop.save());
  loop.save(); // what is saved already
  return {
    end: async () => {
      watching[Symbol.dispose]();
      await loop.end();
      if (loop.hasUpdated || isStray) {
        await putBack(stack, target, { sha256: deployedSha256, zip });
      }
      await builder.dispose();
    },
  };
}

async function readCode({ lambda, outputs }: Stack) {
  const command = new GetFunctionCommand({ FunctionName: outputs.lambda_function_name });
  return (await lambda.send(command)).Configuration ?? {};
}

/** Makes the function run what was deployed when dev began, or says what it runs instead. */
async function putBack(
  stack: Stack,
  target: Target,
  deployed: { sha256: string; zip?: Uint8Array },
): Promise<void> {
  const runs = "The function runs this folder's code as it was saved last";
  const { workspace } = target;
  const remedy = `${denoTask(target, "deploy")} deploys this folder's code for good`;
  try {
    using _lock = await lockWorkspace(workspace);
    const recorded = await deployedCode(workspace, { always: true });
    const { CodeSha256, LastUpdateStatus } = await readCode(stack);
    if (CodeSha256 === recorded && LastUpdateStatus !== "InProgress") return;
    if (recorded !== deployed.sha256) {
      return say(`${runs}; it was deployed meanwhile, so nothing is put back`);
    }
    if (deployed.zip === undefined || sha256Of(deployed.zip) !== deployed.sha256) {
      return say(`${runs}, since the deployed code is not in build/lambda.zip; ${remedy}`);
    }
    // It is put back after Ctrl-C, too.
    await updateCode(stack, deployed.zip, { signal: new AbortController().signal });
    say(`The function runs the deployed code again; ${remedy}`);
  } catch (error) {
    say(`${runs}, since the deployed code could not be put back (${error}); ${remedy}`);
  }
}
