import assert from "node:assert/strict";
import { builtinModules } from "node:module";
import { permittedTest } from "./fixtures.ts";

permittedTest("the bundle holds what the function needs, and no more", async (t) => {
  const { build, ENTRY } = await import("../tasks/build.ts");
  const { unzipSync } = await import("fflate");
  const { code, zip, metafile } = await build();
  const [{ inputs, imports }] = Object.values(metafile.outputs);
  const bytesOf = (part: RegExp) =>
    Object.entries(inputs).filter(([path]) => part.test(path))
      .reduce((sum, [, { bytesInOutput }]) => sum + bytesInOutput, 0);

  await t.step("its size", () => {
    assert.ok(zip.length <= 100_000, `the zip has ${zip.length} bytes`);
    assert.ok(code.length <= 290_000, `the bundle has ${code.length} bytes`);
  });
  await t.step("no source of credentials or settings but the environment", () => {
    const sources = {
      sso: /credential-provider-sso|token-providers|client-sso/,
      ini: /credential-provider-ini|shared-ini-file-loader\/(parseIni|getConfigData|readFile)\./,
      login: /credential-provider-login/,
      process: /credential-provider-process/,
      webIdentity: /credential-provider-web-identity|client-sts|nested-clients/,
      container: /credential-provider-http/,
      metadata: /credential-provider-imds/,
    };
    const bytes = Object.entries(sources).map(([name, part]) => [name, bytesOf(part)]);
    const none = Object.keys(sources).map((name) => [name, 0]);
    assert.deepEqual(Object.fromEntries(bytes), Object.fromEntries(none));
    const region = bytesOf(/getInstanceMetadataRegion\./);
    assert.ok(region < 100, `${region} bytes ask the instance for its region`);
    assert.ok(bytesOf(/credential-provider-env\//) > 0);
  });
  await t.step("of the clients' tables only what reading and putting take", () => {
    const s3 = bytesOf(/client-s3\/dist-es\/schemas\/schemas_0\.js$/);
    assert.ok(s3 > 1000 && s3 < 9000, `${s3} bytes`);
    const dynamo = bytesOf(/client-dynamodb\/dist-es\/schemas\/schemas_0\.js$/);
    assert.ok(dynamo > 1000 && dynamo < 3500, `${dynamo} bytes`);
    assert.equal(bytesOf(/client-(s3|dynamodb)\/dist-es\/models\/errors\.js$/), 0);
  });
  await t.step("nothing of streams of events, endpoint discovery and hashes of its own", () => {
    const unused = /event-streams\/event|EventStreamSerde|mnemonist|obliterator/;
    assert.equal(bytesOf(unused), 0);
    const hashes = bytesOf(/\/(Sha256|Sha1|Md5)Js\.js$/);
    assert.ok(hashes < 100, `${hashes} bytes`);
  });
  await t.step("the packages' modules that can be shaken, nothing of CommonJS twice", () => {
    assert.equal(bytesOf(/@(aws-sdk|smithy)\/[^/]+\/dist-cjs/), 0);
  });
  await t.step("nothing but Node's own modules is imported at run time", () => {
    const foreign = imports.filter(({ path }) =>
      !builtinModules.includes(path.replace("node:", ""))
    );
    assert.deepEqual(foreign, []);
  });
  await t.step(
    "no module of Node's is imported as an ES module but the one that requires",
    () => {
      const text = new TextDecoder().decode(code);
      // As a function's body, where a top-level import or export is a syntax error.
      assert.doesNotThrow(() => new Function("require", "module", "exports", text));
      assert.throws(() => new Function(ENTRY), SyntaxError);
      assert.deepEqual(ENTRY.match(/(?<=^import .* from ").*(?=";$)/gm), ["node:module"]);
    },
  );
  await t.step("the zip is what Lambda loads, and the bundle", () => {
    const files = unzipSync(zip);
    assert.deepEqual(Object.keys(files), ["lambda.mjs", "bundle.cjs"]);
    assert.equal(new TextDecoder().decode(files["lambda.mjs"]), ENTRY);
    assert.deepEqual(files["bundle.cjs"], code);
  });
});

permittedTest("build() fails where the SDK has nothing to trim", async (t) => {
  const esbuild = await import("esbuild");
  const { BUNDLE_OPTIONS, trimming, TRIMS } = await import("../tasks/build.ts");
  const buildWith = async (trims: typeof TRIMS) => {
    try {
      await esbuild.build({ ...BUNDLE_OPTIONS, plugins: [trimming(trims)] });
    } finally {
      await esbuild.stop();
    }
  };
  await t.step("a module is not there", async () => {
    const gone = { file: /no-such-module\.js$/, write: () => "" };
    await assert.rejects(
      buildWith([...TRIMS, gone]),
      /Nothing to trim in \/no-such-module\\\.js\$\//,
    );
  });
  await t.step("a module does not hold what is to be trimmed", async () => {
    const changed = TRIMS.map(({ file, write }) =>
      String(file).includes("client-s3") ? { file, write: () => undefined } : { file, write }
    );
    await assert.rejects(buildWith(changed), /Nothing to trim in .*client-s3.*schemas_0/);
  });
  for (const { file, write } of TRIMS) {
    if (!/schemas_0|package/.test(String(file))) continue; // the others are written whole
    await t.step(`${file} is written anew only if there is something to trim`, () => {
      assert.equal(write("{}"), undefined);
    });
  }
});
