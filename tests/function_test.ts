/** The built zip's own files, in the runtime's own Node, against a stub that counts. */

import assert from "node:assert/strict";
import { PREFIX_BYTES } from "../handler.ts";
import { freePort } from "../tasks/stand_in.ts";
import { defaultMemoryMb, nodeOptions } from "./fixtures.ts";
import { builtFunction, eventOf, type FunctionProcess } from "./function_process.ts";
import { HUGE_BYTES, Stub } from "./stub.ts";

/** What is asked of every object. */
const RANGE = `bytes=0-${PREFIX_BYTES - 1}`;

/** With this, init ends soon only by a limit of its own. */
const PATIENT = { ATTEMPT_TIMEOUT_MS: "20000" };
const SOON_MS = 5000;

interface Setup {
  stub: Stub;
  start: Awaited<ReturnType<typeof builtFunction>>["start"];
  /** The runtime's own Node. */
  node: string;
}

Deno.test("the function wastes no call, connection, byte or start", async (t) => {
  await using resources = new AsyncDisposableStack();
  const { node, start } = await builtFunction(resources);
  for (const [name, step] of Object.entries(STEPS)) {
    await t.step(name, async () => {
      await using stub = await Stub.start();
      await step({ stub, start, node });
    });
  }
});

const STEPS: Record<string, (setup: Setup) => Promise<void>> = {
  "init opens one connection a service, which every event then uses": async ({ stub, start }) => {
    const lambda = await start(stub.server.url);
    assert.equal(lambda.init.error, undefined);
    assert.equal(stub.server.connections, 2);
    const warmUp = stub.requests.splice(0);
    assert.deepEqual(warmUp.map(({ operation }) => operation).sort(), ["GET", "PutItem"]);

    assert.equal((await lambda.invoke(eventOf("key"), { times: 200 })).error, undefined);
    assert.equal(stub.server.connections, 2);
    const calls = stub.requests.map(({ operation, headers, connection }) =>
      [operation, headers.range, connection].join(" ")
    );
    const [get, put] = ["GET", "PutItem"].map((operation) =>
      warmUp.find((request) => request.operation === operation)!.connection
    );
    const each = [`GET ${RANGE} ${get}`, `PutItem  ${put}`]; // two calls an object
    assert.deepEqual(calls, Array(200).fill(each).flat());
    assert.ok(stub.requests.every(({ headers }) => headers.authorization !== undefined));
  },

  "WARM_UP=off makes no connection before the first event": async ({ stub, start }) => {
    const lambda = await start(stub.server.url, { WARM_UP: "off" });
    assert.equal(lambda.init.error, undefined);
    assert.deepEqual([stub.server.connections, stub.requests.length], [0, 0]);
    assert.equal((await lambda.invoke(eventOf("key"))).error, undefined);
    assert.deepEqual([stub.server.connections, stub.requests.length], [2, 2]);
  },

  "init waits little for a silent server, and sends it no secret": async ({ stub, start }) => {
    stub.scripts.set("warm-up", { GET: [{ then: "silence" }] });
    stub.scripts.set("", { PutItem: [{ then: "silence" }] });
    const lambda = await start(stub.server.url, PATIENT);
    await assertInit(lambda);
    assert.equal(stub.requests.length, 2); // and no second try
    for (const { operation, headers, body } of stub.requests) {
      assert.equal(headers.authorization, undefined);
      assert.equal(headers["x-amz-security-token"], undefined);
      if (operation === "PutItem") assert.deepEqual(JSON.parse(body).Item, {}); // no table takes it
    }
  },

  "init survives a server that refuses, is silent or hangs up, and does not ask again": async (
    { start },
  ) => {
    using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 }); // it ends no handshake
    using closing = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    let closed = 0;
    (async () => {
      for await (const connection of closing) {
        closed++;
        connection.close();
      }
    })().catch(() => {});
    for (const port of [freePort(), silent.addr.port, closing.addr.port]) {
      await assertInit(await start(`https://127.0.0.1:${port}`, PATIENT));
    }
    assert.equal(closed, 2);
  },

  "memory stays as it is": async ({ stub, start }) => {
    // Compiled code is the only thing else that grows from event to event.
    const lambda = await start(stub.server.url, {}, [
      "--expose-gc",
      "--jitless",
      "--no-expose-wasm",
    ]);
    const [first, last] = [
      await lambda.invoke(eventOf("first"), { times: 200 }),
      await lambda.invoke(eventOf("last"), { times: 200 }),
    ];
    const kept = (last.heapMb! - first.heapMb!) * 1024 ** 2 / 200;
    assert.ok(kept < 100, `${kept} bytes are kept of each event`);
  },

  "the heap's limit is below the function's memory": async ({ node }) => {
    const args = ["-p", "v8.getHeapStatistics().heap_size_limit / 2 ** 20"];
    const env = { NODE_OPTIONS: await nodeOptions() };
    const { stdout } = await new Deno.Command(node, { args, env, clearEnv: true }).output();
    const limitMb = Number(new TextDecoder().decode(stdout));
    const memoryMb = await defaultMemoryMb();
    assert.ok(limitMb > 0.8 * memoryMb && limitMb < memoryMb, `${limitMb} of ${memoryMb} MB`);
  },

  "F39 F40 only the range is read of any object, in two calls": async ({ stub, start }) => {
    const lambda = await start(stub.server.url);
    for (const size of [1, PREFIX_BYTES - 1, PREFIX_BYTES, PREFIX_BYTES + 1, HUGE_BYTES]) {
      stub.sizes.set("key-0", size);
      stub.bytesSent = stub.requests.length = 0;
      assert.equal((await lambda.invoke(eventOf("key"))).error, undefined);
      const calls = stub.requests.map(({ operation, headers }) => [operation, headers.range]);
      assert.deepEqual(calls, [["GET", RANGE], ["PutItem", undefined]]);
      assert.equal(stub.bytesSent, Math.min(size, PREFIX_BYTES));
      assert.equal(JSON.parse(stub.requests[1].body).Item.file_size.N, String(size));
    }
    assert.equal(stub.server.connections, 2);
  },

  "F41 the body of a server that ignores the range is closed": async ({ stub, start }) => {
    const lambda = await start(stub.server.url);
    const endless = {
      status: 200,
      headers: { "content-length": HUGE_BYTES },
      body: new Uint8Array(65_536).fill(97),
      then: { repeatAfterMs: 0 },
    };
    stub.scripts.set("endless-0", { GET: [endless] });
    stub.bytesSent = 0;
    const whole = await lambda.invoke(eventOf("endless"));
    assert.equal(whole.error, undefined);
    assert.equal([...stub.rows.values()][0].file_size, HUGE_BYTES);
    const sent = stub.bytesSent;
    // The sockets' buffers hold some megabytes that nobody reads.
    assert.ok(sent < 25 * 1024 ** 2, `${sent} bytes were sent`);
    assert.equal((await lambda.invoke(eventOf("small"))).error, undefined);
    assert.equal(stub.bytesSent, sent + PREFIX_BYTES); // and no more of it came
  },
};

/** Init went well, ended soon, and left nothing that keeps the process alive. */
async function assertInit(lambda: FunctionProcess) {
  const { error, ms } = lambda.init;
  assert.equal(error, undefined);
  assert.ok(ms < SOON_MS, `${ms} ms`);
  assert.equal(await lambda.end(), 0);
}
