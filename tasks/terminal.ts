/** What people see at a terminal: progress, questions, results, tables, escaped control characters. */

import { interrupted } from "./signals.ts";

/** A failure that the user can act on: printed as its message alone, without a stack. */
export class UserError extends Error {
  override name = "UserError";
}

/** A task did its work, and what it found is bad. */
export class FindingError extends UserError {
  override name = "FindingError";
}

/** Between the columns of a table. */
const GAP = "  ";

/** A column of text gets no narrower than that, however narrow the terminal is. */
const LEAST_COLUMNS = 8;

let writeProgress = (bytes: Uint8Array): void => void Deno.stderr.writeSync(bytes);

/** Prints a line of progress; only results go to standard output. */
export function say(line: string): void {
  writeProgress(new TextEncoder().encode(line + "\n"));
}

/** Sends all progress elsewhere until it is disposed. */
export function redirectProgress(write: (bytes: Uint8Array) => void): Disposable {
  const before = writeProgress;
  writeProgress = write;
  return { [Symbol.dispose]: () => void (writeProgress = before) };
}

/** Says `line`, then again with the seconds passed every 10 seconds, until `work` is done. */
export async function withProgress<T>(line: string, work: Promise<T>): Promise<T> {
  const startMs = performance.now();
  say(`${line} ...`);
  const seconds = () => Math.round((performance.now() - startMs) / 1000);
  using _progress = sayEvery(() => `${line} ... ${seconds()} s`, 10_000);
  return await work;
}

/** Says how far work is, every two seconds by default, until it is disposed. */
export function sayEvery(toLine: () => string, ms = 2000): Disposable {
  const timer = setInterval(() => say(toLine()), ms);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/**
 * Asks as Terraform does; only `accepted` goes on.
 *
 * @throws {UserError} the answer was another one, or nobody could answer
 */
export async function confirm(question: string, accepted = "yes"): Promise<void> {
  await Deno.stderr.write(new TextEncoder().encode(`${question} Only "${accepted}" is accepted: `));
  const buffer = new Uint8Array(1024);
  const stopped = new Promise<never>((_, reject) =>
    interrupted.addEventListener("abort", () => reject(interrupted.reason))
  );
  const length = await Promise.race([Deno.stdin.read(buffer), stopped]);
  if (new TextDecoder().decode(buffer.subarray(0, length ?? 0)).trim() === accepted) return;
  throw new UserError(
    length === null
      ? "\nNobody answered, so nothing was changed: add --yes where there is no terminal"
      : "Not confirmed, so nothing was changed",
  );
}

/** Prints a result, as JSON or for people. */
export function print<T>(result: T, json: boolean, toText: (result: T) => string): void {
  console.log(json ? toJson(result, 2) : toText(result));
}

/** JSON without a character that steers a terminal; without `indent` it is one line. */
export function toJson(value: unknown, indent?: number): string {
  const toUnit = (unit: string) => "\\u" + unit.charCodeAt(0).toString(16).padStart(4, "0");
  return JSON.stringify(value, null, indent).replace(
    /[^\P{Cc}\n]|[\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu,
    (character) => character.split("").map(toUnit).join(""),
  );
}

/** Prints lines as they come, until nobody reads them, as after `| head`, or Ctrl-C ends following. */
export async function printLines(
  lines: AsyncIterable<string>,
  { follow }: { follow: boolean },
): Promise<void> {
  const writer = Deno.stdout.writable.getWriter();
  try {
    for await (const line of lines) await writer.write(new TextEncoder().encode(line + "\n"));
  } catch (error) {
    const isOver = error instanceof Deno.errors.BrokenPipe || (follow && interrupted.aborted);
    if (!isOver) throw error;
  } finally {
    writer.releaseLock();
  }
}

/** Text from elsewhere, safe to print: control characters are escaped. */
export function visible(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, toEscape);
}

/** A key or a file's name as {@link visible}, its white space at either end shown too. */
export function visibleName(name: string): string {
  return visible(name.replace(/^\s+|\s+$/gu, (spaces) => Array.from(spaces, toEscape).join("")));
}

const ESCAPES: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function toEscape(character: string): string {
  return ESCAPES[character] ?? `\\u{${character.codePointAt(0)!.toString(16)}}`;
}

/** The columns of the terminal; elsewhere a line may have any length. */
export function terminalColumns(): number {
  return (Deno.stdout.isTerminal() && Deno.consoleSize().columns) || Infinity;
}

/**
 * Rows of cells as lines, each column as wide as its widest cell; `right` names number columns. The
 * widest columns of text are cut until a line takes no more than `columns`.
 */
export function toTable(rows: string[][], right: number[] = [], columns = Infinity): string[] {
  const last = rows[0].length - 1;
  const widths = rows[0].map((_, column) =>
    rows.reduce((widest, row) => Math.max(widest, width(row[column])), 0)
  );
  const total = () => widths.reduce((sum, width) => sum + width, GAP.length * last);
  while (total() > columns) {
    const widest = Math.max(...widths.filter((_, column) => !right.includes(column)));
    if (widest <= LEAST_COLUMNS) break;
    widths[widths.findLastIndex((width, column) => width === widest && !right.includes(column))]--;
  }
  return rows.map((row) =>
    row.map((text, column) => {
      const cell = clip(text, widths[column]);
      const padding = " ".repeat(widths[column] - width(cell));
      if (right.includes(column)) return padding + cell;
      return column === last ? cell : cell + padding;
    }).join(GAP).trimEnd()
  );
}

/** At most `columns` columns of a text, made visible; an ellipsis stands for the rest. */
export function clip(text: string, columns: number): string {
  const whole = visible(text);
  if (width(whole) <= columns) return whole;
  const characters = Array.from(whole).slice(0, columns);
  while (width(characters.join("")) >= columns) characters.pop();
  return characters.join("") + "…";
}

/** A duration in its largest whole unit: `12 s`, `3 min`, `5 h`, `9 d`. */
export function toDuration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** `1 event`, `2 events`. */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** East Asian characters and emoji: https://www.unicode.org/reports/tr11/ */
const WIDE = new RegExp(
  "[\\u1100-\\u115f\\u2e80-\\u303e\\u3041-\\ua4cf\\ua960-\\ua97f\\uac00-\\ud7a3" +
    "\\uf900-\\ufaff\\ufe30-\\ufe6f\\uff01-\\uff60\\uffe0-\\uffe6\\u{1f000}-\\u{3fffd}]",
  "u",
);

/** Columns that a text takes: wide characters take two, combining marks none. */
function width(text: string): number {
  const characters = Array.from(text.replace(/[\p{Mn}\p{Me}]/gu, ""));
  return characters.length + characters.filter((character) => WIDE.test(character)).length;
}
