/** The feed: what became of uploads, from whatever source, as the function's log tells it. */

import type { Clock } from "./clock.ts";
import { followLog, type LogEvent, parseLine } from "./logs.ts";
import { BATCH_KEYS, getRows, type Item, rowKey } from "./table.ts";
import type { Stack } from "./target.ts";

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
  const { logs, outputs: { log_group_name } } = stack;
  for await (const lines of followLog(logs, log_group_name, { ...options, pattern: PATTERN })) {
    yield await withRows(stack, lines.flatMap(toNews), mostRows);
  }
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
