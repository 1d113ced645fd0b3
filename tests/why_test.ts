/** What `why` concludes of what it finds, and what it shows. */

import assert from "node:assert/strict";
import type { Facts } from "../tasks/why.ts";
import { fakeStack, NOTIFIES, permittedTest } from "./fixtures.ts";

const VERSION = { versionId: "v2", lastModified: "2026-01-02T03:04:05.000Z", size: 7 };
const FACTS: Facts = {
  key: "in/a.txt",
  matches: true,
  notifies: true,
  versions: [VERSION],
  rows: [],
  log: [],
  failures: [],
};
const ROW = { version_id: "v2", timestamp: "t", event_name: "ObjectCreated:Put" };
const FAILURE = { parkedAt: "2026-01-02T03:04:05.000Z", error: "E: denied" };

const CASES: [name: string, facts: Partial<Facts>, ok: boolean, conclusion: RegExp][] = [
  ["its row is there", { rows: [ROW] }, true, /^The newest version has its row\.$/],
  ["of an older version alone", { rows: [{ version_id: "v1" }] }, false, /did not arrive/],
  ["nothing at all", { versions: [] }, false, /^There is no such object and no row of it/],
  ["deleted for good", { versions: [], rows: [ROW] }, true, /deleted, with all its versions/],
  ["a delete marker", { versions: [{ versionId: "v3" }] }, true, /a delete marker is its newest/],
  [
    "failed three times",
    { failures: [FAILURE] },
    false,
    /E: denied\. .* deno task replay --env x\.$/,
  ],
  ["of an object that is gone", { versions: [], failures: [FAILURE] }, false, /failed three/],
  ["filtered out", { matches: false }, false, /^The trigger ignores this key/],
  ["failed just now", { lastError: "E: x" }, false, /^The function failed: E: x\. Lambda tries/],
  ["no trigger", { notifies: false }, false, /: run deno task deploy --env x, then backfill\.$/],
  ["no event", {}, false, / Run deno task backfill --prefix in\/a\.txt --env x\.$/],
  ["a key with a command", { key: "$(id) `id`" }, false, / --prefix '\$\(id\) `id`' --env x\.$/],
  ["a key that can't be copied", { key: "a\n$(id)" }, false, / lost\. Run backfill; [^$]*$/],
];

permittedTest("conclude() says what is wrong with a key, and what to do", async (t) => {
  const { conclude } = await import("../tasks/why.ts");
  for (const [name, facts, ok, conclusion] of CASES) {
    await t.step(name, () => {
      const concluded = conclude({ ...FACTS, ...facts }, { flags: " --env x" });
      assert.equal(concluded.ok, ok);
      assert.match(concluded.conclusion, conclusion);
    });
  }
});

permittedTest("explain() finds the very key's versions, rows, lines and events", async () => {
  const { explain, whyToText } = await import("../tasks/why.ts");
  const version = (Key: string, VersionId: string, day: number) => ({
    Key,
    VersionId,
    Size: 7,
    LastModified: new Date(Date.UTC(2026, 0, day)),
  });
  const line = (fields: object) => ({ timestamp: 0, message: JSON.stringify(fields) });
  const failed = { outcome: "failed", level: "ERROR", file_key: "in/a.txt", error: "E: no\u001b" };
  const { stack, calls } = await fakeStack({
    ...NOTIFIES,
    ListObjectVersionsCommand: [{
      Versions: [version("in/a.txt", "2", 3), version("in/a.txt.bak", "9", 4)],
      DeleteMarkers: [{ Key: "in/a.txt", VersionId: "1", LastModified: new Date(0) }],
    }],
    QueryCommand: [{
      Items: [{ timestamp: { S: "t" }, version_id: { S: "0" }, event_name: { S: "x" } }],
    }],
    FilterLogEventsCommand: [{
      events: [line({ ...failed, file_key: "in/b.txt" }), line(failed), { message: "START" }],
    }],
    GetQueueAttributesCommand: () => ({ Attributes: {} }),
    ReceiveMessageCommand: [{
      Messages: ["in/a.txt", "in/b.txt"].map((key) => ({
        MessageId: key,
        ReceiptHandle: key,
        Body: JSON.stringify({ Records: [{ s3: { object: { key } } }] }),
        Attributes: { SentTimestamp: "0" },
      })),
    }],
  });
  const why = await explain(stack, "in/a.txt", { sinceMs: 0, now: () => 10_000 });
  assert.deepEqual(why.versions.map(({ versionId }) => versionId), ["2", "1"]);
  assert.equal(why.failures.length, 1);
  assert.equal(why.lastError, "E: no\u001b");
  assert.equal(why.log.length, 1);
  assert.equal(why.ok, false);
  const text = whyToText(why);
  assert.match(text, /^versions in the bucket: 2\n {2}2026-01-03T00:00:00.000Z {2}2 {2}7 bytes\n/m);
  assert.match(text, /1970-01-01T00:00:00.000Z {2}1 {2}delete marker$/m);
  assert.ok(!text.includes("\u001b"));
  // Looking changes nothing: the messages are given back.
  assert.equal(calls.filter(({ name }) => name === "DeleteMessageCommand").length, 0);
  assert.equal(calls.filter(({ name }) => name === "ChangeMessageVisibilityCommand").length, 2);
});
