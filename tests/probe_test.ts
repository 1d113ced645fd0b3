/** The probe before verify's files, against a bucket that calls nothing for its first minutes. */

import assert from "node:assert/strict";
import { probeTrigger } from "../tasks/probe.ts";
import { reportToText, verifyStack } from "../tasks/verify.ts";
import {
  type Answers,
  fakeStack,
  fakeTime,
  NOTIFIES,
  progressOf,
  row,
  toAttributes,
} from "./fixtures.ts";

const KEY = "in/verify-1/probe.txt";
const MINUTES = 60_000;

/** Runs the probe where uploads send events only from a time on, and says what it did. */
async function probed(activeAfterMs: number, answers: Answers = {}, isFailing = () => false) {
  const { time, pauses } = fakeTime();
  const uploadedMs: number[] = [];
  let invoked = 0;
  const { stack, calls } = fakeStack({
    PutObjectCommand: () => {
      uploadedMs.push(Math.round(time.nowMs()));
      return { VersionId: String(uploadedMs.length) };
    },
    HeadObjectCommand: ({ VersionId }) => ({
      VersionId,
      ContentLength: 18,
      ETag: '"e"',
      LastModified: new Date(0),
    }),
    // A row comes two seconds after its upload, or once the function is invoked.
    QueryCommand: () => {
      const recorded = uploadedMs.findIndex((ms) =>
        ms >= activeAfterMs && time.nowMs() >= ms + 2000
      );
      const version_id = recorded >= 0 ? String(recorded + 1) : String(uploadedMs.length);
      return recorded < 0 && invoked === 0
        ? {}
        : { Items: [toAttributes(row(KEY, { version_id }))] };
    },
    InvokeCommand: () => {
      invoked++;
      return {};
    },
    ...answers,
  });
  let report;
  const said = await progressOf(async () => {
    const failing = () => Promise.resolve(isFailing());
    const options = { deadlineMs: 10 * MINUTES, isFailing: failing, time };
    report = await probeTrigger(stack, KEY, options);
  });
  return {
    report: report as unknown,
    said,
    uploadedMs,
    waitedMs: time.nowMs(),
    pauses,
    calls,
    stack,
  };
}

Deno.test("probeTrigger() uploads once where a row comes, and says nothing", async () => {
  const { report, said, uploadedMs, waitedMs, pauses, calls } = await probed(0);
  assert.equal(report, undefined);
  assert.deepEqual([said, uploadedMs], ["", [0]]);
  assert.ok(waitedMs >= 2000 && waitedMs < 2600, `${waitedMs} ms`);
  assert.ok(pauses[0] === 20 && pauses.every((ms) => ms <= 1000));
  const [{ input }] = calls;
  assert.deepEqual([input.Bucket, input.Key, input.ContentType], ["uploads", KEY, "text/plain"]);
  assert.ok(calls.every(({ name }) => ["PutObjectCommand", "QueryCommand"].includes(name)));
});

Deno.test("probeTrigger() uploads every 15 s until a new notification is active", async () => {
  const { report, said, uploadedMs, waitedMs } = await probed(5 * MINUTES);
  assert.equal(report, undefined);
  assert.deepEqual(uploadedMs, Array.from({ length: 21 }, (_, i) => i * 15_000));
  assert.ok(waitedMs > 5 * MINUTES && waitedMs < 5 * MINUTES + 3000, `${waitedMs} ms`);
  const lines = said.trimEnd().split("\n");
  assert.equal(lines.length, 20);
  assert.equal(
    lines[0],
    "The probe has no row after 15 s: a new notification takes about five minutes on AWS; trying " +
      "again for 9 min ...",
  );
});

Deno.test("probeTrigger() says why no row came within its ten minutes", async () => {
  const { report, uploadedMs } = await probed(Infinity);
  assert.equal(uploadedMs.length, 40);
  assert.deepEqual(report, {
    file: "probe",
    key: KEY,
    checks: 0,
    problems: [
      "no row after 600 s, so nothing else was uploaded: invoked directly, the function writes it: " +
      "the bucket's event does not reach the function",
    ],
  });
});

Deno.test("probeTrigger() ends soon where events reach the function in vain", async () => {
  let asked = 0;
  const failure = new TextEncoder().encode('{"errorType":"AccessDenied","errorMessage":"no"}');
  const InvokeCommand = () => ({ FunctionError: "Unhandled", Payload: failure });
  const { report, uploadedMs } = await probed(Infinity, { InvokeCommand }, () => ++asked === 3);
  assert.equal(uploadedMs.length, 3);
  assert.deepEqual((report as { problems: string[] }).problems, [
    "no row after 45 s, so nothing else was uploaded: the function fails: AccessDenied: no",
  ]);
});

Deno.test("verify removes its probe, and keeps the files alone", async (t) => {
  for (const keep of [false, true]) {
    await t.step(keep ? "--keep" : "its own files", async () => {
      const probes = new Set<string>();
      const removed: unknown[] = [];
      const { stack } = fakeStack({
        ...NOTIFIES,
        GetQueueAttributesCommand: () => ({
          Attributes: {
            ApproximateNumberOfMessages: "0",
            ApproximateNumberOfMessagesNotVisible: "0",
          },
        }),
        PutObjectCommand: ({ Key }) => {
          probes.add(String(Key));
          return {};
        },
        QueryCommand: ({ ExpressionAttributeValues }) => {
          const { ":key": { S: key } } = ExpressionAttributeValues as { ":key": { S: string } };
          return key.endsWith("/probe.txt") ? { Items: [toAttributes(row(key, {}))] } : {};
        },
        ListObjectVersionsCommand: ({ Prefix }) => ({
          Versions: [...probes].filter((key) => key.startsWith(String(Prefix)))
            .map((Key) => ({ Key, VersionId: "1" })),
        }),
        DeleteObjectsCommand: ({ Delete }) => {
          for (const { Key } of (Delete as { Objects: { Key: string }[] }).Objects) {
            probes.delete(Key);
            removed.push(Key);
          }
          return {};
        },
        DeleteItemCommand: ({ Key }) => {
          removed.push((Key as { file_key: { S: string } }).file_key.S);
          return {};
        },
      });
      const leftOut = keep ? ['"a" was left out'] : [];
      const options = { rowDeadlineMs: 100, firstRowDeadlineMs: 100, keep, leftOut };
      const said = await progressOf(async () => {
        const { ok, problems } = await verifyStack(stack, [], options);
        assert.deepEqual([ok, problems], [!keep, leftOut]);
      });
      assert.equal(removed.length, 2);
      assert.match(String(removed[0]), /^in\/verify-[-0-9a-f]{36}\/probe\.txt$/);
      assert.equal(removed[1], removed[0]);
      assert.match(said, keep ? /to uploads\/in\/, 1 left out / : /to uploads\/in\/verify-/);
    });
  }
});

Deno.test("verify uploads no file where the probe has no row", async () => {
  const { stack, calls } = fakeStack({
    ...NOTIFIES,
    GetQueueAttributesCommand: () => ({
      Attributes: { ApproximateNumberOfMessages: "0", ApproximateNumberOfMessagesNotVisible: "0" },
    }),
    HeadObjectCommand: () => ({ ContentLength: 18, LastModified: new Date(0) }),
  });
  const open = () => {
    throw new Error("uploaded");
  };
  const options = { rowDeadlineMs: 0, firstRowDeadlineMs: 0, keep: false };
  const { ok, problems } = await verifyStack(stack, [{ file: "a", size: 1, open }], options);
  assert.deepEqual([ok, problems], [false, [
    "probe: no row after 0 s, so nothing else was uploaded: invoked directly, the function reports " +
    "success, but writes no row",
  ]]);
  assert.equal(calls.filter(({ name }) => name === "PutObjectCommand").length, 1);
});

Deno.test("verify uploads nothing to a bucket that calls nothing", async () => {
  const { stack, calls } = fakeStack({});
  const options = { rowDeadlineMs: 60_000, firstRowDeadlineMs: 600_000, keep: false };
  const { ok, problems } = await verifyStack(stack, [], options);
  assert.deepEqual([ok, problems], [false, [
    "the bucket uploads has no notification that calls the function, so nothing was uploaded; " +
    "deno task deploy --env x puts it right",
  ]]);
  assert.equal(calls.some(({ name }) => name === "PutObjectCommand"), false);
});

Deno.test("verify uploads nothing where the table is gone", async () => {
  const gone = Object.assign(new Error("gone"), { name: "ResourceNotFoundException" });
  const { stack, calls } = fakeStack({
    ...NOTIFIES,
    GetQueueAttributesCommand: () => ({ Attributes: {} }),
    QueryCommand: () => gone,
  });
  const options = { rowDeadlineMs: 0, firstRowDeadlineMs: 0, keep: false };
  await assert.rejects(verifyStack(stack, [], options), gone);
  assert.equal(calls.filter(({ name }) => name === "PutObjectCommand").length, 0);
});

Deno.test("verify's table clips a long name, and shows a space at its end", () => {
  const text = reportToText(
    {
      ok: true,
      bucket: "uploads",
      files: [`${"long/".repeat(30)}a.txt`, "b.txt "].map((file) => ({
        file,
        key: file,
        rowAfterMs: 7,
        checks: 14,
        problems: [],
      })),
      failureQueue: { before: 0, after: 0 },
      problems: [],
    } as Parameters<typeof reportToText>[0],
  );
  const [, long, spaced] = text.split("\n");
  assert.equal(long, `${"long/".repeat(11)}long…       7 ms  14 passed`);
  assert.equal(spaced, `${"b.txt\\u{20}".padEnd(60)}       7 ms  14 passed`);
});
