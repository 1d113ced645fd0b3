/** The function's log: its lines as they come, for people or as they are. */

import {
  type CloudWatchLogsClient,
  FilterLogEventsCommand,
  type FilterLogEventsCommandInput,
  type FilterLogEventsCommandOutput,
} from "@aws-sdk/client-cloudwatch-logs";
import { isObject } from "../handler.ts";
import type { Clock } from "./clock.ts";
import { toReason } from "./invoke.ts";
import { interrupted, pause } from "./signals.ts";
import { escapeJson, toJson, visible, visibleName } from "./terminal.ts";

/** Each look goes back so far, as lines come in no order. */
const LATE_MS = 30_000;

/**
 * Twice a minute a look goes back further: a line may come ten minutes late.
 * https://docs.aws.amazon.com/lambda/latest/dg/troubleshooting-execution.html
 */
const VERY_LATE_MS = 11 * 60_000;
const LONG_LOOKS_MS = 30_000;

/** A region allows an account 5 to 25 calls of FilterLogEvents a second. */
const POLL_MS = 2000;

/** CloudWatch's filter pattern for the function's lines about the rows that it wrote. */
export const WRITTEN = '{ $.outcome = "written" }';

export interface LogEvent {
  timestamp: number;
  message: string;
}

/**
 * The lines of a log group since a time of AWS's clock, then those to come, each once: a list for each
 * page, which may be empty. It ends by throwing, at Ctrl-C or when `signal` is aborted. `pattern` is
 * CloudWatch's filter pattern.
 */
export async function* followLog(
  client: CloudWatchLogsClient,
  logGroupName: string,
  { sinceMs, now, pattern, pollMs = POLL_MS, signal }: {
    sinceMs: number;
    now: Clock;
    pattern?: string;
    pollMs?: number;
    signal?: AbortSignal;
  },
): AsyncGenerator<LogEvent[]> {
  let startTime = sinceMs;
  let longLookMs = now();
  let seen = new Map<string, number>(); // ids of lines that a look may find again, and their times
  for (;;) {
    const lookMs = now();
    const span = { logGroupName, startTime, filterPattern: pattern };
    for await (const { events } of pagesOfLog(client, span)) {
      const fresh = events.filter(({ id }) => !seen.has(id));
      for (const { id, timestamp } of fresh) {
        if (timestamp >= lookMs - VERY_LATE_MS) seen.set(id, timestamp);
      }
      yield fresh;
    }
    await pause(pollMs, signal);
    const isLong = now() - longLookMs >= LONG_LOOKS_MS;
    startTime = Math.max(sinceMs, lookMs - (isLong ? VERY_LATE_MS : LATE_MS));
    if (!isLong) continue;
    longLookMs = now();
    seen = new Map([...seen].filter(([, timestamp]) => timestamp >= startTime));
  }
}

/** The lines of a log group since a time (milliseconds since 1970), oldest first, page by page. */
export async function* readLog(
  client: CloudWatchLogsClient,
  logGroupName: string,
  startTime: number,
): AsyncGenerator<LogEvent[]> {
  for await (const { events } of pagesOfLog(client, { logGroupName, startTime })) yield events;
}

/** The pages of a span, oldest first; one may be empty and not the last. */
export async function* pagesOfLog(
  client: CloudWatchLogsClient,
  span: FilterLogEventsCommandInput,
): AsyncGenerator<{ events: (LogEvent & { id: string })[]; isLast: boolean }> {
  let nextToken: string | undefined;
  do {
    const page: FilterLogEventsCommandOutput = await client.send(
      new FilterLogEventsCommand({ ...span, nextToken }),
      { abortSignal: interrupted },
    );
    nextToken = page.nextToken;
    const events = (page.events ?? []).map(
      ({ eventId, logStreamName, timestamp = 0, message = "" }) => ({
        id: eventId ?? `${logStreamName} ${timestamp} ${message}`, // the stand-in gives none
        timestamp,
        message,
      }),
    );
    yield { events, isLast: nextToken === undefined };
  } while (nextToken !== undefined);
}

/**
 * A line for people: time, level, outcome, milliseconds, key, and what was odd. Undefined for what
 * Lambda itself notes of each run, unless that run failed.
 */
export function logToText({ timestamp, message }: LogEvent): string | undefined {
  const time = new Date(timestamp).toISOString();
  const line = (level: string, text: string) =>
    `${time}  ${level.padEnd(5)}  ${visible(text.replace(/[\r\n]+$/, ""))}`.trimEnd();
  const { level, outcome, type, record, ...fields } = parseLine(message) ?? {};

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

/** The lines that are wanted, for people or as JSON. */
export async function* toLogLines(
  pages: AsyncIterable<LogEvent[]>,
  { json, ...wanted }: { key?: string; failed: boolean; json: boolean },
): AsyncGenerator<string> {
  for await (const events of pages) {
    for (const event of events.filter((event) => isWanted(event, wanted))) {
      const line = json ? logToJson(event) : logToText(event);
      if (line !== undefined) yield line;
    }
  }
}

/** Whether a line is about a key that holds a text, and, with `failed`, about a failure. */
export function isWanted(
  event: LogEvent,
  { key, failed }: { key?: string; failed: boolean },
): boolean {
  if (failed && !/^\S+ {2}ERROR /.test(logToText(event) ?? "")) return false;
  const { file_key, encoded_key } = parseLine(event.message) ?? {};
  return key === undefined || String(file_key ?? encoded_key ?? "").includes(key);
}

/** A line as one JSON object in one line: its own, or one that wraps it. */
export function logToJson({ timestamp, message }: LogEvent): string {
  if (parseLine(message) === undefined) {
    return toJson({ timestamp: new Date(timestamp).toISOString(), message });
  }
  // Its own text, not what JSON.parse() made of it: numbers stay exact. Line breaks are between tokens.
  return escapeJson(message.trim().replace(/[\t\r\n]+/g, " "));
}

/** The fields of a line that is a JSON object. */
export function parseLine(message: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(message);
    return isObject(value) && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
