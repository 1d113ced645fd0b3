/** What is in a bucket: listing it, finding the keys that a listing lost, and emptying it. */

import {
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  type ListMultipartUploadsCommandOutput,
  ListObjectVersionsCommand,
  type ListObjectVersionsCommandOutput,
  type S3Client,
} from "@aws-sdk/client-s3";
import { decodeKey, versionOf } from "../handler.ts";
import { forEachParallel } from "./parallel.ts";
import { plural, UserError, visible } from "./terminal.ts";

/** The most objects that DeleteObjects takes, which is a listing's page too. */
const PAGE_OBJECTS = 1000;

/** Uploads that are listed before they are aborted. */
const LISTED_UPLOADS = 10_000;

/** How often a bucket is emptied of what came meanwhile. */
const MOST_ROUNDS = 10;

/** Deleting calls at the same time. */
const PARALLEL_CALLS = 8;

/** Refusals that the error names. */
const NAMED_REFUSALS = 5;

/** Line breaks of a key of which every combination is tried: 3 to the power of this. */
const LINE_BREAKS = 5;

/** A version or a delete marker, which has no tag and no size. */
export interface Version {
  /** As it is listed; unless `exact`, see {@link findKeys}. */
  Key: string;
  VersionId?: string;
  IsLatest?: boolean;
  ETag?: string;
  Size?: number;
  LastModified?: Date;
  /** Whether the listing surely carried the key. */
  exact: boolean;
}

/** `keys` are all that it may have. */
interface UnfinishedUpload {
  keys: string[];
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
}

/**
 * Deletes everything in a bucket, or below a prefix, and what is uploaded meanwhile; a bucket that is
 * gone has nothing.
 *
 * @throws {UserError} naming what S3 refuses to delete, when all else is deleted
 */
export async function emptyBucket(
  s3: S3Client,
  bucket: string,
  options: EmptyOptions = {},
): Promise<Emptied> {
  const total: Emptied = { versions: 0, uploads: 0 };
  try {
    for (let round = 0; round < MOST_ROUNDS; round++) {
      const { versions, uploads } = total;
      await abortUploads(s3, bucket, options, total); // first: one that ends becomes a version
      await deleteAll(s3, bucket, options, total);
      if (total.versions === versions && total.uploads === uploads) return total;
    }
  } catch (error) {
    if ((error as Error).name === "NoSuchBucket") return total;
    throw error;
  }
  throw new UserError(
    `${bucket} still held objects each of the ${MOST_ROUNDS} times that it was emptied: stop what ` +
      "uploads to it, then run the same command again",
  );
}

async function deleteAll(
  s3: S3Client,
  bucket: string,
  { prefix, progress, signal }: EmptyOptions,
  total: Emptied,
): Promise<void> {
  const refused: string[] = [];
  const pages = listVersions(s3, bucket, prefix, signal);
  await forEachParallel(pages, PARALLEL_CALLS, async (page) => {
    const refusals = await deleteVersions(s3, bucket, page, signal);
    refused.push(...refusals);
    total.versions += page.length - refusals.length;
    progress?.(total.versions);
  });
  if (refused.length === 0) return;
  const unnamed = refused.length - NAMED_REFUSALS;
  throw new UserError(
    `S3 refused to delete ${plural(refused.length, "version")} from ${bucket}: ` +
      refused.slice(0, NAMED_REFUSALS).join("; ") + (unnamed > 0 ? `; and ${unnamed} more` : "") +
      ". Take away what protects them, then run the same command again",
  );
}

/**
 * Aborts the unfinished uploads. They are listed first: S3 may refuse the marker of a page whose
 * upload is gone. One that ended meanwhile is done.
 */
async function abortUploads(
  s3: S3Client,
  bucket: string,
  { prefix, signal: abortSignal }: EmptyOptions,
  total: Emptied,
): Promise<void> {
  for (let isLast = false; !isLast;) {
    const uploads: UnfinishedUpload[] = [];
    for await (const upload of listUploads(s3, bucket, prefix, abortSignal)) {
      uploads.push(upload);
      if (uploads.length >= LISTED_UPLOADS) break;
    }
    const before = total.uploads;
    await forEachParallel(uploads, PARALLEL_CALLS, async ({ keys, UploadId }) => {
      for (const Key of keys) {
        const command = new AbortMultipartUploadCommand({ Bucket: bucket, Key, UploadId });
        try {
          await s3.send(command, { abortSignal });
          total.uploads++;
        } catch (error) {
          if ((error as Error).name !== "NoSuchUpload") throw error;
        }
      }
    });
    isLast = uploads.length < LISTED_UPLOADS || total.uploads === before;
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
      yield versions.map(({ Key = "", ...version }) => ({
        ...version,
        Key: decode(Key)!,
        exact: page.EncodingType === "url" || !isOdd(Key),
      }));
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
    for (const { Key = "", UploadId = "" } of page.Uploads ?? []) {
      yield { keys: page.EncodingType === "url" ? [decode(Key)!] : spellingsOf(Key), UploadId };
    }
    next = page.IsTruncated
      ? { KeyMarker: decode(page.NextKeyMarker), UploadIdMarker: page.NextUploadIdMarker }
      : undefined;
  }
}

/** Keys and markers of a listing are form-encoded only where the answer says so. */
function decoderOf({ EncodingType }: { EncodingType?: string }) {
  return (key: string | undefined) => EncodingType === "url" && key ? decodeKey(key) : key;
}

/**
 * The keys that an entry of a listing without encoding may stand for: XML makes a line feed of each
 * carriage return, alone or before a line feed. https://www.w3.org/TR/xml/#sec-line-ends
 */
export function spellingsOf(listed: string): string[] {
  const breaks = ["\n", "\r", "\r\n"];
  const parts = listed.split("\n");
  const alike = breaks.map((lineBreak) => parts.join(lineBreak));
  if (parts.length - 1 > LINE_BREAKS) return alike;
  const mixed = parts.slice(1).reduce(
    (starts, part) =>
      starts.flatMap((start) => breaks.map((lineBreak) => start + lineBreak + part)),
    [parts[0]],
  );
  const areListedSo = mixed.filter((key) => key.replace(/\r\n?/g, "\n") === listed);
  return [...new Set([...alike, ...areListedSo])];
}

/**
 * The keys of a listed object, asked for under each spelling where the listing may have lost it. None
 * if S3 knows that version under no spelling; several only without versions, for objects alike.
 */
export async function findKeys(s3: S3Client, bucket: string, version: Version): Promise<string[]> {
  const { Key: listed, VersionId, ETag, Size, exact } = version;
  if (exact) return [listed];
  const found: string[] = [];
  const unreadable: string[] = [];
  for (const Key of spellingsOf(listed)) {
    try {
      const answer = await s3.send(new HeadObjectCommand({ Bucket: bucket, Key, VersionId }));
      if (answer.ETag === ETag && answer.ContentLength === Size) found.push(Key);
      if (found.length > 0 && versionOf(VersionId) !== undefined) break;
    } catch (error) {
      const { $metadata } = error as { $metadata?: { httpStatusCode?: number } };
      // It is there, but S3 wants the customer's own key for it.
      if ($metadata?.httpStatusCode === 400) unreadable.push(Key);
      else if ($metadata?.httpStatusCode !== 404) throw error;
    }
  }
  return found.length > 0 || unreadable.length > 1 ? found : unreadable;
}

/** Deletes versions and answers the refusals, which come inside a successful answer. */
async function deleteVersions(
  s3: S3Client,
  bucket: string,
  batch: Version[],
  abortSignal?: AbortSignal,
): Promise<string[]> {
  // The XML of a batch can't carry control characters: those keys go by calls of their own.
  const odd = batch.filter(({ Key }) => isOdd(Key));
  const plain = batch.filter(({ Key }) => !isOdd(Key));
  const refused: string[] = [];
  if (plain.length > 0) {
    const Objects = plain.map(({ Key, VersionId }) => ({ Key, VersionId }));
    const command = new DeleteObjectsCommand({ Bucket: bucket, Delete: { Objects, Quiet: true } });
    try {
      const { Errors = [] } = await s3.send(command, { abortSignal });
      refused.push(...Errors.map(({ Key = "", Code }) => `"${visible(Key)}": ${Code}`));
    } catch (error) {
      if ((error as Error).name !== "AccessDenied") throw error;
      odd.push(...plain); // the batch is refused whole: one by one it shows what may not be deleted
    }
  }
  for (const { Key: listed, VersionId, exact } of odd) {
    try {
      // A version that a key does not have is deleted without effect.
      for (const Key of exact ? [listed] : spellingsOf(listed)) {
        const command = new DeleteObjectCommand({ Bucket: bucket, Key, VersionId });
        await s3.send(command, { abortSignal });
      }
    } catch (error) {
      if ((error as Error).name !== "AccessDenied") throw error;
      refused.push(`"${visible(listed)}": AccessDenied`);
    }
  }
  return refused;
}

/** Whether XML cannot carry a key, or the key looks as if it could not. */
function isOdd(key: string): boolean {
  return /[\p{Cc}\ufffd-\uffff]/u.test(key);
}
