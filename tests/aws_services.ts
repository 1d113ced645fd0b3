/** S3 and Lambda behind TLS, as far as `backfill` and `destroy` call them. */

import type { Invocation } from "../function/job.ts";
import { serveTls, type TlsRequest, type TlsServer } from "./stub.ts";

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

interface Answer {
  status?: number;
  text: string;
}

export class AwsServices implements AsyncDisposable {
  listings = 0;
  /** Calls of another kind than those that are counted here. */
  others = 0;
  /** Runs that Lambda took, and the most at the same time. */
  runs = 0;
  mostRuns = 0;
  throttled = 0;
  server!: TlsServer;
  #running = 0;
  #holding: Holding;
  /** 1 for each object that has no row, or is not deleted. */
  #left: Uint8Array;

  private constructor(holding: Holding) {
    this.#holding = holding;
    this.#left = new Uint8Array(holding.objects).fill(holding.isRecorded ? 0 : 1);
  }

  static async start(holding: Holding): Promise<AwsServices> {
    const services = new AwsServices(holding);
    services.server = await serveTls(async (request, response) => {
      const { status = 200, text } = await services.#answer(request);
      response.writeHead(status, { "content-length": text.length }); // all of it is ASCII
      response.end(text);
    });
    return services;
  }

  /** How many objects have no row, or are not deleted. */
  get left(): number {
    return this.#left.filter((flag) => flag === 1).length;
  }

  #answer({ method, path, body }: TlsRequest): Answer | Promise<Answer> {
    const { pathname, searchParams } = new URL(path, "https://any");
    if (pathname.endsWith("/invocations")) return this.#invoke(body);
    if (method === "POST") {
      for (const [, key] of body.matchAll(/<Key>(.*?)<\/Key>/g)) this.#left[indexOf(key)] = 0;
      return { text: "<DeleteResult/>" };
    }
    if (searchParams.get("list-type") === "2") {
      this.listings++;
      const { indexes, next } = this.#page(
        Number(searchParams.get("continuation-token") ?? 0),
        () => true,
      );
      const more = next === undefined ? "" : tag("NextContinuationToken", String(next));
      return { text: list("ListBucketResult", "Contents", indexes, more) };
    }
    if (searchParams.has("versions")) {
      const { indexes, next } = this.#page(
        indexOf(searchParams.get("key-marker") ?? "") + 1,
        (index) => this.#left[index] === 1,
      );
      const more = next === undefined ? "" : tag("NextKeyMarker", keyOf(next - 1));
      return { text: list("ListVersionsResult", "Version", indexes, more) };
    }
    this.others++;
    return { text: "" };
  }

  async #invoke(body: string): Promise<Answer> {
    const { takes = Infinity, runMs = 0 } = this.#holding;
    if (this.#running >= takes) {
      this.throttled++;
      return { status: 429, text: '{"__type":"TooManyRequestsException","message":"Rate"}' };
    }
    this.runs++;
    this.mostRuns = Math.max(this.mostRuns, ++this.#running);
    if (runMs > 0) await new Promise((resolve) => setTimeout(resolve, runMs));
    const { invocationId, tasks }: Invocation = JSON.parse(body);
    const results = tasks.map(({ taskId, s3Key }) => {
      const index = indexOf(decodeURIComponent(s3Key));
      const resultString = this.#left[index] ? "written" : "unchanged";
      this.#left[index] = 0;
      return { taskId, resultCode: "Succeeded", resultString };
    });
    this.#running--;
    return { text: JSON.stringify({ invocationSchemaVersion: "2.0", invocationId, results }) };
  }

  /** A page of some objects, from an index on. */
  #page(first: number, isListed: (index: number) => boolean) {
    const { objects } = this.#holding;
    const indexes: number[] = [];
    let index = first;
    for (; index < objects && indexes.length < PAGE_OBJECTS; index++) {
      if (isListed(index)) indexes.push(index);
    }
    return { indexes, next: index < objects ? index : undefined };
  }

  async [Symbol.asyncDispose]() {
    await this.server[Symbol.asyncDispose]();
  }
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
