import assert from "node:assert/strict";
import {
  changesForTerraform,
  pythonEnvironment,
  standInEnvironment,
  withoutAws,
} from "../tasks/environment.ts";

Deno.test("what moves Terraform's arguments or workspace is left out, and said", () => {
  const shell = {
    TF_CLI_ARGS: "-x",
    TF_CLI_ARGS_plan: "-destroy",
    TF_WORKSPACE: "prod",
    TF_VAR_project_name: "kept",
  };
  const { set, unset, says } = changesForTerraform(shell, "default");
  assert.deepEqual(unset, ["TF_CLI_ARGS", "TF_CLI_ARGS_plan", "TF_WORKSPACE"]);
  assert.deepEqual(set, { CHECKPOINT_DISABLE: "1" });
  assert.equal(says.length, 3);
  assert.match(says[0], /^The shell's TF_CLI_ARGS is not used: /);
  assert.match(
    says[2],
    /^The shell's TF_WORKSPACE, prod, is not used: this acts on workspace default;/,
  );
});

Deno.test("a workspace that the task acts on anyway is not worth a word", () => {
  for (const TF_WORKSPACE of ["prod", ""]) {
    assert.deepEqual(changesForTerraform({ TF_WORKSPACE }, "prod").says, []);
  }
});

Deno.test("what moves Terraform's data, plugins or settings is the same for every call", () => {
  const shell = {
    TF_DATA_DIR: "/data",
    TF_CLI_CONFIG_FILE: "/terraformrc",
    TF_PLUGIN_CACHE_DIR: "/cache",
    TF_REATTACH_PROVIDERS: "{}",
    TF_INPUT: "0",
    TF_IN_AUTOMATION: "1",
  };
  assert.deepEqual(changesForTerraform(shell, "default").unset, []);
  assert.deepEqual(changesForTerraform(shell, "local").unset, []);
  assert.deepEqual(withoutAws(shell), shell);
});

Deno.test("Terraform's own log does not get among its errors", () => {
  for (const name of ["TF_LOG", "TF_LOG_CORE", "TF_LOG_PROVIDER", "TF_LOG_PROVIDER_AWS"]) {
    const { set, says } = changesForTerraform({ [name]: "debug" }, "default");
    assert.equal(set.TF_LOG_PATH, "build/terraform.log");
    assert.deepEqual(says, ["The log that TF_LOG asks for goes to build/terraform.log"]);
  }
  const quiet: Record<string, string>[] = [{ TF_LOG: "" }, { TF_LOG: "debug", TF_LOG_PATH: "/x" }];
  for (const shell of quiet) {
    assert.equal(changesForTerraform(shell, "default").set.TF_LOG_PATH, undefined);
  }
});

Deno.test("a TMPDIR in which Terraform cannot make its socket is not used", () => {
  const writable = (folder: string) => !folder.startsWith("/gone");
  const long = `/tmp/${"ä".repeat(41)}`; // 87 bytes
  const cases = [
    ["/gone", "The shell's TMPDIR, /gone, is not used: nothing can be written there"],
    [long, `The shell's TMPDIR, ${long}, is not used: its path is too long for a socket`],
    [long.slice(0, -1), undefined],
    ["", undefined],
  ] as const;
  for (const [TMPDIR, sentence] of cases) {
    const { unset, says } = changesForTerraform({ TMPDIR }, "default", writable);
    assert.deepEqual(unset, sentence ? ["TMPDIR"] : []);
    assert.deepEqual(says, sentence ? [sentence] : []);
  }
});

Deno.test("Terraform gets the proxy with the metadata service exempt", () => {
  const { set } = changesForTerraform({ https_proxy: "http://p:1" }, "default");
  assert.equal(set.HTTPS_PROXY, "http://p:1");
  assert.match(set.NO_PROXY, /169\.254\.169\.254/);
});

Deno.test("a local run takes nothing that is meant for AWS, and what a version manager needs", () => {
  const kept = {
    HOME: "/home/me",
    PATH: "/shims",
    TFENV_CONFIG_DIR: "/t",
    ASDF_DATA_DIR: "/a",
    MISE_DATA_DIR: "/m",
    PYENV_ROOT: "/p",
    XDG_DATA_HOME: "/x",
    LD_LIBRARY_PATH: "/conda/lib",
    SHELL: "/bin/zsh",
  };
  const foreign = {
    AWS_PROFILE: "me",
    AWS_ENDPOINT_URL_S3: "https://x",
    AWS_EC2_METADATA_DISABLED: "true",
    AWS_ACCESS_KEY_ID: "x",
    TF_VAR_project_name: "x",
    TF_WORKSPACE: "prod",
    HTTPS_PROXY: "x",
    http_proxy: "x",
    all_proxy: "x",
    NO_PROXY: "x",
  };
  assert.deepEqual(withoutAws({ ...kept, ...foreign }), kept);
  const { unset, says } = changesForTerraform({ TF_VAR_b: "1", TF_VAR_a: "2" }, "local-test");
  assert.deepEqual(unset, ["TF_VAR_b", "TF_VAR_a"]);
  assert.deepEqual(says, ["The shell's TF_VAR_b, TF_VAR_a: for AWS, not read on the stand-in"]);
});

Deno.test("the stand-in gets what its programs need, and no setting of theirs", () => {
  const kept = { PATH: "/bin", LANG: "C.UTF-8", LC_ALL: "C", TZ: "UTC" };
  const libraries = {
    LD_LIBRARY_PATH: "/a",
    DYLD_LIBRARY_PATH: "/b",
    DYLD_FALLBACK_LIBRARY_PATH: "/c",
  };
  const foreign = {
    LD_PRELOAD: "/x.so",
    LD_AUDIT: "/x.so",
    DYLD_INSERT_LIBRARIES: "/x",
    NODE_OPTIONS: "--inspect",
    NODE_PATH: "/x",
    PYTHONPATH: "/x",
    PYTHONHOME: "/x",
    AWS_PROFILE: "me",
    HTTPS_PROXY: "x",
    HOME: "/home/me",
    GATEWAY_PORT: "1",
    SSL_CERT_FILE: "/x",
  };
  assert.deepEqual(standInEnvironment({ ...kept, ...libraries, ...foreign }), {
    ...kept,
    ...libraries,
  });
});

Deno.test("pip takes packages from where the shell says, and puts them where it is told", () => {
  const kept = {
    HOME: "/home/me",
    PYENV_ROOT: "/p",
    HTTPS_PROXY: "http://p",
    SSL_CERT_FILE: "/c",
    PIP_INDEX_URL: "https://i",
    PIP_EXTRA_INDEX_URL: "https://e",
    PIP_FIND_LINKS: "/wheels",
    PIP_NO_INDEX: "1",
    PIP_CONFIG_FILE: "/pip.conf",
    PIP_CERT: "/c",
    PIP_CLIENT_CERT: "/c",
    PIP_PROXY: "http://p",
    PIP_DEFAULT_TIMEOUT: "180",
    PIP_TRUSTED_HOST: "i",
    PIP_CACHE_DIR: "/cache",
  };
  const foreign = {
    PIP_TARGET: "/x",
    PIP_PREFIX: "/x",
    PIP_ROOT: "/x",
    PIP_USER: "1",
    PIP_REQUIRE_VIRTUALENV: "1",
    PIP_DRY_RUN: "1",
    PIP_NO_BINARY: ":all:",
    PIP_PYTHON: "/x",
    PIP_CONSTRAINT: "/x",
    PIP_REQUIRE_HASHES: "1",
    PYTHONPATH: "/x",
    PYTHONHOME: "/x",
    PYTHONUSERBASE: "/x",
    PYTHONSTARTUP: "/x",
    PYTHONNOUSERSITE: "1",
    PYTHONPLATLIBDIR: "x",
    VIRTUAL_ENV: "/x",
    __PYVENV_LAUNCHER__: "/x",
  };
  assert.deepEqual(pythonEnvironment({ ...kept, ...foreign }), { ...kept, PIP_USER: "0" });
});
