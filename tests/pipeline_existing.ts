/** For the end-to-end tests: a stack of a bucket that exists, in another clone. */

import assert from "node:assert/strict";
import { read } from "./fixtures.ts";
import { type Steps, taskIn } from "./pipeline.ts";
import { asOnAws, plainly, type Remote } from "./pipeline_interrupted.ts";

/** The deployer's own policy does not name it. */
const Bucket = "photos-of-others";

/** What somebody else has it do. */
const FOREIGN = {
  EventBridgeConfiguration: {},
  LambdaFunctionConfigurations: [{
    Id: "thumbs",
    LambdaFunctionArn: "arn:aws:lambda:us-east-1:123456789012:function:thumbs",
    Events: ["s3:ObjectRemoved:*" as const],
  }],
};

export const EXISTING: Steps<{ attached: Promise<void> }> = {
  "an existing bucket is attached, verified, and left as it was": ({ attached }) => attached,
};

/** Attaches, verifies and destroys; nothing of the bucket changes but what its owner adds. */
export async function attachExisting(remote: Remote): Promise<void> {
  const { clone, root: { s3, iam } } = remote;
  await s3.createBucket({ Bucket });
  await s3.putObject({ Bucket, Key: "old", Body: "1" });
  await s3.putBucketNotificationConfiguration({ Bucket, NotificationConfiguration: FOREIGN });
  const text = await read("docs/existing_bucket_policy.json");
  const PolicyDocument = text.replaceAll("BUCKET", Bucket);
  await iam.putRolePolicy({ RoleName: "deployer", PolicyName: "existing", PolicyDocument });
  const before = (await s3.listObjectVersions({ Bucket })).Versions;

  const run = async (...words: string[]) => {
    const env = { ...asOnAws(remote), TF_VAR_existing_bucket: Bucket };
    const ended = await taskIn(clone, env, ...words);
    assert.equal(ended.code, 0, ended.stdout + ended.stderr);
    return ended.stderr;
  };
  assert.match(await run("deploy", "--yes"), /does not call .* yet,[^]*^aws s3api get-/m);
  const entries = JSON.parse(await plainly(remote, "output", "-raw", "notification_json"));
  const LambdaFunctionConfigurations = [...FOREIGN.LambdaFunctionConfigurations, ...entries];
  const NotificationConfiguration = { ...FOREIGN, LambdaFunctionConfigurations };
  await s3.putBucketNotificationConfiguration({ Bucket, NotificationConfiguration });
  await run("verify");
  const said = await run("destroy", "--yes");
  assert.match(said, /stay as they are[^]*still names the function[^]*^aws s3api get-/m);
  assert.deepEqual((await s3.listObjectVersions({ Bucket })).Versions, before);
  const { $metadata: _, ...left } = await s3.getBucketNotificationConfiguration({ Bucket });
  assert.deepEqual(left, NotificationConfiguration);
}
