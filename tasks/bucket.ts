/** Emptying a bucket: every version, delete marker and unfinished upload. */

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
import { forEachParallel } from "./parallel.ts";
import { UserError, visible } from "./terminal.ts";

/** Objects of one DeleteObjects call at most, S3's own limit, which is a listing's page too. */
const BATCH = 1000;

/** Deleting calls at the same time. */
const PARALLEL_CALLS = 8;

/** Refusals named in the error at most. */
const NAMED_REFUSALS = 5;

/** A version or a delete marker, which has no tag and no size. */
export interface Version {
  Key: string;
  VersionId?: string;
  IsLatest?: boolean;
  ETag?: string;
  Size?: number;
  LastModified?: Date;
  /** What the key may be instead, if the listing could not carry it. */
  otherwise: string[];
}

/**
 * Deletes everything in a bucket, or below a prefix; a bucket that is gone has nothing.
 *
 * `progress` is told the number of versions and markers deleted so far; `signal` stops the work.
 *
 * @throws {UserError} naming what S3 refuses to delete, when all else is deleted
 */
export async function emptyBucket(
  s3: S3Client,
  bucket: string,
  options: { prefix?: string; progress?: (deleted: number) => void; signal?: AbortSignal } = {},
): Promise<{ versions: number; uploads: number }> {
  const { prefix, progress, signal: abortSignal } = options;
  let versions = 0;
  let uploads = 0;
  const refused: string[] = [];

  const deleteBatch = async (batch: Version[]) => {
    const refusals = await deleteVersions(s3, bucket, batch, abortSignal);
    refused.push(...refusals);
    versions += batch.length - refusals.length;
    progress?.(versions);
  };
  try {
    await forEachParallel(
      listVersions(s3, bucket, prefix, abortSignal),
      PARALLEL_CALLS,
      deleteBatch,
    );
    await forEachParallel(
      listUploads(s3, bucket, prefix, abortSignal),
      PARALLEL_CALLS,
      async (upload) => {
        await s3.send(new AbortMultipartUploadCommand({ Bucket: bucket, ...upload }), {
          abortSignal,
        });
        uploads++;
      },
    );
  } catch (error) {
    if ((error as Error).name === "NoSuchBucket") return { versions, uploads };
    throw error;
  }

  if (refused.length > 0) {
    const unnamed = refused.length - NAMED_REFUSALS;
    throw new UserError(
      `S3 refused to delete ${refused.length} versions from ${bucket}: ` +
        refused.slice(0, NAMED_REFUSALS).join("; ") + (unnamed > 0 ? `; and ${unnamed} more` : "") +
        ". Take away what protects them, then run the same command again",
    );
  }
  return { versions, uploads };
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
        MaxKeys: BATCH,
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
        otherwise: page.EncodingType === "url" ? [] : otherSpellings(Key),
      }));
    }
    next = page.IsTruncated
      ? { KeyMarker: decode(page.NextKeyMarker), VersionIdMarker: page.NextVersionIdMarker }
      : undefined;
  }
}

async function* listUploads(
  s3: S3Client,
  bucket: string,
  prefix?: string,
  abortSignal?: AbortSignal,
): AsyncGenerator<{ Key: string; UploadId: string }> {
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
    for (const { Key, UploadId } of page.Uploads ?? []) {
      yield { Key: decode(Key)!, UploadId: UploadId! };
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

/** XML that is not encoded turns carriage returns into line feeds. */
function otherSpellings(key: string): string[] {
  return key.includes("\n") ? [key.replaceAll("\n", "\r"), key.replaceAll("\n", "\r\n")] : [];
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
  for (const { Key, VersionId, otherwise } of odd) {
    try {
      // A version that a key does not have is deleted without effect.
      for (const spelling of [Key, ...otherwise]) {
        const command = new DeleteObjectCommand({ Bucket: bucket, Key: spelling, VersionId });
        await s3.send(command, { abortSignal });
      }
    } catch (error) {
      if ((error as Error).name !== "AccessDenied") throw error;
      refused.push(`"${visible(Key)}": AccessDenied`);
    }
  }
  return refused;
}

function isOdd(key: string): boolean {
  return /[\p{Cc}\ufffe\uffff]/u.test(key);
}
