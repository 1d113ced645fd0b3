/** How much backfill does at once: as much as AWS takes, and never more than it may. */

import assert from "node:assert/strict";
import { fakeStack, permittedTest } from "./fixtures.ts";

/** A refusal for going too fast. */
function throttle(name: string): Error {
  return Object.assign(new Error("Rate exceeded"), { name });
}

permittedTest("makePace() allows one more after each round, and half after a refusal", async () => {
  const { makePace } = await import("../tasks/pace.ts");
  let nowMs = 0;
  const pace = makePace(12, () => nowMs);
  const round = () => {
    for (let left = pace.limit(); left > 0; left--) pace.ended();
    return pace.limit();
  };
  assert.equal(pace.limit(), 8);
  assert.deepEqual(Array.from({ length: 8 }, round), [8, 9, 10, 11, 12, 12, 12, 12]);
  nowMs = 100;
  pace.throttled(50);
  assert.equal(pace.limit(), 6);
  pace.throttled(60); // of the same crowd
  pace.throttled(100);
  assert.equal(pace.limit(), 6);
  nowMs = 200;
  for (const beganMs of [101, 150, 200]) pace.throttled(beganMs);
  assert.equal(pace.limit(), 3);
  for (nowMs of [300, 400, 500]) pace.throttled(nowMs - 1);
  assert.equal(pace.limit(), 1);
  assert.deepEqual(Array.from({ length: 4 }, round), [2, 2, 3, 4]);
  assert.equal(makePace(3).limit(), 3);
});

permittedTest("paced() calls again while AWS throttles, and tells the pace", async () => {
  const { paced } = await import("../tasks/pace.ts");
  const { ListObjectVersionsCommand } = await import("@aws-sdk/client-s3");
  const { DynamoDBClient, QueryCommand } = await import("@aws-sdk/client-dynamodb");
  const { InvokeCommand } = await import("@aws-sdk/client-lambda");
  const { stack, calls } = await fakeStack({
    InvokeCommand: [throttle("TooManyRequestsException"), throttle("TooManyRequestsException")],
    QueryCommand: [throttle("ProvisionedThroughputExceededException"), { Count: 1 }],
    ListObjectVersionsCommand: [throttle("SlowDown"), { $metadata: { attempts: 2 } }],
  });
  const told: string[] = [];
  const pace = { limit: () => 1, ended() {}, throttled: () => void told.push(calls.at(-1)!.name) };
  const { s3, dynamo, lambda, sqs } = paced(stack, pace, { firstPauseMs: 1 });
  await lambda.send(new InvokeCommand({ FunctionName: "f" }));
  assert.equal((await dynamo.send(new QueryCommand({ TableName: "t" }))).Count, 1);
  await s3.send(new ListObjectVersionsCommand({ Bucket: "b" }));
  const [invoke, query, list] = ["InvokeCommand", "QueryCommand", "ListObjectVersionsCommand"];
  assert.deepEqual(calls.map(({ name }) => name), [
    invoke,
    invoke,
    invoke,
    query,
    query,
    list,
    list,
  ]);
  assert.deepEqual(told, [invoke, invoke, query, list, list]); // the SDK's own second try too
  assert.ok(dynamo instanceof DynamoDBClient); // the SDK's paginators insist
  assert.equal(sqs, stack.sqs);
});

permittedTest("paced() gives up after a while, and at once on other errors", async () => {
  const { paced } = await import("../tasks/pace.ts");
  const { InvokeCommand } = await import("@aws-sdk/client-lambda");
  const { stack, calls } = await fakeStack({
    InvokeCommand: () => {
      throw calls.length > 20 ? throttle("AccessDenied") : throttle("TooManyRequestsException");
    },
  });
  const pace = { limit: () => 1, ended() {}, throttled() {} };
  const { lambda } = paced(stack, pace, { firstPauseMs: 1, patienceMs: 30 });
  const invoke = () => lambda.send(new InvokeCommand({ FunctionName: "f" }));
  await assert.rejects(invoke(), {
    name: "UserError",
    message:
      /^AWS throttles for 0 s now \(TooManyRequestsException: Rate exceeded\): run it again /,
  });
  assert.ok(calls.length >= 4 && calls.length <= 7, `${calls.length} calls`); // each pause is longer
  calls.length = 20;
  await assert.rejects(invoke(), { name: "AccessDenied" });
  assert.equal(calls.length, 21);
});
