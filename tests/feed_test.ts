/** The feed of the function's log, against a fake stack. */

import assert from "node:assert/strict";
import { followNews } from "../tasks/feed.ts";
import { logLine, row } from "./dev_fixtures.ts";
import { EVENT_TIME, fakeStack, toAttributes } from "./fixtures.ts";

Deno.test("followNews() tells each line once, with its row", async () => {
  const nowMs = Date.now();
  const first = [logLine("written", "a.txt", nowMs), logLine("failed", "b.txt", nowMs)];
  const { stack, calls } = fakeStack({
    FilterLogEventsCommand: [
      { events: [...first, { timestamp: nowMs, message: "START RequestId: 1" }] },
      { events: first },
      { events: [...first, logLine("unchanged", "b.txt", nowMs + 1)] },
    ],
    BatchGetItemCommand: () => ({ Responses: { files: [toAttributes(row("a.txt"))] } }),
  });
  const ending = new AbortController();
  const feed = followNews(stack, {
    sinceMs: nowMs - 5000,
    now: Date.now,
    signal: ending.signal,
    pollMs: 1,
  });
  const looks = [];
  for (let looked = 0; looked < 3; looked++) looks.push((await feed.next()).value);
  const known = { timestamp: EVENT_TIME, versionId: "1" };
  assert.deepEqual(JSON.parse(JSON.stringify(looks)), [
    [
      { outcome: "written", atMs: nowMs, key: "a.txt", ...known, row: row("a.txt") },
      { outcome: "failed", atMs: nowMs, key: "b.txt", ...known, error: "no" },
    ],
    [],
    [{ outcome: "unchanged", atMs: nowMs + 1, key: "b.txt", ...known }],
  ]);
  const since = calls.filter(({ name }) => name === "FilterLogEventsCommand")
    .map(({ input }) => input.startTime);
  assert.equal(since[0], nowMs - 5000);
  ending.abort(new Error("over"));
  await assert.rejects(feed.next(), /over/);
});

Deno.test("followNews() tells page by page, and each line once", async () => {
  const nowMs = Date.now();
  const lines = Array.from({ length: 12_000 }, (_, i) => logLine("failed", `${i}`, nowMs + i));
  const { stack } = fakeStack({
    FilterLogEventsCommand: [
      { events: lines.slice(0, 7000), nextToken: "more" },
      { events: lines.slice(7000) },
      { events: lines.slice(-5) },
    ],
  });
  const feed = followNews(stack, { sinceMs: nowMs, now: Date.now, pollMs: 1 });
  const counts: number[] = [];
  const keys = new Set<string | undefined>();
  for await (const news of feed) {
    counts.push(news.length);
    for (const { key } of news) keys.add(key);
    if (news.length === 0) break;
  }
  assert.deepEqual(counts, [7000, 5000, 0]);
  assert.equal(keys.size, 12_000);
});
