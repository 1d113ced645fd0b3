/** Running programs: echoes each command, passes Ctrl-C on, and explains failures. */

import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { shellWord } from "./commands.ts";
import { children, endGroup, interrupted } from "./signals.ts";
import { say, UserError, visible } from "./terminal.ts";

/** The project's folder, wherever the shell stands. */
export const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** Everything of the stand-in, and what is kept of other runs. */
export const LOCAL_FOLDER = join(ROOT, ".local");

export interface RunOptions {
  /** Added to this process's environment. */
  env?: Record<string, string>;
  /**
   * What standard output becomes: shown on stderr (the default), or returned alone. `atEnd` shows all
   * output when the program has ended, so that it is not mixed with that of another.
   */
  output?: "show" | "return" | "atEnd";
  /** Standard output ends before the line that is this text. */
  showUntil?: string;
  /** Nothing is shown; standard error is in the thrown error. */
  quiet?: boolean;
  /** Runs even after Ctrl-C: for putting things in order. */
  always?: boolean;
}

/** A program failed: its exit code and what it wrote to standard error. */
export class RunError extends UserError {
  override name = "RunError";
  constructor(message: string, readonly code: number, readonly stderr: string) {
    super(message);
  }
}

/**
 * Runs a program in the project's folder, without standard input, and returns its standard output.
 *
 * @throws {UserError} the program does not start
 * @throws {RunError} it failed
 */
export async function run(
  command: string,
  args: string[],
  options: RunOptions = {},
): Promise<string> {
  if (!options.always) interrupted.throwIfAborted();
  const name = command.split(/[\\/]/).at(-1)!;
  if (!options.quiet) say(`$ ${[name, ...args].map(shellWord).join(" ")}`);

  const child = startProgram(command, {
    args,
    cwd: ROOT,
    env: options.env,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    // Not in the terminal's process group: Ctrl-C reaches it once, from here.
    detached: Deno.build.os !== "windows",
  });
  children.add(child);
  try {
    const { showUntil, output, quiet } = options;
    const held: string[] = [];
    const show = output === "atEnd" ? (line: string) => void held.push(line) : say;
    let isOver = false;
    const showUntilOver = (line: string) => {
      isOver ||= line === showUntil;
      if (!isOver) show(line);
    };
    const [status, stdout, stderr] = await Promise.all([
      endOf(child),
      collect(child.stdout, output === "return" || quiet ? undefined : showUntilOver),
      collect(child.stderr, quiet ? undefined : show),
    ]);
    held.forEach(say);
    if (!options.always) interrupted.throwIfAborted();
    if (status.code !== 0) {
      const call = [name, ...args.slice(0, 1)].join(" ");
      const why = explainExit(name, status.code, quiet ? stderr : undefined);
      throw new RunError(`${call} failed with exit code ${status.code}${why}`, status.code, stderr);
    }
    return stdout;
  } finally {
    children.delete(child);
  }
}

/** Starts a program. @throws {UserError} PATH lacks it, or the system cannot run what is there */
export function startProgram(command: string, options: Deno.CommandOptions): Deno.ChildProcess {
  try {
    return new Deno.Command(command, options).spawn();
  } catch (error) {
    const { name, message } = error as Error;
    throw new UserError(
      name === "NotFound" && !isInPath(command)
        ? notInPath([command], ["it"])
        : `Cannot run ${visible(command)}: ${visible(message)}; is it a program?`,
    );
  }
}

/** Says what PATH lacks, what to install, and where PATH looks: the program may be elsewhere. */
export function notInPath(names: string[], install: string[]): string {
  const folders = visible(pathFolders().join(", ")) || "no folder";
  return `Not in PATH: ${visible(names.join(", "))}. Install ${install.join("; ")}; ` +
    `or add its folder to PATH, which has ${folders}`;
}

/** Whether PATH has a file of that name; what kind of file it is shows when it runs. */
export function isInPath(name: string): boolean {
  const suffix = Deno.build.os === "windows" ? ".exe" : "";
  if (/[\\/]/.test(name)) return existsSync(name);
  return pathFolders().some((folder) => existsSync(join(folder || ".", name + suffix)));
}

function pathFolders(): string[] {
  return Deno.env.get("PATH")?.split(delimiter) ?? [];
}

/** A shell's, and so a shim's, exit codes for a program that it can't run, or can't find. */
export const CANNOT_RUN = [126, 127];

/** The rest of the sentence on a failure; what was shown already is not repeated. */
function explainExit(name: string, code: number, stderr: string | undefined): string {
  const last = visible(stderr?.trim().split("\n").at(-1) ?? "");
  if (CANNOT_RUN.includes(code)) {
    return `: what PATH has as ${name} starts no program${last && ` ("${last}")`}; if it is a ` +
      `version manager's (tfenv, asdf, mise, pyenv), choose a version there, then try ${name} --version`;
  }
  if (stderr === undefined) return ", see above";
  return last && `: ${last}`;
}

/** Waits until a program ends; after Ctrl-C also for what it started, which may hold its output. */
async function endOf(child: Deno.ChildProcess): Promise<Deno.CommandStatus> {
  const status = await child.status;
  if (interrupted.aborted) await endGroup(child.pid);
  return status;
}

/** Reads a stream to its end, and hands each whole line on as it comes. */
async function collect(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  onLine: (line: string) => void = () => {},
): Promise<string> {
  let text = "";
  let rest = "";
  for await (const part of stream.pipeThrough(new TextDecoderStream())) {
    text += part;
    const lines = (rest + part).split("\n");
    rest = lines.pop()!;
    for (const line of lines) onLine(line);
  }
  if (rest !== "") onLine(rest);
  return text;
}
