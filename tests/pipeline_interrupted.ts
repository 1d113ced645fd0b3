/**
 * Steps of the end-to-end tests: Ctrl-C in the middle of an apply, and one that is killed, with AWS's
 * answers as late as they are from afar, and the state in a backend of the user's own, a bucket. All in
 * the other clone, whose tasks act as on AWS, since a stand-in's own state stays on this machine.
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { CreateBucketCommand, DeleteObjectCommand, ListObjectsV2Command } from "@aws-sdk/client-s3";
import { namesIn } from "../tasks/files.ts";
import { findNamed, type Found, lackingIn, NAMED } from "../tasks/leftovers.ts";
import { parseState } from "../tasks/terraform.ts";
import type { Clients } from "../tasks/clients.ts";
import {
  type Pipeline,
  processesOf,
  RESOURCES,
  type Steps,
  taskIn,
  terraformIn,
  withoutAws,
} from "./pipeline_context.ts";
import { KILLED_ENVIRONMENT } from "./pipeline_tools.ts";
import { interruptTask, listProcesses, runTask } from "./run_task.ts";

/** How late an answer is, and how long after a line on stderr the end comes: the request is on its way. */
const DELAY_MS = 400;
const INTERRUPT_AFTER_MS = 300;

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

/** Before destroy the state loses one, and most of the other, as if interrupted in its creation. */
const FORGOTTEN = "aws_cloudwatch_metric_alarm.failures_waiting";
const INCOMPLETE = "aws_cloudwatch_log_group.function";

/** The other clone, and the stand-in that it takes for AWS. */
interface Remote extends Pipeline {
  /** The stand-in's clients, as its root, whom no policy binds. */
  root: Clients;
  /** A way to the stand-in whose answers can be late. */
  late: LateProxy;
  /** What the last interruption left in AWS alone. */
  left: Found[];
}

export const INTERRUPTED: Steps<Remote> = {
  "Ctrl-C in the middle of apply: Terraform saves a state that lacks what is on its way": async (
    remote,
  ) => {
    const { clone, root } = remote;
    await root.s3.send(new CreateBucketCommand({ Bucket: BUCKET }));
    await Deno.writeTextFile(join(clone, "backend.tf"), BACKEND);
    const stderr = await interruptLate(remote, /aws_iam_role\.function: Creating/);
    assert.equal(stderr.match(/Interrupt received/g)?.length, 1);
    assert.match(stderr, /deno task destroy --yes removes what is there$/m);
    assert.deepEqual(await processesOf(join(clone, "build")), []);
    remote.left = await leftovers(remote);
    assert.ok(remote.left.length > 0, "this interruption left nothing behind");
  },

  "deploy goes on where it was interrupted, its state in the user's own backend": async (
    remote,
  ) => {
    const deploy = await taskIn(remote.clone, asOnAws(remote), "deploy", "--yes");
    const { code, stdout, stderr } = deploy;
    assert.equal(code, 0, stderr);
    assertImported(stderr, remote.left);
    assert.match(stderr, / to add, \d+ to change, 0 to destroy$/m);
    assert.doesNotMatch(stderr, /already ?exists|ResourceInUse|ResourceConflict/i);
    assert.match(stdout, /^environment = dev$/m);
    const list = new ListObjectsV2Command({ Bucket: BUCKET });
    const { Contents = [] } = await remote.root.s3.send(list);
    assert.deepEqual(Contents.map(({ Key }) => Key), [KEY]); // and no lock
    const local = (await namesIn(remote.clone)).filter((name) => name === "terraform.tfstate");
    assert.deepEqual(local, []);
  },

  "verify and status find it": async (remote) => {
    const verify = await taskIn(remote.clone, asOnAws(remote), "verify");
    assert.equal(verify.code, 0, verify.stdout + verify.stderr);
    const status = await taskIn(remote.clone, asOnAws(remote), "status");
    assert.match(status.stdout, /^bucket +file-metadata-dev-\w+, calls the function$/m);
    // The stand-in forgets whose errors an alarm is about.
    assert.doesNotMatch(status.stdout, /^WRONG: (?!the alarm)/m);
    // A stand-in's state is never there.
    const local = await taskIn(remote.clone, remote.shell, "status", ...KILLED_ENVIRONMENT);
    assert.equal(local.code, 2);
    assert.match(local.stderr, /^Nothing is deployed on the stand-in in environment /m);
  },

  "destroy takes in what the state lacks; Ctrl-C in its middle leaves the rest": async (remote) => {
    const { clone: folder, root } = remote;
    const { name } = await stateNow(remote);
    await damageState(remote);
    const optIn = 1; // batch_backfill's role
    assert.equal((await findNamed(root, name!)).length, NAMED.length - optIn);
    const words = ["destroy", "--yes"];
    const removed = /Destruction complete/;
    const ended = await interruptTask(words, asOnAws(remote), removed, { folder });
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

  "what a killed deploy made has the name that the state has, and destroy finds it": async (
    remote,
  ) => {
    const { clone, root } = remote;
    await killLate(remote, /aws_sqs_queue\.failures: Creating/);
    // As terraform force-unlock does.
    await root.s3.send(new DeleteObjectCommand({ Bucket: BUCKET, Key: `${KEY}.tflock` }));
    const { name } = await stateNow(remote);
    assert.match(name ?? "no name", /^file-metadata-dev-[0-9a-f]{10}$/);
    const left = await leftovers(remote);
    assert.ok(left.length > 0, "nothing was made before the kill");
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
  const { code, stdout, stderr } = await terraformIn(remote.clone, env, args);
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
    assert.ok(imports.some((line) => line.includes(` ${address} `)), `${address}: ${stderr}`);
  }
}

/**
 * An environment in which the stand-in is AWS, behind the late proxy, and this machine an instance with
 * the deployer's role.
 */
function asOnAws({ shell, late }: Remote): Record<string, string> {
  const names = ["AWS_CA_BUNDLE", "AWS_EC2_METADATA_SERVICE_ENDPOINT"];
  const ofStandIn = Object.fromEntries(names.map((name) => [name, Deno.env.get(name)!]));
  // A queue's URL has the port in it by which it was made.
  return { ...withoutAws(shell), ...ofStandIn, AWS_ENDPOINT_URL: `https://127.0.0.1:${late.port}` };
}

interface LateProxy extends Disposable {
  port: number;
  delayMs: number;
}

/** Passes connections on to a port of this machine, and what comes back after `delayMs`. */
export function lateProxy(port: number): LateProxy {
  const hostname = "127.0.0.1";
  const listener = Deno.listen({ hostname, port: 0 });
  const open = new Set<Deno.TcpConn>();
  const carry = async (near: Deno.TcpConn) => {
    const far = await Deno.connect({ hostname, port });
    for (const end of [near, far]) open.add(end);
    const late = new TransformStream<Uint8Array, Uint8Array>({
      async transform(bytes, controller) {
        await new Promise((resolve) => setTimeout(resolve, proxy.delayMs));
        controller.enqueue(bytes);
      },
    });
    await Promise.allSettled([
      near.readable.pipeTo(far.writable),
      far.readable.pipeThrough(late).pipeTo(near.writable),
    ]);
    for (const end of [near, far]) open.delete(end);
  };
  const proxy: LateProxy = {
    port: listener.addr.port,
    delayMs: 0,
    [Symbol.dispose]() {
      listener.close();
      for (const end of open) end.close();
    },
  };
  (async () => {
    for await (const near of listener) carry(near);
  })();
  return proxy;
}

/** Deploys with late answers, and kills the task and its Terraform soon after a line of stderr. */
async function killLate(remote: Remote, line: RegExp): Promise<void> {
  const { clone: folder, late } = remote;
  let killing: Promise<void> | undefined;
  const kill = async (child: Deno.ChildProcess) => {
    await new Promise((resolve) => setTimeout(resolve, INTERRUPT_AFTER_MS));
    const [apply] = (await listProcesses()).filter(({ command }) =>
      command.includes("terraform apply") && command.includes(folder)
    );
    // Terraform leads a group of its own, in which its provider is too.
    for (const pid of [child.pid, -apply.pid]) Deno.kill(pid, "SIGKILL");
  };
  late.delayMs = DELAY_MS;
  await runTask(["deploy", "--yes"], asOnAws(remote), {
    folder,
    onStderr: (text, child) => {
      if (line.test(text)) killing ??= kill(child);
    },
  });
  late.delayMs = 0;
  assert.ok(killing, `never came to ${line}`);
  await killing;
}

/** Deploys with late answers from its apply on, and sends SIGINT soon after a line of stderr. */
async function interruptLate(remote: Remote, line: RegExp): Promise<string> {
  const { clone: folder, late } = remote;
  const { code, stderr } = await interruptTask(["deploy", "--yes"], asOnAws(remote), line, {
    folder,
    afterMs: INTERRUPT_AFTER_MS,
    onStderr: (text) => {
      if (/\$ terraform apply/.test(text)) late.delayMs = DELAY_MS;
    },
  });
  late.delayMs = 0;
  assert.equal(code, 130, stderr);
  return stderr;
}
