/** What the tasks say of themselves, from one table, and what the two lock files have. */

import assert from "node:assert/strict";
import { main, TASKS } from "../tasks.ts";
import { OPTIONS, usageOf } from "../tasks/options.ts";
import { FindingError, UserError } from "../tasks/terminal.ts";
import { progressOf, read } from "./fixtures.ts";

/** The SDK writes a refreshed SSO token where the aws CLI keeps it: else Deno would ask for permission. */
const PERMISSIONS = '--allow-read "--allow-write=.,$HOME/.aws/sso/cache" ' +
  "--allow-net --allow-env --allow-sys --allow-run";

const TASK_LIST = Object.entries(TASKS);

Deno.test("the tasks are the same everywhere", async (t) => {
  await t.step("in deno.json, all with one list of permissions", inDenoJson);
  await t.step("in README's table", inReadme);
  await t.step("in `help`, with and without a task, and -h: exit code 0", inHelp);
  await t.step("`help` tells the defaults of numbers, which have a largest value", () => {
    for (const [name, most] of [["concurrency", 100], ["port", 65_535]] as const) {
      const { says, read } = OPTIONS[name];
      assert.match(says, new RegExp(` ${read(undefined)} by default`));
      assert.equal(read(String(most)), most);
      const refused = new RegExp(`a whole number from 1 to ${most}, not "${most + 1}"`);
      assert.throws(() => read(String(most + 1)), refused);
    }
  });
  await t.step("a word that is none of them is refused", refusesOthers);
});

Deno.test("status exits with 1 for what it found, and with 2 for whatever kept it", async () => {
  const cases: [string, () => Promise<void>, number][] = [
    ["all is well", () => Promise.resolve(), 0],
    ["a finding", () => Promise.reject(new FindingError("found")), 1],
    ["a sentence", () => Promise.reject(new UserError("none")), 2],
    ["a fault of its own", () => Promise.reject(new TypeError("oh")), 2],
    ["no error at all", () => Promise.reject("oh"), 2],
  ];
  const { ...status } = TASKS.status;
  try {
    for (const [name, run, expected] of cases) {
      Object.assign(TASKS.status, { run, interactive: true }); // without signal handlers
      assert.equal((await tasksTs("status")).code, expected, name);
    }
  } finally {
    delete TASKS.status.interactive;
    Object.assign(TASKS.status, status);
  }
});

Deno.test("a long result ends without an error where nobody reads it, as after `| head`", async () => {
  const script = `
    import { printLines } from "${import.meta.resolve("../tasks/terminal.ts")}";
    async function* endless() {
      for (;;) yield "a row";
    }
    await printLines(endless(), { follow: false });`;
  const args = ["eval", "--ext=ts", script];
  const child = new Deno.Command(Deno.execPath(), { args, stdout: "piped", stderr: "piped" })
    .spawn();
  const reader = child.stdout.getReader();
  await reader.read();
  await reader.cancel();
  assert.equal(await new Response(child.stderr).text(), "");
  assert.equal((await child.status).code, 0);
});

async function inDenoJson() {
  const { tasks: actual } = JSON.parse(await read("deno.json"));
  const expected = Object.fromEntries(TASK_LIST.map(([name, task]) => [name, {
    description: [task.does, ...usageOf(task)].join(" "),
    command: `deno run ${PERMISSIONS} tasks.ts ${name}`,
  }]));
  const help = {
    description: "Print the tasks and what they do",
    command: `deno run ${PERMISSIONS} tasks.ts help`,
  };
  assert.deepEqual(actual, { ...expected, help });
}

async function inReadme() {
  const names = TASK_LIST.map(([name]) => `\`${name}\``);
  const cells = (await read("README.md")).split("\n")
    .filter((line) => /^\| `\w+` +\|.*\|$/.test(line))
    .map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()))
    .filter(([name]) => names.includes(name));
  assert.deepEqual(cells, TASK_LIST.map(([name, { does }]) => [`\`${name}\``, does]));
}

async function inHelp() {
  const lists = [await tasksTs(), await tasksTs("help"), await tasksTs("--help")];
  for (const { code, stdout } of lists) {
    assert.equal(code, 0);
    for (const [name, { does }] of TASK_LIST) {
      assert.match(stdout, new RegExp(`^  ${name} +${RegExp.escape(does)}$`, "m"));
    }
    assert.ok(stdout.split("\n").every((line) => line.length <= 80), stdout);
  }
  for (const [name, task] of TASK_LIST) {
    const { code, stdout } = await tasksTs(name, "-h");
    assert.equal(code, 0);
    assert.ok(stdout.includes(`\n${task.does}.`), stdout);
    assert.ok(stdout.startsWith(["usage: deno task", name, ...usageOf(task)].join(" ")), stdout);
  }
}

async function refusesOthers() {
  const cases = [
    [["verify", "--evn", "prod"], "--evn is not an option;"],
    [["verify", "--follow"], "--follow is not an option;"],
    [["verify", "-e"], "-e is not an option;"],
    [["build", "now"], '"now" is not an option;'],
    [["verify", "--env"], "--env takes a value;"],
    [["verify", "--json=yes"], "--json takes no value;"],
    [["logs", "--since", "1y"], '--since must be like 90s, 15m, 2h or 7d, not "1y"'],
    [["replay", "--max", "0"], '--max must be a whole number from 1 to 1000000, not "0"'],
    [["deplyo"], '"deplyo" is not a task\n'],
  ] as const;
  for (const [args, sentence] of cases) {
    const { code, stderr } = await tasksTs(...args);
    assert.equal(code, 1);
    assert.ok(stderr.startsWith(sentence), stderr);
  }
}

/** Runs a task in this process, and returns what it printed. */
async function tasksTs(...args: string[]) {
  const { log } = console;
  const stdout: string[] = [];
  let code = 0;
  try {
    console.log = (line: string) => stdout.push(line);
    const stderr = await progressOf(async () => code = await main(args));
    return { code, stdout: stdout.join("\n"), stderr };
  } finally {
    console.log = log;
  }
}

interface Lock {
  specifiers: Record<string, string>;
  npm: Record<string, { integrity: string }>;
}

Deno.test("deno.lock has what deno.json names, and nothing that only tests need", async () => {
  const { specifiers }: Lock = JSON.parse(await read("deno.lock"));
  const { imports } = JSON.parse(await read("deno.json"));
  assert.deepEqual(Object.keys(specifiers).sort(), Object.values(imports).sort());
});

Deno.test("the tests' lock file has the same packages, and more", async () => {
  const own: Lock = JSON.parse(await read("deno.lock"));
  const ofTests: Lock = JSON.parse(await read("tests/deno.lock"));
  for (const part of ["specifiers", "npm"] as const) {
    const same = Object.keys(own[part]).map((name) => [name, ofTests[part][name]]);
    assert.deepEqual(Object.fromEntries(same), own[part]);
  }
  assert.ok(Object.keys(ofTests.npm).length > Object.keys(own.npm).length);
});
