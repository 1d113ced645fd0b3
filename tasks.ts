/**
 * Builds, deploys, verifies and destroys the pipeline.
 *
 *   deno task build                       bundle and zip the function
 *   deno task plan                        show what deploy would change
 *   deno task deploy [--yes]              build, then create or update the stack
 *   deno task verify [--json]             upload real files and check their rows
 *   deno task status [--json]             the stack on one screen; fails if it needs a person
 *   deno task logs [--since 15m] [--follow] [--json]     the function's log
 *   deno task replay [--dry-run] [--max N] [--json]      run failed events again
 *   deno task backfill [--prefix P] [--dry-run] [--concurrency N] [--json]
 *                                         record the objects that have no row
 *   deno task destroy [--yes]             empty the bucket, remove everything, prove it
 *   deno task demo                        deploy, verify and destroy on this machine, without AWS
 *   deno task test                        run every check and test
 *
 * All from plan to destroy take `--env NAME` (an environment of its own) and `--local` (on the
 * stand-in instead of AWS).
 */

import { Agent } from "node:https";
import { parseArgs } from "node:util";
import { join } from "node:path";
import { CloudWatchClient } from "@aws-sdk/client-cloudwatch";
import { CloudWatchLogsClient } from "@aws-sdk/client-cloudwatch-logs";
import { DynamoDBClient, paginateScan } from "@aws-sdk/client-dynamodb";
import { LambdaClient } from "@aws-sdk/client-lambda";
import { S3Client } from "@aws-sdk/client-s3";
import { SQSClient } from "@aws-sdk/client-sqs";
import { backfillRows, backfillToText } from "./tasks/backfill.ts";
import { countVersions, emptyBucket } from "./tasks/bucket.ts";
import { build, sha256Of, ZIP_URL } from "./tasks/build.ts";
import { enterLocal, isLocalWorkspace, type Local, stopLocal } from "./tasks/stand_in.ts";
import { logToText, readLog } from "./tasks/logs.ts";
import { replayFailures, replayToText } from "./tasks/replay.ts";
import {
  handleSignals,
  interrupted,
  InterruptedError,
  pause,
  repeat,
  ROOT,
  run,
  say,
  UserError,
} from "./tasks/shell.ts";
import type { Clients } from "./tasks/function.ts";
import { readStatus, statusToText } from "./tasks/status.ts";
import * as terraform from "./tasks/terraform.ts";
import { visible } from "./tasks/terminal.ts";
import { reportToText, verifyStack } from "./tasks/verify.ts";

const TASKS: Record<string, { run: (options: Options) => Promise<void>; flags: string[] }> = {
  build: { run: buildTask, flags: [] },
  plan: { run: planTask, flags: ["env", "local"] },
  deploy: { run: deployTask, flags: ["env", "local", "yes"] },
  verify: { run: verifyTask, flags: ["env", "local", "json"] },
  status: { run: statusTask, flags: ["env", "local", "json"] },
  logs: { run: logsTask, flags: ["env", "local", "json", "since", "follow"] },
  replay: { run: replayTask, flags: ["env", "local", "json", "dry-run", "max"] },
  backfill: {
    run: backfillTask,
    flags: ["env", "local", "json", "prefix", "dry-run", "concurrency"],
  },
  destroy: { run: destroyTask, flags: ["env", "local", "yes"] },
  demo: { run: demoTask, flags: [] },
  test: { run: testTask, flags: [] },
};

const USAGE = `usage: deno task ${Object.keys(TASKS).join("|")}
  with [--env NAME] [--local] [--yes] [--json], logs: [--since 15m] [--follow],
  replay: [--dry-run] [--max N], backfill: [--prefix P] [--dry-run] [--concurrency N]`;

/** An event's row is awaited so long: on AWS a new notification and new rights take minutes to spread. */
const AWS_DEADLINE_MS = 240_000;
const LOCAL_DEADLINE_MS = 30_000;

/** Objects and rows are counted no further than this before destroy. */
const COUNT_LIMIT = 10_000;

interface Options {
  env?: string;
  local: boolean;
  yes: boolean;
  json: boolean;
  since?: string;
  follow?: boolean;
  "dry-run"?: boolean;
  max?: string;
  prefix?: string;
  concurrency?: string;
  /** Plans are not shown whole. */
  brief?: boolean;
}

/** Where a task acts: a workspace, on AWS or on the stand-in. */
export interface Target {
  workspace: string;
  local?: Local;
}

async function buildTask(): Promise<void> {
  const { zip, sha256 } = await build();
  await Deno.mkdir(new URL(".", ZIP_URL), { recursive: true });
  const part = new URL(`lambda.zip.${Deno.pid}`, ZIP_URL);
  await Deno.writeFile(part, zip);
  await Deno.rename(part, ZIP_URL); // whole or not at all, whoever reads it meanwhile
  console.log(`build/lambda.zip  ${zip.length} bytes  SHA-256 ${sha256}`);
}

async function planTask(options: Options): Promise<void> {
  await buildTask();
  await withTarget(options, (target) => withPlan(target, options, () => Promise.resolve()));
}

async function deployTask(options: Options): Promise<void> {
  await buildTask();
  await withTarget(options, (target) => deploy(target, options), { alone: true });
}

async function deploy(target: Target, options: Options): Promise<void> {
  await withPlan(target, options, async (plan, file) => {
    if (plan.applyable) {
      await confirm(options, "Apply this plan?");
      await terraform.apply(target.workspace, file);
      // On a terminal Terraform has just shown them.
      if (Deno.stdout.isTerminal() && Deno.stderr.isTerminal()) return;
    }
    const outputs = await terraform.outputs(target.workspace);
    for (const [name, value] of Object.entries(outputs ?? {})) console.log(`${name} = ${value}`);
  });
}

async function verifyTask(options: Options): Promise<void> {
  await onStack(options, (stack, clients, target) => verify(stack, clients, target, options));
}

async function verify(
  stack: terraform.Outputs,
  clients: Clients,
  target: Target,
  options: Options,
): Promise<void> {
  const report = await verifyStack(stack, clients, { deadlineMs: deadlineOf(target) });
  print(options, report, reportToText);
  if (!report.ok) throw new UserError("verify failed: what is wrong stands above");
}

async function statusTask(options: Options): Promise<void> {
  await onStack(options, async (stack, clients) => {
    const zip = await Deno.readFile(ZIP_URL).catch(() => undefined);
    const status = await readStatus(stack, clients, zip && sha256Of(zip));
    print(options, status, (status) => statusToText(status, Date.now()));
    if (!status.ok) throw new UserError("The stack needs a person: why stands above");
  });
}

async function logsTask(options: Options): Promise<void> {
  const sinceMs = Date.now() - parseDuration(options.since ?? "15m");
  await onStack(options, async (stack, { logs }) => {
    const { log_group_name: group } = stack;
    try {
      for await (const event of readLog(logs, group, { sinceMs, follow: options.follow })) {
        const line = options.json ? event.message.trimEnd() : logToText(event);
        if (line !== undefined && !await printLine(line)) return;
      }
    } catch (error) {
      if (!options.follow || !interrupted.aborted) throw error; // Ctrl-C is how following ends
    }
  });
}

async function replayTask(options: Options): Promise<void> {
  const max = parseCount("--max", options.max, Infinity);
  await onStack(options, async (stack, clients) => {
    const report = await replayFailures(stack, clients, { dryRun: !!options["dry-run"], max });
    print(options, report, replayToText);
    interrupted.throwIfAborted();
    if (!report.ok) throw new UserError("Not every event went through: why stands above");
  }, { alone: true });
}

async function backfillTask(options: Options): Promise<void> {
  const concurrency = parseCount("--concurrency", options.concurrency, 8, 100);
  const { prefix = "", "dry-run": dryRun = false } = options;
  await onStack(options, async (stack, clients, target) => {
    const report = await backfillRows(stack, clients, {
      prefix,
      dryRun,
      concurrency,
      settleMs: deadlineOf(target),
    });
    print(options, report, backfillToText);
    interrupted.throwIfAborted();
    if (!report.ok) throw new UserError("Not every object has its row: why stands above");
  }, { alone: true });
}

async function destroyTask(options: Options): Promise<void> {
  const nothing = () => say(`Nothing is deployed ${place(options)}: there is nothing to destroy`);
  await withTarget(options, (target) => destroy(target, options, nothing), {
    otherwise: nothing,
    alone: true,
  });
}

async function destroy(target: Target, options: Options, nothing: () => void): Promise<void> {
  const { workspace, local } = target;
  const state = await terraform.pullState(workspace);
  if (state.resources.length === 0) {
    if (local) await stopLocal(workspace);
    return nothing();
  }
  if (!local) await checkCredentials();
  await terraform.refuseOtherStack(workspace);

  await sayWhatIsLost(target, options, state);
  await confirm(options, "Destroy all of it, for good?");

  const bucket = find(state.resources, "aws_s3_bucket");
  if (bucket) await emptyWithProgress(clientsOf(target, state.region), String(bucket.id));
  await withTemporaryFile(`before-${workspace}.tfstate`, async (file) => {
    await Deno.writeTextFile(file, state.text);
    await terraform.plan(workspace, `${file}.tfplan`, { destroy: true });
    await terraform.apply(workspace, `${file}.tfplan`);
    say("Asking AWS for each resource of the old state ...");
    const left = await terraform.stillThere(workspace, file, state.resources);
    const total = state.resources.length;
    console.log(`${total - left.length} of ${total} resources gone`);
    if (left.length > 0) throw new UserError(`Still there after destroy: ${left.join(", ")}`);
  });
  if (local) await stopLocal(workspace);
}

async function sayWhatIsLost(
  target: Target,
  options: Options,
  { resources, region }: terraform.State,
): Promise<void> {
  const bucket = find(resources, "aws_s3_bucket");
  const table = find(resources, "aws_dynamodb_table");
  const { s3, dynamo } = clientsOf(target, region);
  const objects = bucket ? await countVersions(s3, String(bucket.id), COUNT_LIMIT) : 0;
  const rows = table ? await countRows(dynamo, String(table.id)) : 0;
  refuseProtected(bucket, objects, table);
  for (const { address, attributes } of resources) {
    say(`  ${address}  ${attributes.name ?? attributes.id ?? ""}`);
  }
  say(
    `This destroys the ${resources.length} resources above ${place(options)}, with ` +
      `${atLeast(objects)} object versions and ${atLeast(rows)} rows, in ${region}.`,
  );
}

/** Deploy, verify and destroy in one go, on a stand-in of its own that is gone in any case. */
async function demoTask(): Promise<void> {
  const options: Options = { env: "demo", local: true, yes: true, json: false, brief: true };
  const workspace = workspaceOf(options);
  const startMs = performance.now();
  await buildTask();
  using _lock = await lockWorkspace(workspace);
  try {
    await stopLocal(workspace); // of a demo that was killed
    await withTarget(options, async (target) => {
      await deploy(target, options);
      const stack = await terraform.outputs(workspace);
      await verify(stack!, clientsOf(target, stack!.aws_region), target, options);
      await destroy(target, options, () => {});
    });
    console.log(`The demo took ${Math.round((performance.now() - startMs) / 1000)} s.`);
  } finally {
    await stopLocal(workspace);
  }
}

/** Every check: the first failure ends it. */
async function testTask(): Promise<void> {
  const deno = (args: string[]) => run(Deno.execPath(), args);
  await terraform.init();
  await deno(["fmt", "--check"]);
  await deno(["lint"]);
  await deno(["check"]);
  await run("terraform", ["fmt", "-check", "-diff", ".", "docs", "tests"]);
  await run("terraform", ["validate"]);
  await buildTask();
  const inDefault = { env: { TF_WORKSPACE: "default" } };
  await run("terraform", ["test", "-var-file=docs/hardened.tfvars"], inDefault);
  await deno(["test", "--allow-all"]);
}

/**
 * Runs `work` on AWS or on the stand-in. That is started if need be, or, where `otherwise` is given,
 * not started and `otherwise` runs. `alone`: after any other task that changes the workspace.
 */
async function withTarget(
  options: Options,
  work: (target: Target) => Promise<void>,
  { otherwise, alone }: { otherwise?: () => void; alone?: boolean } = {},
): Promise<void> {
  const workspace = workspaceOf(options);
  for (const name of Object.keys(Deno.env.toObject())) {
    if (/^TF_CLI_ARGS/.test(name)) {
      say(`The shell's ${name} is not used: it could make Terraform act on something else`);
      Deno.env.delete(name);
    }
  }
  await terraform.init();
  using _lock = alone ? await lockWorkspace(workspace) : undefined;
  if (!options.local) return await work({ workspace });
  const local = await enterLocal(workspace, { start: otherwise === undefined });
  if (local === undefined) return otherwise?.();
  try {
    await work({ workspace, local });
  } finally {
    await local.leave();
  }
}

/** Runs `work` on what is deployed. @throws {UserError} nothing is */
async function onStack(
  options: Options,
  work: (stack: terraform.Outputs, clients: Clients, target: Target) => Promise<void>,
  { alone }: { alone?: boolean } = {},
): Promise<void> {
  const otherwise = () => {
    throw nothingDeployed(options);
  };
  await withTarget(options, async (target) => {
    const stack = await terraform.outputs(target.workspace) ?? otherwise();
    if (!target.local) await checkCredentials();
    await work(stack, clientsOf(target, stack.aws_region), target);
  }, { otherwise, alone });
}

function deadlineOf({ local }: Target): number {
  return local ? LOCAL_DEADLINE_MS : AWS_DEADLINE_MS;
}

/** Waits until no other task changes the workspace; the system frees the lock of a killed one. */
async function lockWorkspace(workspace: string): Promise<Deno.FsFile> {
  await Deno.mkdir(join(ROOT, "build"), { recursive: true });
  const path = join(ROOT, "build", `${workspace}.lock`);
  const file = await Deno.open(path, { create: true, read: true, write: true });
  for (let tries = 0; !await file.tryLock(true); tries++) {
    if (tries === 1) { // by now the other one has written who it is
      const holder = visible((await Deno.readTextFile(path)).trim());
      say(`Waiting for another task on this environment: ${holder}`);
    }
    await pause(500);
  }
  await file.truncate();
  const task = Deno.args.map(visible).join(" ");
  await file.write(
    new TextEncoder().encode(`${task}, process ${Deno.pid}, since ${new Date().toISOString()}\n`),
  );
  return file;
}

/** @throws {UserError} the name is none for an environment, or one of the stand-in's */
function workspaceOf({ env, local }: Options): string {
  if (env !== undefined && !/^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/.test(env)) {
    throw new UserError(
      `--env must be 1 to 32 lower-case letters, digits and inner hyphens, not "${visible(env)}"`,
    );
  }
  if (local) return env === undefined ? "local" : `local-${env}`;
  if (env === "default") {
    throw new UserError("--env default is what runs without --env: leave it away");
  }
  if (env !== undefined && isLocalWorkspace(env)) {
    throw new UserError(`--env ${env} is the stand-in's: say --local, or choose another name`);
  }
  return env ?? "default";
}

function nothingDeployed(options: Options): UserError {
  return new UserError(
    `Nothing is deployed ${place(options)}: run deno task deploy${flags(options)} first`,
  );
}

function place({ env, local }: Options): string {
  return (local ? "on the stand-in" : "on AWS") +
    (env === undefined ? (local ? "" : " in the default workspace") : ` in environment ${env}`);
}

function flags({ env, local }: Options): string {
  return (local ? " --local" : "") + (env === undefined ? "" : ` --env ${env}`);
}

/** Plans, then hands the plan's content and file to `use`. */
async function withPlan(
  { workspace, local }: Target,
  { brief }: Options,
  use: (plan: terraform.Plan, file: string) => Promise<void>,
): Promise<void> {
  if (!local) await checkCredentials();
  await withTemporaryFile(`${workspace}.tfplan`, async (file) => {
    await terraform.plan(workspace, file, { show: !brief });
    const plan = await terraform.readPlan(workspace, file);
    const count = (action: string) =>
      plan.changes.filter(({ actions }) => actions.includes(action)).length;
    const { account_id, aws_region, environment } = plan.outputs;
    say(
      `Account ${account_id}, region ${aws_region}, environment ${environment}: ` +
        `${count("create")} to add, ${count("update")} to change, ${count("delete")} to destroy`,
    );
    await use(plan, file);
  });
}

/** Asks as Terraform does; only `yes` goes on. */
async function confirm(options: Options, question: string): Promise<void> {
  if (options.yes) return;
  await Deno.stderr.write(new TextEncoder().encode(`${question} Only "yes" is accepted: `));
  const buffer = new Uint8Array(1024);
  const stopped = new Promise<never>((_, reject) =>
    interrupted.addEventListener("abort", () => reject(interrupted.reason))
  );
  const length = await Promise.race([Deno.stdin.read(buffer), stopped]);
  if (new TextDecoder().decode(buffer.subarray(0, length ?? 0)).trim() === "yes") return;
  throw new UserError(
    length === null
      ? "\nNobody answered, so nothing was changed: say --yes where there is no terminal"
      : "Not confirmed, so nothing was changed",
  );
}

/** @throws {UserError} the stack was deployed so that it may not be destroyed */
function refuseProtected(
  bucket: Record<string, unknown> | undefined,
  objects: number,
  table: Record<string, unknown> | undefined,
): void {
  if (bucket?.force_destroy === false && objects > 0) {
    throw new UserError(
      `The bucket ${bucket.id} holds objects and is deployed with force_destroy = false: empty it yourself, or deploy with force_destroy = true first`,
    );
  }
  if (table?.deletion_protection_enabled === true) {
    throw new UserError(
      `The table ${table.id} is deployed with deletion_protection = true: deploy with false first`,
    );
  }
}

function find(resources: terraform.Resource[], type: string): Record<string, unknown> | undefined {
  return resources.find(({ address }) => address.startsWith(`${type}.`))?.attributes;
}

async function emptyWithProgress({ s3 }: Clients, bucket: string): Promise<void> {
  let deleted = 0;
  using _progress = repeat(2000, () => say(`Emptying ${bucket}: ${deleted} versions deleted ...`));
  const { versions, uploads } = await emptyBucket(s3, bucket, {
    signal: interrupted,
    progress: (count) => deleted = count,
  });
  say(`Emptied ${bucket}: ${versions} versions and markers, ${uploads} unfinished uploads`);
}

/** Counts rows, no further than the limit; undefined where the role may not read the table. */
async function countRows(client: DynamoDBClient, table: string): Promise<number | undefined> {
  let rows = 0;
  try {
    for await (
      const { Count = 0 } of paginateScan({ client }, { TableName: table, Select: "COUNT" })
    ) {
      rows += Count;
      if (rows >= COUNT_LIMIT) break;
    }
  } catch (error) {
    const { name } = error as Error;
    if (name === "AccessDeniedException") return undefined;
    if (name !== "ResourceNotFoundException") throw error;
  }
  return rows;
}

function atLeast(count: number | undefined): string {
  if (count === undefined) return "an unknown number of";
  return count >= COUNT_LIMIT ? `${COUNT_LIMIT} or more` : String(count);
}

/** A file's path in build/, for as long as `use` runs. */
async function withTemporaryFile(
  name: string,
  use: (file: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ dir: join(ROOT, "build"), prefix: "tmp-" });
  try {
    await use(join(folder, name));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

export function clientsOf({ local }: Target, region: string): Clients {
  const requestHandler = local
    ? { httpsAgent: new Agent({ ca: local.ca, keepAlive: true, maxSockets: 50 }) }
    : undefined;
  const config = { region, requestHandler };
  return {
    s3: new S3Client(config),
    dynamo: new DynamoDBClient(config),
    // Only throttling fails so often; each try waits longer.
    lambda: new LambdaClient({ ...config, maxAttempts: 10 }),
    sqs: new SQSClient(config),
    logs: new CloudWatchLogsClient(config),
    cloudwatch: new CloudWatchClient(config),
  };
}

/** Asks the SDK's own sources for credentials, without a call to AWS. */
async function checkCredentials(): Promise<void> {
  try {
    await new S3Client({ region: "us-east-1" }).config.credentials();
  } catch (error) {
    throw new UserError(
      "No AWS credentials found: run this on an EC2 instance with a role, or try it without AWS with --local " +
        `(${(error as Error).message})`,
    );
  }
}

async function main(): Promise<number> {
  handleSignals();
  const [name, ...args] = Deno.args;
  const task = Object.hasOwn(TASKS, name ?? "") ? TASKS[name] : undefined;
  if (task === undefined) {
    say(USAGE);
    return 1;
  }
  try {
    await task.run(parseOptions(args, task.flags));
    return 0;
  } catch (error) {
    if (error instanceof InterruptedError || interrupted.aborted) {
      say(hintAfterInterruption(name, args));
      return 130;
    }
    if (error instanceof UserError) say(error.message);
    else if (isAwsError(error)) say(`AWS refused: ${error.name}: ${visible(error.message)}`);
    else throw error;
    return 1;
  }
}

/** What to do next, when a task was stopped in the middle. */
function hintAfterInterruption(name: string, args: string[]): string {
  const again = ["deno task", name, ...args].join(" ");
  switch (name) {
    case "build":
    case "plan":
    case "status":
    case "logs":
    case "test":
      return "Interrupted: nothing was changed";
    case "demo":
      return "Interrupted: the demo's stand-in is ended, and nothing is left of it";
    case "deploy":
      return `Interrupted: ${visible(again)} goes on; ${
        visible(again.replace("task deploy", "task destroy"))
      } removes what is there`;
    default:
      return `Interrupted: ${visible(again)} goes on where this ended`;
  }
}

function parseOptions(args: string[], allowed: string[]): Options {
  try {
    const { values } = parseArgs({
      args,
      options: {
        env: { type: "string" },
        local: { type: "boolean", default: false },
        yes: { type: "boolean", default: false },
        json: { type: "boolean", default: false },
        since: { type: "string" },
        follow: { type: "boolean" },
        "dry-run": { type: "boolean" },
        max: { type: "string" },
        prefix: { type: "string" },
        concurrency: { type: "string" },
      },
    });
    const given = args.filter((arg) => arg.startsWith("--")).map((arg) =>
      arg.slice(2).split("=")[0]
    );
    const foreign = given.find((flag) => !allowed.includes(flag));
    if (foreign !== undefined) throw new TypeError(`--${foreign} is not an option of this task`);
    return values;
  } catch (error) {
    throw new UserError(`${(error as Error).message}\n${USAGE}`);
  }
}

/** Milliseconds of `90s`, `15m`, `2h` or `7d`. */
function parseDuration(text: string): number {
  const [, count, unit] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  if (count === undefined) {
    throw new UserError(`--since must be like 90s, 15m, 2h or 7d, not "${visible(text)}"`);
  }
  return Number(count) * { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }[unit]!;
}

function parseCount(flag: string, text: string | undefined, byDefault: number, most = 1e6): number {
  if (text === undefined) return byDefault;
  const count = Number(text);
  if (/^\d+$/.test(text) && count >= 1 && count <= most) return count;
  throw new UserError(`${flag} must be a whole number from 1 to ${most}, not "${visible(text)}"`);
}

/** Prints a result, for a machine or for people. */
function print<T>({ json }: Options, result: T, toText: (result: T) => string): void {
  console.log(json ? JSON.stringify(result, null, 2) : toText(result));
}

/** Writes a line of a long result; false where nobody reads any more, as after `| head`. */
async function printLine(line: string): Promise<boolean> {
  try {
    const writer = Deno.stdout.writable.getWriter();
    try {
      await writer.write(new TextEncoder().encode(line + "\n"));
    } finally {
      writer.releaseLock();
    }
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) return false;
    throw error;
  }
}

function isAwsError(error: unknown): error is Error {
  return error instanceof Error && "$metadata" in error;
}

if (import.meta.main) Deno.exit(await main());
