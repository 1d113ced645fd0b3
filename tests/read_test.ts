/** Reading the beginning of a body. */

import assert from "node:assert/strict";
import { readPrefix } from "../function/read.ts";

Deno.test("F39 F41 readPrefix() reads up to its limit, and closes a body of which more would come", async (t) => {
  // By its chunks, of 8 bytes wanted: what is read, how many chunks are taken, and if it is closed.
  const cases: [
    chunks: string[],
    announced: number | undefined,
    bytes: string,
    taken: number,
    closed: boolean,
  ][] = [
    [["abc", "def", "ghi", "jkl"], undefined, "abcdefgh", 3, true],
    [["abc", "def", "ghi", "jkl"], 12, "abcdefgh", 3, true],
    [["abcdefgh", "i"], 9, "abcdefgh", 1, true],
    [["abcd", "efgh"], 8, "abcdefgh", 2, false],
    [["ab", "cd"], 4, "abcd", 2, false],
    [["abc"], undefined, "abc", 1, false],
    [[], 0, "", 0, false],
    [[], undefined, "", 0, false],
  ];
  for (const [chunks, announced, bytes, taken, closed] of cases) {
    await t.step(`${chunks.join(" ")} of ${announced}`, async () => {
      const given = body(...chunks);
      assert.deepEqual(await readPrefix(given, announced, 8), new TextEncoder().encode(bytes));
      assert.deepEqual([given.taken, given.ended], [taken, closed ? "closed" : "read"]);
    });
  }
});

Deno.test("F64 readPrefix() never gives less than was announced", async (t) => {
  const cases: [chunks: (string | Error)[], announced: number | undefined, message: string][] = [
    [["abc"], 4, "the body ended after 3 of 4 bytes"],
    [[], 1, "the body ended after 0 of 1 bytes"],
    [["abc"], 2000, "the body ended after 3 of 8 bytes"],
    [["abc", new Error("aborted")], 2000, "the body broke after 3 bytes"],
    [["abc", new Error("aborted")], undefined, "the body broke after 3 bytes"],
  ];
  for (const [chunks, announced, message] of cases) {
    await t.step(`${message} of ${announced}`, async () => {
      const cause = chunks.find((chunk) => chunk instanceof Error);
      const error = await readPrefix(body(...chunks), announced, 8).catch((error) => error);
      assert.deepEqual([error.name, error.message, error.cause], [
        "BrokenBodyError",
        message,
        cause,
      ]);
    });
  }
});

/** A body that tells how many of its chunks were taken and how it ended. */
function body(...chunks: (string | Error)[]) {
  const given = {
    taken: 0,
    ended: "open",
    async *[Symbol.asyncIterator]() {
      given.ended = "closed"; // unless it comes to its end
      for (const chunk of chunks) {
        if (chunk instanceof Error) throw chunk;
        given.taken++;
        yield await Promise.resolve(new TextEncoder().encode(chunk));
      }
      given.ended = "read";
    },
  };
  return given;
}
