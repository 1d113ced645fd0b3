/** The task backfill against fake clients: what it sends, and what it makes of the results. */

import assert from "node:assert/strict";
import type { Invocation, TaskResult } from "../function/job.ts";
import {
  type BackfillOptions,
  backfillRows,
  backfillToText,
  emptyReport,
} from "../tasks/backfill.ts";
import { type Answers, fakeStack, fakeTime } from "./fixtures.ts";
import { awsError } from "./outside.ts";

const LAST_MODIFIED = new Date("2026-01-02T03:04:05.000Z");
const NOTHING = emptyReport(false);

/** What the function says of an object: its result's code, a space, and its string. */
type Says = (key: string, tries: number) => string;

/** Backfills listed keys, which are encoded; the function says `says` of each. */
async function backfill(
  Keys: string[],
  says: Says,
  { others = {}, ...options }: Partial<BackfillOptions> & { others?: Answers } = {},
) {
  const sent: Invocation[] = [];
  const tries = new Map<string, number>();
  const { stack, calls } = fakeStack({
    ListObjectsV2Command: () => ({
      Contents: Keys.map((Key) => ({ Key, LastModified: LAST_MODIFIED, ETag: '"t"', Size: 7 })),
    }),
    InvokeCommand: ({ Payload }) => {
      const invocation: Invocation = JSON.parse(new TextDecoder().decode(Payload));
      sent.push(invocation);
      const results = invocation.tasks.map(({ taskId, s3Key }) => {
        tries.set(s3Key, (tries.get(s3Key) ?? 0) + 1);
        const [resultCode, resultString] = says(s3Key, tries.get(s3Key)!).split(/ (.*)/);
        return { taskId, resultCode, resultString } as TaskResult;
      });
      return { Payload: new TextEncoder().encode(JSON.stringify({ results })) };
    },
    ...others,
  });
  const { time, pauses } = fakeTime();
  const report = await backfillRows(stack, {
    ...{ prefix: "", dryRun: false, concurrency: 1, time },
    ...options,
  });
  return { report, sent, tries, calls, pauses };
}

Deno.test("backfillRows() sends what a job would, and what is listed", async () => {
  const Keys = ["in/a+b%2B.txt", "in/%C3%BC%0D.txt", "in/other.csv"];
  const { report, sent, calls } = await backfill(Keys, () => "Succeeded written");
  assert.deepEqual(report, { ...NOTHING, objects: 2, written: 2 });
  const [{ invocationId, ...invocation }] = sent;
  assert.match(invocationId, /^[\da-f-]{36}$/);
  const common = { s3VersionId: null, s3Bucket: "uploads" };
  const listed = { lastModified: LAST_MODIFIED.toISOString(), etag: '"t"', size: 7 };
  assert.deepEqual(invocation, {
    invocationSchemaVersion: "2.0",
    job: {
      id: "backfill",
      userArguments: { filter: '{"filter_prefixes":["in/"],"filter_suffixes":[".txt"]}' },
    },
    tasks: [
      { taskId: "0", s3Key: Keys[0], ...common, listed },
      { taskId: "1", s3Key: Keys[1], ...common, listed },
    ],
  });
  const { input } = calls.find(({ name }) => name === "ListObjectsV2Command")!;
  assert.deepEqual([input.Prefix, input.EncodingType], ["in/", "url"]);
  const dry = await backfill(Keys, () => "Succeeded missing", { dryRun: true, prefix: "in/x/" });
  assert.deepEqual(dry.report, { ...NOTHING, dryRun: true, objects: 2, written: 2 });
  assert.equal(dry.sent[0].job.userArguments?.dryRun, "true");
});

Deno.test("backfillRows() counts each result, and says what it means", async () => {
  const results: Record<string, string> = {
    "in/1.txt": "Succeeded written",
    "in/2.txt": "Succeeded unchanged",
    "in/3.txt": "Succeeded ignored: deleted",
    "in/4.txt": "Succeeded ignored: deleted",
    "in/5.txt": "Succeeded young: 2026-01-02T03:14:05.000Z",
    "in/6.txt": "Succeeded young: 2026-01-02T03:15:00.000Z",
    "in/%1B.txt": "PermanentFailure bad \u009b",
  };
  const { report } = await backfill(Object.keys(results), (key) => results[key]);
  assert.deepEqual(report, {
    ...NOTHING,
    ok: false,
    objects: 5,
    written: 1,
    unchanged: 1,
    ignored: { deleted: 2 },
    failures: [{ key: "in/\u001b.txt", reason: "bad \u009b" }],
    young: 2,
    youngUntil: "2026-01-02T03:15:00.000Z",
  });
  assert.equal(
    backfillToText(report),
    "FAILED: in/\\u{1b}.txt: bad \\u{9b}\n" +
      "5 objects: 1 had a row, 1 recorded now, 2 ignored (deleted), 1 failed\n" +
      "Left to S3's events, as they are young: 2 objects; run it again after 2026-01-02T03:15:00.000Z " +
      "for those whose event is lost",
  );
});

Deno.test("backfillRows() tries again, five times, what may succeed later", async () => {
  const Keys = ["in/a.txt", "in/later.txt", "in/never.txt"];
  const says: Says = (key, tries) =>
    key === "in/a.txt" || key === "in/later.txt" && tries === 3
      ? "Succeeded written"
      : "TemporaryFailure Cannot read it";
  const { report, sent, tries, pauses } = await backfill(Keys, says);
  assert.deepEqual([...tries.values()], [1, 3, 5]);
  assert.equal(sent.length, 5);
  for (const [n, ms] of pauses.entries()) assert.ok(ms >= 500 * 4 ** n && ms <= 1000 * 4 ** n);
  const failures = [{ key: "in/never.txt", reason: "Cannot read it" }];
  assert.deepEqual(report, { ...NOTHING, ok: false, objects: 3, written: 2, failures });
});

Deno.test("backfillRows() takes a failed or refused run for a failure of its tasks", async () => {
  const error = (errorType: string) => ({
    FunctionError: "Unhandled",
    Payload: new TextEncoder().encode(JSON.stringify({ errorType, errorMessage: "m" })),
  });
  const refusal = awsError("TooManyRequestsException", 429);
  const InvokeCommand = [error("E"), refusal, error("E"), error("E"), error("F")];
  const { report } = await backfill(["in/a.txt", "in/b.txt"], () => "", {
    others: { InvokeCommand },
  });
  const failures = ["in/a.txt", "in/b.txt"].map((key) => ({ key, reason: "F: m" }));
  assert.deepEqual(report, { ...NOTHING, ok: false, objects: 2, failures });
});

Deno.test("backfillRows() looks up the version of an SSE-C object", async () => {
  const says: Says = (_, tries) => tries === 1 ? "Succeeded ignored: SSE-C" : "Succeeded written";
  const Versions = [
    { Key: "in/a.txt", VersionId: "v2", IsLatest: true, ETag: "t" },
    { Key: "in/a.txt", VersionId: "v1", IsLatest: false, ETag: "t" },
    { Key: "in/a.txt.txt", VersionId: "v3", IsLatest: true, ETag: "t" },
  ];
  const { report, sent } = await backfill(["in/a.txt"], says, {
    others: { ListObjectVersionsCommand: () => ({ Versions, EncodingType: "url" }) },
  });
  assert.deepEqual(report, { ...NOTHING, objects: 1, written: 1 });
  assert.deepEqual(sent.map(({ tasks: [{ s3VersionId }] }) => s3VersionId), [null, "v2"]);
  const deleted = await backfill(["in/b.txt"], () => "Succeeded ignored: SSE-C", {
    others: { ListObjectVersionsCommand: () => ({ Versions, EncodingType: "url" }) },
  });
  assert.deepEqual(deleted.report, { ...NOTHING, objects: 1, ignored: { "SSE-C": 1 } });
});

Deno.test("backfillRows() stops after 1,000 failures", async () => {
  const Keys = Array.from({ length: 3000 }, (_, n) => `in/${n}.txt`);
  const { report } = await backfill(Keys, () => "PermanentFailure bad");
  assert.equal(report.failures.length, 1000);
  assert.match(backfillToText(report), /\nStopped after 1000 failures: fix their cause, then run/);
});
