/**
 * Runs the built function in the runtime's own Node, one event at a time, and tells what each took.
 * This is the tests' only imitation of Lambda's runtime.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { toEvent } from "./outside.ts";
import { USUAL_BYTES } from "./stub.ts";

/** What loading the function or an invocation came to. */
export interface Invocation {
  /** The name and message of what was thrown. */
  error?: string;
  ms: number;
  cpuMs: number;
  /** Heap in use after a garbage collection, where Node runs with `--expose-gc`. */
  heapMb?: number;
  /** The lines that the function logged. */
  log: string[];
}

/** Begins the runtime's own lines on stdout, between those of the function's log. */
const MARK = "\u0001";

/** Loads lambda.mjs, then invokes it for each line of stdin. Writes a marked line after each. */
const RUNTIME = `
const measured = async (work) => {
  const [startMs, startCpu] = [performance.now(), process.cpuUsage()];
  let error;
  try {
    await work();
  } catch (thrown) {
    error = thrown.name + ": " + thrown.message;
  }
  const ms = performance.now() - startMs;
  const { user, system } = process.cpuUsage(startCpu);
  globalThis.gc?.();
  const heapMb = globalThis.gc && process.memoryUsage().heapUsed / 1024 ** 2;
  const line = JSON.stringify({ error, ms, cpuMs: (user + system) / 1000, heapMb });
  process.stdout.write("${MARK}" + line + "\\n");
};
let handler;
await measured(async () => ({ handler } = await import("./lambda.mjs")));
const { createInterface } = await import("node:readline"); // only now: nothing is loaded in advance
for await (const line of createInterface({ input: process.stdin })) {
  const { event, times, remainingMs } = JSON.parse(line);
  await measured(async () => {
    for (let time = 0; time < times; time++) {
      const endMs = performance.now() + remainingMs;
      const context = { getRemainingTimeInMillis: () => endMs - performance.now() };
      await handler(JSON.parse(event.replaceAll("{time}", time)), context);
    }
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

export type FunctionProcess = Awaited<ReturnType<typeof startFunction>>;

/**
 * Starts what {@link writeFunction} wrote in a process of its own, as one execution environment of
 * Lambda. `env` adds to a usual environment.
 */
export async function startFunction(
  node: string,
  folder: string,
  env: Environment,
  flags: string[] = [],
) {
  const child = spawn(node, [...flags, join(folder, "runtime.mjs")], {
    cwd: folder,
    env: { ...ENVIRONMENT, ...env },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ended = once(child, "close");

  async function read(): Promise<Invocation> {
    const log: string[] = [];
    while (true) {
      const { done, value } = await lines.next();
      if (done) throw new Error("Cannot read the function's result: its process ended without one");
      if (value.startsWith(MARK)) return { ...JSON.parse(value.slice(MARK.length)), log };
      log.push(value);
    }
  }

  return {
    /** How its loading went, init included. */
    init: await read(),

    /**
     * Invokes the function `times` times, one after another; `{time}` in the event is replaced by
     * 0, 1 and so on. `remainingMs` is what each invocation has until its timeout.
     */
    invoke(event: unknown, { times = 1, remainingMs = 60_000 } = {}): Promise<Invocation> {
      const line = { event: JSON.stringify(event), times, remainingMs };
      child.stdin.write(JSON.stringify(line) + "\n");
      return read();
    },

    /** Its exit code, after the end of its input; null where something keeps it alive for 5 seconds. */
    async end(): Promise<number | null> {
      child.stdin.end();
      const timer = setTimeout(() => child.kill("SIGKILL"), 5000);
      await ended;
      clearTimeout(timer);
      return child.exitCode;
    },

    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/** An event of one object, whose key differs from one time to the next. */
export function eventOf(name: string) {
  return toEvent("bucket", [`${name}-{time}`], USUAL_BYTES);
}

/** Writes files and the runtime into a new folder, whose path it returns. */
export async function writeFunction(
  folder: string,
  files: Record<string, Uint8Array>,
): Promise<string> {
  await Deno.mkdir(folder);
  await Deno.writeTextFile(join(folder, "runtime.mjs"), RUNTIME);
  for (const [file, bytes] of Object.entries(files)) {
    await Deno.writeFile(join(folder, file), bytes);
  }
  return folder;
}
