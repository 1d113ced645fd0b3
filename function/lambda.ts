/**
 * The edge, and the bundle's entry: binds the core to AWS, once a cold start. It reads the
 * environment and makes the clients; every rule is in handler.ts.
 */

import process from "node:process";
import { DynamoDBClient, PutItemCommand } from "@aws-sdk/client-dynamodb";
import { GetObjectCommand, HeadObjectCommand, S3Client } from "@aws-sdk/client-s3";
import {
  handleEvent,
  OutOfTimeError,
  type Outside,
  PREFIX_BYTES,
  readPrefix,
  toJsonLine,
  type Upload,
} from "../handler.ts";

/** What is read of an object. */
const RANGE = `bytes=0-${PREFIX_BYTES - 1}`;

/** Where a request passes after its signature, right before it leaves. */
const LAST_STEP = { step: "finalizeRequest", priority: "low" } as const;

/** The warm-up ends by then, whatever it waits for. */
const WARM_UP_MS = 1000;

/** Kept free at the end of a run, to report the failures before Lambda ends it. */
const RESERVE_MS = 2000;

const tableName = process.env.TABLE_NAME;
if (!tableName) throw new Error("Cannot start: the environment variable TABLE_NAME is not set");

/** One AWS call at most, its retries and its body included. */
const callTimeoutMs = milliseconds("CALL_TIMEOUT_MS", 8000);

/** One attempt of a call: time without an answer, and silence in the middle of one. */
const attemptTimeoutMs = milliseconds("ATTEMPT_TIMEOUT_MS", 2000);

// Without these the SDK waits for a silent server for ever; requestTimeout alone only warns.
const requestHandler = {
  connectionTimeout: Math.min(1000, attemptTimeoutMs),
  requestTimeout: attemptTimeoutMs,
  throwOnRequestTimeout: true,
  socketTimeout: attemptTimeoutMs,
};

// Without cacheMiddleware: the SDK ignores it where a call has options, as each has its signal here.
// A checksum covers a whole object, and only its beginning is read.
const s3 = new S3Client({ requestHandler, responseChecksumValidation: "WHEN_REQUIRED" });
const dynamo = new DynamoDBClient({ requestHandler });

/** Settles, and never fails, once the warm-up is over. `WARM_UP=off` in the environment skips it. */
export const ready: Promise<unknown> = process.env.WARM_UP === "off"
  ? Promise.resolve()
  : warmUp(process.env.BUCKET_NAME);

/** Lambda's entry: see {@link handleEvent} for what returning and throwing mean. */
export function handler(
  event: unknown,
  context: { getRemainingTimeInMillis(): number },
): Promise<void> {
  const remainingMs = () => context.getRemainingTimeInMillis() - RESERVE_MS;

  /** Ends a call for good: only an abort signal covers a server that drips or stalls. */
  async function inTime<T>(call: (abortSignal: AbortSignal) => Promise<T>): Promise<T> {
    const limitMs = Math.max(0, Math.min(callTimeoutMs, remainingMs()));
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), limitMs);
    try {
      return await call(controller.signal);
    } catch (error) {
      if (!controller.signal.aborted) throw error;
      throw new OutOfTimeError(`no answer within ${limitMs} ms`, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  const outside: Outside = {
    getObject: (upload) =>
      inTime(async (abortSignal) => {
        const command = new GetObjectCommand({ ...source(upload), Range: RANGE });
        const { Body, ...answer } = await s3.send(command, { abortSignal });
        const body = Body as unknown as AsyncIterable<Uint8Array>;
        return { ...answer, bytes: await readPrefix(body, answer.ContentLength) };
      }),
    headObject: (upload) =>
      inTime((abortSignal) => s3.send(new HeadObjectCommand(source(upload)), { abortSignal })),
    putItem: (put) =>
      inTime((abortSignal) =>
        dynamo.send(new PutItemCommand({ TableName: tableName, ...put }), { abortSignal })
      ),
    now: Date.now,
    remainingMs,
    // Not console.log: with JSON logs the runtime would wrap and escape the line once more.
    log: (line) => void process.stdout.write(toJsonLine(line) + "\n"),
  };
  return handleEvent(event, outside);
}

/**
 * Opens the connections that the first event will use, while init runs at full CPU whatever the
 * memory size. A call goes all the way through each client, so that it ends at the right host, in
 * the client's own pool, and its code is compiled. AWS advises against signed requests in init, so
 * each leaves without its signature and is refused. Were it let in, it would still change nothing:
 * a row without its keys is not valid.
 */
function warmUp(bucket: string | undefined): Promise<unknown> {
  const abortSignal = AbortSignal.timeout(WARM_UP_MS);
  const put = new PutItemCommand({ TableName: tableName, Item: {} });
  put.middlewareStack.add(unsignedAndOnce, LAST_STEP);
  const calls: Promise<unknown>[] = [dynamo.send(put, { abortSignal })];
  if (bucket) {
    const get = new GetObjectCommand({ Bucket: bucket, Key: "warm-up", Range: RANGE });
    get.middlewareStack.add(unsignedAndOnce, LAST_STEP);
    calls.push(s3.send(get, { abortSignal }));
  }
  return Promise.allSettled(calls);
}

/** Sends a request without signature and token. The SDK is told that it went well: no second try. */
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

/** The event's own version; in a bucket without versions, its own content or a refusal (412). */
function source(upload: Upload) {
  return {
    Bucket: upload.bucket,
    Key: upload.key,
    VersionId: upload.versionId,
    IfMatch: upload.versionId || !upload.etag ? undefined : `"${upload.etag}"`,
  };
}

function milliseconds(name: string, byDefault: number): number {
  const value = Number(process.env[name] ?? byDefault);
  if (value > 0 && Number.isFinite(value)) return value;
  throw new Error(`Cannot start: the environment variable ${name} is no number of milliseconds`);
}
