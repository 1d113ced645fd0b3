import assert from "node:assert/strict";
import { S3Client } from "@aws-sdk/client-s3";
import { emptyBucket, listVersions } from "../tasks/bucket.ts";
import { interrupted } from "../tasks/signals.ts";
import { fakeStack, fakeTime } from "./fixtures.ts";

Deno.test(
  "emptyBucket() decodes keys and markers where the listing says so",
  async () => {
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
  },
);

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
});

Deno.test(
  "emptyBucket() lists the uploads before it aborts one, and what is gone is done",
  async () => {
    // As strict as S3 may be: a marker must be an upload that is there.
    const uploads = new Set(["1", "2", "3", "4", "5"]);
    const { stack: { s3 } } = fakeStack({
      ListMultipartUploadsCommand: ({ UploadIdMarker: marker }) => {
        if (marker && !uploads.has(String(marker))) throw named("InvalidArgument");
        const page = [...uploads].filter((id) => !marker || id > String(marker)).slice(0, 2);
        return {
          EncodingType: "url",
          Uploads: page.map((UploadId) => ({ Key: "k", UploadId })),
          IsTruncated: page.length === 2,
          NextKeyMarker: "k",
          NextUploadIdMarker: page.at(-1),
        };
      },
      AbortMultipartUploadCommand: ({ UploadId }) => {
        uploads.delete(String(UploadId));
        if (UploadId === "3") throw named("NoSuchUpload"); // it has just ended
        return {};
      },
    });
    assert.deepEqual(await emptyBucket(s3, "b"), { versions: 0, uploads: 4 });
    assert.equal(uploads.size, 0);
  },
);

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

Deno.test(
  "listVersions() ends where a lost key makes S3 list the same page for ever",
  async () => {
    const page = { IsTruncated: true, NextKeyMarker: "a\n", NextVersionIdMarker: "1" };
    const { stack: { s3 } } = fakeStack({ ListObjectVersionsCommand: () => page });
    await assert.rejects(Array.fromAsync(listVersions(s3, "b")), /the same page of b again/);
  },
);

Deno.test("emptyBucket() finds nothing in a bucket that is gone", async () => {
  const gone = Object.assign(new Error("gone"), { name: "NoSuchBucket" });
  const { stack: { s3 } } = fakeStack({ ListObjectVersionsCommand: [gone] });
  assert.deepEqual(await emptyBucket(s3, "b"), { versions: 0, uploads: 0 });
  const denied = Object.assign(new Error("no"), { name: "AccessDenied" });
  const { stack: refusing } = fakeStack({ ListObjectVersionsCommand: [denied] });
  await assert.rejects(emptyBucket(refusing.s3, "b"), { name: "AccessDenied" });
});

Deno.test("emptyBucket() has few batches under way, and stops at a signal", async () => {
  let underWay = 0;
  let most = 0;
  const pages = Array.from({ length: 40 }, (_, page) => ({
    IsTruncated: page < 39,
    NextKeyMarker: `${page}`,
    Versions: Array.from({ length: 1000 }, (_, i) => ({ Key: `${page}/${i}`, VersionId: "1" })),
  }));
  const slow = async () => {
    most = Math.max(most, ++underWay);
    await new Promise((resolve) => setTimeout(resolve, 2));
    underWay--;
    return {};
  };
  const { stack: { s3 } } = fakeStack({
    ListObjectVersionsCommand: [...pages],
    DeleteObjectsCommand: slow,
  });
  assert.equal((await emptyBucket(s3, "b")).versions, 40_000);
  assert.ok(most > 1 && most <= 8, `${most} batches at the same time`);

  const { stack: { s3: again } } = fakeStack({ ListObjectVersionsCommand: [...pages] });
  const signal = AbortSignal.abort(new Error("stop"));
  await assert.rejects(emptyBucket(again, "b", { signal }), /stop/);
});

Deno.test("emptyBucket() steps back while S3 is busy, and deletes all in the end", async () => {
  const { time, pauses } = fakeTime();
  const bucket = fakeBucket(20_000);
  let calls = 0;
  let waiting = false;
  const busy = ["SlowDown", "InternalError", "ServiceUnavailable"];
  const { stack: { s3 } } = fakeStack({
    ...bucket.answers,
    DeleteObjectsCommand: (input) => {
      assert.equal(waiting, false, "a call while S3 asked for a pause");
      const Code = busy[calls++ % busy.length];
      // A page of 1,000 leaves 100 of them, until few are left.
      return bucket.left() > 1000
        ? bucket.delete(input, { every: 10, Code })
        : bucket.delete(input);
    },
  });
  const pausing = {
    ...time,
    pause: async (ms: number, signal?: AbortSignal) => {
      assert.equal(signal?.aborted, false); // not the one of Ctrl-C: verify cleans up after it
      assert.notEqual(signal, interrupted);
      waiting = true;
      await time.pause(ms, signal);
      waiting = false;
    },
  };
  assert.deepEqual(await emptyBucket(s3, "b", { time: pausing }), { versions: 20_000, uploads: 0 });
  assert.equal(bucket.left(), 0);
  assert.deepEqual(pauses.slice(0, 3), [1000, 2000, 4000]);
});

Deno.test("emptyBucket() goes on where S3 breaks off a whole call", async () => {
  const { time, pauses } = fakeTime();
  const bucket = fakeBucket(3000);
  const errors = [
    named("SlowDown"),
    Object.assign(named("Odd"), { $metadata: { httpStatusCode: 503 } }),
  ];
  const { stack: { s3 } } = fakeStack({
    ...bucket.answers,
    DeleteObjectsCommand: (input) => errors.shift() ?? bucket.delete(input),
  });
  assert.equal((await emptyBucket(s3, "b", { time })).versions, 3000);
  assert.equal(pauses[0], 1000);
  const { stack: { s3: refusing } } = fakeStack({
    ...bucket.answers,
    DeleteObjectsCommand: () => named("MalformedXML"),
    ListObjectVersionsCommand: () => ({ Versions: [{ Key: "k", VersionId: "1" }] }),
  });
  await assert.rejects(emptyBucket(refusing, "b", { time }), { name: "MalformedXML" });
});

Deno.test("emptyBucket() gives up on a busy S3, and tells it from protection", async () => {
  const { time, pauses } = fakeTime();
  const busy = (Code: string) => ({
    ListObjectVersionsCommand: () => ({
      Versions: ["a", "b"].map((Key) => ({ Key, VersionId: "1" })),
    }),
    DeleteObjectsCommand: () => ({
      Errors: [{ Key: "a", Code: "SlowDown" }, { Key: "b", Code }],
    }),
  });
  const { stack } = fakeStack(busy("InternalError"));
  await assert.rejects(emptyBucket(stack.s3, "b", { time }), {
    name: "UserError",
    message:
      "S3 is too busy to empty b (SlowDown): wait some minutes, then run the same command again",
  });
  assert.deepEqual(pauses, [1000, 2000, 4000, 8000, 16_000, ...Array(4).fill(20_000), 20_000]);
  let round = 0;
  const { stack: mixed } = fakeStack({
    ListObjectVersionsCommand: () => ({ Versions: [{ Key: "b", VersionId: "1" }] }),
    DeleteObjectsCommand: () => ({
      Errors: [{ Key: "b", Code: ++round < 4 ? "SlowDown" : "AccessDenied" }],
    }),
  });
  await assert.rejects(emptyBucket(mixed.s3, "b", { time }), {
    message: /^S3 refused to delete 1 version from b: "b": AccessDenied\. Take away/,
  });
  const signal = AbortSignal.timeout(1);
  const { stack: { s3 } } = fakeStack(busy("SlowDown"));
  await assert.rejects(emptyBucket(s3, "b", { signal }), { name: "TimeoutError" });
});

Deno.test("emptyBucket() knows a busy S3 by its own words on the wire", async () => {
  const error = (code: string) => `<Error><Code>${code}</Code><Message>later</Message></Error>`;
  const inAnswer = "<DeleteResult><Error><Key>a b</Key><VersionId>1</VersionId>" +
    "<Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>" +
    "</DeleteResult>";
  const answers: [status: number, body: string][] = [
    [200, inAnswer],
    [200, error("InternalError")], // begun as a success, ended as a failure
    [503, error("SlowDown")],
    [200, "<DeleteResult/>"],
  ];
  let isGone = false;
  const deleted: string[] = [];
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    async (req) => {
      const { searchParams } = new URL(req.url);
      if (searchParams.has("uploads")) return new Response("<ListMultipartUploadsResult/>");
      if (req.method === "POST") {
        deleted.push(await req.text());
        const [status, body] = answers.shift()!;
        isGone = answers.length === 0;
        return new Response(body, { status });
      }
      const version = "<Version><Key>a+b</Key><VersionId>1</VersionId></Version>";
      const list = `<EncodingType>url</EncodingType>${isGone ? "" : version}`;
      return new Response(`<ListVersionsResult>${list}</ListVersionsResult>`);
    },
  );
  const s3 = new S3Client({
    region: "us-east-1",
    endpoint: `http://127.0.0.1:${server.addr.port}`,
    forcePathStyle: true,
    credentials: { accessKeyId: "a", secretAccessKey: "b" },
    maxAttempts: 1,
  });
  const { time, pauses } = fakeTime();
  assert.deepEqual(await emptyBucket(s3, "b", { time }), { versions: 1, uploads: 0 });
  assert.equal(deleted.length, 4);
  assert.ok(deleted.every((body) => body.includes("<Key>a b</Key><VersionId>1</VersionId>")));
  assert.deepEqual(pauses, [1000, 2000, 4000]);
  s3.destroy();
});

/** A bucket of versions, a thousand a page, that tells what it deletes and what it leaves. */
function fakeBucket(versions: number) {
  const held = new Set(Array.from({ length: versions }, (_, i) => String(i).padStart(7, "0")));
  return {
    left: () => held.size,
    answers: {
      ListObjectVersionsCommand: ({ KeyMarker = "" }: Record<string, unknown>) => {
        const page = [...held].filter((key) => key > String(KeyMarker)).slice(0, 1000);
        return {
          Versions: page.map((Key) => ({ Key, VersionId: "1" })),
          IsTruncated: page.length === 1000,
          NextKeyMarker: page.at(-1),
        };
      },
    },
    delete(
      { Delete }: Record<string, unknown>,
      { every, Code }: { every: number; Code?: string } = { every: Infinity },
    ) {
      const { Objects } = Delete as { Objects: { Key: string }[] };
      const left = Objects.filter((_, i) => (i + 1) % every === 0);
      for (const { Key } of Objects) if (!left.some((one) => one.Key === Key)) held.delete(Key);
      return { Errors: left.map(({ Key }) => ({ Key, VersionId: "1", Code })) };
    },
  };
}

function named(name: string): Error {
  return Object.assign(new Error(name), { name });
}

function listing(markers: Record<string, string>) {
  return { Bucket: "b", Prefix: undefined, MaxKeys: 1000, EncodingType: "url", ...markers };
}

function deletion(Objects: unknown[]) {
  return { Bucket: "b", Delete: { Objects, Quiet: true } };
}
