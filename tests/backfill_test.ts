/** The task backfill against fake clients: what the stand-in cannot be made to answer. */

import assert from "node:assert/strict";
import { decodeKey } from "../handler.ts";
import { fakeTable, row } from "./fakes.ts";
import { dated, fakeStack, permittedTest, toAttributes } from "./fixtures.ts";
import type { Item } from "../tasks/rows.ts";

const OLD = new Date("2026-01-02T03:04:05.000Z");

/** A current version of 7 bytes, as a listing has it. */
function version(Key: string, VersionId: string) {
  const ETag = `"tag-${VersionId.replace(/\d/g, "x")}"`; // digits would be of an upload in parts
  return { Key, VersionId, IsLatest: true, ETag, Size: 7, LastModified: OLD };
}

const LISTING = {
  Versions: [
    version("in/done.txt", "a"),
    version("in/newer.txt", "b"),
    { ...version("in/newer.txt", "0"), IsLatest: false },
    version("in/unversioned.txt", "null"),
    { ...version("in/%20 +.txt", "null"), ETag: '"other"' },
    version("in/again.txt", "f"),
    version("in/wrong.csv", "c"),
    { ...version("in/meanwhile.txt", "d"), LastModified: new Date("2100-01-01") },
  ],
  DeleteMarkers: [{ Key: "in/deleted.txt", VersionId: "e", IsLatest: true, LastModified: OLD }],
};

const ROWS = [
  row("in/done.txt", { version_id: "a" }),
  // The row of the version before, of the very same content.
  row("in/newer.txt", { version_id: "0", etag: "tag-b" }),
  // Recorded before the bucket had versions.
  row("in/unversioned.txt", { etag: "tag-null" }),
  row("in/%20 +.txt", { etag: "the-one-before" }),
  // The same content again, since there are versions; the row of the first one stays.
  row("in/again.txt", { etag: "tag-f", event_name: "ObjectCreated:Backfill" }),
];

permittedTest("backfillRows() sends what has no row of its version, as S3 would", async () => {
  const { backfillRows } = await import("../tasks/backfill.ts");
  const { table, answers } = fakeTable(ROWS);
  const sent: Record<string, unknown>[] = [];
  const { stack, calls } = await fakeStack({
    ...answers,
    ListObjectVersionsCommand: () => LISTING,
    InvokeCommand: ({ Payload }) => {
      const { Records } = JSON.parse(new TextDecoder().decode(Payload as Uint8Array));
      for (const { eventName, eventTime, s3: { object } } of Records) {
        sent.push({ eventName, eventTime, ...object });
        const { versionId: version_id, eTag: etag } = object;
        table.rows.push(row(decodeKey(object.key), { version_id, etag }));
      }
      return {};
    },
  });
  const options = { prefix: "", dryRun: false, concurrency: 1, settleMs: 1000 };
  const lists = { failures: [], uncertain: [] };
  const counts = { ok: true, dryRun: false, objects: 5, ...lists, newer: 1, awaited: 0 };
  const dry = await backfillRows(stack, { ...options, dryRun: true });
  assert.deepEqual(dry, { ...counts, dryRun: true, recorded: 2, sent: 3 });
  assert.deepEqual(sent, []);
  assert.deepEqual(await backfillRows(stack, options), { ...counts, recorded: 2, sent: 3 });
  const common = { eventName: "ObjectCreated:Backfill", eventTime: OLD.toISOString(), size: 7 };
  assert.deepEqual(sent, [
    { ...common, key: "in/newer.txt", eTag: "tag-b", versionId: "b" },
    { ...common, key: "in/%2520+%2B.txt", eTag: "other" },
    { ...common, key: "in/again.txt", eTag: "tag-f", versionId: "f" },
  ]);
  assert.equal(calls.some(({ name }) => name === "DeleteItemCommand"), false);
  assert.deepEqual(await backfillRows(stack, options), { ...counts, recorded: 5, sent: 0 });
});

permittedTest("backfillRows() refuses a prefix that the trigger ignores", async () => {
  const { backfillRows } = await import("../tasks/backfill.ts");
  const { stack } = await fakeStack({});
  const options = { prefix: "out/", dryRun: false, concurrency: 1, settleMs: 0 };
  await assert.rejects(backfillRows(stack, options), {
    name: "UserError",
    message: /^No object below "out\/" is recorded: the stack's filter_prefix is "in\/"$/,
  });
});

permittedTest("backfillRows() waits until an object's own event has had its time", async () => {
  const { backfillRows } = await import("../tasks/backfill.ts");
  const LastModified = new Date("2100-01-01T00:00:00.000Z");
  const at = (ms: number) => new Date(LastModified.getTime() + ms).toISOString();
  const startMs = performance.now();
  const { table, answers } = fakeTable([]);
  setTimeout(() => table.rows.push(row("in/a.txt", { version_id: "a", timestamp: at(1) })), 20);
  const { stack, calls } = await fakeStack({
    ...answers,
    HeadBucketCommand: () => dated(new Date(LastModified.getTime() + 1000)),
    ListObjectVersionsCommand: () => ({
      Versions: [{ ...version("in/a.txt", "a"), LastModified }],
    }),
  });
  const options = { prefix: "in/a", dryRun: false, concurrency: 1, settleMs: 1100 };
  const { recorded, sent } = await backfillRows(stack, options);
  assert.deepEqual({ recorded, sent }, { recorded: 1, sent: 0 });
  assert.equal(calls.some(({ name }) => name === "InvokeCommand"), false);
  assert.ok(performance.now() - startMs >= 99);
});

permittedTest("backfillRows() tells each object's failure, though they went together", async () => {
  const { backfillRows } = await import("../tasks/backfill.ts");
  const { table, answers } = fakeTable([]);
  const { stack } = await fakeStack({
    ...answers,
    ListObjectVersionsCommand: () => ({
      Versions: ["a", "b", "c"].map((name) => ({
        Key: `in/${name}.txt`,
        VersionId: name,
        IsLatest: true,
        ETag: "t",
        LastModified: new Date(0),
      })),
    }),
    InvokeCommand: ({ Payload }) => {
      const keys = keysOf(Payload as Uint8Array);
      const timestamp = new Date(0).toISOString();
      if (keys.includes("in/a.txt")) {
        table.rows.push(row("in/a.txt", { version_id: "a", timestamp }));
      }
      if (!keys.includes("in/b.txt")) return {};
      const error = JSON.stringify({ errorType: "E", errorMessage: "b is bad" });
      return { FunctionError: "Unhandled", Payload: new TextEncoder().encode(error) };
    },
  });
  const options = { prefix: "", dryRun: false, concurrency: 1, settleMs: 0 };
  const report = await backfillRows(stack, options);
  assert.deepEqual(report.failures, [
    { key: "in/b.txt", reason: "E: b is bad" },
    { key: "in/c.txt", reason: "the function reports success, but this version has no row" },
  ]);
  assert.deepEqual([report.ok, report.objects, report.sent], [false, 3, 1]);
});

permittedTest("backfillRows() goes by S3's time, whatever the local clock shows", async () => {
  const { backfillRows } = await import("../tasks/backfill.ts");
  const s3Ms = Date.now() + 3_600_000; // the local clock is an hour slow
  const { stack } = await fakeStack({
    HeadBucketCommand: () => dated(new Date(s3Ms)),
    ListObjectVersionsCommand: () => ({
      Versions: [
        { ...version("in/old.txt", "a"), LastModified: new Date(s3Ms - 600_000) },
        { ...version("in/new.txt", "b"), LastModified: new Date(s3Ms + 3000) },
      ],
    }),
  });
  const options = { prefix: "", dryRun: true, concurrency: 1, settleMs: 0 };
  const { sent, newer } = await backfillRows(stack, options);
  assert.deepEqual({ sent, newer }, { sent: 1, newer: 1 });
});

permittedTest("backfillRows() finds the keys that a listing without encoding lost", async () => {
  const { backfillRows } = await import("../tasks/backfill.ts");
  const real: Record<string, string> = {
    "1": "in/a\rb.txt",
    "2": "in/a\r\nb\nc\r.txt",
    "3": "in/plain +%.txt",
    "5": "in/\n.csv",
  };
  const sent: string[] = [];
  const { stack } = await fakeStack({
    ListObjectVersionsCommand: () => ({
      Versions: [
        ...Object.entries(real).map(([id, key]) => version(key.replace(/\r\n?/g, "\n"), id)),
        version("in/lost\n.txt", "4"),
      ],
    }),
    HeadObjectCommand: ({ Key, VersionId }) => {
      if (real[String(VersionId)] === Key) {
        return { ETag: version("", String(VersionId)).ETag, ContentLength: 7 };
      }
      throw Object.assign(new Error("none"), { $metadata: { httpStatusCode: 404 } });
    },
    InvokeCommand: ({ Payload }) => {
      sent.push(...keysOf(Payload as Uint8Array));
      return {};
    },
  });
  const options = { prefix: "", dryRun: false, concurrency: 1, settleMs: 0 };
  const report = await backfillRows(stack, options);
  const found = [real["1"], real["2"], real["3"]];
  assert.deepEqual([...new Set(sent)].sort(), found.toSorted());
  assert.deepEqual(report.uncertain, [{ listedAs: "in/lost\n.txt", versionId: "4" }]);
  assert.equal(report.ok, false);
  assert.equal(report.objects, 3);
});

permittedTest("backfillRows() takes no listed key for another without versions", async () => {
  const { backfillRows } = await import("../tasks/backfill.ts");
  const objects: Record<string, string> = { "in/\n.txt": "other", "in/\r.txt": "tag" };
  const { stack } = await fakeStack({
    ...fakeTable([row("in/\r.txt", { etag: "tag" })]).answers,
    ListObjectVersionsCommand: () => ({
      Versions: [{ ...version("in/\n.txt", "null"), ETag: '"tag"' }],
    }),
    HeadObjectCommand: ({ Key }) => {
      const tag = objects[String(Key)];
      if (tag !== undefined) return { ETag: `"${tag}"`, ContentLength: 7 };
      throw Object.assign(new Error("none"), { $metadata: { httpStatusCode: 404 } });
    },
  });
  const options = { prefix: "", dryRun: true, concurrency: 1, settleMs: 0 };
  const { recorded, sent, uncertain } = await backfillRows(stack, options);
  assert.deepEqual({ recorded, sent, uncertain }, { recorded: 1, sent: 0, uncertain: [] });
});

permittedTest("backfillRows() reads few rows of a key that has 100,000", async (t) => {
  const { backfillRows } = await import("../tasks/backfill.ts");
  const key = "in/report.txt";
  const minute = (n: number) => new Date(Date.UTC(2026, 0, 1) + n * 60_000);
  const past = Array.from(
    { length: 100_000 },
    (_, n) =>
      row(key, { timestamp: minute(n).toISOString(), version_id: String(n), event_name: "x" }),
  );
  const cases = {
    "the newest version has its row": { n: 99_999, sent: 0, rows: past },
    "it has none": { n: 99_999, sent: 1, rows: past.slice(0, -1) },
    "newer versions were deleted": { n: 50_000, sent: 0, rows: past },
    "newer versions were deleted, and it has none": {
      n: 50_000,
      sent: 1,
      rows: past.toSpliced(50_000, 1),
    },
    "a backfill's row": {
      n: 99_999,
      sent: 0,
      rows: past.with(-1, { ...past.at(-1)!, event_name: "ObjectCreated:Backfill" }),
    },
  };
  for (const [name, { n, sent, rows }] of Object.entries(cases)) {
    await t.step(name, async () => {
      const { table, answers } = fakeTable(rows);
      const { stack } = await fakeStack({
        ...answers,
        ListObjectVersionsCommand: () => ({
          Versions: [{ ...version(key, String(n)), LastModified: minute(n) }],
        }),
      });
      const options = { prefix: "", dryRun: true, concurrency: 1, settleMs: 0 };
      assert.equal((await backfillRows(stack, options)).sent, sent);
      assert.ok(table.read <= 1500, `${table.read} rows read`);
    });
  }
});

permittedTest("backfillRows() finds the row of an upload that took days", async () => {
  const { backfillRows } = await import("../tasks/backfill.ts");
  const { version: v, LastModified } = { version: version("in/a.txt", "1"), LastModified: OLD };
  const ended = new Date(OLD.getTime() + 3 * 86_400_000).toISOString();
  const { answers } = fakeTable([row("in/a.txt", { version_id: "1", timestamp: ended })]);
  const { stack } = await fakeStack({
    ...answers,
    ListObjectVersionsCommand: () => ({ Versions: [{ ...v, LastModified, ETag: '"t-9"' }] }),
  });
  const options = { prefix: "", dryRun: true, concurrency: 1, settleMs: 0 };
  assert.equal((await backfillRows(stack, options)).recorded, 1);
});

permittedTest(
  "backfillRows() deletes its own row when the object's event came after all",
  async () => {
    const { backfillRows } = await import("../tasks/backfill.ts");
    const own = row("in/a.txt", { version_id: "1", timestamp: "2026-01-02T03:04:05.678Z" });
    const backfilled = row("in/a.txt", { version_id: "1", event_name: "ObjectCreated:Backfill" });
    const { table, answers } = fakeTable([own, backfilled]);
    const { stack } = await fakeStack({
      ...answers,
      ListObjectVersionsCommand: () => ({ Versions: [version("in/a.txt", "1")] }),
    });
    const options = { prefix: "", dryRun: false, concurrency: 1, settleMs: 0 };
    assert.equal((await backfillRows(stack, options)).recorded, 1);
    assert.deepEqual(table.rows, [own]);
  },
);

permittedTest(
  'backfillRows() takes version "null", an empty one and none for the same',
  async () => {
    const { backfillRows } = await import("../tasks/backfill.ts");
    for (const listed of ["null", "", undefined]) {
      for (const version_id of ["null", "", undefined]) {
        const { answers } = fakeTable([row("in/a.txt", { version_id, etag: "tag-x" })]);
        const { stack } = await fakeStack({
          ...answers,
          ListObjectVersionsCommand: () => ({
            Versions: [{ ...version("in/a.txt", "x"), VersionId: listed }],
          }),
        });
        const options = { prefix: "", dryRun: true, concurrency: 1, settleMs: 0 };
        const { recorded } = await backfillRows(stack, options);
        assert.equal(recorded, 1, `${listed} listed, ${version_id} in the row`);
      }
    }
  },
);

permittedTest(
  "backfillRows() waits for the event of an upload in parts that has just ended",
  async () => {
    const { backfillRows } = await import("../tasks/backfill.ts");
    const rows: Item[] = [];
    const { table, answers } = fakeTable(rows);
    const { stack, calls } = await fakeStack({
      ...answers,
      ListObjectVersionsCommand: () => ({
        Versions: [{ ...version("in/a.txt", "1"), ETag: '"t-2"' }], // begun long ago
      }),
    });
    const timestamp = new Date().toISOString();
    setTimeout(() => table.rows.push(row("in/a.txt", { version_id: "1", timestamp })), 20);
    const options = { prefix: "", dryRun: false, concurrency: 1, settleMs: 100 };
    const { recorded, sent } = await backfillRows(stack, options);
    assert.deepEqual({ recorded, sent }, { recorded: 1, sent: 0 });
    assert.equal(calls.some(({ name }) => name === "InvokeCommand"), false);
  },
);

permittedTest("backfillRows() does more at once until AWS throttles, then less", async (t) => {
  const { backfillRows } = await import("../tasks/backfill.ts");
  const cases = { "Lambda takes 16 at once": 16, "no more than --concurrency": 1000 };
  for (const [name, taken] of Object.entries(cases)) {
    await t.step(name, async () => {
      const keys = Array.from({ length: 6000 }, (_, n) => `in/${n}.txt`);
      const recorded = new Set<string>();
      const calls = { now: 0, most: 0, refused: 0 };
      const throttled = (name: string) => Object.assign(new Error("Rate"), { name });
      const early = [throttled("ProvisionedThroughputExceededException")];
      const { stack } = await fakeStack({
        ListObjectVersionsCommand: () => ({ Versions: keys.map((key) => version(key, "v")) }),
        ExecuteStatementCommand: ({ Parameters }) => {
          if (early.length > 0) throw early.pop();
          const texts = (Parameters as { S: string }[]).map(({ S }) => S).slice(0, -2);
          const found = texts.filter((key) => recorded.has(key));
          return { Items: found.map((key) => toAttributes(row(key, { version_id: "v" }))) };
        },
        InvokeCommand: async ({ Payload }) => {
          if (calls.now >= taken) {
            calls.refused++;
            throw throttled("TooManyRequestsException");
          }
          calls.most = Math.max(calls.most, ++calls.now);
          await new Promise((resolve) => setTimeout(resolve, 5));
          for (const key of keysOf(Payload as Uint8Array)) recorded.add(key);
          calls.now--;
          return {};
        },
      });
      const options = { prefix: "", dryRun: false, concurrency: 20, settleMs: 0 };
      const { ok, objects, sent } = await backfillRows(stack, options);
      assert.deepEqual({ ok, objects, sent }, { ok: true, objects: 6000, sent: 6000 });
      assert.equal(recorded.size, 6000);
      const { most, refused } = calls;
      assert.ok(most > 8, `${most} at once`);
      if (taken === 16) assert.ok(most === 16 && refused > 0 && refused < 20, `${refused} refused`);
      else assert.ok(most <= 20 && refused === 0, `${most} at once, ${refused} refused`);
    });
  }
});

permittedTest(
  "backfillRows() looks again for events that came late, and tells of others",
  async () => {
    const { backfillRows, backfillToText } = await import("../tasks/backfill.ts");
    const hour = 3_600_000;
    const ago = (ms: number) => new Date(Math.floor((Date.now() - ms) / 1000) * 1000);
    const given = {
      "in/late.txt": { LastModified: ago(hour), ETag: '"t"' },
      "in/young.txt": { LastModified: ago(29 * hour), ETag: '"t"' },
      "in/old.txt": { LastModified: ago(31 * hour), ETag: '"t"' },
      "in/parts.txt": { LastModified: ago(200 * hour), ETag: '"t-2"' },
      "in/old-parts.txt": { LastModified: ago(247 * hour), ETag: '"t-2"' },
      "in/fails.txt": { LastModified: ago(hour), ETag: '"t"' },
    };
    const { table, answers } = fakeTable([]);
    const timeOf = (key: string) => given[key as keyof typeof given].LastModified.toISOString();
    const put = (file_key: string, timestamp: string, event_name: string) => {
      const key = { file_key, timestamp, event_name, version_id: "v" };
      if (!table.rows.some((row) => row.file_key === file_key && row.timestamp === timestamp)) {
        table.rows.push(row(file_key, key));
      }
    };
    const { stack } = await fakeStack({
      ...answers,
      ListObjectVersionsCommand: () => ({
        Versions: Object.entries(given).map(([key, of]) => ({ ...version(key, "v"), ...of })),
      }),
      InvokeCommand: async ({ Payload }) => {
        const keys = keysOf(Payload as Uint8Array).filter((key) => key !== "in/fails.txt");
        for (const key of keys) put(key, timeOf(key), "ObjectCreated:Backfill");
        await Promise.resolve();
        if (keys.length === 0) { // the last: the backfill has seen the others' rows
          put("in/late.txt", timeOf("in/late.txt").replace(".000", ".700"), "ObjectCreated:Put");
        }
        return {};
      },
    });
    const options = { prefix: "", dryRun: false, concurrency: 1, settleMs: 0 };
    const report = await backfillRows(stack, options);
    assert.deepEqual([report.sent, report.failures.length, report.awaited], [5, 1, 2]);
    const until = new Date(Date.parse(timeOf("in/parts.txt")) + 246 * hour).toISOString();
    assert.equal(report.awaitedUntil, until);
    const names = table.rows.filter(({ file_key }) => file_key === "in/late.txt");
    assert.deepEqual(names.map(({ event_name }) => event_name), ["ObjectCreated:Put"]);
    assert.equal(table.rows.length, 5);
    assert.ok(
      backfillToText(report).includes(
        `The own events of 2 objects may still come, until ${until} at the latest: run it again then`,
      ),
    );
  },
);

/** The keys of an event's objects. */
function keysOf(payload: Uint8Array): string[] {
  const { Records } = JSON.parse(new TextDecoder().decode(payload));
  return Records.map(({ s3 }: { s3: { object: { key: string } } }) => decodeKey(s3.object.key));
}
