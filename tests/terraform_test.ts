/** Terraform's own tests of main.tf. */

import { run } from "../tasks/shell.ts";
import { ownFolder } from "../tasks/workspace.ts";
import { startProvider } from "./provider.ts";

const TESTS = {
  main: [],
  existing: [],
  hardened: ["-var-file=docs/hardened.tfvars"],
};

Deno.test("Terraform's own tests of main.tf", async (t) => {
  await using provider = await startProvider({});
  const folder = await ownFolder();
  const [name, value] = provider.variable;
  const terraform = (...words: string[]) =>
    run("terraform", [`-chdir=${folder}`, ...words], {
      env: { TF_WORKSPACE: "default", [name]: value },
      output: "atEnd",
    });
  for (const [name, files] of Object.entries(TESTS)) {
    await t.step(`tests/${name}.tftest.hcl`, async () => {
      await terraform("test", `-filter=tests/${name}.tftest.hcl`, ...files);
    });
  }
});
