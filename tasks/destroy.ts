/** Destroy: says what will be lost, asks, empties the bucket, removes everything, and proves it. */

import { join } from "node:path";
import { PutBucketNotificationConfigurationCommand, type S3Client } from "@aws-sdk/client-s3";
import { countVersions, emptyBucket } from "./bucket.ts";
import { checkCredentials, type Clients, clientsOf, patientS3 } from "./clients.ts";
import { amount, COUNT_LIMIT } from "./deploy.ts";
import { readText, removeIfThere, replaceFile } from "./files.ts";
import { notificationsOf, tellsRemovals } from "./invoke.ts";
import { findNamed, importLeftovers } from "./leftovers.ts";
import { LOCAL_FOLDER } from "./shell.ts";
import { interrupted, TIME, type Time } from "./signals.ts";
import { stopStandIn } from "./stand_in.ts";
import { countRows } from "./table.ts";
import type { OpenTarget } from "./target.ts";
import { confirm, plural, say, sayEvery, UserError } from "./terminal.ts";
import * as terraform from "./terraform.ts";

/** AWS may show for a minute what was deleted, as SQS does. */
const STILL_SHOWN_MS = 120_000;
const ASK_AGAIN_MS = 10_000;

/**
 * Removes everything at a target, and its stand-in; returns the proof as a sentence.
 *
 * @throws {UserError} something is left
 */
export async function destroy(
  target: OpenTarget,
  { yes }: { yes: boolean },
): Promise<string | undefined> {
  const state = await wholeState(target);
  const proof = state.resources.length > 0
    ? await destroyAll(target, state, yes)
    : await proveLast(target, state);
  if (target.local) await stopStandIn(target.workspace);
  return proof;
}

/** The state, once it holds all that is named after the stack. */
async function wholeState(target: OpenTarget): Promise<terraform.State> {
  const state = await terraform.pullState(target.workspace);
  if (terraform.isEmpty(state)) return state;
  await checkCredentials(target);
  await terraform.refuseOtherStack(target.workspace); // and a state without a name
  // Asks for all of them, as the proof will: a missing permission shows before anything is removed.
  return await importLeftovers(target, state);
}

async function destroyAll(
  target: OpenTarget,
  state: terraform.State,
  yes: boolean,
): Promise<string> {
  const { workspace } = target;
  const clients = clientsOf(target, state.region);
  await sayWhatIsLost(target, clients, state);
  if (state.existing) {
    const fate = target.local ? "end with the stand-in" : "stay as they are";
    say(`The bucket ${state.existing.bucket}, its objects and its notification ${fate}.`);
  }
  if (!yes) await confirm("Destroy all of it, for good?");
  const bucket = find(state, "aws_s3_bucket.uploads[0]");
  if (bucket) {
    await silence(clients, String(bucket.id), state);
    await emptyWithProgress(patientS3(target, state.region), String(bucket.id));
  }
  const removed = { name: state.name!, region: state.region, existing: state.existing };
  await keepForProof(workspace, removed);
  // An existing bucket may have been deleted, and a look at it would fail.
  const destroy = state.existing ? "blindly" : true;
  await using file = await terraform.plan(workspace, { destroy });
  await terraform.apply(workspace, file);
  return await prove(workspace, removed, clients);
}

/** Where nothing is deployed: proves the last destroy, if that ended before its proof. */
async function proveLast(
  target: OpenTarget,
  state: terraform.State,
): Promise<string | undefined> {
  const { workspace, place } = target;
  const removed = await findUnproven(workspace);
  let proof: string | undefined;
  if (removed !== undefined) {
    say(`Nothing is deployed ${place}, but the last destroy ended before its proof`);
    await checkCredentials(target);
    proof = await prove(workspace, removed, clientsOf(target, removed.region));
  }
  // Nothing has the name any more, or yet.
  if (!terraform.isEmpty(state)) await terraform.forget(workspace, [terraform.STACK]);
  if (proof === undefined) say(`Nothing is deployed ${place}: there is nothing to destroy`);
  return proof;
}

/** @throws {UserError} what holds data was deployed so that it must not be destroyed */
export async function sayWhatIsLost(
  { place }: Pick<OpenTarget, "place">,
  { s3, dynamo }: Pick<Clients, "s3" | "dynamo">,
  state: terraform.State,
): Promise<void> {
  const bucket = find(state, "aws_s3_bucket.uploads[0]");
  const table = find(state, "aws_dynamodb_table.files");
  const objects = bucket ? await countVersions(s3, String(bucket.id), COUNT_LIMIT) : 0;
  const rows = table ? await countRows({ dynamo }, String(table.id), COUNT_LIMIT) : 0;
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
  for (const { address, attributes } of state.resources) {
    say(`  ${address}  ${attributes.name ?? attributes.id ?? ""}`);
  }
  say(
    `This destroys the ${plural(state.resources.length, "resource")} above ${place}, with ` +
      `${amount(objects, "object version")} and ${amount(rows, "row")}, in ${state.region}.`,
  );
}

/** An existing bucket's notification is its owner's: it may still name the function. */
async function sayWhatStays(
  { s3 }: Pick<Clients, "s3">,
  name: string,
  { bucket, remove }: NonNullable<terraform.State["existing"]>,
): Promise<void> {
  const entries = await notificationsOf({
    s3,
    outputs: { s3_bucket_name: bucket, lambda_function_name: name },
  }).catch(({ name }) => name === "NoSuchBucket" ? [] : undefined);
  if (entries?.length === 0) return;
  say(
    `The notification of the bucket ${bucket} still names the function, which is deleted. Take it out ` +
      `of your aws_s3_bucket_notification, or run this, which keeps all else:\n\n${remove}\n`,
  );
}

function find(
  { resources }: Pick<terraform.State, "resources">,
  wanted: string,
): Record<string, unknown> | undefined {
  return resources.find(({ address }) => terraform.isSame(address, wanted))?.attributes;
}

/** Takes out a notification of removals: else each deletion would run the function that goes too. */
export async function silence(
  { s3 }: Pick<Clients, "s3">,
  Bucket: string,
  state: Pick<terraform.State, "resources">,
): Promise<void> {
  const notification = find(state, "aws_s3_bucket_notification.uploads[0]");
  if (notification === undefined || !tellsRemovals(notification)) return;
  say(`${Bucket} calls the function no more; deploy would put that right`);
  const NotificationConfiguration = {};
  await s3.send(
    new PutBucketNotificationConfigurationCommand({ Bucket, NotificationConfiguration }),
  );
}

async function emptyWithProgress(s3: S3Client, bucket: string): Promise<void> {
  let deleted = 0;
  using _progress = sayEvery(() => `Emptying ${bucket}: ${plural(deleted, "version")} deleted ...`);
  await emptyBucket(s3, bucket, { signal: interrupted, progress: (count) => deleted = count });
  say(`Emptied ${bucket}: ${plural(deleted, "version")}, delete markers included`);
}

/** What the proof of a destroy needs; Terraform forgets it with what it removes. */
interface Removed {
  /** The stack's. */
  name: string;
  region: string;
  existing?: terraform.State["existing"];
}

/** Keeps for the proof what a destroy removes. */
export async function keepForProof(workspace: string, removed: Removed): Promise<void> {
  const text = JSON.stringify(removed);
  await replaceFile(unprovenFile(workspace), new TextEncoder().encode(text));
}

/** What the last destroy removed, if its proof is missing. */
export async function findUnproven(workspace: string): Promise<Removed | undefined> {
  const text = await readText(unprovenFile(workspace));
  return text === undefined ? undefined : JSON.parse(text);
}

function unprovenFile(workspace: string): string {
  return join(LOCAL_FOLDER, `${workspace}.unproven.json`);
}

/**
 * Asks AWS for all that has the stack's name, and returns the proof as a sentence. What has no name
 * of its own is a setting of something that has one: AWS deletes both together.
 *
 * @throws {UserError} something is left, and AWS has shown it for two minutes
 */
export async function prove(
  workspace: string,
  { name, existing }: Removed,
  clients: Clients,
  time: Time = TIME,
): Promise<string> {
  say(`Asking AWS for all that is named ${name} ...`);
  const endMs = time.nowMs() + STILL_SHOWN_MS;
  let left = await findNamed(clients, name);
  while (left.length > 0) {
    const list = left.map(({ address, id }) => `${address} (${id})`).join(", ");
    const leftMs = endMs - time.nowMs();
    if (leftMs <= 0) {
      throw new UserError(
        `Still in AWS: ${list}; remove that by hand, then run the same command again: it asks once more`,
      );
    }
    say(`AWS still shows ${list}; asking again for ${Math.ceil(leftMs / 1000)} s ...`);
    await time.pause(ASK_AGAIN_MS);
    left = await findNamed(clients, name);
  }
  if (existing) await sayWhatStays(clients, name, existing);
  await removeIfThere(unprovenFile(workspace));
  return `Nothing in AWS is named ${name} any more`;
}
