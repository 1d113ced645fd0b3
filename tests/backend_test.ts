/** The stand-in's own Terraform folder. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { ownFolder } from "../tasks/backend.ts";
import { namesIn } from "../tasks/files.ts";
import { ROOT } from "../tasks/shell.ts";

Deno.test(
  "ownFolder() has what Terraform reads, as it is now, and a backend of its own",
  async () => {
    const module = join(ROOT, "deno-task-test-module");
    const namesNow = async () => {
      const { args: [option] } = await ownFolder();
      const folder = option.replace("-chdir=", "");
      const override = await Deno.readTextFile(join(folder, "zz_local_override.tf"));
      assert.match(override, /^ {2}backend "local" \{\}$/m);
      return await namesIn(join(folder, "deno-task-test-module"));
    };
    await Deno.mkdir(module, { recursive: true });
    try {
      for (const name of ["main.tf", "team.tf.json", "notes.md"]) {
        await Deno.writeTextFile(join(module, name), "");
      }
      // As Emacs marks a file that is edited: a link that leads nowhere.
      await new Deno.Command("ln", { args: ["-sf", "me@host.1", join(module, ".#main.tf")] })
        .output();
      assert.deepEqual(await namesNow(), ["main.tf", "team.tf.json"]);
      await Deno.remove(join(module, "team.tf.json"));
      assert.deepEqual(await namesNow(), ["main.tf"]);
    } finally {
      await Deno.remove(module, { recursive: true });
      assert.deepEqual(await namesNow(), []);
    }
  },
);
