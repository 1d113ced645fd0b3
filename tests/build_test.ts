import assert from "node:assert/strict";
import { builtinModules } from "node:module";
import * as esbuild from "esbuild";
import { unzipSync } from "fflate";
import { build, BUNDLE_OPTIONS, ENTRY, trimming, TRIMS } from "../tasks/build.ts";

interface Bundle {
  code: Uint8Array;
  zip: Uint8Array;
  /** What lambda.mjs is. */
  entry: string;
  /** The modules that the bundle imports at run time. */
  imports: string[];
  /** Bytes in the bundle of the modules whose paths match. */
  bytesOf(part: RegExp): number;
}

Deno.test("the bundle holds what the function needs, and no more", async (t) => {
  const { code, zip, metafile } = await build();
  const [output] = Object.values(metafile.outputs);
  const imports = output.imports.map(({ path }) => path);
  const bytesOf = (part: RegExp) =>
    Object.entries(output.inputs).filter(([path]) => part.test(path))
      .reduce((sum, [, { bytesInOutput }]) => sum + bytesInOutput, 0);
  for (const [name, check] of Object.entries(CHECKS)) {
    await t.step(name, () => check({ code, zip, entry: ENTRY, imports, bytesOf }));
  }
});

const CHECKS: Record<string, (bundle: Bundle) => void> = {
  "its size": ({ code, zip }) => {
    assert.ok(zip.length <= 100_000, `the zip has ${zip.length} bytes`);
    assert.ok(code.length <= 290_000, `the bundle has ${code.length} bytes`);
  },

  "no source of credentials or settings but the environment": ({ bytesOf }) => {
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
    assert.deepEqual(bytes, Object.keys(sources).map((name) => [name, 0]));
    const region = bytesOf(/getInstanceMetadataRegion\./);
    assert.ok(region < 100, `${region} bytes ask the instance for its region`);
    assert.ok(bytesOf(/credential-provider-env\//) > 0);
  },

  "of the clients' tables only what reading, putting, querying and deleting take": (
    { bytesOf },
  ) => {
    const s3 = bytesOf(/client-s3\/dist-es\/schemas\/schemas_0\.js$/);
    assert.ok(s3 > 1000 && s3 < 9000, `${s3} bytes`);
    const dynamo = bytesOf(/client-dynamodb\/dist-es\/schemas\/schemas_0\.js$/);
    assert.ok(dynamo > 1000 && dynamo < 3700, `${dynamo} bytes`);
    assert.equal(bytesOf(/client-(s3|dynamodb)\/dist-es\/models\/errors\.js$/), 0);
  },

  "nothing of streams of events, endpoint discovery and hashes of its own": ({ bytesOf }) => {
    const unused = /event-streams\/event|EventStreamSerde|mnemonist|obliterator/;
    assert.equal(bytesOf(unused), 0);
    const hashes = bytesOf(/\/(Sha256|Sha1|Md5)Js\.js$/);
    assert.ok(hashes < 100, `${hashes} bytes`);
  },

  "the packages' modules that can be shaken, nothing of CommonJS twice": ({ bytesOf }) => {
    assert.equal(bytesOf(/@(aws-sdk|smithy)\/[^/]+\/dist-cjs/), 0);
  },

  "nothing but Node's own modules is imported at run time": ({ imports }) => {
    const foreign = imports.filter((path) => !builtinModules.includes(path.replace("node:", "")));
    assert.deepEqual(foreign, []);
  },

  "no module of Node's is imported as an ES module but the one that requires": (bundle) => {
    const { code, entry } = bundle;
    const text = new TextDecoder().decode(code);
    // As a function's body, where a top-level import or export is a syntax error.
    assert.doesNotThrow(() => new Function("require", "module", "exports", text));
    assert.throws(() => new Function(entry), SyntaxError);
    assert.deepEqual(entry.match(/(?<=^import .* from ").*(?=";$)/gm), ["node:module"]);
  },

  "the zip is what Lambda loads, and the bundle": ({ code, zip, entry }) => {
    const files = unzipSync(zip);
    assert.deepEqual(Object.keys(files), ["lambda.mjs", "bundle.cjs"]);
    assert.equal(new TextDecoder().decode(files["lambda.mjs"]), entry);
    assert.deepEqual(files["bundle.cjs"], code);
  },
};

Deno.test("build() fails where the SDK has nothing to trim", async (t) => {
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
