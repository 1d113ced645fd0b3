/**
 * How far AWS lets the pipeline go: its limits, from AWS's documentation of November 2026, and loads,
 * with what they need and the model that simulates them.
 */

import { read } from "./fixtures.ts";
import type { Model } from "./simulation.ts";

const S3_PUTS = 3500;
const S3_GETS = 5500;
const PARTITION_UNITS = 1000;
const NEW_TABLE_UNITS = 4000;
const DOUBLES_EVERY_MS = 30 * 60_000;
export const TABLE_UNITS = 40_000;
const CONCURRENCY = 1000;
const GROWTH = { environments: 1000, everyMs: 10_000 };
const LOG_CALLS = 5000;

/** Their pages in AWS's documentation. */
const DOCS = "https://docs.aws.amazon.com";
const DYNAMO_DOCS = `${DOCS}/amazondynamodb/latest/developerguide`;
const SOURCES = {
  s3: `${DOCS}/AmazonS3/latest/userguide/optimizing-performance.html`,
  partition: `${DYNAMO_DOCS}/warm-throughput-scenarios.html`,
  newTable: `${DYNAMO_DOCS}/on-demand-capacity-mode.html`,
  table: `${DYNAMO_DOCS}/ServiceQuotas.html`,
  concurrency: `${DOCS}/lambda/latest/dg/gettingstarted-limits.html`,
  growth: `${DOCS}/lambda/latest/dg/scaling-behavior.html`,
  retries: `${DOCS}/lambda/latest/dg/invocation-async-error-handling.html`,
  log: `${DOCS}/AmazonCloudWatch/latest/monitoring/CloudWatch-OTLPEndpoint.html`,
};

/**
 * Pauses of throttled events, and of failed ones, whose number and age main.tf sets: from
 * SOURCES.retries. That half of a pause is left to chance is assumed.
 */
export const THROTTLED = { firstMs: 1000, mostMs: 5 * 60_000, jitter: 0.5, isFailure: false };
export const RETRY_PAUSES_MS = [60_000, 120_000];
export const MAXIMUM_AGE_MS = 6 * 3_600_000;

/**
 * Longest pauses of the SDK's DynamoDB client between its four attempts, when it is throttled:
 * https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
 */
const WRITE_PAUSES_MS = [1000, 2000, 4000];

/** What is asked for above what a load needs, so that a backlog shrinks. */
const HEADROOM = 1.25;

/** What README.md tells of an upload, which cost_test.ts checks. */
export interface Upload {
  runMs: number;
  dollarsPerMillion: number;
  logGbPerMillion: number;
}

export async function readUpload(): Promise<Upload> {
  const readme = (await read("README.md")).replaceAll(/ +/g, " ");
  const figure = (pattern: RegExp) => {
    const found = readme.match(pattern);
    if (found === null) {
      throw new Error(`Cannot read README.md's costs: nothing is like ${pattern}`);
    }
    return Number(found[1]);
  };
  return {
    runMs: figure(/ are (\d+) ms at \d+ MB/),
    dollarsPerMillion: figure(/^\| together.*\| \$([\d.]+) \|$/m),
    logGbPerMillion: figure(/ Logs: .*\| ([\d.]+) GB \|/),
  };
}

export interface Limit {
  name: string;
  byDefault: string;
  source: string;
  /** Uploads a second for which it is enough. */
  enoughFor(upload: Upload): number;
  /** Its name where a load exceeds it. */
  short: string;
  seen: string;
  raise: string;
}

const LATE = "rows come late: Lambda's metrics `Throttles` and `AsyncEventAge` rise";
const REFUSED = "rows come late: the table's metric `WriteThrottleEvents` rises";

export const LIMITS: Limit[] = [
  {
    name: "DynamoDB, one key: its rows share a partition",
    byDefault: `${count(PARTITION_UNITS)} units a second`,
    enoughFor: () => PARTITION_UNITS,
    source: SOURCES.partition,
    short: "one key",
    seen: REFUSED,
    raise: "nothing: spread the uploads over keys",
  },
  {
    name: "S3 PUT: uploads to one prefix",
    byDefault: `${count(S3_PUTS)} PUT a second`,
    enoughFor: () => S3_PUTS,
    source: SOURCES.s3,
    short: "S3 PUT",
    seen: "the uploader gets `503 SlowDown`, and tries again",
    raise: "more prefixes, or wait while S3 splits this one",
  },
  {
    name: "DynamoDB, new table: what it takes at first",
    byDefault: `${count(NEW_TABLE_UNITS)} units a second, twice that within 30 minutes`,
    enoughFor: () => NEW_TABLE_UNITS,
    source: SOURCES.newTable,
    short: "new table",
    seen: REFUSED,
    raise: "the table's warm throughput, before the load",
  },
  {
    name: "S3 GET: the function's reads of one prefix",
    byDefault: `${count(S3_GETS)} GET a second`,
    enoughFor: () => S3_GETS,
    source: SOURCES.s3,
    short: "S3 GET",
    seen: "runs take longer, as the SDK tries again",
    raise: "more prefixes, as above",
  },
  {
    name: "Lambda, concurrency: runs at the same time",
    byDefault: `${count(CONCURRENCY)}, shared by the account; new accounts have fewer`,
    enoughFor: ({ runMs }) => CONCURRENCY * 1000 / runMs,
    source: SOURCES.concurrency,
    short: "concurrency",
    seen: LATE,
    raise: "the quota Concurrent executions, and `reserved_concurrency` if it is set",
  },
  {
    name: "Lambda, growth: environments that it adds",
    byDefault: `${count(GROWTH.environments)} every ${GROWTH.everyMs / 1000} s`,
    enoughFor: ({ runMs }) => GROWTH.environments * 1000 / runMs,
    source: SOURCES.growth,
    short: "growth",
    seen: `${LATE}, until there are enough`,
    raise: "nothing: let the load grow slowly",
  },
  {
    name: "DynamoDB, table quota: what a table takes at all",
    byDefault: `${count(TABLE_UNITS)} units a second`,
    enoughFor: () => TABLE_UNITS,
    source: SOURCES.table,
    short: "table quota",
    seen: REFUSED,
    raise: "the quota Table-level write throughput",
  },
  {
    name: "Lambda, event age: how long an event waits",
    byDefault: `${MAXIMUM_AGE_MS / 3_600_000} hours`,
    source: SOURCES.retries,
    enoughFor: () => Infinity,
    short: "event age",
    seen: "the event is parked: `deno task status` fails, `deno task replay` runs it",
    raise: "nothing: it is Lambda's longest",
  },
  {
    name: "CloudWatch, log calls: if each environment sends its lines once a second",
    byDefault: `${count(LOG_CALLS)} a second`,
    enoughFor: ({ runMs }) => LOG_CALLS * 1000 / runMs,
    source: SOURCES.log,
    short: "log calls",
    seen: "lines of the log are late or missing; rows are not",
    raise: "the quota of PutLogEvents requests",
  },
];

export interface Load {
  name: string;
  perSecond: number;
  uploads: number;
}

const hourOf = (perSecond: number): Load => ({
  name: `${count(perSecond)} a second, for an hour`,
  perSecond,
  uploads: perSecond * 3600,
});

export const BURST: Load = { name: "a million in 10 s", perSecond: 100_000, uploads: 1e6 };
export const LOADS: Load[] = [...[10, 1000, 10_000, 100_000].map(hourOf), BURST];

/** What a load needs of AWS. */
export function needsOf({ perSecond, uploads }: Load, upload: Upload) {
  return {
    runs: Math.ceil(perSecond * upload.runMs / 1000),
    prefixes: Math.ceil(perSecond / S3_PUTS),
    units: perSecond,
    logGb: uploads * upload.logGbPerMillion / 1e6,
    dollars: uploads * upload.dollarsPerMillion / 1e6,
  };
}

/** What is asked for; undefined where the default is enough. */
export interface Raised {
  concurrency?: number;
  units?: number;
}

/** What to raise for a load, in round numbers. */
export function raisedFor(load: Load, upload: Upload): Raised {
  const { runs, units } = needsOf(load, upload);
  const more = (need: number) => Math.ceil(need * HEADROOM / 500) * 500;
  return {
    concurrency: runs > CONCURRENCY ? more(runs) : undefined,
    units: units > NEW_TABLE_UNITS ? more(units) : undefined,
  };
}

/** The model of a load on a stack. */
export function modelOf(load: Load, { runMs }: Upload, raised: Raised = {}): Model {
  const units = raised.units ?? NEW_TABLE_UNITS;
  return {
    stepMs: runMs,
    arrivals: evenly(load, runMs),
    runMs: [runMs],
    concurrency: raised.concurrency ?? CONCURRENCY,
    growth: GROWTH,
    throttled: THROTTLED,
    retryPausesMs: RETRY_PAUSES_MS,
    maximumAgeMs: MAXIMUM_AGE_MS,
    table: {
      unitsPerSecond: units,
      doublesEveryMs: DOUBLES_EVERY_MS,
      mostPerSecond: Math.max(units, TABLE_UNITS),
    },
    writePausesMs: WRITE_PAUSES_MS,
  };
}

/** Uploads by steps, as evenly as whole numbers can be. */
function evenly({ perSecond, uploads }: Load, stepMs: number): number[] {
  const until = (steps: number) => Math.min(uploads, Math.floor(perSecond * steps * stepMs / 1000));
  const steps = Math.ceil(uploads / perSecond * 1000 / stepMs);
  return Array.from({ length: steps }, (_, i) => until(i + 1) - until(i));
}

export function count(number: number): string {
  return number.toLocaleString("en-US");
}

/** The rules of the stand-in, on which a throttled event has failed. */
export async function standIn() {
  const source = await read("tasks/stand_in.ts");
  const figure = (pattern: RegExp) => Number(source.match(pattern)![1]);
  const retryMs = 1000 * figure(/const RETRY_SECONDS = (\d+)/);
  return {
    concurrency: figure(/LAMBDA_ACCOUNT_CONCURRENCY: "(\d+)"/),
    retryPausesMs: [retryMs, 2 * retryMs],
  };
}

/** The stand-in's model of uploads that ended at these times, and of runs that took these. */
export async function standInModel(uploadsMs: number[], runMs: number[]): Promise<Model> {
  const arrivals: number[] = Array(Math.ceil(Math.max(...uploadsMs)) + 1).fill(0);
  for (const ms of uploadsMs) arrivals[Math.round(ms)]++;
  const unlimited = 1e9;
  return {
    ...await standIn(),
    stepMs: 1,
    arrivals,
    runMs,
    growth: { environments: unlimited, everyMs: 1 },
    throttled: { ...THROTTLED, isFailure: true },
    maximumAgeMs: MAXIMUM_AGE_MS,
    table: { unitsPerSecond: unlimited, doublesEveryMs: unlimited, mostPerSecond: unlimited },
    writePausesMs: [],
  };
}
