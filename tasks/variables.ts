/** Which files give Terraform's variables their values. */

import { join } from "node:path";
import { namesIn, replaceFile } from "./files.ts";
import { ROOT } from "./shell.ts";

/** The region that the stand-in plays. */
export const LOCAL_REGION = "us-east-1";

/** Null for every variable: its default, whatever terraform.tfvars says of it. */
const DEFAULTS = "build/defaults.tfvars.json";

/** What Terraform reads by itself: https://developer.hashicorp.com/terraform/language/values/variables#variable-definitions-tfvars-files */
const AUTOMATIC = /^terraform\.tfvars(\.json)?$|\.auto\.tfvars(\.json)?$/;

/** The values of a workspace's variables. */
export interface Sources {
  /** Files that are read after Terraform's own, from the project's folder. */
  files: string[];
  /** One line for people. */
  says: string;
}

/** Arguments for plan and all that plans, and the line that says which values they give. */
export async function variableSources(
  workspace: string,
): Promise<{ args: string[]; says: string }> {
  const shell = Object.keys(Deno.env.toObject());
  const { files, says } = sourcesOf(workspace, await namesIn(ROOT), shell);
  const all = isLocalWorkspace(workspace) ? [await writeDefaults(), ...files] : files;
  return { args: all.map((file) => `-var-file=${file}`), says };
}

/**
 * On AWS Terraform's own files and TF_VAR_ count, then NAME.tfvars. On the stand-in the defaults
 * count, then NAME.tfvars, then local-NAME.tfvars: the others are meant for AWS. The demo's workspace
 * is no environment that --env could name, and has no files.
 */
export function sourcesOf(workspace: string, names: string[], shell: string[]): Sources {
  const automatic = names.filter((name) => AUTOMATIC.test(name));
  const own = (owner: string) =>
    [`${owner}.tfvars`, `${owner}.tfvars.json`].filter((name) => names.includes(name));
  const list = (read: string[]) => `Variables: ${read.join(", ") || "all at their defaults"}`;

  if (!isLocalWorkspace(workspace)) {
    const files = own(workspace).filter((name) => !AUTOMATIC.test(name));
    const variables = shell.filter((name) => name.startsWith("TF_VAR_"));
    return { files, says: list([...variables, ...automatic, ...files]) };
  }
  const name = workspace.replace(/^local-?/, "");
  const files = name.startsWith("-") ? [] : [...(name ? own(name) : []), ...own(workspace)];
  const unread = automatic.length === 0 ? "" : `; for AWS, not read here: ${automatic.join(", ")}`;
  return { files, says: list(files) + unread };
}

/** Whether a workspace is the stand-in's: `local` and whatever begins with `local-`. */
export function isLocalWorkspace(workspace: string): boolean {
  return /^local(-|$)/.test(workspace);
}

/** The names of all variables, as variables.tf declares them. */
export async function variableNames(): Promise<string[]> {
  const text = await Deno.readTextFile(join(ROOT, "variables.tf"));
  return [...text.matchAll(/^variable "(\w+)"/gm)].map(([, name]) => name);
}

/** Writes the file that sets every variable to its default, and returns its path from the root. */
export async function writeDefaults(): Promise<string> {
  const nulls = (await variableNames()).map((name) => [name, null]);
  const text = JSON.stringify({ ...Object.fromEntries(nulls), aws_region: LOCAL_REGION }, null, 2);
  await replaceFile(join(ROOT, DEFAULTS), new TextEncoder().encode(text));
  return DEFAULTS;
}
