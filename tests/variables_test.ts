import assert from "node:assert/strict";
import { join } from "node:path";
import { sourcesOf, variableNames, writeDefaults } from "../tasks/variables.ts";

const FILES = [
  "a.auto.tfvars",
  "default.tfvars",
  "demo.tfvars",
  "local--demo.tfvars",
  "local-prod.tfvars",
  "local.tfvars",
  "main.tf",
  "prod.tfvars",
  "terraform.tfvars",
  "test.tfvars.json",
];

Deno.test("sourcesOf() reads an environment's files, and says which", () => {
  const unread = "; for AWS, not read here: a.auto.tfvars, terraform.tfvars";
  const automatic = "a.auto.tfvars, terraform.tfvars";
  const cases = [
    ["default", ["default.tfvars"], `Variables: TF_VAR_x, ${automatic}, default.tfvars`],
    ["prod", ["prod.tfvars"], `Variables: TF_VAR_x, ${automatic}, prod.tfvars`],
    ["other", [], `Variables: TF_VAR_x, ${automatic}`],
    ["terraform", [], `Variables: TF_VAR_x, ${automatic}`],
    ["local", ["local.tfvars"], `Variables: local.tfvars${unread}`],
    [
      "local-prod",
      ["prod.tfvars", "local-prod.tfvars"],
      `Variables: prod.tfvars, local-prod.tfvars${unread}`,
    ],
    ["local-test", ["test.tfvars.json"], `Variables: test.tfvars.json${unread}`],
    ["local--demo", [], `Variables: all at their defaults${unread}`],
  ] as const;
  for (const [workspace, files, says] of cases) {
    assert.deepEqual(sourcesOf(workspace, FILES, ["HOME", "TF_VAR_x"]), { files, says });
  }
  assert.equal(sourcesOf("default", [], []).says, "Variables: all at their defaults");
  assert.equal(sourcesOf("local", [], []).says, "Variables: all at their defaults");
});

Deno.test("on the stand-in terraform.tfvars and TF_VAR_ change no variable", async () => {
  const root = join(import.meta.dirname!, "..");
  const folder = await Deno.makeTempDir();
  try {
    await Deno.copyFile(join(root, "variables.tf"), join(folder, "variables.tf"));
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
    const file = `-var-file=${join(root, await writeDefaults())}`;
    const env = { TF_VAR_environment: "other", TF_VAR_aws_region: "eu-west-1" };
    assert.deepEqual(await planOutputs(folder, [file], env), defaults);
    await assert.rejects(planOutputs(folder, [])); // without the file they do count
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** The outputs that Terraform plans in a folder without resources. */
async function planOutputs(
  cwd: string,
  args: string[],
  env: Record<string, string> = {},
): Promise<Record<string, unknown>> {
  const terraform = async (...words: string[]) => {
    const { success, stdout, stderr } = await new Deno.Command("terraform", {
      args: words,
      cwd,
      env: { CHECKPOINT_DISABLE: "1", ...env },
    }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    return new TextDecoder().decode(stdout);
  };
  await terraform("plan", "-input=false", "-out=plan", ...args);
  const { planned_values } = JSON.parse(await terraform("show", "-json", "plan"));
  const values = Object.entries<{ value?: unknown }>(planned_values.outputs);
  return Object.fromEntries(values.map(([name, { value }]) => [name, value ?? null]));
}
