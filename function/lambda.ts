/**
 * The bundle's entry: binds the rules of handler.ts to AWS, once a cold start. Reads the environment,
 * makes the clients, warms them up, and gives each call its deadline.
 */

import process from "node:process";
import {
  DeleteItemCommand,
  DynamoDBClient,
  PutItemCommand,
  QueryCommand,
} from "@aws-sdk/client-dynamodb";
import { GetObjectCommand, HeadObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { handleEvent, type Outside, PREFIX_BYTES } from "../handler.ts";
import { OutOfTimeError, toJsonLine } from "./errors.ts";
import { handleJob, isInvocation } from "./job.ts";
import { ON_TIME_MS } from "./one_row.ts";
import { readPrefix, type Source } from "./read.ts";

/** What is read of an object. */
const RANGE = `bytes=0-${PREFIX_BYTES - 1}`;

/** Kept free at the end of a run, to report the failures before Lambda ends it. */
const RESERVE_MS = 2000;

const TableName = required("TABLE_NAME");
const bucket = required("BUCKET_NAME");
const recordsRemovals = process.env.RECORD_REMOVALS === "on";
const stackCreatedMs = time("STACK_CREATED");

/** Limit of one attempt: until its answer begins, and of any silence after that. */
const attemptTimeoutMs = Number(process.env.ATTEMPT_TIMEOUT_MS ?? 2000);

/** Limit of one call, its body included: the SDK's three attempts, and 2 s for its pauses. */
const callTimeoutMs = Number(process.env.CALL_TIMEOUT_MS ?? 8000);

const onTimeMs = Number(process.env.ON_TIME_MS ?? ON_TIME_MS);

// Without these the SDK waits for a silent server for ever; requestTimeout alone only warns.
const requestHandler = {
  connectionTimeout: Math.min(1000, attemptTimeoutMs),
  requestTimeout: attemptTimeoutMs,
  throwOnRequestTimeout: true,
  socketTimeout: attemptTimeoutMs,
};

// S3's checksum is of the whole object, and only its beginning is read: there is nothing to check.
const s3 = new S3Client({ requestHandler, responseChecksumValidation: "WHEN_REQUIRED" });
const dynamo = new DynamoDBClient({ requestHandler });

/** The warm-up ends by then, whatever it waits for. Lambda ends an init that takes 10 seconds. */
const WARM_UP_MS = 1000;

/** The SDK's step for what a request passes last, after its signature. */
const LAST_STEP = { step: "finalizeRequest", priority: "low" } as const;

/** Settles, and never fails, once the warm-up is over. `WARM_UP=off` in the environment skips it. */
export const ready: Promise<unknown> = process.env.WARM_UP === "off" ? Promise.resolve() : warmUp();

/** Lambda's entry: see {@link handleEvent} and {@link handleJob} for what returning means. */
export function handler(
  event: unknown,
  context: { getRemainingTimeInMillis(): number },
): Promise<unknown> {
  const remainingMs = () => context.getRemainingTimeInMillis() - RESERVE_MS;

  /** Aborts a call at its limit: the SDK's timeouts miss a server that sends a byte now and then. */
  async function inTime<T>(call: (limit: { abortSignal: AbortSignal }) => Promise<T>): Promise<T> {
    const limitMs = Math.max(0, Math.min(callTimeoutMs, remainingMs()));
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), limitMs);
    try {
      return await call({ abortSignal: controller.signal });
    } catch (error) {
      if (!controller.signal.aborted) throw error;
      throw new OutOfTimeError(`no answer within ${limitMs} ms`);
    } finally {
      clearTimeout(timer);
    }
  }

  const outside: Outside = {
    bucket,
    recordsRemovals,
    stackCreatedMs,
    onTimeMs,
    getObject: (source) =>
      inTime(async (limit) => {
        const command = new GetObjectCommand({ ...toRequest(source), Range: RANGE });
        const { Body, ...answer } = await s3.send(command, limit);
        const body = Body as unknown as AsyncIterable<Uint8Array>;
        return { ...answer, bytes: await readPrefix(body, answer.ContentLength, PREFIX_BYTES) };
      }),
    headObject: (source) =>
      inTime((limit) => s3.send(new HeadObjectCommand(toRequest(source)), limit)),
    putItem: (put) =>
      inTime((limit) => dynamo.send(new PutItemCommand({ TableName, ...put }), limit)),
    queryRows: (query) =>
      inTime((limit) => dynamo.send(new QueryCommand({ TableName, ...query }), limit)),
    deleteItem: (deletion) =>
      inTime((limit) => dynamo.send(new DeleteItemCommand({ TableName, ...deletion }), limit)),
    now: Date.now,
    remainingMs,
    // Not console.log: with JSON logs the runtime would wrap and escape the line once more.
    log: (line) => void process.stdout.write(toJsonLine(line) + "\n"),
  };
  return isInvocation(event) ? handleJob(event, outside) : handleEvent(event, outside);
}

/** Asks for the event's own version; without versions, for its own content or a refusal (412). */
function toRequest({ bucket, key, versionId, etag }: Source) {
  const IfMatch = versionId || !etag ? undefined : `"${etag}"`;
  return { Bucket: bucket, Key: key, VersionId: versionId, IfMatch };
}

function required(name: string): string {
  const value = process.env[name];
  if (value) return value;
  throw new Error(`Cannot start: the environment variable ${name} is not set`);
}

/** Milliseconds since 1970; undefined where the environment does not say. */
function time(name: string): number | undefined {
  const value = process.env[name];
  if (!value) return undefined;
  const ms = Date.parse(value);
  if (Number.isFinite(ms)) return ms;
  throw new Error(`Cannot start: the environment variable ${name} is no time`);
}

/**
 * Opens the connections that the first event will use, in init, which runs at full CPU whatever the
 * memory size: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
 * Makes one call through each client, as only a whole call opens a connection to the right host in
 * the client's own pool, and compiles the code. Settles, and never fails, within a second.
 *
 * AWS advises against signed requests in init, so each leaves without its signature and is refused.
 * Even if it were let in it would change nothing: DynamoDB takes no row without a key.
 */
function warmUp(): Promise<unknown> {
  const abortSignal = AbortSignal.timeout(WARM_UP_MS);
  const put = new PutItemCommand({ TableName, Item: {} });
  put.middlewareStack.add(unsignedAndOnce, LAST_STEP);
  const get = new GetObjectCommand({ Bucket: bucket, Key: "warm-up", Range: "bytes=0-0" });
  get.middlewareStack.add(unsignedAndOnce, LAST_STEP);
  return Promise.allSettled([dynamo.send(put, { abortSignal }), s3.send(get, { abortSignal })]);
}

/** Sends a request without signature and token, and reports success, so that the SDK sends no more. */
function unsignedAndOnce(next: Send): Send {
  return async (args) => {
    const { headers } = args.request as { headers: Record<string, string> };
    delete headers.authorization;
    delete headers["x-amz-security-token"];
    await next(args).then(({ output }) => output.Body?.destroy(), () => {});
    return { response: undefined, output: { $metadata: {} } };
  };
}

// deno-lint-ignore no-explicit-any -- the SDK's type differs by command; what is used does not
type Send = (args: { input: any; request: unknown }) => Promise<any>;
