/** Plan and deploy: shows what would change, asks, and applies that very plan. */

import { join } from "node:path";
import { temporaryFolder } from "./files.ts";
import { checkCredentials, type OpenTarget } from "./target.ts";
import { confirm, say } from "./terminal.ts";
import * as terraform from "./terraform.ts";

/** Shows what deploy would change. */
export async function plan(target: OpenTarget): Promise<void> {
  await withPlan(target, "whole", () => Promise.resolve());
}

/** Creates or updates everything, and prints the outputs. A brief plan is its counts alone. */
export async function deploy(
  target: OpenTarget,
  { yes, show }: { yes: boolean; show: "whole" | "brief" },
): Promise<void> {
  await withPlan(target, show, async (plan, file) => {
    if (plan.applyable) {
      if (!yes) await confirm("Apply this plan?");
      await terraform.apply(target.workspace, file);
      // On a terminal Terraform has just shown them.
      if (Deno.stdout.isTerminal() && Deno.stderr.isTerminal()) return;
    }
    const outputs = await terraform.outputs(target.workspace);
    for (const [name, value] of Object.entries(outputs ?? {})) console.log(`${name} = ${value}`);
  });
}

/** Plans, then hands the plan's content and file to `use`. */
async function withPlan(
  target: OpenTarget,
  show: "whole" | "brief",
  use: (plan: terraform.Plan, file: string) => Promise<void>,
): Promise<void> {
  await checkCredentials(target);
  const { workspace } = target;
  await using folder = await temporaryFolder();
  const file = join(folder.path, `${workspace}.tfplan`);
  await terraform.plan(workspace, file, { show: show === "whole" });
  const plan = await terraform.readPlan(workspace, file);
  const count = (action: string) =>
    plan.changes.filter(({ actions }) => actions.includes(action)).length;
  const { account_id, aws_region, environment } = plan.outputs;
  say(
    `Account ${account_id}, region ${aws_region}, environment ${environment}: ` +
      `${count("create")} to add, ${count("update")} to change, ${count("delete")} to destroy`,
  );
  await use(plan, file);
}
