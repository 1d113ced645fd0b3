/**
 * A backend of the user's own, which keeps the state elsewhere. A stand-in's state stays on this
 * machine none the less, and so does a proof's: Terraform then runs in a copy of the configuration,
 * in which a backend of its own overrides the user's.
 */

import { join } from "node:path";
import { namesIn, removeIfThere, replaceFile } from "./files.ts";
import { ROOT } from "./shell.ts";
import { LOCAL_FOLDER } from "./tools.ts";

const COPY = join(LOCAL_FOLDER, "terraform");

/** The last override counts: https://developer.hashicorp.com/terraform/language/files/override */
const OVERRIDE = "zz_local_override.tf";

/** What Terraform reads, by folder: by itself, its lock file, and what the configuration names. */
const COPIED: [folder: string, names: RegExp][] = [
  [".", /\.(tf|tfvars)(\.json)?$|^\.terraform\.lock\.hcl$/],
  ["build", /^lambda\.zip$|\.tfvars\.json$/],
  ["docs", /\.tfvars$/],
  ["tests", /\.hcl$/],
];

/** A folder for Terraform to run in. */
export interface Copy {
  /** Comes before the command. */
  args: string[];
  env: Record<string, string>;
}

/** The copy, as all is now; undefined where no backend is configured: none is needed. */
export async function copyWithoutBackend(): Promise<Copy | undefined> {
  if (!hasBackend(await readConfiguration())) return undefined;
  for (const [folder, names] of COPIED) await copyFiles(folder, names);
  const state = quoted(join(ROOT, "terraform.tfstate.d"));
  const override = `terraform {\n  backend "local" {\n    workspace_dir = ${state}\n  }\n}\n`;
  await replaceFile(join(COPY, OVERRIDE), new TextEncoder().encode(override));
  return { args: [`-chdir=${COPY}`], env: { TF_DATA_DIR: join(COPY, ".terraform") } };
}

/** The texts of the configuration, by file. */
async function readConfiguration(): Promise<Map<string, string>> {
  const names = (await namesIn(ROOT)).filter((name) => name.endsWith(".tf"));
  const texts = names.map(async (name) =>
    [name, await Deno.readTextFile(join(ROOT, name))] as const
  );
  return new Map(await Promise.all(texts));
}

/** Makes the copy of a folder have these files, and no other of these names. */
async function copyFiles(folder: string, pattern: RegExp): Promise<void> {
  const [from, to] = [join(ROOT, folder), join(COPY, folder)];
  const names = (await namesIn(from)).filter((name) => pattern.test(name));
  for (const name of await namesIn(to)) {
    const isOurs = pattern.test(name) && name !== OVERRIDE;
    if (isOurs && !names.includes(name)) await removeIfThere(join(to, name));
  }
  for (const name of names) {
    await replaceFile(join(to, name), await Deno.readFile(join(from, name)));
  }
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
