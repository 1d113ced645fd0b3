/**
 * What the fault tests act on: the stand-in without its IAM, microburst before it, which breaks
 * what it is told to, and processes of the built function.
 */

import assert from "node:assert/strict";
import {
  CreateTableCommand,
  DynamoDBClient,
  QueryCommand,
  ScanCommand,
} from "@aws-sdk/client-dynamodb";
import {
  CreateBucketCommand,
  HeadObjectCommand,
  PutObjectCommand,
  S3Client,
} from "@aws-sdk/client-s3";
import { unzipSync } from "fflate";
import { build } from "../tasks/build.ts";
import { freePort } from "../tasks/stand_in.ts";
import { makeTools } from "../tasks/tools.ts";
import { type Environment, FunctionProcess, writeFunction } from "./function_process.ts";

export const BUCKET = "faults";
const TABLE = "faults";

/** Limits of the function under test; the call's is the default. */
export const ATTEMPT_TIMEOUT_MS = 1000;
export const CALL_TIMEOUT_MS = 8000;

export type Setup = Awaited<ReturnType<typeof startSetup>>;

/** Starts the servers, which end with `resources`, as the functions do. */
export async function startSetup(resources: AsyncDisposableStack) {
  const tools = await makeTools();
  const parent = await Deno.makeTempDir();
  resources.defer(() => Deno.remove(parent, { recursive: true }));
  const [standInPort, proxyPort] = [freePort(), freePort()];
  const standIn = `http://127.0.0.1:${standInPort}`;
  const proxy = `http://127.0.0.1:${proxyPort}`;
  const python = (args: string[], env: Record<string, string> = {}) =>
    resources.use(startPython(tools.python, args, parent, env));
  python(["-m", "ministack"], {
    BIND_HOST: "127.0.0.1",
    GATEWAY_PORT: String(standInPort),
    SFTP_ENABLED: "0",
    IOT_MTLS_ENABLED: "0",
  });
  python(["-m", "microburst", "--host", "127.0.0.1", "--port", String(proxyPort), "-u", standIn]);
  await answering(`${standIn}/_ministack/health`);
  await answering(`${proxy}/_microburst/health`);

  const { zip } = await build();
  const folder = await writeFunction(parent, "function", unzipSync(zip));
  /** Starts the function; with no warm-up, as requests are counted here. */
  const startFunction = async (env: Environment) =>
    resources.use(
      await FunctionProcess.start(tools.node, folder, {
        BUCKET_NAME: BUCKET,
        TABLE_NAME: TABLE,
        WARM_UP: "off",
        CALL_TIMEOUT_MS: String(CALL_TIMEOUT_MS),
        ATTEMPT_TIMEOUT_MS: String(ATTEMPT_TIMEOUT_MS),
        ...env,
      }),
    );
  const store = await openStore(standIn);
  resources.defer(store.close);
  return { standIn, proxy, startFunction, ...store };
}

function startPython(
  python: string,
  args: string[],
  folder: string,
  env: Record<string, string>,
): AsyncDisposable {
  const child = new Deno.Command(python, {
    args,
    cwd: folder,
    env: { PATH: Deno.env.get("PATH")!, HOME: folder, TMPDIR: folder, ...env },
    clearEnv: true,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const end = async () => {
    child.kill("SIGKILL");
    await child.status;
  };
  return { [Symbol.asyncDispose]: end };
}

/** A bucket without versions and a table as main.tf makes it, and what the tests do with them. */
async function openStore(endpoint: string) {
  const credentials = { accessKeyId: "test", secretAccessKey: "test" };
  const config = { region: "us-east-1", endpoint, credentials };
  const s3 = new S3Client({ ...config, forcePathStyle: true });
  const dynamo = new DynamoDBClient(config);
  await s3.send(new CreateBucketCommand({ Bucket: BUCKET }));
  const key = ["file_key", "timestamp"];
  await dynamo.send(
    new CreateTableCommand({
      TableName: TABLE,
      BillingMode: "PAY_PER_REQUEST",
      AttributeDefinitions: key.map((AttributeName) => ({ AttributeName, AttributeType: "S" })),
      KeySchema: key.map((AttributeName, i) => ({ AttributeName, KeyType: i ? "RANGE" : "HASH" })),
    }),
  );
  return {
    async putObject(Key: string, text: string) {
      const Body = new TextEncoder().encode(text); // the client warns of an empty text
      const ContentType = "text/plain; charset=utf-8";
      await s3.send(new PutObjectCommand({ Bucket: BUCKET, Key, Body, ContentType }));
    },
    headObject: (Key: string) => s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key })),
    async rowsOf(key: string) {
      const KeyConditionExpression = "file_key = :key";
      const ExpressionAttributeValues = { ":key": { S: key } };
      const query = { TableName: TABLE, KeyConditionExpression, ExpressionAttributeValues };
      return (await dynamo.send(new QueryCommand(query))).Items ?? [];
    },
    async countRows(prefix: string) {
      const FilterExpression = "begins_with(file_key, :prefix)";
      const ExpressionAttributeValues = { ":prefix": { S: prefix } };
      const scan = { TableName: TABLE, FilterExpression, ExpressionAttributeValues };
      return (await dynamo.send(new ScanCommand({ ...scan, Select: "COUNT" }))).Count;
    },
    close() {
      s3.destroy();
      dynamo.destroy();
    },
  };
}

/** Sets the rules by which microburst breaks requests from now on. */
export async function breakBy(proxy: string, rules: unknown[]): Promise<void> {
  const body = JSON.stringify(rules);
  const response = await fetch(`${proxy}/_microburst/rules`, { method: "POST", body });
  const answer = await response.text();
  assert.equal(response.status, 200, answer);
}

/** Requests that microburst has seen so far. */
export async function countRequests(proxy: string): Promise<{ s3: number; dynamodb: number }> {
  const { by_service } = await (await fetch(`${proxy}/_microburst/stats`)).json();
  const count = (name: string) =>
    by_service.find(({ service }: { service: string }) => service === name)?.requests ?? 0;
  return { s3: count("s3"), dynamodb: count("dynamodb") };
}

async function answering(url: string): Promise<void> {
  for (const endMs = Date.now() + 30_000; Date.now() < endMs;) {
    try {
      await (await fetch(url)).body?.cancel();
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  throw new Error(`${url} does not answer`);
}
