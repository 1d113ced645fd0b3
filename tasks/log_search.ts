/**
 * Searching the function's log from now back. FilterLogEvents reads a span from its oldest line on, so
 * short spans are asked for, one before the other. Since June 2026 `startFromHead: false` reads from the
 * newest on; but an endpoint that does not know it, as the stand-in, returns the oldest lines without a
 * word.
 */

import type { CloudWatchLogsClient } from "@aws-sdk/client-cloudwatch-logs";
import type { Clock } from "./clock.ts";
import { type LogEvent, pagesOfLog } from "./logs.ts";

/** The newest span; one before it is longer where this one is small, and much longer with few lines. */
const FIRST_SPAN_MS = 15_000;
const FEW_LINES = 100;

/** A span of more pages (1 MB or 10,000 lines each, or none of either) is searched in shorter ones. */
const SPAN_PAGES = 3;
const PAGE_LINES = 10_000;
const LONGER = 4;
const MUCH_LONGER = 16;
const SHORTER = 8;

/** Lines of a span, oldest first, and where it begins. */
export interface Span {
  lines: LogEvent[];
  sinceMs: number;
}

/** How far back to search, and when to give up. Times are AWS's, in milliseconds since 1970. */
export interface Search {
  sinceMs: number;
  now: Clock;
  /** CloudWatch's filter pattern. */
  pattern?: string;
  mostCalls?: number;
  mostMs?: number;
}

/**
 * Spans of the log, the newest first. Where the search gives up, the last span begins later than
 * `sinceMs`. A region allows an account 5 to 25 calls a second:
 * https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
 */
export async function* searchBack(
  client: CloudWatchLogsClient,
  logGroupName: string,
  { sinceMs, now, pattern, mostCalls = Infinity, mostMs = Infinity }: Search,
): AsyncGenerator<Span> {
  const startMs = now();
  const isOver = () => calls >= mostCalls || now() - startMs >= mostMs;
  let calls = 0;
  let spanMs = FIRST_SPAN_MS;
  let endMs = startMs;
  while (endMs > sinceMs && !isOver()) {
    const fromMs = Math.max(sinceMs, endMs - spanMs);
    // The newest span has no end: lines may come meanwhile.
    const span = { startTime: fromMs, endTime: endMs === startMs ? undefined : endMs - 1 };
    const lines: LogEvent[] = [];
    let pages = 0;
    let isWhole = false;
    for await (
      const page of pagesOfLog(client, { logGroupName, filterPattern: pattern, ...span })
    ) {
      calls++;
      pages++;
      lines.push(...page.events);
      // The stand-in gives no token for what a full page lacks.
      isWhole = page.isLast && (page.events.length < PAGE_LINES || spanMs <= SHORTER);
      if (!isWhole && (isOver() || (pages >= SPAN_PAGES && spanMs > SHORTER))) break;
    }
    if (!isWhole) {
      spanMs = Math.ceil(spanMs / SHORTER);
      continue;
    }
    yield { lines, sinceMs: fromMs };
    endMs = fromMs;
    if (pages === 1) spanMs *= lines.length < FEW_LINES ? MUCH_LONGER : LONGER;
  }
}
