/**
 * Ctrl-C in the middle of an apply, with AWS's answers as late as they are from afar: what Terraform
 * left behind is taken in by the next deploy, and removed by destroy.
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import type { Found } from "../tasks/leftovers.ts";
import type { Clients } from "../tasks/target.ts";
import { permittedTest } from "./fixtures.ts";
import { interruptTask, runTask } from "./run_task.ts";

const ROOT = join(import.meta.dirname!, "..");
const WORKSPACE = "local-deno-task-test-leftovers";
const OPTIONS = ["--local", "--env", "deno-task-test-leftovers", "--yes"];
const RUNNING = join(ROOT, ".local", WORKSPACE, "running.json");

/** How late an answer is, and how long after a line on stderr Ctrl-C comes: the request is on its way. */
const DELAY_MS = 400;
const INTERRUPT_AFTER_MS = 300;

const MOMENTS: Record<string, (context: Interruption) => void | Promise<void>> = {
  "the stack's name is in the state before anything is in AWS": async (context) => {
    await context.interrupted("deploy", /terraform_data\.stack: Creation complete/);
    const { name, resources } = await stateNow();
    assert.match(name!, /^file-metadata-local-deno-task-test-leftovers-[0-9a-f]{10}$/);
    assert.deepEqual([resources, await context.aws.find(name!)], [[], []]);
  },
  "what is on its way at Ctrl-C is made, and the state lacks it": async (context) => {
    await context.interrupted("deploy", /aws_iam_role\.function: Creating/);
    context.left = await leftovers(context);
    assert.ok(context.left.length > 0, "this interruption left nothing behind");
  },
  "the next deploy imports it and goes on": async (context) => {
    const stderr = await context.interrupted("deploy", /aws_lambda_function\.metadata: Creating/);
    assertImported(stderr, context.left);
    assert.match(stderr, / to add, \d+ to change, 0 to destroy$/m);
    assert.doesNotMatch(stderr, /already ?exists|ResourceInUse|ResourceConflict/i);
    context.left = await leftovers(context);
  },
  "destroy removes what the state lacks, and proves it": async (context) => {
    const { aws, shell } = context;
    const { name } = await stateNow();
    // Without its log a stand-in is taken for ended: this one is asked once more after destroy.
    await Deno.remove(join(RUNNING, "..", "ministack.log"));
    const { code, stdout, stderr } = await runTask(["destroy", ...OPTIONS], shell);
    assert.equal(code, 0, stderr);
    assertImported(stderr, context.left);
    const [, gone, total] = stdout.match(/^(\d+) of (\d+) resources gone\n$/)!;
    assert.equal(gone, total);
    assert.deepEqual(await aws.find(name!), []);
  },
};

permittedTest("an interrupted apply is taken in, and destroyed whole", async (t) => {
  const shell = Deno.env.toObject(); // before the stand-in's environment replaces it
  const { enterStandIn, stopStandIn } = await import("../tasks/stand_in.ts");
  await stopStandIn(WORKSPACE); // of a run that was killed
  const standIn = await enterStandIn(WORKSPACE, "start");
  const running = JSON.parse(await Deno.readTextFile(RUNNING));
  using proxy = lateProxy(running.port);
  // The tasks go through the proxy.
  await Deno.writeTextFile(RUNNING, JSON.stringify({ ...running, port: proxy.port }));
  const aws = await openAws(standIn!.ca);
  const interrupted = (name: string, line: RegExp) => interruptLate(shell, proxy, name, line);
  const interruption = { shell, aws, interrupted, left: [] };
  try {
    for (const [name, step] of Object.entries(MOMENTS)) {
      await t.step(name, async () => await step(interruption));
    }
  } finally {
    await standIn!.leave();
    Deno.kill(-running.pid, "SIGKILL"); // its process group
    await stopStandIn(WORKSPACE);
  }
});

interface Interruption {
  shell: Record<string, string>;
  aws: Awaited<ReturnType<typeof openAws>>;
  /** Interrupts a task after a line on stderr; returns what it said. */
  interrupted(name: string, line: RegExp): Promise<string>;
  /** What the last interruption left. */
  left: Found[];
}

async function stateNow() {
  const { pullState } = await import("../tasks/terraform.ts");
  return await pullState(WORKSPACE);
}

/** What is in AWS and not in the state. */
async function leftovers({ aws }: Interruption): Promise<Found[]> {
  const { name, resources } = await stateNow();
  const known = resources.map(({ address }) => address);
  return (await aws.find(name!)).filter(({ address }) => !known.includes(address));
}

/** An id is not compared: that of a queue is its URL, and the tasks' one has the proxy's port. */
function assertImported(stderr: string, left: Found[]): void {
  const imports = stderr.split("\n").filter((line) => line.startsWith("$ terraform import "));
  for (const { address } of left) {
    assert.ok(imports.some((line) => line.includes(` ${address} `)), `${address}: ${stderr}`);
  }
}

/** Finds in the stand-in, as its root, whom no policy binds. */
async function openAws(ca: string): Promise<{ find(name: string): Promise<Found[]> }> {
  const { rootOf } = await import("../tasks/stand_in.ts");
  const { clientsOf } = await import("../tasks/target.ts");
  const { findNamed } = await import("../tasks/leftovers.ts");
  const { credentials, endpoint } = rootOf(Deno.env.get("AWS_ENDPOINT_URL")!, ca);
  const clients: Clients = clientsOf({ local: true, ca }, "us-east-1");
  for (const client of Object.values(clients)) {
    client.config.credentials = () => Promise.resolve(credentials);
  }
  assert.ok(endpoint);
  return { find: (name) => findNamed(clients, name) };
}

interface LateProxy extends Disposable {
  port: number;
  delayMs: number;
}

/** Passes connections on to a port of this machine, and what comes back after `delayMs`. */
function lateProxy(port: number): LateProxy {
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

/** Runs a task with late answers from its apply on, and sends SIGINT soon after a line of stderr. */
async function interruptLate(
  shell: Record<string, string>,
  proxy: LateProxy,
  name: string,
  line: RegExp,
): Promise<string> {
  const { code, stderr } = await interruptTask([name, ...OPTIONS], shell, line, {
    afterMs: INTERRUPT_AFTER_MS,
    onStderr: (text) => {
      if (/\$ terraform apply/.test(text)) proxy.delayMs = DELAY_MS;
    },
  });
  proxy.delayMs = 0;
  assert.equal(code, 130, stderr);
  return stderr;
}
