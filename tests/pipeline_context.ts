/** What the steps of the end-to-end test share: the stack that they act on, and how they act. */

import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { request } from "node:https";
import { join } from "node:path";
import { CloudWatchClient } from "@aws-sdk/client-cloudwatch";
import { CloudWatchLogsClient } from "@aws-sdk/client-cloudwatch-logs";
import { DynamoDBClient, paginateScan } from "@aws-sdk/client-dynamodb";
import { IAMClient } from "@aws-sdk/client-iam";
import { STSClient } from "@aws-sdk/client-sts";
import {
  GetFunctionConfigurationCommand,
  InvokeCommand,
  LambdaClient,
  UpdateFunctionConfigurationCommand,
  waitUntilFunctionUpdatedV2,
} from "@aws-sdk/client-lambda";
import { PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { ReceiveMessageCommand, SQSClient } from "@aws-sdk/client-sqs";
import { countFailures, invoke } from "../tasks/function.ts";
import type { Found } from "../tasks/leftovers.ts";
import { type Item, toItem } from "../tasks/rows.ts";
import { ROOT } from "../tasks/shell.ts";
import { rootOf } from "../tasks/stand_in.ts";
import { connect, type Stack, targetOf } from "../tasks/target.ts";
import { outputs } from "../tasks/terraform.ts";
import { type EventObject, toRecord } from "./fixtures.ts";
import type { LateProxy } from "./pipeline_interrupted.ts";
import { listProcesses } from "./processes.ts";
import { type Ended, interruptTask } from "./run_task.ts";

/** The workspace of the test's own, whose variables no user has a file for. */
export const ENVIRONMENT = ["--local", "--env", "deno-task-test"];
export const TARGET = targetOf({ env: "deno-task-test", local: true });
export const WORKSPACE = TARGET.workspace;

/** The environment and workspace of a stand-in that is killed, in the other clone. */
export const KILLED_ENVIRONMENT = ["--local", "--env", "deno-task-test-killed"];
export const KILLED_WORKSPACE = "local-deno-task-test-killed";

/** The test's own variables. */
export const VARIABLES = join(ROOT, `${WORKSPACE}.tfvars`);

/** With `-local-deno-task-test-` 53 characters, the most that are allowed. */
export const LONGEST_PROJECT = "file-metadata-with-longest-name";

/** Resources in the state; the plan has one more, the guard of names and regions. */
export const RESOURCES = 19;

/** What there is before anything is deployed. */
export interface Pipeline {
  /** The environment in which the test was started. */
  shell: Record<string, string>;
  /** The same with settings that must not get in. */
  hostileShell: Record<string, string>;
  /** A folder for another clone of the project. */
  clone: string;
  /** Command lines of this workspace's stand-ins, which run from the project's folder. */
  standIns(): Promise<string[]>;
  standInsBefore: string[];
  /** What the other clone's tasks do meanwhile; `state` is a folder. */
  otherTools: Promise<{ plan: Ended; verify: Ended; state: string }>;
}

/** What there is once the stack is deployed. */
export interface Deployed extends Pipeline {
  /** The stack as tasks act on it: as the deployer, whom deployer_policy.json binds. */
  deployer: Stack;
  /** The same as the stand-in's root, whom no policy binds. */
  root: Stack;
  bucket: string;
  /** Certificate of the stand-in (PEM). */
  ca: string;
  /** The apply of the other clone, which goes on beside the first steps. */
  otherApply: Promise<Ended>;
  /** A way to the stand-in whose answers can be late. */
  late: LateProxy;
  /** What the last interruption of the other clone's deploy left in AWS alone. */
  left: Found[];
  /** The deploy that goes on, beside some steps too. */
  otherDeploy?: Promise<Ended>;
  /** The rows of the 1,000 objects, which replay and backfill bring back in their own ways. */
  loaded: Item[];
  /** Resources that a destroy removed and did not prove. */
  removed: number;
}

/** Steps of one subject by their names, in the order in which they run. */
export type Steps<Context> = Record<
  string,
  (context: Context, t: Deno.TestContext) => void | Promise<void>
>;

/** What is deployed; starts to record the calls to it, and to deploy it from the other clone. */
export async function openDeployed(
  pipeline: Pipeline,
  ca: string,
  late: LateProxy,
): Promise<Deployed> {
  const found = await outputs(WORKSPACE);
  assert.ok(found);
  const close = () => Promise.resolve();
  const deployer = connect({ ...TARGET, ca, [Symbol.asyncDispose]: close }, found);
  const config = rootOf(Deno.env.get("AWS_ENDPOINT_URL")!, ca);
  const root = {
    outputs: found,
    s3: new S3Client(config),
    dynamo: new DynamoDBClient(config),
    lambda: new LambdaClient(config),
    sqs: new SQSClient(config),
    logs: new CloudWatchLogsClient(config),
    cloudwatch: new CloudWatchClient(config),
    iam: new IAMClient(config),
    sts: new STSClient(config),
  };
  const settings = { "cloudtrail._recording_enabled": true };
  await post(ca, `${config.endpoint}/_ministack/config`, settings);
  const otherApply = plainTerraform(pipeline, ["apply", "-input=false", "-auto-approve"]);
  const bucket = found.s3_bucket_name;
  const later = { left: [], loaded: [], removed: 0 };
  return { ...pipeline, deployer, root, bucket, ca, otherApply, late, ...later };
}

/** Runs a task in the test's environment. */
export function task(env: Record<string, string>, name: string, ...args: string[]): Promise<Ended> {
  return taskIn(ROOT, env, name, ...ENVIRONMENT, ...args);
}

/** Runs a task of the clone in a folder, started from elsewhere. */
export function taskIn(
  folder: string,
  env: Record<string, string>,
  ...args: string[]
): Promise<Ended> {
  const words = ["task", "--quiet", "--config", join(folder, "deno.json"), ...args];
  return ended(Deno.execPath(), words, "/", env);
}

/** Runs a task in the test's environment, and sends SIGINT once stderr has the pattern. */
export function interruptedTask(
  env: Record<string, string>,
  pattern: RegExp,
  name: string,
  ...args: string[]
): Promise<Ended> {
  return interruptTask([name, ...ENVIRONMENT, ...args], env, pattern);
}

/** Plain Terraform in the other clone, in the stand-in's environment that this process is in. */
export async function plainTerraform({ clone, shell }: Pipeline, args: string[]): Promise<Ended> {
  const env = { ...Deno.env.toObject(), TF_WORKSPACE: WORKSPACE };
  if (args[0] === "apply") {
    // As a user would: the provider comes from where this clone has it.
    const providers = await Deno.realPath(join(ROOT, ".terraform", "providers"));
    const init = ["init", "-no-color", "-input=false", `-plugin-dir=${providers}`];
    const { code, stderr } = await ended("terraform", init, clone, shell);
    assert.equal(code, 0, stderr);
  }
  const [command, ...rest] = args;
  const variables = command === "output" ? [] : [`-var=project_name=${LONGEST_PROJECT}`];
  return await ended("terraform", [command, "-no-color", ...variables, ...rest], clone, env);
}

/** Terraform with just these arguments, in a folder. */
export function terraformIn(
  folder: string,
  env: Record<string, string>,
  args: string[],
): Promise<Ended> {
  return ended("terraform", args, folder, env);
}

/** Options of Terraform in the project's folder and the test's workspace. */
export const IN_WORKSPACE = { env: { TF_WORKSPACE: WORKSPACE }, quiet: true };

async function ended(
  command: string,
  args: string[],
  cwd: string,
  env: Record<string, string>,
): Promise<Ended> {
  const child = new Deno.Command(command, { args, cwd, env, clearEnv: true, stdin: "null" });
  const { code, stdout, stderr } = await child.output();
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: decode(stdout), stderr: decode(stderr) };
}

/** Uploads a text, and returns what its event says of it. */
export async function upload({ root, bucket }: Deployed, Key: string, Body: string) {
  const bytes = new TextEncoder().encode(Body); // the client warns of an empty text
  const object = { Bucket: bucket, Key, Body: bytes, ContentType: "text/plain" };
  const { VersionId, ETag } = await root.s3.send(new PutObjectCommand(object));
  return { versionId: VersionId, eTag: ETag!.replaceAll('"', "") };
}

/** Invokes the function with records, and returns its error. */
export function invokeWith({ root }: Deployed, Records: unknown[]): Promise<string | undefined> {
  return invoke(root, { Records });
}

/** Sends the function an event as S3 does, and does not wait. */
export async function invokeLater({ root }: Deployed, event: unknown): Promise<void> {
  const FunctionName = root.outputs.lambda_function_name;
  const Payload = new TextEncoder().encode(JSON.stringify(event));
  await root.lambda.send(new InvokeCommand({ FunctionName, InvocationType: "Event", Payload }));
}

/**
 * Has the function take the stack for so old, until the next deploy, and returns when it was made by
 * what the function knew before. In the first 15 minutes a 404 fails.
 */
export async function ageStack(
  { root: { lambda, outputs } }: Deployed,
  minutes: number,
): Promise<string | undefined> {
  const name = { FunctionName: outputs.lambda_function_name };
  const { Environment } = await lambda.send(new GetFunctionConfigurationCommand(name));
  const before = Environment?.Variables ?? {};
  const STACK_CREATED = new Date(Date.now() - minutes * 60_000).toISOString();
  const Variables = { ...before, STACK_CREATED };
  await lambda.send(
    new UpdateFunctionConfigurationCommand({ ...name, Environment: { Variables } }),
  );
  await waitUntilFunctionUpdatedV2({ client: lambda, maxWaitTime: 60, minDelay: 0.1 }, name);
  return before.STACK_CREATED;
}

/** An S3 event record of the stack's bucket. */
export function recordOf({ bucket }: Deployed, object: EventObject, eventTime?: string) {
  return toRecord(bucket, object, eventTime);
}

/** The record of the event that a row is of. */
export function recordOfRow(deployed: Deployed, row: Item) {
  const { file_key, file_size, etag, version_id, sequencer, timestamp } = row;
  return recordOf(deployed, {
    key: encodeURIComponent(file_key),
    size: Number(file_size),
    eTag: String(etag),
    versionId: String(version_id),
    sequencer: String(sequencer),
  }, String(timestamp));
}

/** The rows of all keys with a prefix, sorted by key. */
export async function rowsBelow({ root }: Deployed, prefix: string): Promise<Item[]> {
  const rows: Item[] = [];
  const pages = paginateScan({ client: root.dynamo }, {
    TableName: root.outputs.dynamodb_table_name,
    FilterExpression: "begins_with(file_key, :prefix)",
    ExpressionAttributeValues: { ":prefix": { S: prefix } },
    ConsistentRead: true,
  });
  for await (const { Items = [] } of pages) rows.push(...Items.map(toItem));
  return rows.sort((a, b) => a.file_key < b.file_key ? -1 : 1);
}

/** The body of a message in the failure queue, which stays there. */
export async function failedMessage({ root }: Deployed): Promise<string | undefined> {
  const QueueUrl = root.outputs.failure_queue_url;
  const receive = new ReceiveMessageCommand({ QueueUrl, VisibilityTimeout: 0 });
  const { Messages = [] } = await root.sqs.send(receive);
  return Messages[0]?.Body;
}

/** Nothing is in the failure queue but the event that can't be handled. */
export async function assertOneFailure({ root }: Deployed): Promise<void> {
  assert.equal((await countFailures(root)).visible, 1);
}

/** Command lines of this machine's processes that hold `part`. */
export async function processesOf(part: string): Promise<string[]> {
  const commands = (await listProcesses()).map(({ command }) => command);
  return commands.filter((command) => command.includes(part));
}

export async function waitFor<T>(
  deadlineMs: number,
  look: () => Promise<T | undefined>,
): Promise<T> {
  const endMs = Date.now() + deadlineMs;
  while (Date.now() < endMs) {
    const found = await look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error(`Nothing came within ${deadlineMs} ms`);
}

/** Terraform wraps its sentences at the terminal's width. */
export function unwrapped(text: string): string {
  return text.replace(/\s+/g, " ");
}

export function withoutAws(env: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith("AWS_")));
}

/** Posts JSON to a server whose certificate is `ca`. */
function post(ca: string, url: string, body: unknown): Promise<void> {
  return new Promise((resolve, reject) => {
    const answered = ({ statusCode }: IncomingMessage) =>
      statusCode === 200 ? resolve() : reject(new Error(`HTTP ${statusCode}`));
    request(url, { method: "POST", ca, agent: false }, answered).on("error", reject)
      .end(JSON.stringify(body));
  });
}
