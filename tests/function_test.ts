/** The built zip's own files, in the runtime's own Node, against a stub that counts. */

import assert from "node:assert/strict";
import { unzipSync } from "fflate";
import { build } from "../tasks/build.ts";
import { freePort } from "../tasks/stand_in.ts";
import { makeTools } from "../tasks/tools.ts";
import { defaultMemoryMb, nodeOptions, toEvent } from "./fixtures.ts";
import { type Environment, FunctionProcess, writeFunction } from "./function_process.ts";
import { LARGE_BYTES, TlsStub } from "./tls_stub.ts";

interface Setup {
  /** Runs `work` with a fresh stub and the function in front of it. */
  withStub(work: (lambda: FunctionProcess, stub: TlsStub) => Promise<void>): Promise<void>;
  startStub(): Promise<TlsStub>;
  start(endpoint: string, env?: Environment, flags?: string[]): Promise<FunctionProcess>;
  freePort(): number;
  /** The runtime's own Node. */
  node: string;
}

Deno.test("the function wastes no call, connection, byte or start", async (t) => {
  const { node } = await makeTools();
  const parent = await Deno.makeTempDir();
  try {
    const { zip } = await build();
    const folder = await writeFunction(parent, "function", unzipSync(zip));
    const start = (endpoint: string, env: Environment = {}, flags: string[] = []) =>
      FunctionProcess.start(node, folder, { AWS_ENDPOINT_URL: endpoint, ...env }, flags);
    const startStub = () => TlsStub.start(parent);
    const withStub: Setup["withStub"] = async (work) => {
      await using stub = await startStub();
      await using lambda = await start(stub.url);
      assert.equal(lambda.init.error, undefined);
      stub.requests.length = 0;
      await work(lambda, stub);
    };
    for (const [name, step] of Object.entries(STEPS)) {
      await t.step(name, () => step({ start, startStub, withStub, freePort, node }));
    }
  } finally {
    await Deno.remove(parent, { recursive: true });
  }
});

const STEPS: Record<string, (setup: Setup) => Promise<void>> = {
  "init opens one connection a service, which every event then uses": async (setup) => {
    await using stub = await setup.startStub();
    await using lambda = await setup.start(stub.url);
    assert.equal(lambda.init.error, undefined);
    assert.equal(stub.connections, 2);
    const warmUp = stub.requests.splice(0).map(({ method, path, signed }) =>
      `${method} ${path}${signed ? " signed" : ""}`
    );
    assert.deepEqual(warmUp.sort(), ["GET /bucket/warm-up?x-id=GetObject", "POST /"]);

    assert.equal((await lambda.invoke(eventOf("key"), { times: 200 })).error, undefined);
    assert.equal(stub.connections, 2);
    assert.equal(stub.requests.length, 400); // two calls an object
    assert.ok(stub.requests.every(({ signed }) => signed));
    const connectionsOf = (wanted: string) =>
      new Set(
        stub.requests.filter(({ method }) => method === wanted).map(({ connection }) => connection),
      );
    assert.deepEqual([connectionsOf("GET").size, connectionsOf("POST").size], [1, 1]);
    assert.ok(
      stub.requests.every(({ method, range }) =>
        range === (method === "GET" ? "bytes=0-2047" : undefined)
      ),
    );
    assert.equal(stub.bytesWritten, 200 * 2048);
  },

  "nothing secret leaves during init": async (setup) => {
    await using stub = await setup.startStub();
    stub.silent = true;
    await using _lambda = await setup.start(stub.url);
    assert.equal(stub.requests.length, 2);
    assert.ok(stub.requests.every(({ signed, token }) => !signed && token === undefined));
    const put = stub.requests.find(({ method }) => method === "POST")!;
    assert.deepEqual(JSON.parse(put.body).Item, {}); // which no table takes
  },

  "WARM_UP=off makes no connection before the first event": async (setup) => {
    await using stub = await setup.startStub();
    await using lambda = await setup.start(stub.url, { WARM_UP: "off" });
    assert.equal(lambda.init.error, undefined);
    assert.deepEqual([stub.connections, stub.requests.length], [0, 0]);
    assert.equal((await lambda.invoke(eventOf("key"))).error, undefined);
    assert.deepEqual([stub.connections, stub.requests.length], [2, 2]);
  },

  "init survives a refused connection": async (setup) => {
    await using lambda = await setup.start(`https://127.0.0.1:${setup.freePort()}`);
    assert.equal(lambda.init.error, undefined);
    assert.equal(await lambda.end(), 0);
  },

  "init does not repeat a connection that is closed on it": async (setup) => {
    let connections = 0;
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    (async () => {
      for await (const connection of listener) {
        connections++;
        connection.close();
      }
    })().catch(() => {});
    await using lambda = await setup.start(`https://127.0.0.1:${listener.addr.port}`);
    assert.equal(lambda.init.error, undefined);
    assert.equal(await lambda.end(), 0);
    assert.equal(connections, 2);
  },

  "init waits for a silent server far shorter than an event does": async (setup) => {
    await using stub = await setup.startStub();
    stub.silent = true;
    await using lambda = await setup.start(stub.url);
    const { init } = lambda;
    assert.equal(init.error, undefined);
    assert.equal(stub.requests.length, 2); // and no second try
    const event = await lambda.invoke(eventOf("key"));
    assert.match(event.error!, /TimeoutError|OutOfTimeError/);
    assert.ok(init.ms < event.ms / 4, `${init.ms} ms of init, ${event.ms} ms of the event`);
    assert.equal(await lambda.end(), 0);
  },

  "init waits as little for one that never ends its handshake": async (setup) => {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    await using lambda = await setup.start(`https://127.0.0.1:${listener.addr.port}`);
    const { init } = lambda;
    assert.equal(init.error, undefined);
    const event = await lambda.invoke(eventOf("key"));
    assert.ok(init.ms < event.ms / 4, `${init.ms} ms of init, ${event.ms} ms of the event`);
    assert.equal(await lambda.end(), 0);
  },

  "500 records of one event are done side by side, 32 at most": (setup) =>
    setup.withStub(async (lambda, stub) => {
      stub.delayMs = 100; // much longer than what a busy machine adds
      const one = await lambda.invoke(eventOf("one"));
      stub.requests.length = 0;
      const all = await lambda.invoke(eventOf("all", 500));
      assert.equal(all.error, undefined);
      assert.equal(stub.requests.length, 1000);
      assert.ok(stub.mostAtOnce > 16 && stub.mostAtOnce <= 32, `${stub.mostAtOnce} at once`);
      assert.equal(stub.connections <= 64, true);
      const ratio = all.ms / (500 * one.ms);
      assert.ok(ratio < 1 / 6, `${ratio} of the time that 500 events take`);
    }),

  "F90 F94 a job's tasks are answered, each done in four calls": (setup) =>
    setup.withStub(async (lambda, stub) => {
      const task = { s3VersionId: null, s3Bucket: "bucket" };
      const { error, answer } = await lambda.invoke({
        invocationSchemaVersion: "2.0",
        invocationId: "i",
        job: { id: "j", userArguments: {} },
        tasks: [{ ...task, taskId: "1", s3Key: "old+a" }, { ...task, taskId: "2", s3Key: "%" }],
      });
      assert.equal(error, undefined);
      const { results, ...rest } = answer as { results: Record<string, string>[] };
      const [second, first] = results; // it waits for no call
      assert.deepEqual(rest, {
        invocationSchemaVersion: "2.0",
        treatMissingKeysAs: "TemporaryFailure",
        invocationId: "i",
      });
      assert.deepEqual(first, { taskId: "1", resultCode: "Succeeded", resultString: "written" });
      assert.deepEqual([second.taskId, second.resultCode], ["2", "PermanentFailure"]);
      const targets = stub.requests.map(({ target }) => target?.split(".")[1]);
      assert.deepEqual(targets, [undefined, "Query", "PutItem", "Query"]);
      const { Item, ConditionExpression } = JSON.parse(stub.requests[2].body);
      assert.deepEqual([Item.file_key.S, Item.timestamp.S], [
        "old a",
        "1970-01-01T00:00:00.000000Z",
      ]);
      assert.equal(ConditionExpression, "attribute_not_exists(file_key)");
    }),

  "memory stays as it is": async (setup) => {
    await using stub = await setup.startStub();
    await using lambda = await setup.start(stub.url, {}, ["--expose-gc"]);
    const first = await lambda.invoke(eventOf("first"), { times: 300 });
    const last = await lambda.invoke(eventOf("last"), { times: 1200 });
    // What is kept of each event would show: 1 KB of each is 1.2 MB.
    const grown = last.heapMb! / first.heapMb!;
    assert.ok(grown < 1.1, `${first.heapMb} MB became ${last.heapMb} MB`);
  },

  "the heap's limit is below the function's memory": async ({ node }) => {
    const args = ["-p", "v8.getHeapStatistics().heap_size_limit / 2 ** 20"];
    const heapMb = async (NODE_OPTIONS: string) => {
      const options = { args, env: { NODE_OPTIONS }, clearEnv: true };
      const { stdout } = await new Deno.Command(node, options).output();
      return Number(new TextDecoder().decode(stdout));
    };
    const memoryMb = await defaultMemoryMb();
    const limitMb = await heapMb(await nodeOptions());
    assert.ok(limitMb > 0.8 * memoryMb && limitMb < memoryMb, `${limitMb} of ${memoryMb} MB`);
  },

  "no more is read of an object of 512 MB than of one of 4 KB": (setup) =>
    setup.withStub(async (lambda, stub) => {
      const read = async (key: string) => {
        stub.bytesWritten = stub.requests.length = 0;
        const { error, peakMb } = await lambda.invoke(eventOf(key), { times: 50 });
        assert.equal(error, undefined);
        const sizes = stub.requests.filter(({ target }) => target)
          .map(({ body }) => Number(JSON.parse(body).Item.file_size.N));
        const { bytesWritten, requests } = stub;
        return { peakMb, bytesWritten, calls: requests.length, sizes: [...new Set(sizes)] };
      };
      await read("warm");
      const small = await read("small");
      const large = await read("large");
      assert.deepEqual(small.sizes, [4096]);
      assert.deepEqual(large.sizes, [LARGE_BYTES]);
      assert.deepEqual([large.bytesWritten, large.calls], [small.bytesWritten, small.calls]);
      assert.ok(large.peakMb < 1.15 * small.peakMb, `${large.peakMb} MB`);
      assert.equal(stub.connections, 2);
    }),

  "the body of a server that ignores the range is closed": (setup) =>
    setup.withStub(async (lambda, stub) => {
      const before = await lambda.invoke(eventOf("small"), { times: 50 });
      stub.bytesWritten = 0;
      const whole = await lambda.invoke(eventOf("whole"));
      assert.equal(whole.error, undefined);
      const written = stub.bytesWritten;
      // The sockets' buffers hold some megabytes that nobody reads.
      assert.ok(written < LARGE_BYTES / 20, `${written} bytes were sent`);
      assert.equal((await lambda.invoke(eventOf("small"))).error, undefined);
      assert.equal(stub.bytesWritten, written + 2048); // and no more of it came
      assert.ok(whole.peakMb < 1.3 * before.peakMb, `${before.peakMb} to ${whole.peakMb} MB`);
    }),
};

/** An event of so many objects; their names differ, also from one time to the next. */
function eventOf(name: string, records = 1) {
  const keys = Array.from({ length: records }, (_, i) => `${name}-{time}-${i}`);
  return toEvent("bucket", keys, 4096);
}
