/** Rows: prints rows of the table, for people, as JSON lines for programs, or as CSV for spreadsheets. */

import { paginateScan } from "@aws-sdk/client-dynamodb";
import { isDeleted } from "../function/removals.ts";
import { ATTRIBUTES } from "../handler.ts";
import { now } from "./clients.ts";
import { followNews, rowsWritten } from "./logs.ts";
import { type Item, queryRows, removalOf, rowsOfKey, toItem, toText } from "./table.ts";
import type { Stack } from "./target.ts";
import {
  clip,
  say,
  sayEvery,
  terminalColumns,
  toDuration,
  toJson,
  toTable,
  visible,
  visibleName,
} from "./terminal.ts";

/** Which rows: those of a key, those written since a time, or those below a prefix. */
interface Wanted {
  key?: string;
  prefix: string;
  /** Milliseconds since 1970. */
  sinceMs?: number;
  limit: number;
  /** Those to come as well. */
  follow: boolean;
  pollMs?: number;
}

/** Rows that are held to be sorted; a larger table is printed in its own order, which is by key. */
const SORTED_ROWS = 1000;

/** How far back the log is searched for the newest rows of a larger table. */
const LOOK_BACK_DAYS = 30;

/**
 * The rows that are wanted, the newest first; where they are in another order, it says so before. With
 * `follow` the oldest is first, and it ends when there are enough, or by throwing at Ctrl-C.
 */
export async function* readRows(stack: Stack, wanted: Wanted): AsyncGenerator<Item> {
  let left = wanted.limit;
  for await (const row of wantedRows(stack, wanted)) {
    yield row;
    if (--left <= 0) return; // before the next one is looked for
  }
}

function wantedRows(stack: Stack, wanted: Wanted): AsyncGenerator<Item> {
  const { key, prefix, sinceMs, follow } = wanted;
  if (follow) return newRows(stack, wanted);
  if (key !== undefined) return newestOfKey(stack, key, wanted);
  if (sinceMs !== undefined) return newestSince(stack, prefix, sinceMs);
  return newestFirst(stack, wanted);
}

/** The rows written since a time, or from now on, the oldest first. */
async function* newRows(
  stack: Stack,
  { key, prefix, sinceMs = now(), pollMs }: Wanted,
): AsyncGenerator<Item> {
  const isWanted = ({ file_key }: Item) =>
    key === undefined ? String(file_key).startsWith(prefix) : file_key === key;
  for await (const news of followNews(stack, { sinceMs, mostRows: Infinity, pollMs })) {
    yield* news.flatMap(({ row }) => row && isWanted(row) ? [row] : []);
  }
}

/** Says at the end if the key is deleted. */
async function* newestOfKey(
  stack: Stack,
  key: string,
  { sinceMs = 0, limit }: Wanted,
): AsyncGenerator<Item> {
  const seen: Item[] = [];
  try {
    for await (const row of rowsOfKey(stack, key, sinceMs === 0 ? { limit } : {})) {
      seen.push(row);
      if (writtenMs(row) >= sinceMs) yield row;
    }
  } finally {
    // A row that deletes a version says nothing without the older ones, which the limit left out.
    const isKnown = seen.length < limit;
    if (isDeleted(seen) && (isKnown || isDeleted(await queryRows(stack, key)))) {
      say(`By these rows ${visibleName(key)} is deleted`);
    }
  }
}

/** Reads no more of the log than is wanted. */
async function* newestSince(stack: Stack, prefix: string, sinceMs: number): AsyncGenerator<Item> {
  let back = "now";
  using _progress = sayEvery(() => `Searching the log: back to ${back} ... (Ctrl-C stops)`);
  for await (const { row, since } of rowsWritten(stack, { sinceMs }, prefix)) {
    back = since ?? back;
    if (row) yield row;
  }
}

/**
 * Sorts the rows of a small table. A larger one is not held: with a limit the log says which rows are
 * the newest; without one all come in the table's own order.
 */
async function* newestFirst(stack: Stack, { prefix, limit }: Wanted): AsyncGenerator<Item> {
  const held: Item[] = [];
  const rows = scanRows(stack, prefix);
  for await (const row of rows) {
    held.push(row);
    if (held.length <= SORTED_ROWS) continue;
    if (limit < Infinity) {
      say(
        `More than ${SORTED_ROWS} rows: the function's log says which are the newest. For all, in the ` +
          "table's own order, use --json or --csv without --limit",
      );
      yield* newestSince(stack, prefix, now() - LOOK_BACK_DAYS * 86_400_000);
      return say(`The log of ${LOOK_BACK_DAYS} days names no more; --since 90d looks further back`);
    }
    say(
      `More than ${SORTED_ROWS} rows: they come in the table's own order, which is by key. ` +
        "For the newest first add --limit N or --since 1h",
    );
    yield* held;
    return yield* rows;
  }
  yield* held.sort((a, b) => writtenMs(b) - writtenMs(a));
}

async function* scanRows({ dynamo, outputs }: Stack, prefix: string): AsyncGenerator<Item> {
  const pages = paginateScan({ client: dynamo }, {
    TableName: outputs.dynamodb_table_name,
    ...(prefix === "" ? {} : {
      FilterExpression: "begins_with(file_key, :prefix)",
      ExpressionAttributeValues: { ":prefix": { S: prefix } },
    }),
  });
  for await (const { Items = [] } of pages) yield* Items.map(toItem);
}

/** When a row was written, in milliseconds since 1970; a row without such a time counts as the newest. */
function writtenMs({ processed_at, timestamp }: Item): number {
  return Date.parse(String(processed_at ?? timestamp)) || Number.MAX_SAFE_INTEGER;
}

/** Rows as lines of JSON or CSV, or of a table for people. */
export function toRowLines(
  rows: AsyncIterable<Item>,
  { json, csv, follow }: { json: boolean; csv: boolean; follow: boolean },
): AsyncIterable<string> {
  if (json) return toJsonLines(rows);
  if (csv) return toCsvLines(rows, { atTerminal: Deno.stdout.isTerminal() });
  return follow ? toFollowedLines(rows) : toTableLines(rows);
}

async function* toJsonLines(rows: AsyncIterable<Item>): AsyncGenerator<string> {
  for await (const row of rows) yield toJson(row);
}

/**
 * Rows as the lines of a CSV file for spreadsheets, which take UTF-8 for what it is by its byte order mark.
 * Lines end with CRLF: https://www.rfc-editor.org/rfc/rfc4180. At a terminal no character steers it.
 */
export async function* toCsvLines(
  rows: AsyncIterable<Item>,
  { atTerminal }: { atTerminal: boolean },
): AsyncGenerator<string> {
  const toLine = (values: readonly string[]) => {
    const line = values.map(toCsvCell).join(",");
    return atTerminal ? visible(line) : line + "\r";
  };
  yield (atTerminal ? "" : "\ufeff") + toLine(ATTRIBUTES);
  for await (const row of rows) yield toLine(ATTRIBUTES.map((name) => toText(row[name])));
}

/**
 * The signs, full-width ones too, that make a formula of a spreadsheet's cell: at its start, or after a
 * separator, as the file may be read with another one; blanks and quotes may stand before the sign.
 * https://owasp.org/www-community/attacks/CSV_Injection
 */
const FORMULA_SIGN = /(?=[=+\-@\uff1d\uff0b\uff0d\uff20])(?<=(?:^|[,;\t\r\n])[\s\p{C}"]*)/gu;

/** An apostrophe before a sign makes the cell text. */
export function toCsvCell(value: string): string {
  return `"${value.replace(FORMULA_SIGN, "'").replaceAll('"', '""')}"`;
}

/** Rows as a table for people. */
export function toRowTable(rows: Item[]): string[] {
  return toTable([HEADINGS, ...rows.map(toCells)], NUMBERS, terminalColumns());
}

async function* toTableLines(rows: AsyncIterable<Item>): AsyncGenerator<string> {
  const all = await Array.fromAsync(rows);
  if (all.length > 0) yield* toRowTable(all);
}

/** Rows that come one by one, as lines for people: each column has its greatest width from the start. */
async function* toFollowedLines(rows: AsyncIterable<Item>): AsyncGenerator<string> {
  const widest = WIDTHS.map((width) => "-".repeat(width));
  const line = (cells: string[]) => toTable([widest, cells], NUMBERS, terminalColumns())[1];
  yield line(HEADINGS);
  for await (const row of rows) yield line(toCells(row));
}

const HEADINGS = ["key", "bytes", "type", "age", "preview"];

/** The most columns that a cell takes; a size has 14 digits at most, which is 50 TB. */
const WIDTHS = [40, 14, 16, 6, 24];

/** The columns of numbers. */
const NUMBERS = [1, 3];

function toCells(row: Item): string[] {
  const [keyWidth, , typeWidth, , previewWidth] = WIDTHS;
  const ageMs = now() - Date.parse(String(row.processed_at));
  return [
    clip(visibleName(String(row.file_key)), keyWidth),
    visible(String(row.file_size ?? "")),
    removalOf(row) ?? clip(String(row.content_type ?? ""), typeWidth),
    Number.isNaN(ageMs) ? "" : toDuration(ageMs),
    clip(String(row.content_preview ?? ""), previewWidth),
  ];
}
