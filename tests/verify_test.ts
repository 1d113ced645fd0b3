/** Verify: its files, the probe before them, and what it compares. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { ATTRIBUTES, toRow } from "../handler.ts";
import { temporaryFolder } from "../tasks/files.ts";
import { readSamples } from "../tasks/samples.ts";
import { run } from "../tasks/shell.ts";
import type { Item } from "../tasks/table.ts";
import { checkRow, probeTrigger, removeTraces, verifyStack } from "../tasks/verify.ts";
import {
  type Answers,
  fakeStack,
  fakeTime,
  NO_FAILURES,
  NOTIFIES,
  progressOf,
  queue,
  row,
  toAttributes,
} from "./fixtures.ts";

const KEY = "in/verify-1/probe.txt";
const MINUTES = 60_000;

/** Runs the probe where uploads send events only from a time on, and says what it did. */
async function probed(activeAfterMs: number, answers: Answers = {}) {
  const { time, pauses } = fakeTime();
  const uploadedMs: number[] = [];
  let isInvoked = false;
  const { stack } = fakeStack({
    PutObjectCommand: () => ({ VersionId: String(uploadedMs.push(Math.round(time.nowMs()))) }),
    HeadObjectCommand: ({ VersionId }) => ({ VersionId, LastModified: new Date(0) }),
    // A row comes two seconds after its upload, or once the function is invoked.
    QueryCommand: () => {
      const recorded = uploadedMs.findIndex((ms) =>
        ms >= activeAfterMs && time.nowMs() >= ms + 2000
      );
      if (recorded < 0 && !isInvoked) return {};
      const version_id = String(isInvoked ? uploadedMs.length : recorded + 1);
      return { Items: [toAttributes(row(KEY, { version_id }))] };
    },
    InvokeCommand: () => {
      isInvoked = true;
      return {};
    },
    ...NO_FAILURES,
    ...answers,
  });
  let problems: string[] | undefined;
  const said = await progressOf(async () => {
    problems = (await probeTrigger(stack, KEY, 0, 10 * MINUTES, time))?.problems;
  });
  return { problems, said, uploadedMs, waitedMs: time.nowMs(), pauses };
}

Deno.test("probeTrigger() looks often at first where a row comes, and says nothing", async () => {
  const { problems, said, uploadedMs, waitedMs, pauses } = await probed(0);
  assert.deepEqual([problems, said, uploadedMs], [undefined, "", [0]]);
  assert.ok(waitedMs >= 2000 && waitedMs < 2600, `${waitedMs} ms`);
  assert.ok(pauses[0] === 20 && pauses.every((ms) => ms <= 1000));
});

Deno.test("probeTrigger() uploads every 15 s until a new notification is active", async () => {
  const { problems, said, uploadedMs, waitedMs } = await probed(5 * MINUTES);
  assert.equal(problems, undefined);
  assert.deepEqual(uploadedMs, Array.from({ length: 21 }, (_, i) => i * 15_000));
  assert.ok(waitedMs > 5 * MINUTES && waitedMs < 5 * MINUTES + 3000, `${waitedMs} ms`);
  const [first, ...others] = said.trimEnd().split("\n");
  assert.equal(others.length, 19);
  assert.equal(
    first,
    "The probe has no row after 15 s: a new notification takes about five minutes on AWS; trying " +
      "again for 9 min ...",
  );
});

Deno.test("probeTrigger() ends after ten minutes, or where events fail, and says why", async () => {
  const silent = await probed(Infinity);
  assert.equal(silent.uploadedMs.length, 40);
  assert.deepEqual(silent.problems, [
    "no row after 600 s, so nothing else was uploaded: invoked directly, the function writes it: " +
    "the bucket's event does not reach the function",
  ]);

  let asked = 0;
  const Payload = new TextEncoder().encode('{"errorType":"AccessDenied","errorMessage":"no"}');
  const InvokeCommand = () => ({ FunctionError: "Unhandled", Payload });
  const GetQueueAttributesCommand = () => queue(0, ++asked === 3 ? 1 : 0);
  const failing = await probed(Infinity, { InvokeCommand, GetQueueAttributesCommand });
  assert.equal(failing.uploadedMs.length, 3);
  assert.deepEqual(failing.problems, [
    "no row after 45 s, so nothing else was uploaded: the function fails: AccessDenied: no",
  ]);
});

Deno.test("verify --keep removes its probe, and says what it left out", async () => {
  const inputsOf = (command: string) =>
    calls.filter(({ name }) => name === command).map(({ input }) => input);
  const { stack, calls } = fakeStack({
    ...NOTIFIES,
    ...NO_FAILURES,
    QueryCommand: ({ ExpressionAttributeValues: { ":key": { S: key } } }) => {
      const isThere = inputsOf("PutObjectCommand").some(({ Key }) => Key === key);
      return isThere ? { Items: [toAttributes(row(key, {}))] } : {};
    },
    ListObjectVersionsCommand: ({ Prefix }) => {
      const isDeleted = inputsOf("DeleteObjectsCommand").length > 0;
      return isDeleted ? {} : { Versions: [{ Key: `${Prefix}probe.txt`, VersionId: "1" }] };
    },
  });
  const leftOut = ['"a" was left out'];
  const options = { rowDeadlineMs: 100, firstRowDeadlineMs: 100, keep: true };
  const said = await progressOf(async () => {
    const { ok, problems } = await verifyStack(stack, { samples: [], leftOut }, options);
    assert.deepEqual([ok, problems], [false, leftOut]);
  });
  assert.match(said, /to uploads\/in\/, 1 left out /);
  const [{ Key: probe }, ...others] = inputsOf("PutObjectCommand");
  assert.match(probe, /^in\/verify-[-0-9a-f]{36}\/probe\.txt$/);
  const [{ Delete: { Objects } }] = inputsOf("DeleteObjectsCommand");
  const rows = inputsOf("DeleteItemCommand").map(({ Key }) => Key.file_key.S);
  assert.deepEqual([others, Objects, rows], [[], [{ Key: probe, VersionId: "1" }], [probe]]);
});

Deno.test("verify uploads no file where no row would come", async (t) => {
  const noTable = Object.assign(new Error("deleted"), { name: "ResourceNotFoundException" });
  const cases: [name: string, answers: Answers, outcome: string | Error, probes: number][] = [
    [
      "the probe has no row",
      { ...NOTIFIES, HeadObjectCommand: () => ({ ContentLength: 18, LastModified: new Date(0) }) },
      "probe: no row after 0 s, so nothing else was uploaded: invoked directly, the function " +
      "reports success, but writes no row",
      1,
    ],
    [
      "the bucket calls nothing",
      {},
      "nothing was uploaded, as the bucket uploads does not call the function; " +
      "deno task deploy --env x puts it right",
      0,
    ],
    ["the table is deleted", { ...NOTIFIES, QueryCommand: () => noTable }, noTable, 0],
  ];
  const found = { samples: [{ file: "a", size: 1, open: () => assert.fail() }], leftOut: [] };
  const options = { rowDeadlineMs: 0, firstRowDeadlineMs: 0, keep: false };
  for (const [name, answers, outcome, probes] of cases) {
    await t.step(name, async () => {
      const { stack, calls } = fakeStack({ ...NO_FAILURES, ...answers });
      const verified = verifyStack(stack, found, options);
      if (outcome instanceof Error) await assert.rejects(verified, outcome);
      else assert.deepEqual((await verified).problems, [outcome]);
      assert.equal(calls.filter(({ name }) => name === "PutObjectCommand").length, probes);
    });
  }
});

Deno.test("verify waits for the rows of what it removes itself, and deletes them", async () => {
  const Versions = ["1", "2"].map((VersionId) => ({ Key: "v/a", VersionId }));
  const removal = { file_key: "v/a", timestamp: "t", event_name: "ObjectRemoved:Delete" };
  const rows = (count: number) => ({ Items: Array(count).fill(toAttributes(removal)) });
  const cases: [
    removalsMs: number,
    answers: object[],
    looks: number,
    deleted: number,
    said: string,
  ][] = [
    [0, [rows(0)], 1, 0, ""],
    [9000, [rows(0), rows(1), rows(0), rows(1)], 4, 2, ""],
    [2000, [rows(1)], 3, 1, "1 removal below v/ had no row yet: one may still come\n"],
  ];
  for (const [removalsMs, answers, looks, deleted, said] of cases) {
    const { stack, calls } = fakeStack({
      ListObjectVersionsCommand: [{ Versions }],
      QueryCommand: answers,
    });
    const { time } = fakeTime();
    const remove = () => removeTraces(stack, "v/", ["v/a"], { removalsMs, time });
    assert.equal(await progressOf(remove), said);
    assert.equal(calls.filter(({ name }) => name === "DeleteItemCommand").length, deleted);
    assert.equal(calls.filter(({ name }) => name === "QueryCommand").length, looks);
  }
});

Deno.test("verify compares every attribute of a row", async (t) => {
  const LastModified = new Date("2026-01-02T03:04:05.000Z");
  const head = { ContentLength: 2, ContentType: "text/plain", ETag: '"e"', LastModified };
  const timestamp = LastModified.toISOString();
  const uploaded = {
    bucket: "uploads",
    key: "in/a.txt",
    timestamp,
    eventName: "ObjectCreated:Put",
    size: 2,
    versionId: "v1",
  };
  const sequencer = "0055AED6DCD90281E5";
  const right = {
    ...toRow({ ...uploaded, sequencer }, head, undefined, timestamp),
    content_preview: "hi",
  };
  const problemsOf = (row: object, size = 2) =>
    checkRow(row as Item, { size, preview: "hi" }, uploaded, head);
  assert.deepEqual(problemsOf(right), []);
  for (const name of ATTRIBUTES) {
    await t.step(name, () => {
      const [problem, ...others] = problemsOf({ ...right, [name]: "wrong" });
      assert.match(problem, new RegExp(`^${name} is "wrong", not `));
      assert.deepEqual(others, []);
    });
  }
  const { etag: _, ...without } = right;
  assert.deepEqual(problemsOf(without), ['etag is absent, not "e"']);
  assert.deepEqual(problemsOf({ ...right, extra: 1 }), ["extra is 1, not absent"]);
  assert.deepEqual(problemsOf(right, 3), ["S3 has 2 bytes of it"]);
  const old = { ...right, processed_at: "2025-01-02T03:04:05.000Z" };
  assert.match(problemsOf(old)[0], /^processed_at is .*, not a time of today$/);
});

Deno.test("readSamples() takes links to files, and names all that it leaves out", async () => {
  await using parent = await temporaryFolder();
  const folder = join(parent.path, "data");
  const inner = join(folder, "inner");
  await Deno.mkdir(inner, { recursive: true });
  await Deno.writeTextFile(join(parent.path, "elsewhere"), "text");
  await Deno.writeTextFile(join(inner, "file.txt"), "inside");
  await Deno.symlink(join(parent.path, "elsewhere"), join(folder, "link.csv"));
  await Deno.symlink("..", join(inner, "up"));
  await Deno.symlink("nowhere", join(inner, "dangling"));
  await run("mkfifo", [join(inner, "pipe")]);

  const { samples, leftOut } = await readSamples([folder]);

  assert.deepEqual(
    samples.map(({ file, size, type, preview }) => [file, size, type, preview]).sort(),
    [
      ["data/inner/file.txt", 6, "text/plain", "inside"],
      ["data/link.csv", 4, "text/csv", "text"],
    ],
  );
  assert.deepEqual(
    leftOut.map((line) => line.replace(/ \(os error .*$/, "")).sort(),
    [
      `"data/inner/dangling" was left out: No such file or directory`,
      `"data/inner/pipe" was left out: it is neither a file nor a folder`,
      `"data/inner/up" was left out: it is a link to a folder, and may lead back to where it is`,
    ],
  );
  await assert.rejects(
    readSamples([join(inner, "pipe")]),
    /There is no file in what you named\n"pipe" was left out: it is neither/,
  );
});
