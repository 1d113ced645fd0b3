/** Small helpers for files and folders. */

import { dirname, join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { ROOT } from "./shell.ts";

/** Where the user stood when `deno task` was called. */
export const calledFrom = () => Deno.env.get("INIT_CWD") ?? Deno.cwd();

/** A file's text; undefined if it does not exist. */
export async function readText(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Replaces a file in one step, so that no reader meets half of it; only if its content changes. */
export async function replaceFile(
  path: string,
  content: Uint8Array,
  options?: Deno.WriteFileOptions,
): Promise<void> {
  const there = await Deno.readFile(path).catch(() => undefined);
  if (there !== undefined && isDeepStrictEqual(there, content)) return;
  await Deno.mkdir(dirname(path), { recursive: true });
  const draft = `${path}.${Deno.pid}`;
  try {
    await Deno.writeFile(draft, content, options);
    await Deno.rename(draft, path);
  } catch (error) {
    await removeIfThere(draft).catch(() => {}); // of a full disk; the first error counts
    throw error;
  }
}

/** Removes a file or a whole folder. */
export async function removeIfThere(path: string): Promise<void> {
  try {
    await Deno.remove(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** The names in a folder, in order; none if it does not exist. */
export async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await Array.fromAsync(Deno.readDir(folder), ({ name }) => name)).sort();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** A folder in build/ that is removed with all that is in it. */
export async function temporaryFolder(): Promise<{ path: string } & AsyncDisposable> {
  const build = join(ROOT, "build");
  await Deno.mkdir(build, { recursive: true });
  const path = await Deno.makeTempDir({ dir: build, prefix: "tmp-" });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}
