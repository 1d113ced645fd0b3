/** The function's log: reading it forward and back, its lines, and what they tell of uploads. */

import {
  type FilterLogEventsCommandInput,
  paginateFilterLogEvents,
} from "@aws-sdk/client-cloudwatch-logs";
import { now } from "./clients.ts";
import { parseObject, toReason } from "./invoke.ts";
import { interrupted, pause } from "./signals.ts";
import { BATCH_KEYS, getRows, idOf, type Item, rowKey } from "./table.ts";
import type { Stack } from "./target.ts";
import { toJson, visible, visibleName } from "./terminal.ts";

/** Each look begins this long before the last one, as lines do not come in order. */
const OVERLAP_MS = 30_000;

/**
 * Twice a minute a look begins earlier: a line may come ten minutes late.
 * https://docs.aws.amazon.com/lambda/latest/dg/troubleshooting-execution.html
 */
const LONG_OVERLAP_MS = 11 * 60_000;
const LONG_LOOKS_MS = 30_000;

/** A region allows an account 5 to 25 calls of FilterLogEvents a second. */
const POLL_MS = 2000;

/** Before this time a log can't be read from its newest line on. */
const LEAST_MS = Date.UTC(2024, 0);

interface LogEvent {
  eventId?: string;
  timestamp: number;
  message: string;
}

/** Where the log is. */
type Log = Pick<Stack, "logs" | "outputs">;

/**
 * The log's lines since a time, each once: a list for each page, which may be empty. With `follow`
 * those to come too, until it throws, at Ctrl-C or when `signal` is aborted. `pattern` is CloudWatch's
 * filter pattern.
 */
export async function* readLog(
  log: Log,
  { sinceMs, follow, pattern, pollMs = POLL_MS, signal }: {
    sinceMs: number;
    follow: boolean;
    pattern?: string;
    pollMs?: number;
    signal?: AbortSignal;
  },
): AsyncGenerator<LogEvent[]> {
  let startTime = sinceMs;
  let longLookMs = Date.now();
  let seen = new Map<string, number>(); // ids of lines that a look may find again, and their times
  for (;;) {
    const lookMs = now();
    for await (const { events } of pagesOf(log, { startTime, filterPattern: pattern })) {
      const fresh = events.filter(({ eventId }) => !seen.has(eventId!));
      for (const { eventId, timestamp } of fresh) {
        if (timestamp >= lookMs - LONG_OVERLAP_MS) seen.set(eventId!, timestamp);
      }
      yield fresh;
    }
    if (!follow) return;
    await pause(pollMs, signal);
    const isLong = Date.now() - longLookMs >= LONG_LOOKS_MS;
    startTime = Math.max(sinceMs, lookMs - (isLong ? LONG_OVERLAP_MS : OVERLAP_MS));
    if (!isLong) continue;
    longLookMs = Date.now();
    seen = new Map([...seen].filter(([, timestamp]) => timestamp >= startTime));
  }
}

/** How far back to search, in milliseconds since 1970, and when to give up. */
export interface Search {
  sinceMs: number;
  /** CloudWatch's filter pattern. */
  pattern?: string;
  mostMs?: number;
}

/**
 * Pages of the log, the newest lines first, one at least. `since` is how far back the search is, as
 * far as its lines tell; undefined where it came to its end.
 */
export async function* searchBack(
  log: Log,
  { sinceMs, pattern, mostMs = Infinity }: Search,
): AsyncGenerator<{ lines: LogEvent[]; since?: string }> {
  const startMs = Date.now();
  const startTime = Math.max(sinceMs, LEAST_MS);
  let searchedMs = now();
  const span = { startTime, startFromHead: false, filterPattern: pattern };
  for await (const { events, isLast } of pagesOf(log, span)) {
    searchedMs = events.at(-1)?.timestamp ?? searchedMs;
    yield { lines: events, since: isLast ? undefined : new Date(searchedMs).toISOString() };
    if (Date.now() - startMs >= mostMs) return;
  }
}

/** The pages of a span; one may be empty and not the last. */
async function* pagesOf(
  { logs, outputs }: Log,
  span: Omit<FilterLogEventsCommandInput, "logGroupName">,
): AsyncGenerator<{ events: LogEvent[]; isLast: boolean }> {
  const command = { logGroupName: outputs.log_group_name, ...span };
  const pages = paginateFilterLogEvents({ client: logs }, command, { abortSignal: interrupted });
  for await (const { events = [], nextToken } of pages) {
    yield { events: events as LogEvent[], isLast: nextToken === undefined };
  }
}

/**
 * A line for people: time, level, outcome, milliseconds, key, and what was odd. Undefined for what
 * Lambda itself notes of each run, unless that run failed.
 */
export function logToText({ timestamp, message }: LogEvent): string | undefined {
  const time = new Date(timestamp).toISOString();
  const line = (level: string, text: string) =>
    `${time}  ${level.padEnd(5)}  ${visible(text.replace(/[\r\n]+$/, ""))}`.trimEnd();
  const { level, outcome, type, record, ...fields } = parseObject(message) ?? {};

  if (typeof outcome === "string") {
    const { duration_ms, file_key, event_name, object, error, message: note } = fields;
    const ms = duration_ms === undefined ? "" : `${duration_ms} ms`;
    const what = file_key ?? event_name ?? note ?? "";
    const odd = [object && `object ${object}`, error].filter((part) => part !== undefined);
    const text = [outcome.padEnd(9), ms.padStart(8), visibleName(String(what)), ...odd].join("  ");
    return line(String(level), text);
  }
  if (typeof type === "string" && type.startsWith("platform.")) { // Lambda's own, as JSON
    const { status, errorType } = (record ?? {}) as Record<string, unknown>;
    if (type !== "platform.report" || status === undefined || status === "success") return;
    return line("ERROR", `the run ended with ${status} ${errorType ?? ""}`);
  }
  if (/^(INIT_START|START|END|REPORT) /.test(message)) return; // Lambda's own, as text
  const { errorMessage, message: note } = fields;
  if (errorMessage !== undefined) return line("ERROR", toReason(fields));
  return line(String(level ?? ""), typeof note === "string" ? note : message);
}

/** Lines for people or as JSON, about keys that hold a text, and with `failed` about failures. */
export async function* toLogLines(
  pages: AsyncIterable<LogEvent[]>,
  { key, failed, json }: { key?: string; failed: boolean; json: boolean },
): AsyncGenerator<string> {
  for await (const events of pages) {
    for (const event of events) {
      const text = logToText(event);
      if (failed && !/^\S+ {2}ERROR /.test(text ?? "")) continue;
      const { file_key, encoded_key } = parseObject(event.message) ?? {};
      if (key && !String(file_key ?? encoded_key ?? "").includes(key)) continue;
      const line = json ? logToJson(event) : text;
      if (line !== undefined) yield line;
    }
  }
}

/** A line as one JSON object in one line: its own, or one that wraps it. */
export function logToJson({ timestamp, message }: LogEvent): string {
  return toJson(parseObject(message) ?? { timestamp: new Date(timestamp).toISOString(), message });
}

const OUTCOMES = ["written", "unchanged", "failed"] as const;

/** CloudWatch's filter patterns for the function's lines. */
const OF_UPLOADS = `{ ${OUTCOMES.map((outcome) => `($.outcome = "${outcome}")`).join(" || ")} }`;
const OF_ROWS = '{ $.outcome = "written" }';

/** How far back the log is searched for the newest rows, and when that is given up. */
const NEWEST_MS = 30 * 86_400_000;
const GIVE_UP_MS = 15_000;

/** What became of one upload in one run of the function. */
export interface News {
  outcome: typeof OUTCOMES[number];
  /** When the function said so: milliseconds since 1970. */
  atMs: number;
  /** The row's keys; a line about a failure may lack them. */
  key?: string;
  timestamp?: string;
  versionId?: string;
  /** Why it failed. */
  error?: string;
  /** The row that was written; absent if it was deleted, or is not among those read. */
  row?: Item;
}

/**
 * The news since a time, then those to come: a list for each page of the log, which may be empty. The
 * rows of its newest `mostRows` are read. It ends by throwing, at Ctrl-C or when `signal` is aborted.
 */
export async function* followNews(
  stack: Stack,
  { mostRows = BATCH_KEYS, ...options }: {
    sinceMs: number;
    mostRows?: number;
    signal?: AbortSignal;
    pollMs?: number;
  },
): AsyncGenerator<News[]> {
  for await (const lines of readLog(stack, { ...options, follow: true, pattern: OF_UPLOADS })) {
    const news = lines.flatMap(toNews);
    const written = news.filter(({ outcome }) => outcome === "written").slice(-mostRows);
    const rows = new Map<string, Item>(); // the log has no previews
    for await (const row of getRows(stack, written.map(keyOf))) rows.set(idOf(row), row);
    for (const each of written) each.row = rows.get(JSON.stringify(keyOf(each)));
    yield news;
  }
}

/**
 * The rows that were written since a time and are still there, the newest first. The table is ordered
 * by key, so the log says which they are. `since` is that of the search, also where there is no row.
 */
export async function* rowsWritten(
  stack: Stack,
  search: Omit<Search, "pattern">,
  prefix = "",
): AsyncGenerator<{ row?: Item; since?: string }> {
  const known = new Set<string>(); // a row that was written again is listed once
  for await (const { lines, since } of searchBack(stack, { ...search, pattern: OF_ROWS })) {
    const keys = lines.flatMap(toNews).filter(({ key }) => key?.startsWith(prefix)).map(keyOf);
    for await (const row of getRows(stack, keys)) {
      if (!known.has(idOf(row))) yield { row, since };
      known.add(idOf(row));
    }
    yield { since };
  }
}

/** The rows written last. `since` is where the search ended, if it gave up. */
export async function newestRows(
  stack: Stack,
  count: number,
): Promise<{ rows: Item[]; since?: string }> {
  const search = { sinceMs: now() - NEWEST_MS, mostMs: GIVE_UP_MS };
  const rows: Item[] = [];
  let since: string | undefined;
  for await (const found of rowsWritten(stack, search)) {
    since = found.since;
    if (found.row && rows.push(found.row) === count) return { rows };
  }
  return { rows, since };
}

/** A line of the log as news. */
function toNews({ timestamp: atMs, message }: LogEvent): News[] {
  const line = parseObject(message) ?? {};
  const outcome = OUTCOMES.find((outcome) => outcome === line.outcome);
  if (outcome === undefined) return [];
  const text = (name: string) => typeof line[name] === "string" ? line[name] : undefined;
  return [{
    outcome,
    atMs,
    key: text("file_key"),
    timestamp: text("event_time"),
    versionId: text("version_id"),
    error: text("error"),
  }];
}

function keyOf({ key, timestamp }: News) {
  return rowKey({ file_key: key, timestamp });
}
