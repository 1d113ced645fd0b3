/** Rows of the table: finding, counting, and deleting them. */

import {
  type AttributeValue,
  BatchGetItemCommand,
  DeleteItemCommand,
  ExecuteStatementCommand,
  type ExecuteStatementCommandOutput,
  paginateQuery,
  paginateScan,
} from "@aws-sdk/client-dynamodb";
import { BACKFILLED, CLOCK_MARGIN_MS } from "../function/batch.ts";
import { type Upload, versionOf } from "../handler.ts";
import { TIME, type Time } from "./signals.ts";
import type { Clients, Stack } from "./target.ts";

/** A row of the table: strings and numbers only, as {@link toItem} makes them. */
export type Item = Record<string, string | number>;

/** No upload in one request takes longer. */
const LONGEST_REQUEST_MS = 86_400_000;

/** S3 ends an upload in parts after 7 days, as main.tf says, at midnight and maybe late. */
const LONGEST_UPLOAD_MS = 10 * 86_400_000;

/** Lambda keeps an event so long, as main.tf says. */
const OLDEST_EVENT_MS = 6 * 3_600_000;

/** So old is an object, if it was not uploaded in parts, when its own event came or never will. */
export const SETTLED_MS = LONGEST_REQUEST_MS + OLDEST_EVENT_MS;

/** Rows of a key that are read at once. */
const PAGE_ROWS = 100;

/**
 * Keys of one statement, which may name 50. An answer has at most 10 rows, and most keys have one.
 * https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ql-operators.html
 */
const STATEMENT_KEYS = 8;

/** Answers of a statement that are read; a key with many rows is then better asked for on its own. */
const MOST_ANSWERS = 4;

/** The most keys that BatchGetItem takes. */
export const BATCH_KEYS = 100;

/** Before and after every timestamp of a row. */
const FIRST_TIME = "0";
const LAST_TIME = "9";

/** What tells rows apart; the rest of a row is ten times as long. */
const IDENTITY = "file_key, #timestamp, event_name, version_id, etag, last_modified";

/**
 * A row as DynamoDB has it. The function writes strings and whole numbers; what others wrote stays exact:
 * a number that JavaScript cannot hold as its digits, and another type as DynamoDB's own JSON.
 */
export function toItem(attributes: Record<string, AttributeValue>): Item {
  return Object.fromEntries(
    Object.entries(attributes).map(([name, value]) => [name, toValue(value)]),
  );
}

function toValue(value: AttributeValue): string | number {
  const { S, N } = value;
  if (S !== undefined) return S;
  if (N !== undefined) return String(Number(N)) === N ? Number(N) : N;
  const toText = (_: string, part: unknown) => part instanceof Uint8Array ? part.toBase64() : part;
  return JSON.stringify(value, toText);
}

/** A row's key, as DynamoDB takes it. */
export function rowKey({ file_key, timestamp }: Record<string, unknown>) {
  return { file_key: { S: String(file_key) }, timestamp: { S: String(timestamp) } };
}

/** The key of the row that a line of the function's log says it wrote. */
export function rowKeyOf({ file_key, event_time, timestamp }: Record<string, unknown>) {
  // Lines of earlier versions have no event_time: it was their timestamp.
  return rowKey({ file_key, timestamp: event_time ?? timestamp });
}

/** The rows of a key, oldest first. */
export async function queryRows({ dynamo, outputs }: Stack, key: string): Promise<Item[]> {
  const items: Item[] = [];
  const pages = paginateQuery({ client: dynamo }, {
    TableName: outputs.dynamodb_table_name,
    KeyConditionExpression: "file_key = :key",
    ExpressionAttributeValues: { ":key": { S: key } },
    ConsistentRead: true,
  });
  for await (const { Items = [] } of pages) items.push(...Items.map(toItem));
  return items;
}

/** The rows of any number of keys that are still there, in the order of the keys. */
export async function getRows(
  { dynamo, outputs }: Stack,
  keys: ReturnType<typeof rowKey>[],
): Promise<Item[]> {
  const found = new Map<string, Item>();
  const table = outputs.dynamodb_table_name;
  for (let wanted = keys; wanted.length > 0;) {
    const Keys = wanted.slice(0, BATCH_KEYS);
    const { Responses = {}, UnprocessedKeys = {} } = await dynamo.send(
      new BatchGetItemCommand({ RequestItems: { [table]: { Keys, ConsistentRead: true } } }),
    );
    for (const item of (Responses[table] ?? []).map(toItem)) {
      found.set(JSON.stringify(rowKey(item)), item);
    }
    const unprocessed = (UnprocessedKeys[table]?.Keys ?? []) as typeof keys;
    wanted = [...unprocessed, ...wanted.slice(BATCH_KEYS)];
  }
  return keys.map((key) => found.get(JSON.stringify(key))).filter((row) => row !== undefined);
}

/** The rows of one version, newest first. `object.timestamp` is as in {@link rowsNear}. */
export async function rowsOfVersion(stack: Stack, object: Upload): Promise<Item[]> {
  const rows = await Array.fromAsync(rowsNear(stack, object));
  return rows.filter((row) => isOfVersion(row, object));
}

/** The rows of one version, looked for until the deadline. */
export function waitForRows(stack: Stack, object: Upload, deadlineMs: number): Promise<Item[]> {
  return lookForRows(() => rowsOfVersion(stack, object), deadlineMs);
}

/** Looks for rows often at first, then less; none at the deadline. */
export async function lookForRows(
  look: () => Promise<Item[]>,
  deadlineMs: number,
  time: Time = TIME,
): Promise<Item[]> {
  const endMs = time.nowMs() + deadlineMs;
  for (let waitMs = 20;; waitMs = Math.min(1000, waitMs * 1.2)) {
    const items = await look();
    if (items.length > 0 || time.nowMs() >= endMs) return items;
    await time.pause(Math.min(waitMs, endMs - time.nowMs()));
  }
}

/**
 * The rows of each of some listed objects, whose timestamp is their LastModified. Where an object's
 * own event came after all, its row has the exact time and the sequencer, and a backfill's row is
 * deleted.
 */
export async function tidyRows(stack: Stack, objects: Upload[]): Promise<Item[][]> {
  const found = await findRows(stack, objects);
  return Promise.all(found.map(async (rows) => {
    const own = rows.filter((row) => !isBackfilled(row));
    if (own.length === 0) return rows;
    for (const row of rows.filter(isBackfilled)) await deleteRow(stack, row);
    return own;
  }));
}

/** As {@link tidyRows}, but deletes nothing. */
export async function findRows(stack: Stack, objects: Upload[]): Promise<Item[][]> {
  const found: Promise<Item[][]>[] = [];
  for (let start = 0; start < objects.length; start += STATEMENT_KEYS) {
    found.push(findTogether(stack, objects.slice(start, start + STATEMENT_KEYS)));
  }
  return (await Promise.all(found)).flat();
}

/**
 * The rows of each of a few objects, found by one statement. Where that finds none a query looks once
 * more, as a row that is overlooked would be written twice, and one emulator overlooks some.
 */
async function findTogether(stack: Stack, objects: Upload[]): Promise<Item[][]> {
  const all = await selectRows(stack, objects) ?? [];
  return Promise.all(objects.map(async (object) => {
    const { from, to } = timesOf(object);
    const near = all.filter(({ file_key, timestamp }) =>
      file_key === object.key && timestamp >= from && timestamp <= to
    );
    const rows = await pickRows(near, object);
    return rows.length > 0 ? rows : await pickRows(rowsNear(stack, object, IDENTITY), object);
  }));
}

/** The rows of an object's version, of those that {@link rowsNear} returns. */
async function pickRows(
  near: Iterable<Item> | AsyncIterable<Item>,
  object: Upload,
): Promise<Item[]> {
  const rows: Item[] = [];
  for await (const row of near) {
    // A backfill's row has exactly the object's time: the search for a second row ends there.
    if (rows.length > 0 && row.timestamp < object.timestamp) break;
    if (isOfVersion(row, object)) rows.push(row);
  }
  return rows;
}

/**
 * The rows of some objects' keys between the first and the last of all their times, newest first;
 * undefined if there are many.
 */
async function selectRows(
  { dynamo, outputs }: Stack,
  objects: Upload[],
): Promise<Item[] | undefined> {
  const keys = [...new Set(objects.map(({ key }) => key))];
  const times = objects.map(timesOf);
  const from = times.map(({ from }) => from).reduce((a, b) => a < b ? a : b);
  const to = times.map(({ to }) => to).reduce((a, b) => a > b ? a : b);
  const statement = {
    Statement: `SELECT ${IDENTITY.replace("#timestamp", '"timestamp"')} ` +
      `FROM "${outputs.dynamodb_table_name}" ` +
      `WHERE file_key IN [${keys.map(() => "?")}] AND "timestamp" BETWEEN ? AND ?`,
    Parameters: [...keys, from, to].map((S) => ({ S })),
    ConsistentRead: true,
  };
  const rows: Item[] = [];
  let NextToken: string | undefined;
  let answers = 0;
  do {
    if (++answers > MOST_ANSWERS) return undefined;
    const command = new ExecuteStatementCommand({ ...statement, NextToken });
    const answer: ExecuteStatementCommandOutput = await dynamo.send(command);
    rows.push(...(answer.Items ?? []).map(toItem));
    NextToken = answer.NextToken;
  } while (NextToken !== undefined);
  return rows.sort((a, b) => a.timestamp > b.timestamp ? -1 : a.timestamp < b.timestamp ? 1 : 0);
}

/**
 * The rows of a key that may be of one version, newest first, where `object.timestamp` is the
 * object's LastModified or the time of its event. A key may have 100,000 rows of other times.
 *
 * An event's row has the time when the upload ended. That is LastModified, or within the longest
 * request after it; but LastModified of an upload in parts is when that began, maybe days before.
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
 */
function rowsNear(stack: Stack, object: Upload, attributes?: string): AsyncGenerator<Item> {
  return rowsBetween(stack, object.key, timesOf(object), attributes);
}

/** The times that rows of an object may have, as {@link rowsNear} says. */
function timesOf(object: Upload): { from: string; to: string } {
  const ms = Date.parse(object.timestamp);
  const from = toIso(ms - CLOCK_MARGIN_MS);
  return { from, to: isInParts(object) ? LAST_TIME : toIso(ms + LONGEST_REQUEST_MS) };
}

/**
 * Deletes a backfill's row of a version whose own event has been handled now. `upload` is what the
 * event says; the event's row knows the object's LastModified, which is the time of a backfill's row.
 */
export async function deleteBackfilled(stack: Stack, upload: Upload): Promise<void> {
  const { key, timestamp } = upload;
  const itsTime = { from: timestamp, to: timestamp };
  const [own] = await Array.fromAsync(rowsBetween(stack, key, itsTime, IDENTITY));
  if (own === undefined || isBackfilled(own) || !isOfVersion(own, upload)) return;
  for await (const row of rowsBetween(stack, key, timesOfBackfill(own), IDENTITY)) {
    if (isBackfilled(row) && isOfVersion(row, upload)) await deleteRow(stack, row);
  }
}

/** When a backfill may have found the object of a row: the second of its LastModified. */
function timesOfBackfill(own: Item): { from: string; to: string } {
  const eventMs = Date.parse(String(own.timestamp));
  if (own.last_modified !== undefined) {
    const from = String(own.last_modified);
    return { from, to: toIso(Date.parse(from) + 999) };
  }
  // The object was gone when the event was handled.
  const to = toIso(eventMs + CLOCK_MARGIN_MS);
  return { from: isInParts(own) ? FIRST_TIME : toIso(eventMs - LONGEST_REQUEST_MS), to };
}

/** When the own event of a listed object comes at the latest. */
export function lastEventMs(object: Upload): number {
  const longestMs = isInParts(object) ? LONGEST_UPLOAD_MS : LONGEST_REQUEST_MS;
  return Date.parse(object.timestamp) + longestMs + OLDEST_EVENT_MS;
}

/** The rows of a key in a span of time, its ends included, newest first. */
async function* rowsBetween(
  { dynamo, outputs }: Stack,
  key: string,
  { from, to }: { from: string; to: string },
  attributes?: string,
): AsyncGenerator<Item> {
  const pages = paginateQuery({ client: dynamo, pageSize: PAGE_ROWS }, {
    TableName: outputs.dynamodb_table_name,
    KeyConditionExpression: "file_key = :key AND #timestamp BETWEEN :from AND :to",
    ProjectionExpression: attributes,
    ExpressionAttributeNames: { "#timestamp": "timestamp" }, // a reserved word
    ExpressionAttributeValues: {
      ":key": { S: key },
      ":from": { S: from },
      ":to": { S: to },
    },
    ScanIndexForward: false,
    ConsistentRead: true,
  });
  for await (const { Items = [] } of pages) yield* Items.map(toItem);
}

/** A row is of a version; without versions, of its ETag. */
function isOfVersion({ version_id, etag }: Item, object: Upload): boolean {
  const version = versionOf(object.versionId);
  return versionOf(version_id) === version && (version !== undefined || etag === object.etag);
}

export function isBackfilled({ event_name }: Item): boolean {
  return event_name === BACKFILLED;
}

/** S3's tag of an upload in parts ends with their number. An upload without a tag may be one. */
export function isInParts({ etag }: { etag?: unknown }): boolean {
  return etag === undefined || /-\d+$/.test(String(etag));
}

function toIso(ms: number): string {
  return new Date(ms).toISOString();
}

export async function deleteRow({ dynamo, outputs }: Stack, row: Item): Promise<void> {
  const TableName = outputs.dynamodb_table_name;
  await dynamo.send(new DeleteItemCommand({ TableName, Key: rowKey(row) }));
}

/** Counts rows, no further than `limit`; undefined where the role may not read the table. */
export async function countRows(
  { dynamo }: Pick<Clients, "dynamo">,
  TableName: string,
  limit: number,
): Promise<number | undefined> {
  let rows = 0;
  try {
    const pages = paginateScan({ client: dynamo }, { TableName, Select: "COUNT" });
    for await (const { Count = 0 } of pages) {
      rows += Count;
      if (rows >= limit) break;
    }
  } catch (error) {
    const { name } = error as Error;
    if (name === "AccessDeniedException") return undefined;
    if (name !== "ResourceNotFoundException") throw error;
  }
  return rows;
}
