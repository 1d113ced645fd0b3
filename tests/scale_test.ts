/** The simulation by hand-made cases, and what README.md and SCALE.md tell of limits and loads. */

import assert from "node:assert/strict";
import { permittedTest, read } from "./fixtures.ts";
import {
  LOADS,
  MAXIMUM_AGE_MS,
  modelOf,
  needsOf,
  readUpload,
  RETRY_PAUSES_MS,
  standIn,
} from "./limits.ts";
import { type Model, simulate } from "./simulation.ts";

/** One run at a time, of 10 ms; a throttled event waits 1, 2, then 4 s. */
const SMALL: Model = {
  stepMs: 10,
  arrivals: [3],
  runMs: [10],
  concurrency: 1,
  growth: { environments: 1000, everyMs: 10_000 },
  throttled: { firstMs: 1000, mostMs: 4000, jitter: 0, isFailure: false },
  retryPausesMs: [60_000, 120_000],
  maximumAgeMs: 21_600_000,
  table: { unitsPerSecond: 1000, doublesEveryMs: 3_600_000, mostPerSecond: 1000 },
  writePausesMs: [],
};

/** Cases that were reckoned by hand, and what comes of them. */
const CASES: [string, Partial<Model>, Partial<ReturnType<typeof simulate>>][] = [
  // At 0 s one starts; at 1 s the second, at 3 s the third.
  ["throttled events wait, twice as long each time", {}, {
    rows: 3,
    parked: 0,
    throttles: 3,
    mostWaiting: 3,
    lastRowMs: 3010,
    latestMs: 3010,
  }],
  // At 0, 1, 3, 7 and 11 s.
  ["but no longer than the longest pause", { arrivals: [5] }, { rows: 5, lastRowMs: 11_010 }],
  ["until they are too old, and are parked then", { maximumAgeMs: 2999 }, {
    rows: 2,
    parked: 1,
    lastRowMs: 1010,
  }],
  ["a throttle may count as a failure", {
    arrivals: [4],
    throttled: { ...SMALL.throttled, isFailure: true },
    retryPausesMs: [4000, 8000],
  }, { rows: 3, parked: 1, throttles: 6, lastRowMs: 12_010 }],
  // Two start at 0 s; of two more at 0.64 s, one; at 1 s none, at 1.64 s one, the last at 3 s.
  ["environments are made two in 1.28 s", {
    arrivals: [3, ...Array(63).fill(0), 2],
    concurrency: 5,
    growth: { environments: 2, everyMs: 1280 },
    runMs: [5000],
  }, { rows: 5, throttles: 3, lastRowMs: 8000 }],
  ["an environment that is idle needs no new one", {
    arrivals: [1, ...Array(99).fill(0), 1],
    growth: { environments: 1, everyMs: 1e9 },
  }, { rows: 2, throttles: 0, lastRowMs: 1010 }],
  // A unit a second is none within half a second: three runs of two writes each.
  ["a run that the table refuses twice fails, and is parked after three", {
    concurrency: 3,
    table: { unitsPerSecond: 1, doublesEveryMs: 1e9, mostPerSecond: 1 },
    writePausesMs: [10],
    retryPausesMs: [100, 200],
  }, { rows: 0, parked: 3, refusals: 18 }],
  // Two units until 10 ms, and two more in each 10 ms after that: all others fit at 30 ms.
  ["the table takes twice as much once it has doubled", {
    arrivals: [6],
    concurrency: 6,
    table: { unitsPerSecond: 100, doublesEveryMs: 20, mostPerSecond: 200 },
    retryPausesMs: [10, 10],
  }, { rows: 6, refusals: 4, lastRowMs: 30 }],
];

Deno.test("simulate() gives what is reckoned by hand", async (t) => {
  for (const [name, given, expected] of CASES) {
    await t.step(name, () => {
      const outcome = simulate({ ...SMALL, ...given });
      assert.deepEqual({ ...outcome, ...expected }, outcome);
    });
  }
});

Deno.test("simulate() loses no event, and the same seed gives the same outcome", () => {
  const model = {
    ...SMALL,
    arrivals: Array(500).fill(7),
    runMs: [10, 20, 90],
    concurrency: 20,
    throttled: { ...SMALL.throttled, jitter: 0.5 },
    table: { unitsPerSecond: 300, doublesEveryMs: 1e9, mostPerSecond: 300 },
    writePausesMs: [100, 200, 400],
    maximumAgeMs: 8000,
  };
  const outcomes = [1, 1, 2].map((seed) => simulate(model, { seed }));
  for (const { rows, parked } of outcomes) {
    assert.equal(rows + parked, 3500);
    assert.ok(rows > 1000 && parked > 100, `${rows} rows, ${parked} parked`);
  }
  assert.deepEqual(outcomes[0], outcomes[1]);
  assert.notDeepEqual(outcomes[0], outcomes[2]);
});

permittedTest("README.md and SCALE.md show what is computed", async (t) => {
  const { PLOT, tableIn, tablesOf } = await import("./simulate.ts");
  const { plotOf } = await import("./scale_plot.ts");
  const upload = await readUpload();
  for (const [path, tables] of Object.entries(tablesOf(upload))) {
    const document = await read(path);
    for (const table of tables) {
      await t.step(`${path}: ${table[0].join(", ")}`, () => {
        assert.deepEqual(tableIn(document, table), table);
      });
    }
  }
  await t.step("the plot", async () => assert.equal(await read(PLOT), plotOf(upload)));
  await t.step("the sentences", async () => {
    const scale = (await read("docs/SCALE.md")).replaceAll(/\s+/g, " ");
    const forTen = Math.floor(10 * 1000 / upload.runMs);
    const { concurrency, retryPausesMs } = await standIn();
    const says = [
      `10 would be enough for ${forTen} uploads a second`,
      `${concurrency} runs at once`,
      `after ${retryPausesMs.map((ms) => ms / 1000).join(" and ")} s`,
    ];
    for (const text of says) assert.ok(scale.includes(text), `SCALE.md does not say: ${text}`);
  });
  await t.step("more concurrency without a warmed table parks more", () => {
    const load = LOADS.find(({ perSecond }) => perSecond === 10_000)!;
    const parkedWith = (concurrency: number) =>
      simulate(modelOf(load, upload, { concurrency })).parked;
    assert.ok(parkedWith(10_000) > parkedWith(needsOf(load, upload).runs));
  });
});

permittedTest("the limits are those that main.tf and README.md have", async () => {
  const main = await read("main.tf");
  const setting = (name: string) => Number(main.match(new RegExp(`${name} += (\\d+)`))?.[1]);
  assert.equal(RETRY_PAUSES_MS.length, setting("maximum_retry_attempts"));
  assert.equal(MAXIMUM_AGE_MS / 1000, setting("maximum_event_age_in_seconds"));
  const bytes = Number((await read("README.md")).match(/a row of (\d+) bytes/)?.[1]);
  assert.ok(bytes <= 1024, `a row of ${bytes} bytes takes more than a unit`);
});

permittedTest("simulate.ts prints the backlog of a load over time", async () => {
  const { run } = await import("./simulate.ts");
  const options = { rate: 100, seconds: 2, concurrency: 1, units: 50, "run-ms": 50 };
  const args = Object.entries(options).map(([name, value]) => `--${name}=${value}`);
  const lines = await run(args);
  assert.match(lines[0], /^after, s +waiting +parked$/);
  assert.match(
    lines.at(-1)!,
    /^200 rows, the last after \d+ (s|min), .* 0 events parked; at most 1\d\d w/,
  );
  assert.deepEqual(await run(args), lines);
  await assert.rejects(
    run(["--rate", "many"]),
    /^TypeError: --rate must be a number above 0: many$/,
  );
});
