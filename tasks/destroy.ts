/** Destroy: says what will be lost, asks, empties the bucket, removes everything, and proves it. */

import { join } from "node:path";
import { PutBucketNotificationConfigurationCommand, type S3Client } from "@aws-sdk/client-s3";
import { countVersions, emptyBucket } from "./bucket.ts";
import { checkCredentials, type Clients, clientsOf, patientS3 } from "./clients.ts";
import { lossesOf } from "./deploy.ts";
import { readText, removeIfThere, replaceFile } from "./files.ts";
import { notificationsOf, tellsRemovals } from "./invoke.ts";
import { findNamed, importLeftovers } from "./leftovers.ts";
import { LOCAL_FOLDER } from "./shell.ts";
import { interrupted, TIME, type Time } from "./signals.ts";
import { stopStandIn } from "./stand_in.ts";
import type { OpenTarget } from "./target.ts";
import { confirm, plural, say, sayEvery, UserError } from "./terminal.ts";
import * as terraform from "./terraform.ts";

/** AWS may show for a minute what was deleted, as SQS does. */
const STILL_SHOWN_MS = 120_000;
const ASK_AGAIN_MS = 10_000;

/**
 * Removes everything at a target, and its stand-in; returns the proof as a sentence. Without it, as
 * after Ctrl-C, the next destroy asks for it.
 *
 * @throws {UserError} something is left
 */
export async function destroy(
  target: OpenTarget,
  { yes }: { yes: boolean },
): Promise<string | undefined> {
  const { workspace, place } = target;
  const state = await wholeState(target);
  if (state.resources.length > 0) await removeAll(target, state, yes);
  else if (!terraform.isEmpty(state)) await terraform.forget(workspace, [terraform.STACK]);
  const file = unprovenFile(workspace);
  const text = await readText(file);
  let proof: string | undefined;
  if (text === undefined) {
    say(`Nothing is deployed ${place}: there is nothing to destroy`);
  } else {
    const { name, region } = JSON.parse(text);
    await checkCredentials();
    proof = await prove(name, clientsOf(region));
    await removeIfThere(file);
  }
  if (target.local) await stopStandIn(workspace);
  return proof;
}

/** Holds what the proof of a destroy needs, as Terraform forgets it with what it removes. */
function unprovenFile(workspace: string): string {
  return join(LOCAL_FOLDER, `${workspace}.unproven.json`);
}

/** The state, once it holds all that is named after the stack. */
async function wholeState(target: OpenTarget): Promise<terraform.State> {
  const state = await terraform.pullState(target.workspace);
  if (terraform.isEmpty(state)) return state;
  await checkCredentials();
  await terraform.refuseOtherStack(target.workspace); // and a state without a name
  // Asks for all of them, as the proof will: a missing permission shows before anything is removed.
  return await importLeftovers(target, state);
}

async function removeAll(target: OpenTarget, state: terraform.State, yes: boolean): Promise<void> {
  const { workspace } = target;
  const clients = clientsOf(state.region);
  await sayWhatIsLost(target, clients, state);
  if (state.existing) await sayWhatStays(target, clients, state.name!, state.existing);
  if (!yes) await confirm("Destroy all of it, for good?");
  const bucket = find(state, "aws_s3_bucket.uploads[0]");
  if (bucket) {
    await silence(clients, String(bucket.id), state);
    await emptyWithProgress(patientS3(state.region), String(bucket.id));
  }
  const removed = JSON.stringify({ name: state.name, region: state.region });
  await replaceFile(unprovenFile(workspace), new TextEncoder().encode(removed));
  // An existing bucket may have been deleted, and a look at it would fail.
  const destroy = state.existing ? "blindly" : true;
  await using file = await terraform.plan(workspace, { destroy });
  await terraform.apply(workspace, file);
}

/** @throws {UserError} what holds data was deployed so that it must not be destroyed */
export async function sayWhatIsLost(
  { place }: Pick<OpenTarget, "place">,
  clients: Clients,
  state: terraform.State,
): Promise<void> {
  const bucket = find(state, "aws_s3_bucket.uploads[0]");
  const table = find(state, "aws_dynamodb_table.files");
  if (
    bucket?.force_destroy === false && await countVersions(clients.s3, String(bucket.id), 1) > 0
  ) {
    throw new UserError(
      `The bucket ${bucket.id} holds objects and is deployed with force_destroy = false: empty it yourself, or deploy with force_destroy = true first`,
    );
  }
  if (table?.deletion_protection_enabled === true) {
    throw new UserError(
      `The table ${table.id} is deployed with deletion_protection = true: deploy with false first`,
    );
  }
  const losses = await lossesOf(state.resources, clients);
  for (const { address, attributes } of state.resources) {
    say(`  ${address}  ${attributes.name ?? attributes.id ?? ""}`);
  }
  const contents = losses.map(({ contents }) => contents).join(" and ") || "no data";
  say(
    `This destroys the ${plural(state.resources.length, "resource")} above ${place}, with ` +
      `${contents}, in ${state.region}.`,
  );
}

/** An existing bucket's notification is its owner's: it may still name the function. */
export async function sayWhatStays(
  { local }: Pick<OpenTarget, "local">,
  { s3 }: Pick<Clients, "s3">,
  lambda_function_name: string,
  { bucket, remove }: NonNullable<terraform.State["existing"]>,
): Promise<void> {
  const fate = local ? "end with the stand-in" : "stay as they are";
  say(`The bucket ${bucket}, its objects and its notification ${fate}.`);
  const outputs = { s3_bucket_name: bucket, lambda_function_name };
  const entries = await notificationsOf({ s3, outputs })
    .catch(({ name }) => name === "NoSuchBucket" ? [] : undefined);
  if (entries?.length === 0) return;
  say(
    "Its notification still names the function, which is deleted now. Take it out of your " +
      `aws_s3_bucket_notification, or run this, which keeps all else:\n\n${remove}\n`,
  );
}

function find(
  { resources }: Pick<terraform.State, "resources">,
  address: string,
): Record<string, unknown> | undefined {
  return resources.find((resource) => terraform.isSame(resource, { address }))?.attributes;
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
  const none = new PutBucketNotificationConfigurationCommand({ Bucket, NotificationConfiguration });
  await s3.send(none).catch((error) => {
    if (error.name !== "NoSuchBucket") throw error; // then there is nothing to take out
  });
}

async function emptyWithProgress(s3: S3Client, bucket: string): Promise<void> {
  let deleted = 0;
  using _progress = sayEvery(() => `Emptying ${bucket}: ${plural(deleted, "version")} deleted ...`);
  await emptyBucket(s3, bucket, { signal: interrupted, progress: (count) => deleted = count });
  say(`Emptied ${bucket}: ${plural(deleted, "version")}, delete markers included`);
}

/**
 * Asks AWS for all that has the stack's name, and returns the proof as a sentence. What has no name
 * of its own is a setting of something that has one: AWS deletes both together.
 *
 * @throws {UserError} something is left, and AWS has shown it for two minutes
 */
export async function prove(name: string, clients: Clients, time: Time = TIME): Promise<string> {
  say(`Asking AWS for all that is named ${name} ...`);
  const endMs = time.nowMs() + STILL_SHOWN_MS;
  for (;;) {
    const left = await findNamed(clients, name);
    if (left.length === 0) return `Nothing in AWS is named ${name} any more`;
    const list = left.map(({ address, id }) => `${address} (${id})`).join(", ");
    const leftMs = endMs - time.nowMs();
    if (leftMs <= 0) {
      throw new UserError(
        `Still in AWS: ${list}; remove that by hand, then run the same command again: it asks once more`,
      );
    }
    say(`AWS still shows ${list}; asking again for ${Math.ceil(leftMs / 1000)} s ...`);
    await time.pause(ASK_AGAIN_MS);
  }
}
