import assert from "node:assert/strict";
import { textOf } from "../function/preview.ts";
import { CASES } from "./texts.ts";

Deno.test("textOf() decides by type, encoding and bytes", async (t) => {
  for (const { name, bytes, options, text } of CASES) {
    await t.step(name, () => assert.equal(textOf(bytes, options), text));
  }
});

Deno.test("F42 textOf() leaves out a character that is cut at the end of the range", () => {
  const cut = new TextEncoder().encode("aé").slice(0, 2);
  for (const contentType of ["text/plain", undefined, "text/plain; charset=euc-kr"]) {
    assert.equal(textOf(cut, { contentType, isWhole: false }), "a");
  }
  assert.equal(textOf(cut, { contentType: "text/plain", isWhole: true }), "a\ufffd");
  assert.equal(textOf(cut, { isWhole: true }), undefined);
  const controlZ = new TextEncoder().encode("a\x1a"); // which ends a whole text only
  assert.equal(textOf(controlZ, { isWhole: false }), undefined);
});
