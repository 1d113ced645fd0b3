/**
 * The end-to-end tests: the whole pipeline on a stand-in of its own, as its users run it. Each step goes
 * on from where the last one ended. It needs every permission, Terraform, Python and some minutes. The
 * tests are files of their own, so that they can run side by side: to enter a stand-in is to replace the
 * process's environment.
 *
 * To add a step, put its name and function into the table of its subject.
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { CloudWatch } from "@aws-sdk/client-cloudwatch";
import { CloudWatchLogs } from "@aws-sdk/client-cloudwatch-logs";
import { DynamoDB, paginateScan } from "@aws-sdk/client-dynamodb";
import { IAM } from "@aws-sdk/client-iam";
import { Lambda } from "@aws-sdk/client-lambda";
import { S3 } from "@aws-sdk/client-s3";
import { SQS } from "@aws-sdk/client-sqs";
import { STS } from "@aws-sdk/client-sts";
import { configOf } from "../tasks/clients.ts";
import { removeIfThere } from "../tasks/files.ts";
import { invoke } from "../tasks/invoke.ts";
import { ROOT } from "../tasks/shell.ts";
import { enterStandIn, rootOf, stopStandIn } from "../tasks/stand_in.ts";
import { type Item, toItem } from "../tasks/table.ts";
import { type Stack, type Target, targetOf } from "../tasks/target.ts";
import { outputs } from "../tasks/terraform.ts";
import { LOCAL_REGION } from "../tasks/workspace.ts";
import { toRecord } from "./outside.ts";
import { startProvider } from "./provider.ts";
import { type Ended, interruptTask, runTask } from "./run_task.ts";

/** Resources in AWS; the state has two more, which are terraform_data. */
export const RESOURCES = 19;

/** A stand-in, on which nothing is deployed yet. */
export interface Pipeline {
  /** The environment in which the test was started. */
  shell: Record<string, string>;
  /** The test's own environment on the stand-in. */
  target: Target;
  /** The file of its variables, which no user has. */
  variables: string;
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

/** Defines a test in this process, which enters a stand-in of its own, of which nothing is left. */
export function endToEndTest(
  name: string,
  work: (t: Deno.TestContext, pipeline: Pipeline) => Promise<void>,
): void {
  Deno.test(`${name}, end to end on the stand-in`, async (t) => {
    const target = targetOf({ env: `deno-task-test-${name}`, local: true });
    const variables = join(ROOT, `${target.workspace}.tfvars`);
    const cleanUp = async () => {
      await stopStandIn(target.workspace);
      await removeIfThere(variables);
    };
    await cleanUp(); // of a run that was killed
    await using held = new AsyncDisposableStack();
    held.defer(cleanUp);
    const shell = Deno.env.toObject(); // before the stand-in's environment replaces it
    held.defer(() => assert.deepEqual(Deno.env.toObject(), shell));
    held.use(await enterStandIn(target.workspace, "start"));
    await work(t, { shell: { ...shell }, target, variables });
  });
}

/** Runs steps in order. */
export async function runSteps<Context>(
  t: Deno.TestContext,
  steps: Steps<Context>,
  context: Context,
): Promise<void> {
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

/** What is deployed, and how to reach it. */
export async function openDeployed(pipeline: Pipeline): Promise<Deployed> {
  const { workspace, flags } = pipeline.target;
  const stack = { outputs: (await outputs(workspace))!, flags };
  const deployer = { ...stack, ...clientsWith(configOf(LOCAL_REGION)) };
  const root = { ...stack, ...rootClients() };
  return { ...pipeline, deployer, root, bucket: stack.outputs.s3_bucket_name };
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
  return runTask([name, ...optionsOf(target), ...args], shell);
}

/** As {@link task}, and sends SIGINT once stderr has the pattern. */
export function interruptedTask(
  { shell, target }: Pipeline,
  pattern: RegExp,
  name: string,
  ...args: string[]
): Promise<Ended> {
  return interruptTask([name, ...optionsOf(target), ...args], shell, pattern);
}

/** Uploads a text, and returns what its event says of it. */
export async function upload({ root, bucket }: Deployed, Key: string, Body: string) {
  const bytes = new TextEncoder().encode(Body); // the client warns of an empty text
  const object = { Bucket: bucket, Key, Body: bytes, ContentType: "text/plain" };
  const { VersionId, ETag } = await root.s3.putObject(object);
  return { versionId: VersionId, eTag: ETag!.replaceAll('"', "") };
}

/** Invokes the function with a record, and returns its error. */
export function invokeWith({ root }: Deployed, record: unknown): Promise<string | undefined> {
  return invoke(root, { Records: [record] });
}

/** The record of the event that a row is of. */
export function recordOfRow({ bucket }: Deployed, row: Item) {
  const { file_key, file_size, etag, version_id, sequencer, timestamp } = row;
  return toRecord(bucket, {
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
