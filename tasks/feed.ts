/** What became of uploads, by the function's log: from a time on, and from now back. */

import type { Clock } from "./clock.ts";
import { type LogEvent, parseLine, readLog, type Search, searchBack } from "./logs.ts";
import { BATCH_KEYS, getRows, type Item, rowKey } from "./table.ts";
import type { Stack } from "./target.ts";

const OUTCOMES = ["written", "unchanged", "failed"] as const;

/** CloudWatch's filter patterns for the function's lines. */
const OF_UPLOADS = `{ ${OUTCOMES.map((outcome) => `($.outcome = "${outcome}")`).join(" || ")} }`;
const OF_ROWS = '{ $.outcome = "written" }';

/** How far back the log is searched for the newest rows, and when that is given up. */
const NEWEST_MS = 30 * 86_400_000;
const GIVE_UP = { mostCalls: 40, mostMs: 15_000 };

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
  /** The row that was written, if it is still there, and among those that are read. */
  row?: Item;
}

/**
 * The news since a time of AWS's clock, then those to come: a list for each page of the log, which may be
 * empty. The rows of its newest `mostRows` are read. It ends by throwing, at Ctrl-C or when `signal` is
 * aborted.
 */
export async function* followNews(
  stack: Stack,
  { mostRows = BATCH_KEYS, ...options }: {
    sinceMs: number;
    now: Clock;
    mostRows?: number;
    signal?: AbortSignal;
    pollMs?: number;
  },
): AsyncGenerator<News[]> {
  for await (const lines of readLog(stack, { ...options, follow: true, pattern: OF_UPLOADS })) {
    const news = lines.flatMap(toNews);
    const written = news.filter(isWritten).slice(-mostRows);
    const keys = new Map(written.map((each) => [idOf(each), keyOf(each)]));
    const rows = await getRows(stack, [...keys.values()]); // the log has no previews
    const rowsById = new Map(rows.map((row) => [JSON.stringify(rowKey(row)), row]));
    yield news.map((each) => ({
      ...each,
      row: isWritten(each) ? rowsById.get(idOf(each)) : undefined,
    }));
  }
}

/**
 * The rows that were written since a time and are still there, the newest first, in batches. The table
 * is ordered by key, so the log says which rows these are. `keys` counts the rows that were looked up;
 * `sinceMs` is how far back the search is.
 */
export async function* rowsWritten(
  stack: Stack,
  search: Omit<Search, "pattern">,
  prefix = "",
): AsyncGenerator<{ rows: Item[]; keys: number; sinceMs: number }> {
  const known = new Set<string>(); // a row that was written again is listed once
  for await (const { lines, sinceMs } of searchBack(stack, { ...search, pattern: OF_ROWS })) {
    const written = lines.reverse().flatMap(toNews).filter((news) => {
      if (!isWritten(news) || !news.key?.startsWith(prefix) || known.has(idOf(news))) return false;
      known.add(idOf(news));
      return true;
    });
    for (let start = 0; start === 0 || start < written.length; start += BATCH_KEYS) {
      const keys = written.slice(start, start + BATCH_KEYS).map(keyOf);
      yield { rows: await getRows(stack, keys), keys: keys.length, sinceMs };
    }
  }
}

/**
 * The rows written last; a batch of them is looked up, as some may be deleted. `since` is where the
 * search ended, if it gave up.
 */
export async function newestRows(
  stack: Stack,
  now: Clock,
  count: number,
): Promise<{ rows: Item[]; since?: string }> {
  const search = { sinceMs: now() - NEWEST_MS, now, ...GIVE_UP };
  const rows: Item[] = [];
  let lookedUp = 0;
  let searchedMs = now();
  for await (const found of rowsWritten(stack, search)) {
    rows.push(...found.rows);
    lookedUp += found.keys;
    searchedMs = found.sinceMs;
    if (rows.length >= count || lookedUp >= BATCH_KEYS) return { rows: rows.slice(0, count) };
  }
  const isEarly = searchedMs > search.sinceMs;
  return { rows, since: isEarly ? new Date(searchedMs).toISOString() : undefined };
}

/** A line of the log as news. */
function toNews({ timestamp: atMs, message }: LogEvent): News[] {
  const line = parseLine(message) ?? {};
  const outcome = OUTCOMES.find((outcome) => outcome === line.outcome);
  if (outcome === undefined) return [];
  const text = (name: string) => typeof line[name] === "string" ? line[name] : undefined;
  return [{
    outcome,
    atMs,
    key: text("file_key"),
    // A line of an earlier version has no event_time: it was its timestamp.
    timestamp: text("event_time") ?? (outcome === "failed" ? undefined : text("timestamp")),
    versionId: text("version_id"),
    error: text("error"),
  }];
}

function isWritten({ outcome }: News): boolean {
  return outcome === "written";
}

function keyOf({ key, timestamp }: News) {
  return rowKey({ file_key: key, timestamp });
}

function idOf(news: News): string {
  return JSON.stringify(keyOf(news));
}
