/** Dev: a page to watch the pipeline, and a loop that runs what is saved. */

import { join } from "node:path";
import * as esbuild from "esbuild";
import { denoTask, shellWord } from "../tasks/commands.ts";
import { temporaryFolder } from "../tasks/files.ts";
import { replayFailures } from "../tasks/replay.ts";
import { ROOT } from "../tasks/shell.ts";
import { interrupted } from "../tasks/signals.ts";
import { lockWorkspace, type Stack, type Target } from "../tasks/target.ts";
import { plural, say } from "../tasks/terminal.ts";
import { Board } from "./board.ts";
import { confirmCode, lookAtCode, runSaved } from "./code.ts";
import { serve } from "./server.ts";

/** Runs the page until Ctrl-C; on AWS the function runs what is saved only if `code` is true. */
export async function dev(
  stack: Stack,
  target: Target,
  { open, port, code, yes }: { open: boolean; port: number; code: boolean; yes: boolean },
) {
  if (code && !target.local) await confirmCode(stack, { yes });
  const runs = code || target.local;
  await using running = await startDev(stack, target, ROOT, { code: runs, port });
  printAddress(running.url);
  say(
    runs
      ? "Save handler.ts or a file of function/ to run it; Ctrl-C ends this"
      : "This only watches; Ctrl-C ends it",
  );
  await using _shown = open ? await openPage(running.url) : undefined;
  await new Promise((resolve) => {
    if (interrupted.aborted) resolve(undefined);
    interrupted.addEventListener("abort", resolve);
  });
}

/** Prints the page's address; on a machine without a screen, first how to reach it from another. */
function printAddress(url: string): void {
  const command = forwarding(Number(new URL(url).port), Deno.env.toObject(), Deno.build.os);
  if (command !== undefined) {
    say(
      "To see the page, run this on your own machine, then open the address there. HOST is the " +
        `name by which you reach this machine:\n  ${command}`,
    );
  }
  console.log(`Page: ${url}`);
}

/** The command that forwards a port of the user's own machine here; none if there is a screen. */
export function forwarding(
  port: number,
  env: Record<string, string | undefined>,
  os: typeof Deno.build.os,
): string | undefined {
  const hasScreen = os === "darwin" || os === "windows" || env.DISPLAY || env.WAYLAND_DISPLAY ||
    env.WSL_DISTRO_NAME;
  if (env.SSH_CONNECTION === undefined && hasScreen) return undefined;
  const user = env.SUDO_USER ?? env.USER ?? env.USERNAME ?? "USER";
  return `ssh -N -L ${port}:127.0.0.1:${port} ${shellWord(`${user}@HOST`)}`;
}

/** Opens the browser by a file that only this user can read: others see a program's arguments. */
async function openPage(url: string): Promise<AsyncDisposable> {
  const folder = await temporaryFolder();
  const file = join(folder.path, "page.html");
  const page = `<meta http-equiv="refresh" content="0; url=${url}">`;
  await Deno.writeTextFile(file, page, { mode: 0o600 });
  const [program, ...args] = OPENERS[Deno.build.os] ?? ["xdg-open"];
  try {
    const command = new Deno.Command(program, {
      args: [...args, file],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    });
    command.spawn().unref();
  } catch {
    say(`No browser could be opened with ${program}: open the address above`);
  }
  return folder;
}

const OPENERS: Partial<Record<typeof Deno.build.os, string[]>> = {
  darwin: ["open"],
  windows: ["cmd", "/c", "start", ""],
};

/**
 * Starts the page's server and, if `code` says so, the loop over the code of `folder`. Both end when
 * it is disposed of, which puts the deployed code back.
 */
export async function startDev(
  stack: Stack,
  target: Target,
  folder: string,
  { code, port }: { code: boolean; port: number },
): Promise<{ url: string } & AsyncDisposable> {
  const found = await lookAtCode(stack, target);
  await using held = new AsyncDisposableStack();
  held.defer(() => esbuild.stop());
  const board = held.use(new Board(stack, target.place));
  const server = await serve(board, (key) => replay(stack, target.workspace, key), port);
  held.use(server);
  if (code) {
    held.use(await runSaved(stack, target, folder, found, board));
  } else {
    const text = `${denoTask(target, "dev", "--code")} makes the function run what you save.`;
    board.setCode({ state: "unsaved", text });
  }
  return Object.assign(held.move(), { url: server.url });
}

/** Replays as the task does, under the same lock, and says in a sentence what came of it. */
export async function replay(stack: Stack, workspace: string, key?: string): Promise<string> {
  using _lock = await lockWorkspace(workspace);
  const only = key === undefined ? undefined : (keys: string[]) => keys.includes(key);
  const options = { dryRun: false, max: Infinity, only };
  const { replayed, failed, failures, left } = await replayFailures(stack, options);
  if (replayed + failed === 0) {
    return "Nothing to replay is in the failure queue yet: Lambda tries three times first. Try again soon.";
  }
  const reasons = [...new Set(failures.map(({ reason }) => reason))].slice(0, 3).join("; ");
  const outcome = failed === 0 ? "none failed" : `${failed} failed: ${reasons}`;
  return `${plural(replayed, "event")} replayed, ${outcome}; ${left.visible} left in the queue.`;
}
