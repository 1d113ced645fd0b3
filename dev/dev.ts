/** Dev: a page to watch the pipeline, and a loop that runs what is saved. */

import * as esbuild from "esbuild";
import { denoTask } from "../tasks/commands.ts";
import { replayFailures } from "../tasks/replay.ts";
import { ROOT } from "../tasks/shell.ts";
import { interrupted } from "../tasks/signals.ts";
import { lockWorkspace, type Stack, type Target } from "../tasks/target.ts";
import { plural, say } from "../tasks/terminal.ts";
import { openPage, printAddress } from "./address.ts";
import { Board } from "./board.ts";
import { confirmCode, runSaved, sayStray } from "./code.ts";
import { serve } from "./server.ts";

/** The page's server and the loop, which run until they are closed. */
export interface Dev {
  /** The page's address, with its token. */
  url: string;
  /** Ends both, and puts the deployed code back. */
  close(): Promise<void>;
}

/** Runs the page until Ctrl-C; on AWS the function runs what is saved only if `code` asks for it. */
export async function dev(
  stack: Stack,
  target: Target,
  { open, port, code, yes }: { open: boolean; port: number; code: boolean; yes: boolean },
) {
  if (code && !target.local) await confirmCode(stack, { yes });
  const runs = code || target.local;
  await sayStray(stack, target);
  const running = await startDev(stack, target, ROOT, { code: runs, port });
  try {
    printAddress(running.url);
    say(
      runs
        ? "Save handler.ts or a file of function/ to run it; Ctrl-C ends this"
        : "This only watches; Ctrl-C ends it",
    );
    await using _shown = open ? await openPage(running.url) : undefined;
    await new Promise((resolve) => {
      if (interrupted.aborted) resolve(undefined);
      interrupted.addEventListener("abort", resolve, { once: true });
    });
  } finally {
    await running.close();
  }
}

/** Starts the page's server and, if `code` says so, the loop over the code of `folder`. */
export async function startDev(
  stack: Stack,
  target: Target,
  folder: string,
  { code, port }: { code: boolean; port: number },
): Promise<Dev> {
  const { workspace, place } = target;
  const board = new Board(stack, place);
  const server = await serve(board, { replay: (key) => replay(stack, workspace, key) }, port);
  const saved = code
    ? await runSaved(stack, target, folder, (...told) => board.setCode(...told))
    : undefined;
  if (!code) {
    const text = `${denoTask(target, "dev", "--code")} makes the function run what you save.`;
    board.setCode({ state: "unsaved", text });
  }
  let isClosed = false;
  return {
    url: server.url,
    close: async () => {
      if (isClosed) return;
      isClosed = true;
      await saved?.end();
      board.end();
      await server.close();
      await esbuild.stop();
    },
  };
}

/** Replays as the task does, under the same lock, and says in a sentence what came of it. */
export async function replay(stack: Stack, workspace: string, key?: string): Promise<string> {
  using _lock = await lockWorkspace(workspace);
  const only = key === undefined ? undefined : (keys: string[]) => keys.includes(key);
  const options = { dryRun: false, max: Infinity, only };
  const { replayed, failed, failures, left } = await replayFailures(stack, options);
  if (replayed + failed === 0 && key !== undefined) {
    return "It is not in the failure queue yet: Lambda tries three times first. Try again soon.";
  }
  if (replayed + failed + left.visible + left.inFlight === 0) {
    return "The failure queue is empty: what failed just now gets there after three tries.";
  }
  const reasons = [...new Set(failures.map(({ reason }) => reason))].slice(0, 3).join("; ");
  const outcome = failed === 0 ? "none failed" : `${failed} failed: ${reasons}`;
  return `${plural(replayed, "event")} replayed, ${outcome}; ${left.visible} left in the queue.`;
}
