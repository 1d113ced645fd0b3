/**
 * Steps of the end-to-end test: Ctrl-C in the middle of an apply, with AWS's answers as late as they
 * are from afar. What Terraform left behind is taken in by the next deploy.
 */

import assert from "node:assert/strict";
import { findNamed, type Found } from "../tasks/leftovers.ts";
import { placesOf } from "../tasks/stand_in.ts";
import type { Clients } from "../tasks/target.ts";
import { pullState } from "../tasks/terraform.ts";
import {
  ENVIRONMENT,
  LONGEST_PROJECT,
  type Pipeline,
  processesOf,
  rootClients,
  type Steps,
  WORKSPACE,
} from "./pipeline_context.ts";
import { interruptTask } from "./run_task.ts";

/** How late an answer is, and how long after a line on stderr Ctrl-C comes: the request is on its way. */
const DELAY_MS = 400;
const INTERRUPT_AFTER_MS = 300;

const { running: RUNNING, certificate: CERTIFICATE } = placesOf(WORKSPACE);

/** Three interruptions; the next deploy goes on. */
export const INTERRUPTED: Steps<Pipeline> = {
  "Ctrl-C in the middle of apply, answers late": async ({ hostileShell }, t) => {
    const text = await Deno.readTextFile(RUNNING);
    const { port } = JSON.parse(text);
    using proxy = lateProxy(port);
    // The tasks go through the proxy.
    await Deno.writeTextFile(RUNNING, JSON.stringify({ ...JSON.parse(text), port: proxy.port }));
    const aws = rootClients(`https://127.0.0.1:${port}`, await Deno.readTextFile(CERTIFICATE));
    let left: Found[] = [];
    const interrupt = (line: RegExp) => interruptLate(hostileShell, proxy, line);
    try {
      await t.step("the stack's name is in the state before anything is in AWS", async () => {
        const stderr = await interrupt(/terraform_data\.stack: Creation complete/);
        assert.equal(stderr.match(/Interrupt received/g)?.length, 1);
        assert.match(
          stderr,
          /deno task destroy --local --env deno-task-test --yes removes what is there/,
        );
        assert.deepEqual(await processesOf(`${WORKSPACE}.tfplan`), []);
        const { name, resources } = await pullState(WORKSPACE);
        assert.match(name!, new RegExp(`^${LONGEST_PROJECT}-local-deno-task-test-[0-9a-f]{10}$`));
        assert.deepEqual([resources, await findNamed(aws, name!)], [[], []]);
      });
      await t.step("what is on its way is made, and the state lacks it", async () => {
        await interrupt(/aws_iam_role\.function: Creating/);
        left = await leftovers(aws);
        assert.ok(left.length > 0, "this interruption left nothing behind");
      });
      await t.step("the next deploy imports it and goes on, until Ctrl-C", async () => {
        const stderr = await interrupt(/aws_lambda_function\.metadata: Creating/);
        assertImported(stderr, left);
        assert.match(stderr, / to add, \d+ to change, 0 to destroy$/m);
        assert.doesNotMatch(stderr, /already ?exists|ResourceInUse|ResourceConflict/i);
      });
    } finally {
      await Deno.writeTextFile(RUNNING, text);
    }
  },
};

/** What is in AWS and not in the state. */
export async function leftovers(aws: Clients): Promise<Found[]> {
  const { name, resources } = await pullState(WORKSPACE);
  const known = resources.map(({ address }) => address);
  return (await findNamed(aws, name!)).filter(({ address }) => !known.includes(address));
}

/** An id is not compared: that of a queue is its URL, and the tasks' one has the proxy's port. */
export function assertImported(stderr: string, left: Pick<Found, "address">[]): void {
  const imports = stderr.split("\n").filter((line) => line.startsWith("$ terraform import "));
  for (const { address } of left) {
    assert.ok(imports.some((line) => line.includes(` ${address} `)), `${address}: ${stderr}`);
  }
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

/** Deploys with late answers from its apply on, and sends SIGINT soon after a line of stderr. */
async function interruptLate(
  shell: Record<string, string>,
  proxy: LateProxy,
  line: RegExp,
): Promise<string> {
  const words = ["deploy", ...ENVIRONMENT, "--yes"];
  const { code, stderr } = await interruptTask(words, shell, line, {
    afterMs: INTERRUPT_AFTER_MS,
    onStderr: (text) => {
      if (/\$ terraform apply/.test(text)) proxy.delayMs = DELAY_MS;
    },
  });
  proxy.delayMs = 0;
  assert.equal(code, 130, stderr);
  return stderr;
}
