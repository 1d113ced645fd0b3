/** What a destroy says of a bucket's notification, and its proof, where AWS still shows what was deleted. */

import assert from "node:assert/strict";
import { prove, sayWhatStays, silence } from "../tasks/destroy.ts";
import { fakeStack, fakeTime, progressOf } from "./fixtures.ts";
import { awsError } from "./outside.ts";

Deno.test("destroy takes out a notification of removals, if the bucket is there", async () => {
  const address = "aws_s3_bucket_notification.uploads[0]";
  for (const events of [["s3:ObjectCreated:*"], ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]]) {
    const { stack, calls } = fakeStack({
      PutBucketNotificationConfigurationCommand: () => awsError("NoSuchBucket"),
    });
    const attributes = { lambda_function: [{ events }] };
    await silence(stack, "uploads", { resources: [{ address, attributes, tainted: false }] });
    const put = { Bucket: "uploads", NotificationConfiguration: {} };
    assert.deepEqual(calls.map(({ input }) => input), events.length > 1 ? [put] : []);
  }
});

Deno.test("the proof of a destroy asks for two minutes", async () => {
  const cases: [shownFor: number, seconds: number[]][] = [
    [0, []],
    [2, [120, 110]],
    [Infinity, [120, 110, 100, 90, 80, 70, 60, 50, 40, 30, 20, 10]],
  ];
  const queue = "aws_sqs_queue.failures (https://queue)";
  const missing = () => awsError("NotFound");
  for (const [shownFor, seconds] of cases) {
    let asked = 0;
    const { stack } = fakeStack({
      HeadBucketCommand: missing,
      DescribeTableCommand: missing,
      GetRoleCommand: missing,
      GetFunctionCommand: missing,
      GetQueueUrlCommand: () => asked++ < shownFor ? { QueueUrl: "https://queue" } : missing(),
    });
    let ending = "";
    const said = await progressOf(async () => {
      ending = await prove("app-1", stack, fakeTime().time).catch(({ message }) => message);
    });
    assert.equal(
      ending,
      shownFor < Infinity
        ? "Nothing in AWS is named app-1 any more"
        : `Still in AWS: ${queue}; remove that by hand, then run the same command again: it asks ` +
          "once more",
    );
    const line = (s: number) => `AWS still shows ${queue}; asking again for ${s} s ...\n`;
    const first = "Asking AWS for all that is named app-1 ...\n";
    assert.equal(said, first + seconds.map(line).join(""));
  }
});

Deno.test("destroy tells how an existing bucket's notification is taken out, if it is there", async () => {
  const LambdaFunctionArn = "arn:aws:lambda:r:1:function:app-1";
  const answers: [answer: object, isThere: boolean][] = [
    [{ LambdaFunctionConfigurations: [{ LambdaFunctionArn }] }, true],
    [{ LambdaFunctionConfigurations: [] }, false],
    [awsError("AccessDenied"), true], // it may be
    [awsError("NoSuchBucket"), false],
  ];
  for (const [answer, isThere] of answers) {
    const { stack } = fakeStack({ GetBucketNotificationConfigurationCommand: () => answer });
    const existing = { bucket: "photos", remove: "aws s3api ..." };
    const said = await progressOf(() => sayWhatStays({ local: false }, stack, "app-1", existing));
    assert.match(said, /^The bucket photos, its objects and its notification stay as they are\.\n/);
    assert.equal(/still names the function[^]*\n\naws s3api \.\.\.\n/.test(said), isThere, said);
  }
});
