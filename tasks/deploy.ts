/** Plan and deploy: shows what would change and be lost, asks, and applies that very plan. */

import { GetFunctionCommand } from "@aws-sdk/client-lambda";
import { countVersions } from "./bucket.ts";
import { sha256Of, ZIP_URL } from "./build.ts";
import { checkCredentials, type Clients, clientsOf } from "./clients.ts";
import { denoTask } from "./commands.ts";
import { bucketNotifies, countFailed, strayCode, updateCode } from "./invoke.ts";
import { completeState, findBucket, showLeftovers } from "./leftovers.ts";
import { countRows } from "./table.ts";
import { connect, type OpenTarget, type Stack, type Target } from "./target.ts";
import { confirm, plural, say, UserError, visible } from "./terminal.ts";
import * as terraform from "./terraform.ts";

/** Shows what deploy would change. */
export async function plan(target: OpenTarget): Promise<void> {
  await checkCredentials();
  await showLeftovers(target);
  await using file = await terraform.plan(target.workspace, { show: true });
  await summarise(target, file);
}

/** Creates or updates everything, and returns the outputs. A brief plan is its counts alone. */
export async function deploy(
  target: OpenTarget,
  { yes, show }: { yes: boolean; show: "whole" | "brief" },
): Promise<terraform.Outputs> {
  const { workspace } = target;
  await checkCredentials();
  const isNew = await completeState(target);
  // A stack that cannot be made is not bound to the bucket that its variables name.
  const leaveNoName = async (error: unknown): Promise<never> => {
    if (isNew) await terraform.forget(workspace, [terraform.STACK]);
    throw error;
  };
  const planning = terraform.plan(workspace, { show: show === "whole" });
  await using file = await planning.catch(leaveNoName);
  const plan = await summarise(target, file).catch(leaveNoName);
  if (plan.applyable) {
    const clients = clientsOf(plan.outputs.aws_region ?? "us-east-1");
    await confirmPlan(await lossesOf(deletedBy(plan), clients), yes, target);
    await terraform.apply(workspace, file);
  }
  const outputs = (await terraform.outputs(workspace))!;
  const stack = connect(target, outputs);
  await repairCode(stack, await Deno.readFile(ZIP_URL));
  await sayHowToNotify(stack);
  return outputs;
}

/** Reads a plan, and says where it would be applied and how much it would change. */
async function summarise(target: OpenTarget, file: terraform.PlanFile): Promise<terraform.Plan> {
  const plan = await terraform.readPlan(target.workspace, file);
  const count = (action: string) =>
    plan.changes.filter(({ actions }) => actions.includes(action)).length;
  if (plan.strayCodeSince) say(`Note: ${strayCode(plan.strayCodeSince)}; deploy replaces it`);
  const { account_id, aws_region, environment, existing_bucket } = plan.outputs;
  if (existing_bucket) await refuseOtherAccounts(clientsOf(aws_region!), existing_bucket);
  say(
    `Account ${account_id}, region ${aws_region}, environment ${environment}: ` +
      `${count("create")} to add, ${count("update")} to change, ${count("delete")} to destroy`,
  );
  return plan;
}

/** @throws {UserError} the bucket is another account's, which lets this one see it */
export async function refuseOtherAccounts(clients: Clients, bucket: string): Promise<void> {
  if (await findBucket(clients, bucket)) return;
  throw new UserError(
    `The bucket ${bucket} is another account's, and cannot call a function of this one: deploy ` +
      "with that account's credentials, or set another existing_bucket",
  );
}

/** Says how an existing bucket is made to call the function, unless it does. */
async function sayHowToNotify(stack: Stack): Promise<void> {
  const { existing_bucket, notification_hcl, notification_add } = stack.outputs;
  if (existing_bucket === undefined || await bucketNotifies(stack)) return;
  say(
    `The bucket ${existing_bucket} does not call the function yet, or by other events or filters. ` +
      `Put this into your aws_s3_bucket_notification of it:\n\n${notification_hcl}\nWhere ` +
      `Terraform does not manage that, run this, which keeps what is there:\n\n${notification_add}\n`,
  );
}

/** Objects and rows are counted no further than this: enough to know what will be lost. */
const COUNT_LIMIT = 10_000;

/** A resource that holds data, and what is in it. */
interface Loss {
  address: string;
  name: string;
  /** For example `3 rows`. */
  contents: string;
}

type Count = (clients: Clients, id: string) => Promise<number>;

/** By its type, what a resource holds, and how to count that by the resource's id. */
const HOLDS: Record<string, [noun: string, Count]> = {
  aws_dynamodb_table: ["row", (clients, id) => countRows(clients, id, COUNT_LIMIT)],
  aws_s3_bucket: ["object version", ({ s3 }, id) => countVersions(s3, id, COUNT_LIMIT)],
  aws_sqs_queue: [
    "failed event",
    ({ sqs }, failure_queue_url) => countFailed({ sqs, outputs: { failure_queue_url } }),
  ],
};

/** The resources that a plan deletes or replaces. */
export function deletedBy({ changes }: Pick<terraform.Plan, "changes">) {
  return changes.filter(({ actions }) => actions.includes("delete"))
    .map(({ address, before }) => ({ address, attributes: before }));
}

/** Of what is to be deleted, the table, the bucket and (unless it is empty) the failure queue. */
export async function lossesOf(
  deleted: Pick<terraform.Resource, "address" | "attributes">[],
  clients: Clients,
): Promise<Loss[]> {
  const losses: Loss[] = [];
  for (const { address, attributes: { id, name = id } } of deleted) {
    const [type] = address.split(".");
    if (!(type in HOLDS)) continue;
    const [noun, count] = HOLDS[type];
    // A count that cannot be read is unknown: it hides no loss.
    const counted = await count(clients, String(id)).catch(() => undefined);
    if (type === "aws_sqs_queue" && counted === 0) continue;
    losses.push({ address, name: String(name), contents: amount(counted, noun) });
  }
  return losses;
}

/** A count for people: `1 row`, `2 rows`, `10000 or more rows`. */
function amount(count: number | undefined, noun: string): string {
  if (count === undefined) return `an unknown number of ${noun}s`;
  return count >= COUNT_LIMIT ? `${COUNT_LIMIT} or more ${noun}s` : plural(count, noun);
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

/** Terraform compares the zip with its own record, and so misses code that was changed in AWS. */
export async function repairCode(stack: Stack, zip: Uint8Array): Promise<void> {
  const { lambda_function_name: FunctionName } = stack.outputs;
  const { Configuration } = await stack.lambda.send(new GetFunctionCommand({ FunctionName }));
  if (Configuration?.CodeSha256 === sha256Of(zip)) return;
  say("The function's code was changed outside Terraform: sending build/lambda.zip");
  await updateCode(stack, zip);
}
