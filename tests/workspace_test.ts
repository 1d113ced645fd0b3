/** Where Terraform runs, and which values its variables get. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { namesIn, temporaryFolder } from "../tasks/files.ts";
import { ROOT } from "../tasks/shell.ts";
import { ownFolder, sourcesOf, variableNames, writeDefaults } from "../tasks/workspace.ts";
import { runProgram } from "./run_task.ts";

const FILES = [
  ...["a.auto.tfvars", "default.tfvars", "demo.tfvars", "local--demo.tfvars", "local-prod.tfvars"],
  ...["local.tfvars", "main.tf", "prod.tfvars", "terraform.tfvars", "test.tfvars.json"],
];

Deno.test("sourcesOf() reads an environment's files, and says which", () => {
  const automatic = "a.auto.tfvars, terraform.tfvars";
  const onAws = `Variables: TF_VAR_x, ${automatic}`;
  const unread = `; for AWS, not read here: ${automatic}`;
  const cases: [workspace: string, files: string[], line: string][] = [
    ["default", ["default.tfvars"], `${onAws}, default.tfvars`],
    ["prod", ["prod.tfvars"], `${onAws}, prod.tfvars`],
    ["other", [], onAws],
    ["terraform", [], onAws],
    ["local", ["local.tfvars"], "Variables: local.tfvars"],
    [
      "local-prod",
      ["prod.tfvars", "local-prod.tfvars"],
      "Variables: prod.tfvars, local-prod.tfvars",
    ],
    ["local-test", ["test.tfvars.json"], "Variables: test.tfvars.json"],
    ["local--demo", [], "Variables: all at their defaults"],
  ];
  for (const [workspace, files, words] of cases) {
    const line = workspace.startsWith("local") ? words + unread : words;
    assert.deepEqual(sourcesOf(workspace, FILES, ["HOME", "TF_VAR_x"]), { files, line });
  }
  const none = { files: [], line: "Variables: all at their defaults" };
  for (const workspace of ["default", "local"]) {
    assert.deepEqual(sourcesOf(workspace, [], []), none);
  }
});

Deno.test("on the stand-in terraform.tfvars and TF_VAR_ change no variable", async () => {
  await using temporary = await temporaryFolder();
  const folder = temporary.path;
  await Deno.copyFile(join(ROOT, "variables.tf"), join(folder, "variables.tf"));
  const environment = "locals {\n  environment = var.environment\n}\n";
  await Deno.writeTextFile(join(folder, "main.tf"), environment); // of which a validation asks
  const names = await variableNames();
  assert.ok(names.length > 15);
  const outputs = names.map((name) => `output "${name}" {\n  value = var.${name}\n}\n`);
  await Deno.writeTextFile(join(folder, "outputs.tf"), outputs.join(""));
  const defaults = await planOutputs(folder, []);
  assert.deepEqual(Object.keys(defaults).sort(), names.toSorted());

  // Numbers that every validation refuses, and text elsewhere.
  const hostile = names.map((name) => `${name} = "-7"\n`).join("");
  await Deno.writeTextFile(join(folder, "terraform.tfvars"), hostile);
  await Deno.writeTextFile(join(folder, "x.auto.tfvars"), 'project_name = "other"\n');
  const file = `-var-file=${join(ROOT, await writeDefaults())}`;
  const env = { TF_VAR_environment: "other", TF_VAR_aws_region: "eu-west-1" };
  assert.deepEqual(await planOutputs(folder, [file], env), defaults);
  await assert.rejects(planOutputs(folder, [])); // without the file they do count
});

/** The outputs that Terraform plans in a folder without resources. */
async function planOutputs(cwd: string, args: string[], env: Record<string, string> = {}) {
  const terraform = async (...words: string[]) => {
    const all = { ...Deno.env.toObject(), CHECKPOINT_DISABLE: "1", ...env };
    const { code, stdout, stderr } = await runProgram("terraform", words, cwd, all);
    assert.equal(code, 0, stderr);
    return stdout;
  };
  await terraform("plan", "-input=false", "-out=plan", ...args);
  const { planned_values } = JSON.parse(await terraform("show", "-json", "plan"));
  const values = Object.entries<{ value?: unknown }>(planned_values.outputs);
  return Object.fromEntries(values.map(([name, { value }]) => [name, value ?? null]));
}

Deno.test("ownFolder() has what Terraform reads, as it is now, and a local backend", async () => {
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
    await Deno.symlink("me@host.1", join(module, ".#main.tf")); // as Emacs marks a file that is edited
    assert.deepEqual(await namesNow(), ["main.tf", "team.tf.json"]);
    await Deno.remove(join(module, "team.tf.json"));
    assert.deepEqual(await namesNow(), ["main.tf"]);
  } finally {
    await Deno.remove(module, { recursive: true });
    assert.deepEqual(await namesNow(), []);
  }
});
