/** Small helpers for files and folders. */

import { rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { ROOT } from "./shell.ts";

/** Where the user stood when `deno task` was called. */
export const calledFrom = () => Deno.env.get("INIT_CWD") ?? Deno.cwd();

/** For a failure as there is no such file or folder, `instead`. */
export function ifMissing<T>(instead: T): (error: unknown) => T {
  return (error) => {
    if (error instanceof Deno.errors.NotFound) return instead;
    throw error;
  };
}

/** A file's text; undefined if it does not exist. */
export function readText(path: string): Promise<string | undefined> {
  return Deno.readTextFile(path).catch(ifMissing(undefined));
}

/** Replaces a file in one step, so that no reader meets half of it; only if its content changes. */
export async function replaceFile(path: string, content: Uint8Array): Promise<void> {
  const there = await Deno.readFile(path).catch(() => undefined);
  if (there !== undefined && isDeepStrictEqual(there, content)) return;
  await Deno.mkdir(dirname(path), { recursive: true });
  const draft = `${path}.${Deno.pid}`;
  await Deno.writeFile(draft, content);
  await Deno.rename(draft, path);
}

/** Removes a file or a whole folder. */
export function removeIfThere(path: string): Promise<void> {
  return rm(path, { recursive: true, force: true });
}

/** The names in a folder, in order; none if it does not exist. */
export async function namesIn(folder: string): Promise<string[]> {
  const names = Array.fromAsync(Deno.readDir(folder), ({ name }) => name);
  return (await names.catch(ifMissing<string[]>([]))).sort();
}

/** A folder in build/ that is removed with all that is in it. */
export async function temporaryFolder(): Promise<{ path: string } & AsyncDisposable> {
  const build = join(ROOT, "build");
  await Deno.mkdir(build, { recursive: true });
  const path = await Deno.makeTempDir({ dir: build, prefix: "tmp-" });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}
