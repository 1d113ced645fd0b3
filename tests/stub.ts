/**
 * S3 and DynamoDB behind TLS, as far as the function calls them. It answers as AWS does, or as a
 * script says, and tells what it was asked.
 */

import type { IncomingHttpHeaders, ServerResponse } from "node:http";
import { PREFIX_BYTES, type Row } from "../handler.ts";
import { pause } from "./fixtures.ts";
import { type FakeTable, putInto, queryIn } from "./outside.ts";
import { serveTls, type TlsRequest, type TlsServer } from "./tls.ts";

/** Every object is so much of this text, repeated. It has characters of one, two and four bytes. */
const TEXT = "Gr\u00fc\u00dfe \ud83d\ude00 ";
const CONTENT = new TextEncoder().encode(TEXT.repeat(PREFIX_BYTES));

/** The first characters of each object that is long enough. */
export function contentOf(characters: number): string {
  return Array.from(TEXT.repeat(characters)).slice(0, characters).join("");
}

/** The size of an object of which nothing else is said. */
export const USUAL_BYTES = 2 * PREFIX_BYTES;

/** Larger than any other: a body of it is never at its end. */
export const HUGE_BYTES = 5 * 1024 ** 3;

export type Operation = "GET" | "HEAD" | "PutItem" | "Query";

/** A request, as the stub got it. */
export interface StubRequest {
  operation: Operation;
  /** Of the object, or of its rows. */
  key: string;
  headers: IncomingHttpHeaders;
  body: string;
  connection: number;
}

export interface Answer {
  /** Without one there is neither head nor body. */
  status?: number;
  headers?: Record<string, string | number>;
  body?: string | Uint8Array;
  /** The row is written all the same. */
  isApplied?: boolean;
  /** What follows: the end by default, a lost connection, nothing, or the body again and again. */
  then?: "reset" | "silence" | { repeatAfterMs: number };
}

/** Answers to the next calls about a key, in order; the usual one comes after them. */
export type Script = Partial<Record<Operation, Answer[]>>;

/** S3's refusal. */
export function s3Error(status: number, code: string, message = "no"): Answer {
  const body = `<Error><Code>${code}</Code><Message>${message}</Message></Error>`;
  return { status, headers: { "content-type": "application/xml" }, body };
}

/** DynamoDB's refusal. */
export function tableError(status: number, code: string): Answer {
  const body = JSON.stringify({ __type: `com.amazonaws.dynamodb.v20120810#${code}` });
  return { status, headers: { "content-type": "application/x-amz-json-1.0" }, body };
}

export class Stub implements AsyncDisposable {
  requests: StubRequest[] = [];
  rows: FakeTable = new Map();
  /** By key. */
  sizes = new Map<string, number>();
  scripts = new Map<string, Script>();
  /** LastModified of every object: their events are on time. */
  readonly modified = new Date();
  /** Whether it never answers. */
  isSilent = false;
  /** Bytes of objects that were sent, whether the client read them or not. */
  bytesSent = 0;
  #server!: TlsServer;

  static async start(): Promise<Stub> {
    const stub = new Stub();
    stub.#server = await serveTls((request, response) => stub.#serve(request, response));
    return stub;
  }

  get url(): string {
    return this.#server.url;
  }

  get connections(): number {
    return this.#server.connections;
  }

  rowsOf(key: string): Row[] {
    return [...this.rows.values()].filter(({ file_key }) => file_key === key);
  }

  async #serve({ method, path, headers, body, connection }: TlsRequest, response: ServerResponse) {
    const [, action] = String(headers["x-amz-target"] ?? "").split(".");
    const operation = (action ?? method) as Operation;
    const key = action === undefined ? keyOfPath(path) : keyOfRows(body);
    this.requests.push({ operation, key, headers, body, connection });
    if (this.isSilent) return;

    const scripted = this.scripts.get(key)?.[operation]?.shift();
    if (scripted?.isApplied) this.#callTable(operation, body);
    const answer = scripted ?? this.#answer(operation, key, headers, body);
    await this.#send(operation === "HEAD" ? { ...answer, body: undefined } : answer, response);
  }

  #answer(operation: Operation, key: string, headers: IncomingHttpHeaders, body: string): Answer {
    const isOfS3 = operation === "GET" || operation === "HEAD";
    if (headers.authorization === undefined) { // as AWS
      return isOfS3 ? s3Error(403, "AccessDenied") : tableError(400, "MissingAuthenticationToken");
    }
    return isOfS3 ? this.#readObject(key, headers.range) : this.#callTable(operation, body);
  }

  #readObject(key: string, range?: string): Answer {
    const size = this.sizes.get(key) ?? USUAL_BYTES;
    const about = {
      "content-type": "text/plain; charset=utf-8",
      "etag": '"etag"',
      "last-modified": this.modified.toUTCString(),
    };
    if (range === undefined) {
      const body = CONTENT.subarray(0, size);
      return { status: 200, headers: { ...about, "content-length": size }, body };
    }
    const [first, last] = range.match(/\d+/g)!.map(Number);
    const body = CONTENT.subarray(first, Math.min(last + 1, size));
    const told = `bytes ${first}-${first + body.length - 1}/${size}`;
    const headersOfRange = { "content-length": body.length, "content-range": told };
    return { status: 206, headers: { ...about, ...headersOfRange }, body };
  }

  #callTable(operation: Operation, body: string): Answer {
    const input = JSON.parse(body);
    let answer = {};
    try {
      if (operation === "Query") answer = queryIn(this.rows, input);
      else putInto(this.rows, input);
      return { status: 200, body: JSON.stringify(answer) };
    } catch (error) {
      return tableError(400, (error as Error).name);
    }
  }

  async #send({ status, headers, body = "", then }: Answer, response: ServerResponse) {
    const count = () => this.bytesSent += typeof body === "string" ? 0 : body.length;
    const closed = new Promise((resolve) => response.once("close", resolve));
    const write = () => {
      count();
      return Promise.race([new Promise((resolve) => response.write(body, resolve)), closed]);
    };
    if (status !== undefined) response.writeHead(status, headers);
    if (then === undefined) {
      count();
      response.end(body); // in one go: a client that has all of it may already ask again
      return;
    }
    if (status !== undefined) await write();
    if (then === "reset") {
      await pause(50); // else what was sent is lost, too
      response.destroy();
    }
    while (typeof then === "object" && !response.destroyed) {
      await pause(then.repeatAfterMs);
      await write();
    }
  }

  async [Symbol.asyncDispose]() {
    await this.#server[Symbol.asyncDispose]();
  }
}

/** Of `/bucket/key?x-id=GetObject`. */
function keyOfPath(path: string): string {
  return decodeURIComponent(path.split("?")[0].replace(/^\/[^/]*\//, ""));
}

function keyOfRows(body: string): string {
  const { Item, ExpressionAttributeValues } = JSON.parse(body);
  return Item?.file_key?.S ?? ExpressionAttributeValues?.[":key"].S ?? "";
}
