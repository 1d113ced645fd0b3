/** The task backfill in a process of its own, against services behind TLS: what it calls. */

import assert from "node:assert/strict";
import { measured } from "./bench.ts";

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
