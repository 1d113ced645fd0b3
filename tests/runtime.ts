/** Calls functions of the bundle in the runtime's own Node. */

import * as esbuild from "esbuild";
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
