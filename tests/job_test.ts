/** What the function answers to tasks: of a job of S3 Batch Operations, or of `backfill`. */

import assert from "node:assert/strict";
import { handleJob, isInvocation, type Listed } from "../function/job.ts";
import { ON_TIME_MS } from "../function/one_row.ts";
import { handleEvent, type Outside } from "../handler.ts";
import { toArguments } from "../tasks/filters.ts";
import { awsError, event, fakes as fakesAt, namesOfCalls, object, record } from "./outside.ts";

const LAST_MODIFIED = "2026-01-02T03:04:05.000Z"; // of object()

/** The time of a backfill's row of it, in six digits. */
const ROW_TIME = "2026-01-02T03:04:05.000000Z";

/** Ten minutes after the object's time, from when on a backfill records it. */
const SETTLED = "2026-01-02T03:14:05Z";

const LISTED: Listed = { lastModified: LAST_MODIFIED, etag: '"e1"', size: 4 };

/** With the version that a GET answers where the bucket has versions. */
const VERSIONED = { objects: { key: { ...object("text"), VersionId: "v1" } } };

const WRITTEN = "Succeeded: written";
const UNCHANGED = "Succeeded: unchanged";

type Given = Parameters<typeof fakesAt>[0];

function fakes(given: Given = {}) {
  return fakesAt({ now: SETTLED, ...given });
}

/** A task as schema 2.0 has it, with just these fields of its own. */
function task(fields: Record<string, unknown> = {}) {
  return { taskId: "t", s3Key: "key", s3VersionId: "v1", s3Bucket: "uploads", ...fields };
}

/** A task of `backfill`, which knows no version. */
function listedTask(fields: Partial<Listed> = {}) {
  return task({ s3VersionId: null, listed: { ...LISTED, ...fields } });
}

function invocation(tasks: unknown[], userArguments: unknown = {}) {
  const job = { id: "job", userArguments };
  return { invocationSchemaVersion: "2.0", invocationId: "i", job, tasks };
}

/** Handles one task; answers its result as `code: string`. */
async function resultOf(one: unknown, outside: Outside, userArguments?: unknown): Promise<string> {
  const { results } = await handleJob(invocation([one], userArguments), outside);
  return results.map(({ resultCode, resultString }) => `${resultCode}: ${resultString}`).join();
}

/** The same, and what was called. */
async function handled(one: unknown, given?: Given, userArguments?: unknown) {
  const { outside, calls } = fakes(given);
  const result = await resultOf(one, outside, userArguments);
  return { result, names: namesOfCalls(calls.aws), ...calls };
}

Deno.test("F90 handleJob() makes a task of either schema a backfill's row", async (t) => {
  const { s3Bucket: _, ...first } = task({ s3Key: "a+%2B/%C3%BC.txt" });
  const cases = [
    ["1.0", { ...first, s3BucketArn: "arn:aws:s3:us-east-1:123456789012:uploads" }],
    ["2.7", { ...first, s3Bucket: "uploads", more: "fields" }],
  ] as const;
  for (const [invocationSchemaVersion, one] of cases) {
    await t.step(invocationSchemaVersion, async () => {
      const { outside, calls } = fakes({ objects: { "a +/ü.txt": object("Hello") } });
      const input = { ...invocation([one], null), invocationSchemaVersion };
      assert.deepEqual(await handleJob(input, outside), {
        invocationSchemaVersion,
        treatMissingKeysAs: "TemporaryFailure",
        invocationId: "i",
        results: [{ taskId: "t", resultCode: "Succeeded", resultString: "written" }],
      });
      const [{ processed_at: _, ...row }] = calls.rows;
      assert.deepEqual(row, {
        file_key: "a +/ü.txt",
        timestamp: ROW_TIME,
        bucket_name: "uploads",
        event_name: "ObjectCreated:Backfill",
        version_id: "v1",
        file_size: 5,
        content_type: "text/plain",
        last_modified: LAST_MODIFIED,
        etag: "e1",
        storage_class: "STANDARD",
        content_preview: "Hello",
      });
      const look = "QUERY a +/ü.txt 2026-01-02T03:04:00.000000Z to 9 up";
      assert.deepEqual(calls.aws, ["GET a +/ü.txt v1", look, "PUT a +/ü.txt", look]);
      const [{ level, outcome, file_key, event_time, duration_ms }] = calls.log;
      assert.deepEqual([level, outcome, duration_ms], ["INFO", "written", 300]);
      assert.deepEqual([file_key, event_time], [row.file_key, ROW_TIME]);
    });
  }
});

Deno.test("F90 handleJob() takes the version from S3's answer where a task has none", async () => {
  for (const s3VersionId of [null, undefined, "", "null"]) {
    for (const [VersionId, expected] of [["now", "now"], ["null"], []]) {
      const objects = { key: { ...object("text"), VersionId } };
      const { rows } = await handled(task({ s3VersionId }), { objects });
      assert.deepEqual(rows.map(({ version_id }) => version_id), [expected]);
    }
  }
});

Deno.test("F90 handleJob() answers each of many tasks by its own id", async () => {
  const ids = Array.from({ length: 100 }, (_, i) => `t${i}`);
  const tasks = ids.map((taskId) => task({ taskId, s3Key: taskId === "t7" ? "%" : taskId }));
  const { outside, calls } = fakes();
  const answer = await handleJob(invocation(tasks), outside);
  const results = new Map(answer.results.map(({ taskId, resultCode }) => [taskId, resultCode]));
  assert.deepEqual([...results.keys()].toSorted(), ids.toSorted());
  const failed = ids.filter((id) => results.get(id) !== "Succeeded");
  assert.deepEqual([failed, calls.rows.length], [["t7"], 99]);
});

Deno.test("F91 handleJob() changes nothing when the same task comes again, and logs nothing", async () => {
  const { outside, calls } = fakes(VERSIONED);
  const cases = [
    [task(), WRITTEN, ["GET", "QUERY", "PUT", "QUERY"]],
    [task(), UNCHANGED, ["GET", "QUERY"]],
    [listedTask(), UNCHANGED, ["QUERY"]],
    [listedTask({ lastModified: "2026-01-02T03:04:05.678Z" }), UNCHANGED, ["QUERY"]],
  ] as const;
  for (const [one, result, aws] of cases) {
    calls.aws.length = 0;
    assert.equal(await resultOf(one, outside), result);
    assert.deepEqual(namesOfCalls(calls.aws), aws);
  }
  assert.deepEqual([calls.table.size, calls.log.length], [1, 1]);
});

Deno.test("F91 handleJob() finds its event's row among many others of the key", async () => {
  const { outside, calls } = fakes(VERSIONED);
  for (let n = 1; n <= 402; n++) {
    const eventTime = new Date(Date.parse(LAST_MODIFIED) + n).toISOString();
    const versionId = n === 402 ? "v1" : `o${n}`; // a multipart upload's is the newest
    await handleEvent(event(record({ versionId }, { eventTime })), outside);
  }
  calls.aws.length = 0;
  assert.equal(await resultOf(task(), outside), UNCHANGED);
  const look = "QUERY key 2026-01-02T03:04:00.000000Z to 9";
  assert.deepEqual(calls.aws, ["GET key v1", `${look} up`, `${look} down`]);
});

const SSE_C = awsError("InvalidRequest", 400, "stored using a form of Server Side Encryption");

Deno.test("F92 handleJob() calls a fact about the object success; without its time there is no row", async (t) => {
  const HEAD = ["GET", "HEAD", "QUERY", "PUT", "QUERY"];
  const cases: [fact: string, error: Error, result: string, calls: string[]][] = [
    ["deleted", awsError("NoSuchKey", 404), "Succeeded: ignored: deleted", ["GET"]],
    ["SSE-C", SSE_C, "Succeeded: ignored: SSE-C", ["GET"]],
    ["archived", awsError("InvalidObjectState", 403), WRITTEN, HEAD],
  ];
  for (const [fact, error, expected, calls] of cases) {
    await t.step(fact, async () => {
      const { result, rows, log, names } = await handled(task(), { getErrors: [error] });
      assert.deepEqual([result, names], [expected, calls]);
      assert.deepEqual(rows.map((row) => row.timestamp), result === WRITTEN ? [ROW_TIME] : []);
      assert.deepEqual(log.map(({ object, file_key }) => [object, file_key]), [[fact, "key"]]);
    });
  }
  await t.step("S3 tells no time", async () => {
    for (const LastModified of [undefined, new Date(NaN)]) {
      const objects = { key: { ...object("text"), LastModified } };
      const { result, rows } = await handled(task(), { objects });
      assert.deepEqual([result, rows], ["Succeeded: ignored: S3 tells no time of it", []]);
    }
  });
});

Deno.test("F92 handleJob() records an SSE-C object as it is listed, once its version is known", async () => {
  const first = await handled(listedTask(), { getErrors: [SSE_C] });
  assert.equal(first.result, "Succeeded: ignored: SSE-C");
  for (const [s3VersionId, version] of [["v9", "v9"], ["null", undefined]] as const) {
    const one = task({ s3VersionId, listed: LISTED });
    const { result, rows } = await handled(one, { getErrors: [SSE_C] });
    assert.equal(result, WRITTEN);
    const { file_size, etag, last_modified, version_id, ...rest } = rows[0];
    assert.deepEqual([file_size, etag, last_modified], [4, "e1", LAST_MODIFIED]);
    assert.deepEqual([version_id, "content_preview" in rest], [version, false]);
  }
});

Deno.test("F93 handleJob() calls temporary what an event would be run again for", async (t) => {
  const cases = [
    ["getErrors", "read"],
    ["queryErrors", "look for the rows of"],
    ["putErrors", "write the row of"],
  ];
  const names = { bucket_name: "uploads", event_name: "ObjectCreated:Backfill" };
  const known = { ...names, version_id: "v1", file_key: "key" };
  for (const [call, action] of cases) {
    await t.step(call, async () => {
      const denied = awsError("AccessDenied", 403);
      const { result, rows, log } = await handled(task(), { [call]: [denied] });
      const error = `Cannot ${action} "key" from "uploads": AccessDenied: no (HTTP 403)`;
      assert.equal(result, `TemporaryFailure: ${error}`);
      const [{ timestamp: _, duration_ms, ...line }] = log;
      assert.deepEqual(line, { level: "ERROR", outcome: "failed", ...known, error });
      assert.deepEqual([rows.length, log.length, duration_ms! < 1000], [0, 1, true]);
    });
  }
  await t.step("no time left", async () => {
    const { outside, calls } = fakes();
    outside.remainingMs = () => 999;
    const result = await resultOf(listedTask(), outside);
    assert.match(result, /^TemporaryFailure: .*Cannot begin "key": no time left/);
    assert.deepEqual(calls.aws, []);
  });
});

Deno.test("F94 handleJob() calls permanent what is wrong with the task itself", async (t) => {
  const cases: [name: string, fields: Record<string, unknown>, why: RegExp][] = [
    ["a malformed escape", { s3Key: "%zz" }, /its key is not form-encoded.*"uploads"/],
    ["no bucket", { s3Bucket: undefined }, /it names no bucket/],
  ];
  for (const [name, fields, why] of cases) {
    await t.step(name, async () => {
      const { result, aws, log } = await handled(task(fields));
      assert.match(result, /^PermanentFailure: InvalidEventError: Cannot handle a record: /);
      assert.match(result, why);
      assert.deepEqual([aws, log[0].outcome], [[], "failed"]);
    });
  }
});

Deno.test("F95 handleJob() leaves an object younger than ten minutes to its own event", async (t) => {
  const now = "2026-01-02T03:14:04Z"; // the clock ticks by 100 ms as it is read
  const young = `Succeeded: young: ${SETTLED.replace("Z", ".000Z")}`;
  await t.step("a job's, when it is read; a listed one without a call", async () => {
    for (const [one, expected] of [[task(), ["GET"]], [listedTask(), []]] as const) {
      const { result, names, log } = await handled(one, { ...VERSIONED, now });
      assert.deepEqual([result, names, log], [young, expected, []]);
      assert.equal((await handled(one, VERSIONED)).result, WRITTEN);
    }
  });
  await t.step("also where a young object has taken the place of the listed one", async () => {
    const listed = listedTask({ lastModified: "2026-01-01T00:00:00.000Z" });
    assert.equal((await handled(listed, { now })).result, young);
  });
  await t.step("ten minutes are twice the time in which an event is on time", async () => {
    const { outside } = fakes({ now: "2026-01-02T03:04:06Z" });
    outside.onTimeMs = 300;
    assert.equal(ON_TIME_MS, 5 * 60_000);
    assert.equal(await resultOf(task(), outside), WRITTEN);
  });
});

Deno.test("F99 handleJob() reads a listed object if not exactly one row is of its bytes and time", async () => {
  const { outside, calls } = fakes();
  const versions = ["v1", "v2"].map((s3VersionId) => task({ s3VersionId }));
  await handleJob(invocation(versions), outside); // the same bytes twice in one second
  for (const [VersionId, result] of [["v2", UNCHANGED], ["v3", WRITTEN]] as const) {
    outside.getObject = () => Promise.resolve({ ...object("text"), VersionId });
    assert.equal(await resultOf(listedTask(), outside), result);
  }
  // A row of the same second, of other bytes, is another version's.
  outside.getObject = () => Promise.resolve({ ...object("text"), VersionId: "v4", ETag: '"e2"' });
  for (const result of [WRITTEN, UNCHANGED]) {
    assert.equal(await resultOf(listedTask({ etag: '"e2"' }), outside), result);
  }
  const digits = [...calls.table.values()].map(({ timestamp }) => timestamp.slice(-7));
  assert.deepEqual(digits.toSorted(), ["000000Z", "000001Z", "000002Z", "000003Z"]);
});

Deno.test("handleJob() looks and writes nothing in a dry run", async () => {
  const { outside, calls } = fakes(VERSIONED);
  const dryRun = () => resultOf(listedTask(), outside, { dryRun: "true" });
  assert.equal(await dryRun(), "Succeeded: missing");
  assert.deepEqual([namesOfCalls(calls.aws), calls.log], [["QUERY", "GET"], []]);
  await resultOf(listedTask(), outside);
  assert.equal(await dryRun(), UNCHANGED);
});

Deno.test("handleJob() ignores what the trigger's filter leaves out", async () => {
  const filter = toArguments({ filter_prefixes: ["in/"], filter_suffixes: [".txt"] });
  const { result, aws } = await handled(task({ s3Key: "in/a" }), {}, filter);
  assert.equal(result, "Succeeded: ignored: the trigger's filter leaves it out");
  assert.deepEqual(aws, []);
  assert.equal((await handled(task({ s3Key: "in/a.txt" }), {}, filter)).result, WRITTEN);
});

Deno.test("F96 handleJob() throws where no task could be answered", async () => {
  const one = invocation([task()]);
  const cases: [input: Record<string, unknown>, message: RegExp][] = [
    [{ ...one, invocationSchemaVersion: "3.0" }, /schema is not 1.x or 2.x$/],
    [{ ...one, invocationSchemaVersion: 2 }, /schema is not 1.x or 2.x$/],
    [{ ...one, invocationId: null }, /has no id$/],
    [invocation([task(), task({ taskId: undefined })]), /has no id$/],
    [invocation([null]), /has no id$/],
  ];
  for (const [input, message] of cases) {
    const { outside, calls } = fakes();
    await assert.rejects(handleJob(input, outside), { name: "InvalidEventError", message });
    assert.deepEqual(calls.aws, []);
  }
});

Deno.test("isInvocation() tells a job's payload from an event", () => {
  assert.equal(isInvocation(invocation([])), true);
  for (const other of [event(record()), { tasks: "t" }, null, [], "tasks"]) {
    assert.equal(isInvocation(other), false);
  }
});
