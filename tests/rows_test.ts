/** The rows task and the feed against fake clients: order, limits, formats, and what a large table costs. */

import assert from "node:assert/strict";
import { ATTRIBUTES } from "../handler.ts";
import { followNews } from "../tasks/logs.ts";
import { readRows, toCsvCell, toCsvLines, toRowLines } from "../tasks/rows.ts";
import { type Item, rowsOfVersion, toItem } from "../tasks/table.ts";
import { visible } from "../tasks/terminal.ts";
import { clockAt, fakeStack, progressOf, toAttributes } from "./fixtures.ts";

const EVERYTHING = { prefix: "", limit: Infinity, follow: false };
const AS_TABLE = { json: false, csv: false, follow: false };

Deno.test("readRows() of a key reads the newest first, no more than it prints", async () => {
  const { stack, calls } = fakeStack({
    QueryCommand: () => ({ Items: [row("a", 3), row("a", 2)], LastEvaluatedKey: { x: 1 } }),
  });
  const rows = await Array.fromAsync(readRows(stack, { ...EVERYTHING, key: "a", limit: 3 }));
  assert.deepEqual(rows.map(({ processed_at }) => processed_at), [at(3), at(2), at(3)]);
  assert.equal(calls.length, 2);
  assert.equal(calls[0].input.ScanIndexForward, false);
});

Deno.test("F117 rows of a key say which are removals, and whether it is deleted", async () => {
  const marker = { event_name: "ObjectRemoved:DeleteMarkerCreated", version_id: "m" };
  const gone = { ...marker, event_name: "ObjectRemoved:Delete" };
  const isDeleted = "By these rows a is deleted\n";
  using _clock = clockAt(() => Date.parse(at(61)));
  const cases: [attributes: object[], limit: number, lines: RegExp, said: string][] = [
    [[{}], 9, /^a +60 min/m, ""],
    [[marker, {}], 9, /^a +deleted +59 min\na +60 min/m, isDeleted],
    [[gone, marker, {}], 9, /^a +version deleted +58 min\na +deleted +59 min\na +60 min/m, ""],
    [[gone, marker, {}], 1, /^a +version deleted +58 min$/m, ""], // by the newest alone it is
    [[gone], 1, /^a +version deleted +60 min$/m, isDeleted],
  ];
  for (const [attributes, limit, expected, said] of cases) {
    const Items = attributes.map((more, index) => ({
      ...row("a", attributes.length - index),
      ...toAttributes(more as Item),
    }));
    const { stack } = fakeStack({ QueryCommand: () => ({ Items }) });
    let lines: string[] = [];
    const print = async () => {
      const rows = readRows(stack, { ...EVERYTHING, key: "a", limit });
      lines = await Array.fromAsync(toRowLines(rows, AS_TABLE));
    };
    assert.equal(await progressOf(print), said);
    assert.match(lines.join("\n"), expected);
  }
});

Deno.test("readRows() since a time goes by the log, and leaves out what is deleted", async () => {
  const asked: string[][] = [];
  const { stack } = fakeStack({
    FilterLogEventsCommand: [{
      events: [
        line("in/old", 1),
        line("in/new", 5),
        line("out/other", 3),
        line("in/deleted", 2),
        line("in/old", 1), // written before, too
      ],
    }],
    BatchGetItemCommand: ({ RequestItems: { files: { Keys } } }) => {
      asked.push(Keys.map(({ file_key, timestamp }: Attributes) => `${file_key.S} ${timestamp.S}`));
      if (asked.length > 1) return { Responses: { files: [row("in/old", 1)] } };
      return {
        Responses: { files: [row("in/new", 5)] },
        UnprocessedKeys: { files: { Keys: Keys.slice(0, 1) } },
      };
    },
  });
  const rows = await Array.fromAsync(readRows(stack, { ...EVERYTHING, sinceMs: 0, prefix: "in/" }));
  assert.deepEqual(rows.map(({ file_key }) => file_key), ["in/old", "in/new"]);
  assert.deepEqual(asked, [
    [`in/old ${at(1)}`, `in/new ${at(5)}`, `in/deleted ${at(2)}`],
    [`in/old ${at(1)}`],
  ]);
});

Deno.test("readRows() sorts a small table, and streams a large one page by page", async () => {
  const small = fakeStack({ ScanCommand: [{ Items: [row("a", 1), row("b", 3)] }] });
  const sorted = await Array.fromAsync(readRows(small.stack, EVERYTHING));
  assert.deepEqual(sorted.map(({ file_key }) => file_key), ["b", "a"]);

  const page = Array.from({ length: 1000 }, () => row("a", 1));
  let read = 0;
  const LastEvaluatedKey = { x: 1 };
  const large = fakeStack({
    ScanCommand: () => ({ Items: page, ...(++read < 20 ? { LastEvaluatedKey } : {}) }),
  });
  const said = await progressOf(async () => {
    let count = 0;
    for await (const _row of readRows(large.stack, EVERYTHING)) {
      // Two pages are held before the first row, and one afterwards.
      assert.ok(read <= Math.floor(count++ / 1000) + 2, `${read} pages read for ${count} rows`);
    }
    assert.equal(count, 20_000);
  });
  assert.equal(
    said,
    "More than 1000 rows: they come in the table's own order, which is by key. For the newest " +
      "first add --limit N or --since 1h\n",
  );
});

Deno.test("readRows() goes by the log for the newest rows of a large table", async () => {
  const page = Array.from({ length: 600 }, (_, i) => row(`in/${i}`, 1));
  const { stack, calls } = fakeStack({
    ScanCommand: () => ({ Items: page, LastEvaluatedKey: { x: 1 } }),
    FilterLogEventsCommand: [{ events: [line("in/newer", 5), line("in/older", 5)] }],
    BatchGetItemCommand: [{ Responses: { files: [row("in/newer", 5), row("in/older", 5)] } }],
  });
  const wanted = { ...EVERYTHING, prefix: "in/", limit: 50 };
  let found: Item[] = [];
  const said = await progressOf(async () => {
    found = await Array.fromAsync(readRows(stack, wanted));
  });
  assert.deepEqual(found.map(({ file_key }) => file_key), ["in/newer", "in/older"]);
  assert.equal(calls.filter(({ name }) => name === "ScanCommand").length, 2);
  assert.equal(
    said,
    "More than 1000 rows: the function's log says which are the newest. For all, in the table's " +
      "own order, use --json or --csv without --limit\n" +
      "The log of 30 days names no more; --since 90d looks further back\n",
  );
});

Deno.test("rows that others wrote are shown as far as they go, none is left out", async () => {
  const foreign = {
    file_key: { S: "others" },
    timestamp: { S: "yesterday" },
    file_size: { N: "12345678901234567890123" },
    content_type: { BOOL: true },
    bytes: { B: new Uint8Array([1, 2]) },
    more: { M: { list: { L: [{ NULL: true }, { SS: ["a"] }] } } },
  };
  const { stack } = fakeStack({
    ScanCommand: [{
      Items: [{ ...row("ou\u001b", 1), content_preview: { S: "b\u202e" } }, foreign],
    }],
    QueryCommand: [{ Items: [foreign, row("others", 1)] }],
  });
  const all = await Array.fromAsync(readRows(stack, EVERYTHING));
  const ofKey = { ...EVERYTHING, key: "others", sinceMs: Date.parse(at(2)) };
  assert.deepEqual(await Array.fromAsync(readRows(stack, ofKey)), [all[0]]);
  const [json] = await Array.fromAsync(toRowLines(toStream(all), { ...AS_TABLE, json: true }));
  assert.deepEqual(JSON.parse(json), {
    file_key: "others",
    timestamp: "yesterday",
    file_size: "12345678901234567890123",
    content_type: '{"BOOL":true}',
    bytes: '{"B":"AQI="}',
    more: '{"M":{"list":{"L":[{"NULL":true},{"SS":["a"]}]}}}',
  });
  using _clock = clockAt(() => Date.parse(at(3)));
  assert.deepEqual(await Array.fromAsync(toRowLines(toStream(all), AS_TABLE)), [
    "key                         bytes  type             age  preview",
    'others    12345678901234567890123  {"BOOL":true}',
    "ou\\u{1b}                                          2 min  b\\u{202e}",
  ]);
});

Deno.test("toCsvCell() makes no formula of a spreadsheet's cell", () => {
  const cases = [
    ["-1", "'-1"],
    ['two "quoted"\r\nlines', 'two ""quoted""\r\nlines'],
    ["a=b - 1", "a=b - 1"],
    ["=1+1", "'=1+1"],
    ["@x", "'@x"],
    ["\uff1d1\uff0b1", "'\uff1d1\uff0b1"],
    ["\n\t +1", "\n\t '+1"],
    ["\u0000\u200b-1", "\u0000\u200b'-1"],
    ["a;=1", "a;'=1"],
    ['a;"=1', `a;""'=1`],
    ["a\t@1", "a\t'@1"],
    ["a\r\uff201\n=1", "a\r'\uff201\n'=1"],
  ];
  for (const [text, cell] of cases) assert.equal(toCsvCell(text), `"${cell}"`);
});

Deno.test("toCsvLines() has every attribute, and steers no terminal", async () => {
  const text = { file_key: "a", file_size: 7, content_preview: "\u001b[31m\r\n" };
  const item = toItem({ ...toAttributes(text), user_metadata: { M: { a: { S: "é" } } } });
  const lines = (atTerminal: boolean) =>
    Array.fromAsync(toCsvLines(toStream([item]), { atTerminal }));
  const head = ATTRIBUTES.map((name) => `"${name}"`).join(",");
  const texts: Record<string, unknown> = { ...text, user_metadata: '{""a"":""é""}' };
  const row = ATTRIBUTES.map((name) => `"${texts[name] ?? ""}"`).join(",");
  assert.deepEqual(await lines(false), [`\ufeff${head}\r`, `${row}\r`]);
  assert.deepEqual(await lines(true), [head, visible(row)]);
});

Deno.test("rows --follow prints every row that comes, and ends at the limit", async () => {
  const keys = Array.from({ length: 250 }, (_, index) => `in/${index}`);
  const first = line("in/first", 1);
  const { stack, calls } = fakeStack({
    FilterLogEventsCommand: [
      { events: [first, line("out/other", 1)] },
      { events: [first, ...keys.map((key) => line(key, 1))] },
      { events: [line("in/last", 1), line("in/after", 1)] },
      new Error("it looks once more"),
    ],
    BatchGetItemCommand: ({ RequestItems: { files: { Keys } } }) => {
      assert.ok(Keys.length <= 100);
      return { Responses: { files: Keys.map(({ file_key }: Attributes) => row(file_key.S, 1)) } };
    },
  });
  const wanted = { prefix: "in/", limit: 252, sinceMs: Date.parse(at(0)), pollMs: 1 };
  const rows = readRows(stack, { ...wanted, follow: true });
  using _clock = clockAt(() => Date.parse(at(2)));
  const lines = await Array.fromAsync(toRowLines(rows, { ...AS_TABLE, follow: true }));
  assert.equal(lines[0], `${"key".padEnd(51)}bytes  type                 age  preview`);
  assert.equal(lines[1], "in/first".padEnd(78) + "60 s");
  const printed = lines.slice(1).map((text) => text.split(" ")[0]);
  assert.deepEqual(printed, ["in/first", ...keys, "in/last"]);
  assert.equal(calls[0].input.startTime, Date.parse(at(0)));
});

Deno.test("rowsOfVersion() knows a version by its id, or without versions by its ETag", async () => {
  const rows: Item[] = [
    { n: "1", version_id: "v1", etag: "e" },
    { n: "2", version_id: "v2", etag: "e" },
    { n: "3", etag: "e" },
    { n: "4", etag: "other" },
  ];
  const { stack } = fakeStack({ QueryCommand: () => ({ Items: rows.map(toAttributes) }) });
  const upload = { bucket: "b", key: "a", timestamp: at(1), eventName: "x", etag: "e" };
  for (const [versionId, n] of [["v2", "2"], [undefined, "3"], ["null", "3"]] as const) {
    const found = await rowsOfVersion(stack, { ...upload, versionId });
    assert.deepEqual(found.map((row) => row.n), [n]);
  }
});

Deno.test("followNews() tells when each line came, and ends with its signal", async () => {
  const { stack } = fakeStack({
    FilterLogEventsCommand: [{ events: [line("a", 1, "failed"), { message: "START" }] }],
  });
  const ending = new AbortController();
  const { signal } = ending;
  const feed = followNews(stack, { sinceMs: 0, signal, pollMs: 1 });
  const { value: [{ atMs, timestamp }] } = await feed.next();
  assert.deepEqual([atMs, timestamp], [Date.parse(at(1)), at(1)]);
  ending.abort(new Error("over"));
  await assert.rejects(feed.next(), /over/);
});

/** A line of the function's log about a row of a minute. */
function line(file_key: string, minute: number, outcome = "written") {
  const message = { timestamp: at(9), outcome, file_key, event_time: at(minute) };
  return { eventId: file_key, timestamp: Date.parse(at(1)), message: JSON.stringify(message) };
}

function at(minute: number): string {
  return new Date(Date.UTC(2026, 0, 2, 3, minute)).toISOString();
}

type Attributes = ReturnType<typeof row>;

function row(file_key: string, minute: number) {
  return {
    file_key: { S: file_key },
    timestamp: { S: at(minute) },
    processed_at: { S: at(minute) },
  };
}

async function* toStream<T>(items: T[]): AsyncGenerator<T> {
  yield* items;
}
