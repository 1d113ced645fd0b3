/**
 * A backend of the user's own, which keeps the state elsewhere. A stand-in's state stays on this
 * machine none the less, and so does a proof's: Terraform then runs in a copy of the configuration,
 * in which a backend of its own overrides the user's.
 */

import { join } from "node:path";
import { namesIn, readText } from "./files.ts";
import { ROOT } from "./shell.ts";
import { LOCAL_FOLDER } from "./tools.ts";

const COPY = join(LOCAL_FOLDER, "terraform");

/** The last override counts: https://developer.hashicorp.com/terraform/language/files/override */
const OVERRIDE = "zz_local_override.tf";

/** What Terraform reads by itself, and its lock file, which `init` may write. */
const COPIED = /\.(tf|tfvars)(\.json)?$|^\.terraform\.lock\.hcl$/;

/** Folders that the configuration and its tests name. */
const LINKED = ["build", "docs", "tests"];

/** A folder for Terraform to run in. */
export interface Copy {
  /** Comes before the command. */
  args: string[];
  env: Record<string, string>;
}

/** The copy, as the configuration is now; undefined where no backend is configured: none is needed. */
export async function copyWithoutBackend(): Promise<Copy | undefined> {
  const names = (await namesIn(ROOT)).filter((name) => COPIED.test(name));
  const texts = new Map<string, string>();
  for (const name of names) texts.set(name, await Deno.readTextFile(join(ROOT, name)));
  if (!hasBackend(texts)) return undefined;
  const state = quoted(join(ROOT, "terraform.tfstate.d"));
  texts.set(OVERRIDE, `terraform {\n  backend "local" {\n    workspace_dir = ${state}\n  }\n}\n`);
  await Deno.mkdir(COPY, { recursive: true });
  for (const name of (await namesIn(COPY)).filter((name) => COPIED.test(name))) {
    if (!texts.has(name)) await Deno.remove(join(COPY, name));
  }
  for (const [name, text] of texts) await writeWhole(join(COPY, name), text);
  for (const name of LINKED) await link(join(ROOT, name), join(COPY, name));
  return { args: [`-chdir=${COPY}`], env: { TF_DATA_DIR: join(COPY, ".terraform") } };
}

/** Whether the state is elsewhere than on this machine, by the text of the configuration's files. */
export function hasBackend(texts: Map<string, string>): boolean {
  return [...texts].some(([name, text]) =>
    name.endsWith(".tf") && /^\s*(backend\s+"(?!local")\w+"|cloud)\s*\{/m.test(text)
  );
}

/** A text as Terraform's language has it: in its quotes `${` and `%{` would begin an expression. */
function quoted(text: string): string {
  return JSON.stringify(text).replace(/[$%]\{/g, (sign) => sign[0] + sign);
}

/** Another task may read the file now: it is replaced, and only if it changes. */
async function writeWhole(path: string, text: string): Promise<void> {
  if (await readText(path) === text) return;
  const draft = `${path}.${Deno.pid}`;
  await Deno.writeTextFile(draft, text);
  await Deno.rename(draft, path);
}

async function link(target: string, path: string): Promise<void> {
  try {
    await Deno.symlink(target, path, { type: "junction" }); // on Windows anybody may make one
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
}
