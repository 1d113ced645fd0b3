/**
 * Terraform's provider, started once for all plans of a test, as one attaches a debugger to it: half of a
 * plan's CPU time is its start. https://developer.hashicorp.com/terraform/plugin/debugging
 */

import assert from "node:assert/strict";
import { globSync } from "node:fs";
import { join } from "node:path";
import { namesIn } from "../tasks/files.ts";
import { init } from "../tasks/terraform.ts";
import { ownFolder } from "../tasks/workspace.ts";

/**
 * Starts the provider of the stand-in's folder. It acts in `env`, wherever Terraform runs, which finds
 * it by `variable`, a name and a value.
 */
export async function startProvider({ AWS_CA_BUNDLE, ...env }: Record<string, string>) {
  const own = await ownFolder();
  await init(own);
  const [folder] = globSync(join(own, ".terraform", "providers/*/*/aws/*/*")); // often a link
  const [file] = (await namesIn(folder)).filter((name) => name.startsWith("terraform-provider-"));
  // It takes a bundle by AWS's name but once, and then fails.
  if (AWS_CA_BUNDLE) env.SSL_CERT_FILE = AWS_CA_BUNDLE;
  const provider = new Deno.Command(join(folder, file), {
    args: ["-debug"],
    clearEnv: true,
    env: { ...env, GOGC: "50", GOMEMLIMIT: "off" }, // what is kept for minutes is to be small
    stdout: "piped",
    stderr: "null",
  }).spawn();
  // To its last word: one that nobody reads would end it.
  let said = "";
  let variable: string[] | null = null;
  for await (const text of provider.stdout.pipeThrough(new TextDecoderStream())) {
    said += text;
    variable = said.match(/(TF_REATTACH_PROVIDERS)='(.+)'\n\n/);
    if (variable) break;
  }
  assert.ok(variable, said);
  return {
    variable: [variable[1], variable[2]],
    async [Symbol.asyncDispose]() {
      provider.kill("SIGINT");
      await provider.status;
    },
  };
}
