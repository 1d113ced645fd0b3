/**
 * Runs the built function in the runtime's own Node, one event at a time, and tells what each took.
 * This is the tests' only imitation of Lambda's runtime.
 */

import { join } from "node:path";

/** What loading the function or an invocation came to. */
export interface Invocation {
  /** The name and message of what was thrown. */
  error?: string;
  /** What the handler returned last. */
  answer?: unknown;
  ms: number;
  cpuMs: number;
  /** Peak memory of the process so far. */
  peakMb: number;
  /** Heap in use after a garbage collection, where Node runs with `--expose-gc`. */
  heapMb?: number;
  /** The lines that the function logged. */
  log: string[];
}

/** Begins the runtime's own lines on stdout, between those of the function's log. */
const MARK = "\u0001";

/** Loads lambda.mjs, then invokes it for each line of stdin. Writes a marked line after each. */
const RUNTIME = `
import fs from "node:fs";
const measured = async (work) => {
  const [startMs, startCpu] = [performance.now(), process.cpuUsage()];
  let error, answer;
  try {
    answer = await work();
  } catch (thrown) {
    error = thrown.name + ": " + thrown.message;
  }
  const ms = performance.now() - startMs;
  const { user, system } = process.cpuUsage(startCpu);
  const peakMb = peakKb() / 1024;
  globalThis.gc?.();
  const heapMb = globalThis.gc && process.memoryUsage().heapUsed / 1024 ** 2;
  const line = JSON.stringify({ error, answer, ms, cpuMs: (user + system) / 1000, peakMb, heapMb });
  process.stdout.write("${MARK}" + line + "\\n");
};
// Linux's own high-water mark: resourceUsage() begins with the parent's, of which this is a fork.
const peakKb = () => {
  try {
    return Number(fs.readFileSync("/proc/self/status", "utf8").match(/VmHWM:\\s*(\\d+)/)[1]);
  } catch {
    return process.resourceUsage().maxRSS;
  }
};
let handler;
await measured(async () => void ({ handler } = await import("./lambda.mjs")));
const { createInterface } = await import("node:readline"); // only now: nothing is loaded in advance
for await (const line of createInterface({ input: process.stdin })) {
  const { event, times, remainingMs } = JSON.parse(line);
  await measured(async () => {
    let answer;
    for (let time = 0; time < times; time++) {
      const endMs = performance.now() + remainingMs;
      const context = { getRemainingTimeInMillis: () => endMs - performance.now() };
      answer = await handler(JSON.parse(event.replaceAll("{time}", time)), context);
    }
    return answer;
  });
}
`;

/** A function's environment as Lambda sets it; what is undefined is not set. */
export type Environment = Record<string, string | undefined>;

const ENVIRONMENT: Environment = {
  AWS_REGION: "us-east-1",
  AWS_ACCESS_KEY_ID: "test", // as in Lambda, whose environment holds the role's
  AWS_SECRET_ACCESS_KEY: "test",
  AWS_SESSION_TOKEN: "test",
  BUCKET_NAME: "bucket",
  TABLE_NAME: "table",
  // The stub signs for itself. NODE_EXTRA_CA_CERTS would have Node read all certificates of
  // authorities as it starts, and not at the first connection, as in Lambda.
  NODE_TLS_REJECT_UNAUTHORIZED: "0",
  NODE_NO_WARNINGS: "1",
};

/** The function in a process of its own, as one execution environment of Lambda. */
export class FunctionProcess implements AsyncDisposable {
  /** How its loading went, init included. */
  init!: Invocation;
  #child: Deno.ChildProcess;
  #input: WritableStreamDefaultWriter<Uint8Array>;
  #output: ReadableStreamDefaultReader<string>;

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#input = child.stdin.getWriter();
    this.#output = toLines(child.stdout).getReader();
  }

  /** Loads what {@link writeFunction} wrote; `env` adds to a usual environment. */
  static async start(
    node: string,
    folder: string,
    env: Environment,
    flags: string[] = [],
  ): Promise<FunctionProcess> {
    const set = Object.entries({ ...ENVIRONMENT, ...env })
      .filter((entry): entry is [string, string] => entry[1] !== undefined);
    const child = new Deno.Command(node, {
      args: [...flags, join(folder, "runtime.mjs")],
      cwd: folder,
      clearEnv: true,
      env: Object.fromEntries(set),
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const lambda = new FunctionProcess(child);
    lambda.init = await lambda.#read();
    return lambda;
  }

  /**
   * Invokes the function `times` times, one after another; `{time}` in the event is replaced by
   * 0, 1 and so on. `remainingMs` is what each invocation has until its timeout.
   */
  async invoke(
    event: unknown,
    { times = 1, remainingMs = 60_000 } = {},
  ): Promise<Invocation> {
    const line = JSON.stringify({ event: JSON.stringify(event), times, remainingMs }) + "\n";
    await this.#input.write(new TextEncoder().encode(line));
    return await this.#read();
  }

  async #read(): Promise<Invocation> {
    const log: string[] = [];
    while (true) {
      const { done, value } = await this.#output.read();
      if (done) throw new Error("Cannot read the function's result: its process ended without one");
      if (value.startsWith(MARK)) return { ...JSON.parse(value.slice(MARK.length)), log };
      log.push(value);
    }
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

/** Writes files and the runtime into a new folder inside `parent`, and returns its path. */
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
function toLines(stream: ReadableStream<Uint8Array<ArrayBuffer>>): ReadableStream<string> {
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
