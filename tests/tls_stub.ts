/** A stub of S3 and DynamoDB behind TLS: it counts connections, requests and bytes. */

import { createServer, type Server } from "node:https";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { run } from "../tasks/shell.ts";

/** Bytes of an object that the stub calls large. */
export const LARGE_BYTES = 512 * 1024 ** 2;

/** A request, as the stub got it. */
export interface StubRequest {
  method: string;
  path: string;
  /** DynamoDB's operation; undefined for S3. */
  target?: string;
  body: string;
  range?: string;
  signed: boolean;
  token?: string;
  /** The connection that it came by, counted from 1. */
  connection: number;
}

/** Makes key.pem and cert.pem in a folder, for a server on 127.0.0.1 that signs for itself. */
export async function makeCertificate(folder: string): Promise<{ key: string; cert: string }> {
  const [keyFile, certFile] = [join(folder, "key.pem"), join(folder, "cert.pem")];
  const args = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
  const subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"];
  const files = ["-keyout", keyFile, "-out", certFile];
  await run("openssl", [...args.split(" "), ...subject, ...files], { quiet: true });
  return { key: await Deno.readTextFile(keyFile), cert: await Deno.readTextFile(certFile) };
}

/** S3 and DynamoDB, as far as the function calls them. Refuses unsigned requests, as AWS does. */
export class TlsStub implements AsyncDisposable {
  url = "";
  requests: StubRequest[] = [];
  /** TLS connections made so far. */
  connections = 0;
  mostAtOnce = 0;
  /** Bytes of objects that were written, whether the client read them or not. */
  bytesWritten = 0;
  /** Time that each answer takes. */
  delayMs = 0;
  /** Takes requests and never answers. */
  silent = false;
  #server: Server;
  #started = new Date();
  #atOnce = 0;

  private constructor(key: string, cert: string) {
    const connections = new WeakMap<object, number>();
    this.#server = createServer({ key, cert, keepAliveTimeout: 60_000 }, (request, response) => {
      const connection = connections.get(request.socket)!;
      this.#serve(request, response, connection).catch(() => response.destroy());
    });
    this.#server.on("secureConnection", (socket: object) => {
      connections.set(socket, ++this.connections);
    });
  }

  /** Serves on a free port, with a certificate made in `folder`. */
  static async start(folder: string): Promise<TlsStub> {
    const { key, cert } = await makeCertificate(folder);
    const stub = new TlsStub(key, cert);
    await new Promise<void>((resolve) => stub.#server.listen(0, "127.0.0.1", resolve));
    stub.url = `https://127.0.0.1:${(stub.#server.address() as AddressInfo).port}`;
    return stub;
  }

  async #serve(request: IncomingMessage, response: ServerResponse, connection: number) {
    let body = "";
    for await (const chunk of request) body += chunk;
    const { authorization, range } = request.headers;
    const header = (name: string) => request.headers[name] as string | undefined;
    const [target, token] = [header("x-amz-target"), header("x-amz-security-token")];
    const { method, url: path } = request as { method: string; url: string };
    const signed = authorization !== undefined;
    this.requests.push({ method, path, target, body, range, signed, token, connection });
    if (this.silent) return;

    this.mostAtOnce = Math.max(this.mostAtOnce, ++this.#atOnce);
    if (this.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.delayMs));
    this.#atOnce--;
    if (target !== undefined) {
      const refusal = '{"__type":"com.amazon.coral.service#MissingAuthenticationTokenException"}';
      const answer = signed ? "{}" : refusal;
      response.writeHead(signed ? 200 : 400, { "content-type": "application/x-amz-json-1.0" });
      response.end(answer);
    } else if (!signed) {
      response.writeHead(403, { "content-type": "application/xml" });
      response.end("<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>");
    } else if (path.includes("/whole")) await this.#sendWhole(response);
    else this.#sendRange(path, response);
  }

  /** Sends the range of an object of 512 MB for `/large`, of 4 KB for any other path. */
  #sendRange(path: string, response: ServerResponse) {
    const size = path.includes("/large") ? LARGE_BYTES : 4096;
    response.writeHead(206, {
      ...this.#headersOf(path),
      "content-length": CHUNK.length,
      "content-range": `bytes 0-${CHUNK.length - 1}/${size}`,
    });
    response.end(CHUNK);
    this.bytesWritten += CHUNK.length;
  }

  /** Objects are older than their events, and on time; what is below `/old` is of 1970. */
  #headersOf(path: string) {
    const modified = path.includes("/old") ? new Date(0) : this.#started;
    return {
      "content-type": "text/plain",
      "etag": '"tag"',
      "last-modified": modified.toUTCString(),
    };
  }

  /** Sends all 512 MB, whatever the range, until the client closes the connection. */
  async #sendWhole(response: ServerResponse) {
    response.writeHead(200, { ...this.#headersOf(""), "content-length": LARGE_BYTES });
    const closed = new Promise<void>((resolve) => response.on("close", resolve));
    for (let sent = 0; sent < LARGE_BYTES && !response.destroyed; sent += CHUNK.length) {
      const room = response.write(CHUNK);
      this.bytesWritten += CHUNK.length;
      const drained = () => new Promise<void>((resolve) => response.once("drain", resolve));
      if (!room) await Promise.race([drained(), closed]);
    }
  }

  async [Symbol.asyncDispose]() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

const CHUNK = new Uint8Array(2048).fill(97);
