/** A shell, or one command, whose environment leads every AWS SDK and Terraform to the stand-in. */

import { basename, join } from "node:path";
import { shellWord } from "./commands.ts";
import { calledFrom } from "./files.ts";
import { cannotRun, LOCAL_FOLDER, ROOT } from "./shell.ts";
import { folderFor, variableSources } from "./workspace.ts";

const PROMPT = "(stand-in) $ ";

/** Shells without the files that they read first: these may set a profile, a region or a prompt. */
const WITHOUT_FILES = new Map([
  ["bash", ["--noprofile", "--norc"]],
  ["zsh", ["-f"]],
  ["fish", ["--no-config", "--init-command", `function fish_prompt; echo -n '${PROMPT}'; end`]],
]);

/** The user's shell as a command; sh where there is none, or one that is not known. */
export function shellCommand(shell = ""): string[] {
  const args = WITHOUT_FILES.get(basename(shell));
  return args ? [shell, ...args] : ["sh"];
}

/**
 * Runs a command at the user's terminal and returns its exit code. It gets this process's
 * environment, which enterStandIn() has made the stand-in's.
 *
 * @throws {UserError} the program does not start
 */
export async function runAtTerminal(
  workspace: string,
  [program, ...args]: string[],
): Promise<number> {
  const env = {
    // The aws CLI and boto3 read AWS_CA_BUNDLE, Node only this.
    NODE_EXTRA_CA_CERTS: Deno.env.get("AWS_CA_BUNDLE")!,
    PATH: `${await makeTerraform(workspace)}:${Deno.env.get("PATH")}`,
    // A terraform that is found in another way has a state of its own.
    TF_WORKSPACE: workspace,
    PS1: PROMPT,
    ENV: "", // the file that sh reads first
    BASH_ENV: "",
  };
  // Ctrl-C is for the program, which gets it from the terminal.
  const ignore = () => {};
  Deno.addSignalListener("SIGINT", ignore);
  try {
    const command = new Deno.Command(program, {
      args,
      cwd: calledFrom(),
      env,
      stdin: "inherit",
      stdout: "inherit",
      stderr: "inherit",
    });
    return (await start(command, program).status).code;
  } finally {
    Deno.removeSignalListener("SIGINT", ignore);
  }
}

function start(command: Deno.Command, program: string): Deno.ChildProcess {
  try {
    return command.spawn();
  } catch (error) {
    throw cannotRun(program, error as Error);
  }
}

/** Makes a `terraform` that acts on the stand-in in the project's folder; returns its own folder. */
async function makeTerraform(workspace: string): Promise<string> {
  const values = (await variableSources(workspace)).args.join(" ");
  const { args, env } = (await folderFor(workspace))!;
  const planning = ["plan", "apply", "destroy", "refresh", "import", "console"];
  const exported = {
    ...env,
    ...Object.fromEntries(planning.map((command) => [`TF_CLI_ARGS_${command}`, values])),
  };
  const lines = [
    "#!/bin/sh",
    `PATH=${shellWord(Deno.env.get("PATH") ?? "")}`,
    `[ "$(pwd -P)" = ${shellWord(await Deno.realPath(ROOT))} ] || exec terraform "$@"`,
    'case $1 in -chdir=*) exec terraform "$@" ;; esac', // as tasks do
    ...Object.entries(exported).map(([name, value]) => `export ${name}=${shellWord(value)}`),
    `exec terraform ${args.map(shellWord).join(" ")} "$@"`,
  ];
  const folder = join(LOCAL_FOLDER, workspace, "bin");
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(join(folder, "terraform"), lines.join("\n") + "\n", { mode: 0o755 });
  return folder;
}
