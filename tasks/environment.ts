/** What the tasks take over from the shell's environment, and what they leave out. */

import { accessSync, constants } from "node:fs";
import { proxyVariables } from "./proxy.ts";
import { visible } from "./terminal.ts";
import { isLocalWorkspace } from "./workspace.ts";

type Environment = Record<string, string>;

/** Changes of an environment, and the sentences that tell the user of them. */
export interface Changes {
  set: Environment;
  unset: string[];
  says: string[];
}

/** Where Terraform's own log goes, if TF_LOG asks for one and TF_LOG_PATH does not say where. */
const TERRAFORM_LOG = "build/terraform.log";

/**
 * Variables that would lead a local run away from the stand-in: to AWS, through a proxy, or to
 * values that are meant for AWS. All others stay: terraform or the aws CLI may be a version manager's
 * shim (tfenv, asdf, mise, pyenv), which needs HOME and variables of its own.
 */
const NOT_LOCAL = /^(AWS_|AMAZON_|TF_VAR_|TF_WORKSPACE$)|_PROXY$/i;

/**
 * All that the stand-in gets, so that nothing in a shell changes how it works. A Python may need its
 * libraries' path (conda, Nix, setup-python); LD_PRELOAD and its like would inject code.
 */
const OF_STAND_IN =
  /^(PATH|LANG|LC_\w+|TERM|USER|LOGNAME|SHELL|TZ|NO_COLOR|CI|(DY)?LD_(FALLBACK_)?LIBRARY_PATH)$/;

/** What pip may be told of where packages come from, but not of where or whether they go. */
const OF_PIP =
  /^PIP_((EXTRA_)?INDEX_URL|FIND_LINKS|NO_INDEX|TRUSTED_HOST|(CLIENT_)?CERT|PROXY|(DEFAULT_)?TIMEOUT|RETRIES|(NO_)?CACHE_DIR|CONFIG_FILE|KEYRING_PROVIDER|USE_FEATURE|USE_DEPRECATED)$/;

/**
 * Terraform and its provider talk through a socket in TMPDIR. Its path may have 103 bytes on macOS, 107
 * on Linux, and 18 of them are its name: https://github.com/hashicorp/go-plugin/blob/main/server.go
 */
const MOST_TMPDIR_BYTES = 85;

/**
 * Makes Terraform, its `init` included, act on the workspace that a task names, and on no other, with
 * the same settings from the first call to the last.
 */
export function changesForTerraform(
  shell: Environment,
  workspace: string,
  canWriteTo = isWritable,
): Changes {
  const changes: Changes = { set: {}, unset: [], says: [] };
  for (const name of Object.keys(shell).filter((name) => /^TF_CLI_ARGS/.test(name))) {
    changes.unset.push(name);
    changes.says.push(
      `The shell's ${visible(name)} is not used: it could make Terraform act on something else`,
    );
  }
  if (shell.TF_WORKSPACE !== undefined) changes.unset.push("TF_WORKSPACE");
  if (shell.TF_WORKSPACE && shell.TF_WORKSPACE !== workspace) {
    const given = visible(shell.TF_WORKSPACE);
    changes.says.push(
      `The shell's TF_WORKSPACE, ${given}, is not used: this acts on workspace ${workspace}; choose another with --env`,
    );
  }
  const variables = Object.keys(shell).filter((name) => name.startsWith("TF_VAR_"));
  if (isLocalWorkspace(workspace) && variables.length > 0) {
    changes.unset.push(...variables);
    changes.says.push(
      `The shell's ${visible(variables.join(", "))}: for AWS, not read on the stand-in`,
    );
  }
  // Terraform would write it among its errors.
  const logs = Object.keys(shell).some((name) =>
    /^TF_LOG(_CORE|_PROVIDER.*)?$/.test(name) && shell[name]
  );
  if (logs && !shell.TF_LOG_PATH) {
    changes.set.TF_LOG_PATH = TERRAFORM_LOG;
    changes.says.push(`The log that TF_LOG asks for goes to ${TERRAFORM_LOG}`);
  }
  const { TMPDIR } = shell;
  const isLong = new TextEncoder().encode(TMPDIR).length > MOST_TMPDIR_BYTES;
  if (TMPDIR && (isLong || !canWriteTo(TMPDIR))) {
    changes.unset.push("TMPDIR");
    const why = isLong ? "its path is too long for a socket" : "nothing can be written there";
    changes.says.push(`The shell's TMPDIR, ${visible(TMPDIR)}, is not used: ${why}`);
  }
  changes.set.CHECKPOINT_DISABLE = "1"; // no question to HashiCorp whether Terraform is up to date
  Object.assign(changes.set, proxyVariables(shell));
  return changes;
}

function isWritable(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** The environment of a local run, before the stand-in's own variables are added. */
export function withoutAws(shell: Environment): Environment {
  return filter(shell, (name) => !NOT_LOCAL.test(name));
}

/** The environment of the stand-in itself. */
export function standInEnvironment(shell: Environment): Environment {
  return filter(shell, (name) => OF_STAND_IN.test(name));
}

/** The environment of Python and pip, to make the stand-in's virtual environment and nothing else. */
export function pythonEnvironment(shell: Environment): Environment {
  const kept = filter(
    shell,
    (name) =>
      name.startsWith("PIP_")
        ? OF_PIP.test(name)
        : !/^(PYTHON\w+|VIRTUAL_ENV|__PYVENV_LAUNCHER__)$/.test(name),
  );
  return { ...kept, PIP_USER: "0" }; // a company's pip.conf may say `user = true`
}

function filter(environment: Environment, keep: (name: string) => boolean): Environment {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => keep(name)));
}
