/** What each program gets of the shell's environment. */

import { proxyVariables } from "./proxy.ts";
import { visible } from "./terminal.ts";
import { isLocalWorkspace } from "./workspace.ts";

type Environment = Record<string, string>;

/** Whether a program gets a variable, by its name. */
const GETS = {
  /**
   * Nothing that would lead a local run away from the stand-in: to AWS, through a proxy, or to values
   * that are meant for AWS. All else stays: terraform or the aws CLI may be a version manager's shim
   * (tfenv, asdf, mise, pyenv), which needs HOME and variables of its own.
   */
  localRun: (name: string) => !/^(AWS_|AMAZON_|TF_VAR_|TF_WORKSPACE$)|_PROXY$/i.test(name),
  /**
   * No more than this, so that nothing in a shell changes how the stand-in works. A Python may need its
   * libraries' path (conda, Nix, setup-python); LD_PRELOAD and its like would inject code.
   */
  standIn: (name: string) =>
    /^(PATH|LANG|LC_\w+|TERM|USER|LOGNAME|SHELL|TZ|NO_COLOR|CI|(DY)?LD_(FALLBACK_)?LIBRARY_PATH)$/
      .test(name),
};

/** The part of the shell's environment that a program gets. */
export function environmentFor(program: keyof typeof GETS, shell: Environment): Environment {
  return Object.fromEntries(Object.entries(shell).filter(([name]) => GETS[program](name)));
}

/**
 * The changes that make Terraform, its `init` included, act on the workspace that a task names and on
 * no other. `notes` tell the user of them.
 */
export function changesForTerraform(shell: Environment, workspace: string) {
  const names = Object.keys(shell);
  const argumentNames = names.filter((name) => name.startsWith("TF_CLI_ARGS"));
  const variables = names.filter((name) =>
    isLocalWorkspace(workspace) && /^TF_(VAR_|DATA_DIR$)/.test(name)
  );
  const notes = argumentNames.map((name) =>
    `The shell's ${visible(name)} is not used: it could make Terraform act on something else`
  );
  if (shell.TF_WORKSPACE && shell.TF_WORKSPACE !== workspace) {
    notes.push(
      `The shell's TF_WORKSPACE, ${visible(shell.TF_WORKSPACE)}, is not used: this acts on ` +
        `workspace ${workspace}; choose another with --env`,
    );
  }
  if (variables.length > 0) {
    notes.push(`The shell's ${visible(variables.join(", "))}: for AWS, not read on the stand-in`);
  }
  const set: Environment = {
    CHECKPOINT_DISABLE: "1", // no question to HashiCorp whether Terraform is up to date
    ...proxyVariables(shell),
  };
  if (!shell.TF_LOG_PATH && names.some((name) => name.startsWith("TF_LOG"))) {
    set.TF_LOG_PATH = "build/terraform.log"; // else it would be among its errors
    notes.push(`The log that TF_LOG asks for goes to ${set.TF_LOG_PATH}`);
  }
  return { set, unset: [...argumentNames, "TF_WORKSPACE", ...variables], notes };
}
