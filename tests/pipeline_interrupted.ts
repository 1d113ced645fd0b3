/**
 * Steps of the end-to-end tests: Ctrl-C in the middle of an apply, and one that is killed, with AWS's
 * answers as late as they are from afar, and the state in a backend of the user's own, a bucket; and a
 * stack of a bucket that exists. All in other clones, whose tasks act as on AWS, since a stand-in's own
 * state stays on this machine.
 */

import assert from "node:assert/strict";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { shellWord } from "../tasks/commands.ts";
import { namesIn } from "../tasks/files.ts";
import { findNamed, type Found, lackingIn, NAMED } from "../tasks/leftovers.ts";
import { pause } from "../tasks/signals.ts";
import { parseState } from "../tasks/terraform.ts";
import { read } from "./fixtures.ts";
import {
  type Clients,
  type Pipeline,
  processesOf,
  RESOURCES,
  type Steps,
  taskIn,
  waitFor,
} from "./pipeline.ts";
import { type Ended, interruptTask, listProcesses, runProgram, runTask } from "./run_task.ts";

/** How late an answer is, and how long after a line on stderr the end comes: the request is on its way. */
const DELAY_MS = 400;
const ACT_AFTER_MS = 300;

/** By its name the deployer may use it. */
const BUCKET = "file-metadata-states";
const KEY = "file-metadata.tfstate";

/** As OPERATE.md has it. */
const BACKEND = `terraform {
  backend "s3" {
    bucket       = "${BUCKET}"
    key          = "${KEY}"
    region       = "us-east-1"
    use_lockfile = true
  }
}
`;

/** Where a state may be, too. */
const CLOUD = `terraform {
  cloud {
    organization = "us"
    workspaces { name = "w" }
  }
}
`;

/** Before destroy the state loses one, and most of the other, as if interrupted in its creation. */
const FORGOTTEN = 'aws_cloudwatch_metric_alarm.function["failures-waiting"]';
const INCOMPLETE = "aws_cloudwatch_log_group.function";

/** The other clone, and the stand-in that it takes for AWS. */
export interface Remote extends Pipeline {
  /** The stand-in's clients, as its root, whom no policy binds. */
  root: Clients;
  /** A way to the stand-in whose answers can be late. */
  late: LateProxy;
  /** The instance's metadata service: the only source of credentials. */
  metadata: { url: string };
  /** What the last interruption left in AWS alone. */
  left: Found[];
}

export const INTERRUPTED: Steps<Remote> = {
  "Ctrl-C in the middle of apply: the state lacks what is on its way": async (remote) => {
    const { clone, root } = remote;
    await root.s3.createBucket({ Bucket: BUCKET });
    await Deno.writeTextFile(join(clone, "backend.tf"), BACKEND);
    const creating = /aws_iam_role\.function: Creating/;
    const { code, stderr } = await deployLate(remote, creating, (deploy) => deploy.kill("SIGINT"));
    assert.equal(code, 130, stderr);
    assert.equal(stderr.match(/Interrupt received/g)?.length, 1);
    assert.match(stderr, /deno task destroy --yes removes what is there$/m);
    assert.deepEqual(await processesOf(join(clone, "build")), []);
    remote.left = await leftovers(remote);
    assert.ok(remote.left.length > 0, "this interruption left nothing behind");
  },

  "what a killed deploy made has the name that the state has": async (remote) => {
    const { clone, root } = remote;
    const { name: FunctionName } = await stateNow(remote);
    const creating = /aws_lambda_function\.metadata: Creating/;
    const { stderr } = await deployLate(remote, creating, async (deploy) => {
      // AWS has it, and Terraform does not know yet.
      await waitFor(30_000, () => root.lambda.getFunction({ FunctionName }).catch(() => undefined));
      await killApply(deploy, clone);
    });
    assertImported(stderr, remote.left);
    // As terraform force-unlock does.
    await root.s3.deleteObject({ Bucket: BUCKET, Key: `${KEY}.tflock` });
    const { name } = await stateNow(remote);
    assert.match(name ?? "no name", /^file-metadata-dev-[0-9a-f]{10}$/);
    remote.left = await leftovers(remote);
    assert.ok(remote.left.length > 0, "the killed deploy made nothing");
  },
};

/** What comes after an interruption. */
export const GOES_ON: Steps<Remote> = {
  "deploy goes on where it was interrupted, its state in a user's backend": async (remote) => {
    const deploy = await taskIn(remote.clone, asOnAws(remote), "deploy", "--yes");
    const { code, stdout, stderr } = deploy;
    assert.equal(code, 0, stderr);
    assertImported(stderr, remote.left);
    assert.match(stderr, / to add, \d+ to change, 0 to destroy$/m);
    assert.doesNotMatch(stderr, /already ?exists|ResourceInUse|ResourceConflict/i);
    assert.match(stdout, /^environment = dev$/m);
    const { Contents = [] } = await remote.root.s3.listObjectsV2({ Bucket: BUCKET });
    assert.deepEqual(Contents.map(({ Key }) => Key), [KEY]); // and no lock
    const local = (await namesIn(remote.clone)).filter((name) => name === "terraform.tfstate");
    assert.deepEqual(local, []);
  },

  "verify and status find it": async (remote) => {
    const verify = await taskIn(remote.clone, asOnAws(remote), "verify");
    assert.equal(verify.code, 0, verify.stdout + verify.stderr);
    const status = await taskIn(remote.clone, asOnAws(remote), "status");
    assert.match(status.stdout, /^bucket +file-metadata-dev-\w+, calls the function$/m);
    assert.equal(status.code, 0, status.stdout + status.stderr);
  },

  "a backend of the user's own does not concern the stand-in": async ({ clone, shell }) => {
    for (const backend of [CLOUD, BACKEND]) {
      await Deno.writeTextFile(join(clone, "backend.tf"), backend);
      const local = await taskIn(clone, shell, "status", "--local", "--env", "deno-task-test");
      assert.equal(local.code, 2);
      assert.match(local.stderr, /^Nothing is deployed on the stand-in in environment /m);
    }
  },

  "destroy takes in what the state lacks; Ctrl-C in its middle leaves the rest": async (remote) => {
    const { clone: folder, root } = remote;
    const { name } = await stateNow(remote);
    await damageState(remote);
    const optIn = 1; // batch_backfill's role
    assert.equal((await findNamed(root, name!)).length, NAMED.length - optIn);
    const words = ["destroy", "--yes"];
    const ended = await interruptTask(words, asOnAws(remote), /Destruction complete/, folder);
    assert.equal(ended.code, 130, ended.stderr);
    assertImported(ended.stderr, [{ address: FORGOTTEN }, { address: INCOMPLETE }]);
    assert.match(ended.stderr, /Interrupted: deno task destroy --yes goes on/);
    const { resources } = await stateNow(remote);
    assert.ok(resources.length > 0 && resources.length < RESOURCES, `${resources.length} are left`);
  },

  "destroy removes the rest, without a built zip, and proves it": async (remote) => {
    const { clone, root } = remote;
    const { name } = await stateNow(remote);
    await Deno.remove(join(clone, "build", "lambda.zip"));
    const { code, stdout, stderr } = await taskIn(clone, asOnAws(remote), "destroy", "--yes");
    assert.equal(code, 0, stderr);
    assert.equal(stdout, `Nothing in AWS is named ${name} any more\n`);
    assert.deepEqual(await findNamed(root, name!), []);
  },
};

async function stateNow(remote: Remote) {
  return parseState(await plainly(remote, "state", "pull"));
}

/** Takes one resource out of the state, and leaves of another no more than an interruption does. */
async function damageState(remote: Remote): Promise<void> {
  await plainly(remote, "state", "rm", FORGOTTEN);
  const state = JSON.parse(await plainly(remote, "state", "pull"));
  state.serial++;
  const [type, name] = INCOMPLETE.split(".");
  for (const resource of state.resources) {
    if (resource.type !== type || resource.name !== name) continue;
    resource.instances[0].status = "tainted";
    resource.instances[0].attributes.arn = null;
  }
  const file = join(remote.clone, "damaged.tfstate");
  await Deno.writeTextFile(file, JSON.stringify(state));
  await plainly(remote, "state", "push", file);
}

/** Runs plain Terraform in the other clone, and returns its standard output. */
async function plainly(remote: Remote, ...args: string[]): Promise<string> {
  const env = { ...asOnAws(remote), TF_WORKSPACE: "default" };
  const { code, stdout, stderr } = await runProgram("terraform", args, remote.clone, env);
  assert.equal(code, 0, stderr);
  return stdout;
}

/** What is in AWS and not in the state. */
async function leftovers(remote: Remote): Promise<Found[]> {
  const state = await stateNow(remote);
  return lackingIn(state, await findNamed(remote.root, state.name!));
}

function assertImported(stderr: string, left: Pick<Found, "address">[]): void {
  const imports = stderr.split("\n").filter((line) => line.startsWith("$ terraform import "));
  for (const { address } of left) {
    assert.ok(
      imports.some((line) => line.includes(` ${shellWord(address)} `)),
      `${address}: ${stderr}`,
    );
  }
}

/**
 * An environment in which the stand-in is AWS, behind the late proxy, and this machine an instance with
 * the deployer's role.
 */
export function asOnAws({ shell, late, metadata }: Remote): Record<string, string> {
  const others = Object.entries(shell).filter(([name]) => !name.startsWith("AWS_"));
  return {
    ...Object.fromEntries(others),
    AWS_CA_BUNDLE: Deno.env.get("AWS_CA_BUNDLE")!,
    AWS_EC2_METADATA_SERVICE_ENDPOINT: metadata.url,
    // A queue's URL has the port in it by which it was made.
    AWS_ENDPOINT_URL: `https://127.0.0.1:${late.port}`,
  };
}

interface LateProxy extends Disposable {
  port: number;
  delayMs: number;
}

/** Passes connections on to a port of this machine, and what comes back after `delayMs`. */
export async function lateProxy(port: number): Promise<LateProxy> {
  const open = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    const later = (work: () => void) => setTimeout(work, proxy.delayMs);
    near.pipe(far);
    far.on("data", (bytes) => later(() => near.write(bytes)));
    far.on("end", () => later(() => near.end()));
    for (const end of [near, far]) {
      open.add(end);
      end.on("error", () => [near, far].map((end) => end.destroy()));
      end.on("close", () => open.delete(end));
    }
  });
  const proxy = {
    port: 0,
    delayMs: 0,
    [Symbol.dispose]() {
      server.close();
      for (const end of open) end.destroy();
    },
  };
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  proxy.port = (server.address() as AddressInfo).port;
  return proxy;
}

/**
 * Deploys with late answers from its apply on, and does something to the task soon after a line on
 * stderr, when that line's request is on its way.
 */
async function deployLate(
  remote: Remote,
  line: RegExp,
  act: (deploy: Deno.ChildProcess) => void | Promise<void>,
): Promise<Ended> {
  const { clone: folder, late } = remote;
  let acting: Promise<void> | undefined;
  const ended = await runTask(["deploy", "--yes"], asOnAws(remote), {
    folder,
    onStderr: (text, deploy) => {
      if (/\$ terraform apply/.test(text)) late.delayMs = DELAY_MS;
      if (line.test(text)) acting ??= pause(ACT_AFTER_MS).then(() => act(deploy));
    },
  });
  late.delayMs = 0;
  assert.ok(acting, `never came to ${line}: ${ended.stderr}`);
  await acting;
  return ended;
}

/** Kills a task that applies in a folder, and its Terraform. */
async function killApply(task: Deno.ChildProcess, folder: string): Promise<void> {
  const [apply] = (await listProcesses()).filter(({ command }) =>
    command.includes("terraform apply") && command.includes(folder)
  );
  // Terraform leads a group of its own, in which its provider is too.
  for (const pid of [task.pid, -apply.pid]) Deno.kill(pid, "SIGKILL");
}

/** The deployer's own policy does not name it. */
const EXISTING_BUCKET = "photos-of-others";

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
  const Bucket = EXISTING_BUCKET;
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
