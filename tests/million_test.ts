/** Tasks cost the same with a million objects in the bucket as with ten, but for the deletions. */

import assert from "node:assert/strict";
import { lossesOf } from "../tasks/deploy.ts";
import { sayWhatIsLost } from "../tasks/destroy.ts";
import { readStatus } from "../tasks/status.ts";
import { verifyStack } from "../tasks/verify.ts";
import { type Answers, fakeLog, fakeStack, NOTIFIES, progressOf } from "./fixtures.ts";

const SIZES = { few: 10, many: 1_000_000 };

/** Counts stop there, and a listing's page has 1,000; a scan's page is 1 MB. */
const PAGES_OF_A_COUNT = { objects: 10, rows: 10 };

/** Rows of 900 bytes in a page of 1 MB. */
const ROWS_A_PAGE = 1100;

const PROBE_ROW = { timestamp: { S: "2026-01-02T03:04:05.000Z" }, event_name: { S: "x" } };

/** A stack whose bucket and table hold so many, written within a day. */
function holding(size: number): Answers {
  const index = (key: unknown) => Number(/(\d+)$/.exec(String(key ?? ""))?.[1] ?? -1);
  const { log, answers } = fakeLog({
    fromMs: Date.now() - 86_400_000,
    toMs: Date.now(),
    everyMs: Math.ceil(86_400_000 / size),
  });
  log.nowMs = Date.now();
  const mine = new Set<string>();
  return {
    ...NOTIFIES,
    ...answers,
    GetFunctionCommand: () => ({ Configuration: { State: "Active", CodeSha256: "" } }),
    GetQueueAttributesCommand: () => ({
      Attributes: { ApproximateNumberOfMessages: "0", ApproximateNumberOfMessagesNotVisible: "0" },
    }),
    PutObjectCommand: ({ Key }) => {
      mine.add(String(Key));
      return {};
    },
    QueryCommand: () => ({ Items: [PROBE_ROW] }),
    DeleteObjectsCommand: () => {
      mine.clear();
      return {};
    },
    ListObjectVersionsCommand: ({ Prefix, KeyMarker }) => {
      if (Prefix) return { Versions: [...mine].map((Key) => ({ Key, VersionId: "1" })) };
      const from = index(KeyMarker) + 1;
      const to = Math.min(size, from + 1000);
      return {
        Versions: Array.from({ length: to - from }, (_, i) => ({ Key: `k${from + i}` })),
        IsTruncated: to < size,
        NextKeyMarker: `k${to - 1}`,
      };
    },
    ScanCommand: ({ ExclusiveStartKey }) => {
      const { at = 0 } = (ExclusiveStartKey ?? {}) as { at?: number };
      const to = Math.min(size, at + ROWS_A_PAGE);
      return { Count: to - at, LastEvaluatedKey: to < size ? { at: to } : undefined };
    },
  };
}

type Work = (stack: Awaited<ReturnType<typeof fakeStack>>["stack"]) => Promise<unknown>;

const BEFORE: Record<string, Record<string, string>> = {
  "aws_dynamodb_table.files": { id: "files", name: "files" },
  "aws_s3_bucket.uploads": { id: "uploads" },
};

/** What reads the bucket, the table or the log, and how many calls more it may make for a million. */
const WORK: Record<string, { more: number; work: Work }> = {
  "verify": {
    more: 0,
    work: async (stack) => {
      await verifyStack(stack, { samples: [], leftOut: [] }, {
        rowDeadlineMs: 0,
        firstRowDeadlineMs: 0,
        keep: false,
      });
    },
  },
  "status": {
    more: 0, // fewer: its ten newest rows are nearer
    work: async (stack) => {
      await readStatus(stack, "", []);
    },
  },
  "deploy, of a plan that deletes data": {
    more: PAGES_OF_A_COUNT.objects + PAGES_OF_A_COUNT.rows,
    work: async (stack) => {
      const changes = Object.entries(BEFORE).map(([address, before]) => ({
        address,
        type: address.split(".")[0],
        actions: ["delete"],
        before,
        attributes: [],
      }));
      const losses = await lossesOf({ changes }, stack);
      assert.equal(losses.length, 2);
    },
  },
  "destroy, before it deletes": {
    more: PAGES_OF_A_COUNT.objects + PAGES_OF_A_COUNT.rows,
    work: async (stack) => {
      const resources = Object.entries(BEFORE)
        .map(([address, attributes]) => ({ address, attributes, tainted: false }));
      const state = { name: "app", region: "us-east-1", resources };
      await sayWhatIsLost({ place: "here" }, stack, state);
    },
  },
};

Deno.test("a task makes no more calls for a million objects than for ten", async (t) => {
  for (const [name, { more, work }] of Object.entries(WORK)) {
    await t.step(name, async () => {
      const counted: Record<string, number> = {};
      for (const [size, objects] of Object.entries(SIZES)) {
        const { stack, calls } = fakeStack(holding(objects));
        await progressOf(() => work(stack));
        counted[size] = calls.length;
      }
      assert.ok(counted.few > 0);
      assert.ok(counted.many <= counted.few + more, JSON.stringify(counted));
    });
  }
});
