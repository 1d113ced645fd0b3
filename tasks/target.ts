/** Where a task acts: on AWS or on the stand-in, in which workspace, and on what is deployed there. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { CloudWatchLogsServiceException } from "@aws-sdk/client-cloudwatch-logs";
import { DynamoDBServiceException } from "@aws-sdk/client-dynamodb";
import { LambdaServiceException } from "@aws-sdk/client-lambda";
import { checkCredentials, type Clients, clientsOf, readClock } from "./clients.ts";
import { denoTask } from "./commands.ts";
import { changesForTerraform } from "./environment.ts";
import { ROOT } from "./shell.ts";
import { pause } from "./signals.ts";
import { enterStandIn } from "./stand_in.ts";
import { say, UserError, visible } from "./terminal.ts";
import * as terraform from "./terraform.ts";
import { requirePrograms } from "./tools.ts";
import { folderFor, isLocalWorkspace, stateFolder } from "./workspace.ts";

/** On AWS new notifications and permissions take minutes to propagate. */
const AWS_DEADLINES = { rowDeadlineMs: 240_000, firstRowDeadlineMs: 600_000 };
const LOCAL_DEADLINES = { rowDeadlineMs: 30_000, firstRowDeadlineMs: 30_000 };

/** The options `--env` and `--local`. */
export interface Where {
  env?: string;
  local: boolean;
}

/** What {@link Where} means. */
export interface Target {
  /** The Terraform workspace. */
  workspace: string;
  local: boolean;
  /** As a sentence names it: `on AWS in environment prod`. */
  place: string;
  /** As a command names it: ` --env prod`. */
  flags: string;
  /** How long to wait for the row of an upload. */
  rowDeadlineMs: number;
  /** How long to wait for the first row after a deploy. */
  firstRowDeadlineMs: number;
}

/** A target that tasks act on until it is closed. */
export type OpenTarget = Target & AsyncDisposable;

/** How a task opens its target. */
interface Opening {
  /** What becomes of a stand-in that does not run: see {@link enterStandIn}. */
  standIn: "start" | "find" | "clear";
  /** Waits until no other task changes the workspace. */
  exclusive?: boolean;
}

/** What is deployed: its outputs, and clients of its region. */
export interface Stack extends Clients, Pick<Target, "flags"> {
  outputs: terraform.Outputs;
}

/** Nothing is deployed where a task should act. */
export class NothingDeployedError extends UserError {
  override name = "NothingDeployedError";
}

/** @throws {UserError} the name cannot be an environment's, or is the stand-in's */
export function targetOf({ env, local }: Where): Target {
  if (env !== undefined && !/^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/.test(env)) {
    throw new UserError(
      `--env must be 1 to 32 lower-case letters, digits and inner hyphens, not "${visible(env)}"`,
    );
  }
  if (!local && env === "default") {
    throw new UserError("'default' is already the default: leave --env out");
  }
  if (!local && isLocalWorkspace(env ?? "")) {
    throw new UserError(
      `--env ${env} names a stand-in's environment: add --local, or choose another name`,
    );
  }
  const environment = env === undefined ? "" : ` in environment ${env}`;
  const flags = env === undefined ? "" : ` --env ${env}`;
  return local
    ? {
      workspace: env === undefined ? "local" : `local-${env}`,
      local,
      place: `on the stand-in${environment}`,
      flags: ` --local${flags}`,
      ...LOCAL_DEADLINES,
    }
    : {
      workspace: env ?? "default",
      local,
      place: `on AWS${environment || " in the default workspace"}`,
      flags,
      ...AWS_DEADLINES,
    };
}

/** Where the demo acts: no --env can name this workspace, so it takes nothing of the user's. */
export const DEMO: Target = { ...targetOf({ env: "demo", local: true }), workspace: "local--demo" };

/**
 * Makes Terraform ready and, for `--local`, enters the stand-in.
 *
 * @throws {NothingDeployedError} there is no stand-in, and none is to be started
 */
export async function openTarget(where: Where | Target, opening: Opening): Promise<OpenTarget> {
  const target = "workspace" in where ? where : targetOf(where);
  if (!target.local && isLocalWorkspace(Deno.env.get("TF_WORKSPACE") ?? "")) {
    throw new UserError("This shell acts on the stand-in: add --local, or leave it by exit");
  }
  await requirePrograms({ standIn: target.local && opening.standIn === "start" });
  await using held = new AsyncDisposableStack();
  held.use(leaveNoEmptyState(target.workspace));
  await readyTerraform(target.workspace);
  if (opening.exclusive) held.use(await lockWorkspace(target.workspace));
  if (target.local) {
    const standIn = await enterStandIn(target.workspace, opening.standIn);
    if (standIn === undefined) throw nothingDeployed(target);
    held.use(standIn);
  }
  const open = held.move();
  return { ...target, [Symbol.asyncDispose]: () => open.disposeAsync() };
}

/** Takes from this process's environment what could mislead Terraform, and initialises the folder. */
export async function readyTerraform(workspace: string): Promise<void> {
  const { set, unset, notes } = changesForTerraform(Deno.env.toObject(), workspace);
  notes.forEach(say);
  for (const name of unset) Deno.env.delete(name);
  for (const [name, value] of Object.entries(set)) Deno.env.set(name, value);
  await Deno.mkdir(join(ROOT, "build"), { recursive: true });
  await terraform.init(await folderFor(workspace));
}

/** Terraform makes a folder for each workspace that it is asked about: an empty one is removed. */
function leaveNoEmptyState(workspace: string): AsyncDisposable {
  const ofAws = join(ROOT, "terraform.tfstate.d");
  const folder = isLocalWorkspace(workspace) ? stateFolder(workspace) : join(ofAws, workspace);
  const isNew = !existsSync(folder);
  return {
    async [Symbol.asyncDispose]() {
      if (isNew) await Deno.remove(folder).catch(() => {}); // none, or not empty
      await Deno.remove(ofAws).catch(() => {});
    },
  };
}

/** Runs `work` on what is deployed. @throws {NothingDeployedError} nothing is */
export async function withStack(
  where: Where,
  work: (stack: Stack, target: OpenTarget) => Promise<void>,
  { exclusive }: { exclusive?: boolean } = {},
): Promise<void> {
  await using target = await openTarget(where, { standIn: "find", exclusive });
  const outputs = await terraform.outputs(target.workspace);
  if (outputs === undefined) throw nothingDeployed(target);
  await checkCredentials();
  const stack = connect(target, outputs);
  await readClock(stack, outputs.s3_bucket_name);
  try {
    await work(stack, target);
  } catch (error) {
    const deleted = findDeleted(error, stack);
    throw deleted === undefined ? error : new UserError(deleted.sentence);
  }
}

/** The part that an error says is not there, and a sentence about it; undefined for other errors. */
export function findDeleted(
  error: unknown,
  { outputs, flags }: Pick<Stack, "outputs" | "flags">,
): { address: string; sentence: string } | undefined {
  const { name } = error as Error;
  if (name === "NoSuchBucket" && outputs.existing_bucket !== undefined) {
    const sentence =
      `The bucket ${outputs.existing_bucket} does not exist any more, and is not the ` +
      `stack's own: make it again, or run ${denoTask({ flags }, "destroy")}`;
    return { address: "data.aws_s3_bucket.existing[0]", sentence };
  }
  const deploy = denoTask({ flags }, "deploy");
  const found = (address: string, part: string) => ({
    address,
    sentence:
      `The ${visible(part)} does not exist any more: ${deploy} makes it again, and backfill ` +
      "records the objects that then have no row",
  });
  if (name === "NoSuchBucket") {
    return found("aws_s3_bucket.uploads[0]", `bucket ${outputs.s3_bucket_name}`);
  }
  // SQS has the second name in its older protocol.
  if (/^QueueDoesNotExist$|NonExistentQueue$/.test(name)) {
    const queue = outputs.failure_queue_url.split("/").at(-1);
    return found("aws_sqs_queue.failures", `failure queue ${queue}`);
  }
  if (name !== "ResourceNotFoundException") return undefined;
  if (error instanceof DynamoDBServiceException) {
    return found("aws_dynamodb_table.files", `table ${outputs.dynamodb_table_name}`);
  }
  if (error instanceof LambdaServiceException) {
    return found("aws_lambda_function.metadata", `function ${outputs.lambda_function_name}`);
  }
  if (error instanceof CloudWatchLogsServiceException) {
    return found("aws_cloudwatch_log_group.function", `log group ${outputs.log_group_name}`);
  }
}

/** What is deployed at a target, by its outputs. */
export function connect({ flags }: Pick<Target, "flags">, outputs: terraform.Outputs): Stack {
  return { ...clientsOf(outputs.aws_region), outputs, flags };
}

/** Waits until no other task changes the workspace; the system frees the lock of a killed one. */
export async function lockWorkspace(workspace: string): Promise<Disposable> {
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
  const holder = `${task}, process ${Deno.pid}, since ${new Date().toISOString()}\n`;
  await file.write(new TextEncoder().encode(holder));
  return file;
}

function nothingDeployed(target: Target): NothingDeployedError {
  return new NothingDeployedError(
    `Nothing is deployed ${target.place}: run ${denoTask(target, "deploy")} first`,
  );
}
