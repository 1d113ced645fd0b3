import assert from "node:assert/strict";
import { builtinModules } from "node:module";

const permitted = ["read", "run", "env", "sys"].every((name) =>
  Deno.permissions.querySync({ name } as Deno.PermissionDescriptor).state === "granted"
);

Deno.test({
  name: "the bundle holds what the function needs, and no more (needs permissions: deno task test)",
  ignore: !permitted,
  fn: async (t) => {
    const { build } = await import("./build.ts");
    const { code, zip, metafile } = await build();
    const [{ inputs, imports }] = Object.values(metafile.outputs);
    const bytesOf = (part: RegExp) =>
      Object.entries(inputs).filter(([path]) => part.test(path))
        .reduce((sum, [, { bytesInOutput }]) => sum + bytesInOutput, 0);

    await t.step("its size", () => {
      assert.ok(zip.length <= 106_000, `the zip has ${zip.length} bytes`);
      assert.ok(code.length <= 320_000, `the bundle has ${code.length} bytes`);
    });
    await t.step("no source of credentials but the environment", () => {
      const providers =
        /credential-provider-(?!env)|token-providers|client-sso|client-sts|nested-clients/;
      assert.equal(bytesOf(providers), 0);
      assert.ok(bytesOf(/credential-provider-env/) > 0);
    });
    await t.step("of S3's table only what reading takes", () => {
      const bytes = bytesOf(/client-s3\/dist-es\/schemas\/schemas_0\.js$/);
      assert.ok(bytes > 1000 && bytes < 12_000, `${bytes} bytes`);
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
  },
});
