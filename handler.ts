/**
 * The rules: an S3 event becomes rows. For each created object: decode the key, read the object's
 * facts and first bytes, build the row, put it. No AWS client, environment or clock in here: the
 * bundle's entry is function/lambda.ts, as importing the SDK reads the environment, which plain
 * `deno test` may not.
 */

import {
  clip,
  describe,
  InvalidEventError,
  MAX_TEXT_LENGTH,
  quote,
  RecordsFailedError,
} from "./function/errors.ts";
import { putEventRow, putRow, type Table } from "./function/one_row.ts";
import { forEachParallel } from "./function/parallel.ts";
import { textOf } from "./function/preview.ts";
import {
  type ObjectAnswer,
  type ObjectFact,
  type Reader,
  type ReadObject,
  readObject,
  requireTime,
  type Source,
} from "./function/read.ts";
import { isRecorded, isRemoval, toRemoval } from "./function/removals.ts";
import { decodeUserMetadata } from "./function/user_metadata.ts";

/** Characters (code points) of a preview at most. */
export const PREVIEW_CHARACTERS = 500;

/** Bytes read of any object at most: a byte order mark and a preview of 4-byte characters, in KB. */
export const PREFIX_BYTES = 1024 * Math.ceil((3 + 4 * PREVIEW_CHARACTERS) / 1024);

/** Records of one event in work at the same time, fewer than the 50 sockets that the SDK opens. */
const PARALLEL_RECORDS = 32;

/** Characters of a content type that are kept; S3 itself takes 8 KB of headers. */
const CONTENT_TYPE_LENGTH = 1024;

/** S3's limit: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html */
const MAX_KEY_BYTES = 1024;

/** Failures that the thrown error names; every one has its log line. */
const NAMED_FAILURES = 20;

/** Everything that the rules need of the outside. Rejections carry the SDK's name and status. */
export interface Outside extends Reader, Table {
  /** The one bucket that events may be about: a row's key does not tell buckets apart. */
  bucket: string;
  /** Whether removals have rows too; else their events are ignored. */
  recordsRemovals?: boolean;
  log(line: LogLine): void;
}

/**
 * Writes a row for each object created, or removed. To Lambda, returning means done, so any failure
 * is thrown after every record was tried: Lambda runs the event again (twice) and then puts it into
 * the failure queue. Running again is safe: a row is keyed by what the event says and never goes back.
 *
 * @throws {InvalidEventError} the payload is no S3 event
 * @throws {RecordsFailedError} at least one record is not in the table
 */
export async function handleEvent(event: unknown, outside: Outside): Promise<void> {
  // Sent by S3 when a notification is configured; it reaches Lambda only when re-driven.
  if (isObject(event) && event.Event === "s3:TestEvent") {
    return log(outside, { level: "INFO", outcome: "test", message: "S3 test event" });
  }
  if (!isObject(event) || !Array.isArray(event.Records)) {
    throw new InvalidEventError("Cannot handle the event: it has no list of Records");
  }

  const records: unknown[] = event.Records;
  const failures: string[] = [];
  await forEachParallel(records, PARALLEL_RECORDS, async (record) => {
    const failure = await tryRecord(record, outside);
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

/** Does one record and logs it; returns why it failed, undefined for success. */
async function tryRecord(record: unknown, outside: Outside): Promise<string | undefined> {
  const startMs = outside.now();
  let known: Partial<LogLine> = namesOf(record);
  try {
    const upload = recordToUpload(record, outside);
    if (upload === undefined) {
      log(outside, { level: "WARN", outcome: "ignored", event_name: known.event_name });
      return undefined;
    }
    known = toLogFields(uploadToAttributes(upload));
    requireTime(upload, outside);

    const isRemoved = isRemoval(upload.eventName);
    const read: ReadObject = isRemoved ? {} : await readObject(upload, outside);
    const { answer, bytes, fact } = read;
    const row = toRow(upload, answer, bytes, new Date(outside.now()).toISOString());
    const outcome = await (isRemoved ? putRow : putEventRow)(row, outside);

    const duration_ms = outside.now() - startMs;
    const seen = { object: fact, missing_metadata: answer?.MissingMeta, duration_ms };
    log(outside, { level: "INFO", outcome, ...toLogFields(row), ...seen });
    return undefined;
  } catch (error) {
    const failure = describe(error);
    const duration_ms = outside.now() - startMs;
    log(outside, { level: "ERROR", outcome: "failed", ...known, error: failure, duration_ms });
    return failure;
  }
}

/** One line of the log: what happened to a record, in the row's own names, never any content. */
export type LogLine = Partial<Omit<Row, "content_preview" | "user_metadata">> & {
  /** When the line was written, which Lambda reads. The row's `timestamp` is `event_time`. */
  timestamp: string;
  event_time?: string;
  level: "INFO" | "WARN" | "ERROR";
  outcome: "written" | "unchanged" | "ignored" | "failed" | "test";
  /** The key as the record spells it, where it can't be decoded. */
  encoded_key?: string;
  object?: ObjectFact;
  /** Pairs of user metadata that S3 has and can't put into a header. */
  missing_metadata?: number;
  duration_ms?: number;
  error?: string;
  message?: string;
};

/** https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html */
export function log(outside: Outside, line: Omit<LogLine, "timestamp">): void {
  outside.log({ timestamp: new Date(outside.now()).toISOString(), ...line });
}

/** What the log says of a row. */
export function toLogFields(row: Omit<Row, "processed_at">) {
  const { content_preview: _p, user_metadata: _m, storage_class: _c, ...told } = row;
  const { timestamp: event_time, ...fields } = told;
  return { event_time, ...fields };
}

/** One created or removed object, as its event record tells it. `timestamp` is ISO 8601 UTC. */
export interface Upload extends Source {
  timestamp: string;
  eventName: string;
  sequencer?: string;
}

/**
 * Reads a record of a created object, or of a removed one; undefined for another kind of event.
 *
 * Fields: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
 *
 * @throws {InvalidEventError} it lacks what a row needs, and names what could be read of it
 */
export function recordToUpload(
  record: unknown,
  { bucket, recordsRemovals = false }: Pick<Outside, "bucket" | "recordsRemovals">,
): Upload | undefined {
  const names = namesOf(record);
  const { bucket_name, event_name, version_id, file_key } = names;
  const refuse = (why: string) =>
    new InvalidEventError(`Cannot handle a record: ${why}${inBrackets(names)}`);
  if (!isObject(record) || record.eventSource !== "aws:s3") {
    throw refuse("its eventSource is not aws:s3");
  }
  // Within a major version fields are only added.
  if (!/^2\.\d+$/.test(text(record.eventVersion) ?? "")) {
    throw refuse(`its eventVersion ${quote(record.eventVersion)} is not 2.x`);
  }
  if (event_name === undefined) throw refuse("it has no eventName");
  const { size, eTag, versionId, sequencer } = objectOf(record);
  const isRemoved = recordsRemovals && isRecorded(event_name, versionId);
  if (!event_name.startsWith("ObjectCreated:") && !isRemoved) return undefined;

  if (bucket_name === undefined) throw refuse("it names no bucket");
  if (bucket_name !== bucket) throw refuse(`its bucket is not this function's, ${quote(bucket)}`);
  if (file_key === undefined) {
    throw refuse(`its key is not form-encoded UTF-8 of 1 to ${MAX_KEY_BYTES} bytes`);
  }
  if (version_id === undefined && ![undefined, null, "", "null"].includes(versionId as string)) {
    throw refuse(`its versionId is no text of at most ${MAX_TEXT_LENGTH} characters`);
  }
  const timestamp = toTimestamp(record.eventTime);
  if (timestamp === undefined) {
    throw refuse(
      `its eventTime ${quote(record.eventTime)} is no ISO 8601 time since 1970 with a zone`,
    );
  }
  const upload = {
    bucket,
    key: file_key,
    timestamp,
    eventName: event_name,
    size: toSize(size),
    etag: unquoted(text(eTag)),
    versionId: version_id,
    sequencer: text(sequencer),
  };
  return isRemoved ? toRemoval(upload) : upload;
}

/** Reads whatever a record names, even where the rest of it is invalid. */
export function namesOf(record: unknown) {
  const { s3, eventName } = isObject(record) ? record : {};
  const { key, versionId } = objectOf(record);
  const file_key = typeof key === "string" ? tryDecodeKey(key) : undefined;
  return withoutUndefined({
    bucket_name: isObject(s3) && isObject(s3.bucket) ? text(s3.bucket.name) : undefined,
    event_name: text(eventName)?.replace(/^s3:/, ""),
    version_id: versionOf(versionId),
    file_key,
    encoded_key: typeof key === "string" && key && !file_key ? clip(key) : undefined,
  });
}

/** Names by the log's words, for a message: ` (bucket_name "b", file_key "a.txt")`. */
function inBrackets(names: object): string {
  const list = Object.entries(names).map(([name, value]) => `${name} ${quote(value)}`);
  return list.length > 0 ? ` (${list.join(", ")})` : "";
}

function objectOf(record: unknown): Record<string, unknown> {
  const s3 = isObject(record) ? record.s3 : undefined;
  return isObject(s3) && isObject(s3.object) ? s3.object : {};
}

/**
 * Decodes an object's key. Events carry it form-encoded: a space is `+`, a plus is `%2B`.
 *
 * @throws {InvalidEventError} a malformed escape, or no key that S3 can have
 */
export function decodeKey(encoded: string): string {
  const key = tryDecodeKey(encoded);
  if (key !== undefined) return key;
  throw new InvalidEventError(
    `Cannot decode the key ${quote(encoded)}: no form-encoded UTF-8 of 1 to ${MAX_KEY_BYTES} bytes`,
  );
}

function tryDecodeKey(encoded: string): string | undefined {
  try {
    const key = decodeURIComponent(encoded.replaceAll("+", " "));
    const bytes = new TextEncoder().encode(key).length;
    // DynamoDB would store a lone surrogate as another character.
    return key.isWellFormed() && bytes > 0 && bytes <= MAX_KEY_BYTES ? key : undefined;
  } catch { // URIError
    return undefined;
  }
}

/**
 * The id of a version, by which versions are compared. Undefined for an object without versions,
 * whose id is absent, empty or "null", depending on who tells of it.
 */
export function versionOf(id: unknown): string | undefined {
  return id === "null" ? undefined : text(id);
}

/** ISO 8601 UTC with milliseconds, so that one moment has one spelling; undefined for no moment. */
function toTimestamp(eventTime: unknown): string | undefined {
  const iso = /^(\d{4}-\d\d-\d\d)T\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/;
  const [time, day] = text(eventTime)?.match(iso) ?? [];
  const date = new Date(time ?? NaN);
  // A time that was never set is one in year 1 to .NET and Go.
  if (!(date.getTime() >= 0)) return undefined;
  // Date takes the 30th of February for the 2nd of March.
  return new Date(day).toISOString().startsWith(day) ? date.toISOString() : undefined;
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
  storage_class?: string;
  user_metadata?: Record<string, string>;
  content_preview?: string;
}

/** The names of all attributes, in README's order. */
export const ATTRIBUTES: readonly (keyof Row)[] = [
  "file_key",
  "timestamp",
  "bucket_name",
  "event_name",
  "file_size",
  "content_type",
  "last_modified",
  "processed_at",
  "etag",
  "version_id",
  "sequencer",
  "storage_class",
  "user_metadata",
  "content_preview",
];

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
  const contentEncoding = answer?.ContentEncoding;
  const isWhole = bytes?.length === size;
  const content = bytes && textOf(bytes, { contentType: type, contentEncoding, isWhole });
  const row: Row = {
    ...uploadToAttributes(upload),
    file_size: size ?? upload.size,
    content_type: firstCharacters(CONTENT_TYPE_LENGTH, type),
    last_modified: Number.isNaN(modifiedMs) ? undefined : new Date(modifiedMs).toISOString(),
    etag: unquoted(answer?.ETag) ?? upload.etag,
    processed_at: processedAt,
    // S3 leaves out STANDARD. Only an answer about the object itself has Metadata: a listing has none.
    storage_class: answer?.StorageClass ?? (answer?.Metadata && "STANDARD"),
    user_metadata: decodeUserMetadata(answer?.Metadata),
    content_preview: firstCharacters(PREVIEW_CHARACTERS, content),
  };
  return withoutUndefined(row);
}

/** Whole code points only: half a surrogate pair is no character. */
export function firstCharacters(count: number, text = ""): string | undefined {
  return Array.from(text).slice(0, count).join("") || undefined;
}

/** The attributes that the event alone gives. */
function uploadToAttributes(upload: Upload): Omit<Row, "processed_at"> {
  return {
    file_key: upload.key,
    timestamp: upload.timestamp,
    bucket_name: upload.bucket,
    event_name: upload.eventName,
    file_size: upload.size,
    etag: upload.etag,
    version_id: upload.versionId,
    sequencer: upload.sequencer,
  };
}

/** The whole object's size: after the slash of a Content-Range, else the length of the answer. */
function totalSize({ ContentRange, ContentLength }: ObjectAnswer): number | undefined {
  const total = ContentRange?.match(/\/(\d+)$/)?.[1];
  return toSize(Number(total ?? ContentLength));
}

/** The lists of the trigger's filter, by the names of the variables and outputs. */
export const FILTERS = ["filter_prefixes", "filter_suffixes"] as const;

/** A list that is empty or absent lets every key through. */
export type Filter = Partial<Record<typeof FILTERS[number], string[]>>;

/** Whether the trigger lets a key through: it begins with a prefix and ends with a suffix. */
export function letsThrough(
  { filter_prefixes = [], filter_suffixes = [] }: Filter,
  key: string,
): boolean {
  const passes = (texts: string[], fits: (text: string) => boolean) =>
    texts.length === 0 || texts.some(fits);
  return passes(filter_prefixes, (text) => key.startsWith(text)) &&
    passes(filter_suffixes, (text) => key.endsWith(text));
}

/** An ETag without the quotes that S3's answers put around it; undefined for none. */
export function unquoted(etag: string | undefined): string | undefined {
  return etag?.replace(/^"(.*)"$/, "$1") || undefined;
}

/** A text that a row can hold, else undefined. */
function text(value: unknown): string | undefined {
  const usable = typeof value === "string" && value !== "" && value.length <= MAX_TEXT_LENGTH &&
    value.isWellFormed();
  return usable ? value : undefined;
}

function toSize(value: unknown): number | undefined {
  return Number.isSafeInteger(value) && value as number >= 0 ? value as number : undefined;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function withoutUndefined<T extends object>(object: T): T {
  return Object.fromEntries(Object.entries(object).filter(([, v]) => v !== undefined)) as T;
}
