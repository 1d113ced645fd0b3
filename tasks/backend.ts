/**
 * The stand-in's own Terraform folder. Terraform runs there in a copy of the configuration, in which a
 * backend of its own overrides the user's and keeps the states in this folder, where no
 * `terraform init -migrate-state` finds them. The proof after a destroy runs there, too.
 */

import { join } from "node:path";
import { removeIfThere, replaceFile } from "./files.ts";
import { ROOT } from "./shell.ts";
import { LOCAL_FOLDER } from "./tools.ts";

const FOLDER = join(LOCAL_FOLDER, "terraform");

/** The last override counts: https://developer.hashicorp.com/terraform/language/files/override */
const OVERRIDE = "zz_local_override.tf";

/** What Terraform reads. It passes by hidden files, as editors make them, but for its lock file. */
const COPIED = /^([^.].*\.(tf|tfvars|hcl|tftpl)(\.json)?|\.terraform\.lock\.hcl|lambda\.zip)$/;

/** Folders without any of it: hidden ones, packages, and what tasks remove again. */
const LEFT_OUT = /^\.|^node_modules$|^tmp-/;

/** Where a workspace's state is. With a folder by another name `terraform state rm` fails. */
export function stateFolder(workspace: string): string {
  return join(FOLDER, "terraform.tfstate.d", workspace);
}

/** A folder for Terraform to run in. */
export interface OwnFolder {
  /** Comes before the command. */
  args: string[];
  env: Record<string, string>;
}

/** Makes the folder have the configuration as it is now. */
export async function ownFolder(): Promise<OwnFolder> {
  await Deno.mkdir(FOLDER, { recursive: true });
  const override = 'terraform {\n  backend "local" {}\n}\n';
  await replaceFile(join(FOLDER, OVERRIDE), new TextEncoder().encode(override));
  const paths = await filesBelow(ROOT);
  for (const path of await filesBelow(FOLDER)) {
    if (path !== OVERRIDE && !paths.includes(path)) await removeIfThere(join(FOLDER, path));
  }
  for (const path of paths) {
    await replaceFile(join(FOLDER, path), await Deno.readFile(join(ROOT, path)));
  }
  return { args: [`-chdir=${FOLDER}`], env: { TF_DATA_DIR: join(FOLDER, ".terraform") } };
}

/** The paths of what is copied, from a folder on. */
async function filesBelow(folder: string, path = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(join(folder, path))) {
    if (!isDirectory) found.push(...(COPIED.test(name) ? [join(path, name)] : []));
    else if (!LEFT_OUT.test(name)) found.push(...await filesBelow(folder, join(path, name)));
  }
  return found;
}
