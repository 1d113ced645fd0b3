/** Searching a large log from now back: the newest lines in few calls, and an end in any case. */

import assert from "node:assert/strict";
import { readRows } from "../tasks/rows.ts";
import { searchBack } from "../tasks/log_search.ts";
import type { Item } from "../tasks/table.ts";
import { newestRows, readStatus, statusToText } from "../tasks/status.ts";
import { explain, whyToText } from "../tasks/why.ts";
import { type Answers, dated, fakeLog, fakeStack } from "./fixtures.ts";

const DAY_MS = 86_400_000;
const NOW_MS = Date.parse("2100-01-31T00:00:00.000Z");

/** More than a million rows a day for thirty days, the last one some time ago. */
function largeLog(sinceLastMs: number, { everyMs = 75 } = {}) {
  const toMs = NOW_MS - sinceLastMs;
  const large = fakeLog({
    fromMs: NOW_MS - 30 * DAY_MS,
    toMs,
    everyMs,
    pageLines: 10_000,
  });
  large.log.nowMs = NOW_MS;
  return large;
}

Deno.test("newestRows() finds the newest of a large log in few calls", async (t) => {
  for (const [name, sinceLastMs] of Object.entries({ "a second": 1000, "5 hours": DAY_MS / 5 })) {
    await t.step(`the last row was ${name} ago`, async () => {
      const { log, answers } = largeLog(sinceLastMs);
      const { stack } = fakeStack(answers);
      const { rows, since } = await newestRows(stack, () => log.nowMs);
      const lastMs = NOW_MS - sinceLastMs;
      const newest = Array.from({ length: 10 }, (_, i) => 75 * (Math.floor(lastMs / 75) - i));
      assert.equal(since, undefined);
      assert.deepEqual(
        rows.map(({ timestamp }) => timestamp),
        newest.map((ms) => new Date(ms).toISOString()),
      );
      assert.ok(log.calls <= 20, `${log.calls} calls for ${log.lines} lines`);
    });
  }
});

/** A page as CloudWatch may answer any number of times. */
const EMPTY_PAGE = { events: [], nextToken: "more" };

const SOUND: Answers = {
  HeadBucketCommand: () => dated(new Date(NOW_MS)),
  GetFunctionCommand: () => ({ Configuration: { State: "Active", CodeSha256: "" } }),
  GetQueueAttributesCommand: () => ({
    Attributes: { ApproximateNumberOfMessages: "0", ApproximateNumberOfMessagesNotVisible: "0" },
  }),
};

Deno.test("status says where it stopped looking, and nothing where it saw all", async () => {
  const asked: number[] = [];
  const { stack } = fakeStack({
    ...SOUND,
    FilterLogEventsCommand: ({ startTime, endTime }) => {
      asked.push(Number(startTime));
      return endTime === undefined ? {} : EMPTY_PAGE;
    },
  });
  const status = await readStatus(stack, "", []);
  assert.equal(asked.length, 40);
  assert.ok(new Set(asked).size > 2); // shorter spans each time
  assert.equal(status.rowsSince!.slice(0, 18), "2100-01-30T23:59:4");
  const text = statusToText(status);
  assert.match(text, /^No row was written lately\.$/m);
  assert.match(
    text,
    /^The log is large: rows written more than 15 s ago were not looked for\.$/m,
  );
  const { stack: small } = fakeStack(SOUND);
  const whole = await readStatus(small, "", []);
  assert.equal(whole.rowsSince, undefined);
  assert.doesNotMatch(statusToText(whole), /large/);
});

Deno.test("newestRows() stops looking after 15 seconds", async () => {
  let nowMs = NOW_MS;
  const { stack, calls } = fakeStack({
    FilterLogEventsCommand: () => {
      nowMs += 4000;
      return EMPTY_PAGE;
    },
  });
  const { since } = await newestRows(stack, () => nowMs);
  assert.equal(calls.length, 4);
  assert.equal(since, new Date(NOW_MS).toISOString());
});

Deno.test("searchBack() reads each line once, and few in vain", async () => {
  const { log, answers } = largeLog(0);
  const { stack } = fakeStack(answers);
  const sinceMs = NOW_MS - DAY_MS / 4;
  const times: number[] = [];
  for await (const { lines } of searchBack(stack.logs, "log", { sinceMs, now: () => log.nowMs })) {
    times.unshift(...lines.map(({ timestamp }) => timestamp));
  }
  assert.equal(times.length, DAY_MS / 4 / 75 + 1);
  assert.ok(times.every((ms, i) => ms === sinceMs + 75 * i));
  assert.ok(log.lines < 1.3 * times.length, `${log.lines} lines read for ${times.length}`);
});

Deno.test(
  "searchBack() loses no line where a full page has no token, as on the stand-in",
  async () => {
    const { log, answers: { FilterLogEventsCommand: answer } } = largeLog(0);
    const { stack } = fakeStack({
      FilterLogEventsCommand: async (input) =>
        typeof answer === "function" ? { ...await answer(input), nextToken: undefined } : {},
    });
    const sinceMs = NOW_MS - DAY_MS / 4;
    let found = 0;
    for await (
      const { lines } of searchBack(stack.logs, "log", {
        sinceMs,
        now: () => log.nowMs,
      })
    ) {
      found += lines.length;
    }
    assert.equal(found, DAY_MS / 4 / 75 + 1);
  },
);

Deno.test("rows --since reads no more of the log than it prints", async () => {
  const { log, answers } = largeLog(1000);
  const { stack } = fakeStack(answers);
  const sinceMs = NOW_MS - 7 * DAY_MS;
  const wanted = { sinceMs, prefix: "", limit: 50, now: () => log.nowMs };
  const rows = await Array.fromAsync(readRows(stack, wanted));
  assert.equal(rows.length, 50);
  assertNewestFirst(rows);
  assert.ok(log.calls <= 2, `${log.calls} calls`);
});

Deno.test("rows --since prints every row once, the newest first", async () => {
  const { log, answers } = largeLog(1000, { everyMs: 800 });
  const { stack } = fakeStack(answers);
  const sinceMs = NOW_MS - DAY_MS / 2;
  const wanted = { sinceMs, prefix: "", limit: Infinity, now: () => log.nowMs };
  const rows = await Array.fromAsync(readRows(stack, wanted));
  assert.equal(rows.length, 54_000 - 1);
  assert.equal(new Set(rows.map(({ file_key }) => file_key)).size, rows.length);
  assertNewestFirst(rows);
  assert.ok(log.lines < 2 * rows.length, `${log.lines} lines read for ${rows.length} rows`);
});

Deno.test("why sees seven days of a small log in few calls", async () => {
  const { log, answers } = largeLog(1000, { everyMs: DAY_MS });
  const { stack } = fakeStack({
    ...answers,
    GetQueueAttributesCommand: () => ({ Attributes: {} }),
  });
  const sinceMs = NOW_MS - 7 * DAY_MS;
  const why = await explain(stack, "in/no.txt", { sinceMs, now: () => log.nowMs });
  assert.equal(why.logSince, undefined);
  assert.ok(log.calls <= 5, `${log.calls} calls`);
});

Deno.test("why says where it stopped looking into a large log", async () => {
  const { log, answers } = largeLog(1000);
  const { stack } = fakeStack({
    ...answers,
    GetQueueAttributesCommand: () => ({ Attributes: {} }),
  });
  const sinceMs = NOW_MS - 7 * DAY_MS;
  const why = await explain(stack, "in/no.txt", { sinceMs, now: () => log.nowMs });
  assert.equal(log.calls, 10); // within a second
  assert.ok(Date.parse(why.logSince!) > sinceMs);
  assert.match(
    whyToText(why),
    /^log lines since 2100-01-\S+ \(the log is large: with --since it is searched longer\): 0$/m,
  );
});

function assertNewestFirst(rows: Item[]): void {
  const times = rows.map(({ timestamp }) => String(timestamp));
  assert.deepEqual(times, times.toSorted().reverse());
}
