import assert from "node:assert/strict";
import { forEachParallel } from "../function/parallel.ts";

Deno.test("forEachParallel() loses no failure, and begins nothing after one", async () => {
  for (const limit of [1, 2, 8]) {
    const begun: number[] = [];
    const work = async (item: number) => {
      begun.push(item);
      await Promise.resolve();
      if (item === 1) throw new Error("first");
    };
    await assert.rejects(forEachParallel(slowly([1, 2, 3, 4, 5]), limit, work), /^Error: first$/);
    assert.ok(begun.length <= 2, `${begun}`);
  }
});

Deno.test("forEachParallel() waits for what runs, also when the stream breaks", async () => {
  let ended = 0;
  const work = async () => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    ended++;
  };
  const items = slowly([1, 2], new Error("broken"));
  await assert.rejects(forEachParallel(items, 8, work), /^Error: broken$/);
  assert.equal(ended, 2);
});

Deno.test("forEachParallel() runs no more than the limit at the same time", async () => {
  let now = 0;
  let most = 0;
  await forEachParallel(Array.from({ length: 20 }), 3, async () => {
    most = Math.max(most, ++now);
    await new Promise((resolve) => setTimeout(resolve));
    now--;
  });
  assert.equal(most, 3);
});

async function* slowly(items: number[], end?: Error): AsyncGenerator<number> {
  for (const item of items) {
    yield item;
    await new Promise((resolve) => setTimeout(resolve));
  }
  if (end) throw end;
}
