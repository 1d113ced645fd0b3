/** The simulation by hand-made cases, and what SCALE.md tells of limits and loads. */

import assert from "node:assert/strict";
import { read } from "./fixtures.ts";
import {
  CONCURRENCY,
  EVENT_AGE_MS,
  GROWTH,
  type Model,
  modelOf,
  NEW_TABLE_UNITS,
  placeOf,
  plot,
  RETRY_PAUSES_MS,
  RUN_MS,
  S3_PUTS,
  Simulation,
  TABLE_UNITS,
  tables,
  toCells,
  toSentence,
} from "./scale.ts";

/** One run at a time; a throttled event waits 1, 2, 4 s, up to 5 min. */
const SMALL: Model = { arrivals: [3], runMs: 10, concurrency: 1, units: 4000, random: () => 0 };

/** Cases that were reckoned by hand, and what comes of them. */
const CASES: [Partial<Model>, Partial<Simulation>][] = [
  // What is throttled waits, twice as long each time: one starts at 0 s, one at 1 s, one at 3 s.
  [{}, { rows: 3, failed: 0, mostWaiting: 3, lastRowMs: 3010, latestMs: 3010 }],
  // But for five minutes at most, until it is too old: they start at 0, 1, 3 ... 511 s, then every
  // 300 s. These are 80 until 21,511 s; the next would be over 6 h old.
  [{ arrivals: [81], runMs: 1000 }, { rows: 80, failed: 1, lastRowMs: 21_512_000 }],
  // Lambda makes a thousand environments in 10 s: a thousand start at 0; at 1 s these again and a
  // hundred more; at 3 s these and two hundred; one waits.
  [{ arrivals: [3401], runMs: 1000, concurrency: 5000 }, { rows: 3401, lastRowMs: 8000 }],
  // An idle environment runs again: after 10 s a thousand are idle, and as many can be made.
  [{ arrivals: [1000, 2000], runMs: 10_000, concurrency: 5000 }, { rows: 3000, lastRowMs: 20_000 }],
  // A run fails if the table refuses it four times, and its event after three runs.
  [{ concurrency: 3, units: 1e-9 }, { rows: 0, failed: 3 }],
  // The table takes twice as much once it has doubled: 100 units are saved up in a second, and 200
  // after half an hour; the rest is written one by one.
  [
    {
      arrivals: Object.assign(Array(180_101).fill(0), { 1000: 100, 180_100: 200 }),
      concurrency: 1000,
      units: 100,
    },
    { rows: 300, failed: 0, latestMs: 10 },
  ],
];

Deno.test("the simulation gives what is reckoned by hand", () => {
  for (const [given, expected] of CASES) {
    const { ...outcome } = new Simulation({ ...SMALL, ...given });
    assert.deepEqual({ ...outcome, ...expected }, outcome);
  }
});

Deno.test("the simulation loses no event, and has the same outcome each time", () => {
  const load = { perSecond: 5000, uploads: 100_000 };
  const failures = [10_000, 10_000, 275].map((concurrency) => {
    const { rows, failed } = new Simulation(modelOf(load, { concurrency, units: 300 }));
    assert.equal(rows + failed, load.uploads);
    return failed;
  });
  assert.ok(failures[0] > 1000 && failures[0] < 90_000, `${failures[0]} failed`);
  assert.equal(failures[1], failures[0]);
  assert.ok(failures[2] < failures[0]); // more concurrency without a warmed table: more events fail
  assert.match(
    toSentence([5000, 20, 10_000, 300]),
    /wait at most; .* after \d+ min; [\d,]+ events fail$/,
  );
});

Deno.test("SCALE.md shows what is computed", async () => {
  const scale = await read("docs/SCALE.md");
  const lines = scale.split("\n");
  for (const table of tables()) {
    const [from, to] = placeOf(lines, table[0]);
    const [head, _rule, ...rows] = lines.slice(from, to).map(toCells);
    assert.deepEqual([head, ...rows], table);
  }
  assert.equal(await read("docs/scale.svg"), plot());

  const atOnce = (runs: number) => Math.floor(runs * 1000 / RUN_MS);
  const limits = lines.filter((line) => /^\| [^|]+\| \[/.test(line)).map(toCells);
  assert.equal(limits.length, 10);
  const numberOf = (text: string) => Number(/[\d,]+/.exec(text)?.[0].replaceAll(",", ""));
  for (const [name, byDefault, uploads] of limits.filter(([, , uploads]) => uploads !== "any")) {
    const most = numberOf(byDefault);
    const isOfRuns = /^(Lambda|CloudWatch)/.test(name);
    assert.equal(numberOf(uploads), isOfRuns ? atOnce(most) : most, name);
  }
  const simulated = [S3_PUTS, NEW_TABLE_UNITS, TABLE_UNITS, CONCURRENCY, GROWTH.environments];
  const told = limits.map(([, byDefault]) => numberOf(byDefault));
  assert.deepEqual(simulated.filter((limit) => !told.includes(limit)), []);
  assert.match(scale, new RegExp(`10 would be\\s+enough for ${atOnce(10)} uploads a second`));
});

Deno.test("the simulation has main.tf's retries and age, and COST.md's row is one unit", async () => {
  const main = await read("main.tf");
  const setting = (name: string) => Number(main.match(new RegExp(`${name} += (\\d+)`))?.[1]);
  assert.equal(RETRY_PAUSES_MS.length, setting("maximum_retry_attempts"));
  assert.equal(EVENT_AGE_MS / 1000, setting("maximum_event_age_in_seconds"));
  const bytes = Number((await read("docs/COST.md")).match(/a row of (\d+) bytes/)?.[1]);
  assert.ok(bytes <= 1024, `a row of ${bytes} bytes takes more than a unit`);
});
