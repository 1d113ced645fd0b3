/**
 * The proof that destroy left nothing. Terraform forgets what it removed, so the state from before is
 * kept until the proof: one that was interrupted can be run again.
 */

import { join } from "node:path";
import { readText, removeIfThere, replaceFile, temporaryFolder } from "./files.ts";
import { findNamed, type Found, NAMED, nameOf } from "./leftovers.ts";
import { TIME, type Time } from "./signals.ts";
import type { Clients } from "./target.ts";
import { plural, say, UserError } from "./terminal.ts";
import * as terraform from "./terraform.ts";
import { LOCAL_FOLDER } from "./shell.ts";

/** AWS may show for a minute what is gone, as SQS does. */
const STILL_SHOWN_MS = 120_000;
const ASK_AGAIN_MS = 10_000;

const QUEUE = NAMED.find(({ address }) => address === "aws_sqs_queue.failures")!;

/** Keeps the state from before a destroy, for the proof. */
export async function keepForProof(workspace: string, state: terraform.State): Promise<void> {
  await replaceFile(keptFile(workspace), new TextEncoder().encode(state.text), { mode: 0o600 });
}

/** The state from before a destroy whose proof is missing; undefined if none is. */
export async function findUnproven(workspace: string): Promise<terraform.State | undefined> {
  const text = await readText(keptFile(workspace));
  return text === undefined ? undefined : terraform.parseState(text);
}

/**
 * Asks AWS for each resource of the state from before, and for each name; returns the proof as a
 * sentence.
 *
 * @throws {UserError} something is left
 */
export async function prove(
  workspace: string,
  before: terraform.State,
  clients: Clients,
): Promise<string> {
  say(
    `Asking AWS for each resource of the old state, and for all that is named ${before.name} ...`,
  );
  await using folder = await temporaryFolder();
  const file = join(folder.path, "before.tfstate");
  const { text, resources } = withoutQueue(before);
  await Deno.writeTextFile(file, text);
  const asked = new Set(before.resources.map(({ address }) => address));
  const left = await askUntilGone(async () => {
    const known = await terraform.stillThere(workspace, file, resources);
    const named = await findNamed(clients, before.name!);
    for (const { address } of named) asked.add(address);
    return leftOf(known, named);
  });
  const proof = `${asked.size - left.length} of ${asked.size} resources gone`;
  if (left.length > 0) {
    throw new UserError(
      `${proof}; still there: ${left.join(", ")}; remove that by hand, then run the same command ` +
        "again: it asks once more",
    );
  }
  await removeIfThere(keptFile(workspace));
  return proof;
}

/**
 * What the provider is asked for: for a queue that is gone it asks 20 s long, so that is left to
 * {@link findNamed}, unless it has a name of the user's own.
 */
export function withoutQueue({ text, name, resources }: terraform.State) {
  const isQueue = ({ address, attributes }: terraform.Resource) =>
    address === QUEUE.address && attributes.name === nameOf(QUEUE, name!);
  if (!resources.some(isQueue)) return { text, resources };
  const state: { resources: { type: string; name: string }[] } = JSON.parse(text);
  const others = state.resources.filter(({ type, name }) => `${type}.${name}` !== QUEUE.address);
  return {
    text: JSON.stringify({ ...state, resources: others }),
    resources: resources.filter((resource) => !isQueue(resource)),
  };
}

/** What exists by the provider's answer or by its name; with its id where the provider has none. */
export function leftOf(known: string[], named: Found[]): string[] {
  const others = named.filter(({ address }) => !known.includes(address));
  return [...known, ...others.map(({ address, id }) => `${address} (${id})`)];
}

/** Asks for what is left until nothing is, or AWS has said so for two minutes. */
export async function askUntilGone(
  ask: () => Promise<string[]>,
  time: Time = TIME,
): Promise<string[]> {
  const endMs = time.nowMs() + STILL_SHOWN_MS;
  for (;;) {
    const left = await ask();
    const leftMs = endMs - time.nowMs();
    if (left.length === 0 || leftMs <= 0) return left;
    say(
      `AWS still shows ${plural(left.length, "resource")}, the first is ${
        left[0]
      }; that may take a ` +
        `while: asking again for ${Math.ceil(leftMs / 1000)} s ...`,
    );
    await time.pause(ASK_AGAIN_MS);
  }
}

function keptFile(workspace: string): string {
  return join(LOCAL_FOLDER, `${workspace}.before-destroy.tfstate`);
}
