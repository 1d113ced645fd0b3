/** What the function answers to tasks: of a job of S3 Batch Operations, or of `backfill`. */

import assert from "node:assert/strict";
import { handleJob, isInvocation, type Listed } from "../function/job.ts";
import { ON_TIME_MS, rowToPut } from "../function/one_row.ts";
import type { ObjectAnswer } from "../function/read.ts";
import { handleEvent } from "../handler.ts";
import { awsError, event, fakes as fakesAt, object, record } from "./outside.ts";

const SSE_C = "The object was stored using a form of Server Side Encryption.";
const LAST_MODIFIED = "2026-01-02T03:04:05.000Z"; // of object()

/** The time of a backfill's row of it, in six digits. */
const ROW_TIME = "2026-01-02T03:04:05.000000Z";

/** Ten minutes after the object's time, from when on a backfill records it. */
const SETTLED = "2026-01-02T03:14:05Z";

const LISTED: Listed = { lastModified: LAST_MODIFIED, etag: '"e1"', size: 4 };

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

/** Handles an invocation; answers its results as `code: string`, and what was called. */
async function handled(input: Record<string, unknown>, given?: Given) {
  const { outside, calls } = fakes(given);
  const answer = await handleJob(input, outside);
  return { answer, results: resultsOf(answer), ...calls };
}

function resultsOf({ results }: Awaited<ReturnType<typeof handleJob>>): string[] {
  return results.map(({ resultCode, resultString }) => `${resultCode}: ${resultString}`);
}

/** The calls' names. */
function names(aws: string[]): string[] {
  return aws.map((call) => call.split(" ")[0]);
}

/** With the version that a GET answers where the bucket has versions. */
const VERSIONED = { objects: { key: { ...object("text"), VersionId: "v1" } } };

const WRITTEN = ["Succeeded: written"];
const UNCHANGED = ["Succeeded: unchanged"];

Deno.test("F90 handleJob() makes a task of either schema a backfill's row", async (t) => {
  const { s3Bucket: _, ...first } = task({ s3Key: "a+%2B/%C3%BC.txt" });
  const cases = [
    ["1.0", { ...first, s3BucketArn: "arn:aws:s3:::uploads" }],
    ["1.0", { ...first, s3BucketArn: "arn:aws:s3:us-east-1:123456789012:uploads" }],
    ["2.0", { ...first, s3Bucket: "uploads" }],
    ["2.7", { ...first, s3Bucket: "uploads", more: "fields" }],
  ] as const;
  for (const [schema, one] of cases) {
    await t.step(`${schema} ${JSON.stringify(one)}`, async () => {
      const input = { ...invocation([one], null), invocationSchemaVersion: schema };
      const given = { objects: { "a +/ü.txt": object("Hello") } };
      const { answer, rows, aws, log } = await handled(input, given);
      assert.deepEqual(answer, {
        invocationSchemaVersion: schema,
        treatMissingKeysAs: "TemporaryFailure",
        invocationId: "i",
        results: [{ taskId: "t", resultCode: "Succeeded", resultString: "written" }],
      });
      const row = {
        file_key: "a +/ü.txt",
        timestamp: ROW_TIME,
        bucket_name: "uploads",
        event_name: "ObjectCreated:Backfill",
        version_id: "v1",
        file_size: 5,
        content_type: "text/plain",
        last_modified: LAST_MODIFIED,
        etag: "e1",
      };
      assert.deepEqual(rows.map(({ processed_at: _, ...rest }) => rest), [
        { ...row, content_preview: "Hello" },
      ]);
      assert.equal(rowToPut(rows[0]).ConditionExpression, "attribute_not_exists(file_key)");
      const look = "QUERY a +/ü.txt 2026-01-02T03:04:00.000000Z to 9 up";
      assert.deepEqual(aws, ["GET a +/ü.txt v1", look, "PUT a +/ü.txt", look]);
      assert.deepEqual(
        log.map(({ outcome, file_key, event_time }) => [outcome, file_key, event_time]),
        [
          ["written", row.file_key, ROW_TIME],
        ],
      );
    });
  }
});

Deno.test("F90 handleJob() takes the version from S3's answer where a task has none", async (t) => {
  for (const s3VersionId of [null, undefined, "", "null"]) {
    await t.step(String(s3VersionId), async () => {
      const versions = async (VersionId?: string) => {
        const { rows } = await handled(invocation([task({ s3VersionId })]), {
          objects: { key: { ...object("text"), VersionId } },
        });
        return rows.map(({ version_id }) => version_id);
      };
      assert.deepEqual(await versions("now"), ["now"]);
      assert.deepEqual(await versions("null"), [undefined]);
      assert.deepEqual(await versions(), [undefined]);
    });
  }
});

Deno.test("F90 handleJob() answers each of many tasks by its own id", async () => {
  const ids = Array.from({ length: 100 }, (_, i) => `t${i}`);
  const tasks = ids.map((taskId) => task({ taskId, s3Key: taskId === "t7" ? "%" : taskId }));
  const { answer, rows } = await handled(invocation(tasks));
  const results = new Map(answer.results.map(({ taskId, resultCode }) => [taskId, resultCode]));
  assert.deepEqual([...results.keys()].toSorted(), ids.toSorted());
  const failed = ids.filter((id) => results.get(id) !== "Succeeded");
  assert.deepEqual([failed, rows.length], [["t7"], 99]);
});

Deno.test("F91 handleJob() changes nothing when the same task comes again, and logs nothing", async () => {
  const { outside, calls } = fakes(VERSIONED);
  for (
    const [one, results, aws] of [
      [task(), WRITTEN, ["GET", "QUERY", "PUT", "QUERY"]],
      [task(), UNCHANGED, ["GET", "QUERY"]],
      [listedTask(), UNCHANGED, ["QUERY"]],
    ] as const
  ) {
    calls.aws.length = 0;
    assert.deepEqual(resultsOf(await handleJob(invocation([one]), outside)), results);
    assert.deepEqual(names(calls.aws), aws);
  }
  assert.deepEqual([calls.table.size, calls.log.length], [1, 1]);
});

Deno.test("F91 handleJob() writes no second row where the version's own event came", async (t) => {
  const upload = { size: 4, versionId: "v1", eTag: "e1", sequencer: "0A" };
  const cases: [name: string, of: Partial<typeof upload>, eventTime: string, rows: number][] = [
    ["its event, after the object's time", {}, "2026-01-02T03:04:05.678Z", 1],
    ["its event, days after, as of a multipart upload", {}, "2026-01-09T00:00:00.000Z", 1],
    ["by a clock that is behind", {}, "2026-01-02T03:04:00.000Z", 1],
    ["another version's", { versionId: "v0" }, "2026-01-02T03:04:05.678Z", 2],
    ["an older one's, of the same id", {}, "2026-01-02T03:03:59.999Z", 2], // no version is so old
  ];
  for (const [name, of, eventTime, count] of cases) {
    await t.step(name, async () => {
      const { outside, calls } = fakes();
      await handleEvent(event(record({ ...upload, ...of }, { eventTime })), outside);
      const results = resultsOf(await handleJob(invocation([task()]), outside));
      assert.deepEqual(results, count === 1 ? UNCHANGED : WRITTEN);
      assert.equal(calls.table.size, count);
    });
  }
  await t.step("without versions the ETag tells", async () => {
    for (const [etag, count] of [["e1", 1], ["e2", 2]] as const) {
      const { outside, calls } = fakes();
      await handleEvent(event(record({ ...upload, versionId: undefined, eTag: etag })), outside);
      for (const row of calls.table.values()) row.etag = etag; // as of an object that was replaced
      await handleJob(invocation([task({ s3VersionId: null })]), outside);
      assert.equal(calls.table.size, count);
    }
  });
});

Deno.test("F91 handleJob() finds its event's row among many others of the key", async () => {
  const { outside, calls } = fakes(VERSIONED);
  const at = (ms: number) => new Date(Date.parse(LAST_MODIFIED) + ms).toISOString();
  const put = (n: number, versionId: string) =>
    handleEvent(event(record({ versionId, sequencer: "0A" }, { eventTime: at(n) })), outside);
  for (let n = 1; n <= 401; n++) await put(n, `o${n}`);
  await put(402, "v1"); // a multipart upload's: the newest
  calls.aws.length = 0;
  assert.deepEqual(resultsOf(await handleJob(invocation([task()]), outside)), UNCHANGED);
  const look = "QUERY key 2026-01-02T03:04:00.000000Z to 9";
  assert.deepEqual(calls.aws, ["GET key v1", `${look} up`, `${look} down`]);
});

Deno.test("F91 handleJob() gives two versions of one second a time each", async () => {
  const { outside, calls } = fakes();
  const tasks = ["v1", "v2", "v3"].map((s3VersionId) => task({ s3VersionId, taskId: s3VersionId }));
  const { results } = await handleJob(invocation(tasks), outside); // at the same time
  assert.deepEqual(results.map(({ resultString }) => resultString), Array(3).fill("written"));
  const times = [...calls.table.values()].map(({ timestamp }) => timestamp.slice(-7));
  assert.deepEqual(times.toSorted(), ["000000Z", "000001Z", "000002Z"]);
  const versions = [...calls.table.values()].map(({ version_id }) => version_id);
  assert.deepEqual(versions.toSorted(), ["v1", "v2", "v3"]);
});

Deno.test("F97 handleJob() deletes its row if it finds the event's own beside it", async () => {
  const { outside, calls } = fakes(VERSIONED);
  await handleJob(invocation([task()]), outside);
  const [row] = calls.table.values();
  const own = { ...row, timestamp: "2026-01-02T03:04:05.678Z", event_name: "ObjectCreated:Put" };
  calls.table.set(JSON.stringify(["key", own.timestamp]), own); // its event was killed after the put
  for (const one of [task(), listedTask()]) {
    assert.deepEqual(resultsOf(await handleJob(invocation([one]), outside)), UNCHANGED);
    assert.deepEqual([...calls.table.values()], [own]);
  }
  assert.ok(calls.aws.includes(`DELETE key ${ROW_TIME}`));
});

Deno.test("F92 handleJob() calls a fact about the object success; without its time there is no row", async (t) => {
  const cases: [name: string, error: Error, row: boolean, fact: string][] = [
    ["gone", awsError("NoSuchKey", 404), false, "gone"],
    ["the version is gone", awsError("NoSuchVersion", 404), false, "gone"],
    ["a delete marker", awsError("MethodNotAllowed", 405), false, "gone"],
    ["replaced", awsError("PreconditionFailed", 412), false, "replaced"],
    ["SSE-C", awsError("InvalidRequest", 400, SSE_C), false, "customer-encrypted"],
    ["archived", awsError("InvalidObjectState", 403), true, "archived"],
    ["empty", awsError("InvalidRange", 416), true, "empty"],
  ];
  for (const [name, error, hasRow, fact] of cases) {
    await t.step(name, async () => {
      const given = { getErrors: [error] };
      const { results, aws, rows, log } = await handled(invocation([task()]), given);
      assert.deepEqual(results, hasRow ? WRITTEN : [`Succeeded: ignored: ${fact}`]);
      const calls = hasRow ? ["GET", "HEAD", "QUERY", "PUT", "QUERY"] : ["GET"];
      assert.deepEqual(names(aws), calls);
      assert.deepEqual(rows.map(({ timestamp }) => timestamp), hasRow ? [ROW_TIME] : []);
      assert.deepEqual(log.map(({ object, file_key }) => [object, file_key]), [[fact, "key"]]);
    });
  }
  await t.step("S3 tells no time", async () => {
    for (const LastModified of [undefined, new Date(NaN)]) {
      const odd: ObjectAnswer & { bytes: Uint8Array } = { ...object("text"), LastModified };
      const { results, rows } = await handled(invocation([task()]), { objects: { key: odd } });
      assert.deepEqual([results, rows], [["Succeeded: ignored: S3 tells no time of it"], []]);
    }
  });
});

Deno.test("F92 handleJob() records an SSE-C object as it is listed, once its version is known", async () => {
  const getErrors = () => [awsError("InvalidRequest", 400, SSE_C)];
  const first = await handled(invocation([listedTask()]), { getErrors: getErrors() });
  assert.deepEqual(first.results, ["Succeeded: ignored: customer-encrypted"]);
  for (const [s3VersionId, version_id] of [["v9", "v9"], ["null", undefined]] as const) {
    const one = task({ s3VersionId, listed: LISTED });
    const { results, rows } = await handled(invocation([one]), { getErrors: getErrors() });
    assert.deepEqual(results, WRITTEN);
    const { file_size, etag, last_modified, version_id: version, ...rest } = rows[0];
    assert.deepEqual([file_size, etag, last_modified], [4, "e1", LAST_MODIFIED]);
    assert.deepEqual([version, "content_preview" in rest], [version_id, false]);
  }
});

Deno.test("F93 handleJob() calls temporary what an event would be run again for", async (t) => {
  const cases: [name: string, given: Given][] = [
    ["read throttled", { getErrors: [awsError("SlowDown", 503)] }],
    ["S3 fails", { getErrors: [awsError("InternalError", 500)] }],
    ["read denied", { getErrors: [awsError("AccessDenied", 403)] }],
    ["no such bucket", { getErrors: [awsError("NoSuchBucket", 404)] }],
    ["no answer", { getErrors: [awsError("TimeoutError")] }],
    ["query throttled", { queryErrors: [awsError("ThrottlingException", 400)] }],
    ["query denied", { queryErrors: [awsError("AccessDeniedException", 400)] }],
    ["write throttled", { putErrors: [awsError("ThrottlingException", 400)] }],
    ["no such table", { putErrors: [awsError("ResourceNotFoundException", 400)] }],
  ];
  for (const [name, given] of cases) {
    await t.step(name, async () => {
      const { results, rows, log } = await handled(invocation([task()]), given);
      assert.equal(results.length, 1);
      assert.match(
        results[0],
        /^TemporaryFailure: Cannot (read|look for the rows of|write the row of) "key" from "upl/,
      );
      assert.deepEqual([rows.length, log.length, log[0].outcome], [0, 1, "failed"]);
      assert.equal(JSON.stringify(log).includes("1970"), false);
    });
  }
  await t.step("no time left", async () => {
    const { outside, calls } = fakes();
    outside.remainingMs = () => 999;
    const { results } = await handleJob(invocation([listedTask()]), outside);
    assert.equal(results[0].resultCode, "TemporaryFailure");
    assert.match(results[0].resultString, /Cannot begin "key": no time left/);
    assert.deepEqual(calls.aws, []);
  });
});

Deno.test("F94 handleJob() calls permanent what is wrong with the task itself", async (t) => {
  const cases: [name: string, fields: Record<string, unknown>, why: RegExp][] = [
    ["a malformed escape", { s3Key: "%zz" }, /its key is not form-encoded.*"uploads"/],
    ["no key", { s3Key: undefined }, /its key is not form-encoded/],
    ["another bucket", { s3Bucket: "other" }, /its bucket is not this function's, "uploads".*"oth/],
    ["no bucket", { s3Bucket: undefined }, /it names no bucket/],
    ["no text as ARN", { s3Bucket: undefined, s3BucketArn: 7 }, /it names no bucket/],
    ["an odd version", { s3VersionId: 7 }, /its versionId is no text/],
  ];
  for (const [name, fields, why] of cases) {
    await t.step(name, async () => {
      const { results, aws, log } = await handled(invocation([task(fields)]));
      assert.match(results[0], /^PermanentFailure: InvalidEventError: Cannot handle a record: /);
      assert.match(results[0], why);
      assert.deepEqual([aws, log[0].outcome], [[], "failed"]);
    });
  }
});

Deno.test("F95 handleJob() leaves an object younger than ten minutes to its own event", async (t) => {
  const early = "2026-01-02T03:14:04Z"; // the clock ticks by 100 ms as it is read
  const young = [`Succeeded: young: ${SETTLED.replace("Z", ".000Z")}`];
  await t.step("a job's, when it is read; a listed one without a call", async () => {
    for (const [one, aws] of [[task(), ["GET"]], [listedTask(), []]] as const) {
      const ended = await handled(invocation([one]), { ...VERSIONED, now: early });
      assert.deepEqual([ended.results, names(ended.aws), ended.log], [young, aws, []]);
      assert.deepEqual((await handled(invocation([one]), VERSIONED)).results, WRITTEN);
    }
  });
  await t.step("also where a young object has taken the place of the listed one", async () => {
    const listed = listedTask({ lastModified: "2026-01-01T00:00:00.000Z" });
    assert.deepEqual((await handled(invocation([listed]), { now: early })).results, young);
  });
  await t.step("ten minutes are twice the time in which an event is on time", async () => {
    const { outside } = fakes({ now: "2026-01-02T03:04:06Z" });
    outside.onTimeMs = 300;
    assert.equal(ON_TIME_MS, 5 * 60_000);
    assert.deepEqual(resultsOf(await handleJob(invocation([task()]), outside)), WRITTEN);
  });
});

Deno.test("F99 handleJob() reads a listed object if not exactly one row is of its bytes and time", async () => {
  const { outside, calls } = fakes();
  const versions = ["v1", "v2"].map((s3VersionId) => task({ s3VersionId }));
  await handleJob(invocation(versions), outside); // the same bytes twice in one second
  for (const [VersionId, outcome] of [["v2", UNCHANGED], ["v3", WRITTEN]] as const) {
    outside.getObject = () => Promise.resolve({ ...object("text"), VersionId });
    assert.deepEqual(resultsOf(await handleJob(invocation([listedTask()]), outside)), outcome);
  }
  assert.equal(calls.table.size, 3);
  // A row of the same second, of other bytes, is another version's.
  outside.getObject = () => Promise.resolve({ ...object("text"), VersionId: "v4", ETag: '"e2"' });
  const other = invocation([listedTask({ etag: '"e2"' })]);
  assert.deepEqual(resultsOf(await handleJob(other, outside)), WRITTEN);
  assert.deepEqual(resultsOf(await handleJob(other, outside)), UNCHANGED);
});

Deno.test("handleJob() looks and writes nothing in a dry run", async () => {
  const { outside, calls } = fakes(VERSIONED);
  const dry = invocation([listedTask()], { dryRun: "true" });
  assert.deepEqual(resultsOf(await handleJob(dry, outside)), ["Succeeded: missing"]);
  assert.deepEqual([names(calls.aws), calls.log], [["QUERY", "GET"], []]);
  await handleJob(invocation([listedTask()]), outside);
  assert.deepEqual(resultsOf(await handleJob(dry, outside)), UNCHANGED);
});

Deno.test("handleJob() ignores what the trigger's filter leaves out", async () => {
  const cases: [userArguments: unknown, isLetThrough: boolean][] = [
    [null, true],
    [{ filter_prefix: "ke", filter_suffix: "ey" }, true],
    [{ filter_prefix: "ey" }, false],
    [{ filter_prefix: "k", filter_suffix: "k" }, false],
  ];
  for (const [given, isLetThrough] of cases) {
    const { results, aws } = await handled(invocation([task()], given));
    const ignored = ["Succeeded: ignored: the trigger's filter leaves it out"];
    assert.deepEqual(results, isLetThrough ? WRITTEN : ignored);
    assert.equal(aws.length > 0, isLetThrough);
  }
});

Deno.test("F96 handleJob() throws where no task could be answered", async (t) => {
  const cases: [name: string, input: Record<string, unknown>, message: RegExp][] = [
    [
      "another schema",
      { ...invocation([task()]), invocationSchemaVersion: "3.0" },
      /schema is not 1.x or 2.x$/,
    ],
    ["no schema", { ...invocation([task()]), invocationSchemaVersion: 2 }, /schema is not/],
    ["no invocation id", { ...invocation([task()]), invocationId: null }, /has no id$/],
    ["no task id", invocation([task(), task({ taskId: undefined })]), /has no id$/],
    ["a task that is none", invocation([null]), /has no id$/],
  ];
  for (const [name, input, message] of cases) {
    await t.step(name, async () => {
      const { outside, calls } = fakes();
      await assert.rejects(handleJob(input, outside), { name: "InvalidEventError", message });
      assert.deepEqual(calls.aws, []);
    });
  }
});

Deno.test("isInvocation() tells a job's payload from an event", () => {
  assert.equal(isInvocation(invocation([])), true);
  for (const other of [event(record()), { tasks: "t" }, null, [], "tasks"]) {
    assert.equal(isInvocation(other), false);
  }
});
