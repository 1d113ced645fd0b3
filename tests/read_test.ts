/** Reading the beginning of a body, and what S3's refusal says of a new stack's object. */

import assert from "node:assert/strict";
import { readPrefix } from "../function/read.ts";
import { handleEvent } from "../handler.ts";
import { awsError, event, fakes, record } from "./outside.ts";

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

/** The time at which the clock of {@link fakes} begins. */
const START_MS = Date.parse("2026-01-02T03:04:07.000Z");

const noKey = awsError("NoSuchKey", 404);
const noVersion = awsError("NoSuchVersion", 404);
const notFound = awsError("NotFound", 404);
const emptyNow = awsError("InvalidRange", 416);
const EARLY: [name: string, size: number, gets: Error[], heads: Error[], told: string][] = [
  ["GET: no such key", 9, [noKey], [], "NoSuchKey"],
  ["GET: no such version", 9, [noVersion], [], "NoSuchVersion"],
  ["HEAD: not found", 0, [], [notFound], "NotFound"],
  ["HEAD after GET: not found", 9, [emptyNow], [notFound], "NotFound"],
];

Deno.test("F57a handleEvent() throws a 404 until the stack is 15 minutes old", async (t) => {
  const handleAt = async (ageMs: number, size: number, gets: Error[], heads: Error[]) => {
    const { outside, calls } = fakes({ getErrors: [...gets], headErrors: [...heads] });
    outside.stackCreatedMs = START_MS - ageMs;
    const run = () => handleEvent(event(record({ size })), outside).then(() => "", String);
    return { error: await run(), run, ...calls };
  };
  for (const [name, size, gets, heads, told] of EARLY) {
    await t.step(name, async () => {
      const { error, run, rows } = await handleAt(60_000, size, gets, heads);
      assert.equal(
        error,
        'RecordsFailedError: 1 of 1 records failed: Cannot read "key" from "uploads": ' +
          `${told} (HTTP 404): until 2026-01-02T03:18:07.000Z, 15 minutes after the stack was ` +
          "made, S3 may answer so for an object that is there; run it again after that",
      );
      assert.equal(rows.length, 0);
      assert.equal(await run(), ""); // S3 knows it now
      assert.equal(rows[0].content_type, "text/plain");
    });
  }
  await t.step("the last second of it, and the first after it", async () => {
    const minutes15 = 15 * 60_000;
    const before = await handleAt(minutes15 - 1000, 9, [noKey], []);
    assert.match(before.error, /NoSuchKey/);
    const after = await handleAt(minutes15, 9, [noKey], []);
    assert.deepEqual([after.error, after.log[0].object], ["", "gone"]);
  });
  await t.step("a delete marker is a fact, and a missing bucket none, at any age", async () => {
    const marker = await handleAt(0, 9, [awsError("MethodNotAllowed", 405)], []);
    assert.deepEqual([marker.error, marker.log[0].object], ["", "gone"]);
    const { error } = await handleAt(0, 9, [awsError("NoSuchBucket", 404)], []);
    assert.match(error, /"uploads": NoSuchBucket: no \(HTTP 404\)$/);
  });
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
