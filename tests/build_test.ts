import assert from "node:assert/strict";
import { builtinModules } from "node:module";
import { unzipSync } from "fflate";
import { build, ENTRY } from "../tasks/build.ts";

/** What is in the bundle: modules by their paths, and the bytes that they are at least and at most. */
const MODULES: [what: string, path: RegExp, most: number, least?: number][] = [
  ["credentials in the environment", /credential-provider-env\//, 2000, 1],
  [
    "other sources of credentials",
    /credential-provider-(?!env)|token-providers|client-s(so|ts)|nested-clients/,
    0,
  ],
  ["settings in a file", /shared-ini-file-loader\/(parseIni|getConfigData|readFile)\./, 0],
  ["the instance's region", /getInstanceMetadataRegion\./, 100],
  // Of the clients' tables only what reading, putting, querying and deleting take.
  ["S3's shapes", /client-s3\/dist-es\/schemas\/schemas_0\.js$/, 9000, 1000],
  ["DynamoDB's shapes", /client-dynamodb\/dist-es\/schemas\/schemas_0\.js$/, 3700, 1000],
  ["errors' classes", /client-(s3|dynamodb)\/dist-es\/models\/errors\.js$/, 0],
  ["what npm tells of the clients", /client-(s3|dynamodb)\/package\.json$/, 100],
  ["signatures for many regions", /SignatureV4MultiRegion\.js$/, 100],
  ["streams of events", /event-streams\/event|EventStreamSerde/, 0],
  ["endpoint discovery", /mnemonist|obliterator/, 0],
  ["hashes of its own", /\/(Sha256|Sha1|Md5)Js\.js$/, 100],
  ["what can't be shaken", /@(aws-sdk|smithy)\/[^/]+\/dist-cjs/, 0],
];

Deno.test("the bundle holds what the function needs, and no more", async (t) => {
  const { code, zip, metafile } = await build();
  const [output] = Object.values(metafile.outputs);
  for (const [what, part, most, least = 0] of MODULES) {
    await t.step(what, () => {
      const found = Object.entries(output.inputs).filter(([path]) => part.test(path));
      const bytes = found.reduce((sum, [, { bytesInOutput }]) => sum + bytesInOutput, 0);
      assert.ok(bytes >= least && bytes <= most, `${bytes} bytes: ${JSON.stringify(found)}`);
    });
  }

  await t.step("its size", () => {
    assert.ok(zip.length <= 100_000, `the zip has ${zip.length} bytes`);
    assert.ok(code.length <= 290_000, `the bundle has ${code.length} bytes`);
  });

  await t.step("nothing but Node's own modules is imported at run time", () => {
    const imports = output.imports.map(({ path }) => path.replace("node:", ""));
    assert.deepEqual(imports.filter((path) => !builtinModules.includes(path)), []);
  });

  await t.step("no module of Node's is imported as an ES module but the one that requires", () => {
    const text = new TextDecoder().decode(code);
    // As a function's body, where a top-level import or export is a syntax error.
    assert.doesNotThrow(() => new Function("require", "module", "exports", text));
    assert.throws(() => new Function(ENTRY), SyntaxError);
    assert.deepEqual(ENTRY.match(/(?<=^import .* from ").*(?=";$)/gm), ["node:module"]);
  });

  await t.step("the zip is what Lambda loads, and the bundle", () => {
    const entry = new TextEncoder().encode(ENTRY);
    assert.deepEqual(unzipSync(zip), { "lambda.mjs": entry, "bundle.cjs": code });
    // The Unix mode of the first file, in the directory at the end: any user may read it.
    const view = new DataView(zip.buffer);
    const directory = view.getUint32(zip.length - 22 + 16, true);
    assert.equal(view.getUint32(directory + 38, true) >>> 16, 0o644);
  });
});
