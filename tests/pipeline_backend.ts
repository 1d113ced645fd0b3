/**
 * Steps of the end-to-end test: a backend of the user's own, which keeps the other clone's state in a
 * bucket. The tasks act as on AWS, since a stand-in's state never goes there.
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { CreateBucketCommand, ListObjectsV2Command } from "@aws-sdk/client-s3";
import { namesIn } from "../tasks/files.ts";
import { findNamed, NAMED } from "../tasks/leftovers.ts";
import {
  type Deployed,
  plainTerraformIn,
  RESOURCES,
  type Steps,
  taskIn,
  withoutAws,
} from "./pipeline_context.ts";
import { assertImported } from "./pipeline_interrupted.ts";

/** By its name the deployer may use it. */
const BUCKET = "file-metadata-states";
const KEY = "file-metadata.tfstate";

/** As README has it. */
const BACKEND = `terraform {
  backend "s3" {
    bucket       = "${BUCKET}"
    key          = "${KEY}"
    region       = "us-east-1"
    use_lockfile = true
  }
}
`;

/** Made by destroy alone; the state loses it before. */
const FORGOTTEN = "aws_cloudwatch_log_group.function";

export const OWN_BACKEND: Steps<Deployed> = {
  "with a backend of the user's own deploy keeps the state there": async (deployed) => {
    const { clone, root } = deployed;
    const { code, stdout, stderr } = await deployed.otherDeploy!;
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^environment = dev$/m);
    const { Contents = [] } = await root.s3.send(new ListObjectsV2Command({ Bucket: BUCKET }));
    assert.deepEqual(Contents.map(({ Key }) => Key), [KEY]); // and no lock
    assert.deepEqual((await namesIn(clone)).filter((name) => name.includes("tfstate")), []);
  },

  "verify and status find it": async ({ clone, shell }) => {
    const verify = await taskIn(clone, asOnAws(shell), "verify");
    assert.equal(verify.code, 0, verify.stdout + verify.stderr);
    const status = await taskIn(clone, asOnAws(shell), "status");
    assert.equal(status.code, 0, status.stdout + status.stderr);
    assert.match(status.stdout, /^All is well\.$/m);
  },

  "destroy takes in what that state lacks, and proves that nothing is left": async (deployed) => {
    const { clone, shell, root } = deployed;
    const env = { ...asOnAws(shell), TF_WORKSPACE: "default" };
    const removed = await plainTerraformIn(clone, env, ["state", "rm", FORGOTTEN]);
    assert.equal(removed.code, 0, removed.stderr);
    const { stdout: name } = await plainTerraformIn(clone, env, [
      "output",
      "-raw",
      "s3_bucket_name",
    ]);
    assert.equal((await findNamed(root, name)).length, NAMED.length);
    const { code, stdout, stderr } = await taskIn(clone, asOnAws(shell), "destroy", "--yes");
    assert.equal(code, 0, stderr);
    assertImported(stderr, [{ address: FORGOTTEN }]);
    assert.equal(stdout, `${RESOURCES} of ${RESOURCES} resources gone\n`);
    assert.deepEqual(await findNamed(root, name), []);
  },
};

/** Deploys the other clone with its state in a bucket. */
export async function deployWithBackend({ clone, shell, root }: Deployed) {
  await root.s3.send(new CreateBucketCommand({ Bucket: BUCKET }));
  await Deno.writeTextFile(join(clone, "backend.tf"), BACKEND);
  return await taskIn(clone, asOnAws(shell), "deploy", "--yes");
}

/** An environment in which the stand-in is AWS, and this machine an instance with the deployer's role. */
function asOnAws(shell: Record<string, string>): Record<string, string> {
  const names = ["AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "AWS_EC2_METADATA_SERVICE_ENDPOINT"];
  const ofStandIn = Object.fromEntries(names.map((name) => [name, Deno.env.get(name)!]));
  return { ...withoutAws(shell), ...ofStandIn };
}
