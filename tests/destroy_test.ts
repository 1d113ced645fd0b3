/** The proof of a destroy, where AWS still shows what was deleted. */

import assert from "node:assert/strict";
import { findUnproven, keepForProof, prove, silence } from "../tasks/destroy.ts";
import { removeIfThere } from "../tasks/files.ts";
import { LOCAL_FOLDER } from "../tasks/shell.ts";
import { fakeStack, fakeTime, named, progressOf } from "./fixtures.ts";

const WORKSPACE = "local-deno-task-test-proof";
const missing = () => named("NotFound");
const GONE = {
  HeadBucketCommand: missing,
  DescribeTableCommand: missing,
  GetQueueUrlCommand: missing,
};
const REMOVED = { name: "app-1", region: "eu-west-1" };

Deno.test("destroy takes out a notification of removals before it deletes objects", async () => {
  const address = "aws_s3_bucket_notification.uploads[0]";
  for (const events of [["s3:ObjectCreated:*"], ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]]) {
    const { stack, calls } = fakeStack({});
    const attributes = { lambda_function: [{ events }] };
    await silence(stack, "uploads", { resources: [{ address, attributes } as never] });
    const put = ["PutBucketNotificationConfigurationCommand", { NotificationConfiguration: {} }];
    const made = calls.map(({ name, input: { Bucket: _, ...rest } }) => [name, rest]);
    assert.deepEqual(made, events.length > 1 ? [put] : []);
  }
});

Deno.test("the proof of a destroy asks for two minutes, and can be had later", async () => {
  const cases: [shownFor: number, seconds: number[]][] = [
    [0, []],
    [2, [120, 110]],
    [Infinity, [120, 110, 100, 90, 80, 70, 60, 50, 40, 30, 20, 10]],
  ];
  const queue = "aws_sqs_queue.failures (https://queue)";
  try {
    for (const [shownFor, seconds] of cases) {
      await keepForProof(WORKSPACE, REMOVED);
      let asked = 0;
      const { stack } = fakeStack({
        ...GONE,
        GetQueueUrlCommand: () => asked++ < shownFor ? { QueueUrl: "https://queue" } : missing(),
      });
      const proving = () => prove(WORKSPACE, REMOVED, stack, fakeTime().time);
      const isProven = shownFor < Infinity;
      const said = await progressOf(() =>
        isProven
          ? proving().then((proof) => assert.equal(proof, "Nothing in AWS is named app-1 any more"))
          : assert.rejects(proving(), {
            message: `Still in AWS: ${queue}; remove that by hand, then run the same command ` +
              "again: it asks once more",
          })
      );
      const line = (s: number) => `AWS still shows ${queue}; asking again for ${s} s ...\n`;
      const first = "Asking AWS for all that is named app-1 ...\n";
      assert.equal(said, first + seconds.map(line).join(""));
      assert.deepEqual(await findUnproven(WORKSPACE), isProven ? undefined : REMOVED);
      assert.equal(await findUnproven(`${WORKSPACE}-2`), undefined);
    }
  } finally {
    await removeIfThere(`${LOCAL_FOLDER}/${WORKSPACE}.unproven.json`);
  }
});

Deno.test("a destroy tells how an existing bucket's notification is taken out, if it is there", async () => {
  const LambdaFunctionArn = "arn:aws:lambda:r:1:function:app-1";
  const removed = { ...REMOVED, existing: { bucket: "photos", remove: "aws s3api ..." } };
  const answers: [answer: object, isThere: boolean][] = [
    [{ LambdaFunctionConfigurations: [{ LambdaFunctionArn }] }, true],
    [{ LambdaFunctionConfigurations: [] }, false],
    [named("AccessDenied"), true], // it may be
    [named("NoSuchBucket"), false],
  ];
  for (const [answer, isThere] of answers) {
    const { stack } = fakeStack({
      ...GONE,
      GetBucketNotificationConfigurationCommand: () => answer,
    });
    const said = await progressOf(() => prove(WORKSPACE, removed, stack));
    assert.equal(/bucket photos still names[^]*\n\naws s3api \.\.\.\n/.test(said), isThere, said);
  }
});
