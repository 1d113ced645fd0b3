/** The options of the tasks: their names, their meaning, and how their values are read. */

import { parseArgs } from "node:util";
import { ANYWHERE, denoTask } from "./commands.ts";
import { MOST_CALLS } from "./proxy.ts";
import { toTable, UserError, visible } from "./terminal.ts";

interface Option<T> {
  /** How a value looks; an option without one is a switch. */
  value?: string;
  says: string;
  /** @throws {UserError} the text is no such value */
  read(text: string | undefined): T;
}

/** Events of a backfill at the same time: they keep a core busy. */
const CONCURRENCY = 50;

/** Of dev's page: the same each time, so that a forwarded one can stay. */
const PORT = 8421;

/** Every option of every task. */
export const OPTIONS = {
  env: text("NAME", "in an environment of its own: workspace NAME, variables of NAME.tfvars"),
  local: flag("on this machine's stand-in, not on AWS"),
  yes: flag("do it without asking"),
  code: flag("on AWS too, make the function run what you save, after asking"),
  open: flag("open the page in the browser"),
  port: count("port", `serve the page at port N, ${PORT} by default`, PORT, 65_535),
  json: flag("print JSON"),
  quick: flag("leave out Terraform's comparison of each resource with AWS"),
  keep: flag("leave the files and their rows there"),
  verbose: flag("show the output of Terraform and the others"),
  csv: flag("print CSV for spreadsheets"),
  since: { value: "1h", says: "how far back: 90s, 15m, 2h or 7d", read: toMilliseconds },
  follow: flag("print what is new as it comes, until Ctrl-C"),
  "dry-run": flag("only look; change nothing"),
  limit: count("limit", "print no more than N rows"),
  max: count("max", "replay no more than N events", Infinity),
  key: text("TEXT", "only what is about a key that holds TEXT"),
  failed: flag("only failures"),
  prefix: text("P", "only keys that begin with P", ""),
  concurrency: count(
    "concurrency",
    `at most N invocations at once, ${CONCURRENCY} by default`,
    CONCURRENCY,
    MOST_CALLS,
  ),
  batch: flag("by a job of S3 Batch Operations, on AWS alone"),
  detach: flag("do not wait for the job of --batch"),
  cancel: flag("end the job"),
};

function flag(says: string): Option<boolean> {
  return { says, read: (text) => text !== undefined };
}

function text<Default = undefined>(value: string, says: string, byDefault?: Default) {
  return { value, says, read: (text?: string) => text ?? byDefault as Default };
}

/** Milliseconds of `90s`, `15m`, `2h` or `7d`. */
function toMilliseconds(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const [, count, unit] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  if (count === undefined) {
    throw new UserError(`--since must be like 90s, 15m, 2h or 7d, not "${visible(text)}"`);
  }
  return Number(count) * { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }[unit]!;
}

function count<Default = undefined>(name: string, says: string, byDefault?: Default, most = 1e6) {
  const read = (text?: string) => {
    if (text === undefined) return byDefault as Default;
    const count = Number(text);
    if (/^\d+$/.test(text) && count >= 1 && count <= most) return count;
    throw new UserError(
      `--${name} must be a whole number from 1 to ${most}, not "${visible(text)}"`,
    );
  };
  return { value: "N", says, read };
}

type OptionName = keyof typeof OPTIONS;

/** The options' values, as read from the command line, or by default. */
export type Values = { [Name in OptionName]: ReturnType<(typeof OPTIONS)[Name]["read"]> };

/** What a task takes from the command line. */
export interface Syntax {
  options: OptionName[];
  /** The words that it takes beside its options, as `KEY` or files. */
  words?: {
    /** As a usage line shows them: `KEY`, `[KEY]` or `[FILE...]`. */
    usage: string;
    says: string;
    /** How many it takes: 0 to 1 by default. */
    least?: number;
    most?: number;
  };
}

/** As a usage line shows an option: `[--env NAME]`. */
function toUsage(name: OptionName): string {
  const { value }: Option<unknown> = OPTIONS[name];
  return `[--${name}${value === undefined ? "" : ` ${value}`}]`;
}

/** Everything that a task takes, as a usage line shows it. */
export function usageOf({ options, words }: Syntax): string[] {
  return [...(words ? [words.usage] : []), ...options.map(toUsage)];
}

/** What `deno task NAME --help` prints. */
export function helpOf(name: string, does: string, { options, words }: Syntax): string {
  const rows = [
    ...(words ? [[`  ${words.usage}`, words.says]] : []),
    ...options.map((option) => [`  ${toUsage(option).slice(1, -1)}`, OPTIONS[option].says]),
  ];
  return [
    `usage: ${[denoTask(ANYWHERE, name), ...usageOf({ options, words })].join(" ")}`,
    "",
    `${does}.`,
    ...(rows.length > 0 ? ["", ...toTable(rows)] : []),
  ].join("\n");
}

/**
 * Reads a task's options and words from its arguments.
 *
 * @throws {UserError} an option that the task does not have, or a value that it does not take
 */
export function parseArguments(
  task: string,
  { options, words }: Syntax,
  args: string[],
): { values: Values; words: string[] } {
  const misused = (problem: string) => {
    const takes = usageOf({ options, words }).join(" ") || "no options";
    return new UserError(`${problem}; ${denoTask(ANYWHERE, task)} takes ${takes}`);
  };
  const isSwitch = (name: OptionName) => !("value" in OPTIONS[name]);
  const { values: given, positionals } = parseArgs({
    args,
    options: Object.fromEntries(
      options.map((name) => [name, { type: isSwitch(name) ? "boolean" : "string" } as const]),
    ),
    strict: false,
    allowPositionals: true,
  });
  for (const [word, value] of Object.entries(given)) {
    const name = options.find((name) => name === word);
    if (name === undefined) {
      throw misused(`${word.length > 1 ? "--" : "-"}${visible(word)} is not an option`);
    }
    if (value === "" || isSwitch(name) !== (value === true)) {
      throw misused(`--${name} takes ${isSwitch(name) ? "no" : "a"} value`);
    }
  }
  const { usage = "", least = 0, most = usage === "" ? 0 : 1 } = words ?? {};
  if (positionals.length < least) throw misused(`${usage} is missing`);
  if (positionals.length > most) {
    throw misused(`"${visible(positionals[most])}" is not an option`);
  }
  const texts = given as Record<string, string | undefined>; // true stands for a switch
  const values = Object.entries(OPTIONS).map(([name, { read }]) => [name, read(texts[name])]);
  return { values: Object.fromEntries(values), words: positionals };
}
