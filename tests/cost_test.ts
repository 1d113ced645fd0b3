/** The costs that COST.md and README.md tell: sizes from the code itself, and arithmetic. */

import assert from "node:assert/strict";
import { toJsonLine } from "../function/errors.ts";
import { ON_TIME_MS, type Put } from "../function/one_row.ts";
import { handleEvent, PREFIX_BYTES, PREVIEW_CHARACTERS } from "../handler.ts";
import { NAMED } from "../tasks/leftovers.ts";
import { defaultMemoryMb, EVENT_TIME, read, toRecord } from "./fixtures.ts";

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

/** Of each alarm, a month, and those that are free: https://aws.amazon.com/cloudwatch/pricing/ */
const ALARM_DOLLARS = "0.10";
const FREE_ALARMS = 10;

/**
 * What the platform adds to the log of an invocation, in JSON and at its level INFO:
 * https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html
 */
const requestId = "8286a188-ba32-4475-8077-530cd35c09a9";
const metrics = {
  durationMs: 54.321,
  billedDurationMs: 55,
  memorySizeMB: 256,
  maxMemoryUsedMB: 91,
};
const PLATFORM_LINES = [
  { time: EVENT_TIME, type: "platform.start", record: { requestId, version: "$LATEST" } },
  { time: EVENT_TIME, type: "platform.report", record: { requestId, metrics, status: "success" } },
];

Deno.test("the cost of a million uploads is right", async (t) => {
  let total = 0;
  /** Looks for the cells of quantity, price and cost. */
  const costs = async (quantity: number, unit: string, price: string, per = unit) => {
    const cost = (quantity * Number(price)).toFixed(2);
    total += Number(cost);
    await says(`| ${quantity.toLocaleString("en-US")} ${unit} | $${price} a ${per} | $${cost} |`);
  };

  await t.step("Lambda's time: two calls, and the CPU that so much memory buys", async () => {
    const memoryMb = await defaultMemoryMb();
    const ms = Math.ceil(2 * CALL_MS + CPU_MS * VCPU_MB / memoryMb);
    await says(`two calls of ${CALL_MS} ms and ${CPU_MS} ms of CPU are ${ms} ms at ${memoryMb} MB`);
    await costs(ms * 1000 * memoryMb / 1024, "GB-seconds", "0.0000133334", "GB-second");
  });
  await t.step("Lambda's init", async () => {
    const assumed = `if it takes ${INIT_MS} ms, and 1 call of ${CALLS_AN_INIT} begins with one`;
    await says(`init, billed since 2025-08-01: ${assumed}`);
    const seconds = INIT_MS / 1000 * 1e6 / CALLS_AN_INIT;
    await costs(
      seconds * await defaultMemoryMb() / 1024,
      "GB-seconds",
      "0.0000133334",
      "GB-second",
    );
  });
  await t.step("requests to Lambda and S3", async () => {
    await costs(1, "million", "0.20");
    await costs(1, "million", "0.40");
  });
  await t.step("DynamoDB's units, by the size of the row as the code writes it", async () => {
    const sizes = [];
    for (const text of ["\0", "a", "ä", "😀"]) sizes.push(itemBytes((await record(text)).item));
    const [bare, ascii, ...others] = sizes;
    await says(`a row of ${ascii} bytes, ${bare} without preview`);
    const [two, three] = others.map((bytes) => Math.ceil(bytes / 1024));
    await says(`${two} or ${three} units in other alphabets`);
    await costs(Math.ceil(ascii / 1024), "million", "0.625");
  });
  await t.step("the log's bytes, by the line as the code writes it", async () => {
    const bytes = new TextEncoder().encode((await record("a")).line).length;
    const platform = PLATFORM_LINES.map((line) => toJsonLine(line).length)
      .reduce((sum, length) => sum + length);
    await says(`a line of ${bytes} bytes, and ${platform} of the platform's`);
    await costs(Number(((bytes + platform) * 1e6 / 1024 ** 3).toFixed(2)), "GB", "0.50");
  });
  await t.step("all of it together", async () => {
    await says(`| $${total.toFixed(2)} |`);
    await says(`A million uploads cost about $${total.toFixed(2)}`, "README.md");
  });
});

Deno.test("the alarms' cost is right, idle or not", async () => {
  const alarms = NAMED.filter(({ address }) => address.startsWith("aws_cloudwatch_metric_alarm."));
  const free = `past an account's ${FREE_ALARMS} free ones`;
  await says(
    `An idle stack costs its ${alarms.length} alarms, $${ALARM_DOLLARS} a month each ${free}`,
  );
});

async function says(text: string, document = "docs/COST.md"): Promise<void> {
  const said = (await read(document)).replaceAll(/\s+/g, " ");
  assert.ok(said.includes(text), `${document} does not say: ${text}`);
}

/** The row and the line of the log that the code makes of an upload that begins with `text`. */
async function record(text: string) {
  let item: Put["Item"] = {};
  let line = "";
  let nowMs = Date.parse("2026-01-02T03:04:07.890Z");
  const eTag = "d41d8cd98f00b204e9800998ecf8427e";
  const upload = toRecord("file-metadata-dev-20260102030405678900000001", {
    key: "reports/2026/first-quarter.txt",
    size: 5600,
    eTag,
    versionId: "096fKKXTRTtl3on89fVO.nfljtsv6qko",
    sequencer: "0055AED6DCD90281E5",
  });
  const answer = {
    ContentType: "text/plain; charset=utf-8",
    ContentRange: `bytes 0-${PREFIX_BYTES - 1}/5600`,
    LastModified: new Date(EVENT_TIME),
    ETag: `"${eTag}"`,
    bytes: new TextEncoder().encode(text.repeat(PREVIEW_CHARACTERS)),
  };
  await handleEvent({ Records: [upload] }, {
    getObject: () => Promise.resolve(answer),
    headObject: () => Promise.reject(new Error("not called")),
    queryRows: () => Promise.reject(new Error("an event on time needs no query")),
    deleteItem: () => Promise.reject(new Error("an event on time deletes nothing")),
    onTimeMs: ON_TIME_MS,
    putItem: (put) => Promise.resolve(item = put.Item),
    now: () => nowMs += 27,
    remainingMs: () => 60_000,
    log: (logged) => line = toJsonLine(logged) + "\n",
  });
  return { item, line };
}

/**
 * An item's size, names and values:
 * https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
 */
function itemBytes(item: Put["Item"]): number {
  const bytes = (text: string) => new TextEncoder().encode(text).length;
  return Object.entries(item).reduce((sum, [name, value]) => {
    const size = "S" in value
      ? bytes(value.S!)
      : Math.ceil(value.N!.replace(/0+$/, "").length / 2) + 1;
    return sum + bytes(name) + size;
  }, 0);
}
