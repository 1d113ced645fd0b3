/** The task replay against fake clients: what the stand-in cannot be made to answer. */

import assert from "node:assert/strict";
import { readMessage, replayFailures, replayToText } from "../tasks/replay.ts";
import { type Answers, fakeStack, named, queue as queueOf } from "./fixtures.ts";

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
  const { queue, answers } = fakeQueue({
    good: bodyOf("good"),
    bad: bodyOf("bad"),
    busy: bodyOf("busy"),
    elsewhere: bodyOf("elsewhere"),
    junk: "junk",
  });
  queue.visibleAt.set("elsewhere", 1000); // in flight
  const { stack, calls } = fakeStack({
    ...answers,
    InvokeCommand: ({ Payload }) => {
      const text = new TextDecoder().decode(Payload);
      if (text.includes("bad")) return FAILED;
      if (text.includes("busy")) throw named("TooManyRequestsException", "Rate");
      assert.equal(calls.some(({ name }) => name === "DeleteMessageCommand"), false);
      return {};
    },
  });
  const report = await replayFailures(stack, { dryRun: false, max: Infinity });
  assert.deepEqual({ ...report, failures: report.failures.toSorted(byId) }, {
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
  const { queue, answers } = fakeQueue(Object.fromEntries(ids.map((id) => [id, bodyOf(id)])));
  const tried: string[] = [];
  const { stack, calls } = fakeStack({
    ...answers,
    InvokeCommand: ({ Payload }) => {
      const { Records } = JSON.parse(new TextDecoder().decode(Payload));
      const id = Records[0].s3.object.key;
      tried.push(id);
      if (id.startsWith("good")) return {};
      queue.nowSeconds += 100; // all ten of a receipt are visible again before the last is done
      return FAILED;
    },
  });
  const { replayed, failed, left } = await replayFailures(stack, { dryRun: false, max: Infinity });
  assert.deepEqual(tried.toSorted(), ids.toSorted());
  assert.deepEqual({ replayed, failed }, { replayed: 30, failed: 30 });
  assert.deepEqual(left, { visible: 30, inFlight: 0 });
  const receipts = calls.filter(({ name }) => name === "ReceiveMessageCommand").length;
  assert.ok(receipts < 100, `${receipts} receipts`);
});

Deno.test("a replay's report says what was found, or what failed, then the counts", async () => {
  const bodies = { a: bodyOf("in/a\n"), b: bodyOf("b1", "b2", "b3", "b4"), junk: "junk" };
  const cases: [dryRun: boolean, bodies: Record<string, string>, text: string][] = [
    [false, {}, "The failure queue is empty."],
    [true, {}, "The failure queue is empty."],
    [
      false,
      { b: bodies.b },
      "FAILED: b1, b2, b3 and 1 more: E: no\n" +
      "0 events replayed, 1 failed; 1 message in the failure queue",
    ],
    [
      true,
      bodies,
      "failed                    tries  objects                why\n" +
      "1970-01-01T00:00:00.000Z         in/a\\n                 unknown\n" +
      "1970-01-01T00:00:00.000Z         b1, b2, b3 and 1 more  unknown\n" +
      "FAILED: junk: the message holds no S3 event\n" +
      "2 events to replay, 1 unreadable; 3 messages in the failure queue",
    ],
  ];
  for (const [dryRun, bodies, text] of cases) {
    const { stack, calls } = fakeStack({
      ...fakeQueue(bodies).answers,
      InvokeCommand: () => FAILED,
    });
    assert.equal(replayToText(await replayFailures(stack, { dryRun, max: Infinity })), text);
    assert.equal(calls.some(({ name }) => name === "InvokeCommand"), !dryRun && "b" in bodies);
  }
});

Deno.test("replayFailures() runs one object's events, and gives back the others", async () => {
  const { answers } = fakeQueue({ a: bodyOf("a"), b: bodyOf("b"), junk: "junk" });
  const { stack, calls } = fakeStack(answers);
  const only = (keys: string[]) => keys.includes("b");
  const report = await replayFailures(stack, { dryRun: false, max: Infinity, only });
  const { replayed, failed, left } = report;
  assert.deepEqual([replayed, failed, left.visible], [1, 0, 2]);
  const runs = calls.filter(({ name }) => name === "InvokeCommand");
  assert.deepEqual(runs.map(({ input }) => new TextDecoder().decode(input.Payload)), [
    bodyOf("b"),
  ]);
});

Deno.test("replayFailures() takes no more than --max, and none twice", async () => {
  const ids = Array.from({ length: 20 }, (_, n) => String(n));
  const { answers } = fakeQueue(Object.fromEntries(ids.map((id) => [id, bodyOf(id)])));
  const { stack, calls } = fakeStack(answers);
  const report = await replayFailures(stack, { dryRun: false, max: 13 });
  assert.equal(report.replayed, 13);
  assert.equal(calls.filter(({ name }) => name === "InvokeCommand").length, 13);
  const asked = calls.filter(({ name }) => name === "ReceiveMessageCommand")
    .map(({ input }) => input.MaxNumberOfMessages);
  assert.deepEqual(asked, [10, 3]);
});

Deno.test("replayFailures() stops, giving all back, when AWS refuses the caller", async () => {
  const { queue, answers } = fakeQueue({ a: bodyOf("a"), b: bodyOf("b") });
  const refusal = named("AccessDeniedException");
  const { stack } = fakeStack({ ...answers, InvokeCommand: () => refusal });
  const replay = replayFailures(stack, { dryRun: false, max: 10 });
  await assert.rejects(replay, { name: "AccessDeniedException" });
  assert.ok([...queue.visibleAt.values()].every((at) => at <= queue.nowSeconds));
});

/** A message of an event about these objects. */
function bodyOf(...keys: string[]): string {
  return JSON.stringify({ Records: keys.map(recordOf) });
}

function byId(a: { messageId: string }, b: { messageId: string }): number {
  return a.messageId < b.messageId ? -1 : 1;
}

/** A failure queue with a clock of its own: what is received is hidden for its timeout. */
function fakeQueue(bodies: Record<string, string>) {
  const visibleAt = new Map(Object.keys(bodies).map((id) => [id, 0]));
  const queue = { nowSeconds: 0, visibleAt };
  const answers: Answers = {
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
      if (visibleAt.get(id)! <= queue.nowSeconds) throw named("MessageNotInflight");
      visibleAt.set(id, queue.nowSeconds);
      return {};
    },
  };
  return { queue, answers };
}
