/**
 * What the bench and its tests share: both services as one stub over TLS, and the function in the
 * runtime's own Node, measured from inside.
 */

import { createServer, type Server } from "node:https";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { run } from "../tasks/shell.ts";

/** The bucket that every event of {@link FunctionProcess} names. */
const BUCKET = "bucket";

/** Bytes of an object that the stub calls large. */
export const LARGE_BYTES = 512 * 1024 ** 2;

/** A request, as the stub saw it. */
export interface Seen {
  method: string;
  path: string;
  /** What DynamoDB is asked to do, and with what. */
  target?: string;
  body: string;
  range?: string;
  signed: boolean;
  token?: string;
  /** Which connection it came by, counted from 1. */
  connection: number;
}

/** S3 and DynamoDB, as far as the function calls them. Unsigned requests are refused, as by AWS. */
export class Stub implements AsyncDisposable {
  url = "";
  seen: Seen[] = [];
  /** TLS connections made so far. */
  connections = 0;
  atOnce = 0;
  mostAtOnce = 0;
  /** Bytes of objects that were written, be they read or not. */
  bytesWritten = 0;
  /** Time that each answer takes. */
  delayMs = 0;
  /** Takes requests and never answers. */
  silent = false;
  #server: Server;

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
  static async start(folder: string): Promise<Stub> {
    const [keyFile, certFile] = [join(folder, "key.pem"), join(folder, "cert.pem")];
    const args = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    const subject = ["-subj", "/CN=127.0.0.1", "-keyout", keyFile, "-out", certFile];
    await run("openssl", [...args.split(" "), ...subject], { quiet: true });
    const stub = new Stub(await Deno.readTextFile(keyFile), await Deno.readTextFile(certFile));
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
    this.seen.push({ method, path, target, body, range, signed, token, connection });
    if (this.silent) return;

    this.mostAtOnce = Math.max(this.mostAtOnce, ++this.atOnce);
    if (this.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.delayMs));
    this.atOnce--;
    if (target !== undefined) {
      const refusal = '{"__type":"com.amazon.coral.service#MissingAuthenticationTokenException"}';
      const answer = signed ? "{}" : refusal;
      response.writeHead(signed ? 200 : 400, { "content-type": "application/x-amz-json-1.0" });
      response.end(answer);
    } else if (!signed) {
      response.writeHead(403, { "content-type": "application/xml" });
      response.end("<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>");
    } else await this.#sendObject(path, response);
  }

  /** `/large` is an object of 512 MB; `/whole` as well, all of which is sent whatever the range. */
  async #sendObject(path: string, response: ServerResponse) {
    const headers = { "content-type": "text/plain", etag: '"tag"', "last-modified": LONG_AGO };
    const chunk = new Uint8Array(2048).fill(97);
    if (path.includes("/whole")) {
      response.writeHead(200, { ...headers, "content-length": LARGE_BYTES });
      const closed = new Promise<void>((resolve) => response.on("close", resolve));
      for (let sent = 0; sent < LARGE_BYTES && !response.destroyed; sent += chunk.length) {
        const room = response.write(chunk);
        this.bytesWritten += chunk.length;
        const drained = () => new Promise<void>((resolve) => response.once("drain", resolve));
        if (!room) await Promise.race([drained(), closed]);
      }
      return;
    }
    const size = path.includes("/large") ? LARGE_BYTES : 4096;
    response.writeHead(206, {
      ...headers,
      "content-length": chunk.length,
      "content-range": `bytes 0-${chunk.length - 1}/${size}`,
    });
    response.end(chunk);
    this.bytesWritten += chunk.length;
  }

  async [Symbol.asyncDispose]() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

const LONG_AGO = "Thu, 01 Jan 1970 00:00:00 GMT";

/** What some work took in the function's process. */
export interface Taken {
  error?: string;
  ms: number;
  cpuMs: number;
  /** Peak memory of the process so far. */
  peakMb: number;
  /** Heap that a collection left, under `--expose-gc`. */
  heapMb?: number;
}

/** What the function is to do: the same event some times, each time for other keys. */
export interface Work {
  key: string;
  records?: number;
  times?: number;
}

/** Lambda's runtime, as far as it matters here: loads lambda.mjs, then does what each line says. */
const RUNTIME = `
import fs from "node:fs";
const taken = async (work) => {
  const [startMs, startCpu] = [performance.now(), process.cpuUsage()];
  let error;
  try {
    await work();
  } catch (thrown) {
    error = thrown.name + ": " + thrown.message;
  }
  const ms = performance.now() - startMs;
  const { user, system } = process.cpuUsage(startCpu);
  const peakMb = peakKb() / 1024;
  globalThis.gc?.();
  const heapMb = globalThis.gc && process.memoryUsage().heapUsed / 1024 ** 2;
  const line = JSON.stringify({ error, ms, cpuMs: (user + system) / 1000, peakMb, heapMb });
  process.stderr.write(line + "\\n");
};
// Linux's own high-water mark: resourceUsage() begins with the parent's, of which this is a fork.
const peakKb = () => {
  try {
    return Number(fs.readFileSync("/proc/self/status", "utf8").match(/VmHWM:\\s*(\\d+)/)[1]);
  } catch {
    return process.resourceUsage().maxRSS;
  }
};
const recordOf = (key) => ({
  eventVersion: "2.1",
  eventSource: "aws:s3",
  eventTime: "2026-01-02T03:04:05.678Z",
  eventName: "ObjectCreated:Put",
  s3: { bucket: { name: "${BUCKET}" }, object: { key, size: 4096, sequencer: "0055AED6DCD90281E5" } },
});
const context = { getRemainingTimeInMillis: () => 60_000 };
let handler;
await taken(async () => ({ handler } = await import("./lambda.mjs")));
const { createInterface } = await import("node:readline"); // only now: nothing is loaded in advance
for await (const line of createInterface({ input: process.stdin })) {
  const { key, records = 1, times = 1 } = JSON.parse(line);
  await taken(async () => {
    for (let time = 0; time < times; time++) {
      const keys = Array.from({ length: records }, (_, i) => key + "-" + time + "-" + i);
      await handler({ Records: keys.map(recordOf) }, context);
    }
  });
}
`;

/** The function in a process of the runtime's Node with an environment as Lambda's, and no more. */
export class FunctionProcess implements AsyncDisposable {
  #child: Deno.ChildProcess;
  #input: WritableStreamDefaultWriter<Uint8Array>;
  #output: ReadableStreamDefaultReader<string>;

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#input = child.stdin.getWriter();
    this.#output = toLines(child.stderr).getReader();
  }

  /** Starts what {@link writeFunction} wrote; {@link taken} then tells of its import. */
  static start(
    node: string,
    folder: string,
    endpoint: string,
    { env = {}, flags = [] }: { env?: Record<string, string>; flags?: string[] } = {},
  ): FunctionProcess {
    return new FunctionProcess(
      new Deno.Command(node, {
        args: [...flags, join(folder, "runtime.mjs")],
        cwd: folder,
        clearEnv: true,
        env: {
          AWS_REGION: "us-east-1",
          AWS_ACCESS_KEY_ID: "test",
          AWS_SECRET_ACCESS_KEY: "test",
          AWS_SESSION_TOKEN: "test",
          AWS_ENDPOINT_URL: endpoint,
          BUCKET_NAME: BUCKET,
          TABLE_NAME: "table",
          // The stub signs for itself. NODE_EXTRA_CA_CERTS would have Node read all certificates of
          // authorities as it starts, and not at the first connection, as in Lambda.
          NODE_TLS_REJECT_UNAUTHORIZED: "0",
          NODE_NO_WARNINGS: "1",
          ...env,
        },
        stdin: "piped",
        stdout: "null",
        stderr: "piped",
      }).spawn(),
    );
  }

  async invoke(work: Work): Promise<Taken> {
    await this.#input.write(new TextEncoder().encode(JSON.stringify(work) + "\n"));
    return await this.taken();
  }

  /** The next thing that the process tells: first of the import, then of each invocation. */
  async taken(): Promise<Taken> {
    const { done, value } = await this.#output.read();
    if (done) throw new Error("Cannot measure the function: it ended without a word");
    return JSON.parse(value);
  }

  /** Its exit code, after the end of its input; null where something keeps it alive for 5 seconds. */
  async end(): Promise<number | null> {
    await this.#input.close();
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), 5000);
    const { code, signal } = await this.#child.status;
    clearTimeout(timer);
    return signal === null ? code : null;
  }

  async [Symbol.asyncDispose]() {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended by itself.
    }
    await this.#child.status;
    await this.#output.cancel();
    await this.#input.close().catch(() => {});
  }
}

/** Writes files and the runtime into a folder of its own inside `parent`, and answers its path. */
export async function writeFunction(
  parent: string,
  name: string,
  files: Record<string, Uint8Array>,
): Promise<string> {
  const folder = join(parent, name);
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(join(folder, "runtime.mjs"), RUNTIME);
  for (const [file, bytes] of Object.entries(files)) {
    await Deno.writeFile(join(folder, file), bytes);
  }
  return folder;
}

/** Splits a byte stream into lines. */
export function toLines(stream: ReadableStream<Uint8Array>): ReadableStream<string> {
  let rest = "";
  return stream.pipeThrough(new TextDecoderStream()).pipeThrough(
    new TransformStream<string, string>({
      transform(text, controller) {
        const parts = (rest + text).split("\n");
        rest = parts.pop()!;
        for (const part of parts) controller.enqueue(part);
      },
    }),
  );
}
