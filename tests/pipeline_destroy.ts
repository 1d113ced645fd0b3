/** Steps of the end-to-end tests: destroying, and that nothing is left. */

import assert from "node:assert/strict";
import { join } from "node:path";
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
  standInsOf,
  type Steps,
  task,
} from "./pipeline.ts";

export const DESTROY: Steps<Deployed> = {
  // Every plan refuses it, as main.tftest.hcl shows; destroy asks before it empties the bucket.
  "destroy refuses another region than the state's, and deletes nothing": async (deployed) => {
    const { root: { s3 }, bucket, target, variables } = deployed;
    const versions = await countVersions(s3, bucket, 100_000);
    assert.ok(versions > 0);
    const before = await Deno.readTextFile(variables);
    await Deno.writeTextFile(variables, `${before}aws_region = "eu-west-1"\n`);
    const { code, stderr } = await task(deployed, "destroy", "--yes");
    await Deno.writeTextFile(variables, before);
    assert.equal(code, 1, stderr);
    const sentence = /This state's stack is in us-east-1, not in eu-west-1\. Set/;
    assert.match(stderr.replace(/\s+/g, " "), sentence); // Terraform wraps it
    assert.equal(await countVersions(s3, bucket, 100_000), versions);
    assert.equal((await pullState(target.workspace)).resources.length, RESOURCES);
  },

  "destroy stops, all else whole, where S3 refuses to delete": async (deployed) => {
    const { root: { s3 }, bucket: Bucket, target } = deployed;
    const keys = ["held/a", "held/\u001b[31mred\n"];
    const hold = async (Status: "ON" | "OFF") => {
      for (const Key of keys) {
        await s3.putObjectLegalHold({ Bucket, Key, LegalHold: { Status } });
      }
    };
    for (const Key of keys) await s3.putObject({ Bucket, Key, Body: "1" });
    const ObjectLockConfiguration = { ObjectLockEnabled: "Enabled" } as const;
    await s3.putObjectLockConfiguration({ Bucket, ObjectLockConfiguration });
    await hold("ON");
    const { code, stderr } = await task(deployed, "destroy", "--yes");
    assert.equal(code, 1, stderr);
    assert.match(stderr, /S3 refused to delete 2 versions from .*"held\/a": AccessDenied/);
    assert.match(stderr, /"held\/\\u\{1b\}\[31mred\\n": AccessDenied/);
    assert.equal(stderr.includes("\u001b[31mred"), false);
    const { resources } = await pullState(target.workspace);
    assert.equal(resources.length, RESOURCES);
    await hold("OFF");
  },

  "Ctrl-C keeps destroy from its proof, not from removing everything": async (deployed) => {
    const { root, bucket, target } = deployed;
    // Somebody tidied up by hand.
    const AlarmNames = [`${root.outputs.lambda_function_name}-errors`];
    await root.cloudwatch.deleteAlarms({ AlarmNames });
    await fillBucket(deployed);
    const versions = await countVersions(root.s3, bucket, 100_000);
    // The last of all: the proof takes no time in which it could be interrupted.
    const removed = /^terraform_data\.stack: Destruction complete/m;
    const ended = await interruptedTask(deployed, removed, "destroy", "--yes");
    assert.deepEqual([ended.code, ended.stdout], [130, ""], ended.stderr);
    assert.match(ended.stderr, new RegExp(`Emptied \\S+: ${versions} versions, delete markers`));
    assert.deepEqual((await pullState(target.workspace)).resources, []);
  },

  "destroy again proves it": async (deployed) => {
    const { lambda_function_name: name } = deployed.root.outputs;
    const { code, stdout, stderr } = await task(deployed, "destroy", "--yes");
    assert.equal(code, 0, stderr);
    assert.equal(stdout, `Nothing in AWS is named ${name} any more\n`);
  },
};

/** Once everything is destroyed. */
export const LEFT: Steps<Pipeline> = {
  "nothing is left on this machine": async ({ clone, target }) => {
    const folders = [".local", "terraform.tfstate.d", ".local/terraform/terraform.tfstate.d"];
    for (const folder of folders) {
      const names = await namesIn(join(ROOT, folder));
      assert.deepEqual(names.filter((name) => name.split(".")[0] === target.workspace), []);
    }
    for (const name of await namesIn(join(ROOT, "build"))) {
      if (!name.startsWith("tmp-")) continue; // tests beside this one have such, too
      const plans = await namesIn(join(ROOT, "build", name));
      assert.equal(plans.includes(`${target.workspace}.tfplan`), false, name);
    }
    assert.deepEqual(await standInsOf(target), []);
    assert.deepEqual(await processesOf(clone), []);
  },
};

/** Versions and markers under keys of every kind. */
async function fillBucket({ root: { s3 }, bucket }: Deployed): Promise<void> {
  const names = ["a+b", "100%", "%2B", "new\nline", "return\r", "both\r\n", "tab\t\u0001"];
  for (const Key of [...names, " space ", "é/ü", "../x", "<&>"]) {
    for (const Body of ["1", "2"]) {
      await s3.putObject({ Bucket: bucket, Key, Body });
    }
    await s3.deleteObject({ Bucket: bucket, Key });
  }
}
