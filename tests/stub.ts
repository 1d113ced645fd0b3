/**
 * Servers on this machine for AWS's own clients: S3 and DynamoDB behind TLS, as far as the function
 * calls them, any other service behind TLS, and the metadata service.
 */

import type { IncomingHttpHeaders, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { PREFIX_BYTES } from "../handler.ts";
import { run } from "../tasks/shell.ts";
import { pause } from "./fixtures.ts";
import { type FakeTable, putInto, queryIn } from "./outside.ts";

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

type Operation = "GET" | "HEAD" | "PutItem" | "Query";

interface StubRequest extends TlsRequest {
  operation: Operation;
  /** Of the object, or of its rows. */
  key: string;
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

/** Answers as AWS does, or as a script says, and tells what it was asked. */
export class Stub implements AsyncDisposable {
  requests: StubRequest[] = [];
  rows: FakeTable = new Map();
  /** By key. */
  sizes = new Map<string, number>();
  scripts = new Map<string, Script>();
  /** LastModified of every object: their events are on time. */
  readonly modified = new Date();
  /** Bytes of objects that were sent, whether the client read them or not. */
  bytesSent = 0;
  server!: TlsServer;

  static async start(): Promise<Stub> {
    const stub = new Stub();
    stub.server = await serveTls((request, response) => stub.#serve(request, response));
    return stub;
  }

  async #serve(request: TlsRequest, response: ServerResponse) {
    const { method, path, headers, body } = request;
    const [, action] = String(headers["x-amz-target"] ?? "").split(".");
    const operation = (action ?? method) as Operation;
    const key = action === undefined ? keyOfPath(path) : keyOfRows(body);
    this.requests.push({ ...request, operation, key });

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
    await this.server[Symbol.asyncDispose]();
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

export interface TlsRequest {
  method: string;
  /** With its query. */
  path: string;
  headers: IncomingHttpHeaders;
  body: string;
  /** The connection that it came by, counted from 1. */
  connection: number;
}

export type TlsServer = Awaited<ReturnType<typeof serveTls>>;

/** Serves on a free port. A request that `answer` fails for loses its connection. */
export async function serveTls(
  answer: (request: TlsRequest, response: ServerResponse) => void | Promise<void>,
) {
  const pem = await makeCertificate();
  const connections = new WeakMap<object, number>();
  const options = { key: pem, cert: pem, keepAliveTimeout: 60_000 };
  const server = createServer(options, async (request, response) => {
    try {
      const { method = "", url: path = "", headers } = request;
      let body = "";
      for await (const chunk of request) body += chunk;
      const connection = connections.get(request.socket)!;
      await answer({ method, path, headers, body, connection }, response);
    } catch {
      response.destroy();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const served = {
    url: `https://127.0.0.1:${port}`,
    port,
    /** The certificate to trust, PEM. */
    ca: pem,
    /** Connections made so far. */
    connections: 0,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  server.on("secureConnection", (socket: object) => {
    connections.set(socket, ++served.connections);
  });
  return served;
}

/** A key and its certificate, which signs for itself: of this machine, and of S3. PEM. */
function makeCertificate(): Promise<string> {
  const args = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
  const names = "subjectAltName=IP:127.0.0.1,DNS:s3.us-east-1.amazonaws.com";
  const rest = ["-subj", "/CN=test", "-addext", names, "-keyout", "/dev/stdout"];
  return run("openssl", [...args.split(" "), ...rest], { quiet: true });
}

/** The metadata service of an EC2 instance whose role has these credentials. */
export function serveMetadata([AccessKeyId, SecretAccessKey, Token]: string[]) {
  const options = { hostname: "127.0.0.1", port: 0, onListen() {} };
  const server = Deno.serve(options, ({ url, method }) => {
    if (method === "PUT") {
      return new Response("token", {
        headers: { "x-aws-ec2-metadata-token-ttl-seconds": "21600" },
      });
    }
    if (url.endsWith("/security-credentials/")) return new Response("role");
    const Expiration = "2099-01-01T00:00:00Z";
    return Response.json({ Code: "Success", AccessKeyId, SecretAccessKey, Token, Expiration });
  });
  const url = `http://127.0.0.1:${server.addr.port}`;
  return { url, [Symbol.asyncDispose]: () => server.shutdown() };
}
