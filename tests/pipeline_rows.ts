/** Steps of the end-to-end tests: each object its one row, exact. */

import assert from "node:assert/strict";
import { HeadObjectCommand, PutObjectCommand } from "@aws-sdk/client-s3";
import { forEachParallel } from "../function/parallel.ts";
import { type Item, queryRows } from "../tasks/table.ts";
import { corpus, type Sample } from "./corpus.ts";
import { EVENT_TIME, toEvent } from "./fixtures.ts";
import {
  ageStack,
  assertOneFailure,
  type Deployed,
  failedMessage,
  invokeLater,
  invokeWith,
  invokeWithRetries,
  recordOf,
  recordOfRow,
  rowsBelow,
  type Steps,
  upload,
  waitFor,
} from "./pipeline_context.ts";
import { listProcesses } from "./run_task.ts";

export interface Recorded extends Deployed {
  /** The rows of the 1,000 objects, which replay and backfill bring back in their own ways. */
  loaded: Item[];
}

const LATER = "2026-01-02T03:04:06.000Z";

export const ROWS: Steps<Deployed> = {
  "F23-F55 objects of every kind get their one row, exact": async (deployed) => {
    const { root, bucket } = deployed;
    const samples = corpus();
    await forEachParallel(samples, 8, async ({ key, body, type, encoding }) => {
      const object = { Key: key, Body: body, ContentType: type, ContentEncoding: encoding };
      await root.s3.send(new PutObjectCommand({ Bucket: bucket, ...object }));
    });
    await waitFor(120_000, async () => {
      const rows = await rowsBelow(deployed, "");
      const keys = new Set(rows.map(({ file_key }) => file_key));
      return samples.every(({ key }) => keys.has(key)) || undefined;
    });
    const wrong: string[] = [];
    await forEachParallel(samples, 16, async (sample) => {
      wrong.push(...await checkSample(deployed, sample));
    });
    assert.deepEqual(wrong, []);
    await waitFor(60_000, () => failedMessage(deployed)); // whose tries began before the uploads
    await assertOneFailure(deployed);
    assert.ok(samples.length > 500, `${samples.length} objects`);
  },

  "F3 20 copies at the same time leave one row": async (deployed) => {
    const { versionId } = await upload(deployed, "copies", "one");
    const record = recordOf(deployed, { key: "copies", versionId, sequencer: "0A" });
    const copies = Array.from({ length: 20 }, () => invokeWith(deployed, [record]));
    assert.deepEqual(await Promise.all(copies), copies.map(() => undefined));
    assert.deepEqual(await contents(deployed, "copies"), [[EVENT_TIME, "0A", "one"]]);
  },

  "F4 F5 F10 two versions, in either order, each its own content": async (deployed) => {
    for (const key of ["order", "disorder"]) {
      const first = await upload(deployed, key, "first");
      const second = await upload(deployed, key, "second");
      const records = [
        recordOf(deployed, { key, versionId: first.versionId, sequencer: "0A" }),
        recordOf(deployed, { key, versionId: second.versionId, sequencer: "0B" }, LATER),
      ];
      if (key === "disorder") records.reverse();
      for (const record of records) assert.equal(await invokeWith(deployed, [record]), undefined);
      const expected = [[EVENT_TIME, "0A", "first"], [LATER, "0B", "second"]];
      assert.deepEqual(await contents(deployed, key), expected);
    }
  },

  "F6 F7 one time, two sequencers: the higher one stays": async (deployed) => {
    const [lower, higher] = ["0055AED6DCD90281", "0055AED6DCD90281E5"];
    for (const key of ["up", "down"]) {
      const first = await upload(deployed, key, "first");
      const second = await upload(deployed, key, "second");
      const records = [
        recordOf(deployed, { key, versionId: first.versionId, sequencer: lower }),
        recordOf(deployed, { key, versionId: second.versionId, sequencer: higher }),
      ];
      if (key === "down") records.reverse();
      for (const record of records) assert.equal(await invokeWith(deployed, [record]), undefined);
      assert.deepEqual(await contents(deployed, key), [[EVENT_TIME, higher, "second"]]);
    }
  },
};

export const MANY_ROWS: Steps<Recorded> = {
  "1,000 objects at once; then half of their events again, twice and in disorder": async (
    deployed,
  ) => {
    const { root, bucket } = deployed;
    const keys = Array.from({ length: 1000 }, (_, i) => `load/${i} +%.txt`);
    await forEachParallel(keys, 8, async (Key) => {
      await root.s3.send(new PutObjectCommand({ Bucket: bucket, Key, Body: Key }));
    });
    const rows = () => rowsBelow(deployed, "load/");
    await waitFor(120_000, async () => (await rows()).length >= 1000 || undefined);
    await assertOneFailure(deployed);

    deployed.loaded = await rows();
    assert.equal(deployed.loaded.length, 1000);
    const half = deployed.loaded.filter((_, i) => i % 2 === 0);
    const records = half.map((row) => recordOfRow(deployed, row));
    const twice = shuffled([...records, ...records]);
    const events = Array.from({ length: 10 }, (_, i) => twice.slice(100 * i, 100 * (i + 1)));
    await forEachParallel(events, 2, async (records) => {
      assert.equal(await invokeWithRetries(deployed, records), undefined);
    });
    assert.deepEqual(await rows(), deployed.loaded);
  },

  "the function killed in the middle of an event: the retry records it": async (deployed) => {
    await ageStack(deployed, 20); // as there are no such objects
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

/** What is wrong with the rows of a sample. */
async function checkSample({ root, bucket }: Deployed, sample: Sample): Promise<string[]> {
  const { name, key, body, preview } = sample;
  const rows = await queryRows(root, key);
  const head = await root.s3.send(new HeadObjectCommand({ Bucket: bucket, Key: key }));
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

/** A key's rows of the events above: time, sequencer, preview. The upload's own has another time. */
async function contents({ root }: Deployed, key: string) {
  return (await queryRows(root, key))
    .filter(({ timestamp }) => [EVENT_TIME, LATER].includes(String(timestamp)))
    .map(({ timestamp, sequencer, content_preview }) => [timestamp, sequencer, content_preview]);
}

function shuffled<T>(items: T[]): T[] {
  return items.map((item) => [Math.random(), item] as const).sort(([a], [b]) => a - b)
    .map(([, item]) => item);
}
