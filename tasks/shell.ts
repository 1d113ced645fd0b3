/** Running programs: one echo, one signal, and errors that say what to do. */

import { fileURLToPath } from "node:url";

/** The project's folder, wherever the shell stands. */
export const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** A failure that the user can act on: printed as its message alone, without a stack. */
export class UserError extends Error {
  override name = "UserError";
}

/** The user pressed Ctrl-C (or the terminal closed); work ends in order and says what is left. */
export class InterruptedError extends Error {
  override name = "InterruptedError";
}

const interruption = new AbortController();
const children = new Set<Deno.ChildProcess>();

/** Aborted at the first Ctrl-C; long work ends then. */
export const interrupted: AbortSignal = interruption.signal;

/**
 * From now on the first SIGINT, SIGTERM or SIGHUP is passed on to running programs once, as the
 * SIGINT after which Terraform saves its state; a second one ends everything at once.
 */
export function handleSignals(): void {
  let firstMs = 0;
  const onSignal = () => {
    // One Ctrl-C arrives twice under `deno task`: from the terminal, and passed on by it.
    if (interrupted.aborted && performance.now() - firstMs < 1000) return;
    if (interrupted.aborted) {
      say("Stopped at once: what was running may be left half done. The same command finishes it.");
      for (const child of children) kill(child, "SIGKILL");
      Deno.exit(130);
    }
    firstMs = performance.now();
    interruption.abort(new InterruptedError("Interrupted"));
    say("\nInterrupted: ending in order (Ctrl-C again to stop at once) ...");
    for (const child of children) kill(child, "SIGINT");
  };
  const signals: Deno.Signal[] = Deno.build.os === "windows"
    ? ["SIGINT"]
    : ["SIGINT", "SIGTERM", "SIGHUP"];
  for (const signal of signals) Deno.addSignalListener(signal, onSignal);
}

export interface RunOptions {
  /** Added to this process's environment. */
  env?: Record<string, string>;
  /** What standard output becomes: shown on stderr (the default), or returned alone. */
  output?: "show" | "return";
  /** Nothing is shown; standard error is in the thrown error. */
  quiet?: boolean;
  /** Exit codes that are no failure; 0 by default. */
  accept?: number[];
  /** How to get the program, where it is missing. */
  install?: string;
  /** Runs even after Ctrl-C: for cleaning up. */
  always?: boolean;
}

export interface Ran {
  stdout: string;
}

/** A program failed: its exit code and what it wrote to standard error. */
export class RunError extends UserError {
  override name = "RunError";
  constructor(message: string, readonly code: number, readonly stderr: string) {
    super(message);
  }
}

/**
 * Runs a program in the project's folder, without standard input.
 *
 * @throws {UserError} the program is not installed
 * @throws {RunError} it ended with another code than accepted
 */
export async function run(command: string, args: string[], options: RunOptions = {}): Promise<Ran> {
  if (!options.always) interrupted.throwIfAborted();
  const name = command.split(/[\\/]/).at(-1)!;
  if (!options.quiet) say(`$ ${[name, ...args].map(shellWord).join(" ")}`);

  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(command, {
      args,
      cwd: ROOT,
      env: options.env,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      // Not in the terminal's process group: Ctrl-C reaches it once, from here.
      detached: Deno.build.os !== "windows",
    }).spawn();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new UserError(`${name} is not installed: ${options.install ?? "install it first"}`);
  }

  children.add(child);
  try {
    const show = (chunk: Uint8Array) => void Deno.stderr.writeSync(chunk);
    const [status, stdout, stderr] = await Promise.all([
      child.status,
      collect(child.stdout, options.output === "return" || options.quiet ? undefined : show),
      collect(child.stderr, options.quiet ? undefined : show),
    ]);
    if (!options.always) interrupted.throwIfAborted();
    if (!(options.accept ?? [0]).includes(status.code)) {
      const call = [name, ...args.slice(0, 1)].join(" ");
      throw new RunError(`${call} failed with exit code ${status.code}`, status.code, stderr);
    }
    return { stdout };
  } finally {
    children.delete(child);
  }
}

/** Prints a line of progress; results alone go to standard output. */
export function say(line: string): void {
  console.error(line);
}

/** Waits `ms`, or until Ctrl-C, which it throws. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(interrupted.reason);
    };
    const timer = setTimeout(() => {
      interrupted.removeEventListener("abort", stop);
      resolve();
    }, ms);
    if (interrupted.aborted) stop();
    else interrupted.addEventListener("abort", stop, { once: true });
  });
}

/** Says `line`, then again with the seconds passed every 10 seconds, until `work` is done. */
export async function withProgress<T>(line: string, work: Promise<T>): Promise<T> {
  const startMs = performance.now();
  say(`${line} ...`);
  using _progress = repeat(10_000, () => {
    say(`${line} ... ${Math.round((performance.now() - startMs) / 1000)} s`);
  });
  return await work;
}

/** Calls `act` every `ms` until disposed. */
export function repeat(ms: number, act: () => void): Disposable {
  const timer = setInterval(act, ms);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/**
 * Runs `work` for each item of a stream or list, at most `limit` at the same time. After a failure no
 * more is begun, and what runs is waited for: nothing goes on behind the caller's back.
 */
export async function forEachParallel<T>(
  items: Iterable<T> | AsyncIterable<T>,
  limit: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const running = new Set<Promise<void>>();
  const failures: unknown[] = [];
  try {
    for await (const item of items) {
      const task: Promise<void> = work(item)
        .catch((error) => void failures.push(error))
        .finally(() => running.delete(task));
      running.add(task);
      if (running.size >= limit) await Promise.race(running);
      if (failures.length > 0) break;
    }
  } finally {
    await Promise.all(running);
  }
  if (failures.length > 0) throw failures[0];
}

async function collect(
  stream: ReadableStream<Uint8Array>,
  show?: (chunk: Uint8Array) => void,
): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    show?.(chunk);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

function kill(child: Deno.ChildProcess, signal: Deno.Signal): void {
  try {
    child.kill(signal);
  } catch {
    // It has ended by itself.
  }
}

function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
