/** Rows of the table: finding, counting, and deleting them. */

import {
  type AttributeValue,
  DeleteItemCommand,
  paginateQuery,
  paginateScan,
} from "@aws-sdk/client-dynamodb";
import type { Upload } from "../handler.ts";
import type { Clients, Stack } from "./target.ts";

/** A row of the table: strings and numbers only. */
export type Item = Record<string, string | number>;

/** The `event_name` of a row that a backfill made. */
export const BACKFILLED = "ObjectCreated:Backfill";

export function toItem(attributes: Record<string, AttributeValue>): Item {
  return Object.fromEntries(
    Object.entries(attributes).map(([name, { S, N }]) => [name, N === undefined ? S! : Number(N)]),
  );
}

/** A row's key, as DynamoDB takes it. */
export function rowKey({ file_key, timestamp }: Record<string, unknown>) {
  return { file_key: { S: String(file_key) }, timestamp: { S: String(timestamp) } };
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

/** The rows of one version of an object; without versions, of its ETag. */
export async function rowsOfVersion(stack: Stack, object: Upload): Promise<Item[]> {
  const isOfVersion = ({ version_id, etag }: Item) =>
    version_id === object.versionId && (version_id !== undefined || etag === object.etag);
  return (await queryRows(stack, object.key)).filter(isOfVersion);
}

/**
 * The rows of one version, without a backfill's where the object's own event came after all: its row
 * has the exact time and the sequencer, and the backfill's is deleted.
 */
export async function tidyRows(stack: Stack, object: Upload): Promise<Item[]> {
  const rows = await rowsOfVersion(stack, object);
  const own = rows.filter(({ event_name }) => event_name !== BACKFILLED);
  if (own.length === 0) return rows;
  for (const row of rows) {
    if (row.event_name === BACKFILLED) await deleteRow(stack, row);
  }
  return own;
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
