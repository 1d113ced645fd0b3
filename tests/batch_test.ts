/** The function's answers to a job of S3 Batch Operations. */

import assert from "node:assert/strict";
import { type BatchAnswer, handle } from "../function/batch.ts";
import type { ObjectAnswer } from "../function/read.ts";
import { rowToPut } from "../handler.ts";
import { awsError, event, fakes, object, record } from "./outside.ts";

const SSE_C = "The object was stored using a form of Server Side Encryption.";
const LAST_MODIFIED = "2026-01-02T03:04:05.000Z"; // of object()

type Given = Parameters<typeof fakes>[0];

/** A task as schema 2.0 has it, with just these fields of its own. */
function task(fields: Record<string, unknown> = {}) {
  return { taskId: "t", s3Key: "key", s3VersionId: "v1", s3Bucket: "uploads", ...fields };
}

function invocation(tasks: unknown[], invocationSchemaVersion = "2.0") {
  const job = { id: "job", userArguments: {} };
  return { invocationSchemaVersion, invocationId: "i", job, tasks };
}

/** Handles an invocation; answers its results as `code: string`, and what was called. */
async function handled(input: unknown, given?: Given) {
  const { outside, calls } = fakes(given);
  const answer = await handle(input, outside) as BatchAnswer;
  const results = answer.results.map(({ resultCode, resultString }) =>
    `${resultCode}: ${resultString}`
  );
  return { answer, results, ...calls };
}

Deno.test("F90 handle() makes a task of either schema a backfill's row, in three calls", async (t) => {
  const { s3Bucket: _, ...first } = task({ s3Key: "a+%2B/%C3%BC.txt" });
  const cases = [
    ["1.0", { ...first, s3BucketArn: "arn:aws:s3:::uploads" }],
    ["1.0", { ...first, s3BucketArn: "arn:aws:s3:us-east-1:123456789012:uploads" }],
    ["2.0", { ...first, s3Bucket: "uploads" }],
    ["2.7", { ...first, s3Bucket: "uploads", more: "fields" }],
  ] as const;
  for (const [schema, one] of cases) {
    await t.step(`${schema} ${JSON.stringify(one)}`, async () => {
      const input = invocation([one], schema);
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
        timestamp: LAST_MODIFIED,
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
      assert.deepEqual(aws, [
        "GET a +/ü.txt v1",
        "QUERY a +/ü.txt from 2026-01-02T03:03:05.000Z",
        "PUT a +/ü.txt",
      ]);
      assert.deepEqual(log.map(({ outcome, file_key }) => [outcome, file_key]), [
        ["written", row.file_key],
      ]);
    });
  }
});

Deno.test("F90 handle() takes the version from S3's answer where a task has none", async (t) => {
  for (const s3VersionId of [null, undefined, "", "null"]) {
    await t.step(String(s3VersionId), async () => {
      const found = (VersionId?: string) => ({ key: { ...object("text"), VersionId } });
      const versions = async (answered?: string) => {
        const { rows } = await handled(invocation([task({ s3VersionId })]), {
          objects: found(answered),
        });
        return rows.map(({ version_id }) => version_id);
      };
      assert.deepEqual(await versions("now"), ["now"]);
      assert.deepEqual(await versions("null"), [undefined]);
      assert.deepEqual(await versions(), [undefined]);
    });
  }
});

Deno.test("F90 handle() answers each of many tasks by its own id", async () => {
  const ids = Array.from({ length: 100 }, (_, i) => `t${i}`);
  const tasks = ids.map((taskId) => task({ taskId, s3Key: taskId === "t7" ? "%" : taskId }));
  const { answer, rows } = await handled(invocation(tasks));
  const results = new Map(answer.results.map(({ taskId, resultCode }) => [taskId, resultCode]));
  assert.deepEqual([...results.keys()].toSorted(), ids.toSorted());
  const failed = ids.filter((id) => results.get(id) !== "Succeeded");
  assert.deepEqual([failed, rows.length], [["t7"], 99]);
});

Deno.test("F91 handle() changes nothing when a job runs twice, or after a backfill", async () => {
  const { outside, calls } = fakes();
  const input = invocation([task()]);
  for (const outcome of ["written", "unchanged", "unchanged"]) {
    const { results } = await handle(input, outside) as BatchAnswer;
    const expected = { taskId: "t", resultCode: "Succeeded", resultString: outcome };
    assert.deepEqual(results, [expected]);
  }
  // The record that tasks/backfill.ts sends of the same object.
  const eventName = "ObjectCreated:Backfill";
  const sent = record({ sequencer: undefined }, { eventName, eventTime: LAST_MODIFIED });
  await handle(event(sent), outside);
  assert.deepEqual([calls.rows.length, calls.table.size], [1, 1]);
  assert.equal(rowToPut(calls.rows[0]).ConditionExpression, "attribute_not_exists(file_key)");
});

Deno.test("F92 handle() calls a fact about the object success; without its time there is no row", async (t) => {
  const cases: [name: string, error: Error, aws: string[], row: boolean, fact: string][] = [
    ["gone", awsError("NoSuchKey", 404), ["GET"], false, "gone"],
    ["the version is gone", awsError("NoSuchVersion", 404), ["GET"], false, "gone"],
    ["a delete marker", awsError("MethodNotAllowed", 405), ["GET"], false, "gone"],
    ["SSE-C", awsError("InvalidRequest", 400, SSE_C), ["GET"], false, "customer-encrypted"],
    [
      "archived",
      awsError("InvalidObjectState", 403),
      ["GET", "HEAD", "QUERY", "PUT"],
      true,
      "archived",
    ],
    ["empty", awsError("InvalidRange", 416), ["GET", "HEAD", "QUERY", "PUT"], true, "empty"],
  ];
  for (const [name, error, calls, hasRow, fact] of cases) {
    await t.step(name, async () => {
      const { results, aws, rows, log } = await handled(invocation([task()]), {
        getErrors: [error],
      });
      assert.deepEqual(results, [`Succeeded: ${hasRow ? "written" : "ignored"}`]);
      assert.deepEqual(aws.map((call) => call.split(" ")[0]), calls);
      assert.deepEqual(rows.map(({ timestamp }) => timestamp), hasRow ? [LAST_MODIFIED] : []);
      assert.deepEqual(log.map(({ object, file_key }) => [object, file_key]), [[fact, "key"]]);
    });
  }
});

Deno.test("F93 handle() calls temporary what an event would be run again for", async (t) => {
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
        /^TemporaryFailure: Cannot (read|look for the row of|write the row of) "key" from "upl/,
      );
      assert.deepEqual([rows.length, log.length, log[0].outcome], [0, 1, "failed"]);
      assert.equal(JSON.stringify(log).includes("1970"), false);
    });
  }
  await t.step("no time left", async () => {
    const { outside, calls } = fakes();
    outside.remainingMs = () => 999;
    const { results } = await handle(invocation([task()]), outside) as BatchAnswer;
    assert.equal(results[0].resultCode, "TemporaryFailure");
    assert.match(results[0].resultString, /Cannot begin "key": no time left/);
    assert.deepEqual(calls.aws, []);
  });
});

Deno.test("F94 handle() calls permanent what is wrong with the task itself", async (t) => {
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

Deno.test("F91 handle() writes no second row where the version's own event came", async (t) => {
  const upload = { size: 4, versionId: "v1", eTag: "e1", sequencer: "0A" };
  const cases: [name: string, of: Partial<typeof upload>, eventTime: string, rows: number][] = [
    ["its event, after the object's time", {}, "2026-01-02T03:04:05.678Z", 1],
    ["its event, days after, as of an upload in parts", {}, "2026-01-09T00:00:00.000Z", 1],
    ["by a clock that is behind", {}, "2026-01-02T03:03:59.000Z", 1],
    ["another version's", { versionId: "v0" }, "2026-01-02T03:04:05.678Z", 2],
    ["an older one's, of the same id", {}, "2026-01-02T03:03:00.000Z", 2], // no version is so old
  ];
  for (const [name, of, eventTime, count] of cases) {
    await t.step(name, async () => {
      const { outside, calls } = fakes();
      await handle(event(record({ ...upload, ...of }, { eventTime })), outside);
      const { results } = await handle(invocation([task()]), outside) as BatchAnswer;
      const outcome = count === 1 ? "unchanged" : "written";
      assert.deepEqual(results.map(({ resultString }) => resultString), [outcome]);
      assert.equal(calls.table.size, count);
    });
  }
  await t.step("without versions the tag tells", async () => {
    for (const [eTag, count] of [["e1", 1], ["e2", 2]] as const) {
      const { outside, calls } = fakes();
      await handle(event(record({ ...upload, versionId: undefined, eTag })), outside);
      for (const row of calls.table.values()) row.etag = eTag; // as of an object that was replaced
      await handle(invocation([task({ s3VersionId: null })]), outside);
      assert.equal(calls.table.size, count);
    }
  });
});

Deno.test("F95 handle() leaves what is too new to its own event", async (t) => {
  const cases: [createdBefore: unknown, outcome: string][] = [
    ["2026-01-02T03:04:05Z", "ignored"],
    ["2026-01-02T03:04:05.001Z", "written"],
    ["2025-01-01T00:00:00Z", "ignored"],
    [undefined, "written"],
  ];
  for (const [createdBefore, outcome] of cases) {
    await t.step(String(createdBefore), async () => {
      const { outside, calls } = fakes();
      const job = { id: "job", userArguments: { createdBefore } };
      const input = { ...invocation([task()]), job };
      const { results } = await handle(input, outside) as BatchAnswer;
      assert.deepEqual([results[0].resultCode, results[0].resultString], ["Succeeded", outcome]);
      assert.equal(calls.rows.length, outcome === "written" ? 1 : 0);
    });
  }
  await t.step("and has no row of an object without a time", async () => {
    for (const LastModified of [undefined, new Date(NaN)]) {
      const odd: ObjectAnswer & { bytes: Uint8Array } = { ...object("text"), LastModified };
      const { results, rows } = await handled(invocation([task()]), { objects: { key: odd } });
      assert.deepEqual([results, rows], [["Succeeded: ignored"], []]);
    }
  });
});

Deno.test("F96 handle() throws where no task could be answered", async (t) => {
  const cases: [name: string, input: unknown, message: RegExp][] = [
    ["another schema", invocation([task()], "3.0"), /schema is not 1.x or 2.x$/],
    ["no schema", { ...invocation([task()]), invocationSchemaVersion: 2 }, /schema is not/],
    ["no invocation id", { ...invocation([task()]), invocationId: null }, /has no id$/],
    ["no task id", invocation([task(), task({ taskId: undefined })]), /has no id$/],
    ["a task that is none", invocation([null]), /has no id$/],
    [
      "an argument that is no time",
      { ...invocation([task()]), job: { userArguments: { createdBefore: "soon" } } },
      /its createdBefore is no time$/,
    ],
    ["no list of tasks", { ...invocation([]), tasks: "t" }, /it has no list of Records$/],
  ];
  for (const [name, input, message] of cases) {
    await t.step(name, async () => {
      const { outside, calls } = fakes();
      await assert.rejects(async () => await handle(input, outside), {
        name: "InvalidEventError",
        message,
      });
      assert.deepEqual(calls.aws, []);
    });
  }
});

Deno.test("handle() leaves events to handleEvent()", async () => {
  const { outside, calls } = fakes();
  assert.equal(await handle(event(record()), outside), undefined);
  assert.equal(calls.rows[0].event_name, "ObjectCreated:Put");
});
