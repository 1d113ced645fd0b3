/** What `why` concludes of what it finds, and what it shows. */

import assert from "node:assert/strict";
import { conclude, explain, type Facts, keyMeant, whyToText } from "../tasks/why.ts";
import {
  clockAt,
  fakeStack,
  NO_FAILURES,
  NOTIFIES,
  progressOf,
  queue,
  toAttributes,
} from "./fixtures.ts";

const NOW_MS = Date.parse("2100-01-31T00:00:00Z");
const VERSION = { versionId: "v2", lastModified: "2026-01-02T03:04:05.000Z", size: 7 };
const FACTS: Facts = {
  key: "in/a.txt",
  matches: true,
  notifies: true,
  versions: [VERSION],
  rows: [],
  log: [],
  failures: [],
  messages: { lookedAt: 0, inQueue: 0 },
};
const ROW = { version_id: "v2", timestamp: "t", event_name: "ObjectCreated:Put" };
const REMOVAL = { version_id: "v2", timestamp: "u", event_name: "ObjectRemoved:Delete" };
const FAILURE = { failedAt: "2026-01-02T03:04:05.000Z", error: "E: denied" };

const CASES: [name: string, facts: Partial<Facts>, ok: boolean, conclusion: RegExp][] = [
  ["its row is there", { rows: [ROW] }, true, /^The newest version has its row\.$/],
  ["of an older version alone", { rows: [{ version_id: "v1" }] }, false, /did not arrive/],
  ["nothing at all", { versions: [] }, false, /^There is no such object and no row of it/],
  ["deleted for good", { versions: [], rows: [ROW] }, true, /deleted, with all its versions/],
  ["a delete marker", { versions: [{ versionId: "v3" }] }, true, /a delete marker is its newest/],
  [
    "its rows know that",
    { versions: [], rows: [REMOVAL, ROW] },
    true,
    /versions\. Its rows say so/,
  ],
  [
    "failed three times",
    { failures: [FAILURE] },
    false,
    /E: denied\. .* deno task replay --env x\.$/,
  ],
  ["of a deleted one", { versions: [], rows: [ROW], failures: [FAILURE] }, false, /failed three/],
  ["filtered out", { matches: false }, false, /^The trigger ignores this key/],
  ["failed just now", { lastError: "E: x" }, false, /^The function failed: E: x\. Lambda tries/],
  [
    "no trigger",
    { notifies: false },
    false,
    /: the bucket uploads does not call .* puts it right\. Run deno task backfill --env x then\.$/,
  ],
  ["no event", {}, false, / Run deno task backfill --prefix in\/a\.txt --env x\.$/],
  [
    "its event may be in the failure queue",
    { messages: { lookedAt: 900, inQueue: 100_000 } },
    false,
    / run deno task replay --dry-run --key in\/a\.txt --env x\.$/,
  ],
  ["a key with a command", { key: "$(id) `id`" }, false, / --prefix '\$\(id\) `id`' --env x\.$/],
  ["a key that can't be copied", { key: "a\n$(id)" }, false, / lost\. Run backfill; [^$]*$/],
];

Deno.test("conclude() says what is wrong with a key, and what to do", async (t) => {
  for (const [name, facts, ok, conclusion] of CASES) {
    await t.step(name, () => {
      const concluded = conclude({ ...FACTS, ...facts }, fakeStack({}).stack);
      assert.equal(concluded.ok, ok);
      assert.match(concluded.conclusion, conclusion);
    });
  }
});

Deno.test("explain() finds the very key's versions, rows, lines and events", async () => {
  const version = (Key: string, VersionId: string, day: number) => ({
    Key,
    VersionId,
    Size: 7,
    LastModified: new Date(Date.UTC(2026, 0, day)),
  });
  const line = (fields: object) => ({ timestamp: 0, message: JSON.stringify(fields) });
  const failed = { outcome: "failed", level: "ERROR", file_key: "in/a.txt", error: "E: no\u001b" };
  const { stack, calls } = fakeStack({
    ...NOTIFIES,
    ListObjectVersionsCommand: [{
      Versions: [version("in/a.txt", "2", 3), version("in/a.txt.bak", "9", 4)],
      DeleteMarkers: [{ Key: "in/a.txt", VersionId: "1", LastModified: new Date(0) }],
    }],
    QueryCommand: [{
      Items: [{ timestamp: { S: "t" }, version_id: { S: "0" }, event_name: { S: "x" } }],
    }],
    FilterLogEventsCommand: [{
      events: [{ message: "START" }, line(failed), line({ ...failed, file_key: "in/b.txt" })],
    }],
    ...NO_FAILURES,
    ReceiveMessageCommand: [{
      Messages: ["in/a.txt", "in/b.txt"].map((key) => ({
        MessageId: key,
        ReceiptHandle: key,
        Body: JSON.stringify({ Records: [{ s3: { object: { key } } }] }),
        Attributes: { SentTimestamp: "0" },
      })),
    }],
  });
  using _clock = clockAt(() => NOW_MS);
  const why = await explain(stack, "in/a.txt");
  assert.deepEqual(why.versions.map(({ versionId }) => versionId), ["2", "1"]);
  assert.equal(why.failures.length, 1);
  assert.equal(why.lastError, "E: no\u001b");
  assert.equal(why.log.length, 1);
  assert.equal(why.ok, false);
  const text = whyToText(why);
  assert.match(text, /^versions in the bucket: 2\n {2}2026-01-03T00:00:00.000Z {2}2 {2}7 bytes\n/m);
  assert.match(text, /1970-01-01T00:00:00.000Z {2}1 {2}delete marker$/m);
  assert.ok(!text.includes("\u001b"));
  // Looking changes nothing: the messages are visible again within a second.
  const changes = calls.filter(({ name }) => /Delete|Visibility/.test(name));
  assert.deepEqual(changes, []);
  const inputOf = (command: string) => calls.find(({ name }) => name === command)!.input;
  assert.equal(inputOf("ReceiveMessageCommand").VisibilityTimeout, 1);
  assert.equal(inputOf("FilterLogEventsCommand").startTime, NOW_MS - 7 * 86_400_000);
});

Deno.test("explain() looks a second at most at a key with 120,000 rows and messages", async () => {
  const later = <T>(answer: T) =>
    new Promise<T>((resolve) => setTimeout(() => resolve(answer), 100));
  let rows = 120_000;
  let received = 0;
  const { stack, calls } = fakeStack({
    ...NOTIFIES,
    QueryCommand: ({ Limit = 1000 }) => ({
      Items: Array.from(
        { length: Number(Limit) },
        () => toAttributes({ timestamp: "t", version_id: String(--rows) }),
      ),
      LastEvaluatedKey: { more: {} },
    }),
    ListObjectVersionsCommand: [{
      Versions: Array.from({ length: 1000 }, (_, i) => ({
        Key: "in/a.txt",
        VersionId: String(119_999 - i),
        Size: 1,
        LastModified: new Date(1e9 - i),
      })),
      IsTruncated: true,
      NextKeyMarker: "in/a.txt",
    }],
    FilterLogEventsCommand: () => later({ events: [], nextToken: "more" }),
    GetQueueAttributesCommand: () => queue(120_000, 7),
    ReceiveMessageCommand: () => {
      const Messages = Array.from({ length: 10 }, () => ({ MessageId: String(received++) }));
      return later({ Messages });
    },
  });
  const startMs = performance.now();
  const why = await explain(stack, "in/a.txt");
  const tookMs = performance.now() - startMs;
  assert.ok(tookMs < 2000, `${tookMs} ms`);
  assert.equal(rows, 120_000 - 100); // one page
  assert.equal(calls.filter(({ name }) => name === "QueryCommand").length, 1);
  assert.ok(why.ok);
  const text = whyToText(why);
  assert.match(text, /^versions in the bucket: the newest 1000 were looked at, the newest 5$/m);
  assert.match(text, /^rows: the newest 100 were looked at, the newest 5$/m);
  assert.match(
    text,
    /^log lines since \S+Z \(the log is large: with --since it is searched longer\): 0$/m,
  );
  assert.match(
    text,
    /^events in the failure queue \(\d{2,3} of about 120007 were looked at\): 0$/m,
  );
});

Deno.test("a filter pattern of more than 1,024 characters is not sent", async () => {
  for (const [length, isSent] of [[1005, true], [1006, false]] as const) {
    const key = "k".repeat(length);
    const { stack, calls } = fakeStack(NO_FAILURES);
    await explain(stack, key);
    const { input } = calls.find(({ name }) => name === "FilterLogEventsCommand")!;
    assert.equal(input.filterPattern, isSent ? `{ $.file_key = "${key}" }` : undefined);
  }
});

Deno.test("KEY is understood as people paste it", async (t) => {
  const NFC = "caf\u00e9";
  const NFD = "cafe\u0301";
  const form = ", in another Unicode form";
  const cases: [text: string, known: string[], key: string, said?: string][] = [
    ["none", [], "none"],
    ["s3://uploads/a/b", ["a/b"], "a/b"],
    ["s3://uploads/none", [], "none"],
    ["/a/b", ["/a/b", "a/b"], "/a/b"],
    ["/a/b", ["a/b"], "a/b", ""],
    ["a%20b", ["a b"], "a b", ""],
    ["a+b%2B", ["a b+"], "a b+", ""],
    ["100%", ["100%"], "100%"],
    [NFC, [NFD], NFD, form],
    [NFD, [NFC], NFC, form],
  ];
  for (const [text, known, expected, note] of cases) {
    await t.step(`${text} of ${known}`, async () => {
      const { stack } = fakeStack({
        // Half of them are rows, half of them objects.
        QueryCommand: ({ ExpressionAttributeValues: { ":key": { S: key } } }) => {
          const isRow = known.includes(key) && key.length % 2 === 0;
          return { Items: isRow ? [{ file_key: { S: key }, timestamp: { S: "t" } }] : [] };
        },
        ListObjectVersionsCommand: ({ Prefix }) => ({
          Versions: known.filter((key) => key === Prefix).map((key) => ({
            Key: encodeURIComponent(key),
          })),
        }),
      });
      let key;
      const said = await progressOf(async () => key = await keyMeant(stack, text));
      assert.deepEqual([key, said], [
        expected,
        note === undefined ? "" : `Taken for the key "${expected}"${note}\n`,
      ]);
    });
  }
  const { stack } = fakeStack({});
  for (const text of ["", "s3://uploads/", "k".repeat(1025)]) {
    await assert.rejects(keyMeant(stack, text), /^UserError: KEY must have 1 to 1024 bytes$/);
  }
});
