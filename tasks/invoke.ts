/** The deployed function: invoking it, the events it takes, its trigger and its failure queue. */

import { isDeepStrictEqual } from "node:util";
import {
  InvokeCommand,
  type InvokeCommandOutput,
  UpdateFunctionCodeCommand,
  waitUntilFunctionUpdatedV2,
} from "@aws-sdk/client-lambda";
import {
  GetBucketNotificationConfigurationCommand,
  type LambdaFunctionConfiguration,
} from "@aws-sdk/client-s3";
import { GetQueueAttributesCommand } from "@aws-sdk/client-sqs";
import { isObject, type Upload } from "../handler.ts";
import { denoTask } from "./commands.ts";
import { LONGEST_RUN_MS } from "./proxy.ts";
import { interrupted, TIME, type Time } from "./signals.ts";
import type { Stack } from "./target.ts";
import { toDuration, visible } from "./terminal.ts";
import type { Outputs } from "./terraform.ts";

/** An update of the code takes seconds, and so does another one that is waited for. */
const UPDATE_SECONDS = 120;
const TRIES_A_SECOND = 2;

/** Refusals by Lambda that concern this event, and not every one to come. */
const REFUSALS = ["TooManyRequestsException", "RequestTooLargeException", "ServiceException"];

/** A run of the function that failed, by Lambda's own names; a time-out may have no type. */
export interface RunFailure {
  errorType?: string;
  errorMessage?: string;
  /** The lines of the stack. */
  trace?: string[];
}

/** A run for a few files takes seconds, or hangs: the stand-in may wait for ever for its start. */
export const SHORT_RUN_MS = 60_000;

/** Invokes the function and waits; returns its error or Lambda's refusal, undefined for success. */
export async function invoke(
  stack: Pick<Stack, "lambda" | "outputs">,
  event: unknown,
  patience?: Parameters<typeof runFunction>[2],
): Promise<string | undefined> {
  const { failure } = await runFunction(stack, event, patience);
  return failure && toReason(failure);
}

/** A failure in one line. */
export function toReason({ errorType, errorMessage }: { [Name in keyof RunFailure]: unknown }) {
  const known = [errorType, errorMessage].filter((part) => typeof part === "string" && part !== "");
  return known.join(": ") || "it failed, and Lambda does not say why";
}

/** As {@link invoke}, with the function's answer and the failure's stack. The signal ends the wait. */
export async function runFunction(
  { lambda, outputs }: Pick<Stack, "lambda" | "outputs">,
  event: unknown,
  { limitMs = LONGEST_RUN_MS, signal }: { limitMs?: number; signal?: AbortSignal } = {},
): Promise<{ answer?: unknown; failure?: RunFailure }> {
  const limit = AbortSignal.timeout(limitMs);
  const abortSignal = signal === undefined ? limit : AbortSignal.any([limit, signal]);
  const command = new InvokeCommand({
    FunctionName: outputs.lambda_function_name,
    Payload: new TextEncoder().encode(JSON.stringify(event)),
  });
  let output: InvokeCommandOutput;
  try {
    output = await lambda.send(command, { abortSignal });
  } catch (error) {
    const { name, message } = error as Error;
    if (limit.aborted) {
      const errorMessage = `no answer within ${toDuration(limitMs)}: it may never end`;
      return { failure: { errorMessage } };
    }
    if (REFUSALS.includes(name)) return { failure: { errorType: name, errorMessage: message } };
    throw error;
  }
  const payload = new TextDecoder().decode(output.Payload);
  if (output.FunctionError === undefined) {
    return { answer: payload === "" ? undefined : JSON.parse(payload) };
  }
  return { failure: parseObject(payload) ?? { errorMessage: payload } };
}

/** The fields of a text that is a JSON object. */
export function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Makes a zip the function's code, and waits until it runs. Lambda refuses an update during another
 * one, and the SDK does not try that again.
 */
export async function updateCode(
  { lambda, outputs }: Pick<Stack, "lambda" | "outputs">,
  zip: Uint8Array,
  { signal = interrupted, time = TIME }: { signal?: AbortSignal; time?: Time } = {},
): Promise<void> {
  const FunctionName = outputs.lambda_function_name;
  const command = new UpdateFunctionCodeCommand({ FunctionName, ZipFile: zip });
  for (let left = UPDATE_SECONDS * TRIES_A_SECOND;; left--) {
    try {
      await lambda.send(command, { abortSignal: signal });
      break;
    } catch (error) {
      if ((error as Error).name !== "ResourceConflictException" || left === 0) throw error;
    }
    await time.pause(1000 / TRIES_A_SECOND, signal);
  }
  const pace = { maxWaitTime: UPDATE_SECONDS, minDelay: 0.1, maxDelay: 0.2 };
  const waiting = { client: lambda, ...pace, abortSignal: signal };
  await waitUntilFunctionUpdatedV2(waiting, { FunctionName });
}

/** What it means that the function runs other code than Terraform deployed. */
export function strayCode(since: string): string {
  return `since ${visible(since)} the function runs code that was not deployed, as dev lets it ` +
    "while it runs, and leaves it when it is killed";
}

/** An S3 event about uploads, as S3 would send it. */
export function toEvent({ outputs }: Pick<Stack, "outputs">, uploads: Upload[]) {
  const Records = uploads.map((upload) => ({
    eventVersion: "2.1",
    eventSource: "aws:s3",
    awsRegion: outputs.aws_region,
    eventTime: upload.timestamp,
    eventName: upload.eventName,
    s3: {
      s3SchemaVersion: "1.0",
      bucket: { name: upload.bucket, arn: `arn:aws:s3:::${upload.bucket}` },
      object: {
        key: encodeKey(upload.key),
        size: upload.size,
        eTag: upload.etag,
        versionId: upload.versionId,
        sequencer: upload.sequencer,
      },
    },
  }));
  return { Records };
}

/** A key as events carry it: form-encoded, but for the slash. */
function encodeKey(key: string): string {
  return new URLSearchParams({ key }).toString().slice("key=".length).replaceAll("%2F", "/");
}

/** The entries of the bucket's notification that call the function. */
export async function notificationsOf(
  { s3, outputs }: Pick<Stack, "s3"> & {
    outputs: Pick<Outputs, "s3_bucket_name" | "lambda_function_name">;
  },
): Promise<LambdaFunctionConfiguration[]> {
  const { LambdaFunctionConfigurations = [] } = await s3.send(
    new GetBucketNotificationConfigurationCommand({ Bucket: outputs.s3_bucket_name }),
  );
  return LambdaFunctionConfigurations.filter(({ LambdaFunctionArn }) =>
    LambdaFunctionArn?.endsWith(`:${outputs.lambda_function_name}`)
  );
}

/** Whether a notification, by S3 or in Terraform's state, tells of removals. */
export function tellsRemovals(notification: unknown): boolean {
  return JSON.stringify(notification).includes("s3:ObjectRemoved:");
}

/** Whether the bucket calls the function: see {@link areAsDeployed}. */
export async function bucketNotifies(stack: Stack): Promise<boolean> {
  return areAsDeployed(stack, await notificationsOf(stack));
}

/**
 * Whether entries call the function; those of an existing bucket, which Terraform does not look at,
 * with the deployed events and filters.
 */
export function areAsDeployed(
  { outputs: { notification_json } }: Pick<Stack, "outputs">,
  entries: LambdaFunctionConfiguration[],
): boolean {
  if (notification_json === undefined) return entries.length > 0;
  return isDeepStrictEqual(comparable(entries), comparable(JSON.parse(notification_json)));
}

/** What an entry means, without its id and the order of its parts. */
function comparable(entries: LambdaFunctionConfiguration[]): string[] {
  return entries.map(({ Events = [], Filter }) => {
    const rules = (Filter?.Key?.FilterRules ?? []).filter(({ Value }) => Value);
    const texts = rules.map(({ Name, Value }) => `${Name!.toLowerCase()} ${Value}`);
    return [...Events, ...texts].toSorted().join("\n");
  }).toSorted();
}

/** That the bucket does not call the function, and what to do, as a sentence. */
export function silenceOf({ outputs, flags }: Pick<Stack, "outputs" | "flags">): string {
  const deploy = denoTask({ flags }, "deploy");
  const silent = `the bucket ${outputs.s3_bucket_name} does not call the function`;
  return outputs.existing_bucket === undefined
    ? `${silent}; ${deploy} puts it right`
    : `${silent}, or by other events or filters; ${deploy} says how to put it right`;
}

/** Approximate message counts of the failure queue: visible, and received but not deleted yet. */
export interface QueueCounts {
  visible: number;
  inFlight: number;
}

export async function countFailures(
  { sqs, outputs }: Pick<Stack, "sqs"> & { outputs: Pick<Outputs, "failure_queue_url"> },
): Promise<QueueCounts> {
  const { Attributes = {} } = await sqs.send(
    new GetQueueAttributesCommand({
      QueueUrl: outputs.failure_queue_url,
      AttributeNames: ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    }),
  );
  return {
    visible: Number(Attributes.ApproximateNumberOfMessages),
    inFlight: Number(Attributes.ApproximateNumberOfMessagesNotVisible),
  };
}

/** How many events the failure queue holds, those in flight included. */
export async function countFailed(of: Parameters<typeof countFailures>[0]): Promise<number> {
  const { visible, inFlight } = await countFailures(of);
  return visible + inFlight;
}
