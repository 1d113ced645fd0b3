/** What is saved while dev runs: its loop on fakes, and its builder. */

import assert from "node:assert/strict";
import { join } from "node:path";
import * as esbuild from "esbuild";
import { unzipSync } from "fflate";
import { makeBuilder, typeErrors, watch } from "../dev/code.ts";
import { BrokenCodeError, Loop, type Workshop } from "../dev/loop.ts";
import { build } from "../tasks/build.ts";
import { temporaryFolder } from "../tasks/files.ts";
import { copyOfCode, pause, until } from "./fixtures.ts";
import { awsError } from "./outside.ts";

const refused = (error: Error) => () => Promise.reject(error);
const crashed = refused(new BrokenCodeError("handler.ts:3:4: Error: boom"));

/** Saves one after the other: what the loop finds, what it tells last, and what is so then. */
const SAVES: Record<string, [Outside, RegExp, Record<string, unknown>?][]> = {
  "what does not build changes nothing, and the next save runs": [
    [
      { source: "1", build: refused(new BrokenCodeError("handler.ts:1:2: no")) },
      /^broken handler\.ts:1:2: no$/,
      { running: "old", hasUpdated: false },
    ],
    [{ source: "1" }, /^running new code runs, 0\.\d s$/, { running: "1", hasUpdated: true }],
    [{ source: "1" }, /^running this folder's code runs$/, { updates: 1 }],
  ],
  "code that fails at its start is told, and again after a save without a change": [
    [{ source: "1", tryOut: crashed }, /^broken handler\.ts:3:4: Error: boom$/, { running: "1" }],
    [{ source: "1", tryOut: crashed }, /^broken handler\.ts:3:4: Error: boom$/, { updates: 1 }],
  ],
  "type errors are a warning, which a save without them takes back": [
    [
      { source: "1", check: () => Promise.resolve("TS1: no") },
      /^warning new code runs.*:\nTS1: no$/,
    ],
    [{ source: "2" }, /^running new code runs/],
  ],
  "a refused update is told, and the next save tries it again": [
    [
      { source: "1", update: refused(awsError("ResourceConflictException", 409, "busy")) },
      /^broken AWS refused: ResourceConflictException: busy$/,
      { running: "old", hasUpdated: true },
    ],
    [{ source: "1" }, /^running new code runs/, { running: "1" }],
  ],
};

Deno.test("the loop makes the last save run, one at a time", async (t) => {
  for (const [name, saves] of Object.entries(SAVES)) {
    await t.step(name, async () => {
      const { shop, loop } = makeLoop();
      for (const [outside, told, then = {}] of saves) {
        shop.outside = outside;
        await loop.save();
        assert.match(shop.told.at(-1)!, told);
        const now = { ...shop, hasUpdated: loop.hasUpdated };
        assert.deepEqual({ ...now, ...then }, now);
      }
    });
  }
  await t.step("edits in quick succession end with the last one", async () => {
    const { shop, loop } = makeLoop();
    for (const source of ["1", "2", "3"]) {
      shop.outside = { source };
      void loop.save();
      await pause(3);
    }
    await loop.save();
    assert.deepEqual([shop.running, loop.sha256, shop.most], ["3", "3", 1]);
    assert.match(shop.told.at(-1)!, /^running new code runs, 0\.\d s$/);
  });
  await t.step("a check or trial that never ends is broken off by the next save", async () => {
    const { shop, loop } = makeLoop();
    for (const [source, part] of [["1", "check"], ["2", "tryOut"], ["3", "check"]] as const) {
      let isHanging = false;
      const hang = (signal: AbortSignal) => {
        isHanging = true;
        return new Promise<never>((_, reject) => signal.addEventListener("abort", reject));
      };
      shop.outside = { source, [part]: hang };
      void loop.save();
      await until(() => shop.running === source && isHanging);
      assert.equal(shop.told.at(-1)!.startsWith("running"), part === "check");
    }
    await loop.end();
    assert.ok(!/broken|warning/.test(shop.told.join()), shop.told.join("; "));
  });
});

/** What a loop finds: the folder's code, and what a part of its workshop does at the end. */
type Outside = { source: string } & Partial<Workshop>;

/** A loop in a workshop of fakes, in which building and updating take their time. */
function makeLoop() {
  const shop = {
    outside: { source: "old" } as Outside,
    running: "old",
    updates: 0,
    /** Most that was built and updated at once. */
    most: 0,
    told: [] as string[],
  };
  let atOnce = 0;
  const work = async () => {
    shop.most = Math.max(shop.most, ++atOnce);
    await pause(10);
    atOnce--;
  };
  const workshop: Workshop = {
    async build() {
      const { source: sha256, build } = shop.outside;
      await work();
      return await build?.() ?? { zip: new Uint8Array(), sha256 };
    },
    async update(code) {
      await work();
      await shop.outside.update?.(code);
      shop.updates++;
      shop.running = code.sha256;
    },
    tryOut: async (signal) => await shop.outside.tryOut?.(signal),
    check: async (signal) => await shop.outside.check?.(signal) ?? "",
    tell: ({ state, text }) => void shop.told.push(`${state} ${text}`),
  };
  return { shop, loop: new Loop(workshop, "old") };
}

Deno.test("a folder's code is built, with the places of its errors", async (t) => {
  await using copy = await copyOfCode();
  const lambda = join(copy.path, "function", "lambda.ts");
  const source = await Deno.readTextFile(lambda);
  const { sha256 } = await build();
  const builder = await makeBuilder(copy.path);
  await t.step("what does not build names file and line", async () => {
    await Deno.writeTextFile(lambda, "export PREFIX\n" + source);
    await assert.rejects(builder.build(), {
      name: "BrokenCodeError",
      message: "It does not build, so nothing was changed.\nBuild failed with 1 error:\n" +
        'function/lambda.ts:1:7: ERROR: Unexpected "PREFIX"',
    });
  });
  await t.step("the same bytes as deploy's", async () => {
    await Deno.writeTextFile(lambda, source);
    assert.equal((await builder.build()).sha256, sha256);
  });
  await t.step("a failure at its start names file, line and column of the source", async () => {
    const failing = 'import { S3Client } from "@aws-sdk/client-s3";\n' +
      "new S3Client({ extensions: [{}] } as never); // a package throws\n";
    await Deno.writeTextFile(lambda, failing + source);
    const bundle = join(copy.path, "bundle.cjs");
    await Deno.writeFile(bundle, unzipSync((await builder.build()).zip)["bundle.cjs"]);
    const { stack } = await import(bundle).catch((error) => error);
    assert.equal(builder.placeOf({ trace: stack.split("\n") }), "function/lambda.ts:2:1: ");
    assert.equal(builder.placeOf({}), "");
  });
  await builder.dispose();
  await esbuild.stop();
});

Deno.test("type errors are told with their places, and why there was no check", async () => {
  await using folder = await temporaryFolder();
  const write = (file: string, text: string) => Deno.writeTextFile(join(folder.path, file), text);
  const check = () => typeErrors(folder.path, new AbortController().signal);
  await Deno.mkdir(join(folder.path, "function"));
  await write("deno.json", "{}");
  await write("function/lambda.ts", "\nconst a: string = 1;");
  assert.match(await check(), /^TS2322 .*Type 'number' is not.*\/function\/lambda\.ts:2:7$/ms);
  await write("function/lambda.ts", "const a: string = '1';");
  assert.equal(await check(), "");
  await write("deno.json", "no");
  assert.match(await check(), /deno\.json/);
});

Deno.test("each save is seen once, however the editor writes", async () => {
  await using copy = await copyOfCode();
  const handler = join(copy.path, "handler.ts");
  const preview = join(copy.path, "function", "preview.ts");
  const source = await Deno.readTextFile(handler);
  let saves = 0;
  using _watching = watch(copy.path, () => saves++);
  const save = async (write: () => Promise<void>) => {
    const before = saves;
    await write();
    await pause(500);
    return saves - before;
  };
  await pause(200); // the first look
  const replaced = async () => {
    await Deno.writeTextFile(handler + ".tmp", source);
    await Deno.rename(handler + ".tmp", handler);
  };
  const slowly = async () => {
    for (let part = 0; part < 20; part++) {
      await Deno.writeTextFile(handler, "// more\n", { append: true });
      await pause(30);
    }
  };
  assert.equal(await save(() => Deno.writeTextFile(handler, source)), 1);
  assert.equal(await save(replaced), 1);
  assert.equal(await save(() => Deno.utime(preview, new Date(0), new Date(0))), 1); // as git does
  assert.ok(await save(slowly) < 4, "half a file was taken for a save");
  assert.equal(await save(() => Deno.remove(preview)), 1);
  assert.equal(await save(() => Deno.writeTextFile(join(copy.path, "handler_test.ts"), "x")), 0);
  assert.equal(await save(() => Deno.writeTextFile(preview + ".swp", "x")), 0);
});
