/** What the tests of dev, of the feed and of updates share. */

import assert from "node:assert/strict";
import type { Item } from "../tasks/table.ts";
import { type Answers, EVENT_TIME as TIME, NO_FAILURES } from "./fixtures.ts";

export function row(file_key: string): Item {
  return { file_key, timestamp: TIME, version_id: "1", processed_at: TIME };
}

export function logLine(outcome: string, file_key: string, timestamp: number) {
  const error = outcome === "failed" ? "no" : undefined;
  const time = new Date(timestamp).toISOString();
  const known = { file_key, event_time: TIME, version_id: "1", error };
  const line = { timestamp: time, level: "INFO", outcome, ...known };
  return { timestamp, message: JSON.stringify(line) };
}

/** What a stack answers in which nothing happens. */
export function quiet(): Answers {
  return {
    ...NO_FAILURES,
    GetFunctionCommand: () => ({ Configuration: { State: "Active", Runtime: "nodejs22.x" } }),
    DescribeAlarmsCommand: () => ({ MetricAlarms: [] }),
    GetBucketNotificationConfigurationCommand: () => ({}),
    FilterLogEventsCommand: () => ({ events: [] }),
  };
}

export async function until(condition: () => boolean): Promise<void> {
  const endMs = performance.now() + 10_000;
  while (!condition()) {
    assert.ok(performance.now() < endMs, `not within 10 s: ${condition}`);
    await pause(5);
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
