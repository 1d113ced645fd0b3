/** Destroy: says what will be lost, asks, empties the bucket, removes everything, and proves it. */

import { join } from "node:path";
import { countVersions, emptyBucket } from "./bucket.ts";
import { temporaryFolder } from "./files.ts";
import { findNamed, importAll, lackingIn } from "./leftovers.ts";
import { amount, COUNT_LIMIT } from "./losses.ts";
import { findUnproven, keepForProof, prove } from "./proof.ts";
import { countRows } from "./table.ts";
import { interrupted } from "./signals.ts";
import { stopStandIn } from "./stand_in.ts";
import { checkCredentials, type Clients, clientsOf, type OpenTarget } from "./target.ts";
import { confirm, plural, say, sayEvery, UserError } from "./terminal.ts";
import * as terraform from "./terraform.ts";

/**
 * Removes everything at a target, and its stand-in; returns the proof as a sentence.
 *
 * @throws {UserError} something is left
 */
export async function destroy(
  target: OpenTarget,
  { yes }: { yes: boolean },
): Promise<string | undefined> {
  const { workspace, local, place } = target;
  const state = await completeState(target);
  if (state.resources.length === 0) {
    const proof = await proveLast(target);
    // Nothing bears the name any more, or yet.
    if (!terraform.isEmpty(state)) await terraform.forget(workspace, [terraform.STACK]);
    if (local) await stopStandIn(workspace);
    if (proof === undefined) say(`Nothing is deployed ${place}: there is nothing to destroy`);
    return proof;
  }
  const clients = clientsOf(target, state.region);
  await sayWhatIsLost(target, clients, state);
  if (!yes) await confirm("Destroy all of it, for good?");

  const bucket = find(state, "aws_s3_bucket.uploads");
  if (bucket) await emptyWithProgress(clients, String(bucket.id));
  await keepForProof(workspace, state);
  await remove(workspace);
  const proof = await prove(workspace, state, clients);
  if (local) await stopStandIn(workspace);
  return proof;
}

/** Proves the last destroy, if that ended before its proof. */
async function proveLast(target: OpenTarget): Promise<string | undefined> {
  const before = await findUnproven(target.workspace);
  if (before === undefined) return undefined;
  say(`Nothing is deployed ${target.place}, but the last destroy ended before its proof`);
  await checkCredentials(target);
  return await prove(target.workspace, before, clientsOf(target, before.region));
}

/** The state, once it holds all that bears the stack's name. */
async function completeState(target: OpenTarget): Promise<terraform.State> {
  const { workspace } = target;
  const state = await terraform.pullState(workspace);
  if (terraform.isEmpty(state)) return state;
  await checkCredentials(target);
  await terraform.refuseOtherStack(workspace); // and a state without a name
  // Asks for all of them, as the proof will: a missing permission shows before anything is removed.
  const found = await findNamed(clientsOf(target, state.region), state.name!);
  const leftovers = lackingIn(state, found);
  await importAll(workspace, state, leftovers);
  return leftovers.length === 0 ? state : await terraform.pullState(workspace);
}

/** @throws {UserError} what holds data was deployed so that it must not be destroyed */
export async function sayWhatIsLost(
  { place }: OpenTarget,
  { s3, dynamo }: Clients,
  state: terraform.State,
): Promise<void> {
  const bucket = find(state, "aws_s3_bucket.uploads");
  const table = find(state, "aws_dynamodb_table.files");
  const objects = bucket ? await countVersions(s3, String(bucket.id), COUNT_LIMIT) : 0;
  const rows = table ? await countRows({ dynamo }, String(table.id), COUNT_LIMIT) : 0;
  refuseProtected(bucket, objects, table);
  for (const { address, attributes } of state.resources) {
    say(`  ${address}  ${attributes.name ?? attributes.id ?? ""}`);
  }
  say(
    `This destroys the ${plural(state.resources.length, "resource")} above ${place}, with ` +
      `${amount(objects, "object version")} and ${amount(rows, "row")}, in ${state.region}.`,
  );
}

function refuseProtected(
  bucket: Record<string, unknown> | undefined,
  objects: number,
  table: Record<string, unknown> | undefined,
): void {
  if (bucket?.force_destroy === false && objects > 0) {
    throw new UserError(
      `The bucket ${bucket.id} holds objects and is deployed with force_destroy = false: empty it yourself, or deploy with force_destroy = true first`,
    );
  }
  if (table?.deletion_protection_enabled === true) {
    throw new UserError(
      `The table ${table.id} is deployed with deletion_protection = true: deploy with false first`,
    );
  }
}

async function emptyWithProgress({ s3 }: Clients, bucket: string): Promise<void> {
  let deleted = 0;
  using _progress = sayEvery(
    2000,
    () => `Emptying ${bucket}: ${plural(deleted, "version")} deleted ...`,
  );
  const { versions, uploads } = await emptyBucket(s3, bucket, {
    signal: interrupted,
    progress: (count) => deleted = count,
  });
  say(
    `Emptied ${bucket}: ${plural(versions, "version")}, delete markers included, and ` +
      plural(uploads, "unfinished upload"),
  );
}

/** Destroys by Terraform. */
async function remove(workspace: string): Promise<void> {
  await using folder = await temporaryFolder();
  const file = join(folder.path, `${workspace}.tfplan`);
  await terraform.plan(workspace, file, { destroy: true });
  await terraform.apply(workspace, file);
}

function find({ resources }: terraform.State, wanted: string): Record<string, unknown> | undefined {
  return resources.find(({ address }) => address === wanted)?.attributes;
}
