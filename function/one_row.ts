/**
 * One version, one row. The row of an event is keyed by the event's time, which a backfill cannot
 * know: it uses the object's LastModified. So a version may come to have a row of each. Then the
 * event's stays, and whoever sees both deletes the backfill's. Each puts its own row first and looks
 * afterwards, so that of two at the same time at least one sees both.
 */

import type {
  AttributeValue,
  DeleteItemCommandInput,
  PutItemCommandInput,
  QueryCommandInput,
  QueryCommandOutput,
} from "@aws-sdk/client-dynamodb";
import { cannot } from "./errors.ts";
import { isRemoval } from "./removals.ts";

/** The `event_name` of a row that a backfill made. */
export const BACKFILLED = "ObjectCreated:Backfill";

/** An event is late after this time. A backfill leaves what is younger than twice that to its event. */
export const ON_TIME_MS = 5 * 60_000;

/** How far an event's time may be before LastModified: the clocks of S3's own machines differ. */
export const CLOCK_MARGIN_MS = 5000;

/** Rows of a key that one query reads. */
const PAGE_ROWS = 200;

/** How often a backfill looks for a free time before it gives up. */
const MOST_TRIES = 5;

/** Before and after the timestamp of every row. */
const FIRST_TIME = "0";
const LAST_TIME = "9";

/** The table, in DynamoDB's own terms but for its name. */
export interface Table {
  putItem(put: Put): Promise<unknown>;
  /** One page. */
  queryRows(query: RowQuery): Promise<Pick<QueryCommandOutput, "Items" | "LastEvaluatedKey">>;
  deleteItem(deletion: Deletion): Promise<unknown>;
  /** Milliseconds since 1970. */
  now(): number;
  /** {@link ON_TIME_MS}, unless the environment says otherwise. */
  onTimeMs: number;
}

export type Put = Omit<PutItemCommandInput, "TableName"> & { Item: Record<string, AttributeValue> };
export type RowQuery = Omit<QueryCommandInput, "TableName">;
export type Deletion = Omit<DeleteItemCommandInput, "TableName">;

/** What tells versions of a key apart. */
type Version = { [name in "version_id" | "etag" | "last_modified"]?: unknown };

/** What tells of a row which version it is about, and who wrote it. Times are ISO 8601 UTC. */
export interface Identity {
  file_key: string;
  timestamp: string;
  bucket_name: string;
  event_name: string;
  version_id?: string;
  etag?: string;
  last_modified?: string;
}

/** A whole row: strings, numbers and a map of strings. */
type Row = Identity & { sequencer?: string };

/**
 * A row as a put that only ever goes forward: a duplicate or an older event fails the condition.
 * S3 orders the events of a key by their sequencers, compared as strings.
 */
export function rowToPut(row: Row): Put {
  const Item: Put["Item"] = {};
  for (const [name, value] of Object.entries(row)) {
    Item[name] = toAttribute(value);
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

function toAttribute(value: string | number | Record<string, string>): AttributeValue {
  if (typeof value === "number") return { N: String(value) };
  if (typeof value === "string") return { S: value };
  return { M: Object.fromEntries(Object.entries(value).map(([name, S]) => [name, { S }])) };
}

/** Puts an event's row. If the event is late, a backfill may have been there: its row is deleted. */
export async function putEventRow(row: Row, table: Table): Promise<"written" | "unchanged"> {
  const outcome = await putRow(row, table);
  const createdMs = createdMsOf(row);
  const ageMs = table.now() - Math.min(createdMs, Date.parse(row.timestamp));
  if (ageMs < table.onTimeMs) return outcome; // false if an age is unknown
  const version = Number.isNaN(createdMs) ? { ...row, last_modified: undefined } : row;
  for (const found of await findBackfilled(row, createdMs, table)) {
    if (isBackfilled(found) && isSameVersion(found, version)) await deleteRow(found, table);
  }
  return outcome;
}

/** NaN if unknown. Without versions the answer may be about a later object of the same bytes. */
function createdMsOf({ timestamp, last_modified = "" }: Row): number {
  const createdMs = Date.parse(last_modified);
  return createdMs <= Date.parse(timestamp) + CLOCK_MARGIN_MS ? createdMs : NaN;
}

/** Rows among which a backfill's row of an event's version is, if there is one. */
async function findBackfilled(row: Row, createdMs: number, table: Table): Promise<Identity[]> {
  const isUnknown = Number.isNaN(createdMs);
  const lastMs = isUnknown ? Date.parse(row.timestamp) + CLOCK_MARGIN_MS : createdMs;
  const from = isUnknown ? FIRST_TIME : backfillTime(createdMs);
  const to = backfillTime(lastMs, 999_999);
  return (await queryRows(row, { from, to, newestFirst: true }, table)).rows;
}

/**
 * Puts a backfill's row, whose `timestamp` is set here, unless its version has a row.
 *
 * @param seen the key's rows, if they have just been looked for
 * @returns the row that is written, though an event may take its place; "missing" in a dry run
 */
export async function putBackfillRow<R extends Row & { last_modified: string }>(
  row: R,
  { seen, dryRun }: { seen?: Identity[]; dryRun: boolean },
  table: Table,
): Promise<R | "unchanged" | "missing"> {
  const createdMs = Date.parse(row.last_modified);
  let rows = seen ?? await findRows(row, createdMs, table);
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    const own = rowsOfObject(rows, row);
    if (own.length > 0) {
      if (!dryRun) await keepOne(own, table);
      return "unchanged";
    }
    if (dryRun) return "missing";
    const put = { ...row, timestamp: freeTime(createdMs, rows) };
    const isPut = await putRow(put, table) === "written";
    rows = await findRows(row, createdMs, table);
    if (!isPut) continue; // another version has taken that time meanwhile, or this one its row
    await keepOne(rowsOfObject(rows, row), table);
    return put;
  }
  throw cannot("write the row of", objectOf(row), "others took every time that was free");
}

/**
 * The rows of a key that may be of an object. An event's row has the time when the upload ended: it
 * is among the first from LastModified on. For a multipart upload or a replica LastModified may be
 * long before that: then its row is among the key's newest, unless 200 newer ones came.
 */
export async function findRows(
  object: { file_key: string; bucket_name: string },
  createdMs: number,
  table: Table,
): Promise<Identity[]> {
  const span = { from: backfillTime(createdMs - CLOCK_MARGIN_MS), to: LAST_TIME };
  const first = await queryRows(object, { ...span, newestFirst: false }, table);
  if (first.isLast) return first.rows;
  const newest = await queryRows(object, { ...span, newestFirst: true }, table);
  return [...first.rows, ...newest.rows];
}

/** Deletes all rows of a version but one: an event's, or else the first of a backfill's. */
async function keepOne(own: Identity[], table: Table): Promise<void> {
  const [first] = own.toSorted((a, b) => a.timestamp < b.timestamp ? -1 : 1);
  const kept = own.find((row) => !isBackfilled(row)) ?? first;
  for (const row of own) {
    if (isBackfilled(row) && row.timestamp !== kept.timestamp) await deleteRow(row, table);
  }
}

/** Those of a version's object: a removal's row, which names its version too, stays beside it. */
function rowsOfObject(rows: Identity[], version: Version): Identity[] {
  return rows.filter((row) => !isRemoval(row.event_name) && isSameVersion(row, version));
}

function isBackfilled({ event_name }: Identity): boolean {
  return event_name === BACKFILLED;
}

/** A version is its id; without versions its ETag and LastModified, as far as both rows know it. */
export function isSameVersion(a: Version, b: Version): boolean {
  if (a.version_id !== undefined || b.version_id !== undefined) {
    return a.version_id === b.version_id;
  }
  const [modified = b.last_modified, other = modified] = [a.last_modified, b.last_modified];
  return a.etag === b.etag && modified === other;
}

/** The first microsecond from LastModified on that no row has. */
function freeTime(createdMs: number, rows: Identity[]): string {
  const taken = new Set(rows.map(({ timestamp }) => timestamp));
  let microseconds = 0;
  while (taken.has(backfillTime(createdMs, microseconds))) microseconds++;
  return backfillTime(createdMs, microseconds);
}

/**
 * The time of a backfill's row. An event's has three digits after the point: this one has six, so that
 * no event's put ever meets the row of another version.
 */
function backfillTime(createdMs: number, microseconds = 0): string {
  const second = new Date(createdMs).toISOString().slice(0, "2026-01-02T03:04:05".length);
  return `${second}.${String(microseconds).padStart(6, "0")}Z`;
}

/** Puts a row, and looks for no other. A refused condition is success: it is there, maybe by this call's own first try. */
export async function putRow(row: Row, table: Table): Promise<"written" | "unchanged"> {
  try {
    await table.putItem(rowToPut(row));
    return "written";
  } catch (error) {
    if (isRefusedCondition(error)) return "unchanged";
    throw cannot("write the row of", objectOf(row), error);
  }
}

/** Deletes a backfill's row, if it still is that of its version: another may have taken its time. */
async function deleteRow(row: Identity, table: Table): Promise<void> {
  const { file_key, timestamp, version_id, etag = "" } = row;
  try {
    await table.deleteItem({
      Key: { file_key: { S: file_key }, timestamp: { S: timestamp } },
      ConditionExpression: "event_name = :backfilled AND " +
        (version_id === undefined
          ? "attribute_not_exists(version_id) AND etag = :version"
          : "version_id = :version"),
      ExpressionAttributeValues: {
        ":backfilled": { S: BACKFILLED },
        ":version": { S: version_id ?? etag },
      },
    });
  } catch (error) {
    if (!isRefusedCondition(error)) throw cannot("delete a second row of", objectOf(row), error);
  }
}

/** A page of a key's rows, those at both ends of the span included. */
async function queryRows(
  { file_key, bucket_name }: { file_key: string; bucket_name: string },
  { from, to, newestFirst }: { from: string; to: string; newestFirst: boolean },
  table: Table,
): Promise<{ rows: Identity[]; isLast: boolean }> {
  const query: RowQuery = {
    KeyConditionExpression: "file_key = :key AND #timestamp BETWEEN :from AND :to",
    ProjectionExpression: "#timestamp, event_name, version_id, etag, last_modified",
    ExpressionAttributeNames: { "#timestamp": "timestamp" }, // a reserved word
    ExpressionAttributeValues: { ":key": { S: file_key }, ":from": { S: from }, ":to": { S: to } },
    ScanIndexForward: !newestFirst,
    Limit: PAGE_ROWS,
    ConsistentRead: true,
  };
  const { Items = [], LastEvaluatedKey } = await table.queryRows(query).catch((error) => {
    throw cannot("look for the rows of", { key: file_key, bucket: bucket_name }, error);
  });
  const rows = Items.map((item) => {
    const strings = Object.entries(item).map(([name, { S }]) => [name, S]);
    return { file_key, bucket_name, ...Object.fromEntries(strings) } as Identity;
  });
  return { rows, isLast: LastEvaluatedKey === undefined };
}

function isRefusedCondition(error: unknown): boolean {
  return (error as Error).name === "ConditionalCheckFailedException";
}

function objectOf({ file_key, bucket_name }: Identity) {
  return { key: file_key, bucket: bucket_name };
}
