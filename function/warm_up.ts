/**
 * Opens the connections that the first event will use, in init, which runs at full CPU whatever the
 * memory size: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
 */

import { type DynamoDBClient, PutItemCommand } from "@aws-sdk/client-dynamodb";
import { GetObjectCommand, type S3Client } from "@aws-sdk/client-s3";

/** The warm-up ends by then, whatever it waits for. Lambda ends an init that takes 10 seconds. */
const WARM_UP_MS = 1000;

/** The SDK's step for what a request passes last, after its signature. */
const LAST_STEP = { step: "finalizeRequest", priority: "low" } as const;

/**
 * Makes one call through each client, as only a whole call opens a connection to the right host in
 * the client's own pool, and compiles the code. Settles, and never fails, within a second.
 *
 * AWS advises against signed requests in init, so each leaves without its signature and is refused.
 * Even if it were let in it would change nothing: DynamoDB takes no row without a key.
 */
export function warmUp(
  { s3, dynamo, table, bucket }: {
    s3: S3Client;
    dynamo: DynamoDBClient;
    table: string;
    bucket?: string;
  },
): Promise<unknown> {
  const abortSignal = AbortSignal.timeout(WARM_UP_MS);
  const put = new PutItemCommand({ TableName: table, Item: {} });
  put.middlewareStack.add(unsignedAndOnce, LAST_STEP);
  const calls: Promise<unknown>[] = [dynamo.send(put, { abortSignal })];
  if (bucket) {
    const get = new GetObjectCommand({ Bucket: bucket, Key: "warm-up", Range: "bytes=0-0" });
    get.middlewareStack.add(unsignedAndOnce, LAST_STEP);
    calls.push(s3.send(get, { abortSignal }));
  }
  return Promise.allSettled(calls);
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
