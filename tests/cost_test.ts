/** The costs that COST.md and README.md tell: sizes from the code itself, and arithmetic. */

import assert from "node:assert/strict";
import { toJsonLine } from "../function/errors.ts";
import { handleEvent, PREFIX_BYTES, PREVIEW_CHARACTERS, type Row } from "../handler.ts";
import { NAMED } from "../tasks/leftovers.ts";
import { defaultMemoryMb, EVENT_TIME, read, toRecord } from "./fixtures.ts";
import { fakes, object } from "./outside.ts";

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

Deno.test("the cost of a million uploads is right", async () => {
  const memoryMb = await defaultMemoryMb();
  const gbSeconds = (ms: number) => ms * 1000 * memoryMb / 1024;
  const ms = Math.ceil(2 * CALL_MS + CPU_MS * VCPU_MB / memoryMb); // that memory buys so much CPU

  const records = await Promise.all(["\0", "a", "ä", "😀"].map(record));
  const [bare, ascii, ...others] = records.map(({ row }) => itemBytes(row));
  const units = others.map((bytes) => Math.ceil(bytes / 1024)).join(" or ");
  const logged = byteLength(records[1].line);
  const platform = PLATFORM_LINES.reduce((sum, line) => sum + toJsonLine(line).length, 0);
  const gigabytes = Number(((logged + platform) * 1e6 / 1024 ** 3).toFixed(2));

  const perGbSecond = ["GB-seconds", "0.0000133334", "GB-second"];
  let total = 0;
  for (
    const [what, quantity, unit, price, per = unit] of [
      [
        `two calls of ${CALL_MS} ms and ${CPU_MS} ms of CPU are ${ms} ms at ${memoryMb} MB`,
        gbSeconds(ms),
        ...perGbSecond,
      ],
      [
        `if it takes ${INIT_MS} ms, and 1 call of ${CALLS_AN_INIT} begins with one`,
        gbSeconds(INIT_MS / CALLS_AN_INIT),
        ...perGbSecond,
      ],
      ["Lambda, requests", 1, "million", "0.20"],
      ["GET", 1, "million", "0.40"],
      [
        `a row of ${ascii} bytes, ${bare} without preview (${units} units in other alphabets)`,
        Math.ceil(ascii / 1024),
        "million",
        "0.625",
      ],
      [`a line of ${logged} bytes, and ${platform} of the platform's`, gigabytes, "GB", "0.50"],
    ] as [string, number, string, string, string?][]
  ) {
    const cost = (quantity * Number(price)).toFixed(2);
    total += Number(cost);
    const of = `${quantity.toLocaleString("en-US")} ${unit}`;
    await says(`${what} | ${of} | $${price} a ${per} | $${cost} |`);
  }
  await says(`| $${total.toFixed(2)} |`);
  await says(`a million deletions cost at most $${(total - 0.40).toFixed(2)}, as they make no GET`);
  const large = itemBytes({ ...records[1].row, user_metadata: { note: "a".repeat(2044) } });
  await says(
    `makes that a row of ${large.toLocaleString("en")} bytes, ${Math.ceil(large / 1024)} units`,
  );
  await says(`A million uploads cost about $${total.toFixed(2)}`, "README.md");
});

Deno.test("COST.md tells what an idle stack's alarms cost", async () => {
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
