/** The two lock files: what every task fetches, and what the tests fetch beside it. */

import assert from "node:assert/strict";
import { read } from "./fixtures.ts";

interface Lock {
  specifiers: Record<string, string>;
  npm: Record<string, { integrity: string }>;
}

Deno.test("deno.lock has what deno.json names, and nothing that only tests need", async () => {
  const { specifiers }: Lock = JSON.parse(await read("deno.lock"));
  const { imports } = JSON.parse(await read("deno.json"));
  assert.deepEqual(Object.keys(specifiers).sort(), Object.values(imports).sort());
});

Deno.test("the tests' lock file has the same packages, and more", async () => {
  const own: Lock = JSON.parse(await read("deno.lock"));
  const ofTests: Lock = JSON.parse(await read("tests/deno.lock"));
  for (const part of ["specifiers", "npm"] as const) {
    const same = Object.keys(own[part]).map((name) => [name, ofTests[part][name]]);
    assert.deepEqual(Object.fromEntries(same), own[part]);
  }
  assert.ok(Object.keys(ofTests.npm).length > Object.keys(own.npm).length);
});
