/**
 * Where Terraform runs for a workspace, and which files give its variables. A workspace of AWS has
 * the project's folder; one of the stand-in has a copy of it, with the user's backend overridden and
 * the states below, where no `terraform init -migrate-state` finds them.
 */

import { join } from "node:path";
import { namesIn, removeIfThere, replaceFile } from "./files.ts";
import { LOCAL_FOLDER, ROOT } from "./shell.ts";

/** The region that the stand-in plays. */
export const LOCAL_REGION = "us-east-1";

/** What Terraform reads by itself: https://developer.hashicorp.com/terraform/language/values/variables#variable-definitions-tfvars-files */
const AUTOMATIC = /^terraform\.tfvars(\.json)?$|\.auto\.tfvars(\.json)?$/;

/** The stand-in's own Terraform folder. */
const COPY = join(LOCAL_FOLDER, "terraform");

/** The last override counts: https://developer.hashicorp.com/terraform/language/files/override */
const OVERRIDE = "zz_local_override.tf";

/** What Terraform reads; of hidden files, as editors make them, only its lock file. */
const COPIED = /^([^.].*\.(tf|tfvars|hcl|tftpl)(\.json)?|\.terraform\.lock\.hcl|lambda\.zip)$/;

/** Folders without any of it: hidden ones, packages, and what tasks remove again. */
const LEFT_OUT = /^\.|^node_modules$|^tmp-/;

/** Whether a workspace is the stand-in's: `local` and whatever begins with `local-`. */
export function isLocalWorkspace(workspace: string): boolean {
  return /^local(-|$)/.test(workspace);
}

/** Where the state of a stand-in's workspace is. In a folder by another name `terraform state rm` fails. */
export function stateFolder(workspace: string): string {
  return join(COPY, "terraform.tfstate.d", workspace);
}

/** Where Terraform runs for a workspace, if not in the project's folder. */
export async function folderFor(workspace: string): Promise<string | undefined> {
  return isLocalWorkspace(workspace) ? await ownFolder() : undefined;
}

/** The stand-in's folder, which has the configuration as it is now, but no variables meant for AWS. */
export async function ownFolder(): Promise<string> {
  const override = 'terraform {\n  backend "local" {}\n}\n';
  await replaceFile(join(COPY, OVERRIDE), new TextEncoder().encode(override));
  const paths = (await filesBelow(ROOT)).filter((path) => !AUTOMATIC.test(path));
  for (const path of await filesBelow(COPY)) {
    if (path !== OVERRIDE && !paths.includes(path)) await removeIfThere(join(COPY, path));
  }
  for (const path of paths) {
    await replaceFile(join(COPY, path), await Deno.readFile(join(ROOT, path)));
  }
  return COPY;
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

/** Arguments for plan and all that plans, and one line for people that says which values they give. */
export async function variableSources(
  workspace: string,
): Promise<{ args: string[]; line: string }> {
  const shell = Object.keys(Deno.env.toObject());
  const { files, line } = sourcesOf(workspace, await namesIn(ROOT), shell);
  return { args: files.map((file) => `-var-file=${file}`), line };
}

/**
 * The files that are read after Terraform's own. On AWS Terraform's own files and TF_VAR_ count, then
 * NAME.tfvars. On the stand-in NAME.tfvars, then local-NAME.tfvars: the others are meant for AWS. The
 * demo's workspace is no environment that --env could name, and has no files.
 */
export function sourcesOf(workspace: string, names: string[], shell: string[]) {
  const automatic = names.filter((name) => AUTOMATIC.test(name));
  const others = names.filter((name) => !AUTOMATIC.test(name));
  const own = (owner: string) =>
    [`${owner}.tfvars`, `${owner}.tfvars.json`].filter((name) => others.includes(name));
  const list = (read: string[]) => `Variables: ${read.join(", ") || "all at their defaults"}`;

  if (!isLocalWorkspace(workspace)) {
    const files = own(workspace);
    const variables = shell.filter((name) => name.startsWith("TF_VAR_"));
    return { files, line: list([...variables, ...automatic, ...files]) };
  }
  const name = workspace.replace(/^local-?/, "");
  const files = name.startsWith("-") ? [] : [...(name ? own(name) : []), ...own(workspace)];
  const unread = automatic.length === 0 ? "" : `; for AWS, not read here: ${automatic.join(", ")}`;
  return { files, line: list(files) + unread };
}
