/** The function's log against fake clients: what the stand-in cannot be made to answer. */

import assert from "node:assert/strict";
import { logToJson, logToText, readLog, searchBack, toLogLines } from "../tasks/logs.ts";
import { clockAt, fakeStack, largeLog } from "./fixtures.ts";

const NOW_MS = Date.parse("2100-01-31T00:00:00.000Z");

Deno.test("logToText() shows what people look for, whoever wrote the line", () => {
  const timestamp = Date.parse("2026-01-02T03:04:05.678Z");
  const time = "2026-01-02T03:04:05.678Z";
  const platform = (type: string, record: object) => JSON.stringify({ time, type, record });
  const cases = [
    [
      '{"level":"INFO","outcome":"written","file_key":"a\\u001b[31m","duration_ms":12}',
      `${time}  INFO   written       12 ms  a\\u{1b}[31m`,
    ],
    [
      '{"level":"ERROR","outcome":"failed","file_key":"a","error":"Cannot","duration_ms":1}',
      `${time}  ERROR  failed         1 ms  a  Cannot`,
    ],
    [
      '{"level":"INFO","outcome":"written","file_key":"a","object":"deleted","duration_ms":1}',
      `${time}  INFO   written        1 ms  a  object deleted`,
    ],
    [
      '{"level":"INFO","outcome":"unchanged","file_key":" a\\u3000"}\n',
      `${time}  INFO   unchanged            \\u{20}a\\u{3000}`,
    ],
    ['{"timestamp":"x","level":"ERROR","message":"odd"}', `${time}  ERROR  odd`],
    ['{"errorType":"E","errorMessage":"broke"}', `${time}  ERROR  E: broke`],
    ['{"errorMessage":"timed out"}', `${time}  ERROR  timed out`],
    ["no JSON at all\n", `${time}         no JSON at all`],
    [
      platform("platform.report", { status: "timeout" }),
      `${time}  ERROR  the run ended with timeout`,
    ],
    [platform("platform.report", { status: "success" }), undefined],
    [platform("platform.start", {}), undefined],
    ["START RequestId: 1 Version: $LATEST", undefined],
    ["REPORT RequestId: 1", undefined],
  ] as const;
  for (const [message, expected] of cases) {
    assert.equal(logToText({ timestamp, message }), expected, message);
  }
});

Deno.test("logToJson() makes one JSON object of any line", () => {
  const pretty = JSON.stringify({ a: [1, "\n"] }, null, "\t") + "\r\n";
  assert.equal(logToJson({ timestamp: 0, message: pretty }), '{"a":[1,"\\n"]}');
  for (const message of ["no\nJSON", '"a text"', "[1]\n", "", '{"broken":']) {
    const line = logToJson({ timestamp: 0, message });
    assert.deepEqual(JSON.parse(line), { timestamp: "1970-01-01T00:00:00.000Z", message });
  }
});

Deno.test("readLog() shows every page's lines, ten minutes late ones too, each once", async () => {
  const MINUTE = 60_000;
  const START = 100 * MINUTE;
  const line = (atMs: number, eventId: string, timestamp: number, message: string) => ({
    atMs, // when it comes
    eventId,
    timestamp,
    message,
  });
  const all = [
    line(START, "1", START - 1000, "a"),
    line(START + 5000, "1'", START - 1000, "a"), // alike, of another run
    line(START + 20_000, "2", START + 1000, "late"),
    line(START + 12 * MINUTE, "3", START + 2 * MINUTE, "very late"),
    line(START + 40 * MINUTE, "4", START + 40 * MINUTE, "end"),
  ];
  let nowMs = START;
  const looks: number[] = [];
  const { stack } = fakeStack({
    FilterLogEventsCommand: ({ startTime, nextToken }) => {
      if (nextToken === undefined) looks.push(nowMs - Number(startTime));
      nowMs += 1000; // a call takes that long
      // A page may be empty, and not the last.
      if (nextToken === undefined) return { events: [], nextToken: "more" };
      const isThere = ({ atMs, timestamp }: typeof all[0]) =>
        atMs <= nowMs && timestamp >= Number(startTime);
      return { events: all.filter(isThere) };
    },
  });
  const seen: string[] = [];
  const sinceMs = START - 90 * MINUTE;
  using _clock = clockAt(() => nowMs);
  for await (const lines of readLog(stack, { sinceMs, follow: true, pollMs: 1 })) {
    seen.push(...lines.map(({ message }) => message));
    if (seen.includes("end")) break;
  }
  assert.deepEqual(seen, ["a", "a", "late", "very late", "end"]);
  assert.equal(looks[0], 90 * MINUTE);
  const longLooks = looks.slice(1).filter((backMs) => backMs > MINUTE);
  assert.ok(longLooks.every((backMs) => backMs > 10 * MINUTE && backMs < 12 * MINUTE));
  assert.ok(longLooks.length < looks.length / 10, `${longLooks.length} of ${looks.length}`);
});

Deno.test("toLogLines() chooses lines by key and by failure", async () => {
  const line = (fields: object) => ({ timestamp: 0, message: JSON.stringify(fields) });
  const written = line({ level: "INFO", outcome: "written", file_key: "in/a.txt" });
  const failed = line({ level: "ERROR", outcome: "failed", encoded_key: "in/%zz" });
  const timeout = line({ type: "platform.report", record: { status: "timeout" } });
  const start = { timestamp: 0, message: "START RequestId: 1" };
  const all = [written, failed, timeout, start];
  async function* pages() {
    yield all;
  }
  const cases = [
    [{ failed: false }, all],
    [{ failed: true }, [failed, timeout]],
    [{ key: "a.t", failed: false }, [written]],
    [{ key: "%zz", failed: true }, [failed]],
  ] as const;
  for (const [wanted, expected] of cases) {
    const lines = await Array.fromAsync(toLogLines(pages(), { ...wanted, json: true }));
    assert.deepEqual(lines, expected.map(logToJson), JSON.stringify(wanted));
  }
});

Deno.test("searchBack() reads the newest first, and says how far back it came", async () => {
  const { stack } = fakeStack(largeLog(NOW_MS, 0, 1000));
  const pages = await Array.fromAsync(searchBack(stack, { sinceMs: NOW_MS - 25_000_000 }));
  const times = pages.flatMap(({ lines }) => lines.map(({ timestamp }) => timestamp));
  assert.deepEqual(times, Array.from({ length: 25_001 }, (_, i) => NOW_MS - 1000 * i));
  const back = pages.map(({ since }) => since && NOW_MS - Date.parse(since));
  assert.deepEqual(back, [9_999_000, 19_999_000, undefined]);
});

Deno.test("searchBack() gives up after its time, and asks for no time that AWS refuses", async () => {
  let nowMs = NOW_MS;
  const { stack, calls } = fakeStack({
    FilterLogEventsCommand: () => {
      nowMs += 4000;
      return { events: [], nextToken: "more" }; // as CloudWatch may answer any number of times
    },
  });
  using _clock = clockAt(() => nowMs);
  const pages = await Array.fromAsync(searchBack(stack, { sinceMs: 0, mostMs: 15_000 }));
  assert.deepEqual(pages, Array(4).fill({ lines: [], since: new Date(NOW_MS).toISOString() }));
  assert.equal(calls[0].input.startTime, Date.parse("2024-01-01T00:00:00Z"));
});
