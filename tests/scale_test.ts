/** What COST.md, SCALE.md and README.md tell: costs by arithmetic, loads by the simulation. */

import assert from "node:assert/strict";
import { toJsonLine } from "../function/errors.ts";
import { handleEvent, PREFIX_BYTES, PREVIEW_CHARACTERS, type Row } from "../handler.ts";
import { NAMED } from "../tasks/leftovers.ts";
import { defaultMemoryMb, read } from "./fixtures.ts";
import { EVENT_TIME, fakes, object, toRecord } from "./outside.ts";
import {
  computed,
  CONCURRENCY,
  DOLLARS_PER_MILLION,
  EVENT_AGE_MS,
  GROWTH,
  LOG_GB_PER_MILLION,
  type Model,
  modelOf,
  NEW_TABLE_UNITS,
  RETRY_PAUSES_MS,
  RUN_MS,
  S3_PUTS,
  Simulation,
  TABLE_UNITS,
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
  const squeezed = (text: string) => text.replaceAll(/ +/g, " ");
  assert.equal(squeezed(scale), squeezed(computed(scale)));

  const atOnce = (runs: number) => Math.floor(runs * 1000 / RUN_MS);
  const limits = scale.split("\n").filter((line) => /^\| [^|]+\| \[/.test(line))
    .map((line) => line.split("|").slice(1).map((cell) => cell.trim()));
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

Deno.test("the simulation has main.tf's retries and age", async () => {
  const main = await read("main.tf");
  const setting = (name: string) => Number(main.match(new RegExp(`${name} += (\\d+)`))?.[1]);
  assert.equal(RETRY_PAUSES_MS.length, setting("maximum_retry_attempts"));
  assert.equal(EVENT_AGE_MS / 1000, setting("maximum_event_age_in_seconds"));
});

/** What bench.ts measures, and what a call usually takes: COST.md tells both. */
const CALL_MS = 20;
const CPU_MS = 2.1;

/**
 * Memory at which a function has one whole vCPU; below, it has that part of one:
 * https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
 */
const VCPU_MB = 1769;

/**
 * Lambda bills init too since 2025-08-01. AWS finds it in less than one call of 100:
 * https://aws.amazon.com/blogs/compute/aws-lambda-standardizes-billing-for-init-phase/
 * Its length is an assumption, as nothing was measured on AWS.
 */
const INIT_MS = 300;
const CALLS_AN_INIT = 100;

/**
 * What the platform adds to the log of an invocation, in JSON and at its level INFO:
 * https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html
 */
const requestId = "8286a188-ba32-4475-8077-530cd35c09a9";
const times = { durationMs: 54.321, billedDurationMs: 55 };
const metrics = { ...times, memorySizeMB: 256, maxMemoryUsedMB: 91 };
const PLATFORM_LINES = [
  { time: EVENT_TIME, type: "platform.start", record: { requestId, version: "$LATEST" } },
  { time: EVENT_TIME, type: "platform.report", record: { requestId, metrics, status: "success" } },
];

Deno.test("COST.md's figures are right", async () => {
  const memoryMb = await defaultMemoryMb();
  const gbSeconds = (ms: number) => ms * 1000 * memoryMb / 1024;
  const ms = Math.ceil(2 * CALL_MS + CPU_MS * VCPU_MB / memoryMb); // that memory buys so much CPU

  const records = await Promise.all(["\0", "a", "ä", "😀"].map(record));
  const [bare, ascii, ...others] = records.map(({ row }) => itemBytes(row));
  const units = others.map((bytes) => Math.ceil(bytes / 1024)).join(" or ");
  const logged = byteLength(records[1].line);
  const platform = PLATFORM_LINES.reduce((sum, line) => sum + toJsonLine(line).length, 0);
  const gigabytes = Number(((logged + platform) * 1e6 / 1024 ** 3).toFixed(2));

  const [runs, starts] = [gbSeconds(ms), gbSeconds(INIT_MS / CALLS_AN_INIT)];
  await says(
    `two calls of ${CALL_MS} ms and ${CPU_MS} ms of CPU are ${ms} ms at ${memoryMb} MB | `,
  );
  await says(`| ${runs.toLocaleString("en")} GB-seconds |`);
  await says(`if it takes ${INIT_MS} ms, and 1 call of ${CALLS_AN_INIT} begins with one | `);
  await says(`| ${starts} GB-seconds |`);
  await says(
    `a row of ${ascii} bytes, ${bare} without preview (${units} units in other alphabets)`,
  );
  assert.equal(Math.ceil(ascii / 1024), 1);
  await says(`a line of ${logged} bytes, and ${platform} of the platform's | ${gigabytes} GB |`);

  let total = 0;
  const rows = (await read("docs/COST.md"))
    .matchAll(/\| ([\d.,]+) [^|]+\| \$([\d.]+) [^|]+\| \$([\d.]+) +\|$/gm);
  for (const [row, quantity, price, cost] of rows) {
    assert.equal(cost, (Number(quantity.replace(",", "")) * Number(price)).toFixed(2), row);
    total += Number(cost);
  }
  await says(`| | | $${total.toFixed(2)} |`);
  const told = [RUN_MS, LOG_GB_PER_MILLION, DOLLARS_PER_MILLION.toFixed(2)];
  assert.deepEqual(told, [ms, gigabytes, total.toFixed(2)]);
  await says(`a million deletions cost at most $${(total - 0.40).toFixed(2)}, as they make no GET`);
  const large = itemBytes({ ...records[1].row, user_metadata: { note: "a".repeat(2044) } });
  await says(
    `makes that a row of ${large.toLocaleString("en")} bytes, ${Math.ceil(large / 1024)} units`,
  );
  await says(`A million uploads cost about $${total.toFixed(2)}`, "README.md");
  const alarms = NAMED.filter(({ address }) => address.startsWith("aws_cloudwatch_metric_alarm."));
  await says(`An idle stack costs its ${alarms.length} alarms, `);
});

async function says(text: string, document = "docs/COST.md"): Promise<void> {
  const said = (await read(document)).replaceAll(/\s+/g, " ");
  assert.ok(said.includes(text), `${document} does not say: ${text}`);
}

/** The row and the line of the log that the code makes of an upload that begins with `text`. */
async function record(text: string): Promise<{ row: Row; line: string }> {
  const bucket = "file-metadata-dev-20260102030405678900000001";
  const eTag = "d41d8cd98f00b204e9800998ecf8427e";
  const upload = {
    key: "reports/2026/first-quarter.txt",
    size: 5600,
    eTag,
    versionId: "096fKKXTRTtl3on89fVO.nfljtsv6qko",
    sequencer: "0055AED6DCD90281E5",
  };
  const answer = {
    ...object(text.repeat(PREVIEW_CHARACTERS)),
    ContentType: "text/plain; charset=utf-8",
    ContentRange: `bytes 0-${PREFIX_BYTES - 1}/5600`,
    ETag: `"${eTag}"`,
  };
  const { outside, calls } = fakes({ objects: { [upload.key]: answer } });
  await handleEvent({ Records: [toRecord(bucket, upload)] }, { ...outside, bucket });
  return { row: calls.rows[0], line: toJsonLine(calls.log[0]) + "\n" };
}

/**
 * An item's size, names and values:
 * https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
 */
function itemBytes(row: Row): number {
  return Object.entries(row).reduce((sum, [name, value]) => {
    const size = typeof value === "string"
      ? byteLength(value)
      : typeof value === "object"
      ? Object.entries(value).reduce((sum, pair) => sum + byteLength(pair.join("")) + 1, 3)
      : Math.ceil(String(value).replace(/0+$/, "").length / 2) + 1;
    return sum + byteLength(name) + size;
  }, 0);
}

function byteLength(text: string): number {
  return new TextEncoder().encode(text).length;
}
