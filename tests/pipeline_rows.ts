/** Steps of the end-to-end tests: each object its one row, exact. */

import assert from "node:assert/strict";
import { forEachParallel } from "../function/parallel.ts";
import { type Item, queryRows } from "../tasks/table.ts";
import { corpus, type Sample } from "./corpus.ts";
import { EVENT_TIME, toEvent } from "./outside.ts";
import {
  assertOneFailure,
  type Deployed,
  failedMessage,
  invokeLater,
  invokeWith,
  invokeWithRetries,
  recordOf,
  recordOfRow,
  rowsBelow,
  setEnvironment,
  type Steps,
  upload,
  waitFor,
} from "./pipeline.ts";
import { listProcesses } from "./run_task.ts";

const LATER = "2026-01-02T03:04:06.000Z";

/** Three events of one key: when, with which sequencer, and the content of its version. */
const EVENTS = [
  [EVENT_TIME, "0055AED6DCD90281", "first"],
  [EVENT_TIME, "0055AED6DCD90281E5", "second"],
  [LATER, "0055AED6DCD90282", "third"],
];

export const ROWS: Steps<Deployed> = {
  "F23-F55 objects of every kind get their one row, exact": async (deployed) => {
    const { root, bucket } = deployed;
    const samples = corpus();
    assert.ok(samples.length > 500, `${samples.length} objects`);
    await forEachParallel(samples, 8, async ({ key, body, type, encoding }) => {
      const object = { Key: key, Body: body, ContentType: type, ContentEncoding: encoding };
      await root.s3.putObject({ Bucket: bucket, ...object });
    });
    await waitFor(120_000, async () => {
      const keys = new Set((await uploadedRows(deployed)).map(({ file_key }) => file_key));
      return samples.every(({ key }) => keys.has(key)) || undefined;
    });
    const wrong: string[] = [];
    await forEachParallel(samples, 16, async (sample) => {
      wrong.push(...await checkSample(deployed, sample));
    });
    assert.deepEqual(wrong, []);
    await waitFor(60_000, () => failedMessage(deployed)); // whose tries began before the uploads
    await assertOneFailure(deployed);
  },

  "half of their events again, twice and in disorder, change nothing": async (deployed) => {
    const rows = await uploadedRows(deployed);
    const half = rows.filter((_, i) => i % 2 === 0);
    const records = half.map((row) => recordOfRow(deployed, row));
    const twice = shuffled([...records, ...records]);
    const events = Array.from({ length: 10 }, (_, i) => twice.filter((_, j) => j % 10 === i));
    for (const records of events) {
      assert.equal(await invokeWithRetries(deployed, records), undefined);
    }
    assert.deepEqual(await uploadedRows(deployed), rows);
  },

  "F3 F4 F5 F6 F7 F10 each time keeps its last version, in any order": async (deployed) => {
    const key = "order";
    const records: unknown[] = [];
    for (const [time, sequencer, body] of EVENTS) {
      const { versionId } = await upload(deployed, key, body);
      records.push(recordOf(deployed, { key, versionId, sequencer }, time));
    }
    const copies = Array.from({ length: 20 }, () => records).flat();
    await forEachParallel(shuffled(copies), 8, async (record) => {
      assert.equal(await invokeWith(deployed, [record]), undefined);
    });
    // The uploads' own events have other times.
    const rows = (await queryRows(deployed.root, key))
      .map((row) => [row.timestamp, row.sequencer, row.content_preview])
      .filter(([time]) => EVENTS.some((event) => event[0] === time));
    assert.deepEqual(rows.sort(), EVENTS.slice(1));
  },

  "the function killed in the middle of an event: the retry records it": async (deployed) => {
    const ago = new Date(Date.now() - 20 * 60_000); // there are no such objects, which is a fact then
    await setEnvironment(deployed, { STACK_CREATED: ago.toISOString() });
    const keys = Array.from({ length: 300 }, (_, i) => `killed/${i}`);
    await invokeLater(deployed, toEvent(deployed.bucket, keys, 7));
    const count = async () => (await rowsBelow(deployed, "killed/")).length;
    const some = await waitFor(30_000, async () => await count() || undefined);
    const { lambda_function_name } = deployed.root.outputs;
    const workers = (await listProcesses()).filter(({ command }) =>
      command.includes("ministack-lambda-") && command.includes(lambda_function_name)
    );
    assert.ok(workers.length > 0, "no process runs the function");
    for (const { pid } of workers) Deno.kill(pid, "SIGKILL");
    assert.ok(some < keys.length, `${some} rows were there already`);
    await waitFor(120_000, async () => await count() === keys.length || undefined);
    await assertOneFailure(deployed);
  },
};

/** The rows of the objects of every kind, sorted by key. */
export async function uploadedRows(deployed: Deployed): Promise<Item[]> {
  const keys = new Set(corpus().map(({ key }) => key));
  return (await rowsBelow(deployed, "")).filter(({ file_key }) => keys.has(String(file_key)));
}

/** Rows but for when they were written. */
export function timeless(rows: Item[]) {
  return rows.map(({ processed_at: _, ...rest }) => rest);
}

/** What is wrong with the rows of a sample. */
async function checkSample({ root, bucket }: Deployed, sample: Sample): Promise<string[]> {
  const { name, key, body, preview } = sample;
  const rows = await queryRows(root, key);
  const head = await root.s3.headObject({ Bucket: bucket, Key: key });
  const type = Array.from(head.ContentType!).slice(0, 1024).join("");
  const actual = rows.map((row) => [
    row.file_size,
    row.content_type,
    row.version_id,
    row.content_preview,
  ]);
  const expected = [[body.length, type, head.VersionId, preview]];
  if (JSON.stringify(actual) === JSON.stringify(expected)) return [];
  return [`${name} ${JSON.stringify(key)}: ${JSON.stringify({ actual, expected })}`];
}

function shuffled<T>(items: T[]): T[] {
  return items.map((item) => [Math.random(), item] as const).sort(([a], [b]) => a - b)
    .map(([, item]) => item);
}
