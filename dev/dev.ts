/** Dev: a page to watch the pipeline, and a loop that runs what is saved. */

import { join } from "node:path";
import { GetFunctionCommand } from "@aws-sdk/client-lambda";
import * as esbuild from "esbuild";
import { sha256Of, ZIP_URL } from "../tasks/build.ts";
import { denoTask } from "../tasks/commands.ts";
import { temporaryFolder } from "../tasks/files.ts";
import { updateCode } from "../tasks/function.ts";
import { replayFailures } from "../tasks/replay.ts";
import { ROOT } from "../tasks/shell.ts";
import { interrupted } from "../tasks/signals.ts";
import { lockWorkspace, type Stack, type Target } from "../tasks/target.ts";
import { plural, say, visible } from "../tasks/terminal.ts";
import * as terraform from "../tasks/terraform.ts";
import { Board } from "./board.ts";
import { Loop } from "./loop.ts";
import { serve } from "./server.ts";
import { makeBuilder, makeWorkshop, watch } from "./workshop.ts";

/** The address of the function in main.tf. */
const FUNCTION_ADDRESS = "aws_lambda_function.metadata";

/** The page's server and the loop, which run until they are closed. */
export interface Dev {
  /** The page's address, with its token. */
  url: string;
  /** Ends both, and puts the deployed code back. */
  close(): Promise<void>;
}

/** Runs the page and the loop until Ctrl-C. */
export async function dev(stack: Stack, target: Target, { open }: { open: boolean }) {
  const running = await startDev(stack, target, ROOT);
  try {
    console.log(`Page: ${running.url}`);
    say("Save handler.ts or a file of function/ to run it; Ctrl-C ends this");
    await using _shown = open ? await openPage(running.url) : undefined;
    await new Promise((resolve) => {
      if (interrupted.aborted) resolve(undefined);
      interrupted.addEventListener("abort", resolve, { once: true });
    });
  } finally {
    await running.close();
  }
}

/** Starts the page's server and the loop over the code of `folder`. */
export async function startDev(stack: Stack, target: Target, folder: string): Promise<Dev> {
  const { workspace, place } = target;
  const deployed = await readDeployed(stack, workspace);
  const board = new Board(stack, place);
  const server = await serve(board, { replay: (key) => replay(stack, workspace, key) });
  const builder = await makeBuilder(folder);
  const workshop = makeWorkshop(stack, {
    workspace,
    folder,
    build: builder.build,
    tell: (code, sha256) => {
      board.setCode(code, sha256);
      if (code.state === "building") return;
      for (const line of code.typeErrors ?? code.text.split("\n")) say(visible(line));
    },
  });
  const loop = new Loop(workshop, deployed.sha256);
  const watching = watch(folder, () => loop.save());
  loop.save(); // what is saved already
  let isClosed = false;
  return {
    url: server.url,
    close: async () => {
      if (isClosed) return;
      isClosed = true;
      watching[Symbol.dispose]();
      await loop.end();
      board.end();
      await server.close();
      await putBack(stack, target, deployed, loop.sha256);
      await builder.dispose();
      await esbuild.stop();
    },
  };
}

/** Replays as the task does, under the same lock, and says in a sentence what came of it. */
async function replay(stack: Stack, workspace: string, key?: string): Promise<string> {
  using _lock = await lockWorkspace(workspace);
  const only = key === undefined ? undefined : (keys: string[]) => keys.includes(key);
  const options = { dryRun: false, max: Infinity, only };
  const { replayed, failed, failures, left } = await replayFailures(stack, options);
  if (replayed + failed === 0) {
    return "It is not in the failure queue yet: Lambda tries three times first. Try again soon.";
  }
  const reasons = [...new Set(failures.map(({ reason }) => reason))].slice(0, 3).join("; ");
  const outcome = failed === 0 ? "none failed" : `${failed} failed: ${reasons}`;
  return `${plural(replayed, "event")} replayed, ${outcome}; ${left.visible} left in the queue.`;
}

/** The function's code when dev began, and what Terraform has recorded of it. */
interface Deployed {
  sha256: string;
  recordedSha256: string;
  /** Unknown if it is not what was built here last. */
  zip?: Uint8Array;
}

async function readDeployed({ lambda, outputs }: Stack, workspace: string): Promise<Deployed> {
  const command = new GetFunctionCommand({ FunctionName: outputs.lambda_function_name });
  const { Configuration = {} } = await lambda.send(command);
  const sha256 = Configuration.CodeSha256 ?? "";
  const zip = await Deno.readFile(ZIP_URL).catch(() => undefined);
  return {
    sha256,
    recordedSha256: await readRecord(workspace),
    zip: zip && sha256Of(zip) === sha256 ? zip : undefined,
  };
}

/** The hash of the code that was deployed last, as Terraform's state has it. */
async function readRecord(workspace: string): Promise<string> {
  const { resources } = await terraform.pullState(workspace, { always: true });
  const fn = resources.find(({ address }) => address === FUNCTION_ADDRESS);
  return String(fn?.attributes.source_code_hash);
}

/** Makes the function run what was deployed, or says what it runs instead. */
async function putBack(
  stack: Stack,
  target: Target,
  deployed: Deployed,
  sha256: string,
): Promise<void> {
  if (sha256 === deployed.sha256) return;
  const runs = "The function runs this folder's code as it was saved last";
  const { workspace } = target;
  const remedy = `${denoTask(target, "deploy")} deploys this folder's code for good`;
  try {
    using _lock = await lockWorkspace(workspace);
    if (await readRecord(workspace) !== deployed.recordedSha256) {
      return say(`${runs}; it was deployed meanwhile, so nothing is put back`);
    }
    if (deployed.zip === undefined) {
      return say(`${runs}, since the deployed code is not in build/lambda.zip; ${remedy}`);
    }
    await updateCode(stack, deployed.zip);
    say(`The function runs the deployed code again; ${remedy}`);
  } catch (error) {
    say(`${runs}, since the deployed code could not be put back (${error}); ${remedy}`);
  }
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
