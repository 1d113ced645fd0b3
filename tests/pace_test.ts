/** How much backfill does at once: as much as AWS takes, and never more than it may. */

import assert from "node:assert/strict";
import { makePace } from "../tasks/pace.ts";

Deno.test("makePace() allows one more after each round, and half after a refusal", () => {
  let nowMs = 0;
  const pace = makePace(12, () => nowMs);
  const round = () => {
    for (let left = pace.limit(); left > 0; left--) pace.ended();
    return pace.limit();
  };
  assert.equal(pace.limit(), 8);
  assert.deepEqual(Array.from({ length: 8 }, round), [8, 9, 10, 11, 12, 12, 12, 12]);
  nowMs = 100;
  pace.throttled(50);
  assert.equal(pace.limit(), 6);
  pace.throttled(60); // of the same crowd
  pace.throttled(100);
  assert.equal(pace.limit(), 6);
  nowMs = 200;
  for (const beganMs of [101, 150, 200]) pace.throttled(beganMs);
  assert.equal(pace.limit(), 3);
  for (nowMs of [300, 400, 500]) pace.throttled(nowMs - 1);
  assert.equal(pace.limit(), 1);
  assert.deepEqual(Array.from({ length: 4 }, round), [2, 2, 3, 4]);
  assert.equal(makePace(3).limit(), 3);
});
