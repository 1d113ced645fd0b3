/**
 * Reads an object's facts and first bytes, and takes from S3's refusal what it says of the object.
 * The calls themselves are passed in: they are made in lambda.ts.
 */

import type { HeadObjectCommandOutput } from "@aws-sdk/client-s3";
import { cannot, OutOfTimeError, quote, type SdkError } from "./errors.ts";

/** Time that must be left to begin or repeat a record's calls: ten times what they usually take. */
const MIN_RECORD_MS = 1000;

/** Reads of one object whose body breaks, the first included: as many as the SDK's own attempts. */
const READ_TRIES = 3;

/**
 * So long after versioning is first enabled S3 may answer 404 for an object that is there:
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/manage-versioning-examples.html
 */
const EARLY_MINUTES = 15;

/** An object's body ended before its announced length. */
export class BrokenBodyError extends Error {
  override name = "BrokenBodyError";
}

/** Which object to read: this version, or without versions these contents. */
export interface Source {
  bucket: string;
  key: string;
  versionId?: string;
  etag?: string;
  /** In bytes. */
  size?: number;
}

/** How objects are read. Rejections carry the SDK's name and status. */
export interface Reader {
  /** When the stack was made, in milliseconds since 1970; undefined where it is not known. */
  stackCreatedMs?: number;
  /** Answer and first bytes; a body that breaks is a {@link BrokenBodyError}. */
  getObject(source: Source): Promise<ObjectAnswer & { bytes: Uint8Array }>;
  headObject(source: Source): Promise<ObjectAnswer>;
  /** Milliseconds since 1970. */
  now(): number;
  /** Milliseconds in which calls may still be made. */
  remainingMs(): number;
}

/** What S3 answers to a HEAD, or to a ranged GET beside the body. */
export type ObjectAnswer = Omit<HeadObjectCommandOutput, "$metadata">;

/** How the object now differs from what its event said, or why its content can't be read. */
export type ObjectFact = "deleted" | "replaced" | "empty" | "archived" | "SSE-C";

/** What S3's code says: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html */
const FACTS = new Map<string, ObjectFact>([
  ["NoSuchKey", "deleted"],
  ["NoSuchVersion", "deleted"],
  ["MethodNotAllowed", "deleted"], // the version is a delete marker
  ["PreconditionFailed", "replaced"], // If-Match: without versioning, a newer object is there now
  ["InvalidRange", "empty"],
  ["InvalidObjectState", "archived"],
]);

/** A HEAD is refused with these for a fact, or for another reason: it has no body to tell. */
const HEAD_FACTS = [400, 404, 405, 412];

/** What was read. A fact that hides the content leaves what a HEAD says of it, if anything. */
export interface ReadObject {
  answer?: ObjectAnswer;
  bytes?: Uint8Array;
  fact?: ObjectFact;
}

/** Reads an object's facts and first bytes, in one call. */
export async function readObject(source: Source, outside: Reader): Promise<ReadObject> {
  try {
    return await tryRead(source, outside);
  } catch (error) {
    throw cannot("read", source, error);
  }
}

/** @throws {OutOfTimeError} too little time is left to begin with an object */
export function requireTime({ key }: { key: string }, { remainingMs }: Reader): void {
  if (remainingMs() >= MIN_RECORD_MS) return;
  throw new OutOfTimeError(`Cannot begin ${quote(key)}: no time left in this run`);
}

async function tryRead(source: Source, outside: Reader): Promise<ReadObject> {
  if (source.size === 0) { // a range of it would be refused
    const answer = await tryHead(source, outside);
    if (answer !== undefined) return { answer };
  }
  try {
    const answer = await getWithRetry(source, outside);
    return { answer, bytes: answer.bytes };
  } catch (error) {
    const fact = factOf(error);
    if (fact === undefined) throw error;
    refuseEarly404(error, outside);
    const hasHead = fact === "archived" || fact === "empty";
    return { answer: hasHead ? await tryHead(source, outside) : undefined, fact };
  }
}

/** Undefined where only a GET's refusal, which has a body, can tell why. */
async function tryHead(source: Source, outside: Reader): Promise<ObjectAnswer | undefined> {
  try {
    return await outside.headObject(source);
  } catch (error) {
    if (!HEAD_FACTS.includes(statusOf(error))) throw error;
    refuseEarly404(error, outside);
  }
}

/** Throws a 404 that may pass, so that Lambda runs the event again. */
function refuseEarly404(error: unknown, { stackCreatedMs, now }: Reader): void {
  if (statusOf(error) !== 404 || stackCreatedMs === undefined) return;
  const endMs = stackCreatedMs + EARLY_MINUTES * 60_000;
  if (now() >= endMs) return;
  const end = new Date(endMs).toISOString();
  throw new Error(
    `${(error as Error).name} (HTTP 404): until ${end}, ${EARLY_MINUTES} minutes after the stack ` +
      "was made, S3 may answer so for an object that is there; run it again after that",
  );
}

/** Gets again when a body breaks: the SDK repeats only calls that fail before their body. */
async function getWithRetry(source: Source, outside: Reader) {
  for (let tries = 1;; tries++) {
    try {
      return await outside.getObject(source);
    } catch (error) {
      const again = error instanceof BrokenBodyError && tries < READ_TRIES &&
        outside.remainingMs() >= MIN_RECORD_MS;
      if (!again) throw error;
    }
  }
}

/** 0 where there was no answer. */
function statusOf(error: unknown): number {
  return (error as SdkError).$metadata?.httpStatusCode ?? 0;
}

/** The fact behind a GET's refusal; undefined for an error worth a retry, a missing bucket's too. */
function factOf(error: unknown): ObjectFact | undefined {
  const { name, message } = error as Error;
  // S3 gives this code for other reasons too: only the message tells SSE-C.
  if (name === "InvalidRequest" && /stored using a form of server side encryption/i.test(message)) {
    return "SSE-C";
  }
  return FACTS.get(name);
}

/**
 * The first `limit` bytes of a body, which is closed then if more would come; one that ends there is
 * read to its end, which leaves the connection open for the next call.
 *
 * @throws {BrokenBodyError} it broke or ended before min(limit, announced length): never a shorter text
 */
export async function readPrefix(
  body: AsyncIterable<Uint8Array>,
  announced: number | undefined,
  limit: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(Math.min(limit, announced ?? limit));
  let length = 0;
  try {
    for await (const chunk of body) {
      const part = chunk.subarray(0, bytes.length - length);
      bytes.set(part, length);
      length += part.length;
      if (length === bytes.length && length !== announced) break; // which closes the body
    }
  } catch {
    throw new BrokenBodyError(`the body broke after ${length} bytes`);
  }
  if (announced !== undefined && length < bytes.length) {
    throw new BrokenBodyError(`the body ended after ${length} of ${bytes.length} bytes`);
  }
  return bytes.subarray(0, length);
}
