/**
 * The deploy script. Each task is a row of {@link TASKS} and a story below it; what the stories call
 * is in tasks/. `deno task help` prints the rows.
 */

import { backfillRows, backfillToText } from "./tasks/backfill.ts";
import { writeZip } from "./tasks/build.ts";
import { readClock } from "./tasks/clock.ts";
import { ANYWHERE, canCopy, denoTask } from "./tasks/commands.ts";
import { deploy, plan } from "./tasks/deploy.ts";
import { destroy } from "./tasks/destroy.ts";
import { readDrift } from "./tasks/drift.ts";
import { toSentence } from "./tasks/failures.ts";
import { keyMeant } from "./tasks/key.ts";
import {
  followRows,
  readRows,
  toCsvLines,
  toFollowedLines,
  toJsonLines,
  toTableLines,
} from "./tasks/rows.ts";
import { runAtTerminal, shellCommand } from "./tasks/local_shell.ts";
import { followLog, readLog, toLogLines } from "./tasks/logs.ts";
import {
  type OptionName,
  OPTIONS,
  parseArguments,
  suggestion,
  type Syntax,
  toUsage,
  usageOf,
  type Values,
} from "./tasks/options.ts";
import { replayFailures, replayToText } from "./tasks/replay.ts";
import { readSamples, SAMPLES } from "./tasks/samples.ts";
import { handleSignals, interrupted } from "./tasks/signals.ts";
import { readStatus, statusToText } from "./tasks/status.ts";
import { NothingDeployedError, openTarget, targetOf, withStack } from "./tasks/target.ts";
import {
  FindingError,
  print,
  printLine,
  say,
  toTable,
  UserError,
  visible,
} from "./tasks/terminal.ts";
import { deployedCode } from "./tasks/terraform.ts";
import { reportToText, rowToText, verifyStack } from "./tasks/verify.ts";
import { explain, LONG_MS, MOST_MS, whyToText } from "./tasks/why.ts";

/** One task, as usage, README and deno.json show it. */
export interface Task<Name extends OptionName = OptionName> extends Syntax<Name> {
  /** What it does, in one sentence. */
  does: string;
  /** What is true after Ctrl-C. `again` is the command as it was typed. */
  afterCtrlC(again: string): string;
  /** Exit code when it could not do its work; 1 by default. */
  failureCode?: number;
  /** Leaves Ctrl-C to the program that it runs at the terminal. */
  interactive?: boolean;
  /** Its story; a number is the exit code. */
  run(options: Values<Name>, words: string[]): Promise<void | number>;
}

/** How far back `logs` and `why` read, and how many rows `rows` shows to people, by default. */
const LOG_SINCE_MS = 15 * 60_000;
const SHOWN_ROWS = 50;
const WHY_SINCE_MS = 7 * 86_400_000;

const goesOn = (again: string) => `${again} goes on where this ended`;
const unchanged = () => "nothing was changed";

export const TASKS = {
  build: task({
    does: "Bundle and zip the function",
    options: [],
    afterCtrlC: unchanged,
    run: buildTask,
  }),
  plan: task({
    does: "Show what deploy would change",
    options: ["env", "local"],
    afterCtrlC: unchanged,
    run: planTask,
  }),
  deploy: task({
    does: "Build, then create or update everything",
    options: ["env", "local", "yes"],
    afterCtrlC: (again) =>
      `${again} goes on; ${again.replace("task deploy", "task destroy")} removes what is there`,
    run: deployTask,
  }),
  verify: task({
    does: "Upload real files and check their rows",
    words: {
      usage: "[FILE...]",
      says: "your files and folders, not its own eight files",
      least: 0,
      most: Infinity,
    },
    options: ["env", "local", "json", "keep"],
    afterCtrlC: (again) =>
      again.includes("--keep")
        ? "what was uploaded stays"
        : "what was uploaded is removed, and so are the rows",
    run: verifyTask,
  }),
  status: task({
    does: "Show everything on one screen; fails if something needs attention",
    options: ["env", "local", "json", "quick"],
    afterCtrlC: unchanged,
    failureCode: 2,
    run: statusTask,
  }),
  logs: task({
    does: "Print the function's log",
    options: ["env", "local", "json", "since", "follow", "key", "failed"],
    afterCtrlC: unchanged,
    run: logsTask,
  }),
  rows: task({
    does: "Print rows of the table, the newest first",
    words: { usage: "[KEY]", says: "only this key's rows", least: 0, most: 1 },
    options: ["env", "local", "json", "csv", "since", "follow", "prefix", "limit"],
    afterCtrlC: unchanged,
    run: rowsTask,
  }),
  why: task({
    does: "Tell all that is known of one key, and what to do",
    words: { usage: "KEY", says: "the object's key, or s3://BUCKET/KEY", least: 1, most: 1 },
    options: ["env", "local", "json", "since"],
    afterCtrlC: unchanged,
    run: whyTask,
  }),
  replay: task({
    does: "Run the failure queue's events again",
    options: ["env", "local", "json", "dry-run", "max", "key"],
    afterCtrlC: goesOn,
    run: replayTask,
  }),
  backfill: task({
    does: "Record the objects that have no row",
    words: { usage: "[JOB]", says: "a job of --batch, to look at it again", least: 0, most: 1 },
    options: [
      ...["env", "local", "json", "prefix", "dry-run", "concurrency"] as const,
      ...["batch", "detach", "cancel"] as const,
    ],
    afterCtrlC: (again) =>
      again.includes("--batch") ? "the job that is named above goes on" : goesOn(again),
    run: backfillTask,
  }),
  dev: task({
    does: "Watch it on a page, and run what you save within seconds",
    options: ["env", "local", "code", "yes", "open", "port"],
    afterCtrlC: () => "the function's code is what the last line says",
    run: devTask,
  }),
  destroy: task({
    does: "Empty the bucket, remove everything and prove it",
    options: ["env", "local", "yes"],
    afterCtrlC: goesOn,
    run: destroyTask,
  }),
  shell: task({
    does: "Run a shell, or the command after --, that reaches the stand-in",
    words: {
      usage: "[-- COMMAND]",
      says: "for example: -- terraform output",
      least: 0,
      most: Infinity,
    },
    options: ["env", "local"],
    afterCtrlC: unchanged,
    interactive: true,
    run: shellTask,
  }),
  demo: task({
    does: "Deploy, verify and destroy on this machine, without AWS",
    options: ["verbose"],
    afterCtrlC: () => "the demo's stand-in is ended, and nothing is left of it",
    run: demoTask,
  }),
  test: task({
    does: "Run every check and test",
    options: [],
    afterCtrlC: () => "the test's stand-ins are ended",
    run: testTask,
  }),
};

async function buildTask(): Promise<void> {
  const { zip, sha256 } = await writeZip();
  console.log(`build/lambda.zip  ${zip.length} bytes  SHA-256 ${sha256}`);
}

async function planTask(where: Values<"env" | "local">): Promise<void> {
  await buildTask();
  await using target = await openTarget(where, { standIn: "start" });
  await plan(target);
}

async function deployTask({ yes, ...where }: Values<"env" | "local" | "yes">): Promise<void> {
  await buildTask();
  await using target = await openTarget(where, { standIn: "start", exclusive: true });
  const outputs = await deploy(target, { yes, show: "whole" });
  for (const [name, value] of Object.entries(outputs)) console.log(`${name} = ${value}`);
}

async function verifyTask(
  { json, keep, ...where }: Values<"env" | "local" | "json" | "keep">,
  files: string[],
): Promise<void> {
  if (keep && files.length === 0) throw new UserError("--keep is for files that you name");
  const { samples, leftOut } = files.length > 0
    ? await readSamples(files)
    : { samples: SAMPLES, leftOut: [] };
  await withStack(where, async (stack, target) => {
    const report = await verifyStack(stack, samples, { ...target, keep, leftOut });
    if (files.length > 0 && !json) {
      for (const { row } of report.files) if (row) console.log(`${rowToText(row)}\n`);
    }
    print(report, json, reportToText);
    if (!report.ok) throw new FindingError("verify failed: see the problems above");
  });
}

async function statusTask(
  { json, quick, ...where }: Values<"env" | "local" | "json" | "quick">,
): Promise<void> {
  await withStack(where, async (stack, target) => {
    const drift = quick ? undefined : await readDrift(target);
    const status = await readStatus(stack, await deployedCode(target.workspace), drift);
    print(status, json, statusToText);
    if (!status.ok) throw new FindingError("It needs attention: see the problems above");
  });
}

async function logsTask(
  { json, since, follow, key, failed, ...where }: Values<
    "env" | "local" | "json" | "since" | "follow" | "key" | "failed"
  >,
): Promise<void> {
  await withStack(where, async (stack) => {
    const now = await readClock(stack);
    const sinceMs = now() - (since ?? LOG_SINCE_MS);
    const { logs, outputs: { log_group_name } } = stack;
    const pages = follow
      ? followLog(logs, log_group_name, { sinceMs, now })
      : readLog(logs, log_group_name, sinceMs);
    await printLines(toLogLines(pages, { key, failed, json }), { follow });
  });
}

async function rowsTask(
  { json, csv, since, follow, prefix, limit, ...where }: Values<
    "env" | "local" | "json" | "csv" | "since" | "follow" | "prefix" | "limit"
  >,
  [text]: string[],
): Promise<void> {
  if (json && csv) throw new UserError("--json and --csv exclude each other: choose one");
  if (text !== undefined && prefix !== "") {
    throw new UserError("KEY and --prefix exclude each other: choose one");
  }
  const most = limit ?? (json || csv || follow ? Infinity : SHOWN_ROWS);
  await withStack(where, async (stack) => {
    const key = text === undefined ? undefined : await keyMeant(stack, text);
    const now = await readClock(stack);
    const sinceMs = since === undefined ? undefined : now() - since;
    const wanted = { key, prefix, limit: most, now };
    const rows = follow
      ? followRows(stack, { ...wanted, sinceMs: sinceMs ?? now() })
      : readRows(stack, { ...wanted, sinceMs });
    const toText = (all: typeof rows) =>
      follow ? toFollowedLines(all, now) : toTableLines(all, now());
    const toCsv = (all: typeof rows) => toCsvLines(all, { atTerminal: Deno.stdout.isTerminal() });
    await printLines(json ? toJsonLines(rows) : csv ? toCsv(rows) : toText(rows), { follow });
  });
}

/** Prints lines as they come, until nobody reads them; Ctrl-C is how following ends. */
async function printLines(
  lines: AsyncIterable<string>,
  { follow }: { follow: boolean },
): Promise<void> {
  try {
    for await (const line of lines) if (!await printLine(line)) return;
  } catch (error) {
    if (!follow || !interrupted.aborted) throw error;
  }
}

async function whyTask(
  { json, since, ...where }: Values<"env" | "local" | "json" | "since">,
  [text]: string[],
): Promise<void> {
  await withStack(where, async (stack) => {
    const now = await readClock(stack);
    const key = await keyMeant(stack, text);
    const sinceMs = now() - (since ?? WHY_SINCE_MS);
    const logMs = since === undefined ? MOST_MS : LONG_MS;
    const why = await explain(stack, key, { sinceMs, now, logMs });
    print(why, json, whyToText);
    if (!why.ok) throw new FindingError("It needs attention: see above");
  });
}

async function replayTask(
  { json, max, "dry-run": dryRun, key, ...where }: Values<
    "env" | "local" | "json" | "dry-run" | "max" | "key"
  >,
): Promise<void> {
  const only = key === undefined
    ? undefined
    : (keys: string[]) => keys.some((each) => each.includes(key));
  await withStack(where, async (stack) => {
    const report = await replayFailures(stack, { dryRun, max, only });
    print(report, json, replayToText);
    interrupted.throwIfAborted();
    if (!report.ok) throw new FindingError("Some events failed again: see above");
  }, { exclusive: true });
}

async function backfillTask(
  { json, prefix, "dry-run": dryRun, concurrency, batch, detach, cancel, ...where }: Values<
    "env" | "local" | "json" | "prefix" | "dry-run" | "concurrency" | "batch" | "detach" | "cancel"
  >,
  [job]: string[],
): Promise<void> {
  if (batch || detach || cancel || job !== undefined) {
    const { backfillByJob } = await import("./tasks/job.ts");
    return await backfillByJob(where, { job, prefix, dryRun, batch, detach, cancel, json });
  }
  await withStack(where, async (stack) => {
    const report = await backfillRows(stack, { prefix, dryRun, concurrency });
    print(report, json, backfillToText);
    interrupted.throwIfAborted();
    if (!report.ok) throw new FindingError("Some objects still have no row: see above");
  });
}

/** On the stand-in, deploys first if nothing is there. */
async function devTask(
  { open, port, code, yes, ...where }: Values<"env" | "local" | "code" | "yes" | "open" | "port">,
): Promise<void> {
  const { dev } = await import("./dev/dev.ts");
  const watch = () =>
    withStack(where, (stack, target) => dev(stack, target, { open, port, code, yes }));
  try {
    await watch();
  } catch (error) {
    if (!where.local || !(error instanceof NothingDeployedError)) throw error;
    await deployTask({ ...where, yes: true });
    await watch();
  }
}

async function destroyTask({ yes, ...where }: Values<"env" | "local" | "yes">): Promise<void> {
  try {
    await using target = await openTarget(where, { standIn: "clear", exclusive: true });
    const proof = await destroy(target, { yes });
    if (proof !== undefined) console.log(proof);
  } catch (error) {
    if (!(error instanceof NothingDeployedError)) throw error;
    say(`Nothing is deployed ${targetOf(where).place}: there is nothing to destroy`);
  }
}

async function shellTask(
  where: Values<"env" | "local">,
  command: string[],
): Promise<number> {
  if (!where.local) {
    throw new UserError("shell is for the stand-in: add --local; your own shell reaches AWS");
  }
  const shell = shellCommand(Deno.env.get("SHELL"));
  let code = 0;
  await withStack(where, async ({ outputs }, { workspace }) => {
    say(`Bucket ${outputs.s3_bucket_name}, table ${outputs.dynamodb_table_name}`);
    if (command.length === 0) say(`${shell[0]} acts on the stand-in until you leave it`);
    code = await runAtTerminal(workspace, command.length > 0 ? command : shell);
  });
  return code;
}

async function demoTask({ verbose }: Values<"verbose">): Promise<void> {
  const { demo } = await import("./tasks/demo.ts");
  await demo({ verbose });
}

async function testTask(): Promise<void> {
  const { checkAll } = await import("./tasks/checks.ts");
  await checkAll();
}

/** Gives a task's story exactly the options that the task names. */
function task<Name extends OptionName>(task: Task<Name>): Task {
  return task as unknown as Task;
}

/** What `deno task help` prints: every task, every option. */
export function usage(): string {
  const tasks = Object.entries(TASKS).map(([name, { does }]) => [`  ${name}`, does]);
  const any = denoTask(ANYWHERE, "NAME");
  return [
    `usage: ${any} [options]; ${any} --help shows a task's options`,
    "",
    ...toTable(tasks),
  ].join("\n");
}

/** What `deno task NAME --help` prints. */
function helpOf(name: string, task: Task): string {
  const { does, options, words } = task;
  const rows = [
    ...(words ? [[`  ${words.usage}`, words.says]] : []),
    ...options.map((option) => [`  ${toUsage(option).slice(1, -1)}`, OPTIONS[option].says]),
  ];
  return [
    `usage: ${[denoTask(ANYWHERE, name), ...usageOf(task)].join(" ")}`,
    "",
    `${does}.`,
    ...(rows.length > 0 ? ["", ...toTable(rows)] : []),
  ].join("\n");
}

/** Runs the task that the arguments name, and returns the exit code. */
export async function main([name = "help", ...args]: string[]): Promise<number> {
  const task = Object.hasOwn(TASKS, name) ? TASKS[name as keyof typeof TASKS] : undefined;
  const own = args.includes("--") ? args.slice(0, args.indexOf("--")) : args;
  const asksForHelp = own.some((arg) => arg === "--help" || arg === "-h");
  if (["help", "--help", "-h"].includes(name) || (task && asksForHelp)) {
    console.log(task ? helpOf(name, task) : usage());
    return 0;
  }
  if (task === undefined) {
    say(`"${visible(name)}" is not a task${suggestion(name, Object.keys(TASKS))}\n${usage()}`);
    return 1;
  }
  try {
    const { values, words } = parseArguments(name, task, args);
    if (!task.interactive) handleSignals();
    return await task.run(values, words) ?? 0;
  } catch (error) {
    if (interrupted.aborted) {
      const again = args.every(canCopy) ? denoTask(ANYWHERE, name, ...args) : "the same command";
      say(`Interrupted: ${task.afterCtrlC(again)}`);
      return 130;
    }
    const sentence = toSentence(error, Deno.env.toObject());
    if (sentence === undefined) say(error instanceof Error ? error.stack! : String(error));
    say(sentence ?? `The task ${name} broke off by a fault of its own, shown above: report it`);
    return error instanceof FindingError ? 1 : task.failureCode ?? 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
