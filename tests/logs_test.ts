/** The task logs against fake clients: what the stand-in cannot be made to answer. */

import assert from "node:assert/strict";
import { followLog, isWanted, logToJson, logToText } from "../tasks/logs.ts";
import { fakeStack } from "./fixtures.ts";

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
      '{"level":"INFO","outcome":"written","file_key":"a","object":"gone","duration_ms":1}',
      `${time}  INFO   written        1 ms  a  object gone`,
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

Deno.test("logToText() tells keys apart that end in white space", () => {
  const show = (file_key: string) => {
    const message = JSON.stringify({ level: "INFO", outcome: "written", file_key }) + "\n";
    return logToText({ timestamp: 0, message })!.split("written")[1].trim();
  };
  assert.equal(show("a b"), "a b");
  assert.equal(show("a "), "a\\u{20}");
  assert.equal(show("a\n"), "a\\n");
  assert.equal(show(" a\u3000"), "\\u{20}a\\u{3000}");
});

Deno.test("logToJson() makes of any line one JSON object that steers no terminal", () => {
  const steering = "\u009b31m \u202e \u2028 \u2066 \ufeff \u{e0001} \u007f";
  const time = "1970-01-01T00:00:00.000Z";
  const whole = (message: string) => ({ timestamp: time, message });
  const cases: [string, unknown][] = [
    [JSON.stringify({ a: steering }), { a: steering }],
    [JSON.stringify({ a: [1, "\n"] }, null, "\t") + "\r\n", { a: [1, "\n"] }],
    ["no JSON " + steering, whole("no JSON " + steering)],
    ['"a text"', whole('"a text"')],
    ["[1]\n", whole("[1]\n")],
    ["", whole("")],
    ['{"broken":', whole('{"broken":')],
    ["two\nlines", whole("two\nlines")],
  ];
  for (const [message, expected] of cases) {
    const line = logToJson({ timestamp: 0, message });
    assert.deepEqual(JSON.parse(line), expected);
    assert.doesNotMatch(line, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u);
  }
  const exact = '{"a":12345678901234567890}';
  assert.equal(logToJson({ timestamp: 0, message: exact }), exact);
});

Deno.test(
  "followLog() shows every page's lines, ten minutes late ones too, each once",
  async () => {
    const line = (eventId: string | undefined, timestamp: number, message: string) => ({
      eventId,
      timestamp,
      message,
      logStreamName: "s",
    });
    const MINUTE = 60_000;
    const START = 100 * MINUTE;
    const all = [ // and when they come
      { atMs: START, ...line("1", START - 1000, "a") },
      { atMs: START + 5000, ...line("1'", START - 1000, "a") }, // alike, of another run
      { atMs: START, ...line(undefined, START, "no id") },
      { atMs: START + 20_000, ...line("2", START + 1000, "late") },
      { atMs: START + 12 * MINUTE, ...line("3", START + 2 * MINUTE, "very late") },
      { atMs: START + 40 * MINUTE, ...line("4", START + 40 * MINUTE, "end") },
    ];
    let nowMs = START;
    const looks: number[] = [];
    const { stack } = fakeStack({
      FilterLogEventsCommand: ({ startTime, nextToken }) => {
        if (nextToken === undefined) looks.push(nowMs - Number(startTime));
        nowMs += 1000; // a call takes that long
        const there = all.filter(({ atMs, timestamp }) =>
          atMs <= nowMs && timestamp >= Number(startTime)
        );
        // A page may be empty, and not the last.
        return nextToken === undefined ? { events: [], nextToken: "more" } : { events: there };
      },
    });
    const seen: string[] = [];
    const sinceMs = START - 90 * MINUTE;
    const options = { sinceMs, now: () => nowMs, pollMs: 1 };
    for await (const lines of followLog(stack.logs, "log", options)) {
      seen.push(...lines.map(({ message }) => message));
      if (seen.includes("end")) break;
    }
    assert.deepEqual(seen, ["a", "no id", "a", "late", "very late", "end"]);
    assert.equal(looks[0], 90 * MINUTE);
    const longLooks = looks.slice(1).filter((backMs) => backMs > MINUTE);
    assert.ok(longLooks.every((backMs) => backMs > 10 * MINUTE && backMs < 12 * MINUTE));
    assert.ok(longLooks.length < looks.length / 10, `${longLooks.length} of ${looks.length}`);
  },
);

Deno.test("isWanted() chooses lines by key and by failure", () => {
  const line = (fields: object) => ({ timestamp: 0, message: JSON.stringify(fields) });
  const written = line({ level: "INFO", outcome: "written", file_key: "in/a.txt" });
  const failed = line({ level: "ERROR", outcome: "failed", encoded_key: "in/%zz" });
  const timeout = line({ type: "platform.report", record: { status: "timeout" } });
  const start = { timestamp: 0, message: "START RequestId: 1" };
  const cases = [
    [{ failed: false }, [true, true, true, true]],
    [{ failed: true }, [false, true, true, false]],
    [{ key: "a.t", failed: false }, [true, false, false, false]],
    [{ key: "%zz", failed: true }, [false, true, false, false]],
  ] as const;
  for (const [options, expected] of cases) {
    const wanted = [written, failed, timeout, start].map((event) => isWanted(event, options));
    assert.deepEqual(wanted, expected, JSON.stringify(options));
  }
});
