/** S3 and Lambda behind TLS, as far as `backfill` and `destroy` call them. */

import type { Invocation } from "../function/job.ts";
import { serveTls, type TlsRequest, type TlsServer } from "./tls.ts";

const PAGE_OBJECTS = 1000;

/** What the services hold. */
export interface Holding {
  /** Versions of as many objects. */
  objects: number;
  /** Whether each has its row; if not, invoking the function makes it. */
  isRecorded?: boolean;
  /** Runs that Lambda takes at the same time: it throttles more. */
  takes?: number;
  /** How long a run takes. */
  runMs?: number;
}

/** What was called, and what is left. */
export interface Counts {
  listings: number;
  others: number;
  /** Runs that Lambda took, and the most at the same time. */
  runs: number;
  mostRuns: number;
  throttled: number;
  /** Objects that have a row. */
  rows: number;
  /** Objects that are not deleted. */
  left: number;
}

export type Services = TlsServer & { counts(): Counts };

interface Answer {
  status?: number;
  text: string;
  error?: string;
}

export async function startServices(holding: Holding): Promise<Services> {
  const { answer, counts } = answersOf(holding);
  const server = await serveTls(async (request, response) => {
    const { status = 200, text, error = "" } = await answer(request);
    const length = text.length; // all of it is ASCII
    response.writeHead(status, { "content-length": length, "x-amzn-errortype": error });
    response.end(text);
  });
  return Object.assign(server, { counts });
}

function answersOf({ objects, isRecorded = false, takes = Infinity, runMs = 0 }: Holding) {
  const counts = { listings: 0, others: 0, runs: 0, mostRuns: 0, throttled: 0 };
  const hasRow = new Uint8Array(objects).fill(isRecorded ? 1 : 0);
  const isThere = new Uint8Array(objects).fill(1);
  let running = 0;

  async function invoke(body: string): Promise<Answer> {
    if (running >= takes) {
      counts.throttled++;
      const text = '{"message":"Rate Exceeded."}';
      return { status: 429, text, error: "TooManyRequestsException" };
    }
    counts.runs++;
    counts.mostRuns = Math.max(counts.mostRuns, ++running);
    if (runMs > 0) await new Promise((resolve) => setTimeout(resolve, runMs));
    const { invocationId, tasks }: Invocation = JSON.parse(body);
    const results = tasks.map(({ taskId, s3Key }) => {
      const index = indexOf(decodeURIComponent(s3Key));
      const resultString = hasRow[index] ? "unchanged" : "written";
      hasRow[index] = 1;
      return { taskId, resultCode: "Succeeded", resultString };
    });
    running--;
    return { text: JSON.stringify({ invocationSchemaVersion: "2.0", invocationId, results }) };
  }

  /** A page of what is there, from an index on. */
  function page(first: number): { indexes: number[]; next?: number } {
    const indexes: number[] = [];
    let index = first;
    for (; index < objects && indexes.length < PAGE_OBJECTS; index++) {
      if (isThere[index]) indexes.push(index);
    }
    return { indexes, next: index < objects ? index : undefined };
  }

  function answer({ method, path, body }: TlsRequest): Answer | Promise<Answer> {
    const { pathname, searchParams } = new URL(path, "https://any");
    if (pathname.endsWith("/invocations")) return invoke(body);
    if (method === "POST") {
      for (const [, key] of body.matchAll(/<Key>(.*?)<\/Key>/g)) isThere[indexOf(key)] = 0;
      return { text: "<DeleteResult/>" };
    }
    if (searchParams.get("list-type") === "2") {
      counts.listings++;
      const { indexes, next } = page(Number(searchParams.get("continuation-token") ?? 0));
      const more = next === undefined ? "" : tag("NextContinuationToken", String(next));
      return { text: list("ListBucketResult", "Contents", indexes, more) };
    }
    if (searchParams.has("versions")) {
      const { indexes, next } = page(indexOf(searchParams.get("key-marker") ?? "") + 1);
      const more = next === undefined ? "" : tag("NextKeyMarker", keyOf(next - 1));
      return { text: list("ListVersionsResult", "Version", indexes, more) };
    }
    counts.others++;
    return { text: searchParams.has("uploads") ? "<ListMultipartUploadsResult/>" : "" };
  }
  const sum = (flags: Uint8Array) => flags.reduce((sum, flag) => sum + flag, 0);
  return { answer, counts: () => ({ ...counts, rows: sum(hasRow), left: sum(isThere) }) };
}

const ABOUT = tag("LastModified", "2026-01-02T03:04:05.000Z") +
  tag("ETag", "&quot;d41d8cd98f00b204e9800998ecf8427e&quot;") + tag("Size", "4096") +
  tag("StorageClass", "STANDARD") + tag("VersionId", "v".repeat(32)) + tag("IsLatest", "true") +
  tag("Owner", tag("ID", "a".repeat(64)));

/** A page; `more` tells where the next one begins. */
function list(name: string, entry: string, indexes: number[], more: string): string {
  const entries = indexes.map((index) => tag(entry, tag("Key", keyOf(index)) + ABOUT)).join("");
  const isTruncated = tag("IsTruncated", String(more !== ""));
  return tag(name, tag("EncodingType", "url") + isTruncated + more + entries);
}

function tag(name: string, content: string): string {
  return `<${name}>${content}</${name}>`;
}

/** A key as long as those of many buckets. Nothing in it needs an escape. */
function keyOf(index: number): string {
  return `year-2026/month-01/day-02/part-${String(index).padStart(9, "0")}.csv`;
}

function indexOf(key: string): number {
  return Number(/(\d{9})\.csv$/.exec(key)?.[1] ?? -1);
}
