/** Plan and deploy: shows what would change, asks, and applies that very plan. */

import { join } from "node:path";
import { GetFunctionCommand } from "@aws-sdk/client-lambda";
import { EARLY_MINUTES } from "../function/read.ts";
import { sha256Of, ZIP_URL } from "./build.ts";
import { denoTask } from "./commands.ts";
import { temporaryFolder } from "./files.ts";
import { strayCode, updateCode } from "./invoke.ts";
import { adoptLeftovers, sayLeftovers } from "./leftovers.ts";
import { type Loss, lossesOf } from "./losses.ts";
import {
  checkCredentials,
  clientsOf,
  connect,
  type OpenTarget,
  type Stack,
  type Target,
} from "./target.ts";
import { confirm, say, UserError, visible } from "./terminal.ts";
import * as terraform from "./terraform.ts";

/** Shows what deploy would change. */
export async function plan(target: OpenTarget): Promise<void> {
  await withPlan(target, "whole", sayLeftovers, () => Promise.resolve());
}

/** Creates or updates everything, and returns the outputs. A brief plan is its counts alone. */
export async function deploy(
  target: OpenTarget,
  { yes, show }: { yes: boolean; show: "whole" | "brief" },
): Promise<terraform.Outputs> {
  await withPlan(target, show, adoptLeftovers, async (plan, file) => {
    if (plan.applyable) {
      const clients = clientsOf(target, plan.outputs.aws_region ?? "us-east-1");
      await confirmPlan(await lossesOf(plan, clients), yes, target);
      await terraform.apply(target.workspace, file);
    }
  });
  const outputs = (await terraform.outputs(target.workspace))!;
  await repairCode(connect(target, outputs), await Deno.readFile(ZIP_URL));
  sayIfNew(await terraform.pullState(target.workspace), target, Date.now());
  return outputs;
}

/** Says what the function does while S3 may not know the objects of a new stack. */
export function sayIfNew(
  { created = "" }: Pick<terraform.State, "created">,
  target: Pick<Target, "flags">,
  nowMs: number,
): void {
  if (!(nowMs < Date.parse(created) + EARLY_MINUTES * 60_000)) return;
  say(
    `The stack is younger than ${EARLY_MINUTES} minutes, in which S3 may answer 404 for an object ` +
      `that is there: such events are tried again, and ${
        denoTask(target, "replay")
      } runs those that ` +
      "end in the failure queue",
  );
}

/** Terraform compares the zip with its own record, and so misses code that was changed in AWS. */
export async function repairCode(stack: Stack, zip: Uint8Array): Promise<void> {
  const { lambda_function_name: FunctionName } = stack.outputs;
  const { Configuration } = await stack.lambda.send(new GetFunctionCommand({ FunctionName }));
  if (Configuration?.CodeSha256 === sha256Of(zip)) return;
  say("The function's code was changed outside Terraform: sending build/lambda.zip");
  await updateCode(stack, zip);
}

/**
 * Asks before a plan is applied. `--yes` answers for a plan that loses nothing; what loses data needs
 * a name to be typed.
 *
 * @throws {UserError} the plan is not to be applied
 */
export async function confirmPlan(
  losses: Loss[],
  yes: boolean,
  target: Pick<Target, "flags">,
): Promise<void> {
  if (losses.length === 0) {
    if (!yes) await confirm("Apply this plan?");
    return;
  }
  say("This plan deletes data for good:");
  for (const { address, name, contents } of losses) {
    say(`  ${address}  ${visible(name)}  ${contents}`);
  }
  const [{ name }] = losses;
  if (yes) {
    throw new UserError(
      "Nothing was changed, as --yes alone does not delete data: to lose what is listed above, run " +
        `${denoTask(target, "deploy")} and type ${visible(name)} when asked`,
    );
  }
  await confirm("Apply this plan and lose what is listed above?", name);
}

/** Plans once `prepare` is done, then hands the plan's content and file to `use`. */
async function withPlan(
  target: OpenTarget,
  show: "whole" | "brief",
  prepare: (target: OpenTarget) => Promise<void>,
  use: (plan: terraform.Plan, file: string) => Promise<void>,
): Promise<void> {
  await checkCredentials(target);
  await prepare(target);
  const { workspace } = target;
  await using folder = await temporaryFolder();
  const file = join(folder.path, `${workspace}.tfplan`);
  await terraform.plan(workspace, file, { show: show === "whole" });
  const plan = await terraform.readPlan(workspace, file);
  const count = (action: string) =>
    plan.changes.filter(({ actions }) => actions.includes(action)).length;
  if (plan.strayCodeSince) say(`Note: ${strayCode(plan.strayCodeSince)}; deploy replaces it`);
  const { account_id, aws_region, environment } = plan.outputs;
  say(
    `Account ${account_id}, region ${aws_region}, environment ${environment}: ` +
      `${count("create")} to add, ${count("update")} to change, ${count("delete")} to destroy`,
  );
  await use(plan, file);
}
