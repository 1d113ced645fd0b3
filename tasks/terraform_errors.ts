/** What a failure of Terraform's means to the user, in one sentence. */

import { stripVTControlCharacters } from "node:util";
import { AWS_REMEDIES, remedyOf, SYSTEM_REMEDIES } from "./failures.ts";
import { visible } from "./terminal.ts";
import { isLocalWorkspace } from "./workspace.ts";

/** What to do about a failure, by what Terraform writes. */
const REMEDIES: [pattern: RegExp, remedy: string][] = [
  [
    /No valid credential sources|failed to refresh cached credentials|no EC2 IMDS role found/,
    "no AWS credentials were found; run it on an EC2 instance with a role",
  ],
  [
    /invalid AWS Region/i,
    "the aws provider here knows no such region; correct aws_region (for example eu-central-1), or, if AWS has opened it lately, move to a newer provider as docs/OPERATE.md says of Node 24",
  ],
  [
    /expected (lambda_)?runtime to be one of/,
    "the aws provider here does not know this lambda_runtime; docs/OPERATE.md says under Node 24 how to get a newer provider",
  ],
  [
    /is required by the backend|Missing region value/,
    "the backend's settings are not all in its block; run terraform init -backend-config=FILE, and then this again",
  ],
  [
    /state migration|-migrate-state/,
    "the state is not where backend.tf wants it; terraform init -migrate-state moves it there",
  ],
  [
    /Configuration for import target does not exist/,
    "a variable switches off what is to be imported; set batch_backfill = true, run it again, and then switch it off",
  ],
  [ // https://github.com/hashicorp/terraform-provider-aws/issues/19088
    /Unable to validate the following destination configurations/,
    "S3 could not see the function's new permission yet, as happens once in a while; run it again",
  ],
  ...AWS_REMEDIES,
  ...SYSTEM_REMEDIES,
  [
    /Proxy Authentication Required/i,
    "the proxy asks for a name and a password: HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT",
  ],
  [
    /proxyconnect/,
    "the proxy of HTTPS_PROXY can't be reached; check it and the network",
  ],
  [
    /x509:|certificate signed by unknown authority/,
    "a certificate is not trusted; if a proxy opens TLS here, name its certificate in AWS_CA_BUNDLE",
  ],
  [
    /Failed to (query available provider packages|install provider)/,
    "it got no aws provider; is the registry reachable, perhaps through HTTPS_PROXY?",
  ],
  [
    /no such host|i\/o timeout|connection refused|no route to host|network is unreachable/,
    "AWS can't be reached; check the network, the region and HTTPS_PROXY",
  ],
];

/** The sentence to end with, when `terraform COMMAND` has failed in a workspace. */
export function explainFailure(
  command: string,
  code: number,
  stderr: string,
  workspace = "default",
): string {
  const errors = errorsOf(stderr);
  // Terraform wraps its messages anywhere.
  const text = errors.join("\n").replace(/\s+/g, " ");
  const remedy = lockRemedy(text, workspace) ?? stateRemedy(text, workspace) ??
    remedyOf(text, REMEDIES);
  if (remedy !== undefined) return `terraform ${command} failed: ${remedy}`;
  if (errors.length === 0) return `terraform ${command} failed with exit code ${code}, see above`;
  const more = errors.length === 1 ? "" : ` (and ${errors.length - 1} more above)`;
  return `terraform ${command} failed: ${summaryOf(errors[0])}${more}`;
}

/** What to do about a lock, by what Terraform writes of it: its id, and who holds it. */
function lockRemedy(text: string, workspace: string): string | undefined {
  if (!text.includes("Error acquiring the state lock")) return undefined;
  const [, id = "ID"] = /\bID: ([\w-]+)/.exec(text) ?? [];
  const [, who = "somebody"] = /\bWho: (\S+)/.exec(text) ?? [];
  const wait = `another Terraform works on this state, of ${visible(who)}; wait for it`;
  // The system frees the lock of a file when its process ends; the lock in a bucket stays.
  return /temporarily unavailable/.test(text)
    ? wait
    : `${wait}, or if it was killed run TF_WORKSPACE=${workspace} terraform force-unlock ${id}`;
}

/** What to do about a state that could not be written at an apply's end, as on a full disk. */
function stateRemedy(text: string, workspace: string): string | undefined {
  if (!text.includes("Failed to persist state to backend")) return undefined;
  return isLocalWorkspace(workspace)
    ? "the stand-in's state was not saved, as shown above; mend that, then destroy and deploy again"
    : "the state was not saved, as shown above; mend that, then save it from errored.tfstate (or from " +
      `what is printed above): TF_WORKSPACE=${workspace} terraform state push errored.tfstate`;
}

/** Terraform's errors, each from its word "Error:" on, without warnings and frames. */
function errorsOf(stderr: string): string[] {
  const lines = stripVTControlCharacters(stderr).split(/\r?\n/)
    .map((line) => line.replace(/^[╷│╵] ?/, ""));
  return `\n${lines.join("\n")}`.split(/\n(?=Error: |Warning: )/)
    .filter((part) => part.startsWith("Error: "))
    .map((part) => part.slice("Error: ".length).trim());
}

/** An error's first line and, after the place that it names, the paragraph that says why. */
function summaryOf(error: string): string {
  const [summary, ...paragraphs] = error.split(/\n\s*\n/);
  const why = paragraphs.find((paragraph) => /^\S/.test(paragraph));
  return [summary, why].filter((part) => part !== undefined)
    .map((part) => part.replace(/\s+/g, " ").trim()).join(": ");
}
