/**
 * S3 and Lambda, as far as `backfill` calls them, behind TLS and in a process of their own:
 * what the operator's process takes is then its own.
 */

import { createServer } from "node:https";
import type { IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type { Invocation } from "../function/job.ts";
import { makeCertificate } from "./tls_stub.ts";

/** What the services hold. */
export interface Holding {
  /** Objects in the bucket, `o-000000000` and so on. */
  objects: number;
  /** Whether each has its row; if not, invoking the function makes it. */
  recorded: boolean;
  /** Runs that Lambda takes at the same time: it throttles more. */
  takes?: number;
  /** How long a run takes. */
  runMs?: number;
  /** LastModified of each object. */
  time?: string;
}

/** What was called. */
export interface Counts {
  listings: number;
  others: number;
  /** Runs that Lambda took, and the most at the same time. */
  runs: number;
  mostRuns: number;
  throttled: number;
  /** Objects that have a row. */
  rows: number;
}

export interface Services extends AsyncDisposable {
  /** What an operator's process needs to reach them. */
  env: Record<string, string>;
  ca: string;
  counts(): Promise<Counts>;
}

/** Starts the services with a certificate made in `folder`. */
export async function startServices(folder: string, holding: Holding): Promise<Services> {
  const { cert } = await makeCertificate(folder);
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", import.meta.filename!, folder, JSON.stringify(holding)],
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const output = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const input = child.stdin.getWriter();
  const { value = "" } = await output.read();
  const url = `https://127.0.0.1:${value.trim()}`;
  return {
    ca: cert,
    env: { AWS_ENDPOINT_URL: url, AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test" },
    async counts() {
      await input.write(new TextEncoder().encode("?"));
      return JSON.parse((await output.read()).value!);
    },
    async [Symbol.asyncDispose]() {
      await input.close(); // which ends it
      await child.status;
      await output.cancel();
    },
  };
}

const PAGE_OBJECTS = 1000;

async function serve(folder: string, holding: Holding): Promise<void> {
  const { answer, counts } = answersOf(holding);
  const tls = {
    key: await Deno.readTextFile(`${folder}/key.pem`),
    cert: await Deno.readTextFile(`${folder}/cert.pem`),
    keepAliveTimeout: 60_000,
  };
  const server = createServer(tls, async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const { status = 200, type, text, error = "" } = await answer(request, body);
    const length = text.length; // all of it is ASCII
    const headers = { "content-type": type, "content-length": length, "x-amzn-errortype": error };
    response.writeHead(status, headers);
    response.end(text);
  });
  server.listen(0, "127.0.0.1", () => console.log((server.address() as AddressInfo).port));
  for await (const _ of Deno.stdin.readable) console.log(JSON.stringify(counts()));
  Deno.exit();
}

interface Answer {
  status?: number;
  type: string;
  text: string;
  error?: string;
}

function answersOf(holding: Holding) {
  const { objects, takes = Infinity, runMs = 0, time = "2026-01-02T03:04:05.000Z" } = holding;
  const counts = { listings: 0, others: 0, runs: 0, mostRuns: 0, throttled: 0 };
  const hasRow = new Uint8Array(objects).fill(holding.recorded ? 1 : 0);
  let runs = 0;

  const list = (url: URL): Answer => {
    counts.listings++;
    const first = Number(url.searchParams.get("continuation-token") ?? 0);
    const end = Math.min(objects, first + PAGE_OBJECTS);
    return { type: "application/xml", text: listing(first, end, time, end < objects) };
  };
  const invoke = async (body: string): Promise<Answer> => {
    if (runs >= takes) {
      counts.throttled++;
      const text = '{"message":"Rate Exceeded."}';
      return { status: 429, type: "application/json", text, error: "TooManyRequestsException" };
    }
    counts.runs++;
    counts.mostRuns = Math.max(counts.mostRuns, ++runs);
    if (runMs > 0) await new Promise((resolve) => setTimeout(resolve, runMs));
    const { invocationId, tasks }: Invocation = JSON.parse(body);
    const results = tasks.map(({ taskId, s3Key }) => {
      const resultString = hasRow[toNumber(s3Key)] ? "unchanged" : "written";
      hasRow[toNumber(s3Key)] = 1;
      return { taskId, resultCode: "Succeeded", resultString };
    });
    runs--;
    const answer = { invocationSchemaVersion: "2.0", invocationId, results };
    return { type: "application/json", text: JSON.stringify(answer) };
  };
  const answer = (request: IncomingMessage, body: string): Answer | Promise<Answer> => {
    const url = new URL(request.url!, "https://any");
    if (url.pathname.endsWith("/invocations")) return invoke(body);
    if (url.searchParams.get("list-type") === "2") return list(url);
    counts.others++;
    return { type: "application/json", text: "" };
  };
  return { answer, counts: () => ({ ...counts, rows: hasRow.reduce((sum, one) => sum + one, 0) }) };
}

function listing(first: number, end: number, time: string, isTruncated: boolean): string {
  const parts = [
    '<?xml version="1.0" encoding="UTF-8"?>',
    '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">',
    `<EncodingType>url</EncodingType><IsTruncated>${isTruncated}</IsTruncated>`,
  ];
  if (isTruncated) parts.push(`<NextContinuationToken>${end}</NextContinuationToken>`);
  for (let n = first; n < end; n++) {
    parts.push(
      `<Contents><Key>${toKey(n)}</Key><LastModified>${time}</LastModified>` +
        "<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>7</Size>" +
        "<StorageClass>STANDARD</StorageClass></Contents>",
    );
  }
  return parts.join("") + "</ListBucketResult>";
}

function toKey(n: number): string {
  return `o-${String(n).padStart(9, "0")}`;
}

function toNumber(key: string): number {
  return Number(key.slice(2));
}

if (import.meta.main) await serve(Deno.args[0], JSON.parse(Deno.args[1]));
