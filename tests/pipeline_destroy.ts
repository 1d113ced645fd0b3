/** Steps of the end-to-end test: destroying, and that nothing is left. */

import assert from "node:assert/strict";
import { join } from "node:path";
import {
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetBucketPolicyCommand,
  PutBucketPolicyCommand,
  PutObjectCommand,
  UploadPartCommand,
} from "@aws-sdk/client-s3";
import { DeleteQueueCommand } from "@aws-sdk/client-sqs";
import { namesIn } from "../tasks/files.ts";
import { countVersions } from "../tasks/bucket.ts";
import { ROOT } from "../tasks/shell.ts";
import { pullState } from "../tasks/terraform.ts";
import {
  type Deployed,
  interruptedTask,
  type Pipeline,
  processesOf,
  RESOURCES,
  type Steps,
  task,
  taskIn,
  withoutAws,
  WORKSPACE,
} from "./pipeline_context.ts";

export const DESTROY: Steps<Deployed> = {
  "destroy stops, all else whole, where S3 refuses to delete": async ({ shell, root, bucket }) => {
    const { s3 } = root;
    for (const Key of ["held/a", "held/\u001b[31mred\n"]) {
      await s3.send(new PutObjectCommand({ Bucket: bucket, Key, Body: "1" }));
    }
    const { Policy } = await s3.send(new GetBucketPolicyCommand({ Bucket: bucket }));
    const hold = {
      Effect: "Deny",
      Principal: "*",
      Action: ["s3:DeleteObject", "s3:DeleteObjectVersion"],
      Resource: `arn:aws:s3:::${bucket}/held/*`,
    };
    const held = JSON.stringify({ Version: "2012-10-17", Statement: [hold] });
    await s3.send(new PutBucketPolicyCommand({ Bucket: bucket, Policy: held }));
    const { code, stderr } = await task(shell, "destroy", "--yes");
    assert.equal(code, 1, stderr);
    assert.match(stderr, /S3 refused to delete 2 versions from .*"held\/a": AccessDenied/);
    assert.match(stderr, /"held\/\\u\{1b\}\[31mred\\u\{a\}": AccessDenied/);
    assert.equal(stderr.includes("\u001b[31mred"), false);
    const { resources } = await pullState(WORKSPACE);
    assert.equal(resources.length, RESOURCES);
    await s3.send(new PutBucketPolicyCommand({ Bucket: bucket, Policy }));
  },

  "Ctrl-C in the middle of destroy leaves the rest for the next": async (deployed) => {
    const { shell, root, bucket } = deployed;
    // Somebody tidied up by hand.
    const QueueUrl = root.outputs.failure_queue_url;
    await root.sqs.send(new DeleteQueueCommand({ QueueUrl }));
    await fillBucket(deployed);
    const versions = await countVersions(root.s3, bucket, 100_000);
    const { code, stderr } = await interruptedTask(shell, /Destroying\.\.\./, "destroy", "--yes");
    assert.equal(code, 130, stderr);
    const emptied =
      `Emptied \\S+: ${versions} versions, delete markers included, and 1 unfinished upload`;
    assert.match(stderr, new RegExp(emptied));
    assert.match(
      stderr,
      /Interrupted: deno task destroy --local --env deno-task-test --yes goes on/,
    );
    const { resources } = await pullState(WORKSPACE);
    assert.ok(resources.length > 0 && resources.length < RESOURCES, `${resources.length} are left`);
  },

  "destroy removes the rest, without a built zip; Ctrl-C keeps it from its proof": async (
    deployed,
  ) => {
    await Deno.remove(join(ROOT, "build", "lambda.zip"));
    const { resources: { length } } = await pullState(WORKSPACE);
    deployed.removed = length;
    const proof = /^Asking AWS for each resource/m;
    const { code, stdout, stderr } = await interruptedTask(
      deployed.shell,
      proof,
      "destroy",
      "--yes",
    );
    assert.deepEqual([code, stdout], [130, ""], stderr);
    assert.deepEqual((await pullState(WORKSPACE)).resources, []);
  },

  "destroy again proves it": async ({ shell, removed }) => {
    const { code, stdout, stderr } = await task(shell, "destroy", "--yes");
    assert.equal(code, 0, stderr);
    assert.match(stderr, /but the last destroy ended before its proof$/m);
    assert.equal(stdout, `${removed} of ${removed} resources gone\n`);
  },
};

/** Once the stand-in is left. */
export const LEFT: Steps<Pipeline> = {
  "without credentials one sentence says so, soon": async ({ shell }) => {
    // A metadata service that accepts and never answers, as behind a container's hop limit.
    using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const env = {
      ...withoutAws(shell),
      AWS_EC2_METADATA_SERVICE_ENDPOINT: `http://127.0.0.1:${silent.addr.port}`,
    };
    const startMs = performance.now();
    const { code, stderr } = await taskIn(ROOT, env, "deploy", "--env", "nobody", "--yes");
    assert.equal(code, 1);
    const sentence =
      /No AWS credentials found: the metadata service .* --http-put-response-hop-limit 2 .*$/;
    assert.match(stderr.trimEnd(), sentence);
    assert.ok(performance.now() - startMs < 60_000);
  },

  "nothing is left on this machine": async ({ clone, standIns, standInsBefore }) => {
    for (const folder of [".local", "terraform.tfstate.d"]) {
      const names = await namesIn(join(ROOT, folder));
      assert.deepEqual(names.filter((name) => name.split(".")[0] === WORKSPACE), []);
    }
    const built = await namesIn(join(ROOT, "build"));
    assert.deepEqual(built.filter((name) => /^tmp-/.test(name)), []);
    assert.deepEqual(await standIns(), standInsBefore);
    assert.deepEqual(await processesOf(clone), []);
  },
};

/** Versions and markers under keys of every kind, and an unfinished upload. */
async function fillBucket({ root: { s3 }, bucket }: Deployed): Promise<void> {
  const names = ["a+b", "100%", "%2B", "new\nline", "return\r", "both\r\n", "tab\t\u0001"];
  for (const Key of [...names, " space ", "é/ü", "../x", "<&>"]) {
    for (const Body of ["1", "2"]) {
      await s3.send(new PutObjectCommand({ Bucket: bucket, Key, Body }));
    }
    await s3.send(new DeleteObjectCommand({ Bucket: bucket, Key }));
  }
  const upload = { Bucket: bucket, Key: "unfinished+upload" };
  const { UploadId } = await s3.send(new CreateMultipartUploadCommand(upload));
  const part = { ...upload, UploadId, PartNumber: 1, Body: "part" };
  await s3.send(new UploadPartCommand(part));
}
