/**
 * Steps of the end-to-end test: Ctrl-C in the middle of an apply, with AWS's answers as late as they
 * are from afar; and a backend of the user's own, which keeps the state in a bucket. Both in the other
 * clone, whose tasks act as on AWS, since a stand-in's own state stays on this machine.
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { CreateBucketCommand, ListObjectsV2Command } from "@aws-sdk/client-s3";
import { namesIn } from "../tasks/files.ts";
import { findNamed, type Found, lackingIn, NAMED } from "../tasks/leftovers.ts";
import { parseState } from "../tasks/terraform.ts";
import {
  type Deployed,
  KILLED_ENVIRONMENT,
  processesOf,
  RESOURCES,
  type Steps,
  taskIn,
  terraformIn,
  withoutAws,
} from "./pipeline_context.ts";
import { interruptTask } from "./run_task.ts";

/** How late an answer is, and how long after a line on stderr Ctrl-C comes: the request is on its way. */
const DELAY_MS = 400;
const INTERRUPT_AFTER_MS = 300;

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

/** Before destroy the state loses one, and most of the other, as if interrupted in its creation. */
const FORGOTTEN = "aws_cloudwatch_metric_alarm.failures_waiting";
const INCOMPLETE = "aws_cloudwatch_log_group.function";

/** Two interruptions; the deploy that goes on runs beside the next steps. */
export const INTERRUPTED: Steps<Deployed> = {
  "Ctrl-C in the middle of apply lets Terraform save its state": async (deployed) => {
    const { clone, root } = deployed;
    await root.s3.send(new CreateBucketCommand({ Bucket: BUCKET }));
    await Deno.writeTextFile(join(clone, "backend.tf"), BACKEND);
    // At once: the provider still waits for its first answer.
    const stderr = await interruptLate(deployed, /terraform_data\.stack: Creation complete/, 0);
    assert.equal(stderr.match(/Interrupt received/g)?.length, 1);
    assert.match(stderr, /deno task destroy --yes removes what is there$/m);
    assert.deepEqual(await processesOf(join(clone, "build")), []);
    // The name is in the state before anything is in AWS.
    const { name, resources } = await stateNow(deployed);
    assert.match(name!, /^file-metadata-dev-[0-9a-f]{10}$/);
    assert.deepEqual([resources, await findNamed(root, name!)], [[], []]);
  },

  "what is on its way at Ctrl-C is made, and the state lacks it": async (deployed) => {
    await interruptLate(deployed, /aws_iam_role\.function: Creating/);
    deployed.left = await leftovers(deployed);
    assert.ok(deployed.left.length > 0, "this interruption left nothing behind");
    deployed.otherDeploy = taskIn(deployed.clone, asOnAws(deployed), "deploy", "--yes");
    deployed.otherDeploy.catch(() => {}); // the step that awaits it tells
  },
};

export const OWN_BACKEND: Steps<Deployed> = {
  "deploy goes on where it was interrupted, its state in the user's own backend": async (
    deployed,
  ) => {
    const { code, stdout, stderr } = await deployed.otherDeploy!;
    assert.equal(code, 0, stderr);
    assertImported(stderr, deployed.left);
    assert.match(stderr, / to add, \d+ to change, 0 to destroy$/m);
    assert.doesNotMatch(stderr, /already ?exists|ResourceInUse|ResourceConflict/i);
    assert.match(stdout, /^environment = dev$/m);
    const list = new ListObjectsV2Command({ Bucket: BUCKET });
    const { Contents = [] } = await deployed.root.s3.send(list);
    assert.deepEqual(Contents.map(({ Key }) => Key), [KEY]); // and no lock
    const local = (await namesIn(deployed.clone)).filter((name) => name === "terraform.tfstate");
    assert.deepEqual(local, []);
  },

  "verify and status find it": async (deployed) => {
    const verify = await taskIn(deployed.clone, asOnAws(deployed), "verify");
    assert.equal(verify.code, 0, verify.stdout + verify.stderr);
    const status = await taskIn(deployed.clone, asOnAws(deployed), "status");
    assert.match(status.stdout, /^bucket +file-metadata-dev-\w+, calls the function$/m);
    // The stand-in forgets whose errors an alarm is about.
    assert.doesNotMatch(status.stdout, /^WRONG: (?!the alarm)/m);
    // A stand-in's state is never there.
    const local = await taskIn(deployed.clone, deployed.shell, "status", ...KILLED_ENVIRONMENT);
    assert.equal(local.code, 2);
    assert.match(local.stderr, /^Nothing is deployed on the stand-in in environment /m);
  },

  "destroy takes in what the state lacks, and proves that nothing is left": async (deployed) => {
    const { clone, root } = deployed;
    const { name } = await stateNow(deployed);
    await damageState(deployed);
    const optIn = 2; // of batch_backfill
    assert.equal((await findNamed(root, name!)).length, NAMED.length - optIn);
    const { code, stdout, stderr } = await taskIn(clone, asOnAws(deployed), "destroy", "--yes");
    assert.equal(code, 0, stderr);
    assertImported(stderr, [{ address: FORGOTTEN }, { address: INCOMPLETE }]);
    assert.equal(stdout, `${RESOURCES} of ${RESOURCES} resources gone\n`);
    assert.deepEqual(await findNamed(root, name!), []);
  },
};

async function stateNow(deployed: Deployed) {
  return parseState(await plainly(deployed, "state", "pull"));
}

/** Takes one resource out of the state, and leaves of another no more than an interruption does. */
async function damageState(deployed: Deployed): Promise<void> {
  await plainly(deployed, "state", "rm", FORGOTTEN);
  const state = JSON.parse(await plainly(deployed, "state", "pull"));
  state.serial++;
  const [type, name] = INCOMPLETE.split(".");
  for (const resource of state.resources) {
    if (resource.type !== type || resource.name !== name) continue;
    resource.instances[0].status = "tainted";
    resource.instances[0].attributes.arn = null;
  }
  const file = join(deployed.clone, "damaged.tfstate");
  await Deno.writeTextFile(file, JSON.stringify(state));
  await plainly(deployed, "state", "push", file);
}

/** Runs plain Terraform in the other clone, and returns its standard output. */
async function plainly(deployed: Deployed, ...args: string[]): Promise<string> {
  const env = { ...asOnAws(deployed), TF_WORKSPACE: "default" };
  const { code, stdout, stderr } = await terraformIn(deployed.clone, env, args);
  assert.equal(code, 0, stderr);
  return stdout;
}

/** What is in AWS and not in the state. */
async function leftovers(deployed: Deployed): Promise<Found[]> {
  const state = await stateNow(deployed);
  return lackingIn(state, await findNamed(deployed.root, state.name!));
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
function asOnAws({ shell, late }: Deployed): Record<string, string> {
  const names = ["AWS_CA_BUNDLE", "AWS_EC2_METADATA_SERVICE_ENDPOINT"];
  const ofStandIn = Object.fromEntries(names.map((name) => [name, Deno.env.get(name)!]));
  // A queue's URL has the port in it by which it was made.
  return { ...withoutAws(shell), ...ofStandIn, AWS_ENDPOINT_URL: `https://127.0.0.1:${late.port}` };
}

export interface LateProxy extends Disposable {
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

/** Deploys with late answers from its apply on, and sends SIGINT soon after a line of stderr. */
async function interruptLate(
  deployed: Deployed,
  line: RegExp,
  afterMs = INTERRUPT_AFTER_MS,
): Promise<string> {
  const { clone: folder, late } = deployed;
  const { code, stderr } = await interruptTask(["deploy", "--yes"], asOnAws(deployed), line, {
    folder,
    afterMs,
    onStderr: (text) => {
      if (/\$ terraform apply/.test(text)) late.delayMs = DELAY_MS;
    },
  });
  late.delayMs = 0;
  assert.equal(code, 130, stderr);
  return stderr;
}
