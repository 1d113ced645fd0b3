/** The function's code: while dev runs it is what is saved, and at the end what was deployed. */

import { readdir } from "node:fs/promises";
import { SourceMap } from "node:module";
import { join } from "node:path";
import * as esbuild from "esbuild";
import { BUNDLE_OPTIONS, sha256Of, ZIP_URL, zipOf } from "../tasks/build.ts";
import { denoTask } from "../tasks/commands.ts";
import { type RunFailure, runFunction, strayCode, toReason, updateCode } from "../tasks/invoke.ts";
import { pause } from "../tasks/signals.ts";
import { readFunction } from "../tasks/status.ts";
import { lockWorkspace, type Stack, type Target } from "../tasks/target.ts";
import { confirm, say, visible } from "../tasks/terminal.ts";
import { deployedCode } from "../tasks/terraform.ts";
import type { Board } from "./board.ts";
import { BrokenCodeError, type BuiltCode, Loop } from "./loop.ts";

/** A look at the function's nine files takes 1 ms of CPU. */
const LOOK_MS = 100;

/** Lambda lets a function start for 10 s, and then once more. */
const START_LIMIT_MS = 20_000;

/** What is told of a save's type errors: some five with their source. */
const CHECK_LINES = 25;

/** As S3 sends it when a notification is configured: the function does nothing for it. */
const TEST_EVENT = { Service: "Amazon S3", Event: "s3:TestEvent" };

/**
 * Says what running saved code means on AWS, and asks.
 *
 * @throws {UserError} the answer is not yes
 */
export async function confirmCode({ outputs }: Stack, { yes }: { yes: boolean }): Promise<void> {
  const { account_id, aws_region, environment, lambda_function_name } = outputs;
  say(
    `Account ${account_id}, region ${aws_region}, environment ${environment}: the function ` +
      `${lambda_function_name} will run what is saved in this folder, at once and after each ` +
      "save. Every upload to its bucket runs that, by whomever, until this ends",
  );
  if (!yes) await confirm("Run what is saved?");
}

/**
 * Reads the SHA-256 of the code that runs, and of the code that was deployed. Says so if they
 * differ, as while another dev runs, or after one was killed.
 */
export async function lookAtCode(stack: Stack, target: Target) {
  const deployed = await deployedCode(target.workspace);
  const { codeSha256: running, lastModified } = await readFunction(stack);
  const isStray = running !== deployed;
  if (isStray) say(`Note: ${strayCode(lastModified)}; ${denoTask(target, "deploy")} puts it right`);
  return { running, deployed, isStray };
}

/** Runs what is saved in `folder` until it is disposed of, which puts the deployed code back. */
export async function runSaved(
  stack: Stack,
  target: Target,
  folder: string,
  { running, deployed, isStray }: Awaited<ReturnType<typeof lookAtCode>>,
  board: Board,
): Promise<AsyncDisposable> {
  const deployedZip = await Deno.readFile(ZIP_URL).catch(() => undefined);
  const builder = await makeBuilder(folder);
  const loop = new Loop({
    build: builder.build,
    update: async ({ zip }) => {
      using _lock = await lockWorkspace(target.workspace);
      await updateCode(stack, zip);
    },
    tryOut: async (signal) => {
      const { failure } = await runFunction(stack, TEST_EVENT, { limitMs: START_LIMIT_MS, signal });
      if (failure === undefined) return;
      throw new BrokenCodeError(
        "The new code fails as soon as it starts, and so will every upload until you fix it.\n" +
          builder.placeOf(failure) + toReason(failure),
      );
    },
    check: (signal) => typeErrors(folder, signal),
    tell: (code, sha256) => {
      board.setCode(code, sha256);
      if (code.state !== "building") {
        for (const line of code.text.split("\n")) say(visible(line));
      }
    },
  }, running);
  const watching = watch(folder, () => loop.save());
  loop.save(); // what is saved already
  return {
    async [Symbol.asyncDispose]() {
      watching[Symbol.dispose]();
      await loop.end();
      if (loop.hasUpdated || isStray) await putBack(stack, target, deployed, deployedZip);
      await builder.dispose();
    },
  };
}

/** Makes the function run what was deployed when dev began, or says what it runs instead. */
async function putBack(
  stack: Stack,
  target: Target,
  sha256: string,
  zip?: Uint8Array,
): Promise<void> {
  const runs = "The function runs this folder's code as it was saved last";
  const { workspace } = target;
  const remedy = `${denoTask(target, "deploy")} deploys this folder's code for good`;
  try {
    using _lock = await lockWorkspace(workspace);
    if (await deployedCode(workspace, { always: true }) !== sha256) {
      return say(`${runs}; it was deployed meanwhile, so nothing is put back`);
    }
    if (zip === undefined || sha256Of(zip) !== sha256) {
      return say(`${runs}, since the deployed code is not in build/lambda.zip; ${remedy}`);
    }
    // It is put back after Ctrl-C, too.
    await updateCode(stack, zip, { signal: new AbortController().signal });
    say(`The function runs the deployed code again; ${remedy}`);
  } catch (error) {
    say(`${runs}, since the deployed code could not be put back (${error}); ${remedy}`);
  }
}

/** The bundle of a folder, built again at each call and faster each time. */
export async function makeBuilder(folder: string) {
  const context = await esbuild.context({
    ...BUNDLE_OPTIONS,
    absWorkingDir: folder,
    sourcemap: "external", // the bundle's bytes stay those of a deploy
  });
  let map: esbuild.OutputFile;
  return {
    async build(): Promise<BuiltCode> {
      const { outputFiles } = await context.rebuild().catch((error) => {
        if (!("errors" in error)) throw error;
        throw new BrokenCodeError(`It does not build, so nothing was changed.\n${error.message}`);
      });
      const [sourceMap, bundle] = outputFiles!;
      map = sourceMap;
      const zip = zipOf(bundle.contents);
      return { zip, sha256: sha256Of(zip) };
    },
    /** Where a run of the last build failed, if its stack names a place outside packages. */
    placeOf({ trace = [] }: RunFailure): string {
      const origins = new SourceMap(JSON.parse(map.text));
      for (const [, line, column] of trace.join("\n").matchAll(/bundle\.cjs:(\d+):(\d+)/g)) {
        const entry = origins.findEntry(Number(line) - 1, Number(column) - 1);
        if (!("originalSource" in entry) || entry.originalSource.includes("node_modules")) continue;
        const file = entry.originalSource.replace("../", "");
        return `${file}:${entry.originalLine + 1}:${entry.originalColumn + 1}: `;
      }
      return "";
    },
    dispose: () => context.dispose(),
  };
}

/** What `deno check` says of the function's code until the signal; "" if there is no type error. */
export async function typeErrors(folder: string, signal: AbortSignal): Promise<string> {
  const { stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["check", "--quiet", "function/lambda.ts"],
    cwd: folder,
    env: { NO_COLOR: "1" },
    signal,
  }).output();
  return new TextDecoder().decode(stderr).trim().split("\n").slice(0, CHECK_LINES).join("\n");
}

/**
 * Calls `save` after each save of the function's code, until disposed. It looks at times and sizes:
 * a folder shared by a host, a network drive or WSL sends no events, and Linux watches only some.
 */
export function watch(folder: string, save: () => void): Disposable {
  const ending = new AbortController();
  void (async () => {
    let seen = await lookAt(folder).catch(String);
    let saved = seen;
    while (!ending.signal.aborted) {
      await pause(LOOK_MS, ending.signal);
      const now = await lookAt(folder).catch(String);
      // An editor may still be writing, until two looks are alike.
      if (now === seen && now !== saved) {
        saved = now;
        save();
      }
      seen = now;
    }
  })().catch(() => {}); // disposed
  return { [Symbol.dispose]: () => ending.abort() };
}

/** The times and sizes of the function's code. */
async function lookAt(folder: string): Promise<string> {
  const names = await readdir(join(folder, "function"), { recursive: true });
  const files = names.filter((name) => name.endsWith(".ts")).sort()
    .map((name) => join("function", name));
  const looks = ["handler.ts", ...files].map(async (file) => {
    // While an editor replaces it, it is not there.
    const stat = await Deno.stat(join(folder, file)).catch(() => undefined);
    return [file, stat?.mtime?.getTime(), stat?.size, stat?.ino];
  });
  return JSON.stringify(await Promise.all(looks));
}
