/**
 * The core: an S3 event becomes rows. For each created object: decode the key, read the object's
 * facts and first bytes, build the row, put it. No AWS client, environment or clock in here.
 */

import { previewOf } from "./function/preview.ts";

/** Bytes read of any object at most: 500 characters of 4 bytes and a byte order mark fit. */
export const PREFIX_BYTES = 2048;

/** Records of one event worked on at the same time. */
const PARALLEL_RECORDS = 32;

/** A record is not started with less time than this left: its calls could not end in order. */
const MIN_RECORD_MS = 1000;

/** Reads of one object whose body breaks off, the first included. */
const READ_TRIES = 3;

/** Characters kept of a content type; S3 itself takes 8 KB of headers. */
const CONTENT_TYPE_LENGTH = 1024;

/** UTF-8 bytes of a key at most, S3's own limit. */
const KEY_BYTES = 1024;

/** Failures that the thrown error names; every one has its log line. */
const NAMED_FAILURES = 20;

/** One created object, as its event record tells it. `timestamp` is ISO 8601 UTC, size in bytes. */
export interface Upload {
  bucket: string;
  key: string;
  timestamp: string;
  eventName: string;
  size?: number;
  etag?: string;
  versionId?: string;
  sequencer?: string;
}

/** What S3 answers to a HEAD or a ranged GET, by the SDK's names. */
export interface ObjectAnswer {
  ContentRange?: string;
  ContentLength?: number;
  ContentType?: string;
  ContentEncoding?: string;
  LastModified?: Date;
  ETag?: string;
}

/** A row of the table; an unknown attribute is absent. */
export interface Row {
  file_key: string;
  timestamp: string;
  bucket_name: string;
  event_name: string;
  processed_at: string;
  file_size?: number;
  content_type?: string;
  last_modified?: string;
  etag?: string;
  version_id?: string;
  sequencer?: string;
  content_preview?: string;
}

/** One line of the log: what happened to a record, in the row's own names, never any content. */
export type LogLine = Partial<Omit<Row, "content_preview">> & {
  level: "INFO" | "WARN" | "ERROR";
  outcome: "written" | "unchanged" | "ignored" | "failed" | "test";
  object?: ObjectFact;
  duration_ms?: number;
  error?: string;
  message?: string;
};

/** Everything that the core needs of the outside. Rejections carry the SDK's name and status. */
export interface Outside {
  /** Answer and first {@link PREFIX_BYTES} bytes; a body that breaks is a {@link BrokenBodyError}. */
  getObject(upload: Upload): Promise<ObjectAnswer & { bytes: Uint8Array }>;
  headObject(upload: Upload): Promise<ObjectAnswer>;
  putItem(put: Put): Promise<unknown>;
  /** Milliseconds since 1970. */
  now(): number;
  /** Milliseconds in which calls may still be made. */
  remainingMs(): number;
  log(line: LogLine): void;
}

/** The payload has no list of records: not an S3 event. */
export class NotAnS3EventError extends TypeError {
  override name = "NotAnS3EventError";
}

/** A record lacks something that a row needs, or comes from another service. */
export class InvalidRecordError extends TypeError {
  override name = "InvalidRecordError";
}

/** A record of another major version, whose fields may mean something else. */
export class UnsupportedVersionError extends RangeError {
  override name = "UnsupportedVersionError";
}

/** An object key that is not form-encoded UTF-8. */
export class UndecodableKeyError extends SyntaxError {
  override name = "UndecodableKeyError";
}

/** An object's body ended before its announced length. */
export class BrokenBodyError extends Error {
  override name = "BrokenBodyError";
}

/** A call did not end in time, or no time was left to begin. */
export class OutOfTimeError extends Error {
  override name = "OutOfTimeError";
}

/** Some records of an event failed; the others are done. */
export class RecordsFailedError extends Error {
  override name = "RecordsFailedError";
}

/**
 * Writes a row for each object created. To Lambda, returning means done: so any failure is thrown,
 * after every record was tried, and Lambda runs the event again (twice) and then parks it in the
 * failure queue. Running again is safe: a row is keyed by what the event says and never goes back.
 *
 * @throws {NotAnS3EventError} the payload is something else
 * @throws {RecordsFailedError} at least one record is not in the table
 */
export async function handleEvent(event: unknown, outside: Outside): Promise<void> {
  // Sent by S3 when a notification is configured; it reaches Lambda only when re-driven.
  if (isObject(event) && event.Event === "s3:TestEvent") {
    return outside.log({ level: "INFO", outcome: "test", message: "S3 test event" });
  }
  if (!isObject(event) || !Array.isArray(event.Records)) {
    throw new NotAnS3EventError("Cannot handle the event: it has no list of Records");
  }

  const records: unknown[] = event.Records;
  const failures: string[] = [];
  await forEachParallel(records, PARALLEL_RECORDS, async (record) => {
    const failure = await handleRecord(record, outside);
    if (failure !== undefined) failures.push(failure);
  });

  if (failures.length > 0) {
    const unnamed = failures.length - NAMED_FAILURES;
    throw new RecordsFailedError(
      `${failures.length} of ${records.length} records failed: ` +
        failures.slice(0, NAMED_FAILURES).join("; ") + (unnamed > 0 ? `; and ${unnamed} more` : ""),
    );
  }
}

/** Does one record and logs it; answers the sentence of its failure, if it failed. */
async function handleRecord(record: unknown, outside: Outside): Promise<string | undefined> {
  const startMs = outside.now();
  const known: Partial<LogLine> = {};
  try {
    const upload = recordToUpload(record);
    if (upload === undefined) {
      const { eventName } = record as { eventName: string };
      const event_name = clip(eventName);
      outside.log({ level: "WARN", outcome: "ignored", event_name });
      return;
    }
    Object.assign(known, uploadToAttributes(upload));
    if (outside.remainingMs() < MIN_RECORD_MS) {
      throw new OutOfTimeError(`Cannot begin ${quote(upload.key)}: no time left in this run`);
    }

    const { answer, bytes, fact } = await readUpload(upload, outside);
    const row = toRow(upload, answer, bytes, new Date(outside.now()).toISOString());
    const outcome = await putRow(row, outside);

    const { content_preview: _, ...attributes } = row;
    const duration_ms = outside.now() - startMs;
    outside.log({ level: "INFO", outcome, ...attributes, object: fact, duration_ms });
  } catch (error) {
    const failure = describe(error);
    const duration_ms = outside.now() - startMs;
    outside.log({ level: "ERROR", outcome: "failed", ...known, error: failure, duration_ms });
    return failure;
  }
}

/**
 * What a record says of a created object; undefined for another kind of event.
 *
 * Fields: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
 */
export function recordToUpload(record: unknown): Upload | undefined {
  if (!isObject(record) || record.eventSource !== "aws:s3") {
    throw new InvalidRecordError("Cannot handle a record: its eventSource is not aws:s3");
  }
  // Within a major version fields are only added.
  if (typeof record.eventVersion !== "string" || !/^2\.\d+$/.test(record.eventVersion)) {
    throw new UnsupportedVersionError(
      `Cannot handle a record: unsupported version ${quote(record.eventVersion)}, only 2.x is`,
    );
  }
  const eventName = text(record.eventName)?.replace(/^s3:/, "");
  if (eventName === undefined) {
    throw new InvalidRecordError("Cannot handle a record: it has no eventName");
  }
  if (!eventName.startsWith("ObjectCreated:")) return undefined;

  const s3 = isObject(record.s3) ? record.s3 : {};
  const object = isObject(s3.object) ? s3.object : {};
  const bucket = isObject(s3.bucket) ? text(s3.bucket.name) : undefined;
  if (bucket === undefined) {
    throw new InvalidRecordError("Cannot handle a record: it names no bucket");
  }
  if (typeof object.key !== "string" || object.key === "") {
    throw new InvalidRecordError("Cannot handle a record: it names no object key");
  }
  const size = object.size;
  return {
    bucket,
    key: decodeKey(object.key),
    timestamp: toTimestamp(record.eventTime),
    eventName,
    size: Number.isSafeInteger(size) && size as number >= 0 ? size as number : undefined,
    etag: unquoted(text(object.eTag)),
    versionId: text(object.versionId),
    sequencer: text(object.sequencer),
  };
}

/**
 * The object's real key. Events carry it form-encoded: a space is `+`, a plus is `%2B`.
 *
 * @throws {UndecodableKeyError} a malformed escape, or no key that S3 can have
 */
export function decodeKey(encoded: string): string {
  let key: string;
  try {
    key = decodeURIComponent(encoded.replaceAll("+", " "));
  } catch {
    throw new UndecodableKeyError(`Cannot decode the object key ${quote(encoded)}`);
  }
  // DynamoDB would store a lone surrogate as another character.
  if (!key.isWellFormed() || new TextEncoder().encode(key).length > KEY_BYTES) {
    throw new UndecodableKeyError(
      `Cannot take the object key ${quote(encoded)}: not UTF-8 of at most ${KEY_BYTES} bytes`,
    );
  }
  return key;
}

/** What became of the object since its event, where it is no longer as the event says. */
export type ObjectFact = "gone" | "replaced" | "archived" | "empty";

/**
 * The object's facts and first bytes, in one call (HEAD for an empty object, whose ranged GET is an
 * error). An object that is gone or replaced since leaves only what the event says; one that is
 * archived or empty still answers a HEAD.
 */
async function readUpload(
  upload: Upload,
  outside: Outside,
): Promise<{ answer?: ObjectAnswer; bytes?: Uint8Array; fact?: ObjectFact }> {
  let fact: ObjectFact | undefined;
  if (upload.size !== 0) {
    try {
      const answer = await getWithRetry(upload, outside);
      return { answer, bytes: answer.bytes };
    } catch (error) {
      fact = factOf(error);
      if (fact === undefined) throw cannot("read", upload, error);
      if (fact === "gone" || fact === "replaced") return { fact };
    }
  }
  try {
    return { answer: await outside.headObject(upload), fact };
  } catch (error) {
    fact = factOf(error);
    if (fact === undefined) throw cannot("read", upload, error);
    return { fact };
  }
}

/** The SDK repeats a call that fails before its body, but not one whose body breaks: done here. */
async function getWithRetry(upload: Upload, outside: Outside) {
  for (let tries = 1;; tries++) {
    try {
      return await outside.getObject(upload);
    } catch (error) {
      const again = error instanceof BrokenBodyError && tries < READ_TRIES &&
        outside.remainingMs() >= MIN_RECORD_MS;
      if (!again) throw error;
    }
  }
}

/** What the SDK's errors carry. */
interface SdkError {
  name: string;
  $metadata?: { httpStatusCode?: number };
}

/** The fact about the object behind S3's refusal; undefined for an error worth a retry. */
function factOf(error: unknown): ObjectFact | undefined {
  const { name, $metadata } = error as Partial<SdkError>;
  if (name === "InvalidObjectState") return "archived";
  switch ($metadata?.httpStatusCode) {
    case 404:
    case 405: // the version is a delete marker
      return "gone";
    case 412: // If-Match: without versioning the bucket holds a newer object by now
      return "replaced";
    case 416:
      return "empty";
  }
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
  limit = PREFIX_BYTES,
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
  } catch (error) {
    throw new BrokenBodyError(`the body broke after ${length} bytes`, { cause: error });
  }
  if (announced !== undefined && length < bytes.length) {
    throw new BrokenBodyError(`the body ended after ${length} of ${bytes.length} bytes`);
  }
  return bytes.subarray(0, length);
}

/** The row of an upload; S3's answer about that very object wins over the event. */
export function toRow(
  upload: Upload,
  answer: ObjectAnswer | undefined,
  bytes: Uint8Array | undefined,
  processedAt: string,
): Row {
  const size = answer && totalSize(answer);
  const type = answer?.ContentType;
  const modifiedMs = answer?.LastModified?.getTime() ?? NaN;
  const row: Row = {
    ...uploadToAttributes(upload),
    file_size: size ?? upload.size,
    content_type: type ? Array.from(type).slice(0, CONTENT_TYPE_LENGTH).join("") : undefined,
    last_modified: Number.isNaN(modifiedMs) ? undefined : new Date(modifiedMs).toISOString(),
    etag: unquoted(answer?.ETag) ?? upload.etag,
    processed_at: processedAt,
    content_preview: bytes && previewOf(bytes, {
      contentType: type,
      contentEncoding: answer?.ContentEncoding,
      complete: bytes.length === size,
    }),
  };
  return withoutUndefined(row);
}

/** The attributes that the event alone gives. */
function uploadToAttributes(upload: Upload): Omit<Row, "processed_at"> {
  return withoutUndefined({
    file_key: upload.key,
    timestamp: upload.timestamp,
    bucket_name: upload.bucket,
    event_name: upload.eventName,
    file_size: upload.size,
    etag: upload.etag,
    version_id: upload.versionId,
    sequencer: upload.sequencer,
  });
}

/** The whole object's size: after the slash of a Content-Range, else the length of the answer. */
function totalSize(answer: ObjectAnswer): number | undefined {
  const total = answer.ContentRange?.match(/\/(\d+)$/)?.[1];
  const size = total === undefined ? answer.ContentLength : Number(total);
  return Number.isSafeInteger(size) ? size : undefined;
}

/** A conditional put, in DynamoDB's own terms but for the table's name. */
export interface Put {
  Item: Record<string, { S: string } | { N: string }>;
  ConditionExpression: string;
  ExpressionAttributeValues?: Record<string, { S: string }>;
}

/**
 * A row as a put that only ever goes forward: a duplicate or an older event fails the condition.
 * S3 orders the events of a key by their sequencers, compared as strings.
 */
export function rowToPut(row: Row): Put {
  const Item: Put["Item"] = {};
  for (const [name, value] of Object.entries(row)) {
    Item[name] = typeof value === "number" ? { N: String(value) } : { S: value };
  }
  if (row.sequencer === undefined) {
    return { Item, ConditionExpression: "attribute_not_exists(file_key)" };
  }
  return {
    Item,
    ConditionExpression: "attribute_not_exists(file_key) OR sequencer < :sequencer",
    ExpressionAttributeValues: { ":sequencer": { S: row.sequencer } },
  };
}

/** A refused condition is success: the row is there already, maybe by this call's own first try. */
async function putRow(row: Row, outside: Outside): Promise<"written" | "unchanged"> {
  try {
    await outside.putItem(rowToPut(row));
    return "written";
  } catch (error) {
    if (isObject(error) && error.name === "ConditionalCheckFailedException") return "unchanged";
    throw cannot("write the row of", { key: row.file_key, bucket: row.bucket_name }, error);
  }
}

/** One JSON object in one line, whatever the strings hold: line separators are escaped too. */
export function toJsonLine(line: unknown): string {
  return JSON.stringify(line).replace(
    /[\u007f-\u009f\u2028\u2029]/g,
    (character) => "\\u" + character.charCodeAt(0).toString(16).padStart(4, "0"),
  );
}

/** Runs `work` for every item, at most `limit` at the same time. */
async function forEachParallel<T>(
  items: T[],
  limit: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  let next = 0;
  const lanes = Array.from({ length: Math.min(limit, items.length) }, async () => {
    while (next < items.length) await work(items[next++]);
  });
  await Promise.all(lanes);
}

/** ISO 8601 UTC with milliseconds, so that one moment has one spelling. */
function toTimestamp(eventTime: unknown): string {
  const iso = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/;
  const valid = typeof eventTime === "string" && iso.test(eventTime);
  const date = new Date(valid ? eventTime : NaN);
  if (Number.isNaN(date.getTime())) {
    throw new InvalidRecordError(
      `Cannot handle a record: its eventTime ${quote(eventTime)} is no ISO 8601 time with a zone`,
    );
  }
  return date.toISOString();
}

function cannot(action: string, object: { key: string; bucket: string }, error: unknown): Error {
  return new Error(
    `Cannot ${action} ${quote(object.key)} from ${quote(object.bucket)}: ${describe(error)}`,
    { cause: error },
  );
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return clip(String(error));
  if (error.name === "Error") return error.message;
  const { httpStatusCode } = (error as SdkError).$metadata ?? {};
  // A HEAD's answer has no body, so its status is all there is to know.
  return `${error.name}: ${clip(error.message)}` +
    (httpStatusCode ? ` (HTTP ${httpStatusCode})` : "");
}

/** A value as it may stand in a message: escaped, and of bounded length. */
function quote(value: unknown): string {
  return clip(value === undefined ? "undefined" : toJsonLine(value));
}

function clip(text: string): string {
  return text.length > 1024 ? text.slice(0, 1024).toWellFormed() + "…" : text;
}

function unquoted(etag: string | undefined): string | undefined {
  return etag?.replace(/^"(.*)"$/, "$1") || undefined;
}

/** A field that a row can hold, else undefined. */
function text(value: unknown): string | undefined {
  const usable = typeof value === "string" && value !== "" && value.length <= 1024 &&
    value.isWellFormed();
  return usable ? value : undefined;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function withoutUndefined<T extends object>(object: T): T {
  return Object.fromEntries(Object.entries(object).filter(([, v]) => v !== undefined)) as T;
}
