/** Emptying a bucket against a fake S3: what the stand-in cannot be made to answer. */

import assert from "node:assert/strict";
import { emptyBucket } from "../tasks/bucket.ts";
import { interrupted } from "../tasks/signals.ts";
import { fakeStack, fakeTime } from "./fixtures.ts";
import { awsError } from "./outside.ts";

Deno.test("emptyBucket() decodes keys and markers, and deletes odd keys by calls of their own", async () => {
  const { stack: { s3 }, calls } = fakeStack({
    ListObjectVersionsCommand: [
      {
        IsTruncated: true,
        NextKeyMarker: "a%2Bb%0D",
        NextVersionIdMarker: "2",
        Versions: [{ Key: "a+%25", VersionId: "1" }, { Key: "a%2Bb%0D", VersionId: "2" }],
      },
      { IsTruncated: false, DeleteMarkers: [{ Key: "100%25", VersionId: "3" }] },
    ],
  });
  assert.equal(await emptyBucket(s3, "b"), 3);
  assert.deepEqual(calls, [
    { name: "ListObjectVersionsCommand", input: listing({}) },
    { name: "DeleteObjectsCommand", input: deletion([{ Key: "a %", VersionId: "1" }]) },
    {
      name: "ListObjectVersionsCommand",
      input: listing({ KeyMarker: "a+b\r", VersionIdMarker: "2" }),
    },
    { name: "DeleteObjectCommand", input: { Bucket: "b", Key: "a+b\r", VersionId: "2" } },
    { name: "DeleteObjectsCommand", input: deletion([{ Key: "100%", VersionId: "3" }]) },
  ]);
});

Deno.test("emptyBucket() names what S3 refuses to delete", async () => {
  const keys = Array.from({ length: 9 }, (_, i) => `k${i}\u200b`);
  const { stack: { s3 } } = fakeStack({
    ListObjectVersionsCommand: [toPage([...keys, "\r"])],
    DeleteObjectsCommand: [{ Errors: keys.slice(2).map((Key) => ({ Key, Code: "AccessDenied" })) }],
    DeleteObjectCommand: () => awsError("AccessDenied"),
  });
  await assert.rejects(emptyBucket(s3, "b"), {
    name: "UserError",
    message: 'S3 refused to delete 8 versions from b: "k2\\u{200b}": AccessDenied; ' +
      '"k3\\u{200b}": AccessDenied; "k4\\u{200b}": AccessDenied; "k5\\u{200b}": AccessDenied; ' +
      '"k6\\u{200b}": AccessDenied; and 3 more. Take away what protects them, then run the same ' +
      "command again",
  });
});

Deno.test("emptyBucket() finds nothing in a deleted bucket, and stops at a signal", async () => {
  const { stack: { s3 } } = fakeStack({ ListObjectVersionsCommand: [awsError("NoSuchBucket")] });
  assert.equal(await emptyBucket(s3, "b"), 0);
  const signal = AbortSignal.abort(new Error("stop"));
  await assert.rejects(emptyBucket(s3, "b", { signal }), /stop/);
});

const BUSY = ["SlowDown", "InternalError", "ServiceUnavailable", "OperationAborted"];

Deno.test("emptyBucket() tries again, after pauses, what S3 was too busy for", async () => {
  const { time, pauses } = fakeTime();
  const held = new Set(Array.from({ length: 40 }, (_, i) => `k${i}`));
  const { stack: { s3 } } = fakeStack({
    ListObjectVersionsCommand: () => toPage([...held]),
    DeleteObjectsCommand: ({ Delete }) => {
      const [first, ...left]: { Key: string }[] = Delete.Objects;
      held.delete(first.Key);
      const Code = BUSY[held.size % BUSY.length];
      return { Errors: left.map((version) => ({ ...version, Code })) };
    },
  });
  const pausing = {
    ...time,
    pause: (ms: number, signal?: AbortSignal) => {
      assert.equal(signal?.aborted, false); // not the one of Ctrl-C: verify cleans up after it
      assert.notEqual(signal, interrupted);
      return time.pause(ms, signal);
    },
  };
  assert.equal(await emptyBucket(s3, "b", { time: pausing }), 40);
  assert.deepEqual(pauses, Array(39).fill(5000));
});

Deno.test("emptyBucket() gives up on a busy S3, and tells it from protection", async () => {
  const left = (Code: string) => ({ Errors: [{ Key: "a", VersionId: "1", Code }] });
  const busy = (why: string) =>
    `S3 is too busy to empty b (${why}): wait some minutes, then run the same command again`;
  const cases: [answer: (tries: number) => object, message: string, pauses: number][] = [
    [() => left("SlowDown"), busy("SlowDown"), 24], // two minutes
    [
      (tries) => left(tries < 3 ? "SlowDown" : "AccessDenied"),
      'S3 refused to delete 1 version from b: "a": AccessDenied. Take away what protects them, ' +
      "then run the same command again",
      2,
    ],
    // The SDK has tried these several times.
    [() => awsError("SlowDown"), busy("SlowDown"), 0],
    [() => awsError("E", 503), busy("E"), 0],
    [() => awsError("MalformedXML", 400), "no", 0],
  ];
  for (const [answer, message, expected] of cases) {
    const { time, pauses } = fakeTime();
    let tries = 0;
    const { stack: { s3 } } = fakeStack({
      ListObjectVersionsCommand: () => toPage(["a"]),
      DeleteObjectsCommand: () => answer(++tries),
    });
    await assert.rejects(emptyBucket(s3, "b", { time }), { message });
    assert.equal(pauses.length, expected, message);
  }
});

/** A listing of one version of each key. */
function toPage(keys: string[]) {
  return { Versions: keys.map((Key) => ({ Key: encodeURIComponent(Key), VersionId: "1" })) };
}

function listing(markers: Record<string, string>) {
  return { Bucket: "b", Prefix: undefined, MaxKeys: 1000, EncodingType: "url", ...markers };
}

function deletion(Objects: unknown[]) {
  return { Bucket: "b", Delete: { Objects, Quiet: true } };
}
