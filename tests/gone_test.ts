/** Parts that are gone, by the errors that each service throws. */

import assert from "node:assert/strict";
import * as logs from "@aws-sdk/client-cloudwatch-logs";
import * as dynamo from "@aws-sdk/client-dynamodb";
import * as lambda from "@aws-sdk/client-lambda";
import * as s3 from "@aws-sdk/client-s3";
import * as sqs from "@aws-sdk/client-sqs";
import { findGone } from "../tasks/gone.ts";
import { fakeStack } from "./fixtures.ts";

Deno.test("findGone() names the part that is gone and what to do, in every task", () => {
  const { stack } = fakeStack({});
  const why = { message: "gone", Message: "gone", Type: "User", $metadata: {} };
  const older = Object.assign(new Error(), { name: "AWS.SimpleQueueService.NonExistentQueue" });
  const cases: [Error, RegExp | undefined][] = [
    [
      new s3.NoSuchBucket(why),
      /^The bucket uploads does not exist any more: deno task deploy --env x /,
    ],
    [new dynamo.ResourceNotFoundException(why), /^The table files .* makes it again, empty/],
    [new lambda.ResourceNotFoundException(why), /^The function fn .* makes it again, and backfill/],
    [new logs.ResourceNotFoundException(why), /^The log group log .* makes it again/],
    [new sqs.QueueDoesNotExist(why), /^The failure queue queue .* makes it again, empty/],
    [older, /^The failure queue queue /],
    [new s3.NoSuchKey(why), undefined],
    [new s3.NotFound(why), undefined], // the answer to a HEAD, also of an object
    [new Error("other"), undefined],
  ];
  for (const [error, expected] of cases) {
    const sentence = findGone(error, stack)?.sentence;
    if (expected) assert.match(sentence ?? "", expected);
    else assert.equal(sentence, undefined);
  }
});
