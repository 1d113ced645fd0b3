/** What an error, or a failure of Terraform's, means to the user, in one sentence. */

import { stripVTControlCharacters } from "node:util";
import { shellWord } from "./commands.ts";
import { ROOT } from "./shell.ts";
import { UserError, visible } from "./terminal.ts";
import { isLocalWorkspace } from "./workspace.ts";

type Environment = Record<string, string | undefined>;

/** What to do about a text that matches a pattern, as a sentence's second half. The first one counts. */
type Remedies = [pattern: RegExp, remedy: string][];

/** What to do about it, by what AWS answers; Terraform writes the same words. */
const AWS_REMEDIES: Remedies = [
  [
    /ExpiredToken|RequestExpired|InvalidClientTokenId|UnrecognizedClient|security token included/,
    "AWS does not accept the credentials (any more); get new ones, then run it again",
  ],
  [
    /RequestTimeTooSkewed|SignatureDoesNotMatch|Signature expired|Signature not yet current/,
    "AWS does not accept the signature; set this machine's clock, then run it again",
  ],
  [
    /not authorized to perform|AccessDenied|UnauthorizedOperation/,
    "the role that this runs as lacks a permission, which is named above; add it, then run it again",
  ],
];

/** The ways to credentials, for where none are found. */
const SIGN_IN = "run it on an EC2 instance with a role, or by an SSO profile (AWS_PROFILE), a " +
  "container's role or a pipeline's (docs/SECURITY.md), or try it without AWS with --local";

/** What to do where signing in failed, in the words of the SDK, of STS and of Terraform's provider. */
const SIGN_IN_REMEDIES: Remedies = [
  [
    /To refresh this SSO|SSO session has expired|cached SSO token(?!.*send failed)|Session token not found/,
    "the SSO session has expired, or there is none; run aws sso login with the same AWS_PROFILE",
  ],
  [ // a session that such a token gave expires in other words
    /Token expired: current date/,
    "the pipeline's token has expired; have a new one written to AWS_WEB_IDENTITY_TOKEN_FILE",
  ],
  [
    /InvalidIdentityToken|perform:? sts:AssumeRoleWithWebIdentity/,
    "the role of AWS_ROLE_ARN does not let this pipeline in; docs/SECURITY.md has what does",
  ],
];

/** What to do about what the system refuses, in its own words: every program repeats them. */
const SYSTEM_REMEDIES: Remedies = [
  [/no space left on device|quota exceeded/i, "the disk is full; make room, then run it again"],
  [/read-only file system/i, "this is mounted read-only; use a clone that can be written"],
  [
    /permission denied|operation not permitted/i,
    "that is another user's; use a clone of your own, or, if a task was run with sudo here, " +
    `sudo chown -R "$(id -un)" ${shellWord(ROOT)}`,
  ],
  [/too many open files/i, "a limit of this shell is too low; ulimit -n 4096, then run it again"],
];

/** What to do where nobody answered, or something between here and AWS did: Node's words, and Terraform's. */
const NETWORK_REMEDIES: Remedies = [
  [
    /Proxy Authentication Required|proxyconnect|ERR_PROXY_TUNNEL/i,
    "the proxy can't be reached, or refused; check HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT, or ask " +
    "those who run it to let this machine through to *.amazonaws.com",
  ],
  [
    /x509:|(peer|self-signed) certificate|certificate signed by|CERT_|_CERT\b|UNABLE_TO_|ERR_(TLS|SSL)/,
    "a certificate is not trusted; if a proxy opens TLS here, name its certificate in AWS_CA_BUNDLE",
  ],
  [
    /no such host|i\/o timeout|connection refused|no route to host|network is unreachable|TimeoutError|\b(ECONN\w+|EHOSTUN\w+|ENET\w+|E\w*TIMEDOUT|ENOTFOUND|EAI_\w+|EPIPE|EPROTO|ERR_SOCKET\w+)\b/,
    "AWS can't be reached; check the network, the region, HTTPS_PROXY and NO_PROXY",
  ],
];

function remedyOf(text: string, remedies: Remedies): string | undefined {
  return remedies.find(([pattern]) => pattern.test(text))?.[1];
}

/**
 * The sentence that a task ends with; undefined for an error that only a fault of the task's own
 * explains.
 */
export function toSentence(error: unknown, environment: Environment): string | undefined {
  if (error instanceof UserError) return error.message;
  if (!(error instanceof Error)) return undefined;
  return signInSentence(error, environment) ?? networkSentence(error) ?? refusalSentence(error) ??
    systemSentence(error);
}

/** Nobody is signed in, or not any more: a session may end while a task runs. */
function signInSentence({ name, message }: Error, environment: Environment): string | undefined {
  const remedy = remedyOf(`${name} ${message}`, SIGN_IN_REMEDIES);
  if (remedy !== undefined) return `Not signed in to AWS: ${remedy}`;
  if (name !== "CredentialsProviderError") return undefined;

  const names = Object.keys(environment).join(" ");
  const [given] = /\bAWS_(PROFILE|CONTAINER_CREDENTIALS_\w+_URI)\b/.exec(names) ?? [];
  if (given) return `${given} gives no AWS credentials (${visible(message)}): correct or unset it`;
  // https://repost.aws/knowledge-center/ec2-linux-metadata-retrieval
  return `No AWS credentials found (${visible(message)}): ${SIGN_IN}\nOn an instance with a role ` +
    "AWS_EC2_METADATA_DISABLED may be set, or the metadata service be off, or too many hops away " +
    "from a container: aws ec2 modify-instance-metadata-options --http-endpoint enabled " +
    "--http-put-response-hop-limit 2 --instance-id ID";
}

/** The system did not let a file be opened, written or run. */
function systemSentence(error: Error): string | undefined {
  for (const { code = "", message } of chainOf(error)) {
    if (!/^E[A-Z0-9]+$/.test(code)) continue; // not the system's
    const refusal = `This machine refused: ${visible(message.replace(/ \(os error \d+\)/, ""))}`;
    return withRemedy(refusal, remedyOf(message, SYSTEM_REMEDIES));
  }
}

/** AWS answered, and the answer is no. */
function refusalSentence(error: Error): string | undefined {
  const status = statusOf(error);
  if (status === undefined) return undefined;
  // An answer to HEAD has no body, so the SDK finds no reason in it.
  const reason = error.message === "UnknownError"
    ? `HTTP ${status}, without a reason`
    : `${visible(error.name)}: ${visible(error.message)}`;
  const refusal = `AWS refused: ${reason}`;
  return withRemedy(refusal, remedyOf(`${error.name} ${error.message}`, AWS_REMEDIES));
}

/** What was refused and, on a line of its own, what to do about it. */
function withRemedy(refusal: string, remedy: string | undefined): string {
  return remedy === undefined
    ? refusal
    : `${refusal}\n${remedy[0].toUpperCase()}${remedy.slice(1)}`;
}

/** Nobody answered, or something between here and AWS did. */
function networkSentence(error: Error): string | undefined {
  for (const { name, code = "", message } of chainOf(error)) {
    const words = statusOf(error) === undefined ? message : ""; // those of an answer are AWS's
    const remedy = remedyOf(`${name} ${code} ${words}`, NETWORK_REMEDIES);
    if (remedy !== undefined) {
      return withRemedy(`The connection failed: ${visible(message || code)}`, remedy);
    }
  }
}

/** The status of AWS's answer: the SDK gives $metadata to every error, a status only to an answer. */
export function statusOf(error: Error): number | undefined {
  return (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;
}

/** An error, the errors it gathers and the ones that caused it. */
function* chainOf(error: Error): Generator<Error & { code?: string }> {
  yield error;
  const inner = error instanceof AggregateError ? error.errors : [];
  for (const next of [...inner, error.cause]) if (next instanceof Error) yield* chainOf(next);
}

/** What to do about a failure, by what Terraform writes. */
const TERRAFORM_REMEDIES: Remedies = [
  ...SIGN_IN_REMEDIES,
  [
    // Not where SSO or STS could not be reached: then the network is what to mend.
    /^(?!.*error (SSO|STS)\b.*send failed).*(No valid credential|refresh cached cred|no EC2 IMDS role)/,
    `no AWS credentials were found; ${SIGN_IN}`,
  ],
  [
    /state migration|-migrate-state/,
    "the state is not where backend.tf wants it; terraform init -migrate-state moves it there",
  ],
  [
    /couldn't find resource.*data\.aws_s3_bucket\.existing/,
    "existing_bucket names a bucket that does not exist; correct that, or where it was deleted make it again, or run destroy",
  ],
  [ // the provider's words for whatever S3 refuses
    /(empty result|StatusCode: (30\d|403)).*data\.aws_s3_bucket\.existing/,
    "existing_bucket is in another region (set aws_region to it), another account's, or this machine's role may not list it (docs/existing_bucket_policy.json)",
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
    /invalid AWS Region/i,
    "the aws provider here knows no such region; correct aws_region (for example eu-central-1), or, " +
    "if AWS has opened it lately, move to a newer provider as docs/OPERATE.md says of Node 24",
  ],
  [
    /expected (lambda_)?runtime to be one of/,
    "the aws provider here does not know this lambda_runtime; docs/OPERATE.md says under Node 24 how " +
    "to get a newer provider",
  ],
  [
    /is required by the backend|Missing region value/,
    "the backend's settings are not all in its block; run terraform init -backend-config=FILE, and " +
    "then this again",
  ],
  [
    /Failed to (query available provider packages|install provider)/,
    "it got no aws provider; is the registry reachable, perhaps through HTTPS_PROXY?",
  ],
  ...NETWORK_REMEDIES,
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
    remedyOf(text, TERRAFORM_REMEDIES);
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
