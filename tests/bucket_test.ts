import assert from "node:assert/strict";
import { emptyBucket } from "../tasks/bucket.ts";
import { interrupted } from "../tasks/signals.ts";
import { fakeStack, fakeTime, named } from "./fixtures.ts";

Deno.test("emptyBucket() decodes keys and markers where the listing says so", async () => {
  const { stack: { s3 }, calls } = fakeStack({
    ListObjectVersionsCommand: [
      {
        EncodingType: "url",
        IsTruncated: true,
        NextKeyMarker: "a%2Bb%0D",
        NextVersionIdMarker: "2",
        Versions: [{ Key: "a+%25", VersionId: "1" }, { Key: "a%2Bb%0D", VersionId: "2" }],
      },
      { IsTruncated: false, DeleteMarkers: [{ Key: "100%25 +", VersionId: "3" }] },
    ],
    ListMultipartUploadsCommand: [
      { EncodingType: "url", Uploads: [{ Key: "u+p", UploadId: "4" }] },
    ],
  });
  assert.deepEqual(await emptyBucket(s3, "b"), { versions: 3, uploads: 1 });
  assert.deepEqual(calls.filter(({ name }) => name !== "ListMultipartUploadsCommand"), [
    { name: "AbortMultipartUploadCommand", input: { Bucket: "b", Key: "u p", UploadId: "4" } },
    { name: "ListObjectVersionsCommand", input: listing({}) },
    { name: "DeleteObjectsCommand", input: deletion([{ Key: "a %", VersionId: "1" }]) },
    {
      name: "ListObjectVersionsCommand",
      input: listing({ KeyMarker: "a+b\r", VersionIdMarker: "2" }),
    },
    // A batch could not carry the carriage return.
    { name: "DeleteObjectCommand", input: { Bucket: "b", Key: "a+b\r", VersionId: "2" } },
    // This listing does not say that it is encoded.
    { name: "DeleteObjectsCommand", input: deletion([{ Key: "100%25 +", VersionId: "3" }]) },
    { name: "ListObjectVersionsCommand", input: listing({}) }, // what came meanwhile
  ]);
});

Deno.test("emptyBucket() names the refusals inside a successful answer", async () => {
  const Versions = Array.from({ length: 9 }, (_, i) => ({ Key: `k${i}\u200b`, VersionId: "1" }));
  const { stack: { s3 }, calls } = fakeStack({
    ListObjectVersionsCommand: [{ Versions }],
    ListMultipartUploadsCommand: [{ Uploads: [{ Key: "u", UploadId: "1" }] }],
    DeleteObjectsCommand: [
      { Errors: Versions.slice(2).map(({ Key }) => ({ Key, Code: "AccessDenied" })) },
    ],
  });
  await assert.rejects(emptyBucket(s3, "b"), {
    name: "UserError",
    message: 'S3 refused to delete 7 versions from b: "k2\\u{200b}": AccessDenied; ' +
      '"k3\\u{200b}": AccessDenied; "k4\\u{200b}": AccessDenied; "k5\\u{200b}": AccessDenied; ' +
      '"k6\\u{200b}": AccessDenied; and 2 more. Take away what protects them, then run the same ' +
      "command again",
  });
  assert.ok(calls.some(({ name }) => name === "AbortMultipartUploadCommand")); // all else is done
  // Where a whole batch is denied, each version shows whether it is.
  const { stack: denying } = fakeStack({
    ListObjectVersionsCommand: [{ Versions: Versions.slice(0, 2) }],
    DeleteObjectsCommand: () => named("AccessDenied"),
    DeleteObjectCommand: ({ Key }) => Key === "k0\u200b" ? named("AccessDenied") : {},
  });
  const message = /^S3 refused to delete 1 version from b: "k0\\u\{200b\}": AccessDenied\. Take/;
  await assert.rejects(emptyBucket(denying.s3, "b"), { message });
});

Deno.test("emptyBucket() aborts uploads without a marker, and leaves one that ended", async () => {
  const uploads = new Set(["1", "2", "3", "4", "5"]);
  const { stack: { s3 } } = fakeStack({
    ListMultipartUploadsCommand: ({ UploadIdMarker }) => {
      assert.equal(UploadIdMarker, undefined);
      const page = [...uploads].slice(0, 2);
      return { Uploads: page.map((UploadId) => ({ Key: "k", UploadId })), IsTruncated: true };
    },
    AbortMultipartUploadCommand: ({ UploadId }) => {
      uploads.delete(String(UploadId));
      if (UploadId === "3") throw named("NoSuchUpload"); // it has just ended
      return {};
    },
  });
  assert.deepEqual(await emptyBucket(s3, "b"), { versions: 0, uploads: 4 });
  assert.equal(uploads.size, 0);
});

Deno.test("emptyBucket() deletes what comes meanwhile, until nothing comes", async () => {
  const arrivals = (count: number) => {
    let left = count;
    return () => left-- > 0 ? { Versions: [{ Key: `k${left}`, VersionId: "1" }] } : {};
  };
  const { stack: { s3 } } = fakeStack({ ListObjectVersionsCommand: arrivals(3) });
  assert.equal((await emptyBucket(s3, "b")).versions, 3);
  const { stack: busy } = fakeStack({ ListObjectVersionsCommand: arrivals(Infinity) });
  await assert.rejects(emptyBucket(busy.s3, "b"), {
    name: "UserError",
    message: /^b still held objects .* stop what uploads to it, then run the same command again$/,
  });
});

Deno.test("emptyBucket() finds nothing in a deleted bucket, and stops at a signal", async () => {
  const { stack: { s3 } } = fakeStack({ ListObjectVersionsCommand: [named("NoSuchBucket")] });
  assert.deepEqual(await emptyBucket(s3, "b"), { versions: 0, uploads: 0 });
  const { stack: refusing } = fakeStack({ ListObjectVersionsCommand: [named("AccessDenied")] });
  await assert.rejects(emptyBucket(refusing.s3, "b"), { name: "AccessDenied" });
  const signal = AbortSignal.abort(new Error("stop"));
  await assert.rejects(emptyBucket(s3, "b", { signal }), /stop/);
});

const BUSY = ["SlowDown", "InternalError", "ServiceUnavailable", "OperationAborted"];

/** Before they are 20 s each. */
const PAUSES = [1000, 2000, 4000, 8000, 16_000];

Deno.test("emptyBucket() tries again what S3 was too busy for, after longer pauses", async () => {
  const { time, pauses } = fakeTime();
  const held = new Set("abcdefghijkl");
  let tries = 0;
  const { stack: { s3 } } = fakeStack({
    ListObjectVersionsCommand: () => ({
      Versions: Array.from(held, (Key) => ({ Key, VersionId: "1" })),
    }),
    DeleteObjectsCommand: ({ Delete }) => {
      const [first, ...left]: { Key: string }[] = Delete.Objects;
      held.delete(first.Key);
      const Code = BUSY[tries++ % BUSY.length];
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
  assert.deepEqual(await emptyBucket(s3, "b", { time: pausing }), { versions: 12, uploads: 0 });
  assert.deepEqual([tries, pauses], [12, [...PAUSES, ...Array(6).fill(20_000)]]);
});

Deno.test("emptyBucket() gives up on a busy S3, and tells it from protection", async () => {
  const left = (Code: string) => ({ Errors: [{ Key: "a", VersionId: "1", Code }] });
  const busy = (why: string) =>
    `S3 is too busy to empty b (${why}): wait some minutes, then run the same command again`;
  const longest = [...PAUSES, ...Array(4).fill(20_000)];
  const cases: [answer: (tries: number) => object, message: string, pauses: number[]][] = [
    [() => left("SlowDown"), busy("SlowDown"), longest],
    [
      (tries) => left(tries < 3 ? "SlowDown" : "AccessDenied"),
      'S3 refused to delete 1 version from b: "a": AccessDenied. Take away what protects them, ' +
      "then run the same command again",
      [1000, 2000],
    ],
    // The SDK has tried these several times.
    [() => named("SlowDown"), busy("SlowDown"), []],
    [() => Object.assign(named("E"), { $metadata: { httpStatusCode: 503 } }), busy("E"), []],
    [() => named("MalformedXML"), "MalformedXML", []],
  ];
  for (const [answer, message, expected] of cases) {
    const { time, pauses } = fakeTime();
    let tries = 0;
    const { stack: { s3 } } = fakeStack({
      ListObjectVersionsCommand: () => ({ Versions: [{ Key: "a", VersionId: "1" }] }),
      DeleteObjectsCommand: () => answer(++tries),
    });
    await assert.rejects(emptyBucket(s3, "b", { time }), { message });
    assert.deepEqual(pauses, expected, message);
  }
});

function listing(markers: Record<string, string>) {
  return { Bucket: "b", Prefix: undefined, MaxKeys: 1000, EncodingType: "url", ...markers };
}

function deletion(Objects: unknown[]) {
  return { Bucket: "b", Delete: { Objects, Quiet: true } };
}
