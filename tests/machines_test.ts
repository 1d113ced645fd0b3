/** The tasks in shells and on machines that are not like the one they were written on. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { namesIn } from "../tasks/files.ts";
import { ROOT, run } from "../tasks/shell.ts";
import { init } from "../tasks/terraform.ts";
import { findPython, requirePrograms } from "../tasks/tools.ts";
import { replaceEnvironment } from "./fixtures.ts";
import { listProcesses, runProgram, runTask } from "./run_task.ts";

/** An environment that nobody has, where nothing is deployed. */
const NOWHERE = ["--env", "never-deployed"];

/** Each gets a folder for programs that hide the real ones, and the real terraform. */
const MACHINES: Record<string, (given: { bin: string; terraform: string }) => Promise<void>> = {
  "programs that are missing are named, and a Python that does not fit": async ({ bin }) => {
    const [python, path] = [await which("python3"), Deno.env.get("PATH")!];
    const cases = [
      ["sys.version_info = (3, 8)", /^python3 in PATH is version 3\.8: install Python 3\.10 or/],
      [
        "importlib.util.find_spec = lambda name: name != 'ensurepip'", // as Debian's
        /^python3 in PATH lacks venv or ensurepip: install the package python3-venv \(or python3/,
      ],
      ["sys.exit(127)", /^python3 in PATH does not start; if it is a version manager's/],
    ] as const;
    using _path = replaceEnvironment({ PATH: bin });
    const { message } = await requirePrograms({ standIn: true })
      .then(() => assert.fail(), (error) => error);
    assert.match(message, /^Not in PATH: terraform, openssl\. Install Terraform 1\.9 /);
    assert.match(message, /; openssl, the package of that name/);
    assert.ok(message.endsWith(bin), message); // the folders of PATH
    assert.match((await findPython()).lacks!, /^Not in PATH: python3\. Install Python 3\.10 or /);
    for (const [change, sentence] of cases) {
      const program = `import sys, importlib.util; ${change}; exec(sys.argv[1])`;
      await writeProgram(bin, "python3", `PATH=${path}\n${python} -c "${program}" "$3"`);
      const { program: found, lacks } = await findPython();
      assert.equal(found, undefined);
      assert.match(lacks ?? "", sentence);
    }
  },
  "an esbuild that does not run, as of another machine's node_modules": async ({ bin }) => {
    await writeProgram(bin, "esbuild", "exit 1");
    const { last } = await runWith(["build"], { ESBUILD_BINARY_PATH: join(bin, "esbuild") });
    assert.equal(last, "esbuild does not run here; remove node_modules, then run this again");
  },
  "a shim that finds no version is explained, and a wrapper that prints": async (given) => {
    const noVersion = // in a new clone the first call is `init`
      /^terraform (init|output) failed with exit code 12[67]: .* \("No version is set"\); if it is a version manager's \(tfenv, asdf, mise, pyenv\), choose/;
    const cases: [program: string, last: RegExp][] = [
      ['echo "No version is set" >&2; exit 126', noVersion],
      ['echo "No version is set" >&2; exit 127', noVersion],
      [
        `echo "Welcome"\nexec ${given.terraform} "$@"`,
        /it begins with "Welcome"; does a wrapper around terraform print to/,
      ],
    ];
    for (const [program, expected] of cases) {
      await writeProgram(given.bin, "terraform", program);
      assert.match((await runWith(["status", ...NOWHERE], inPath(given.bin))).last, expected);
    }
  },
  "a folder is initialised again when Terraform asks for it": async ({ bin, terraform }) => {
    const [calls, data] = [join(bin, "calls"), join(bin, "data")];
    // Terraform itself, but that its init downloads nothing.
    const linked = `ln -s '${ROOT}/.terraform/providers' ${data}/providers`;
    const program = `printf "%s " "$1" >>${calls}
[ "$1" = init ] && exec ${linked}
exec ${terraform} "$@"`;
    await writeProgram(bin, "terraform", program);
    const cases = [
      { task: ["status"], expected: "output init output " },
      { task: ["destroy", "--yes"], expected: "state init state " }, // in colours
    ];
    for (const { task, expected } of cases) {
      await Deno.mkdir(data);
      const env = { ...inPath(bin), TF_DATA_DIR: data };
      const { last } = await runWith([...task, ...NOWHERE], env);
      assert.match(last, /^Nothing is deployed on AWS in environment never-deployed/);
      assert.equal(await Deno.readTextFile(calls), expected);
      await Deno.remove(calls);
      await Deno.remove(data, { recursive: true });
    }
  },
  "a folder of providers on this machine is used": async ({ bin }) => {
    const calls = join(bin, "calls");
    await writeProgram(bin, "terraform", `echo "$@" >>${calls}`);
    await Deno.mkdir(join(bin, "plugins/registry.terraform.io/hashicorp/aws"), { recursive: true });
    using _environment = replaceEnvironment({
      ...inPath(bin),
      HOME: bin,
      TF_DATA_DIR: join(bin, "data"),
    });
    await init();
    const call = `init -no-color -input=false -plugin-dir=${join(bin, "plugins")}\n`;
    assert.equal(await Deno.readTextFile(calls), call);
    await Deno.remove(calls);
  },
  "a task for AWS does not run in the stand-in's shell": async () => {
    const { code, last } = await runWith(["deploy", "--yes"], { TF_WORKSPACE: "local-x" });
    assert.equal(code, 1);
    assert.match(last, /^This shell acts on the stand-in: add --local, or leave it/);
  },
  "a refused task leaves no folder of an environment": async ({ bin }) => {
    // Terraform makes it for any workspace that it is asked about.
    const folder = 'mkdir -p "terraform.tfstate.d/$TF_WORKSPACE"';
    await writeProgram(bin, "terraform", `[ $TF_WORKSPACE = default ] || { ${folder}; exit 1; }`);
    assert.equal((await runWith(["status", ...NOWHERE], inPath(bin))).code, 2);
    const names = await namesIn(join(ROOT, "terraform.tfstate.d"));
    assert.equal(names.includes("never-deployed"), false);
  },
};

Deno.test("a task ends with the sentence that helps, on any machine", async (t) => {
  const bin = await Deno.makeTempDir();
  const terraform = await which("terraform");
  try {
    for (const [name, step] of Object.entries(MACHINES)) {
      await t.step(name, async () => await step({ bin, terraform }));
    }
  } finally {
    await Deno.remove(bin, { recursive: true });
  }
});

function inPath(folder: string): Record<string, string> {
  return { PATH: `${folder}:${Deno.env.get("PATH")}` };
}

async function writeProgram(folder: string, name: string, text: string): Promise<void> {
  await Deno.writeTextFile(join(folder, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
}

async function which(name: string): Promise<string> {
  return (await run("sh", ["-c", `command -v ${name}`], { quiet: true })).trim();
}

/** Runs a task with these variables too; `last` is the last line of its standard error. */
async function runWith(words: string[], env: Record<string, string>) {
  const { code, stderr } = await runTask(words, { ...Deno.env.toObject(), ...env });
  return { code, stderr, last: stderr.trimEnd().split("\n").at(-1)! };
}

Deno.test("Ctrl-C ends calls that wait and what programs leave behind, but no tidying up", async () => {
  // A background job of sh ignores SIGINT, and holds the output open.
  const program = `
    import { endAtCtrlC } from "./tasks/clients.ts";
    import { run } from "./tasks/shell.ts";
    import { handleSignals, interrupted } from "./tasks/signals.ts";
    handleSignals();
    const hangs = (signal) => new Promise((resolve, reject) => {
      signal?.addEventListener("abort", () => reject(signal.reason));
      setTimeout(resolve, 8000, "waited 8 s");
    });
    const client = { send: (_, { abortSignal } = {}) => hangs(abortSignal) };
    endAtCtrlC(client);
    const ended = (work) => work.then((done) => done.trim(), ({ name }) => name);
    const before = [
      run("sh", ["-c", "sleep 300 & echo job $!; wait"]),
      client.send({}, { abortSignal: new AbortController().signal }),
    ];
    await new Promise((resolve) => interrupted.addEventListener("abort", resolve));
    const last = (options) => run("echo", ["ran"], { quiet: true, ...options });
    const after = [client.send({}), last({}), last({ always: true })];
    console.log((await Promise.all([...before, ...after].map(ended))).join(", "));
    Deno.exit(0);`;
  const startMs = performance.now();
  let job = 0;
  const words = ["eval", "--no-check", program];
  const environment = Deno.env.toObject();
  const { stdout, stderr } = await runProgram(
    Deno.execPath(),
    words,
    ROOT,
    environment,
    (text, child) => {
      if (job > 0) return;
      job = Number(/^job (\d+)$/m.exec(text)?.[1] ?? 0);
      if (job > 0) child.kill("SIGINT");
    },
  );
  const expected = "AbortError, AbortError, waited 8 s, AbortError, ran\n";
  assert.equal(stdout, expected, stderr);
  assert.ok(performance.now() - startMs < 60_000, "it waited for the job's own end");
  const left = (await listProcesses()).find(({ pid }) => pid === job);
  assert.doesNotMatch(left?.command ?? "", /^sleep/);
});
