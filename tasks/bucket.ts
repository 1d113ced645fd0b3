/** What is in a bucket: listing it, and emptying it. */

import {
  type _Error as DeletionError,
  DeleteObjectCommand,
  DeleteObjectsCommand,
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

/** The pause after a page that S3 was too busy for, and how long it may delete nothing at all. */
const BUSY_PAUSE_MS = 5000;
const BUSY_LIMIT_MS = 120_000;

/** A version or a delete marker, which has no ETag and no size. */
export type Version = Omit<ObjectVersion, "Key"> & { Key: string };

interface EmptyOptions {
  prefix?: string;
  /** Is told the number of versions and markers deleted so far. */
  progress?: (deleted: number) => void;
  /** Stops the work. */
  signal?: AbortSignal;
  time?: Time;
}

/** An emptying that goes on. */
interface Emptying {
  s3: S3Client;
  bucket: string;
  options: EmptyOptions;
  deleted: number;
  /** When S3 last deleted something. */
  deletedMs: number;
  /** Whether the last listing has versions that S3 was too busy for. */
  isBusy: boolean;
}

/**
 * Deletes every version and marker in a bucket, or below a prefix; returns how many. A bucket that was
 * deleted holds nothing. What is uploaded meanwhile is left to Terraform, which deletes it with the
 * bucket, and an unfinished multipart upload to S3, which does so, too.
 *
 * @throws {UserError} naming what S3 refuses to delete
 */
export async function emptyBucket(
  s3: S3Client,
  bucket: string,
  options: EmptyOptions = {},
): Promise<number> {
  const { prefix, signal, time = TIME } = options;
  const deletedMs = time.nowMs();
  const work: Emptying = { s3, bucket, options, deleted: 0, deletedMs, isBusy: false };
  try {
    do {
      work.isBusy = false;
      const pages = listVersions(s3, bucket, prefix, signal);
      await forEachParallel(pages, PARALLEL_CALLS, (page) => deletePage(work, page));
    } while (work.isBusy);
  } catch (error) {
    const { name, $metadata } = error as { name: string; $metadata?: { httpStatusCode?: number } };
    if (BUSY.includes(name) || ($metadata?.httpStatusCode ?? 0) >= 500) throw tooBusy(bucket, name);
    if (name !== "NoSuchBucket") throw error;
  }
  return work.deleted;
}

function tooBusy(bucket: string, why: string): UserError {
  return new UserError(
    `S3 is too busy to empty ${bucket} (${visible(why)}): wait some minutes, then run the same ` +
      "command again",
  );
}

function refusedBy(bucket: string, refused: DeletionError[]): UserError {
  const named = refused.slice(0, NAMED_REFUSALS)
    .map(({ Key = "", Code }) => `"${visible(Key)}": ${Code}`);
  const unnamed = refused.length - named.length;
  if (unnamed > 0) named.push(`and ${unnamed} more`);
  return new UserError(
    `S3 refused to delete ${plural(refused.length, "version")} from ${bucket}: ` +
      `${named.join("; ")}. Take away what protects them, then run the same command again`,
  );
}

/** Deletes a listing's page; the next listing has again what S3 was too busy for. */
async function deletePage(work: Emptying, page: Version[]): Promise<void> {
  const { bucket, options: { progress, signal, time = TIME } } = work;
  const errors = await tryToDelete(work, page);
  const refused = errors.filter(({ Code = "" }) => !BUSY.includes(Code));
  if (refused.length > 0) throw refusedBy(bucket, refused);
  if (errors.length < page.length) {
    work.deleted += page.length - errors.length;
    work.deletedMs = time.nowMs();
    progress?.(work.deleted);
  }
  const busy = errors.find(({ Code = "" }) => BUSY.includes(Code));
  if (busy === undefined) return;
  if (time.nowMs() - work.deletedMs >= BUSY_LIMIT_MS) throw tooBusy(bucket, busy.Code!);
  work.isBusy = true;
  const never = new AbortController().signal; // what verify made is removed after Ctrl-C too
  await time.pause(BUSY_PAUSE_MS, signal ?? never);
}

/** Answers what S3 did not delete. */
async function tryToDelete(work: Emptying, page: Version[]): Promise<DeletionError[]> {
  const { s3, bucket: Bucket, options: { signal: abortSignal } } = work;
  const errors: DeletionError[] = [];
  const Objects = page.filter(({ Key }) => !isOdd(Key))
    .map(({ Key, VersionId }) => ({ Key, VersionId }));
  if (Objects.length > 0) {
    const batch = new DeleteObjectsCommand({ Bucket, Delete: { Objects, Quiet: true } });
    const { Errors = [] } = await s3.send(batch, { abortSignal });
    errors.push(...Errors);
  }
  for (const { Key, VersionId } of page.filter(({ Key }) => isOdd(Key))) {
    const single = new DeleteObjectCommand({ Bucket, Key, VersionId });
    await s3.send(single, { abortSignal }).catch((error) => {
      if (error.name !== "AccessDenied") throw error;
      errors.push({ Key, Code: error.name });
    });
  }
  return errors;
}

/** Whether the XML of a batch cannot carry a key: then it is deleted by a call of its own. */
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
    const versions = [...page.Versions ?? [], ...page.DeleteMarkers ?? []];
    if (versions.length > 0) {
      yield versions.map(({ Key = "", ...version }) => ({ ...version, Key: decodeKey(Key) }));
    }
    const { IsTruncated, NextKeyMarker = "", NextVersionIdMarker: VersionIdMarker } = page;
    markers = IsTruncated ? { KeyMarker: decodeKey(NextKeyMarker), VersionIdMarker } : undefined;
  }
}
