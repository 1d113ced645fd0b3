import assert from "node:assert/strict";
import { changesForTerraform, environmentFor } from "../tasks/environment.ts";

Deno.test("changesForTerraform() leaves out what would make Terraform act elsewhere, and says so", () => {
  const shell = { TF_CLI_ARGS: "-x", TF_CLI_ARGS_plan: "-destroy", TF_WORKSPACE: "prod" };
  const forAws = { TF_VAR_b: "1", TF_DATA_DIR: "2" };
  const notUsed = (name: string) =>
    `The shell's ${name} is not used: it could make Terraform act on something else`;
  assert.deepEqual(changesForTerraform({ ...shell, ...forAws }, "default"), {
    set: { CHECKPOINT_DISABLE: "1" },
    unset: ["TF_CLI_ARGS", "TF_CLI_ARGS_plan", "TF_WORKSPACE"],
    notes: [
      notUsed("TF_CLI_ARGS"),
      notUsed("TF_CLI_ARGS_plan"),
      "The shell's TF_WORKSPACE, prod, is not used: this acts on workspace default; choose another with --env",
    ],
  });
  assert.deepEqual(changesForTerraform(forAws, "local-test"), {
    set: { CHECKPOINT_DISABLE: "1" },
    unset: ["TF_WORKSPACE", "TF_VAR_b", "TF_DATA_DIR"],
    notes: ["The shell's TF_VAR_b, TF_DATA_DIR: for AWS, not read on the stand-in"],
  });
  const { set } = changesForTerraform({ https_proxy: "http://p:1" }, "default");
  assert.equal(set.HTTPS_PROXY, "http://p:1"); // clients_test.ts has the rest
  for (const TF_WORKSPACE of ["prod", ""]) { // of which the task says enough
    assert.deepEqual(changesForTerraform({ TF_WORKSPACE }, "prod").notes, []);
  }
});

Deno.test("changesForTerraform() keeps Terraform's log from its errors", () => {
  const { set, notes } = changesForTerraform({ TF_LOG_PROVIDER: "debug" }, "default");
  assert.equal(set.TF_LOG_PATH, "build/terraform.log");
  assert.deepEqual(notes, ["The log that TF_LOG asks for goes to build/terraform.log"]);
  const toldWhere = changesForTerraform({ TF_LOG: "debug", TF_LOG_PATH: "/x" }, "default");
  assert.equal(toldWhere.set.TF_LOG_PATH, undefined);
});

/** By the program, the names of variables that it gets, and of others. */
const CASES: [program: Parameters<typeof environmentFor>[0], gets: string, others: string][] = [
  [
    "localRun", // what moves Terraform's data, plugins or settings is the same for every call
    `HOME PATH SHELL XDG_DATA_HOME LD_LIBRARY_PATH TFENV_CONFIG_DIR ASDF_DATA_DIR MISE_DATA_DIR
    PYENV_ROOT TF_DATA_DIR TF_CLI_CONFIG_FILE TF_PLUGIN_CACHE_DIR TF_REATTACH_PROVIDERS TF_INPUT`,
    `AWS_PROFILE AWS_ENDPOINT_URL_S3 AWS_EC2_METADATA_DISABLED AWS_ACCESS_KEY_ID TF_WORKSPACE
    TF_VAR_project_name HTTPS_PROXY http_proxy all_proxy NO_PROXY`,
  ],
  [
    "standIn",
    "PATH LANG LC_ALL TZ LD_LIBRARY_PATH DYLD_LIBRARY_PATH DYLD_FALLBACK_LIBRARY_PATH",
    `LD_PRELOAD LD_AUDIT DYLD_INSERT_LIBRARIES NODE_OPTIONS NODE_PATH PYTHONPATH PYTHONHOME
    AWS_PROFILE HTTPS_PROXY HOME GATEWAY_PORT SSL_CERT_FILE`,
  ],
];

Deno.test("environmentFor() gives a program what it needs of the shell's environment", () => {
  for (const [program, gets, others] of CASES) {
    const kept = gets.split(/\s+/);
    const shell = Object.fromEntries([...kept, ...others.split(/\s+/)].map((name) => [name, "x"]));
    assert.deepEqual(Object.keys(environmentFor(program, shell)), kept, program);
  }
});
