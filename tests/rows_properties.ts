/** Rows of many objects, found by few statements: the same as by a query for each. */

import assert from "node:assert/strict";
import fc from "npm:fast-check@4.10.2";
import type { Upload } from "../handler.ts";
import { fakeTable, row } from "./fakes.ts";
import { fakeStack, permittedTest, read } from "./fixtures.ts";

const HOUR_MS = 3_600_000;
const START_MS = Date.parse("2026-01-02T00:00:00Z");
const at = (hours: number) => new Date(START_MS + hours * HOUR_MS).toISOString();

function object(key: string, fields: Partial<Upload> = {}): Upload {
  return { bucket: "b", key, timestamp: at(0), eventName: "x", etag: "t", ...fields };
}

const KEYS = ["a", "b", "c"];
const HOURS = fc.constantFrom(-1000, -30, -24, -0.001, 0, 0.001, 5, 24, 25, 300);
const ROWS = fc.uniqueArray(
  fc.record({
    key: fc.constantFrom(...KEYS),
    hours: HOURS,
    version_id: fc.constantFrom(undefined, "null", "1", "2"),
    etag: fc.constantFrom("t", "u", "t-2"),
    event_name: fc.constantFrom("ObjectCreated:Put", "ObjectCreated:Backfill"),
  }),
  { selector: ({ key, hours }) => `${key} ${hours}`, maxLength: 25 },
);
const OBJECTS = fc.uniqueArray(
  fc.record({
    key: fc.constantFrom(...KEYS, "d", "e", "f", "g", "h", "i", "j"),
    hours: HOURS,
    versionId: fc.constantFrom(undefined, "1", "2"),
    etag: fc.constantFrom("t", "u", "t-2"),
  }),
  { selector: ({ key }) => key },
);

permittedTest("findRows() asks again for what a statement overlooks", async () => {
  const { findRows } = await import("../tasks/rows.ts");
  const { answers } = fakeTable([row("a", { timestamp: at(1), etag: "t" })]);
  const ExecuteStatementCommand = () => ({ Items: [] });
  const { stack } = await fakeStack({ ...answers, ExecuteStatementCommand });
  const found = await findRows(stack, [object("a"), object("b")]);
  assert.deepEqual(found.map((rows) => rows.length), [1, 0]);
});

permittedTest(
  "findRows() finds by statements what it finds by a query for each object",
  async () => {
    const { findRows } = await import("../tasks/rows.ts");
    const property = fc.asyncProperty(ROWS, OBJECTS, async (given, wanted) => {
      const rows = given.map(({ key, hours, ...rest }) =>
        row(key, { timestamp: at(hours), ...rest })
      );
      const objects = wanted.map(({ key, hours, ...rest }) =>
        object(key, { timestamp: at(hours), ...rest })
      );
      const { answers } = fakeTable(rows);
      const { stack } = await fakeStack(answers);
      // An answer that never ends: each object is asked for on its own.
      const endless = () => ({ Items: [], NextToken: "more" });
      const { stack: other } = await fakeStack({ ...answers, ExecuteStatementCommand: endless });
      assert.deepEqual(await findRows(stack, objects), await findRows(other, objects));
    });
    await fc.assert(property, { numRuns: 500 });
  },
);

permittedTest("findRows() asks for eight objects at once", async () => {
  const { findRows } = await import("../tasks/rows.ts");
  const keys = Array.from({ length: 32 }, (_, n) => `k${n}`);
  const { answers } = fakeTable(keys.map((key) => row(key, { timestamp: at(0), etag: "t" })));
  const { stack, calls } = await fakeStack(answers);
  const found = await findRows(stack, keys.map((key) => object(key)));
  assert.deepEqual(found.map(([{ file_key }]) => file_key), keys);
  const parameters = calls.map(({ input }) => (input.Parameters as unknown[]).length);
  assert.deepEqual(parameters, Array(4).fill(8 + 2)); // keys and times
});

permittedTest("findRows() reads few rows of others beside a key that has many", async () => {
  const { findRows } = await import("../tasks/rows.ts");
  const many = Array.from(
    { length: 10_000 },
    (_, n) => row("many", { timestamp: at(n), version_id: String(n) }),
  );
  const { table, answers } = fakeTable([
    ...many,
    row("old", { timestamp: at(1), version_id: "o" }),
  ]);
  const { stack, calls } = await fakeStack(answers);
  const found = await findRows(stack, [
    object("old", { timestamp: at(1), versionId: "o" }),
    object("many", { timestamp: at(9999), versionId: "9999" }),
  ]);
  assert.deepEqual(found.map(([{ version_id }]) => version_id), ["o", "9999"]);
  assert.ok(table.read < 100, `${table.read} rows read`);
  assert.equal(calls.length, 4 + 2);
});

permittedTest(
  "lastEventMs() fits what main.tf says of events and uploads, and README",
  async () => {
    const { lastEventMs } = await import("../tasks/rows.ts");
    const main = await read("main.tf");
    const [, age] = main.match(/maximum_event_age_in_seconds\s*= (\d+)/)!;
    const [, days] = main.match(/days_after_initiation\s*= (\d+)/)!;
    const hoursOf = (etag: string) =>
      (lastEventMs(object("a", { etag })) - START_MS - Number(age) * 1000) / HOUR_MS;
    assert.equal(hoursOf("t"), 24);
    // S3 rounds up to the next midnight, and may be late.
    assert.ok(hoursOf("t-2") >= (Number(days) + 2) * 24);
    const readme = (await read("README.md")).replace(/\s+/g, " ");
    assert.match(readme, / 30 hours after the upload, or ten days after an upload in parts began;/);
    assert.equal(
      Math.round(lastEventMs(object("a", { etag: "t-2" })) / 86_400_000 - START_MS / 86_400_000),
      10,
    );
    assert.equal((lastEventMs(object("a")) - START_MS) / HOUR_MS, 30);
  },
);
