/** The rows task against fake clients: order, limits, CSV, and what it says of a large table. */

import assert from "node:assert/strict";
import type { Item } from "../tasks/rows.ts";
import { fakeStack, permittedTest, progressOf } from "./fixtures.ts";

const EVERYTHING = { prefix: "", limit: Infinity, now: Date.now };

permittedTest(
  "readRows() of a key asks for the newest first, and reads no more than it prints",
  async () => {
    const { readRows } = await import("../tasks/list_rows.ts");
    const { stack, calls } = await fakeStack({
      QueryCommand: () => ({ Items: [row("a", 3), row("a", 2)], LastEvaluatedKey: { x: 1 } }),
    });
    const rows = await Array.fromAsync(readRows(stack, { ...EVERYTHING, key: "a", limit: 3 }));
    assert.deepEqual(rows.map(({ processed_at }) => processed_at), [at(3), at(2), at(3)]);
    assert.equal(calls.length, 2);
    assert.equal(calls[0].input.ScanIndexForward, false);
  },
);

permittedTest("readRows() since a time goes by the log, and leaves out what is gone", async () => {
  const { readRows } = await import("../tasks/list_rows.ts");
  const line = (file_key: string, minute: number, outcome = "written") => ({
    message: JSON.stringify({ timestamp: at(9), outcome, file_key, event_time: at(minute) }),
  });
  const earlierLine = (file_key: string, minute: number) => ({
    message: JSON.stringify({ outcome: "written", file_key, timestamp: at(minute) }),
  });
  const { stack, calls } = await fakeStack({
    FilterLogEventsCommand: [{
      events: [
        earlierLine("in/old", 1),
        line("in/gone", 2),
        line("out/other", 3),
        line("in/failed", 4, "failed"),
        line("in/new", 5),
        line("in/old", 1), // written again
      ],
    }],
    BatchGetItemCommand: [
      {
        Responses: { files: [row("in/new", 5)] },
        UnprocessedKeys: { files: { Keys: [{ file_key: { S: "in/old" } }] } },
      },
      { Responses: { files: [row("in/old", 1)] } },
    ],
  });
  const wanted = { sinceMs: 0, prefix: "in/", limit: 10, now: () => 10_000 };
  const rows = await Array.fromAsync(readRows(stack, wanted));
  assert.deepEqual(rows.map(({ file_key }) => file_key), ["in/old", "in/new"]);
  const [{ input }] = calls.filter(({ name }) => name === "BatchGetItemCommand");
  const { files } = input.RequestItems as { files: { Keys: Record<string, { S: string }>[] } };
  assert.deepEqual(files.Keys.map(({ file_key, timestamp }) => [file_key.S, timestamp.S]), [
    ["in/old", at(1)],
    ["in/new", at(5)],
    ["in/gone", at(2)],
  ]);
});

permittedTest("readRows() sorts a small table, and streams a large one page by page", async () => {
  const { readRows } = await import("../tasks/list_rows.ts");
  const small = await fakeStack({ ScanCommand: [{ Items: [row("a", 1), row("b", 3)] }] });
  const sorted = await Array.fromAsync(readRows(small.stack, EVERYTHING));
  assert.deepEqual(sorted.map(({ file_key }) => file_key), ["b", "a"]);

  const pages = 150;
  const page = Array.from({ length: 1000 }, () => row("a", 1));
  let next = 0;
  const large = await fakeStack({
    ScanCommand: () => ({
      Items: page,
      ScannedCount: 1000,
      ...(++next < pages ? { LastEvaluatedKey: { x: 1 } } : {}),
    }),
    DescribeTableCommand: [{ Table: { ItemCount: 150_000, TableSizeBytes: 81_920_000 } }],
  });
  const said = await progressOf(async () => {
    let count = 0;
    for await (const _row of readRows(large.stack, EVERYTHING)) {
      // Two pages are held before the first row, and one afterwards.
      assert.ok(next <= Math.floor(count++ / 1000) + 2, `${next} pages read for ${count} rows`);
    }
    assert.equal(count, pages * 1000);
  });
  assert.equal(
    said,
    [
      "More than 1000 rows: they come in the table's own order",
      "100000 rows are read. The whole table has about 150000 rows and 82 MB: reading it costs " +
      "about $0.0013 (Ctrl-C stops)",
      "",
    ].join("\n"),
  );
});

permittedTest("toCsvLines() follows RFC 4180, and no cell becomes a formula", async () => {
  const { toCsvLines } = await import("../tasks/list_rows.ts");
  const rows: Item[] = [
    { file_key: 'a "quoted", key', timestamp: "t", file_size: 7, content_preview: "=1+1" },
    { file_key: "-1", timestamp: "t", content_preview: "two\nlines\r\n" },
    { file_key: "@x", timestamp: "t", content_preview: "\t+1" },
  ];
  assert.deepEqual(await Array.fromAsync(toCsvLines(toStream(rows))), [
    "file_key,timestamp,bucket_name,event_name,file_size,content_type,last_modified,processed_at," +
    "etag,version_id,sequencer,content_preview\r",
    `"a ""quoted"", key",t,,,7,,,,,,,'=1+1\r`,
    `'-1,t,,,,,,,,,,"two\nlines\r\n"\r`,
    `'@x,t,,,,,,,,,,'\t+1\r`,
  ]);
});

permittedTest("toTableLines() shows nothing that steers a terminal", async () => {
  const { toTableLines } = await import("../tasks/list_rows.ts");
  const item = { file_key: "a\u001b[31m", processed_at: at(1), content_preview: "b\u202e" };
  const lines = await Array.fromAsync(toTableLines(toStream([item]), Date.parse(at(3))));
  assert.deepEqual(lines, [
    "key          bytes  type    age  preview",
    "a\\u{1b}[31m               2 min  b\\u{202e}",
  ]);
});

permittedTest("followRows() prints every row that comes, and ends at the limit", async () => {
  const { followRows, toFollowedLines } = await import("../tasks/list_rows.ts");
  const line = (file_key: string) => ({
    timestamp: Date.parse(at(1)),
    message: JSON.stringify({ timestamp: at(9), outcome: "written", file_key, event_time: at(1) }),
  });
  const earlier = {
    timestamp: Date.parse(at(1)),
    message: JSON.stringify({ outcome: "written", file_key: "in/first", timestamp: at(1) }),
  };
  const keys = Array.from({ length: 250 }, (_, index) => `in/${index}`);
  const { stack, calls } = await fakeStack({
    FilterLogEventsCommand: [
      { events: [earlier, line("out/other")] },
      { events: [earlier, ...keys.map(line)] },
      { events: [line("in/last"), line("in/after")] },
      new Error("it looks once more"),
    ],
    BatchGetItemCommand: ({ RequestItems }) => {
      const { Keys } = (RequestItems as { files: { Keys: { file_key: { S: string } }[] } }).files;
      assert.ok(Keys.length <= 100);
      return { Responses: { files: Keys.map(({ file_key }) => row(file_key.S, 1)) } };
    },
  });
  const now = () => Date.parse(at(2));
  const wanted = { prefix: "in/", limit: 252, sinceMs: Date.parse(at(0)), now, pollMs: 1 };
  const lines = await Array.fromAsync(toFollowedLines(followRows(stack, wanted), now));
  assert.equal(
    lines[0],
    "key                                                bytes  type                 age  preview",
  );
  assert.equal(lines[1], "in/first".padEnd(78) + "60 s");
  const printed = lines.slice(1).map((text) => text.split(" ")[0]);
  assert.deepEqual(printed, ["in/first", ...keys, "in/last"]);
  const looks = calls.filter(({ name }) => name === "FilterLogEventsCommand");
  assert.equal(looks[0].input.startTime, Date.parse(at(0)));
});

function at(minute: number): string {
  return new Date(Date.UTC(2026, 0, 2, 3, minute)).toISOString();
}

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
