/** The table of costs in README.md: its arithmetic, and its sizes from the code itself. */

import assert from "node:assert/strict";
import { handleEvent, type Put, toJsonLine } from "../handler.ts";

const permitted = Deno.permissions.querySync({ name: "read" }).state === "granted";

/**
 * Memory at which a function has one whole vCPU; below, it has that part of one:
 * https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
 */
const VCPU_MB = 1769;

/** A usual upload, to a bucket with a name as main.tf makes it. */
const RECORD = {
  eventVersion: "2.1",
  eventSource: "aws:s3",
  eventTime: "2026-01-02T03:04:05.678Z",
  eventName: "ObjectCreated:Put",
  s3: {
    bucket: { name: "file-metadata-dev-20260102030405678900000001" },
    object: {
      key: "reports/2026/first-quarter.txt",
      size: 5600,
      eTag: "d41d8cd98f00b204e9800998ecf8427e",
      versionId: "096fKKXTRTtl3on89fVO.nfljtsv6qko",
      sequencer: "0055AED6DCD90281E5",
    },
  },
};

/**
 * What the platform adds to the log of a run, in JSON and at its level INFO:
 * https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html
 */
const PLATFORM_LINES = [
  {
    time: "2026-01-02T03:04:05.678Z",
    type: "platform.start",
    record: { requestId: "8286a188-ba32-4475-8077-530cd35c09a9", version: "$LATEST" },
  },
  {
    time: "2026-01-02T03:04:05.678Z",
    type: "platform.report",
    record: {
      requestId: "8286a188-ba32-4475-8077-530cd35c09a9",
      metrics: {
        durationMs: 54.321,
        billedDurationMs: 55,
        memorySizeMB: 256,
        maxMemoryUsedMB: 91,
      },
      status: "success",
    },
  },
];

Deno.test({
  name: "the README's cost of a million uploads is right (needs read permission: deno task test)",
  ignore: !permitted,
  fn: async (t) => {
    const read = (name: string) => Deno.readTextFile(new URL(`../${name}`, import.meta.url));
    const rows = tableOf(await read("README.md"), "## What a million uploads cost");
    const row = (name: RegExp) => {
      const found = rows.filter(([what]) => name.test(what));
      assert.equal(found.length, 1, `${found.length} rows are about ${name}`);
      return found[0];
    };
    const parts = rows.filter(([, quantity]) => quantity !== "");

    await t.step("each cost is its quantity times its price", () => {
      assert.equal(parts.length, 5);
      for (const [what, quantity, price, cost] of parts) {
        const [count, unit] = measureOf(quantity);
        const [dollars, priced] = measureOf(price.replace("$", "").replace(" a ", " "));
        assert.equal(unit, priced, what);
        assert.equal(cost, `$${(count * dollars).toFixed(2)}`, what);
      }
    });
    await t.step("together they make the last row's, and the uploader's own stand apart", () => {
      const sum = parts.reduce((sum, [, , , cost]) => sum + Number(cost.slice(1)), 0);
      const [what, , , cost] = row(/together/);
      assert.equal(cost, `$${sum.toFixed(2)}`);
      const [, count, price, put] = what.match(
        /(\S+) million PUT at \$(\S+) a million, \$(\S+)/,
      )!;
      assert.equal(put, (toNumber(count) * Number(price)).toFixed(2));
    });
    await t.step("Lambda's time: two calls, and the CPU that so much memory buys", async () => {
      const [what, quantity] = row(/Lambda.*ms/);
      const [, callMs, cpuMs, ms, memoryMb] = what.match(
        /two calls of (\S+) ms and (\S+) ms of CPU are (\S+) ms at (\S+) MB/,
      )!.map(Number);
      const variables = await read("variables.tf");
      const byDefault = variables.match(/"lambda_memory_mb"[^}]*?default\s*= (\d+)/)![1];
      assert.equal(memoryMb, Number(byDefault));
      assert.equal(ms, Math.ceil(2 * callMs + cpuMs * VCPU_MB / memoryMb));
      assert.deepEqual(measureOf(quantity), [ms * 1000 * memoryMb / 1024, "GB-second"]);
    });
    await t.step("DynamoDB's units, by the size of the row as the code writes it", async () => {
      const [what, quantity] = row(/DynamoDB/);
      const bytes = [];
      for (const text of ["\0", "a", "ä", "😀"]) bytes.push(itemBytes((await record(text)).item));
      const units = bytes.map((bytes) => Math.ceil(bytes / 1024));
      assert.match(what, new RegExp(`row of ${bytes[1]} bytes, ${bytes[0]} without preview`));
      assert.match(what, new RegExp(`${units[2]} or ${units[3]} units`));
      assert.deepEqual([units[0], units[1]], [1, 1]);
      assert.deepEqual(measureOf(quantity), [units[1], "million"]);
    });
    await t.step("the log's bytes, by the line as the code writes it", async () => {
      const [what, quantity] = row(/CloudWatch/);
      const { line } = await record("a");
      const platform = PLATFORM_LINES.map((line) => toJsonLine(line).length)
        .reduce((sum, length) => sum + length);
      const bytes = new TextEncoder().encode(line).length;
      assert.match(what, new RegExp(`a line of ${bytes} bytes, and ${platform} of the platform's`));
      const gigabytes = ((bytes + platform) * 1e6 / 1024 ** 3).toFixed(2);
      assert.deepEqual(measureOf(quantity), [Number(gigabytes), "GB"]);
    });
  },
});

/** The item and the log's line that the code makes of the upload, where it begins with `text`. */
async function record(text: string) {
  let item: Put["Item"] = {};
  let line = "";
  let nowMs = Date.parse("2026-01-02T03:04:07.890Z");
  const bytes = new TextEncoder().encode(text.repeat(500));
  await handleEvent({ Records: [RECORD] }, {
    getObject: () =>
      Promise.resolve({
        ContentType: "text/plain; charset=utf-8",
        ContentRange: "bytes 0-2047/5600",
        LastModified: new Date(RECORD.eventTime),
        ETag: `"${RECORD.s3.object.eTag}"`,
        bytes,
      }),
    headObject: () => Promise.reject(new Error("not called")),
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
      ? bytes(value.S)
      : Math.ceil(value.N.replace(/0+$/, "").length / 2) + 1;
    return sum + bytes(name) + size;
  }, 0);
}

/** The cells of the table's rows, without its head. */
function tableOf(markdown: string, heading: string): string[][] {
  const lines = markdown.split("\n");
  const start = lines.indexOf(heading);
  assert.notEqual(start, -1, `README.md has no "${heading}"`);
  const table = lines.slice(start + 1).filter((line, i, rest) =>
    line.startsWith("|") && !rest.slice(0, i).some((line) => line.startsWith("## "))
  );
  return table.slice(2).map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
}

/** `13,750 GB-seconds` as 13750 and GB-second. */
function measureOf(text: string): [number, string] {
  const [number, unit] = text.split(" ");
  return [toNumber(number), unit.replace(/s$/, "")];
}

function toNumber(text: string): number {
  return Number(text.replaceAll(",", ""));
}
