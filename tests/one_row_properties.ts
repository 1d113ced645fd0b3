/**
 * Whatever the order of events, tasks and kills, a version has exactly one row: its event's, if that
 * was ever handled. To explore more of them, and see counts:
 *
 *   deno run --allow-all --lock=tests/deno.lock tests/one_row_properties.ts 100000
 */

import assert from "node:assert/strict";
import fc from "npm:fast-check@4.10.2";
import { type ModelRun, play, type Scenario, type Without } from "./one_row.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

const SKEW_MS = fc.constantFrom(0, 0, -2000, 2000);

/** No two uploads end in the same millisecond: they would have one key of the table. */
const UPLOAD = fc.record({
  gapMs: fc.constantFrom(1, 2, 300, 999, 1000, 5000, 61_000, 10 * MINUTE_MS, HOUR_MS),
  tookMs: fc.constantFrom(0, 0, 700, 5000, 6 * MINUTE_MS, HOUR_MS, 7 * 24 * HOUR_MS),
  alike: fc.boolean(),
  skewMs: SKEW_MS,
});

const around = (ms: number) => [-2000, -20, 0, 1, 5, 20, 2000].map((near) => ms + near);

const RUN: fc.Arbitrary<ModelRun> = fc.record({
  kind: fc.constantFrom("event", "event", "backfill", "job"),
  of: fc.nat(3),
  afterMs: fc.constantFrom(
    ...[0, 1000, MINUTE_MS],
    ...[5 * MINUTE_MS, 10 * MINUTE_MS, 11 * MINUTE_MS, HOUR_MS].flatMap(around),
    ...[6 * HOUR_MS, 14 * 24 * HOUR_MS],
  ),
  skewMs: SKEW_MS,
  callMs: fc.array(fc.constantFrom(1, 5, 10, 100, 4000), { minLength: 1, maxLength: 3 }),
  cut: fc.option(fc.record({ call: fc.nat(5), after: fc.boolean() }), { nil: undefined, freq: 4 }),
});

const SCENARIO: fc.Arbitrary<Scenario> = fc.record({
  versions: fc.boolean(),
  uploads: fc.array(UPLOAD, { minLength: 1, maxLength: 4 }),
  runs: fc.array(RUN, { minLength: 1, maxLength: 9 }),
  deleted: fc.option(
    fc.record({
      afterMs: fc.constantFrom(1, 1000, 4 * MINUTE_MS, 11 * MINUTE_MS, HOUR_MS - 1000),
      forGood: fc.boolean(),
    }),
    { nil: undefined, freq: 3 },
  ),
})
  // Without versions nothing tells the same bytes apart, as FAULTS.md says.
  .filter(({ versions, uploads }) => versions || !uploads.some(({ alike }) => alike));

/** Plays scenarios until one breaks the rule; counts what FAULTS.md excepts. */
async function explore(
  numRuns: number,
  { seed = 1, without }: { seed?: number; without?: Without } = {},
) {
  const known: Record<string, number> = {};
  const property = fc.asyncProperty(SCENARIO, async (scenario) => {
    const { breaches } = await play(scenario, without);
    for (const breach of breaches.filter((text) => text.startsWith("known: "))) {
      known[breach] = (known[breach] ?? 0) + 1;
    }
    assert.deepEqual(breaches.filter((text) => !text.startsWith("known: ")), []);
  });
  const { failed, counterexample } = await fc.check(property, { numRuns, seed });
  return { failed, counterexample, known };
}

Deno.test("F97 F98 one version has one row, its event's if that came, in any order", async () => {
  const { counterexample } = await explore(3000);
  assert.equal(counterexample, null, JSON.stringify(counterexample));
});

Deno.test("it would not without a late event's query, or a task's second look", async (t) => {
  for (const without of ["lateQuery", "secondLook"] as const) {
    await t.step(without, async () => {
      assert.ok((await explore(3000, { without })).failed);
    });
  }
});

if (import.meta.main) {
  const [numRuns = "100000", seed = "1", without] = Deno.args;
  const ended = await explore(Number(numRuns), { seed: Number(seed), without: without as Without });
  console.log(JSON.stringify(ended, null, 2));
  if (ended.counterexample) console.log(await play(...ended.counterexample, without as Without));
}
