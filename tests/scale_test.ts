/** The simulation by hand-made cases, and what SCALE.md tells of limits and loads. */

import assert from "node:assert/strict";
import { read } from "./fixtures.ts";
import {
  backlogOf,
  CONCURRENCY,
  count,
  EVENT_AGE_MS,
  GROWTH,
  type Model,
  modelOf,
  NEW_TABLE_UNITS,
  placeOf,
  plotOf,
  readUpload,
  RETRY_PAUSES_MS,
  S3_PUTS,
  simulate,
  TABLE_UNITS,
  tablesOf,
  toCells,
} from "./scale.ts";

/** One run at a time; a throttled event waits 1, 2, 4 s, up to 5 min. */
const SMALL: Model = {
  arrivals: [3],
  runMs: 10,
  stepMs: 10,
  concurrency: 1,
  units: 4000,
  random: () => 0,
};

/** Cases that were reckoned by hand, and what comes of them. */
const CASES: [string, Partial<Model>, Partial<ReturnType<typeof simulate>>][] = [
  // At 0 s one starts; at 1 s the second, at 3 s the third.
  ["throttled events wait, twice as long each time", {}, {
    rows: 3,
    failed: 0,
    mostWaiting: 3,
    lastRowMs: 3010,
    latestMs: 3010,
  }],
  // At 0, 1, 3 ... 511 s, then every 300 s: 80 events until 21,511 s; the next would be over 6 h old.
  ["but five minutes at most, until they are too old", {
    arrivals: [81],
    stepMs: 1000,
    runMs: 1000,
  }, { rows: 80, failed: 1, lastRowMs: 21_512_000 }],
  // A thousand at 0, 10 and, two seconds after the second try, 20 s; a run takes 30 s.
  ["Lambda makes a thousand environments in 10 s", {
    arrivals: [2500],
    stepMs: 10_000,
    runMs: 30_000,
    concurrency: 5000,
  }, { rows: 2500, lastRowMs: 50_000 }],
  // After 10 s a thousand are idle again, and as many can be made.
  ["an environment that is idle needs no new one", {
    arrivals: [1000, 2000],
    stepMs: 10_000,
    runMs: 10_000,
    concurrency: 5000,
  }, { rows: 3000, lastRowMs: 20_000 }],
  ["a run that the table refuses four times fails, and goes to the failure queue after three", {
    concurrency: 3,
    units: 1e-9,
  }, { rows: 0, failed: 3 }],
  // 100 units are saved up in a second, and 200 after half an hour; the rest is written one by one.
  ["the table takes twice as much once it has doubled", {
    arrivals: Object.assign(Array(180_101).fill(0), { 1000: 100, 180_100: 200 }),
    concurrency: 1000,
    units: 100,
  }, { rows: 300, failed: 0, latestMs: 10 }],
];

Deno.test("simulate() gives what is reckoned by hand", async (t) => {
  for (const [name, given, expected] of CASES) {
    await t.step(name, () => {
      const outcome = simulate({ ...SMALL, ...given });
      assert.deepEqual({ ...outcome, ...expected }, outcome);
    });
  }
});

Deno.test("simulate() loses no event, and has the same outcome each time", () => {
  const load = { name: "", perSecond: 5000, uploads: 100_000 };
  const upload = { runMs: 55, dollarsPerMillion: 2, logGbPerMillion: 1 };
  const raised = { concurrency: 10_000, units: 300 };
  const [{ rows, failed }, again] = [1, 2].map(() => simulate(modelOf(load, upload, raised)));
  assert.equal(rows + failed, 100_000);
  assert.ok(rows > 10_000 && failed > 1000, `${rows} rows, ${failed} failed`);
  assert.equal(again.failed, failed);
  // More concurrency without a warmed table makes more events fail.
  assert.ok(simulate(modelOf(load, upload, { ...raised, concurrency: 275 })).failed < failed);

  const [head, ...lines] = backlogOf(load, upload, raised);
  assert.match(head, /^after, s +waiting$/);
  assert.match(lines.at(-1)!, new RegExp(`^${count(rows)} rows, the last after \\d+ (s|min), `));
});

Deno.test("SCALE.md shows what is computed", async (t) => {
  const upload = await readUpload();
  const scale = await read("docs/SCALE.md");
  const lines = scale.split("\n");
  for (const table of tablesOf(upload)) {
    await t.step(table[0].join(", "), () => {
      const [from, to] = placeOf(lines, table);
      const [head, _rule, ...rows] = lines.slice(from, to).map(toCells);
      assert.deepEqual([head, ...rows], table);
    });
  }
  await t.step("the plot", async () => assert.equal(await read("docs/scale.svg"), plotOf(upload)));
  await t.step("the limits, as uploads a second", () => {
    const atOnce = (runs: number) => Math.floor(runs * 1000 / upload.runMs);
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
});

Deno.test(
  "the simulation has main.tf's retries and age, and COST.md's row is one unit",
  async () => {
    const main = await read("main.tf");
    const setting = (name: string) => Number(main.match(new RegExp(`${name} += (\\d+)`))?.[1]);
    assert.equal(RETRY_PAUSES_MS.length, setting("maximum_retry_attempts"));
    assert.equal(EVENT_AGE_MS / 1000, setting("maximum_event_age_in_seconds"));
    const bytes = Number((await read("docs/COST.md")).match(/a row of (\d+) bytes/)?.[1]);
    assert.ok(bytes <= 1024, `a row of ${bytes} bytes takes more than a unit`);
  },
);
