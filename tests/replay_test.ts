/** The task replay against fake clients: what the stand-in cannot be made to answer. */

import assert from "node:assert/strict";
import { readMessage, replayFailures, replayToText } from "../tasks/replay.ts";
import { type Answers, fakeStack, queue as queueOf } from "./fixtures.ts";
import { awsError } from "./outside.ts";

const FAILED = {
  FunctionError: "Unhandled",
  Payload: new TextEncoder().encode(JSON.stringify({ errorType: "E", errorMessage: "no" })),
};

/** A record about one object, which the function is not asked to read. */
const recordOf = (key: string) => ({ s3: { object: { key } } });

Deno.test("readMessage() takes an envelope or a bare event, and nothing else", () => {
  const event = { Records: [recordOf("a+b"), recordOf("%zz"), null] };
  const envelope = {
    requestContext: { condition: "RetriesExhausted", approximateInvokeCount: 3 },
    requestPayload: event,
    responsePayload: { errorType: "RecordsFailedError", errorMessage: "1 of 1 failed" },
  };
  const known = { event, keys: ["a b", "%zz"] };
  const cases = [
    [envelope, { ...known, tries: 3, error: "RecordsFailedError: 1 of 1 failed" }],
    // Expired before it ran: there is no response.
    [{ ...envelope, responsePayload: null, requestContext: { condition: "EventAgeExceeded" } }, {
      ...known,
      tries: undefined,
      error: "EventAgeExceeded",
    }],
    [event, known],
    [{ Event: "s3:TestEvent" }, { event: { Event: "s3:TestEvent" }, keys: [] }],
  ] as const;
  for (const [message, expected] of cases) {
    assert.deepEqual(readMessage(JSON.stringify(message)), expected);
  }
  for (const body of ["", "{", "null", "[]", "7", "{}", '{"requestPayload":{}}']) {
    assert.equal(readMessage(body), undefined);
  }
});

Deno.test("replayFailures() deletes after success alone, and gives back the rest", async () => {
  const messages = { ...messagesOf("good", "bad", "busy", "elsewhere"), junk: "junk" };
  const queue = fakeQueue(messages);
  queue.visibleAt.set("elsewhere", 1000); // in flight
  const { report } = await replay(queue, {
    run: (key, calls) => {
      if (key === "bad") return FAILED;
      if (key === "busy") throw awsError("TooManyRequestsException", 429, "Rate");
      assert.equal(calls.includes("DeleteMessageCommand"), false);
      return {};
    },
  });
  report.failures.sort((a, b) => a.messageId < b.messageId ? -1 : 1);
  assert.deepEqual(report, {
    ok: false,
    dryRun: false,
    replayed: 1,
    failed: 3,
    failures: [
      { messageId: "bad", keys: ["bad"], reason: "E: no" },
      { messageId: "busy", keys: ["busy"], reason: "TooManyRequestsException: Rate" },
      { messageId: "junk", keys: [], reason: "the message holds no S3 event" },
    ],
    left: { visible: 3, inFlight: 1 },
  });
  assert.deepEqual([...queue.visibleAt.keys()], ["bad", "busy", "elsewhere", "junk"]);
});

Deno.test("replayFailures() tries each message once, however long that takes", async () => {
  const ids = Array.from({ length: 60 }, (_, n) => (n < 30 ? "bad-" : "good-") + n);
  const queue = fakeQueue(messagesOf(...ids));
  const { report: { replayed, failed, left }, tried, calls } = await replay(queue, {
    run: (key) => {
      if (key.startsWith("good")) return {};
      queue.nowSeconds += 100; // all ten of a receipt are visible again before the last is done
      return FAILED;
    },
  });
  assert.deepEqual(tried.toSorted(), ids.toSorted());
  assert.deepEqual({ replayed, failed }, { replayed: 30, failed: 30 });
  assert.deepEqual(left, { visible: 30, inFlight: 0 });
  const receipts = calls.filter(({ name }) => name === "ReceiveMessageCommand").length;
  assert.ok(receipts < 100, `${receipts} receipts`);
});

Deno.test("replayFailures() runs one object's events, and gives back the others", async () => {
  const queue = fakeQueue({ ...messagesOf("a", "b"), junk: "junk" });
  const { report, tried } = await replay(queue, { only: (keys) => keys.includes("b") });
  assert.deepEqual([report.replayed, report.failed, report.left.visible], [1, 0, 2]);
  assert.deepEqual(tried, ["b"]);
});

Deno.test("replayFailures() takes no more than --max, and none twice", async () => {
  const queue = fakeQueue(messagesOf(...Array.from({ length: 20 }, (_, n) => `${n}`)));
  const { report, tried, calls } = await replay(queue, { max: 13 });
  assert.deepEqual([report.replayed, tried.length], [13, 13]);
  const receipts = calls.filter(({ name }) => name === "ReceiveMessageCommand");
  assert.deepEqual(receipts.map(({ input }) => input.MaxNumberOfMessages), [10, 3]);
});

Deno.test("replayFailures() stops, giving all back, when AWS refuses the caller", async () => {
  const queue = fakeQueue(messagesOf("a", "b"));
  const run = () => awsError("AccessDeniedException");
  await assert.rejects(replay(queue, { run }), { name: "AccessDeniedException" });
  assert.ok([...queue.visibleAt.values()].every((at) => at <= queue.nowSeconds));
});

Deno.test("a replay's report says what was found, or what failed, then the counts", async () => {
  const messages = { a: bodyOf("in/a\n"), b: bodyOf("b1", "b2", "b3", "b4"), junk: "junk" };
  const cases: [dryRun: boolean, messages: Record<string, string>, text: string][] = [
    [false, {}, "The failure queue is empty."],
    [
      false,
      { b: messages.b },
      "FAILED: b1, b2, b3 and 1 more: E: no\n" +
      "0 events replayed, 1 failed; 1 message in the failure queue",
    ],
    [
      true,
      messages,
      "failed                    tries  objects                why\n" +
      "1970-01-01T00:00:00.000Z         in/a\\n                 unknown\n" +
      "1970-01-01T00:00:00.000Z         b1, b2, b3 and 1 more  unknown\n" +
      "FAILED: junk: the message holds no S3 event\n" +
      "2 events to replay, 1 unreadable; 3 messages in the failure queue",
    ],
  ];
  for (const [dryRun, messages, text] of cases) {
    const { report, tried } = await replay(fakeQueue(messages), { dryRun, run: () => FAILED });
    assert.equal(replayToText(report), text);
    assert.equal(tried.length > 0, !dryRun && "b" in messages);
  }
});

/** Messages of an event each, by its one key. */
function messagesOf(...keys: string[]): Record<string, string> {
  return Object.fromEntries(keys.map((key) => [key, bodyOf(key)]));
}

/** A message of an event about these objects. */
function bodyOf(...keys: string[]): string {
  return JSON.stringify({ Records: keys.map(recordOf) });
}

/** Replays a queue; `run` is a run's outcome, by its event's first key and the calls so far. */
async function replay(
  { answers }: ReturnType<typeof fakeQueue>,
  { run = () => ({}), ...options }: Partial<Parameters<typeof replayFailures>[1]> & {
    run?: (key: string, calls: string[]) => object;
  },
) {
  const tried: string[] = [];
  const { stack, calls } = fakeStack({
    ...answers,
    InvokeCommand: ({ Payload }) => {
      const [{ s3 }] = JSON.parse(new TextDecoder().decode(Payload)).Records;
      tried.push(s3.object.key);
      return run(s3.object.key, calls.map(({ name }) => name));
    },
  });
  const report = await replayFailures(stack, { dryRun: false, max: Infinity, ...options });
  return { report, tried, calls };
}

/** A failure queue with a clock of its own: what is received is hidden for its timeout. */
function fakeQueue(bodies: Record<string, string>) {
  const visibleAt = new Map(Object.keys(bodies).map((id) => [id, 0]));
  const queue = { nowSeconds: 0, visibleAt, answers: {} as Answers };
  queue.answers = {
    GetQueueAttributesCommand: () => {
      const visible = [...visibleAt.values()].filter((at) => at <= queue.nowSeconds).length;
      return queueOf(visible, visibleAt.size - visible);
    },
    ReceiveMessageCommand: ({ MaxNumberOfMessages, VisibilityTimeout }) => {
      const ids = [...visibleAt].filter(([, at]) => at <= queue.nowSeconds).map(([id]) => id)
        .slice(0, MaxNumberOfMessages);
      if (ids.length === 0) queue.nowSeconds++;
      for (const id of ids) visibleAt.set(id, queue.nowSeconds + Number(VisibilityTimeout));
      return {
        Messages: ids.map((MessageId) => ({
          MessageId,
          ReceiptHandle: MessageId,
          Body: bodies[MessageId],
          Attributes: { SentTimestamp: "0" },
        })),
      };
    },
    DeleteMessageCommand: ({ ReceiptHandle: id }) => {
      visibleAt.delete(id);
      return {};
    },
    ChangeMessageVisibilityCommand: ({ ReceiptHandle: id }) => {
      if (visibleAt.get(id)! <= queue.nowSeconds) throw awsError("MessageNotInflight");
      visibleAt.set(id, queue.nowSeconds);
      return {};
    },
  };
  return queue;
}
