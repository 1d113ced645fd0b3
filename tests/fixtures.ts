/** What the tests share: fakes of the AWS clients, of the time and of the log. */

import assert from "node:assert/strict";
import { CloudWatchLogsClient } from "@aws-sdk/client-cloudwatch-logs";
import { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { S3Client } from "@aws-sdk/client-s3";
import { temporaryFolder } from "../tasks/files.ts";
import type { Time } from "../tasks/signals.ts";
import type { Item } from "../tasks/table.ts";
import type { Stack } from "../tasks/target.ts";
import { redirectProgress } from "../tasks/terminal.ts";

/** A file of the project, by its path from the top. */
export function read(path: string): Promise<string> {
  return Deno.readTextFile(new URL(`../${path}`, import.meta.url));
}

/** Replaces the variables of AWS and of proxies, and sets these, until disposed. */
export function replaceEnvironment(environment: Record<string, string>): Disposable {
  const before = Deno.env.toObject();
  const remove = (isRemoved: (name: string) => boolean) =>
    Object.keys(Deno.env.toObject()).filter(isRemoved).forEach((name) => Deno.env.delete(name));
  const set = (to: Record<string, string>) =>
    Object.entries(to).forEach(([name, value]) => Deno.env.set(name, value));
  remove((name) => /^AWS_|_PROXY$/i.test(name));
  set(environment);
  return {
    [Symbol.dispose]() {
      remove((name) => !(name in before));
      set(before);
    },
  };
}

/** The function's memory in MB, as variables.tf sets it. */
export async function defaultMemoryMb(): Promise<number> {
  const [, value] = (await read("variables.tf"))
    .match(/^variable "lambda_memory_mb" \{[^}]*?default\s*= (\d+)$/m)!;
  return Number(value);
}

/** NODE_OPTIONS as main.tf sets them, at that memory. */
export async function nodeOptions(): Promise<string> {
  const [, template] = (await read("main.tf")).match(/^ +NODE_OPTIONS = "(.*)"$/m)!;
  const heapMb = Math.floor(await defaultMemoryMb() * 9 / 10);
  const options = template.replace("${floor(var.lambda_memory_mb * 9 / 10)}", String(heapMb));
  if (/^[-=\w ]+$/.test(options)) return options;
  throw new Error(`Cannot read NODE_OPTIONS from main.tf: ${options}`);
}

/** A command's input: the test knows which command it is. */
// deno-lint-ignore no-explicit-any
type Input = Record<string, any>;

/** By a command's name: its answers in order, then `{}`, or a function. An error is thrown. */
export type Answers = Record<string, object[] | ((input: Input) => object | Promise<object>)>;

/** What {@link fakeStack} is said to be. */
const OUTPUTS = {
  s3_bucket_name: "uploads",
  dynamodb_table_name: "files",
  failure_queue_url: "https://queue",
  log_group_name: "log",
  lambda_function_name: "fn",
  filter_prefixes: ["in/"],
  filter_suffixes: [".txt"],
  aws_region: "eu-central-1",
};

/** The answer of a bucket that calls the function of {@link fakeStack}. */
export const NOTIFIES: Answers = {
  GetBucketNotificationConfigurationCommand: () => ({
    LambdaFunctionConfigurations: [{ LambdaFunctionArn: "arn:aws:lambda:r:1:function:fn" }],
  }),
};

/** The answer of a failure queue that holds so many events. */
export function queue(visible: number, inFlight = 0) {
  const ApproximateNumberOfMessages = String(visible);
  const ApproximateNumberOfMessagesNotVisible = String(inFlight);
  return { Attributes: { ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible } };
}

export const NO_FAILURES: Answers = { GetQueueAttributesCommand: () => queue(0) };

/** A stack in environment x whose clients are one fake, and its calls. */
export function fakeStack(answers: Answers) {
  const calls: { name: string; input: Input }[] = [];
  const send = async (
    command: { constructor: { name: string }; input: Input },
    { abortSignal }: { abortSignal?: AbortSignal } = {},
  ) => {
    abortSignal?.throwIfAborted();
    const { name } = command.constructor;
    calls.push({ name, input: command.input });
    const given = answers[name];
    const answer = typeof given === "function" ? await given(command.input) : given?.shift() ?? {};
    if (answer instanceof Error) throw answer;
    return answer;
  };
  // The SDK's paginators take nothing but a client of their own class.
  const of = (Client: { prototype: object }) =>
    Object.assign(Object.create(Client.prototype), { send });
  const own = { dynamo: of(DynamoDBClient), s3: of(S3Client), logs: of(CloudWatchLogsClient) };
  const client = { send };
  const names = ["lambda", "sqs", "cloudwatch", "iam", "sts"];
  const clients = Object.fromEntries(names.map((name) => [name, client]));
  return {
    stack: { ...clients, ...own, outputs: OUTPUTS, flags: " --env x" } as unknown as Stack,
    calls,
  };
}

/** A row of strings as DynamoDB answers it. */
export function toAttributes(item: Item): Record<string, { S: string }> {
  return Object.fromEntries(
    Object.entries(item).map(([name, value]) => [name, { S: String(value) }]),
  );
}

/** A row of 2026-01-02 with just these attributes more. */
export function row(file_key: string, attributes: Record<string, string | undefined>): Item {
  const timestamp = "2026-01-02T03:04:05.000Z";
  return JSON.parse(JSON.stringify({ file_key, timestamp, event_name: "x", ...attributes }));
}

/** Lets Date.now() tell a time of its own until disposed. */
export function clockAt(now: () => number): Disposable {
  const before = Date.now;
  Date.now = now;
  return { [Symbol.dispose]: () => void (Date.now = before) };
}

/** A time of its own that passes at once, where something pauses. */
export function fakeTime() {
  const pauses: number[] = [];
  let nowMs = 0;
  const time: Time = {
    nowMs: () => nowMs,
    async pause(ms, signal) {
      signal?.throwIfAborted();
      pauses.push(ms);
      nowMs += ms;
      await new Promise((resolve) => setTimeout(resolve)); // all else that is ready runs first
    },
  };
  return { time, pauses };
}

/**
 * A log of thirty days until some time before now, with a line of a written row every so often: by
 * default more than a million a day. FilterLogEvents reads it from the newest on, page by page.
 */
export function largeLog(nowMs: number, sinceLastMs: number, everyMs = 75): Answers {
  const [fromMs, toMs] = [nowMs - 30 * 86_400_000, nowMs - sinceLastMs];
  return {
    FilterLogEventsCommand: ({ startTime, startFromHead, nextToken = toMs }) => {
      assert.equal(startFromHead, false);
      const firstMs = Math.max(fromMs, Number(startTime));
      const events: { timestamp: number; message: string }[] = [];
      let ms = Math.floor(Number(nextToken) / everyMs) * everyMs;
      for (; ms >= firstMs && events.length < 10_000; ms -= everyMs) {
        const event_time = new Date(ms).toISOString();
        const line = { outcome: "written", file_key: `in/${ms}`, event_time };
        events.push({ timestamp: ms, message: JSON.stringify(line) });
      }
      return { events, nextToken: ms >= firstMs ? String(ms) : undefined };
    },
    BatchGetItemCommand: ({ RequestItems }) => ({ Responses: { files: RequestItems.files.Keys } }),
  };
}

export async function until(condition: () => boolean): Promise<void> {
  const endMs = performance.now() + 10_000;
  while (!condition()) {
    assert.ok(performance.now() < endMs, `not within 10 s: ${condition}`);
    await pause(5);
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Does some work, and returns what it prints as progress. */
export async function progressOf(work: () => Promise<unknown>): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  using _redirected = redirectProgress((bytes) => void (text += decoder.decode(bytes)));
  await work();
  return text;
}

/** A copy of the function's code to edit, inside the project, where its packages are found. */
export async function copyOfCode(): Promise<{ path: string } & AsyncDisposable> {
  const copy = await temporaryFolder();
  await Deno.mkdir(`${copy.path}/function`);
  const files = await Array.fromAsync(Deno.readDir(new URL("../function", import.meta.url)));
  for (const file of ["handler.ts", ...files.map(({ name }) => `function/${name}`)]) {
    await Deno.writeTextFile(`${copy.path}/${file}`, await read(file));
  }
  return copy;
}
