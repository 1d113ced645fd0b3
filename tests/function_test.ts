/** The built zip's own files, in the runtime's own Node, against a stub that counts. */

import assert from "node:assert/strict";

const permitted = ["read", "run", "net", "env", "sys", "write"].every((name) =>
  Deno.permissions.querySync({ name } as Deno.PermissionDescriptor).state === "granted"
);

Deno.test({
  name:
    "the function wastes no call, connection, byte or start (needs permissions: deno task test)",
  ignore: !permitted,
  fn: async (t) => {
    const { unzipSync } = await import("fflate");
    const { build } = await import("../tasks/build.ts");
    const { FunctionProcess, LARGE_BYTES, Stub, writeFunction } = await import(
      "./function_process.ts"
    );
    const { freePort } = await import("../tasks/stand_in.ts");
    const { makeTools } = await import("../tasks/tools.ts");
    const { node } = await makeTools();
    const parent = await Deno.makeTempDir();
    try {
      const { zip } = await build();
      const folder = await writeFunction(parent, "function", unzipSync(zip));
      type Options = { env?: Record<string, string>; flags?: string[] };
      const start = (endpoint: string, options: Options = {}) =>
        FunctionProcess.start(node, folder, endpoint, options);

      await t.step("init opens one connection a service, which every event then uses", async () => {
        await using stub = await Stub.start(parent);
        await using lambda = start(stub.url);
        assert.equal((await lambda.taken()).error, undefined);
        assert.equal(stub.connections, 2);
        const warmUp = stub.seen.splice(0).map(({ method, path, signed }) =>
          `${method} ${path}${signed ? " signed" : ""}`
        );
        assert.deepEqual(warmUp.sort(), ["GET /bucket/warm-up?x-id=GetObject", "POST /"]);

        assert.equal((await lambda.invoke({ key: "key", times: 200 })).error, undefined);
        assert.equal(stub.connections, 2);
        assert.equal(stub.seen.length, 400); // two calls an object
        assert.ok(stub.seen.every(({ signed }) => signed));
        const by = (wanted: string) =>
          new Set(
            stub.seen.filter(({ method }) => method === wanted).map(({ connection }) => connection),
          );
        assert.deepEqual([by("GET").size, by("POST").size], [1, 1]);
        assert.ok(
          stub.seen.every(({ method, range }) =>
            range === (method === "GET" ? "bytes=0-2047" : undefined)
          ),
        );
        assert.equal(stub.bytesWritten, 200 * 2048);
      });

      await t.step("nothing secret leaves during init", async () => {
        await using stub = await Stub.start(parent);
        stub.silent = true;
        await using lambda = start(stub.url);
        await lambda.taken();
        assert.equal(stub.seen.length, 2);
        assert.ok(stub.seen.every(({ signed, token }) => !signed && token === undefined));
        const put = stub.seen.find(({ method }) => method === "POST")!;
        assert.deepEqual(JSON.parse(put.body).Item, {}); // which no table takes
      });

      await t.step("WARM_UP=off makes no connection before the first event", async () => {
        await using stub = await Stub.start(parent);
        await using lambda = start(stub.url, { env: { WARM_UP: "off" } });
        assert.equal((await lambda.taken()).error, undefined);
        assert.deepEqual([stub.connections, stub.seen.length], [0, 0]);
        assert.equal((await lambda.invoke({ key: "key" })).error, undefined);
        assert.deepEqual([stub.connections, stub.seen.length], [2, 2]);
      });

      await t.step("init survives a refused connection", async () => {
        await using lambda = start(`https://127.0.0.1:${freePort()}`);
        assert.equal((await lambda.taken()).error, undefined);
        assert.equal(await lambda.end(), 0);
      });

      await t.step("init tries no connection again that is closed on it", async () => {
        let connections = 0;
        using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
        (async () => {
          for await (const connection of listener) {
            connections++;
            connection.close();
          }
        })().catch(() => {});
        await using lambda = start(`https://127.0.0.1:${listener.addr.port}`);
        assert.equal((await lambda.taken()).error, undefined);
        assert.equal(await lambda.end(), 0);
        assert.equal(connections, 2);
      });

      await t.step("init waits for a silent server far shorter than an event does", async () => {
        await using stub = await Stub.start(parent);
        stub.silent = true;
        await using lambda = start(stub.url);
        const init = await lambda.taken();
        assert.equal(init.error, undefined);
        assert.equal(stub.seen.length, 2); // and no second try
        const event = await lambda.invoke({ key: "key" });
        assert.match(event.error!, /TimeoutError|OutOfTimeError/);
        assert.ok(init.ms < event.ms / 4, `${init.ms} ms of init, ${event.ms} ms of the event`);
        assert.equal(await lambda.end(), 0);
      });

      await t.step("init waits as little for one that never ends its handshake", async () => {
        using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
        await using lambda = start(`https://127.0.0.1:${listener.addr.port}`);
        const init = await lambda.taken();
        assert.equal(init.error, undefined);
        const event = await lambda.invoke({ key: "key" });
        assert.ok(init.ms < event.ms / 4, `${init.ms} ms of init, ${event.ms} ms of the event`);
        assert.equal(await lambda.end(), 0);
      });

      await t.step("500 records of one event are done 32 at a time", async () => {
        await using stub = await Stub.start(parent);
        stub.delayMs = 20;
        await using lambda = start(stub.url);
        await lambda.taken();
        const one = await lambda.invoke({ key: "one" });
        stub.seen.length = 0;
        const all = await lambda.invoke({ key: "all", records: 500 });
        assert.equal(all.error, undefined);
        assert.equal(stub.seen.length, 1000);
        assert.equal(stub.mostAtOnce, 32);
        assert.equal(stub.connections <= 64, true);
        const ratio = all.ms / (500 * one.ms);
        assert.ok(ratio < 1 / 6, `${ratio} of the time that 500 events take`);
      });

      await t.step("memory stays as it is", async () => {
        await using stub = await Stub.start(parent);
        await using lambda = start(stub.url, { flags: ["--expose-gc"] });
        await lambda.taken();
        const first = await lambda.invoke({ key: "first", times: 300 });
        const last = await lambda.invoke({ key: "last", times: 1200 });
        // What is kept of each event would show: 1 KB of each is 1.2 MB.
        const grown = last.heapMb! / first.heapMb!;
        assert.ok(grown < 1.1, `${first.heapMb} MB became ${last.heapMb} MB`);
      });

      await t.step("of an object of 512 MB no more is read than of one of 4 KB", async () => {
        await using stub = await Stub.start(parent);
        await using lambda = start(stub.url);
        await lambda.taken();
        const read = async (key: string) => {
          stub.bytesWritten = stub.seen.length = 0;
          const taken = await lambda.invoke({ key, times: 50 });
          assert.equal(taken.error, undefined);
          const sizes = new Set(
            stub.seen.filter(({ target }) => target).map(({ body }) =>
              Number(JSON.parse(body).Item.file_size.N)
            ),
          );
          return { taken, bytes: stub.bytesWritten, calls: stub.seen.length, sizes: [...sizes] };
        };
        await read("warm");
        const small = await read("small");
        const large = await read("large");
        assert.deepEqual(small.sizes, [4096]);
        assert.deepEqual(large.sizes, [LARGE_BYTES]);
        assert.deepEqual([large.bytes, large.calls], [small.bytes, small.calls]);
        assert.ok(large.taken.peakMb < 1.15 * small.taken.peakMb, `${large.taken.peakMb} MB`);
        assert.equal(stub.connections, 2);
      });

      await t.step("the body of a server that ignores the range is closed", async () => {
        await using stub = await Stub.start(parent);
        await using lambda = start(stub.url);
        await lambda.taken();
        const before = await lambda.invoke({ key: "small", times: 50 });
        stub.bytesWritten = 0;
        const whole = await lambda.invoke({ key: "whole" });
        assert.equal(whole.error, undefined);
        const written = stub.bytesWritten;
        // The sockets' buffers hold some megabytes that nobody reads.
        assert.ok(written < LARGE_BYTES / 20, `${written} bytes were sent`);
        assert.equal((await lambda.invoke({ key: "small" })).error, undefined);
        assert.equal(stub.bytesWritten, written + 2048); // and no more of it came
        assert.ok(whole.peakMb < 1.3 * before.peakMb, `${before.peakMb} to ${whole.peakMb} MB`);
      });
    } finally {
      await Deno.remove(parent, { recursive: true });
    }
  },
});
