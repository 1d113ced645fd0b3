/** Drift: what in AWS is not as main.tf has it, by Terraform's own plan. */

import { join } from "node:path";
import { writeZip, ZIP_URL } from "./build.ts";
import { denoTask } from "./commands.ts";
import { temporaryFolder } from "./files.ts";
import type { Target } from "./target.ts";
import { withProgress } from "./terminal.ts";
import * as terraform from "./terraform.ts";

/** Compares every resource with AWS. It changes nothing, and waits for no other Terraform. */
export async function readDrift({ workspace }: Target): Promise<terraform.Change[]> {
  await Deno.stat(ZIP_URL).catch(writeZip); // without it main.tf refuses to plan
  await using folder = await temporaryFolder();
  const file = join(folder.path, `${workspace}.tfplan`);
  await withProgress("terraform plan", terraform.plan(workspace, file, { quiet: true }));
  return driftIn((await terraform.readPlan(workspace, file)).changes);
}

/** The changes of what is in AWS, which are no mere consequence of others. */
export function driftIn(changes: terraform.Change[]): terraform.Change[] {
  return changes.map(({ attributes, ...change }) => {
    // Of code that is saved here and not deployed.
    const isExpected = (name: string) =>
      change.type === "aws_lambda_function" && name === "source_code_hash";
    return { ...change, attributes: attributes.filter((name) => !isExpected(name)) };
  }).filter(({ type, actions, attributes }) =>
    type !== "terraform_data" && (actions[0] !== "update" || attributes.length > 0)
  );
}

/** A sentence for all that is gone, and one for each that is changed. */
export function driftToProblems(
  changes: terraform.Change[],
  target: Pick<Target, "flags">,
): string[] {
  const deploy = denoTask(target, "deploy");
  const isGone = ({ actions }: terraform.Change) => actions.join() === "create";
  const gone = changes.filter(isGone).map(({ address }) => address);
  const changed = changes.filter((change) => !isGone(change));
  return [
    ...(gone.length === 0 ? [] : [`not there: ${gone.join(", ")}; ${deploy} makes it`]),
    ...changed.map(({ address, attributes }) => {
      const names = attributes.length === 0 ? "" : ` (${attributes.join(", ")})`;
      return `${address} is not as main.tf has it${names}; ${deploy} puts it right`;
    }),
  ];
}
