/** What changes a stack, or must not: edits, changes by hand, permissions, and a refused destroy. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { countVersions } from "../tasks/bucket.ts";
import { namesIn } from "../tasks/files.ts";
import { ROOT } from "../tasks/shell.ts";
import { pullState } from "../tasks/terraform.ts";
import { read } from "./fixtures.ts";
import {
  type Deployed,
  endToEndTest,
  interruptedTask,
  openDeployed,
  type Pipeline,
  RESOURCES,
  runSteps,
  shareProvider,
  type Steps,
  task,
} from "./pipeline.ts";
import { DEV } from "./pipeline_dev.ts";
import { DRIFT } from "./pipeline_drift.ts";
import { PERMISSIONS } from "./pipeline_permissions.ts";
import { listProcesses } from "./run_task.ts";

/** With `-local-deno-task-test-changes-` 53 characters, the most that are allowed. */
const LONGEST_PROJECT = "file-metadata-long-name";

/** A shell's settings that must not get in; environment_test.ts has more of them. */
const HOSTILE = {
  AWS_PROFILE: "somebody",
  AWS_ENDPOINT_URL_S3: "https://127.0.0.1:1",
  AWS_REGION: "eu-west-3",
  HTTPS_PROXY: "http://127.0.0.1:1",
  TF_WORKSPACE: "prod",
  TF_VAR_aws_region: "eu-west-3",
  TF_CLI_ARGS: "-no-such-option",
  LD_LIBRARY_PATH: "/nowhere", // of CUDA, conda or Nix: it stays, and Deno runs programs with it
};

endToEndTest("changes", async (t, pipeline) => {
  await Deno.writeTextFile(pipeline.variables, `project_name = "${LONGEST_PROJECT}"\n`);
  await runSteps(t, DEPLOY, pipeline);
  await using _ = await shareProvider(pipeline, Deno.env.toObject());
  const deployed = await openDeployed(pipeline);
  await runSteps(t, { ...DEV, ...DRIFT, ...PERMISSIONS, ...DESTROY }, deployed);
});

const DEPLOY: Steps<Pipeline> = {
  "deploy makes everything, whatever is set in the shell": async (pipeline) => {
    const { shell, target: { workspace } } = pipeline;
    const deploy = await task({ ...pipeline, shell: { ...shell, ...HOSTILE } }, "deploy", "--yes");
    assert.equal(deploy.code, 0, deploy.stderr);
    const name = `^s3_bucket_name = ${LONGEST_PROJECT}-${workspace}-[0-9a-f]{10}$`;
    assert.match(deploy.stdout, new RegExp(name, "m"));
    const where = `Account 123456789012, region us-east-1, environment ${workspace}`;
    assert.ok(deploy.stderr.includes(where), deploy.stderr);
  },

  "every resource that can have tags has them": async ({ target: { workspace } }) => {
    const { resources } = await pullState(workspace);
    const tagged = resources.filter(({ attributes }) => "tags_all" in attributes);
    assert.equal(tagged.length, 9);
    const tags = { Project: LONGEST_PROJECT, Environment: workspace, ManagedBy: "terraform" };
    for (const { address, attributes } of tagged) {
      assert.deepEqual(attributes.tags_all, tags, address);
    }
    // AWS tells a function's tags by GetFunction, but only to whom this allows: not the stand-in.
    assert.match(await read("docs/deployer_policy.json"), /"lambda:ListTags"/);
  },
};

const DESTROY: Steps<Deployed> = {
  // Every plan refuses it, as main.tftest.hcl shows; destroy asks before it empties the bucket.
  "destroy refuses another region than the state's, and deletes nothing": async (deployed) => {
    const { root: { s3 }, bucket, variables } = deployed;
    const versions = await countVersions(s3, bucket, 100_000);
    assert.ok(versions > 0);
    const before = await Deno.readTextFile(variables);
    await Deno.writeTextFile(variables, `${before}aws_region = "eu-west-1"\n`);
    const stderr = await destroyInVain(deployed);
    await Deno.writeTextFile(variables, before);
    const sentence = /This state's stack is in us-east-1, not in eu-west-1\. Set/;
    assert.match(stderr.replace(/\s+/g, " "), sentence); // Terraform wraps it
    assert.equal(await countVersions(s3, bucket, 100_000), versions);
  },

  "destroy stops, all else whole, where S3 refuses to delete": async (deployed) => {
    const { root: { s3 }, bucket: Bucket } = deployed;
    const object = { Bucket, Key: "held" };
    await s3.putObject({ ...object, Body: "1" });
    await s3.createMultipartUpload({ Bucket, Key: "unfinished" }); // it ends with the bucket
    const ObjectLockConfiguration = { ObjectLockEnabled: "Enabled" } as const;
    await s3.putObjectLockConfiguration({ Bucket, ObjectLockConfiguration });
    await s3.putObjectLegalHold({ ...object, LegalHold: { Status: "ON" } });
    const refused = /S3 refused to delete 1 version from .*"held": AccessDenied/;
    assert.match(await destroyInVain(deployed), refused);
    await s3.putObjectLegalHold({ ...object, LegalHold: { Status: "OFF" } });
  },

  "Ctrl-C keeps destroy from its proof, not from removing everything": async (deployed) => {
    const { root: { cloudwatch, outputs }, target } = deployed;
    // Somebody tidied up by hand.
    await cloudwatch.deleteAlarms({ AlarmNames: [`${outputs.lambda_function_name}-errors`] });
    const last = /^terraform_data\.stack: Destroying/m; // the proof itself takes no time
    const ended = await interruptedTask(deployed, last, "destroy", "--yes");
    assert.deepEqual([ended.code, ended.stdout], [130, ""], ended.stderr);
    assert.match(ended.stderr, /^Emptied \S+: 1 version, delete markers included/m);
    assert.deepEqual((await pullState(target.workspace)).resources, []);
  },

  "destroy again proves it": async (deployed) => {
    const { lambda_function_name: name } = deployed.root.outputs;
    const { code, stdout, stderr } = await task(deployed, "destroy", "--yes");
    assert.equal(code, 0, stderr);
    assert.equal(stdout, `Nothing in AWS is named ${name} any more\n`);
  },

  "nothing is left on this machine": async ({ target: { workspace } }) => {
    const folders = [".local", "terraform.tfstate.d", ".local/terraform/terraform.tfstate.d"];
    for (const folder of folders) {
      const names = await namesIn(join(ROOT, folder));
      assert.deepEqual(names.filter((name) => name.split(".")[0] === workspace), []);
    }
    for (const name of await namesIn(join(ROOT, "build"))) {
      if (!name.startsWith("tmp-")) continue; // tests beside this one have such, too
      const plans = await namesIn(join(ROOT, "build", name));
      assert.equal(plans.includes(`${workspace}.tfplan`), false, name);
    }
    assert.deepEqual(await standInsOf(workspace), []);
  },

  "Ctrl-C while the stand-in starts leaves no process": async (pipeline) => {
    const { target: { workspace, flags } } = pipeline;
    const starting = /Starting the local/;
    const { code, stderr } = await interruptedTask(pipeline, starting, "deploy", "--yes");
    assert.equal(code, 130);
    assert.match(stderr, new RegExp(`Interrupted: deno task deploy${flags} --yes goes on`));
    assert.deepEqual(await standInsOf(workspace), []);
  },
};

/** Destroys, which fails and leaves every resource; returns what it says of it. */
async function destroyInVain(deployed: Deployed): Promise<string> {
  const { code, stderr } = await task(deployed, "destroy", "--yes");
  assert.equal(code, 1, stderr);
  assert.equal((await pullState(deployed.target.workspace)).resources.length, RESOURCES);
  return stderr;
}

/** A workspace's stand-ins: their command lines end with its name. */
async function standInsOf(workspace: string) {
  const processes = await listProcesses();
  return processes.filter(({ command }) => command.endsWith(`stand_in.py ${workspace}`));
}
