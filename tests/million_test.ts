/** Tasks cost the same however much the stack holds, but for the deletions. */

import assert from "node:assert/strict";
import { sayWhatIsLost } from "../tasks/destroy.ts";
import { readStatus } from "../tasks/status.ts";
import type { Stack } from "../tasks/target.ts";
import { verifyStack } from "../tasks/verify.ts";
import { measured } from "./bench.ts";
import { fakeStack, largeLog, NO_FAILURES, NOTIFIES, progressOf } from "./fixtures.ts";

const RESOURCES = ["aws_dynamodb_table.files", "aws_s3_bucket.uploads[0]"]
  .map((address) => ({ address, attributes: { id: "app" }, tainted: false }));

/** Counts stop at 10,000. A page has 1,000 objects, or 1,100 rows of 900 bytes. */
const CALLS_OF_COUNTS = 10 + 10;

/** What reads the bucket, the table or the log, and the calls that it may make. */
const WORK: Record<string, { most: number; work: (stack: Stack) => Promise<unknown> }> = {
  "verify": {
    most: 12,
    work: (stack) =>
      verifyStack(stack, { samples: [], leftOut: [] }, {
        rowDeadlineMs: 0,
        firstRowDeadlineMs: 0,
        keep: false,
      }),
  },
  "status": { most: 12, work: (stack) => readStatus(stack, "", []) },
  "destroy, and deploy of a plan that deletes data": {
    most: CALLS_OF_COUNTS,
    work: (stack) => {
      const state = { name: "app", region: "us-east-1", resources: RESOURCES };
      return sayWhatIsLost({ place: "here" }, stack, state);
    },
  },
};

Deno.test("a task makes no more calls, however large the bucket, table and log", async (t) => {
  for (const [name, { most, work }] of Object.entries(WORK)) {
    await t.step(name, async () => {
      const { stack, calls } = fakeStack({
        ...NOTIFIES,
        ...largeLog(Date.now(), 1000),
        GetFunctionCommand: () => ({ Configuration: { State: "Active", CodeSha256: "" } }),
        ...NO_FAILURES,
        QueryCommand: () => ({ Items: [{ timestamp: { S: "t" }, event_name: { S: "x" } }] }),
        ListObjectVersionsCommand: ({ Prefix }) =>
          Prefix ? {} : {
            Versions: Array.from({ length: 1000 }, (_, i) => ({ Key: `k${i}` })),
            IsTruncated: true,
            NextKeyMarker: "k999",
          },
        ScanCommand: () => ({ Count: 1100, LastEvaluatedKey: {} }),
      });
      await progressOf(() => work(stack));
      assert.ok(calls.length > 0 && calls.length <= most, `${calls.length} calls`);
    });
  }
});

Deno.test("a backfill lists a bucket once, and sends 125 objects at once", async () => {
  const { services } = await measured("backfill", { objects: 2500, isRecorded: true });
  const { listings, others, runs } = services;
  assert.deepEqual({ listings, others, runs }, { listings: 3, others: 0, runs: 20 });
});

Deno.test("a backfill sends as much at once as Lambda takes, over TLS", async () => {
  const { services } = await measured("backfill", { objects: 10_000, takes: 9, runMs: 400 });
  const { runs, mostRuns, throttled } = services;
  assert.deepEqual([runs, mostRuns], [80, 9]); // it begins with 8
  assert.ok(throttled > 0 && throttled < runs / 2, `${throttled} of ${runs} throttled`);
});
