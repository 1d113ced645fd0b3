/** The feed: what became of uploads, from whatever source, as the function's log tells it. */

import type { Clock } from "./clock.ts";
import { type LogEvent, parseLine, readLog } from "./logs.ts";
import { BATCH_KEYS, getRows, type Item, rowKey } from "./rows.ts";
import { interrupted, pause } from "./signals.ts";
import type { Stack } from "./target.ts";

/** FilterLogEvents may be called five times a second in an account. */
const POLL_MS = 2000;

/** A line may be there so much later than others of the same time. */
const LATE_MS = 15_000;

/** In silence the search goes on from so long ago. */
const SILENCE_MS = 60_000;

/** Lines of one look that are held. */
const HELD_LINES = 5000;

const OUTCOMES = ["written", "unchanged", "failed"] as const;
const PATTERN = `{ ${OUTCOMES.map((outcome) => `($.outcome = "${outcome}")`).join(" || ")} }`;

/** What became of one upload in one run of the function. */
export interface News {
  outcome: typeof OUTCOMES[number];
  /** When the function said so: milliseconds since 1970. */
  atMs: number;
  /** The row's keys, as far as the event told them. */
  key?: string;
  timestamp?: string;
  versionId?: string;
  /** Why it failed. */
  error?: string;
  /** The row that was written, if it is still there, and among those that are read. */
  row?: Item;
}

/**
 * The news since a time of AWS's clock, then those to come, oldest first: a list for each look into
 * the log, which may be empty, or more for a long one. The rows of its newest `mostRows` are read. It
 * ends by throwing, at Ctrl-C or when `signal` is aborted.
 */
export async function* followNews(
  stack: Stack,
  { sinceMs, now, mostRows = BATCH_KEYS, signal = interrupted, pollMs = POLL_MS }: {
    sinceMs: number;
    now: Clock;
    mostRows?: number;
    signal?: AbortSignal;
    pollMs?: number;
  },
): AsyncGenerator<News[]> {
  let fromMs = sinceMs;
  let seen = new Map<string, number>(); // lines since fromMs, and their times
  for (;;) {
    const lookMs = now();
    let newestMs = fromMs;
    let fresh: LogEvent[] = [];
    for await (const line of linesSince(stack, fromMs)) {
      newestMs = Math.max(newestMs, line.timestamp);
      const id = `${line.timestamp} ${line.message}`;
      if (!seen.has(id)) fresh.push(line);
      seen.set(id, line.timestamp);
      if (fresh.length < HELD_LINES) continue;
      yield await withRows(stack, fresh.flatMap(toNews), mostRows);
      fresh = [];
      seen = since(seen, newestMs - LATE_MS);
    }
    yield await withRows(stack, fresh.flatMap(toNews), mostRows);
    fromMs = Math.max(fromMs, newestMs - LATE_MS, lookMs - SILENCE_MS);
    seen = since(seen, fromMs);
    await pause(pollMs, signal);
  }
}

function since(lines: Map<string, number>, fromMs: number): Map<string, number> {
  return new Map([...lines].filter(([, timestamp]) => timestamp >= fromMs));
}

function linesSince({ logs, outputs }: Stack, sinceMs: number): AsyncGenerator<LogEvent> {
  return readLog(logs, outputs.log_group_name, { sinceMs, pattern: PATTERN });
}

/** A line of the log as news; the stand-in ignores the pattern, so other lines come too. */
function toNews({ timestamp: atMs, message }: LogEvent): News[] {
  const line = parseLine(message) ?? {};
  const outcome = OUTCOMES.find((outcome) => outcome === line.outcome);
  if (outcome === undefined) return [];
  const text = (name: string) => typeof line[name] === "string" ? line[name] : undefined;
  return [{
    outcome,
    atMs,
    key: text("file_key"),
    // A line of an earlier version has it as timestamp: see rowKeyOf().
    timestamp: text("event_time") ?? (outcome === "failed" ? undefined : text("timestamp")),
    versionId: text("version_id"),
    error: text("error"),
  }];
}

/** Adds the rows of the newest: the log has no previews. */
async function withRows(stack: Stack, news: News[], most: number): Promise<News[]> {
  const newest = news.filter(({ outcome }) => outcome === "written").slice(-most);
  const keyOf = ({ key, timestamp }: News) => rowKey({ file_key: key, timestamp });
  const keys = new Map(newest.map((one) => [JSON.stringify(keyOf(one)), keyOf(one)]));
  const rows = await getRows(stack, [...keys.values()]);
  const rowsByKey = new Map(rows.map((row) => [JSON.stringify(rowKey(row)), row]));
  return news.map((one) => ({
    ...one,
    row: one.outcome === "written" ? rowsByKey.get(JSON.stringify(keyOf(one))) : undefined,
  }));
}
