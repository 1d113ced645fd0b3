/** The task replay against fake clients: what the stand-in cannot be made to answer. */

import assert from "node:assert/strict";
import { readMessage, replayFailures, replayToText } from "../tasks/replay.ts";
import { type Answers, fakeStack, progressOf } from "./fixtures.ts";

const FAILED = {
  FunctionError: "Unhandled",
  Payload: new TextEncoder().encode(JSON.stringify({ errorType: "E", errorMessage: "no" })),
};

const EVENT = { Records: [{ s3: { object: { key: "a+b" } } }] };

Deno.test("readMessage() takes an envelope or a bare event, and nothing else", () => {
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
    // Timed out, as older runtimes say it.
    [{ ...envelope, responsePayload: { errorMessage: "Task timed out after 30.00 seconds" } }, {
      ...known,
      tries: 3,
      error: "Task timed out after 30.00 seconds",
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

Deno.test("replayFailures() deletes after success alone, and gives back the rest", async () => {
  const { queue, answers } = fakeQueue({
    good: bodyOf("good"),
    bad: bodyOf("bad"),
    busy: bodyOf("busy"),
    junk: "junk",
  });
  const { stack, calls } = fakeStack({
    ...answers,
    InvokeCommand: ({ Payload }) => {
      const text = new TextDecoder().decode(Payload as Uint8Array);
      if (text.includes("bad")) return FAILED;
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
    failed: 3,
    failures: [
      { messageId: "bad", keys: ["bad"], reason: "E: no" },
      { messageId: "busy", keys: ["busy"], reason: "TooManyRequestsException: Rate" },
      {
        messageId: "junk",
        keys: [],
        reason: "the message is no JSON: nothing here put it there",
      },
    ],
    left: { visible: 3, inFlight: 0 },
  });
  assert.deepEqual([...queue.visibleAt.keys()], ["bad", "busy", "junk"]);
});

Deno.test("replayFailures() tries each message once, however long that takes", async () => {
  const ids = Array.from({ length: 60 }, (_, n) => (n < 30 ? "bad-" : "good-") + n);
  const { queue, answers } = fakeQueue(Object.fromEntries(ids.map((id) => [id, bodyOf(id)])));
  const tried: string[] = [];
  const { stack, calls } = fakeStack({
    ...answers,
    InvokeCommand: ({ Payload }) => {
      const { Records } = JSON.parse(new TextDecoder().decode(Payload as Uint8Array));
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

Deno.test("replayFailures() ends where SQS does not hide what it gave out", async () => {
  const Messages = ["1", "2"].map((id) => ({
    MessageId: id,
    ReceiptHandle: id,
    Body: bodyOf(id),
    Attributes: { SentTimestamp: "0" },
  }));
  const { stack } = fakeStack({ ReceiveMessageCommand: () => ({ Messages }) });
  const { replayed } = await replayFailures(stack, { dryRun: true, max: Infinity });
  assert.equal(replayed, 2);
});

Deno.test("replayFailures() counts more failures than it describes", async () => {
  const ids = Array.from({ length: 1200 }, (_, n) => `m${n}`);
  const { answers } = fakeQueue(Object.fromEntries(ids.map((id) => [id, "junk"])));
  const { stack } = fakeStack(answers);
  const report = await replayFailures(stack, { dryRun: false, max: Infinity });
  assert.deepEqual([report.failed, report.failures.length], [1200, 1000]);
  assert.deepEqual(replayToText(report).split("\n").slice(-2), [
    "FAILED: 200 more",
    "0 events replayed, 1200 failed; 1200 messages in the failure queue",
  ]);
});

Deno.test("an empty failure queue is called empty, and a dry run replays nothing", async () => {
  const { answers } = fakeQueue({});
  const { stack } = fakeStack(answers);
  for (const dryRun of [true, false]) {
    const report = await replayFailures(stack, { dryRun, max: Infinity });
    assert.equal(replayToText(report), "The failure queue is empty.");
  }
  const { answers: full } = fakeQueue({ a: bodyOf("a") });
  const { ReceiveMessageCommand: receive } = full;
  const slow = fakeStack({
    ...full,
    ReceiveMessageCommand: async (input) => {
      await new Promise((resolve) => setTimeout(resolve, 2100)); // progress is said every 2 s
      return typeof receive === "function" ? receive(input) : {};
    },
  });
  const said = await progressOf(() => replayFailures(slow.stack, { dryRun: true, max: 1 }));
  assert.equal(said, "Looking into the failure queue: 0 of about 1 ...\n");
});

Deno.test("replayFailures() leaves a message that is in flight elsewhere", async () => {
  const { queue, answers } = fakeQueue({ here: bodyOf("a"), elsewhere: bodyOf("b") });
  queue.visibleAt.set("elsewhere", 1000);
  const { stack } = fakeStack(answers);
  const { replayed, left } = await replayFailures(stack, { dryRun: false, max: Infinity });
  assert.deepEqual({ replayed, left }, { replayed: 1, left: { visible: 0, inFlight: 1 } });
});

Deno.test("replayFailures() runs one object's events, and gives back the others", async () => {
  const { answers } = fakeQueue({ a: bodyOf("a"), b: bodyOf("b"), junk: "junk" });
  const { stack, calls } = fakeStack(answers);
  const only = (keys: string[]) => keys.includes("b");
  const report = await replayFailures(stack, { dryRun: false, max: Infinity, only });
  const { replayed, failed, left } = report;
  assert.deepEqual({ replayed, failed, visible: left.visible }, {
    replayed: 1,
    failed: 0,
    visible: 2,
  });
  const runs = calls.filter(({ name }) => name === "InvokeCommand");
  assert.deepEqual(runs.map(({ input }) => new TextDecoder().decode(input.Payload as Uint8Array)), [
    bodyOf("b"),
  ]);
});

Deno.test("replayFailures() takes no more than --max, and none twice", async () => {
  let next = 0;
  const { stack, calls } = fakeStack({
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

Deno.test("replayFailures() stops, giving all back, when AWS refuses the caller", async () => {
  const { stack, calls } = fakeStack({
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

/** A message of an event about one object, which the function is not asked to read. */
function bodyOf(key: string): string {
  return JSON.stringify({ Records: [{ s3: { object: { key } } }] });
}

function byId(a: { messageId: string }, b: { messageId: string }): number {
  return a.messageId < b.messageId ? -1 : 1;
}

/** A failure queue with a clock of its own: what is received is hidden for its timeout. */
function fakeQueue(bodies: Record<string, string>) {
  const visibleAt = new Map(Object.keys(bodies).map((id) => [id, 0]));
  const queue = { nowSeconds: 0, visibleAt };
  const idOf = ({ ReceiptHandle }: Record<string, unknown>) => String(ReceiptHandle).split(" ")[0];
  const answers: Answers = {
    GetQueueAttributesCommand: () => {
      const visible = [...visibleAt.values()].filter((at) => at <= queue.nowSeconds).length;
      return {
        Attributes: {
          ApproximateNumberOfMessages: String(visible),
          ApproximateNumberOfMessagesNotVisible: String(visibleAt.size - visible),
        },
      };
    },
    ReceiveMessageCommand: ({ MaxNumberOfMessages, VisibilityTimeout }) => {
      const ids = [...visibleAt].filter(([, at]) => at <= queue.nowSeconds).map(([id]) => id)
        .slice(0, MaxNumberOfMessages as number);
      if (ids.length === 0) queue.nowSeconds++;
      for (const id of ids) visibleAt.set(id, queue.nowSeconds + Number(VisibilityTimeout));
      return {
        Messages: ids.map((MessageId) => ({
          MessageId,
          ReceiptHandle: `${MessageId} ${queue.nowSeconds}`,
          Body: bodies[MessageId],
          Attributes: { SentTimestamp: "0" },
        })),
      };
    },
    DeleteMessageCommand: (input) => {
      visibleAt.delete(idOf(input));
      return {};
    },
    ChangeMessageVisibilityCommand: (input) => {
      if (visibleAt.get(idOf(input))! <= queue.nowSeconds) {
        throw Object.assign(new Error("not in flight"), { name: "MessageNotInflight" });
      }
      visibleAt.set(idOf(input), queue.nowSeconds);
      return {};
    },
  };
  return { queue, answers };
}
