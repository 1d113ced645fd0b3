/**
 * The end-to-end tests: the whole pipeline on a stand-in of its own, as its users run it. Each step goes
 * on from where the last one ended. It needs every permission, Terraform, Python and some minutes. The
 * tests are files of their own, so that they can run side by side: to enter a stand-in is to replace the
 * process's environment.
 *
 * To add a step, put its name and function into the table of its subject's file.
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { CloudWatch } from "@aws-sdk/client-cloudwatch";
import { CloudWatchLogs } from "@aws-sdk/client-cloudwatch-logs";
import { DynamoDB, paginateScan } from "@aws-sdk/client-dynamodb";
import { IAM } from "@aws-sdk/client-iam";
import { Lambda, waitUntilFunctionUpdatedV2 } from "@aws-sdk/client-lambda";
import { S3 } from "@aws-sdk/client-s3";
import { SQS } from "@aws-sdk/client-sqs";
import { STS } from "@aws-sdk/client-sts";
import { configOf } from "../tasks/clients.ts";
import { removeIfThere } from "../tasks/files.ts";
import { countFailures, invoke } from "../tasks/invoke.ts";
import { ROOT, run } from "../tasks/shell.ts";
import { enterStandIn, rootOf, stopStandIn } from "../tasks/stand_in.ts";
import { type Item, toItem } from "../tasks/table.ts";
import { connect, type Stack, type Target, targetOf } from "../tasks/target.ts";
import { outputs } from "../tasks/terraform.ts";
import { ownFolder } from "../tasks/workspace.ts";
import { type EventObject, toRecord } from "./outside.ts";
import { startProvider } from "./provider.ts";
import { type Ended, interruptTask, listProcesses, runProgram } from "./run_task.ts";

/** Resources in AWS; the state has two more, which are terraform_data. */
export const RESOURCES = 19;

/** What there is before anything is deployed. */
export interface Pipeline {
  /** The environment in which the test was started. */
  shell: Record<string, string>;
  /** The test's own environment on the stand-in. */
  target: Target;
  /** Its variables, for which no user has a file. */
  variables: string;
  /** The value of project_name. */
  project: string;
  /** A folder for another clone of the project. */
  clone: string;
}

/** What there is once the stack is deployed. */
export interface Deployed extends Pipeline {
  /** The stack as tasks act on it: as the deployer, whom deployer_policy.json binds. */
  deployer: Stack & Clients;
  /** The same as the stand-in's root, whom no policy binds. */
  root: Stack & Clients;
  bucket: string;
}

/** Steps of one subject by their names, in the order in which they run. */
export type Steps<Context> = Record<
  string,
  (context: Context, t: Deno.TestContext) => void | Promise<void>
>;

/** What a test does with its pipeline. */
interface Run {
  pipeline: Pipeline;
  /** Makes this process enter the pipeline's stand-in. */
  enter(): Promise<void>;
  /** Runs steps in order. */
  steps<Context>(steps: Steps<Context>, context: Context): Promise<void>;
}

/** Defines a test with a local environment and another clone of its own, of which nothing is left. */
export function endToEndTest(
  name: string,
  { env, project = "file-metadata" }: { env: string; project?: string },
  work: (run: Run) => Promise<void>,
): void {
  Deno.test(`${name}, end to end on the stand-in`, async (t) => {
    const target = targetOf({ env, local: true });
    const variables = join(ROOT, `${target.workspace}.tfvars`);
    const cleanUp = async () => {
      await stopStandIn(target.workspace);
      await removeIfThere(variables);
    };
    await cleanUp(); // of a run that was killed
    await using held = new AsyncDisposableStack();
    held.defer(cleanUp);
    await Deno.writeTextFile(variables, `project_name = "${project}"\n`);
    const shell = Deno.env.toObject(); // before the stand-in's environment replaces it
    const clone = await cloneAsOnWindows(held);
    const pipeline = { shell, target, variables, project, clone };

    await using entered = new AsyncDisposableStack();
    const enter = async () => void entered.use(await enterStandIn(target.workspace, "start"));
    await work({ pipeline, enter, steps: (steps, context) => runSteps(t, steps, context) });
    await entered.disposeAsync();
    assert.deepEqual(Deno.env.toObject(), shell);
  });
}

async function runSteps<Context>(t: Deno.TestContext, steps: Steps<Context>, context: Context) {
  for (const [name, step] of Object.entries(steps)) {
    await t.step(name, async (t) => {
      try {
        await step(context, t);
      } catch (error) {
        console.error(error); // now, as Deno tells it minutes later
        throw error;
      }
    });
  }
}

/** Has Terraform use a provider that runs already, with the environment in which it is to act. */
export async function shareProvider(
  { shell }: Pipeline,
  env: Record<string, string>,
): Promise<AsyncDisposable> {
  const provider = await startProvider(env);
  const [name, value] = provider.variable;
  shell[name] = value;
  Deno.env.set(name, value);
  return {
    async [Symbol.asyncDispose]() {
      delete shell[name];
      Deno.env.delete(name);
      await provider[Symbol.asyncDispose]();
    },
  };
}

/** Another clone of the project, its files as git on Windows may write them. */
export async function cloneAsOnWindows(held: AsyncDisposableStack): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: "ä b%20#1 " });
  held.defer(() => Deno.remove(folder, { recursive: true }));
  for (const part of [".", "dev", "docs", "function", "tasks", "tests"]) {
    await Deno.mkdir(join(folder, part), { recursive: true });
    for await (const { name, isFile } of Deno.readDir(join(ROOT, part))) {
      if (!isFile || /\.tfvars$|^terraform\.tfstate/.test(name)) continue;
      const text = await Deno.readTextFile(join(ROOT, part, name));
      await Deno.writeTextFile(join(folder, part, name), text.replace(/\r?\n/g, "\r\n"));
    }
  }
  return folder;
}

/** What is deployed, and how to reach it. */
export async function openDeployed(pipeline: Pipeline): Promise<Deployed> {
  const found = await outputs(pipeline.target.workspace);
  assert.ok(found);
  const stack = connect(pipeline.target, found);
  const deployer = { ...stack, ...clientsWith(configOf(found.aws_region)) };
  const root = { ...stack, ...rootClients() };
  return { ...pipeline, deployer, root, bucket: found.s3_bucket_name };
}

/** Clients of the stand-in that this process is in, as its root. */
export function rootClients(): Clients {
  return clientsWith(rootOf(Deno.env.toObject()));
}

export type Clients = ReturnType<typeof clientsWith>;

/** As clientsOf(), but clients with a method for each call. */
function clientsWith(config: ReturnType<typeof configOf> | ReturnType<typeof rootOf>) {
  return {
    s3: new S3(config),
    dynamo: new DynamoDB(config),
    lambda: new Lambda(config),
    sqs: new SQS(config),
    logs: new CloudWatchLogs(config),
    cloudwatch: new CloudWatch(config),
    iam: new IAM(config),
    sts: new STS(config),
  };
}

/** Options that name the test's environment. */
export function optionsOf({ flags }: Target): string[] {
  return flags.trim().split(" ");
}

/** Runs a task in the test's environment. */
export function task({ shell, target }: Pipeline, name: string, ...args: string[]): Promise<Ended> {
  return taskIn(ROOT, shell, name, ...optionsOf(target), ...args);
}

/** Runs a task of the clone in a folder, started from elsewhere. */
export function taskIn(
  folder: string,
  env: Record<string, string>,
  ...args: string[]
): Promise<Ended> {
  const words = ["task", "--quiet", "--config", join(folder, "deno.json"), ...args];
  return runProgram(Deno.execPath(), words, "/", env);
}

/** Runs a task in the test's environment, and sends SIGINT once stderr has the pattern. */
export function interruptedTask(
  { shell, target }: Pipeline,
  pattern: RegExp,
  name: string,
  ...args: string[]
): Promise<Ended> {
  return interruptTask([name, ...optionsOf(target), ...args], shell, pattern);
}

/** Terraform as the tasks run it in the test's workspace. */
export async function ownTerraform(
  { target: { workspace } }: Pipeline,
  ...words: string[]
): Promise<string> {
  const options = { env: { TF_WORKSPACE: workspace }, quiet: true };
  return await run("terraform", [`-chdir=${await ownFolder()}`, ...words], options);
}

/** Uploads a text, and returns what its event says of it. */
export async function upload({ root, bucket }: Deployed, Key: string, Body: string) {
  const bytes = new TextEncoder().encode(Body); // the client warns of an empty text
  const object = { Bucket: bucket, Key, Body: bytes, ContentType: "text/plain" };
  const { VersionId, ETag } = await root.s3.putObject(object);
  return { versionId: VersionId, eTag: ETag!.replaceAll('"', "") };
}

/** Invokes the function with records, and returns its error. */
export function invokeWith({ root }: Deployed, Records: unknown[]): Promise<string | undefined> {
  return invoke(root, { Records });
}

/** As {@link invokeWith}, and up to twice more where it fails, as Lambda does with an event. */
export async function invokeWithRetries(
  deployed: Deployed,
  records: unknown[],
): Promise<string | undefined> {
  let error = await invokeWith(deployed, records);
  for (let tries = 1; error !== undefined && tries < 3; tries++) {
    error = await invokeWith(deployed, records);
  }
  return error;
}

/** Sends the function an event as S3 does, and does not wait. */
export async function invokeLater({ root }: Deployed, event: unknown): Promise<void> {
  const FunctionName = root.outputs.lambda_function_name;
  const Payload = new TextEncoder().encode(JSON.stringify(event));
  await root.lambda.invoke({ FunctionName, InvocationType: "Event", Payload });
}

/** Sets variables of the function's environment, until the next deploy. */
export async function setEnvironment(
  { root: { lambda, outputs } }: Deployed,
  variables: Record<string, string>,
): Promise<void> {
  const name = { FunctionName: outputs.lambda_function_name };
  const { Environment } = await lambda.getFunctionConfiguration(name);
  const Variables = { ...Environment?.Variables, ...variables };
  await lambda.updateFunctionConfiguration({ ...name, Environment: { Variables } });
  await waitUntilFunctionUpdatedV2({ client: lambda, maxWaitTime: 60, minDelay: 0.1 }, name);
}

/** From now on events are late after a second, and objects old enough for a backfill after two. */
export async function settleAtOnce(deployed: Deployed): Promise<void> {
  await setEnvironment(deployed, { ON_TIME_MS: "1000" });
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
  const { Messages = [] } = await root.sqs.receiveMessage({ QueueUrl, VisibilityTimeout: 0 });
  return Messages[0]?.Body;
}

/** Nothing is in the failure queue but the event that always fails. */
export async function assertOneFailure({ root }: Deployed): Promise<void> {
  assert.equal((await countFailures(root)).visible, 1);
}

/** Command lines of a workspace's stand-ins, which run from the project's folder. */
export async function standInsOf({ workspace }: Target): Promise<string[]> {
  const all = await processesOf(join(ROOT, ".local", "venv"));
  return all.filter((line) => line.endsWith(` ${workspace}`));
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
  for (let startMs = Date.now(); startMs < endMs; startMs = Date.now()) {
    const found = await look();
    if (found !== undefined) return found;
    // A look at many rows keeps the stand-in busy: at most a fifth of its time.
    const pauseMs = Math.max(200, 4 * (Date.now() - startMs));
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
  throw new Error(`Nothing came within ${deadlineMs} ms`);
}
