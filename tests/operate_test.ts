/** The operator's tasks against fake clients: what the stand-in can't be made to answer. */

import assert from "node:assert/strict";
import type { Item } from "../tasks/rows.ts";
import { type Answers, fakeStack, permittedTest, toAttributes } from "./fixtures.ts";

const EVENT = { Records: [{ s3: { object: { key: "a+b" } } }] };

permittedTest("readMessage() takes an envelope or a bare event, and nothing else", async () => {
  const { readMessage } = await import("../tasks/replay.ts");
  const envelope = {
    requestContext: { condition: "RetriesExhausted", approximateInvokeCount: 3 },
    requestPayload: EVENT,
    responsePayload: { errorType: "RecordsFailedError", errorMessage: "1 of 1 failed" },
  };
  const known = { event: EVENT, keys: ["a+b"] };
  const cases = [
    [envelope, {
      ...known,
      tries: 3,
      error: "RecordsFailedError: 1 of 1 failed",
    }],
    // Expired before it ran: there is no response.
    [{ ...envelope, responsePayload: null, requestContext: { condition: "EventAgeExceeded" } }, {
      ...known,
      tries: undefined,
      error: "EventAgeExceeded",
    }],
    [EVENT, known],
    [{ Event: "s3:TestEvent" }, { event: { Event: "s3:TestEvent" }, keys: [] }],
  ] as const;
  for (const [message, expected] of cases) {
    assert.deepEqual(readMessage(JSON.stringify(message)), expected);
  }
  for (const body of ["", "{", "null", "[]", "7", "{}", '{"requestPayload":{}}']) {
    assert.throws(() => readMessage(body), {
      name: "TypeError",
      message: /^the (message|envelope)/,
    });
  }
});

permittedTest("replayFailures() deletes after success alone, and gives back the rest", async () => {
  const { replayFailures } = await import("../tasks/replay.ts");
  const bodies = { good: "good", bad: "bad", busy: "busy", junk: undefined };
  const messages = Object.entries(bodies).map(([MessageId, key]) => ({
    MessageId,
    ReceiptHandle: `${MessageId}-1`,
    Body: key ? JSON.stringify({ Records: [{ s3: { object: { key } } }] }) : "junk",
  }));
  const again = messages.slice(1).map((m) => ({ ...m, ReceiptHandle: `${m.MessageId}-2` }));
  const { stack, calls } = await fakeStack({
    ReceiveMessageCommand: [{ Messages: messages }, { Messages: again }],
    GetQueueAttributesCommand: () => queueAnswer(3, 1),
    InvokeCommand: ({ Payload }) => {
      const text = new TextDecoder().decode(Payload as Uint8Array);
      if (text.includes("bad")) {
        const error = JSON.stringify({ errorType: "E", errorMessage: "no" });
        return { FunctionError: "Unhandled", Payload: new TextEncoder().encode(error) };
      }
      if (text.includes("busy")) {
        throw Object.assign(new Error("Rate"), { name: "TooManyRequestsException" });
      }
      assert.equal(calls.some(({ name }) => name === "DeleteMessageCommand"), false);
      return {};
    },
  });
  const report = await replayFailures(stack, { dryRun: false, max: Infinity });
  assert.deepEqual({ ...report, failures: report.failures.toSorted(byId) }, {
    ok: false,
    dryRun: false,
    replayed: 1,
    failures: [
      { messageId: "bad", keys: ["bad"], reason: "E: no" },
      { messageId: "busy", keys: ["busy"], reason: "TooManyRequestsException: Rate" },
      {
        messageId: "junk",
        keys: [],
        reason: "the message is no JSON: nothing here put it there",
      },
    ],
    left: { visible: 3, inFlight: 1 },
  });
  const inputs = (command: string) =>
    calls.filter(({ name }) => name === command).map(({ input }) => input.ReceiptHandle);
  assert.deepEqual(inputs("DeleteMessageCommand"), ["good-1"]);
  // With the newest handle: the queue gave them out a second time, which ends the run.
  assert.deepEqual(inputs("ChangeMessageVisibilityCommand"), ["bad-2", "busy-2", "junk-2"]);
});

permittedTest("replayFailures() takes no more than --max, and none twice", async () => {
  const { replayFailures } = await import("../tasks/replay.ts");
  let next = 0;
  const { stack, calls } = await fakeStack({
    ReceiveMessageCommand: ({ MaxNumberOfMessages }) => ({
      Messages: Array.from({ length: MaxNumberOfMessages as number }, () => ({
        MessageId: String(++next),
        ReceiptHandle: String(next),
        Body: JSON.stringify(EVENT),
      })),
    }),
  });
  const report = await replayFailures(stack, { dryRun: false, max: 13 });
  assert.equal(report.replayed, 13);
  assert.equal(calls.filter(({ name }) => name === "InvokeCommand").length, 13);
  const asked = calls.filter(({ name }) => name === "ReceiveMessageCommand")
    .map(({ input }) => input.MaxNumberOfMessages);
  assert.deepEqual(asked, [10, 3]);
});

permittedTest("replayFailures() stops, giving all back, when AWS refuses the caller", async () => {
  const { replayFailures } = await import("../tasks/replay.ts");
  const { stack, calls } = await fakeStack({
    ReceiveMessageCommand: [{
      Messages: [{ MessageId: "1", ReceiptHandle: "h", Body: JSON.stringify(EVENT) }],
    }],
    InvokeCommand: () => {
      throw Object.assign(new Error("not you"), { name: "AccessDeniedException" });
    },
  });
  await assert.rejects(
    replayFailures(stack, { dryRun: false, max: 10 }),
    { name: "AccessDeniedException" },
  );
  assert.ok(calls.some(({ name }) => name === "ChangeMessageVisibilityCommand"));
});

permittedTest("backfillRows() sends what has no row of its version, as S3 would", async () => {
  const { backfillRows } = await import("../tasks/backfill.ts");
  const table = recordedRows();
  const sent: unknown[] = [];
  const { stack, calls } = await fakeStack({
    ListObjectVersionsCommand: listedVersions,
    QueryCommand: ({ ExpressionAttributeValues }) => {
      const key = (ExpressionAttributeValues as { ":key": { S: string } })[":key"].S;
      return { Items: (table[key] ?? []).map(toAttributes) };
    },
    InvokeCommand: ({ Payload }) => {
      const { Records } = JSON.parse(new TextDecoder().decode(Payload as Uint8Array));
      for (const { eventName, eventTime, s3: { object } } of Records) {
        sent.push({ eventName, eventTime, ...object });
        const key = decodeURIComponent(object.key.replaceAll("+", " "));
        const version_id = object.versionId;
        table[key] = [...table[key] ?? [], row(key, { version_id, etag: object.eTag })];
      }
      return {};
    },
  });
  const options = { prefix: "", dryRun: false, concurrency: 1, settleMs: 1000 };
  const counts = { ok: true, dryRun: false, objects: 5, failures: [], newer: 1 };
  const dry = await backfillRows(stack, { ...options, dryRun: true });
  assert.deepEqual(dry, { ...counts, dryRun: true, recorded: 2, sent: 3 });
  assert.deepEqual(sent, []);
  const report = await backfillRows(stack, options);
  assert.deepEqual(report, { ...counts, recorded: 2, sent: 3 });
  const common = {
    eventName: "ObjectCreated:Backfill",
    eventTime: "2026-01-02T03:04:05.000Z",
    size: 7,
  };
  assert.deepEqual(sent, [
    { ...common, key: "in/newer.txt", eTag: "tag-2", versionId: "2" },
    { ...common, key: "in/%2520+%2B.txt", eTag: "other" },
    { ...common, key: "in/again.txt", eTag: "tag-6", versionId: "6" },
  ]);
  assert.equal(calls.some(({ name }) => name === "DeleteItemCommand"), false);
  const again = await backfillRows(stack, options);
  assert.deepEqual(again, { ...counts, recorded: 5, sent: 0 });

  await assert.rejects(backfillRows(stack, { ...options, prefix: "out/" }), {
    name: "UserError",
    message: /^No object below "out\/" is recorded: the stack's filter_prefix is "in\/"$/,
  });
});

permittedTest("backfillRows() waits until an object's own event has had its time", async () => {
  const { backfillRows } = await import("../tasks/backfill.ts");
  const LastModified = new Date(Date.now() - 100);
  let queries = 0;
  const { stack, calls } = await fakeStack({
    ListObjectVersionsCommand: () => ({
      Versions: [{ Key: "in/a.txt", VersionId: "1", IsLatest: true, ETag: "t", LastModified }],
    }),
    // The event's row comes while it waits.
    QueryCommand: () => ({
      Items: queries++ === 0 ? [] : [toAttributes(row("in/a.txt", { version_id: "1" }))],
    }),
  });
  const options = { prefix: "in/a", dryRun: false, concurrency: 1, settleMs: 300 };
  const { recorded, sent } = await backfillRows(stack, options);
  assert.deepEqual({ recorded, sent }, { recorded: 1, sent: 0 });
  assert.equal(calls.some(({ name }) => name === "InvokeCommand"), false);
  assert.ok(Date.now() - LastModified.getTime() >= 300);
});

permittedTest("backfillRows() tells each object's failure, though they went together", async () => {
  const { backfillRows } = await import("../tasks/backfill.ts");
  const rows = new Set<string>();
  const { stack } = await fakeStack({
    ListObjectVersionsCommand: () => ({
      Versions: ["a", "b", "c"].map((name) => ({
        Key: `in/${name}.txt`,
        VersionId: name,
        IsLatest: true,
        ETag: "t",
        LastModified: new Date(0),
      })),
    }),
    QueryCommand: ({ ExpressionAttributeValues }) => {
      const key = (ExpressionAttributeValues as { ":key": { S: string } })[":key"].S;
      const version_id = key.slice(3, 4);
      return { Items: rows.has(key) ? [toAttributes(row(key, { version_id }))] : [] };
    },
    InvokeCommand: ({ Payload }) => {
      const { Records } = JSON.parse(new TextDecoder().decode(Payload as Uint8Array));
      const keys: string[] = Records.map((r: { s3: { object: { key: string } } }) =>
        r.s3.object.key
      );
      for (const key of keys) if (key !== "in/b.txt" && key !== "in/c.txt") rows.add(key);
      if (!keys.includes("in/b.txt")) return {};
      const error = JSON.stringify({ errorType: "E", errorMessage: "b is bad" });
      return { FunctionError: "Unhandled", Payload: new TextEncoder().encode(error) };
    },
  });
  const options = { prefix: "", dryRun: false, concurrency: 1, settleMs: 0 };
  const report = await backfillRows(stack, options);
  assert.deepEqual(report.failures, [
    { key: "in/b.txt", reason: "E: b is bad" },
    { key: "in/c.txt", reason: "the function reports success, but this version has no row" },
  ]);
  assert.deepEqual([report.ok, report.objects, report.sent], [false, 3, 1]);
});

permittedTest("logToText() shows what people look for, whoever wrote the line", async () => {
  const { logToText } = await import("../tasks/logs.ts");
  const timestamp = Date.parse("2026-01-02T03:04:05.678Z");
  const time = "2026-01-02T03:04:05.678Z";
  const platform = (type: string, record: object) => JSON.stringify({ time, type, record });
  const cases = [
    [
      '{"level":"INFO","outcome":"written","file_key":"a\\u001b[31m","duration_ms":12}',
      `${time}  INFO   written       12 ms  a\\u{1b}[31m`,
    ],
    [
      '{"level":"ERROR","outcome":"failed","file_key":"a","error":"Cannot","duration_ms":1}',
      `${time}  ERROR  failed         1 ms  a  Cannot`,
    ],
    [
      '{"level":"INFO","outcome":"written","file_key":"a","object":"gone","duration_ms":1}',
      `${time}  INFO   written        1 ms  a  object gone`,
    ],
    ['{"timestamp":"x","level":"ERROR","message":"odd"}', `${time}  ERROR  odd`],
    ['{"errorType":"E","errorMessage":"broke"}', `${time}  ERROR  E: broke`],
    ["no JSON at all\n", `${time}         no JSON at all`],
    [
      platform("platform.report", { status: "timeout" }),
      `${time}  ERROR  the run ended with timeout`,
    ],
    [platform("platform.report", { status: "success" }), undefined],
    [platform("platform.start", {}), undefined],
    ["START RequestId: 1 Version: $LATEST", undefined],
    ["REPORT RequestId: 1", undefined],
  ] as const;
  for (const [message, expected] of cases) {
    assert.equal(logToText({ timestamp, message }), expected, message);
  }
});

permittedTest("readLog() follows: every page, late lines, and no line twice", async () => {
  const { readLog } = await import("../tasks/logs.ts");
  const line = (eventId: string | undefined, timestamp: number, message: string) => ({
    eventId,
    timestamp,
    message,
    logStreamName: "s",
  });
  const { stack, calls } = await fakeStack({
    FilterLogEventsCommand: [
      { events: [line("1", 100_000, "a")], nextToken: "more" },
      { events: [], nextToken: "more still" }, // a page may be empty
      { events: [line(undefined, 101_000, "no id"), line("2", 102_000, "b")] },
      { events: [line("3", 99_000, "late"), line(undefined, 101_000, "no id")] },
      { events: [line("3", 99_000, "late"), line("2", 102_000, "b"), line("4", 103_000, "c")] },
    ],
  });
  const seen: string[] = [];
  const lines = readLog(stack.logs, "log", { sinceMs: 90_000, follow: true, pollMs: 1 });
  for await (const { message } of lines) {
    seen.push(message);
    if (message === "c") break;
  }
  assert.deepEqual(seen, ["a", "no id", "b", "late", "c"]);
  const looks = calls.map(({ input }) => [input.startTime, input.nextToken]);
  assert.deepEqual(looks, [
    [90_000, undefined],
    [90_000, "more"],
    [90_000, "more still"],
    [90_000, undefined],
    [90_000, undefined],
  ]);
});

permittedTest("readStatus() names the parts that were removed by other means", async () => {
  const { readStatus } = await import("../tasks/status.ts");
  const gone = (name: string) => () => {
    throw Object.assign(new Error("gone"), { name });
  };
  const { stack } = await fakeStack({
    GetBucketNotificationConfigurationCommand: gone("NoSuchBucket"),
    GetFunctionCommand: gone("ResourceNotFoundException"),
    DescribeTableCommand: gone("ResourceNotFoundException"),
    GetQueueAttributesCommand: gone("QueueDoesNotExist"),
  });
  const { ok, problems } = await readStatus(stack, undefined);
  assert.equal(ok, false);
  const again = "does not exist any more: deploy makes it again,";
  assert.deepEqual(problems.toSorted(), [
    `the bucket uploads ${again} empty; the rows stay`,
    `the failure queue https://queue ${again} empty, and backfill records the objects of its events`,
    `the function fn ${again} and backfill records what was uploaded meanwhile`,
    `the table files ${again} empty, and backfill records what is in the bucket`,
  ]);
  const { stack: denied } = await fakeStack({ GetFunctionCommand: gone("AccessDeniedException") });
  await assert.rejects(readStatus(denied, undefined), { name: "AccessDeniedException" });
});

permittedTest("statusToText() is content with a sound stack, on one screen", async () => {
  const { readStatus, statusToText } = await import("../tasks/status.ts");
  const nowMs = Date.now();
  const { stack, calls } = await fakeStack(soundAnswers(nowMs));
  const status = await readStatus(stack, "hash");
  assert.equal(status.ok, true);
  assert.deepEqual(statusToText(status, nowMs).split("\n"), [
    "bucket         uploads, calls the function",
    "function       fn, nodejs22.x, Active, changed 3 h ago",
    "code           hash, as built here",
    "failure queue  0 events",
    "alarms         none in ALARM",
    "",
    "newest rows  bytes  type   age  preview",
    "in/b.txt                   5 s",
    "in/a.txt                  60 s  hi\\u{a}",
    "",
    "All is well.",
  ]);
  const [{ input }] = calls.filter(({ name }) => name === "BatchGetItemCommand");
  const { files } = input.RequestItems as { files: { Keys: { file_key: { S: string } }[] } };
  assert.deepEqual(files.Keys.map(({ file_key }) => file_key.S), ["in/a.txt", "in/gone.txt"]);
});

/** A bucket's listing: each object is in another state. */
function listedVersions() {
  const old = new Date("2026-01-02T03:04:05.000Z");
  const version = (Key: string, VersionId: string, more: object = {}) => ({
    Key,
    VersionId,
    IsLatest: true,
    ETag: `"tag-${VersionId}"`,
    Size: 7,
    LastModified: old,
    ...more,
  });
  return {
    Versions: [
      version("in/done.txt", "1"),
      version("in/newer.txt", "2"),
      version("in/newer.txt", "0", { IsLatest: false }),
      version("in/unversioned.txt", "null"),
      version("in/%20 +.txt", "null", { ETag: '"other"' }),
      version("in/again.txt", "6"),
      version("in/wrong.csv", "3"),
      version("in/meanwhile.txt", "4", { LastModified: new Date(Date.now() + 60_000) }),
    ],
    DeleteMarkers: [{ Key: "in/deleted.txt", VersionId: "5", IsLatest: true, LastModified: old }],
  };
}

/** The rows that some of {@link listedVersions} have. */
function recordedRows(): Record<string, Item[]> {
  return {
    "in/done.txt": [row("in/done.txt", { version_id: "1" })],
    // The row of the version before, of the very same content.
    "in/newer.txt": [row("in/newer.txt", { version_id: "0", etag: "tag-2" })],
    // Recorded before the bucket had versions.
    "in/unversioned.txt": [row("in/unversioned.txt", { etag: "tag-null" })],
    "in/%20 +.txt": [row("in/%20 +.txt", { etag: "the-one-before" })],
    // The same content again, since there are versions; the row of the first one stays.
    "in/again.txt": [row("in/again.txt", { etag: "tag-6", event_name: "ObjectCreated:Backfill" })],
  };
}

function queueAnswer(visible: number, inFlight: number) {
  return {
    Attributes: {
      ApproximateNumberOfMessages: String(visible),
      ApproximateNumberOfMessagesNotVisible: String(inFlight),
    },
  };
}

/** What AWS answers of a stack that is in order. */
function soundAnswers(nowMs: number): Answers {
  const processed = (agoMs: number) => new Date(nowMs - agoMs).toISOString();
  const written = { level: "INFO", outcome: "written", file_key: "in/a.txt", timestamp: "t" };
  return {
    GetBucketNotificationConfigurationCommand: () => ({
      LambdaFunctionConfigurations: [{ LambdaFunctionArn: "arn:aws:lambda:r:1:function:fn" }],
    }),
    GetFunctionCommand: () => ({
      Configuration: {
        State: "Active",
        LastModified: processed(3 * 3_600_000),
        Runtime: "nodejs22.x",
        CodeSha256: "hash",
      },
    }),
    GetQueueAttributesCommand: () => queueAnswer(0, 0),
    FilterLogEventsCommand: ({ startTime }) => ({
      // An old line, and one of a row that is gone by now; more than one look is needed.
      events: nowMs - Number(startTime) < 3_600_000 ? [] : [
        { message: JSON.stringify(written) },
        { message: JSON.stringify({ ...written, file_key: "in/gone.txt" }) },
        { message: JSON.stringify({ ...written, outcome: "failed", file_key: "in/failed.txt" }) },
      ],
    }),
    BatchGetItemCommand: () => ({
      Responses: {
        files: [
          toAttributes(
            row("in/a.txt", { processed_at: processed(60_000), content_preview: "hi\n" }),
          ),
          toAttributes(row("in/b.txt", { processed_at: processed(5000) })),
        ],
      },
    }),
  };
}

function row(file_key: string, attributes: Record<string, string | undefined>): Item {
  const timestamp = "2026-01-02T03:04:05.000Z";
  return JSON.parse(JSON.stringify({ file_key, timestamp, event_name: "x", ...attributes }));
}

function byId(a: { messageId: string }, b: { messageId: string }): number {
  return a.messageId < b.messageId ? -1 : 1;
}
