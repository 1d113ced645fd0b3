/**
 * The deploy script. Each task is a row of {@link TASKS}, and its implementation is a function below,
 * which calls what is in tasks/. `deno task help` prints the rows.
 */

import { dev } from "./dev/dev.ts";
import { backfillRows, backfillToText } from "./tasks/backfill.ts";
import { writeZip } from "./tasks/build.ts";
import { checkAll } from "./tasks/checks.ts";
import { now } from "./tasks/clients.ts";
import { ANYWHERE, canCopy, denoTask } from "./tasks/commands.ts";
import { demo } from "./tasks/demo.ts";
import { deploy, plan } from "./tasks/deploy.ts";
import { destroy } from "./tasks/destroy.ts";
import { toSentence } from "./tasks/failures.ts";
import { backfillByJob } from "./tasks/job.ts";
import { runAtTerminal, shellCommand } from "./tasks/stand_in.ts";
import { readLog, toLogLines } from "./tasks/logs.ts";
import { helpOf, parseArguments, type Syntax, type Values } from "./tasks/options.ts";
import { replayFailures, replayToText } from "./tasks/replay.ts";
import { readRows, toRowLines } from "./tasks/rows.ts";
import { readSamples, SAMPLES } from "./tasks/samples.ts";
import { handleSignals, interrupted } from "./tasks/signals.ts";
import { readDrift, readStatus, statusToText } from "./tasks/status.ts";
import { NothingDeployedError, openTarget, targetOf, withStack } from "./tasks/target.ts";
import {
  FindingError,
  print,
  printLines,
  say,
  toTable,
  UserError,
  visible,
} from "./tasks/terminal.ts";
import { deployedCode } from "./tasks/terraform.ts";
import { reportToText, rowToText, verifyStack } from "./tasks/verify.ts";
import { explain, keyMeant, whyToText } from "./tasks/why.ts";

/** One task, as usage, README and deno.json show it. */
export interface Task extends Syntax {
  /** What it does, in one sentence. */
  does: string;
  /** What is true after Ctrl-C, if something was changed. `again` is the command as it was typed. */
  afterCtrlC?(again: string): string;
  /** Exit code when it could not do its work; 1 by default. */
  failureCode?: number;
  /** Leaves Ctrl-C to the program that it runs at the terminal. */
  interactive?: boolean;
  /** Its implementation; a number is the exit code. Options that it does not name have their defaults. */
  run(options: Values, words: string[]): Promise<void | number>;
}

/** How far back `logs` reads, and how many rows `rows` shows to people, by default. */
const LOG_SINCE_MS = 15 * 60_000;
const SHOWN_ROWS = 50;

const goesOn = (again: string) => `${again} goes on where this ended`;

export const TASKS: Record<string, Task> = {
  build: {
    does: "Bundle and zip the function",
    options: [],
    run: buildTask,
  },
  plan: {
    does: "Show what deploy would change",
    options: ["env", "local"],
    run: planTask,
  },
  deploy: {
    does: "Build, then create or update everything",
    options: ["env", "local", "yes"],
    afterCtrlC: (again) =>
      `${again} goes on; ${again.replace("task deploy", "task destroy")} removes what is there`,
    run: deployTask,
  },
  verify: {
    does: "Upload real files and check their rows",
    words: { usage: "[FILE...]", says: "your files and folders, not its own", most: Infinity },
    options: ["env", "local", "json", "keep"],
    afterCtrlC: (again) =>
      again.includes("--keep")
        ? "what was uploaded stays"
        : "what was uploaded is removed, and so are the rows",
    run: verifyTask,
  },
  status: {
    does: "Show everything on one screen; fails if something needs attention",
    options: ["env", "local", "json", "quick"],
    failureCode: 2,
    run: statusTask,
  },
  logs: {
    does: "Print the function's log",
    options: ["env", "local", "json", "since", "follow", "key", "failed"],
    run: logsTask,
  },
  rows: {
    does: "Print rows of the table, the newest first",
    words: { usage: "[KEY]", says: "only this key's rows" },
    options: ["env", "local", "json", "csv", "since", "follow", "prefix", "limit"],
    run: rowsTask,
  },
  why: {
    does: "Tell all that is known of one key, and what to do",
    words: { usage: "KEY", says: "the object's key, or s3://BUCKET/KEY", least: 1 },
    options: ["env", "local", "json", "since"],
    run: whyTask,
  },
  replay: {
    does: "Run the failure queue's events again",
    options: ["env", "local", "json", "dry-run", "max", "key"],
    afterCtrlC: goesOn,
    run: replayTask,
  },
  backfill: {
    does: "Record the objects that have no row",
    words: { usage: "[JOB]", says: "a job of --batch, to look at it again" },
    options: [
      ...["env", "local", "json", "prefix", "dry-run", "concurrency"] as const,
      ...["batch", "detach", "cancel"] as const,
    ],
    afterCtrlC: (again) =>
      again.includes("--batch") ? "the job that is named above goes on" : goesOn(again),
    run: backfillTask,
  },
  dev: {
    does: "Watch it on a page, and run what you save within seconds",
    options: ["env", "local", "code", "yes", "open", "port"],
    afterCtrlC: () => "the function's code is what the last line says",
    run: devTask,
  },
  destroy: {
    does: "Empty the bucket, remove everything and prove it",
    options: ["env", "local", "yes"],
    afterCtrlC: goesOn,
    run: destroyTask,
  },
  shell: {
    does: "Run a shell, or the command after --, that reaches the stand-in",
    words: { usage: "[-- COMMAND]", says: "for example: -- terraform output", most: Infinity },
    options: ["env", "local"],
    interactive: true,
    run: shellTask,
  },
  demo: {
    does: "Deploy, verify and destroy on this machine, without AWS",
    options: ["verbose"],
    afterCtrlC: () => "the demo's stand-in is ended, and nothing is left of it",
    run: demo,
  },
  test: {
    does: "Run every check and test",
    options: [],
    afterCtrlC: () => "the test's stand-ins are ended",
    run: checkAll,
  },
};

async function buildTask(): Promise<void> {
  const { zip, sha256 } = await writeZip();
  console.log(`build/lambda.zip  ${zip.length} bytes  SHA-256 ${sha256}`);
}

async function planTask(options: Values): Promise<void> {
  await buildTask();
  await using target = await openTarget(options, { standIn: "start" });
  await plan(target);
}

async function deployTask(options: Values): Promise<void> {
  await buildTask();
  await using target = await openTarget(options, { standIn: "start", exclusive: true });
  const outputs = await deploy(target, { yes: options.yes, show: "whole" });
  for (const [name, value] of Object.entries(outputs)) {
    if (name.startsWith("notification_")) continue; // deploy says what to do with these
    console.log(`${name} = ${typeof value === "string" ? value : JSON.stringify(value)}`);
  }
}

async function verifyTask(options: Values, files: string[]): Promise<void> {
  const { json, keep } = options;
  const areOurs = files.length === 0;
  if (keep && areOurs) throw new UserError("--keep is for files that you name");
  const found = areOurs ? { samples: SAMPLES, leftOut: [] } : await readSamples(files);
  await withStack(options, async (stack, target) => {
    const report = await verifyStack(stack, found, { ...target, keep });
    if (!areOurs && !json) {
      for (const { row } of report.files) if (row) console.log(`${rowToText(row)}\n`);
    }
    print(report, json, reportToText);
    if (!report.ok) throw new FindingError("verify failed: see the problems above");
  });
}

async function statusTask(options: Values): Promise<void> {
  await withStack(options, async (stack, target) => {
    const drift = options.quick ? undefined : await readDrift(target);
    const status = await readStatus(stack, await deployedCode(target.workspace), drift);
    print(status, options.json, statusToText);
    if (!status.ok) throw new FindingError("It needs attention: see the problems above");
  });
}

async function logsTask(options: Values): Promise<void> {
  const { since = LOG_SINCE_MS, follow } = options;
  await withStack(options, async (stack) => {
    const pages = readLog(stack, { sinceMs: now() - since, follow });
    await printLines(toLogLines(pages, options), { follow });
  });
}

async function rowsTask(options: Values, [text]: string[]): Promise<void> {
  const { json, csv, since, follow, prefix } = options;
  if (json && csv) throw new UserError("--json and --csv exclude each other: choose one");
  if (text !== undefined && prefix !== "") {
    throw new UserError("KEY and --prefix exclude each other: choose one");
  }
  const limit = options.limit ?? (json || csv || follow ? Infinity : SHOWN_ROWS);
  await withStack(options, async (stack) => {
    const key = text === undefined ? undefined : await keyMeant(stack, text);
    const sinceMs = since === undefined ? undefined : now() - since;
    const rows = readRows(stack, { key, prefix, sinceMs, limit, follow });
    await printLines(toRowLines(rows, options), { follow });
  });
}

async function whyTask({ json, since, ...options }: Values, [text]: string[]): Promise<void> {
  await withStack(options, async (stack) => {
    const why = await explain(stack, await keyMeant(stack, text), since);
    print(why, json, whyToText);
    if (!why.ok) throw new FindingError("It needs attention: see above");
  });
}

async function replayTask({ json, max, key, ...options }: Values): Promise<void> {
  const only = key === undefined
    ? undefined
    : (keys: string[]) => keys.some((each) => each.includes(key));
  await withStack(options, async (stack) => {
    const report = await replayFailures(stack, { dryRun: options["dry-run"], max, only });
    print(report, json, replayToText);
    interrupted.throwIfAborted();
    if (!report.ok) throw new FindingError("Some events failed again: see above");
  }, { exclusive: true });
}

async function backfillTask(options: Values, [job]: string[]): Promise<void> {
  const { json, prefix, "dry-run": dryRun, concurrency, batch, detach, cancel } = options;
  if (batch || detach || cancel || job !== undefined) {
    return await backfillByJob(options, { job, prefix, dryRun, batch, detach, cancel, json });
  }
  await withStack(options, async (stack) => {
    const report = await backfillRows(stack, { prefix, dryRun, concurrency });
    print(report, json, backfillToText);
    interrupted.throwIfAborted();
    if (!report.ok) throw new FindingError("Some objects still have no row: see above");
  });
}

/** On the stand-in, deploys first if nothing is there. */
async function devTask(options: Values): Promise<void> {
  const watch = () => withStack(options, (stack, target) => dev(stack, target, options));
  try {
    await watch();
  } catch (error) {
    if (!options.local || !(error instanceof NothingDeployedError)) throw error;
    await deployTask({ ...options, yes: true });
    await watch();
  }
}

async function destroyTask(options: Values): Promise<void> {
  try {
    await using target = await openTarget(options, { standIn: "clear", exclusive: true });
    const proof = await destroy(target, options);
    if (proof !== undefined) console.log(proof);
  } catch (error) {
    if (!(error instanceof NothingDeployedError)) throw error;
    say(`Nothing is deployed ${targetOf(options).place}: there is nothing to destroy`);
  }
}

async function shellTask(options: Values, command: string[]): Promise<number> {
  if (!options.local) {
    throw new UserError("shell is for the stand-in: add --local; your own shell reaches AWS");
  }
  const shell = shellCommand(Deno.env.get("SHELL"));
  let code = 0;
  await withStack(options, async ({ outputs }, { workspace }) => {
    say(`Bucket ${outputs.s3_bucket_name}, table ${outputs.dynamodb_table_name}`);
    if (command.length === 0) say(`${shell[0]} acts on the stand-in until you leave it`);
    code = await runAtTerminal(workspace, command.length > 0 ? command : shell);
  });
  return code;
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

/** Runs the task that the arguments name, and returns the exit code. */
export async function main([name = "help", ...args]: string[]): Promise<number> {
  const task = Object.hasOwn(TASKS, name) ? TASKS[name] : undefined;
  const own = args.includes("--") ? args.slice(0, args.indexOf("--")) : args;
  const asksForHelp = own.some((arg) => arg === "--help" || arg === "-h");
  if (["help", "--help", "-h"].includes(name) || (task && asksForHelp)) {
    console.log(task ? helpOf(name, task.does, task) : usage());
    return 0;
  }
  if (task === undefined) {
    say(`"${visible(name)}" is not a task\n${usage()}`);
    return 1;
  }
  try {
    const { values, words } = parseArguments(name, task, args);
    if (!task.interactive) handleSignals();
    return await task.run(values, words) ?? 0;
  } catch (error) {
    if (interrupted.aborted) {
      const again = args.every(canCopy) ? denoTask(ANYWHERE, name, ...args) : "the same command";
      say(`Interrupted: ${task.afterCtrlC?.(again) ?? "nothing was changed"}`);
      return 130;
    }
    const sentence = toSentence(error, Deno.env.toObject());
    if (sentence === undefined) say(error instanceof Error ? error.stack! : String(error));
    say(sentence ?? `The task ${name} broke off by a fault of its own, shown above: report it`);
    return error instanceof FindingError ? 1 : task.failureCode ?? 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
