/** What the loop works with: esbuild, Lambda and `deno check`. */

import { readdir } from "node:fs/promises";
import { SourceMap } from "node:module";
import { join, relative } from "node:path";
import * as esbuild from "esbuild";
import { BUNDLE_OPTIONS, sha256Of, zipOf } from "../tasks/build.ts";
import { type RunFailure, runFunction, toReason, updateCode } from "../tasks/invoke.ts";
import { run, RunError } from "../tasks/shell.ts";
import { pause } from "../tasks/signals.ts";
import { lockWorkspace, type Stack } from "../tasks/target.ts";
import { BrokenCodeError, type BuiltCode, type Workshop } from "./loop.ts";

/** A look at the function's nine files takes 1 ms of CPU. */
const LOOK_MS = 100;

/** Lambda lets a function start for 10 s, and then once more. */
const START_LIMIT_MS = 20_000;

/** Errors that are told of one save. */
const MOST_ERRORS = 5;

/** As S3 sends it when a notification is configured: the function does nothing for it. */
const TEST_EVENT = { Service: "Amazon S3", Event: "s3:TestEvent" };

/** The bundle of a folder, built again at each call and faster each time. */
export async function makeBuilder(folder: string) {
  const context = await esbuild.context({
    ...BUNDLE_OPTIONS,
    absWorkingDir: folder,
    sourcemap: "external", // beside the bundle, whose bytes stay those of a deploy
    sourcesContent: false,
  });
  return {
    async build(): Promise<BuiltCode> {
      let files: esbuild.OutputFile[];
      try {
        ({ outputFiles: files } = await context.rebuild() as { outputFiles: esbuild.OutputFile[] });
      } catch (error) {
        if (!(error instanceof Error && "errors" in error)) throw error;
        throw new BrokenCodeError(toText(error.errors as esbuild.Message[]));
      }
      const zip = zipOf(files.find(({ path }) => path.endsWith(".cjs"))!.contents);
      const sourceMap = files.find(({ path }) => path.endsWith(".map"))!.text;
      return { zip, sha256: sha256Of(zip), sourceMap };
    },
    dispose: () => context.dispose(),
  };
}

/** esbuild's errors, each with its place; those without one are of the plugin, and follow from these. */
function toText(errors: esbuild.Message[]): string {
  const placed = errors.filter(({ location }) => location !== null);
  const lines = (placed.length > 0 ? placed : errors).map(({ text, location }) =>
    location ? `${location.file}:${location.line}:${location.column + 1}: ${text}` : text
  );
  return ["It does not build, so nothing was changed.", ...lines.slice(0, MOST_ERRORS)].join("\n");
}

/** The loop's outside: the code of `folder` is built for the function of a stack. */
export function makeWorkshop(
  stack: Stack,
  { workspace, folder, build, tell }: {
    workspace: string;
    folder: string;
    build(): Promise<BuiltCode>;
    tell: Workshop["tell"];
  },
): Workshop {
  return {
    build,
    tell,
    async update({ zip }) {
      using _lock = await lockWorkspace(workspace);
      await updateCode(stack, zip);
    },
    async tryOut({ sourceMap }, signal) {
      const { failure } = await runFunction(stack, TEST_EVENT, { limitMs: START_LIMIT_MS, signal });
      if (failure === undefined) return;
      const place = placeOf(failure, sourceMap);
      throw new BrokenCodeError(
        `The new code fails as soon as it starts, and so will every upload until you fix it.\n` +
          (place === undefined ? "" : `${place}: `) + toReason(failure),
      );
    },
    check: () => typeErrors(folder),
  };
}

/** The file, line and column at which a run failed: the first of the stack that is not a package's. */
export function placeOf({ trace = [] }: RunFailure, sourceMap: string): string | undefined {
  const map = new SourceMap(JSON.parse(sourceMap));
  for (const [, line, column] of trace.join("\n").matchAll(/bundle\.cjs:(\d+):(\d+)/g)) {
    const entry = map.findEntry(Number(line) - 1, Number(column) - 1);
    if (!("originalSource" in entry) || entry.originalSource.includes("node_modules")) continue;
    const file = entry.originalSource.replace(/^(\.\.\/)+/, "");
    return `${file}:${entry.originalLine + 1}:${entry.originalColumn + 1}`;
  }
}

/** What `deno check` says of the function's code: a sentence with its place for each error. */
async function typeErrors(folder: string): Promise<string[]> {
  try {
    const files = [join(folder, "handler.ts"), join(folder, "function", "lambda.ts")];
    await run(Deno.execPath(), ["check", "--quiet", ...files], {
      quiet: true,
      env: { NO_COLOR: "1" },
    });
    return [];
  } catch (error) {
    if (!(error instanceof RunError)) throw error;
    return toTypeErrors(error.stderr, folder);
  }
}

/** Errors of `deno check`, which have their place some lines below their sentence. */
export function toTypeErrors(text: string, folder: string): string[] {
  const errors: string[] = [];
  for (const line of text.split("\n")) {
    const [, code, sentence] = /^(TS\d+) \[ERROR\]: (.*)$/.exec(line) ?? [];
    if (code !== undefined) errors.push(`${code}: ${sentence}`);
    const [, url, place] = /^ {4}at (file:\/\/.*?)(:\d+:\d+)$/.exec(line) ?? [];
    if (url === undefined || errors.length === 0) continue;
    const path = relative(folder, decodeURIComponent(new URL(url).pathname));
    errors.push(`${path}${place}: ${errors.pop()}`);
  }
  if (errors.length > 0) return errors.slice(0, MOST_ERRORS);
  return text.split("Stack backtrace:")[0].trim().split("\n"); // it checked nothing
}

/**
 * Calls `save` after each save of the function's code, until disposed. It looks at times and sizes: a
 * folder that a host, a network drive or WSL shares sends no events, and Linux watches only so many.
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
  const names = (await readdir(join(folder, "function"), { recursive: true })).filter((name) =>
    name.endsWith(".ts") && !name.endsWith("_test.ts")
  );
  const files = ["handler.ts", ...names.sort().map((name) => join("function", name))];
  const looks = files.map(async (file) => {
    // While an editor replaces it, it is not there.
    const { mtime, size, ino } = await Deno.stat(join(folder, file)).catch(() => ABSENT);
    return [file, mtime?.getTime(), size, ino];
  });
  return JSON.stringify(await Promise.all(looks));
}

const ABSENT: Partial<Deno.FileInfo> = {};
