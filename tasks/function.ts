/** The deployed function: invoking it, the events it takes, its trigger and its failure queue. */

import {
  InvokeCommand,
  type InvokeCommandOutput,
  UpdateFunctionCodeCommand,
  waitUntilFunctionUpdatedV2,
} from "@aws-sdk/client-lambda";
import { GetBucketNotificationConfigurationCommand } from "@aws-sdk/client-s3";
import { GetQueueAttributesCommand } from "@aws-sdk/client-sqs";
import type { Upload } from "../handler.ts";
import type { Stack } from "./target.ts";

const UPDATE_DEADLINE_SECONDS = 120;

/** Refusals by Lambda that concern this event, and not every one to come. */
const REFUSALS = ["TooManyRequestsException", "RequestTooLargeException", "ServiceException"];

/** A run of the function that failed, by Lambda's own names. */
export interface RunFailure {
  errorType: string;
  errorMessage: string;
  /** The lines of the stack. */
  trace?: string[];
}

/** Invokes the function and waits; returns its error or Lambda's refusal, undefined for success. */
export async function invoke(
  stack: Pick<Stack, "lambda" | "outputs">,
  event: unknown,
): Promise<string | undefined> {
  const failure = await runOnce(stack, event);
  if (failure === undefined || failure.errorType === "") return failure?.errorMessage;
  return `${failure.errorType}: ${failure.errorMessage}`;
}

/** As {@link invoke}, with the stack; a failure of no known shape has no type. */
export async function runOnce(
  { lambda, outputs }: Pick<Stack, "lambda" | "outputs">,
  event: unknown,
): Promise<RunFailure | undefined> {
  const command = new InvokeCommand({
    FunctionName: outputs.lambda_function_name,
    Payload: new TextEncoder().encode(JSON.stringify(event)),
  });
  let answer: InvokeCommandOutput;
  try {
    answer = await lambda.send(command);
  } catch (error) {
    const { name, message } = error as Error;
    if (REFUSALS.includes(name)) return { errorType: name, errorMessage: message };
    throw error;
  }
  const { FunctionError, Payload } = answer;
  if (FunctionError === undefined) return undefined;
  const payload = new TextDecoder().decode(Payload);
  try {
    return JSON.parse(payload);
  } catch {
    return { errorType: "", errorMessage: payload };
  }
}

/** Makes a zip the function's code, and waits until it runs. */
export async function updateCode(
  { lambda, outputs }: Pick<Stack, "lambda" | "outputs">,
  zip: Uint8Array,
): Promise<void> {
  const FunctionName = outputs.lambda_function_name;
  await lambda.send(new UpdateFunctionCodeCommand({ FunctionName, ZipFile: zip }));
  await waitUntilFunctionUpdatedV2(
    { client: lambda, maxWaitTime: UPDATE_DEADLINE_SECONDS, minDelay: 0.1, maxDelay: 0.2 },
    { FunctionName },
  );
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
export function encodeKey(key: string): string {
  return new URLSearchParams({ key }).toString().slice("key=".length).replaceAll("%2F", "/");
}

/** Whether the bucket calls the function. */
export async function bucketNotifies({ s3, outputs }: Stack): Promise<boolean> {
  const { LambdaFunctionConfigurations = [] } = await s3.send(
    new GetBucketNotificationConfigurationCommand({ Bucket: outputs.s3_bucket_name }),
  );
  return LambdaFunctionConfigurations.some(({ LambdaFunctionArn }) =>
    LambdaFunctionArn?.endsWith(`:${outputs.lambda_function_name}`)
  );
}

/** Approximate message counts of the failure queue: visible, and received but not deleted yet. */
export interface QueueCounts {
  visible: number;
  inFlight: number;
}

export async function countFailures(
  { sqs, outputs }: Pick<Stack, "sqs" | "outputs">,
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
