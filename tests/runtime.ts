/** Calls functions of the bundle in the runtime's own Node. */

import * as esbuild from "esbuild";
import type { previewOf } from "../function/preview.ts";
import { BUNDLE_OPTIONS } from "../tasks/build.ts";
import { makeTools } from "../tasks/tools.ts";

/**
 * What `script` (TypeScript that imports from the project's top) answers in the runtime's Node: its
 * export `answer(input)`, by JSON both ways.
 */
export async function inRuntime<T>(script: string, input: unknown): Promise<T> {
  const { node } = await makeTools();
  const call = `
    let input = "";
    process.stdin.on("data", (text) => input += text).on("end", () => {
      process.stdout.write(JSON.stringify(script.answer(JSON.parse(input))));
    });`;
  const child = new Deno.Command(node, {
    args: ["--eval", await bundle(script) + call],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const output = child.output();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(JSON.stringify(input)));
  await writer.close();
  const { success, stdout } = await output;
  if (!success) throw new Error("Cannot test in the runtime's Node: the script failed, see above");
  return JSON.parse(new TextDecoder().decode(stdout));
}

/** What previewOf() answers there for some bytes, each with its options; null for none. */
export function previewsInRuntime(
  inputs: (readonly [Uint8Array, Parameters<typeof previewOf>[1]])[],
): Promise<(string | null)[]> {
  const script = `
    import { previewOf } from "./function/preview.ts";
    export const answer = (inputs: [number[], Parameters<typeof previewOf>[1]][]) =>
      inputs.map(([bytes, options]) => previewOf(Uint8Array.from(bytes), options) ?? null);`;
  return inRuntime(script, inputs.map(([bytes, options]) => [Array.from(bytes), options]));
}

async function bundle(script: string): Promise<string> {
  const { absWorkingDir: resolveDir, platform, target } = BUNDLE_OPTIONS;
  const stdin = { contents: script, resolveDir, loader: "ts" } as const;
  const output = { bundle: true, write: false, format: "iife", globalName: "script" } as const;
  try {
    const { outputFiles: [{ text }] } = await esbuild.build({ stdin, platform, target, ...output });
    return text;
  } finally {
    await esbuild.stop();
  }
}
