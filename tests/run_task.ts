/**
 * Runs a task as `deno task` does, with its permissions, but as a process that can be interrupted, and
 * lists the processes of this machine.
 */

import assert from "node:assert/strict";
import { namesIn } from "../tasks/files.ts";
import { ROOT, run } from "../tasks/shell.ts";
import { read } from "./fixtures.ts";

export interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

type OnStderr = (text: string, child: Deno.ChildProcess) => void;

/** Runs a task by its name and arguments, as {@link runProgram} does. `folder` is the clone's. */
export async function runTask(
  [name, ...args]: string[],
  env: Record<string, string>,
  { folder = ROOT, onStderr }: { folder?: string; onStderr?: OnStderr } = {},
): Promise<Ended> {
  const { tasks } = JSON.parse(await read("deno.json"));
  const [, ...words] = tasks[name].command.replaceAll('"', "").split(" ");
  return await runProgram(Deno.execPath(), [...words, ...args], folder, env, onStderr);
}

/**
 * Runs a program in a folder, with just this environment. `onStderr` is called with all of standard
 * error so far, whenever more of it comes.
 */
export async function runProgram(
  command: string,
  args: string[],
  cwd: string,
  env: Record<string, string>,
  onStderr?: OnStderr,
): Promise<Ended> {
  const pipes = { stdin: "null", stdout: "piped", stderr: "piped" } as const;
  const child = new Deno.Command(command, { args, cwd, env, clearEnv: true, ...pipes }).spawn();
  const stdout = new Response(child.stdout).text();
  let stderr = "";
  for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
    stderr += text;
    onStderr?.(stderr, child);
  }
  return { code: (await child.status).code, stdout: await stdout, stderr };
}

/** Runs a task and sends SIGINT, once, when standard error has the pattern. */
export async function interruptTask(
  words: string[],
  env: Record<string, string>,
  pattern: RegExp,
  folder?: string,
): Promise<Ended> {
  let sent = false;
  const onStderr = (text: string, child: Deno.ChildProcess) => {
    if (sent || !pattern.test(text)) return;
    sent = true;
    child.kill("SIGINT");
  };
  const ended = await runTask(words, env, { folder, onStderr });
  assert.ok(sent, `never came to ${pattern}: ${ended.stderr}`);
  return ended;
}

interface Process {
  pid: number;
  /** Empty, or in brackets, if it has ended and was not asked for its exit code yet. */
  command: string;
}

/** From /proc on Linux, where a slim image has no ps, else from ps. */
export async function listProcesses(): Promise<Process[]> {
  if (Deno.build.os !== "linux") return await listByPs();
  const pids = (await namesIn("/proc")).map(Number).filter(Number.isInteger);
  return await Promise.all(pids.map(async (pid) => {
    const command = await Deno.readTextFile(`/proc/${pid}/cmdline`).catch(() => ""); // it may end
    return { pid, command: command.replaceAll("\0", " ").trim() };
  }));
}

async function listByPs(): Promise<Process[]> {
  const lines = (await run("ps", ["-axo", "pid=,command="], { quiet: true })).trim().split("\n");
  return lines.map((line) => {
    const [, pid, command] = line.match(/^\s*(\d+)\s+(.*)$/)!;
    return { pid: Number(pid), command };
  });
}
