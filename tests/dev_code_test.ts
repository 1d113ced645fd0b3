/** The function's code while dev runs and when it has ended, on a fake stack. */

import assert from "node:assert/strict";
import { join } from "node:path";
import * as esbuild from "esbuild";
import { runSaved, sayStray } from "../dev/code.ts";
import { startDev } from "../dev/dev.ts";
import { makeBuilder } from "../dev/workshop.ts";
import { sha256Of, ZIP_URL } from "../tasks/build.ts";
import { ROOT, run } from "../tasks/shell.ts";
import { readyTerraform, targetOf } from "../tasks/target.ts";
import { pause, quiet, until } from "./dev_fixtures.ts";
import { copyOfCode, fakeStack, progressOf } from "./fixtures.ts";

Deno.test(
  "on AWS dev leaves the function's code alone unless --code is confirmed",
  async (t) => {
    await t.step("without --code a save changes nothing, and the page says how to", async () => {
      const { stack, calls } = fakeStack(quiet());
      await using copy = await copyOfCode();
      const target = targetOf({ env: "team", local: false });
      const { url, close } = await startDev(stack, target, copy.path, { code: false, port: 0 });
      await Deno.writeTextFile(join(copy.path, "handler.ts"), "console.log(1);", { append: true });
      const headers = { authorization: `Bearer ${new URL(url).hash.slice(1)}` };
      await pause(500);
      const news = await (await fetch(new URL("/news?last=0", url), { headers })).text();
      await close();
      assert.match(news, /"deno task dev --code --env team makes the function run what/);
      assert.deepEqual(calls.filter(({ name }) => name.startsWith("Update")), []);
    });
    await t.step("--code names account, environment and function, then asks", async () => {
      const program = `
      import { confirmCode } from "./dev/code.ts";
      const outputs = { account_id: "123456789012", aws_region: "eu-west-1", environment: "team",
        lambda_function_name: "fn" };
      for (const yes of [false, true]) {
        const answer = confirmCode({ outputs }, { yes });
        console.log(await answer.then(() => "goes on", ({ message }) => message.trim()));
      }
      Deno.exit(0);`;
      const args = ["eval", "--no-check", program];
      let stdout = "";
      const said = await progressOf(async () => {
        ({ stdout } = await run(Deno.execPath(), args, { output: "return" }));
      });
      const asked =
        "Account 123456789012, region eu-west-1, environment team: the function fn will " +
        "run what is saved in this folder, at once and after each save. Every upload";
      assert.equal(said.split(asked).length, 3, said);
      assert.match(stdout, /^Nobody answered, so nothing was changed: .*\ngoes on\n$/);
    });
  },
);

Deno.test(
  "dev ends with the deployed code, also where it found what a killed one left",
  async () => {
    const target = targetOf({ env: "dev-test", local: false });
    await readyTerraform(target.workspace);
    const folder = join(ROOT, "terraform.tfstate.d", target.workspace);
    await using held = new AsyncDisposableStack();
    held.defer(() => Deno.remove(folder, { recursive: true }));
    const deployed = sha256Of(await Deno.readFile(ZIP_URL));
    await Deno.mkdir(folder, { recursive: true });
    await Deno.writeTextFile(join(folder, "terraform.tfstate"), stateOf(deployed));

    const copy = held.use(await copyOfCode()).path;
    await Deno.writeTextFile(join(copy, "handler.ts"), "console.log(1);", { append: true });
    const builder = await makeBuilder(copy);
    const { sha256: saved } = await builder.build();
    await builder.dispose();
    for (const found of [saved, deployed]) {
      let running = found;
      const { stack } = fakeStack({
        GetFunctionCommand: () => ({
          Configuration: {
            CodeSha256: running,
            LastUpdateStatus: "Successful",
            LastModified: "then",
          },
        }),
        UpdateFunctionCodeCommand: ({ ZipFile }) => {
          running = sha256Of(ZipFile as Uint8Array);
          return {};
        },
      });
      const said = await progressOf(async () => {
        await sayStray(stack, target);
        const told: string[] = [];
        const loop = await runSaved(stack, target, copy, ({ state }) => void told.push(state));
        await until(() => told.includes("running"));
        assert.equal(running, saved);
        await loop.end();
      });
      assert.equal(running, deployed);
      assert.equal(
        /^Note: since then .* was not deployed, .*; deno task deploy/.test(said),
        found === saved,
      );
      assert.match(
        said,
        /^The function runs the deployed code again; deno task deploy --env dev-test/m,
      );
    }
    await esbuild.stop();
  },
);

/** A state in which a function with this code is deployed. */
function stateOf(source_code_hash: string): string {
  const instances = [{ schema_version: 0, attributes: { source_code_hash } }];
  const provider = 'provider["registry.terraform.io/hashicorp/aws"]';
  const fn = {
    mode: "managed",
    type: "aws_lambda_function",
    name: "metadata",
    provider,
    instances,
  };
  return JSON.stringify({ version: 4, serial: 1, lineage: "test", outputs: {}, resources: [fn] });
}

Deno.test("what puts the deployed code back runs after Ctrl-C, and nothing else", async () => {
  const program = `
    import { run } from "./tasks/shell.ts";
    import { handleSignals, interrupted } from "./tasks/signals.ts";
    handleSignals();
    const aborted = new Promise((resolve) => interrupted.addEventListener("abort", resolve));
    Deno.kill(Deno.pid, "SIGINT");
    await aborted;
    const version = (options) =>
      run(Deno.execPath(), ["--version"], { quiet: true, ...options }).then(() => "ran", String);
    console.log(await version({}), await version({ always: true }));
    Deno.exit(0);`;
  const { stdout } = await run(Deno.execPath(), ["eval", "--no-check", program], { quiet: true });
  assert.equal(stdout, "InterruptedError: Interrupted ran\n");
});
