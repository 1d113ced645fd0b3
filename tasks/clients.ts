/** The clients of AWS, and their credentials. The environment says which AWS: the stand-in is entered. */

import { CloudWatchClient } from "@aws-sdk/client-cloudwatch";
import { CloudWatchLogsClient } from "@aws-sdk/client-cloudwatch-logs";
import { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { IAMClient } from "@aws-sdk/client-iam";
import { LambdaClient } from "@aws-sdk/client-lambda";
import { HeadBucketCommand, S3Client } from "@aws-sdk/client-s3";
import { SQSClient } from "@aws-sdk/client-sqs";
import { STSClient, type STSClientConfig } from "@aws-sdk/client-sts";
import { statusOf, toSentence } from "./failures.ts";
import { requestHandler } from "./proxy.ts";
import { interrupted, overdue } from "./signals.ts";
import { UserError, visible } from "./terminal.ts";

/** How far AWS's clock is ahead of this machine's, which may be minutes off. */
let aheadMs = 0;

/** AWS's time, in milliseconds since 1970, as the Date of its answers tells it. */
export function now(): number {
  return Date.now() + aheadMs;
}

/** A Date has whole seconds, and is some time on its way. */
const LEAST_GAP_MS = 3000;

/** Makes a first call, whose answer tells AWS's time, be it a refusal. */
export async function readClock({ s3 }: Clients, Bucket: string): Promise<void> {
  await s3.send(new HeadBucketCommand({ Bucket })).catch((error) => {
    if (statusOf(error) === undefined) throw error;
  });
}

/** What every client of a region needs to know. */
export function configOf(region: string) {
  const handler = requestHandler(Deno.env.toObject());
  const handle = handler.handle.bind(handler);
  handler.handle = async (request, options) => {
    const answer = await handle(request, options);
    const gapMs = Date.parse(answer.response.headers.date ?? "") - Date.now();
    if (!Number.isNaN(gapMs)) aheadMs = Math.abs(gapMs) > LEAST_GAP_MS ? gapMs : 0;
    return answer;
  };
  // The SDK's own sources of credentials, which by themselves would ask SSO without the proxy.
  const { credentialDefaultProvider: sources }: Pick<STSClientConfig, "credentialDefaultProvider"> =
    new STSClient().config;
  const credentialDefaultProvider = (settings: object) =>
    sources!({ ...settings, clientConfig: { requestHandler: handler } });
  return { region, requestHandler: handler, credentialDefaultProvider };
}

/**
 * For calls that AWS throttles where there are many: each try waits longer, and the client sends less
 * meanwhile. Other calls fail sooner, as where a proxy does not answer.
 */
const PATIENT = { maxAttempts: 10, retryMode: "adaptive" };

/** For a bucket of any size. */
export function patientS3(region: string): S3Client {
  return new S3Client({ ...configOf(region), ...PATIENT });
}

export type Clients = ReturnType<typeof clientsOf>;

export function clientsOf(region: string) {
  const config = configOf(region);
  const patient = { ...config, ...PATIENT };
  const clients = {
    s3: new S3Client(config),
    dynamo: new DynamoDBClient(config),
    lambda: new LambdaClient(patient),
    sqs: new SQSClient(config),
    logs: new CloudWatchLogsClient(patient),
    cloudwatch: new CloudWatchClient(config),
    iam: new IAMClient(config),
    sts: new STSClient(config),
  };
  Object.values(clients).forEach(endAtCtrlC);
  return clients;
}

type Send = (command: unknown, options?: { abortSignal?: AbortSignal }) => Promise<unknown>;

/** Lets a client's calls end soon after Ctrl-C, but not those that begin then to put things in order. */
export function endAtCtrlC(client: { send: unknown }): void {
  const send = (client.send as Send).bind(client);
  const sendInTime: Send = (command, options = {}) => {
    if (interrupted.aborted) return send(command, options);
    const { abortSignal } = options;
    const either = abortSignal ? AbortSignal.any([abortSignal, overdue]) : overdue;
    return send(command, { ...options, abortSignal: either });
  };
  client.send = sendInTime;
}

/**
 * Asks the SDK's own sources for credentials, without a call to the stack.
 *
 * @throws {UserError} there are none, or none any more
 */
export async function checkCredentials(): Promise<void> {
  const environment = Deno.env.toObject();
  try {
    const region = environment.AWS_REGION || "us-east-1"; // where STS is asked
    await new S3Client(configOf(region)).config.credentials();
  } catch (error) {
    throw new UserError(toSentence(error, environment) ?? visible(String(error)));
  }
}
