/** The shell that reaches the stand-in: which one it is, and what it finds. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { removeIfThere, temporaryFolder } from "../tasks/files.ts";
import { runAtTerminal, shellCommand } from "../tasks/stand_in.ts";
import { ROOT } from "../tasks/shell.ts";
import { replaceEnvironment } from "./fixtures.ts";

const WORKSPACE = "local-deno-task-test-shell";

Deno.test("shellCommand() is the user's shell without the files that it reads first", () => {
  assert.deepEqual(shellCommand("/bin/bash"), ["/bin/bash", "--noprofile", "--norc"]);
  assert.deepEqual(shellCommand("/opt/zsh"), ["/opt/zsh", "-f"]);
  assert.equal(shellCommand("/usr/bin/fish")[1], "--no-config");
  for (const other of [undefined, "", "/usr/sbin/nologin", "/bin/false", "/bin/tcsh"]) {
    assert.deepEqual(shellCommand(other), ["sh"]);
  }
});

Deno.test("what runs in the shell reaches the stand-in", async (t) => {
  await using folder = await temporaryFolder();
  const printed = join(folder.path, "printed");
  /** What a script prints that the shell runs. */
  const run = async (script: string, shell = ["sh"]) => {
    const words = [...shell, "-c", `(${script}) >${printed}`];
    assert.equal(await runAtTerminal(WORKSPACE, words), 0);
    return await Deno.readTextFile(printed);
  };
  for (const name of [".bashrc", ".bash_profile", ".profile"]) {
    const text = "export AWS_PROFILE=mine AWS_REGION=eu-west-3 PS1='mine> '\n";
    await Deno.writeTextFile(join(folder.path, name), text);
  }
  const program = '#!/bin/sh\necho "$TF_WORKSPACE|$TF_DATA_DIR|$TF_CLI_ARGS_plan|$*"\n';
  await Deno.writeTextFile(join(folder.path, "terraform"), program, { mode: 0o755 });
  const profile = join(folder.path, ".profile");
  using _environment = replaceEnvironment({
    AWS_CA_BUNDLE: "/ca.pem",
    HOME: folder.path,
    PATH: `${folder.path}:${Deno.env.get("PATH")}`,
    ENV: profile,
    BASH_ENV: profile,
  });

  await t.step("whatever the user's own files set", async () => {
    for (const shell of [["sh"], ["sh", "-i"], [...shellCommand("bash"), "-i"], ["bash"]]) {
      const text = await run('echo "$AWS_PROFILE $AWS_REGION $PS1"', shell);
      assert.doesNotMatch(text, /mine|eu-west-3/, shell.join(" "));
      if (shell.includes("-i")) assert.match(text, /\(stand-in\) \$ $/m);
    }
  });

  await t.step("terraform in the project's folder; one elsewhere has its own state", async () => {
    const own = join(ROOT, ".local", "terraform");
    const cases = [
      [
        "terraform plan -out=x",
        `${WORKSPACE}|${own}/.terraform|-var-file=build/defaults.tfvars.json|` +
        `-chdir=${own} plan -out=x\n`,
      ],
      ["cd / && terraform plan", `${WORKSPACE}|||plan\n`],
      ["terraform -chdir=x plan", `${WORKSPACE}|||-chdir=x plan\n`], // as a task does
    ];
    for (const [script, expected] of cases) assert.equal(await run(script), expected);
  });

  await t.step("a program that cannot be run is named", async () => {
    const cases: [string, RegExp][] = [
      [printed, /^Cannot run \S+printed: .*ermission denied/],
      [folder.path, /^Cannot run /],
      ["no-such-program", /^Not in PATH: no-such-program/],
    ];
    for (const [program, message] of cases) {
      await assert.rejects(runAtTerminal(WORKSPACE, [program]), { name: "UserError", message });
    }
  });
  await removeIfThere(join(ROOT, ".local", WORKSPACE));
});
