/** What is in a bucket: listing it, and emptying it. */

import {
  type _Error as DeletionError,
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  ListMultipartUploadsCommand,
  ListObjectVersionsCommand,
  type ListObjectVersionsCommandOutput,
  type ObjectVersion,
  type S3Client,
} from "@aws-sdk/client-s3";
import { decodeKey } from "../handler.ts";
import { forEachParallel } from "../function/parallel.ts";
import { TIME, type Time } from "./signals.ts";
import { plural, UserError, visible } from "./terminal.ts";

/** The most objects that DeleteObjects takes, which is a listing's page too. */
export const PAGE_OBJECTS = 1000;

/** How often a bucket is emptied of what came meanwhile. */
const MOST_ROUNDS = 10;

/** Deleting calls at the same time. */
const PARALLEL_CALLS = 8;

/** Refusals that the error names. */
const NAMED_REFUSALS = 5;

/**
 * Errors after which the same call may work later. S3 takes 3,500 deletions a second below a prefix; it
 * names those that are too many inside a successful answer, so the SDK does not try them again.
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html
 */
const BUSY = [
  "InternalError",
  "OperationAborted",
  "RequestTimeout",
  "ServiceUnavailable",
  "SlowDown",
];

/** How often a page's versions are tried while S3 deletes none of them, and the pauses in between. */
const MOST_BUSY_TRIES = 10;
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 20_000;

/** A version or a delete marker, which has no ETag and no size. */
export type Version = Omit<ObjectVersion, "Key"> & { Key: string };

export interface Emptied {
  versions: number;
  uploads: number;
}

interface EmptyOptions {
  prefix?: string;
  /** Is told the number of versions and markers deleted so far. */
  progress?: (deleted: number) => void;
  /** Stops the work. */
  signal?: AbortSignal;
  time?: Time;
}

/** What one emptying has done, and what S3 refused, the first of it as sentences. */
interface Emptying extends Emptied {
  s3: S3Client;
  bucket: string;
  options: EmptyOptions;
  refused: number;
  refusals: string[];
}

/**
 * Deletes everything in a bucket, or below a prefix, and what is uploaded meanwhile. A bucket that
 * was deleted holds nothing.
 *
 * @throws {UserError} naming what S3 refuses to delete, when all else is deleted
 */
export async function emptyBucket(
  s3: S3Client,
  bucket: string,
  options: EmptyOptions = {},
): Promise<Emptied> {
  const work: Emptying = { s3, bucket, options, versions: 0, uploads: 0, refused: 0, refusals: [] };
  try {
    for (let round = 0; round < MOST_ROUNDS; round++) {
      const before = work.versions + work.uploads;
      await abortUploads(work); // first: one that ends becomes a version
      await deleteAll(work);
      throwRefusals(work);
      const { versions, uploads } = work;
      if (versions + uploads === before) return { versions, uploads };
    }
  } catch (error) {
    const { name, $metadata } = error as { name: string; $metadata?: { httpStatusCode?: number } };
    if (name === "NoSuchBucket") return { versions: work.versions, uploads: work.uploads };
    if (BUSY.includes(name) || ($metadata?.httpStatusCode ?? 0) >= 500) throw tooBusy(bucket, name);
    throw error;
  }
  throw new UserError(
    `${bucket} still held objects each of the ${MOST_ROUNDS} times that it was emptied: stop ` +
      "what uploads to it, then run the same command again",
  );
}

function tooBusy(bucket: string, why: string): UserError {
  return new UserError(
    `S3 is too busy to empty ${bucket} (${visible(why)}): wait some minutes, then run the same ` +
      "command again",
  );
}

function throwRefusals({ bucket, refused, refusals }: Emptying): void {
  if (refused === 0) return;
  const unnamed = refused - refusals.length;
  throw new UserError(
    `S3 refused to delete ${plural(refused, "version")} from ${bucket}: ${refusals.join("; ")}` +
      (unnamed > 0 ? `; and ${unnamed} more` : "") +
      ". Take away what protects them, then run the same command again",
  );
}

/** Aborts the unfinished uploads. One that ended meanwhile is done. */
async function abortUploads(work: Emptying): Promise<void> {
  const { s3, bucket: Bucket, options: { prefix: Prefix, signal: abortSignal } } = work;
  for (let before = -1; work.uploads > before;) {
    before = work.uploads;
    // The first page each time: S3 may refuse a page's marker once its upload is aborted.
    const command = new ListMultipartUploadsCommand({ Bucket, Prefix, EncodingType: "url" });
    const page = await s3.send(command, { abortSignal });
    const decode = decoderOf(page);
    await forEachParallel(page.Uploads ?? [], PARALLEL_CALLS, async ({ Key, UploadId }) => {
      const upload = { Bucket, Key: decode(Key), UploadId };
      try {
        await s3.send(new AbortMultipartUploadCommand(upload), { abortSignal });
        work.uploads++;
      } catch (error) {
        if ((error as Error).name !== "NoSuchUpload") throw error;
      }
    });
  }
}

async function deleteAll(work: Emptying): Promise<void> {
  const { s3, bucket, options: { prefix, progress, signal } } = work;
  await forEachParallel(listVersions(s3, bucket, prefix, signal), PARALLEL_CALLS, async (page) => {
    const refused = await deletePage(work, page);
    work.refused += refused.length;
    for (const { Key = "", Code } of refused.slice(0, NAMED_REFUSALS - work.refusals.length)) {
      work.refusals.push(`"${visible(Key)}": ${Code}`);
    }
    work.versions += page.length - refused.length;
    progress?.(work.versions);
  });
}

/** Deletes a listing's page, and answers what S3 refuses to delete. */
async function deletePage(work: Emptying, page: Version[]): Promise<DeletionError[]> {
  // The XML of a batch can't carry control characters: those keys go by calls of their own.
  const odd = page.filter(({ Key }) => isOdd(Key));
  const plain = page.filter(({ Key }) => !isOdd(Key));
  const refused = await deleteBatch(work, plain).catch((error) => {
    if (error.name !== "AccessDenied") throw error;
    odd.push(...plain); // one by one it shows what may not be deleted
    return [] as DeletionError[];
  });
  for (const version of odd) refused.push(...await deleteOne(work, version));
  return refused;
}

/**
 * Deletes versions by one call. Its successful answer names what S3 refuses, and what S3 is too busy
 * for: that is tried again after a pause, a longer one each time.
 */
async function deleteBatch(work: Emptying, versions: Version[]): Promise<DeletionError[]> {
  const { s3, bucket: Bucket, options: { signal, time = TIME } } = work;
  const never = new AbortController().signal; // what verify made is removed after Ctrl-C too
  const refused: DeletionError[] = [];
  let left: DeletionError[] = versions;
  let pauseMs = FIRST_PAUSE_MS;
  for (let tries = 1; left.length > 0; tries++) {
    const Objects = left.map(({ Key, VersionId }) => ({ Key, VersionId }));
    const command = new DeleteObjectsCommand({ Bucket, Delete: { Objects, Quiet: true } });
    const { Errors = [] } = await s3.send(command, { abortSignal: signal });
    refused.push(...Errors.filter(({ Code = "" }) => !BUSY.includes(Code)));
    const busy = Errors.filter(({ Code = "" }) => BUSY.includes(Code));
    if (busy.length === 0) break;
    if (busy.length < left.length) tries = 1;
    if (tries >= MOST_BUSY_TRIES) throw tooBusy(Bucket, busy[0].Code!);
    await time.pause(pauseMs, signal ?? never);
    pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
    left = busy;
  }
  return refused;
}

async function deleteOne(work: Emptying, { Key, VersionId }: Version): Promise<DeletionError[]> {
  const { s3, bucket: Bucket, options: { signal: abortSignal } } = work;
  try {
    await s3.send(new DeleteObjectCommand({ Bucket, Key, VersionId }), { abortSignal });
    return [];
  } catch (error) {
    const { name: Code } = error as Error;
    if (Code !== "AccessDenied") throw error;
    return [{ Key, Code }];
  }
}

/** Whether XML cannot carry a key. */
function isOdd(key: string): boolean {
  return /[\p{Cc}\ufffd-\uffff]/u.test(key);
}

/** Counts versions and markers, no further than `limit`. */
export async function countVersions(s3: S3Client, bucket: string, limit: number): Promise<number> {
  let count = 0;
  try {
    for await (const page of listVersions(s3, bucket)) {
      count += page.length;
      if (count >= limit) break;
    }
  } catch (error) {
    if ((error as Error).name !== "NoSuchBucket") throw error;
  }
  return count;
}

/** Every version and marker below a prefix, a page at a time, in the order of the keys. */
export async function* listVersions(
  s3: S3Client,
  bucket: string,
  prefix?: string,
  abortSignal?: AbortSignal,
): AsyncGenerator<Version[]> {
  let markers: { KeyMarker?: string; VersionIdMarker?: string } | undefined = {};
  while (markers !== undefined) {
    const page: ListObjectVersionsCommandOutput = await s3.send(
      new ListObjectVersionsCommand({
        Bucket: bucket,
        Prefix: prefix,
        MaxKeys: PAGE_OBJECTS,
        EncodingType: "url", // XML can't carry every character of a key
        ...markers,
      }),
      { abortSignal },
    );
    const decode = decoderOf(page);
    const versions = [...page.Versions ?? [], ...page.DeleteMarkers ?? []];
    if (versions.length > 0) {
      yield versions.map(({ Key, ...version }) => ({ ...version, Key: decode(Key)! }));
    }
    markers = page.IsTruncated
      ? { KeyMarker: decode(page.NextKeyMarker), VersionIdMarker: page.NextVersionIdMarker }
      : undefined;
  }
}

/** Keys and markers of a listing are form-encoded only where the answer says so. */
function decoderOf({ EncodingType }: { EncodingType?: string }) {
  return (key: string | undefined) => EncodingType === "url" && key ? decodeKey(key) : key;
}
