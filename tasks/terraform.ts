/** Running Terraform: init, plan, apply, import, and reading its outputs, states and plans. */

import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { type Filter, FILTERS } from "../handler.ts";
import { explainFailure } from "./failures.ts";
import { namesIn, temporaryFolder } from "./files.ts";
import { CANNOT_RUN, ROOT, run, RunError, type RunOptions } from "./shell.ts";
import { say, UserError, withProgress } from "./terminal.ts";
import { folderFor, variableSources } from "./workspace.ts";

/** The address of the stack's identity, which is in the state alone. */
export const STACK = "terraform_data.stack";

/** Another Terraform at work on the same state is waited for. */
const LOCK = "-lock-timeout=120s";

/** The address of the function in main.tf. */
const FUNCTION_ADDRESS = "aws_lambda_function.metadata";

/** The names of outputs.tf. */
const OUTPUTS = [
  "s3_bucket_name",
  "s3_bucket_arn",
  "dynamodb_table_name",
  "dynamodb_table_arn",
  "failure_queue_url",
  "failure_queue_arn",
  "log_group_name",
  "lambda_function_name",
  "lambda_function_arn",
  "environment",
  "account_id",
  "aws_region",
] as const;

/** Outputs that a variable of main.tf switches on. */
const OPTIONAL = [
  "table_stream_arn",
  "batch_role_arn",
  "existing_bucket",
  "notification_json",
  "notification_hcl",
  "notification_add",
  "notification_remove",
] as const;

/** Values of outputs.tf. */
export type Outputs =
  & Record<typeof OUTPUTS[number], string>
  & Required<Filter>
  & Partial<Record<typeof OPTIONAL[number], string>>;

/** A resource of a state, with the attributes that its provider keeps. */
export interface Resource {
  address: string;
  attributes: Record<string, unknown>;
  /** Terraform did not see the end of its creation, and would replace it. */
  tainted: boolean;
}

/** A state: its resources in AWS, and the region that they are in. */
export interface State {
  /** The stack's; undefined until the first apply, before which nothing exists in AWS. */
  name?: string;
  resources: Resource[];
  region: string;
  /** The bucket that is not the stack's own, and the command that takes its notification out. */
  existing?: { bucket: string; remove: string };
}

/** What a plan would do to a resource. */
export interface Change {
  address: string;
  /** For example `aws_s3_bucket`. */
  type: string;
  actions: string[];
  /** The resource's attributes as they are; empty for a new one. */
  before: Record<string, unknown>;
  /** The names of those that would change to a known value, or back after a change by hand. */
  attributes: string[];
}

/** What a plan would do, and to what. */
export interface Plan {
  /** Whether applying changes anything, be it an output alone. */
  applyable: boolean;
  /** Actions in the order of the plan, no-ops left out. */
  changes: Change[];
  outputs: Partial<Outputs>;
  /** Since when the function runs other code than Terraform deployed. */
  strayCodeSince?: string;
}

/**
 * Initialises the folder that Terraform is to run in, unless it ran there before. A folder that must
 * be initialised again is found by {@link terraform}.
 *
 * @throws {UserError} the backend fails, or the provider is nowhere to be had
 */
export async function init(folder?: string): Promise<void> {
  if (!existsSync(dataOf(folder))) await initialise(folder);
}

/** What Terraform keeps of a folder, by default of the project's. */
function dataOf(folder = ROOT): string {
  return resolve(folder, Deno.env.get("TF_DATA_DIR") || ".terraform");
}

/** Has Terraform act in a folder. */
function at(folder: string | undefined): string[] {
  return folder === undefined ? [] : [`-chdir=${folder}`];
}

/** With a provider that this machine has, else by Terraform's own way. */
async function initialise(own: string | undefined): Promise<void> {
  const init = [...at(own), "init", "-no-color", "-input=false"];
  if (own) init.push("-reconfigure"); // its backend may have been another version's
  const options = { quiet: true, env: { TF_WORKSPACE: "default" } };
  const call = (...args: string[]) => run("terraform", [...init, ...args], options);
  for (const folder of await providerFolders(own)) {
    const linked = await call(`-plugin-dir=${folder}`).then(() => true, () => false);
    if (linked) return;
  }
  await withProgress("terraform init", call())
    .catch((error) => throwExplained(error, "init", { quiet: true }));
}

/** Folders that have the provider, which is not downloaded then: what the project's has, too. */
async function providerFolders(own: string | undefined): Promise<string[]> {
  const folders = own ? [join(dataOf(), "providers")] : [];
  for (const place of [Deno.env.get("HOME") ?? "", "/opt"]) {
    const names = await namesIn(place).catch(() => []); // it may not be readable
    folders.push(...names.map((name) => join(place, name)));
  }
  return folders.filter((folder) =>
    existsSync(join(folder, "registry.terraform.io/hashicorp/aws"))
  );
}

/** What Terraform writes where plugins are missing, or do not fit the lock file, or the backend changed. */
const NOT_INITIALISED =
  /Required plugins are not installed|Backend initialization required|Module not installed/;

/** A plan in a file, which is removed at the end. */
export interface PlanFile extends AsyncDisposable {
  path: string;
}

/**
 * Plans to create and change, or to destroy: "blindly" looks at no resource and no data source first.
 * `quiet` is for a plan that nobody applies.
 */
export async function plan(
  workspace: string,
  { destroy, show, quiet }: { destroy?: true | "blindly"; show?: boolean; quiet?: boolean } = {},
): Promise<PlanFile> {
  await using held = new AsyncDisposableStack();
  const path = join(held.use(await temporaryFolder()).path, `${workspace}.tfplan`);
  const variables = await variableSources(workspace);
  if (!quiet) say(variables.line);
  const options = ["-input=false", quiet ? "-lock=false" : LOCK, `-out=${path}`];
  if (destroy) options.push("-destroy");
  if (destroy === "blindly") options.push("-refresh=false");
  const output = show ? "show" : "return";
  await terraform(workspace, ["plan", ...options, ...variables.args], { output, quiet });
  const kept = held.move();
  return { path, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/**
 * Refuses, in main.tf's own words, a region or name that is not the deployed stack's. It makes no call
 * to AWS.
 */
export async function refuseOtherStack(workspace: string): Promise<void> {
  await runOnIdentity(workspace, ["plan"]);
}

/** Puts a new stack's name into the state: even a killed apply then leaves resources of that name. */
export async function nameStack(workspace: string): Promise<void> {
  await runOnIdentity(workspace, ["apply", "-auto-approve"]);
}

/** Plans or applies the stack's identity. */
async function runOnIdentity(workspace: string, command: string[]): Promise<void> {
  const only = ["-refresh=false", `-target=${STACK}`];
  const variables = await variableSources(workspace);
  const args = [...command, "-input=false", LOCK, ...only, ...variables.args];
  await terraform(workspace, args, { quiet: true });
}

/** Applies a plan file; shows its progress, but not the outputs, which deploy prints. */
export async function apply(workspace: string, { path }: PlanFile): Promise<void> {
  const shown = { output: "show", showUntil: "Outputs:" } as const;
  await terraform(workspace, ["apply", "-input=false", LOCK, path], shown);
}

/** Takes what exists in AWS into the state. */
export async function importResource(
  workspace: string,
  address: string,
  id: string,
): Promise<void> {
  const { args } = await variableSources(workspace);
  await terraform(workspace, ["import", "-input=false", LOCK, ...args, address, id]);
}

/** Takes resources out of the state, and leaves them in AWS. */
export async function forget(workspace: string, addresses: string[]): Promise<void> {
  await terraform(workspace, ["state", "rm", LOCK, ...addresses]);
}

/**
 * The outputs; undefined if nothing is deployed.
 *
 * @throws {UserError} one is missing, as after an apply that was interrupted
 */
export async function outputs(workspace: string): Promise<Outputs | undefined> {
  const stdout = await terraform(workspace, ["output", "-json"], { quiet: true });
  const values = parse<Record<string, { value: unknown }>>(stdout, "terraform output");
  if (Object.keys(values).length === 0) return undefined;
  const isThere = (name: string) => values[name]?.value != null;
  const missing = [...OUTPUTS, ...FILTERS].find((name) => !isThere(name));
  if (missing !== undefined) {
    if (isEmpty(await pullState(workspace))) return undefined;
    throw new UserError(
      `The deployment is not complete: Terraform has no output ${missing}; deploy again`,
    );
  }
  // Just these: deploy prints them, and an output of the user's own may be a secret.
  const given = [...OUTPUTS, ...FILTERS, ...OPTIONAL].filter(isThere);
  return Object.fromEntries(given.map((name) => [name, values[name].value])) as Outputs;
}

/** The workspace's state; empty where nothing is deployed. `always`: even after Ctrl-C. */
export async function pullState(workspace: string, { always = false } = {}): Promise<State> {
  const options: RunOptions = { quiet: true, always };
  return parseState(await terraform(workspace, ["state", "pull"], options));
}

/** The SHA-256 of the code that Terraform deployed last, in base64. `always`: even after Ctrl-C. */
export async function deployedCode(workspace: string, { always = false } = {}): Promise<string> {
  const { resources } = await pullState(workspace, { always });
  const fn = resources.find(({ address }) => address === FUNCTION_ADDRESS);
  return String(fn?.attributes.source_code_hash ?? "");
}

/** Whether two are one resource, of which an earlier main.tf may have had another address. */
export function isSame(...resources: [{ address: string }, { address: string }]): boolean {
  const [one, other] = resources.map(({ address }) =>
    address.replace(/\[0\]$/, "").replace("failures_waiting", 'function["failures-waiting"]')
  );
  return one === other;
}

/** Whether a state knows of no stack, not even of a name. */
export function isEmpty({ name, resources }: State): boolean {
  return name === undefined && resources.length === 0;
}

/** A state in the words of `terraform state pull`. */
export function parseState(text: string): State {
  if (text.trim() === "") return { resources: [], region: "" };
  const { resources: all = [], outputs = {} } = parse<{
    resources?: StateResource[];
    outputs?: Record<string, { value: string }>;
  }>(text, "terraform state pull");
  const stack = all.find(({ type, name }) => type === "terraform_data" && name === "stack");
  const input = stack?.instances[0]?.attributes.input as
    | { value: { region: string; name: string; bucket?: string | null } }
    | undefined;
  // terraform_data lives in the state alone: AWS has nothing of it.
  const isInAws = ({ mode, provider }: StateResource) =>
    mode === "managed" && !provider.includes("terraform.io/builtin/");
  const resources = all.filter(isInAws).flatMap(
    ({ type, name, instances }) =>
      instances.map(({ index_key, attributes, status }) => ({
        address: `${type}.${name}` +
          (index_key === undefined ? "" : `[${JSON.stringify(index_key)}]`),
        attributes,
        tainted: status === "tainted",
      })),
  );
  const { name, region = "us-east-1", bucket } = input?.value ?? {};
  const remove = outputs.notification_remove?.value ?? "";
  return { name, resources, region, existing: bucket ? { bucket, remove } : undefined };
}

interface StateResource {
  mode: string;
  provider: string;
  type: string;
  name: string;
  instances: {
    index_key?: string | number;
    attributes: Record<string, unknown>;
    status?: "tainted";
  }[];
}

interface PlanJson {
  applyable?: boolean;
  resource_changes?: {
    address: string;
    type: string;
    change: ChangeJson;
  }[];
  /** What was changed outside Terraform. */
  resource_drift?: { address: string; change: ChangeJson }[];
  planned_values?: { outputs?: Record<string, { value?: unknown }> };
}

interface ChangeJson {
  actions: string[];
  before: Record<string, unknown> | null;
  /** What is not known before the apply is left out. */
  after?: Record<string, unknown> | null;
}

/** What a plan file holds. */
export async function readPlan(workspace: string, { path }: PlanFile): Promise<Plan> {
  return parsePlan(await terraform(workspace, ["show", "-json", path], { quiet: true }));
}

/** The plan in the JSON of `terraform show`: https://developer.hashicorp.com/terraform/internals/json-format#plan-representation */
export function parsePlan(json: string): Plan {
  const { applyable = true, resource_changes = [], resource_drift = [], planned_values } = parse<
    PlanJson
  >(json, "terraform show");
  const drift = new Map(resource_drift.map(({ address, change }) => [address, change]));
  const changes = resource_changes
    .map(({ address, type, change }) => ({
      address,
      type,
      actions: change.actions,
      before: change.before ?? {},
      attributes: attributesOf(change, drift.get(address)),
    }))
    .filter(({ actions }) => !["no-op", "read"].includes(actions[0]));
  const values = Object.entries(planned_values?.outputs ?? {});
  const fn = resource_changes.find(({ address }) => address === FUNCTION_ADDRESS)?.change.before;
  // What Terraform sent (unknown of an imported function), and what the provider has just read.
  const isStray = fn?.source_code_hash && fn.source_code_hash !== fn.code_sha256;
  return {
    applyable,
    changes,
    outputs: Object.fromEntries(values.map(([name, { value }]) => [name, value])),
    strayCodeSince: isStray ? String(fn.last_modified) : undefined,
  };
}

function attributesOf({ before, after }: ChangeJson, drift?: ChangeJson): string[] {
  const drifted = drift === undefined ? [] : attributesOf(drift);
  const names = new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})]);
  return [...names].filter((name) =>
    after && name in after
      ? JSON.stringify(after[name]) !== JSON.stringify(before?.[name])
      : drifted.includes(name)
  );
}

async function terraform(
  workspace: string,
  args: string[],
  options: RunOptions = {},
): Promise<string> {
  const own = await folderFor(workspace);
  const [command, ...rest] = args;
  const plain = Deno.stderr.isTerminal() && !Deno.noColor ? [] : ["-no-color"];
  const words = command === "state" ? args : [command, ...plain, ...rest];
  const call = () =>
    run("terraform", [...at(own), ...words], {
      output: "return",
      ...options,
      env: { TF_WORKSPACE: workspace, TF_IN_AUTOMATION: "1" },
    });
  return await call().catch(async (error) => {
    if (!(error instanceof RunError) || !NOT_INITIALISED.test(error.stderr)) throw error;
    await initialise(own);
    return await call();
  }).catch((error) => throwExplained(error, command, { workspace, quiet: options.quiet }));
}

/** Throws a failure of Terraform's with the sentence that explains it, and with what was not shown yet. */
function throwExplained(
  error: unknown,
  command: string,
  { workspace, quiet }: { workspace?: string; quiet?: boolean },
): never {
  if (!(error instanceof RunError) || CANNOT_RUN.includes(error.code)) throw error;
  const sentence = explainFailure(command, error.code, error.stderr, workspace);
  const message = quiet ? `${error.stderr.trim()}\n${sentence}` : sentence;
  throw new UserError(message);
}

/** JSON from Terraform's standard output, on which a wrapper may print lines of its own. */
function parse<T>(text: string, command: string): T {
  try {
    return JSON.parse(text);
  } catch {
    const line = text.trimStart().split("\n", 1)[0].slice(0, 80);
    throw new UserError(
      `Cannot read the JSON of ${command}: it begins with "${line}"; does a wrapper around terraform print to standard output?`,
    );
  }
}
