/** What is in a bucket: listing it, and emptying it. */

import {
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  ListMultipartUploadsCommand,
  type ListMultipartUploadsCommandOutput,
  ListObjectVersionsCommand,
  type ListObjectVersionsCommandOutput,
  type S3Client,
} from "@aws-sdk/client-s3";
import { decodeKey } from "../handler.ts";
import { forEachParallel } from "../function/parallel.ts";
import { TIME, type Time } from "./signals.ts";
import { plural, UserError, visible } from "./terminal.ts";

/** The most objects that DeleteObjects takes, which is a listing's page too. */
export const PAGE_OBJECTS = 1000;

/** Uploads that are listed before they are aborted. */
const LISTED_UPLOADS = 10_000;

/** How often a bucket is emptied of what came meanwhile. */
const MOST_ROUNDS = 10;
const MOST_BUSY_ROUNDS = 100;

/** Deleting calls at the same time. */
const PARALLEL_CALLS = 8;

/** Refusals that the error names. */
const NAMED_REFUSALS = 5;

/**
 * S3 says so where the same call works later. It takes 3,500 deletions a second below a prefix, and
 * tells what is too much by a version, inside a successful answer.
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html
 */
const BUSY = [
  "InternalError",
  "OperationAborted",
  "RequestTimeout",
  "ServiceUnavailable",
  "SlowDown",
];

/** How long deleting pauses when S3 is busy: at first, and at most. */
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 20_000;

/** A version or a delete marker, which has no tag and no size. */
export interface Version {
  Key: string;
  VersionId?: string;
  IsLatest?: boolean;
  ETag?: string;
  Size?: number;
  LastModified?: Date;
}

interface UnfinishedUpload {
  Key: string;
  UploadId: string;
}

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

/** What one emptying has done, and how its calls keep out of S3's way. */
interface Emptying extends Emptied {
  s3: S3Client;
  bucket: string;
  options: EmptyOptions;
  /** What S3 refused, the first of them as sentences. */
  refused: { count: number; named: string[] };
  /** Why S3 was too busy for some of it in this round. */
  busy?: string;
  /** All calls wait for this, then go on. */
  pausing?: Promise<void>;
  pauseMs: number;
}

/**
 * Deletes everything in a bucket, or below a prefix, and what is uploaded meanwhile; a bucket that is
 * gone has nothing. What S3 is too busy for is deleted in the next round, after a pause.
 *
 * @throws {UserError} naming what S3 refuses to delete, when all else is deleted
 */
export async function emptyBucket(
  s3: S3Client,
  bucket: string,
  options: EmptyOptions = {},
): Promise<Emptied> {
  const refused = { count: 0, named: [] };
  const work: Emptying = { s3, bucket, options, versions: 0, uploads: 0, refused, pauseMs: 0 };
  const doneSoFar = () => work.versions + work.uploads;
  for (let all = 0, rounds = 0; rounds < MOST_ROUNDS && all < MOST_BUSY_ROUNDS; all++) {
    const before = doneSoFar();
    const isGone = await emptyOnce(work) === "gone";
    const helped = doneSoFar() > before;
    if (work.busy === undefined) throwRefusals(work);
    if (isGone || (work.busy === undefined && !helped)) {
      return { versions: work.versions, uploads: work.uploads };
    }
    if (work.busy === undefined || !helped) rounds++; // a busy S3 needs more rounds
  }
  throw notEmpty(work);
}

/** One round over all that is there, as far as S3 is not too busy. */
async function emptyOnce(work: Emptying): Promise<"gone" | void> {
  work.busy = undefined;
  work.refused = { count: 0, named: [] };
  try {
    await abortUploads(work); // first: one that ends becomes a version
    await deleteAll(work);
  } catch (error) {
    const { name, $metadata } = error as { name: string; $metadata?: { httpStatusCode?: number } };
    if (name === "NoSuchBucket") return "gone";
    if (!BUSY.includes(name) && ($metadata?.httpStatusCode ?? 0) < 500) throw error;
    stepBack(work, name);
  }
}

function notEmpty({ bucket, busy }: Emptying): UserError {
  const again = "then run the same command again";
  return new UserError(
    busy === undefined
      ? `${bucket} still held objects each of the ${MOST_ROUNDS} times that it was emptied: stop what ` +
        `uploads to it, ${again}`
      : `S3 is too busy to empty ${bucket} (${visible(busy)}): wait some minutes, ${again}`,
  );
}

async function deleteAll(work: Emptying): Promise<void> {
  const { s3, bucket, options: { prefix, progress, signal } } = work;
  await forEachParallel(listVersions(s3, bucket, prefix, signal), PARALLEL_CALLS, async (page) => {
    if (work.pausing) await work.pausing;
    const deleted = await deleteVersions(work, page);
    work.versions += deleted;
    progress?.(work.versions);
  });
}

/** All calls pause, twice as long as the last time; those under way come back with the same answer. */
function stepBack(work: Emptying, why: string): void {
  const { options: { time = TIME, signal } } = work;
  work.busy ??= why;
  if (work.pausing !== undefined) return;
  work.pauseMs = Math.min(Math.max(FIRST_PAUSE_MS, work.pauseMs * 2), LONGEST_PAUSE_MS);
  const never = new AbortController().signal; // what verify made is removed after Ctrl-C too
  work.pausing = time.pause(work.pauseMs, signal ?? never)
    .finally(() => work.pausing = undefined);
  work.pausing.catch(() => {}); // it is thrown where a call waits for it
}

function throwRefusals({ bucket, refused: { count, named } }: Emptying): void {
  if (count === 0) return;
  const unnamed = count - named.length;
  throw new UserError(
    `S3 refused to delete ${plural(count, "version")} from ${bucket}: ${named.join("; ")}` +
      (unnamed > 0 ? `; and ${unnamed} more` : "") +
      ". Take away what protects them, then run the same command again",
  );
}

/**
 * Aborts the unfinished uploads. They are listed first: S3 may refuse the marker of a page whose
 * upload is gone. One that ended meanwhile is done.
 */
async function abortUploads(work: Emptying): Promise<void> {
  const { s3, bucket, options: { prefix, signal: abortSignal } } = work;
  await work.pausing;
  for (let isLast = false; !isLast;) {
    const uploads: UnfinishedUpload[] = [];
    for await (const upload of listUploads(s3, bucket, prefix, abortSignal)) {
      uploads.push(upload);
      if (uploads.length >= LISTED_UPLOADS) break;
    }
    const before = work.uploads;
    await forEachParallel(uploads, PARALLEL_CALLS, async ({ Key, UploadId }) => {
      const command = new AbortMultipartUploadCommand({ Bucket: bucket, Key, UploadId });
      try {
        await s3.send(command, { abortSignal });
        work.uploads++;
      } catch (error) {
        if ((error as Error).name !== "NoSuchUpload") throw error;
      }
    });
    isLast = uploads.length < LISTED_UPLOADS || work.uploads === before;
  }
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
  let next: { KeyMarker?: string; VersionIdMarker?: string } | undefined = {};
  while (next !== undefined) {
    const page: ListObjectVersionsCommandOutput = await s3.send(
      new ListObjectVersionsCommand({
        Bucket: bucket,
        Prefix: prefix,
        MaxKeys: PAGE_OBJECTS,
        EncodingType: "url", // XML can't carry every character of a key
        ...next,
      }),
      { abortSignal },
    );
    const decode = decoderOf(page);
    const versions = [...page.Versions ?? [], ...page.DeleteMarkers ?? []];
    if (versions.length > 0) {
      yield versions.map(({ Key, ...version }) => ({ ...version, Key: decode(Key)! }));
    }
    const last: typeof next = next;
    next = page.IsTruncated
      ? { KeyMarker: decode(page.NextKeyMarker), VersionIdMarker: page.NextVersionIdMarker }
      : undefined;
    if (
      next && next.KeyMarker === last.KeyMarker && next.VersionIdMarker === last.VersionIdMarker
    ) {
      throw new UserError(`S3 lists the same page of ${bucket} again and again: it lost its key`);
    }
  }
}

async function* listUploads(
  s3: S3Client,
  bucket: string,
  prefix?: string,
  abortSignal?: AbortSignal,
): AsyncGenerator<UnfinishedUpload> {
  let next: { KeyMarker?: string; UploadIdMarker?: string } | undefined = {};
  while (next !== undefined) {
    const page: ListMultipartUploadsCommandOutput = await s3.send(
      new ListMultipartUploadsCommand({
        Bucket: bucket,
        Prefix: prefix,
        EncodingType: "url",
        ...next,
      }),
      { abortSignal },
    );
    const decode = decoderOf(page);
    for (const { Key, UploadId = "" } of page.Uploads ?? []) yield { Key: decode(Key)!, UploadId };
    next = page.IsTruncated
      ? { KeyMarker: decode(page.NextKeyMarker), UploadIdMarker: page.NextUploadIdMarker }
      : undefined;
  }
}

/** Keys and markers of a listing are form-encoded only where the answer says so. */
function decoderOf({ EncodingType }: { EncodingType?: string }) {
  return (key: string | undefined) => EncodingType === "url" && key ? decodeKey(key) : key;
}

/** Deletes versions, and answers how many are gone. */
async function deleteVersions(work: Emptying, batch: Version[]): Promise<number> {
  // The XML of a batch can't carry control characters: those keys go by calls of their own.
  const odd = batch.filter(({ Key }) => isOdd(Key));
  const plain = batch.filter(({ Key }) => !isOdd(Key));
  let deleted = 0;
  if (plain.length > 0) {
    const left = await deleteBatch(work, plain);
    if (left === "denied") odd.push(...plain); // one by one it shows what may not be deleted
    else deleted += plain.length - left;
    if (left === 0 && work.pausing === undefined) work.pauseMs /= 2;
  }
  for (const version of odd) if (await deleteOne(work, version)) deleted++;
  return deleted;
}

/** Deletes by one call, in whose successful answer is what it left; tells how many. */
async function deleteBatch(work: Emptying, versions: Version[]): Promise<number | "denied"> {
  const { s3, bucket, options: { signal: abortSignal } } = work;
  const Objects = versions.map(({ Key, VersionId }) => ({ Key, VersionId }));
  const command = new DeleteObjectsCommand({ Bucket: bucket, Delete: { Objects, Quiet: true } });
  try {
    const { Errors = [] } = await s3.send(command, { abortSignal });
    for (const { Key = "", Code = "" } of Errors) {
      if (BUSY.includes(Code)) stepBack(work, Code);
      else refuse(work, Key, Code);
    }
    return Errors.length;
  } catch (error) {
    if ((error as Error).name !== "AccessDenied") throw error;
    return "denied";
  }
}

async function deleteOne(work: Emptying, { Key, VersionId }: Version): Promise<boolean> {
  const { s3, bucket, options: { signal: abortSignal } } = work;
  try {
    await s3.send(new DeleteObjectCommand({ Bucket: bucket, Key, VersionId }), { abortSignal });
    return true;
  } catch (error) {
    if ((error as Error).name !== "AccessDenied") throw error;
    refuse(work, Key, "AccessDenied");
    return false;
  }
}

function refuse({ refused }: Emptying, key: string, code: string): void {
  refused.count++;
  if (refused.named.length < NAMED_REFUSALS) refused.named.push(`"${visible(key)}": ${code}`);
}

/** Whether XML cannot carry a key. */
function isOdd(key: string): boolean {
  return /[\p{Cc}\ufffd-\uffff]/u.test(key);
}
