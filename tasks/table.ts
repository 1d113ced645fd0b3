/** The table: its rows by their keys, and counting and deleting them. */

import {
  type AttributeValue,
  BatchGetItemCommand,
  DeleteItemCommand,
  paginateQuery,
  paginateScan,
} from "@aws-sdk/client-dynamodb";
import { CLOCK_MARGIN_MS, isSameVersion } from "../function/one_row.ts";
import { deletesVersion, isRemoval } from "../function/removals.ts";
import { type Upload, versionOf } from "../handler.ts";
import type { Clients } from "./clients.ts";
import type { Stack } from "./target.ts";

/** A row of the table: strings, numbers and the user metadata, as {@link toItem} makes them. */
export type Item = Record<string, string | number> & {
  user_metadata?: Record<string, string>;
};

/** Less than any timestamp; DynamoDB takes no empty text here. */
const BEFORE_ALL = "\u0000";

/** The most keys that BatchGetItem takes. */
export const BATCH_KEYS = 100;

/**
 * A row as DynamoDB has it. The function writes strings, whole numbers and a map of strings; what others
 * wrote stays exact: a number that JavaScript cannot hold as its digits, and another type as DynamoDB's
 * own JSON.
 */
export function toItem(attributes: Record<string, AttributeValue>): Item {
  const row: Item = Object.fromEntries(
    Object.entries(attributes).map(([name, value]) => [name, toValue(value)]),
  );
  const toPair = ([name, { S = "" }]: [string, AttributeValue]) => [name, S];
  const pairs = Object.entries(attributes.user_metadata?.M ?? {}).map(toPair);
  return pairs.length === 0 ? row : { ...row, user_metadata: Object.fromEntries(pairs) };
}

/** An attribute's value as one text. */
export function toText(value: Item[string] | Item["user_metadata"] = ""): string {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
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

/** What tells a row from all others. */
export function idOf(row: Record<string, unknown>): string {
  return JSON.stringify(rowKey(row));
}

/** The rows of a key since a time in ISO 8601, the newest first. No more are read than the limit. */
export async function* rowsOfKey(
  { dynamo, outputs }: Stack,
  key: string,
  { from = BEFORE_ALL, limit = Infinity }: { from?: string; limit?: number } = {},
): AsyncGenerator<Item> {
  const pageSize = limit === Infinity ? undefined : limit;
  const pages = paginateQuery({ client: dynamo, pageSize }, {
    TableName: outputs.dynamodb_table_name,
    KeyConditionExpression: "file_key = :key AND #timestamp >= :from",
    ExpressionAttributeNames: { "#timestamp": "timestamp" }, // a reserved word
    ExpressionAttributeValues: { ":key": { S: key }, ":from": { S: from } },
    ScanIndexForward: false,
    ConsistentRead: true,
  });
  let left = limit;
  for await (const { Items = [] } of pages) {
    yield* Items.slice(0, left).map(toItem);
    left -= Items.length;
    if (left <= 0) return;
  }
}

/** All rows of a key, the newest first. */
export function queryRows(stack: Stack, key: string): Promise<Item[]> {
  return Array.fromAsync(rowsOfKey(stack, key));
}

/** What the row of a removal says in place of a type; undefined for the row of an object. */
export function removalOf({ event_name, version_id }: Item): string | undefined {
  if (!isRemoval(event_name)) return undefined;
  return deletesVersion(event_name, version_id) ? "version deleted" : "deleted";
}

/** The rows of one version's object, newest first. `object.timestamp` is its LastModified or its event's time. */
export async function rowsOfVersion(stack: Stack, object: Upload): Promise<Item[]> {
  const from = new Date(Date.parse(object.timestamp) - CLOCK_MARGIN_MS).toISOString();
  const version = { version_id: versionOf(object.versionId), etag: object.etag };
  const rows = await Array.fromAsync(rowsOfKey(stack, object.key, { from }));
  return rows.filter((row) =>
    !isRemoval(row.event_name) &&
    isSameVersion({ ...row, version_id: versionOf(row.version_id) }, version)
  );
}

/** The rows of any number of keys that are still there, each once, in the order of the keys. */
export async function* getRows(
  { dynamo, outputs }: Stack,
  keys: ReturnType<typeof rowKey>[],
): AsyncGenerator<Item> {
  const table = outputs.dynamodb_table_name;
  const different = [...new Map(keys.map((key) => [JSON.stringify(key), key])).values()];
  for (let start = 0; start < different.length; start += BATCH_KEYS) {
    const batch = different.slice(start, start + BATCH_KEYS);
    const found = new Map<string, Item>();
    for (let Keys = batch; Keys.length > 0;) {
      const { Responses = {}, UnprocessedKeys = {} } = await dynamo.send(
        new BatchGetItemCommand({ RequestItems: { [table]: { Keys, ConsistentRead: true } } }),
      );
      for (const row of (Responses[table] ?? []).map(toItem)) found.set(idOf(row), row);
      Keys = (UnprocessedKeys[table]?.Keys ?? []) as typeof keys;
    }
    yield* batch.map((key) => found.get(JSON.stringify(key))).filter((row) => row !== undefined);
  }
}

export async function deleteRow({ dynamo, outputs }: Stack, row: Item): Promise<void> {
  const TableName = outputs.dynamodb_table_name;
  await dynamo.send(new DeleteItemCommand({ TableName, Key: rowKey(row) }));
}

/** Counts rows, no further than `limit`. */
export async function countRows(
  { dynamo }: Pick<Clients, "dynamo">,
  TableName: string,
  limit: number,
): Promise<number> {
  let rows = 0;
  try {
    const pages = paginateScan({ client: dynamo }, { TableName, Select: "COUNT" });
    for await (const { Count = 0 } of pages) {
      rows += Count;
      if (rows >= limit) break;
    }
  } catch (error) {
    if ((error as Error).name !== "ResourceNotFoundException") throw error;
  }
  return rows;
}
