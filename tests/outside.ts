/** S3 event records, and a fake of all that the core needs of the outside, with what was called. */

import assert from "node:assert/strict";
import type { SdkError } from "../function/errors.ts";
import { type Deletion, ON_TIME_MS, type Put, type RowQuery } from "../function/one_row.ts";
import type { ObjectAnswer, Source } from "../function/read.ts";
import { handleEvent, type LogLine, type Outside, type Row } from "../handler.ts";

/** What a line holds that no reader of lines breaks in two. */
export function assertOneJsonLine(line: string) {
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(line, /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/);
  return JSON.parse(line);
}

export const EVENT_TIME = "2026-01-02T03:04:05.678Z";

/** The object of an S3 event record, its key form-encoded. */
interface EventObject {
  key: string;
  size?: number;
  eTag?: string;
  versionId?: string;
  sequencer?: string;
}

/** An S3 event record about a new object, with just these fields of it. */
export function toRecord(bucket: string, object: EventObject, eventTime: string = EVENT_TIME) {
  return {
    eventVersion: "2.1",
    eventSource: "aws:s3",
    eventTime,
    eventName: "ObjectCreated:Put",
    s3: { bucket: { name: bucket }, object },
  };
}

/** An S3 event of now, so on time, about objects of one size, as of a bucket without versions. */
export function toEvent(bucket: string, encodedKeys: string[], size: number) {
  const sequencer = "0055AED6DCD90281E5";
  const now = new Date().toISOString();
  return { Records: encodedKeys.map((key) => toRecord(bucket, { key, size, sequencer }, now)) };
}

/** A record as a test of the core has it; `fields` are the object's, `top` the record's own. */
export function record(fields: Record<string, unknown> = {}, top: Record<string, unknown> = {}) {
  const sequencer = "0055AED6DCD90281E5";
  const object = { key: "key", size: 4, eTag: "e1", versionId: "v1", sequencer, ...fields };
  return { ...toRecord("uploads", object), ...top };
}

/** A record whose bucket is another one, or none. */
export function recordOf(bucket: unknown) {
  return record({}, { s3: { ...record().s3, bucket } });
}

export function event(...records: unknown[]) {
  return { Records: records };
}

export function object(content: string): ObjectAnswer & { bytes: Uint8Array } {
  const bytes = new TextEncoder().encode(content);
  return {
    bytes,
    ContentLength: bytes.length,
    ContentType: "text/plain",
    ETag: '"e1"',
    LastModified: new Date("2026-01-02T03:04:05Z"),
    Metadata: {}, // as the SDK makes it of every answer
  };
}

/** An error as the SDK throws it. */
export function awsError(name: string, status?: number, message = "no"): SdkError {
  return Object.assign(new Error(message), { name, $metadata: { httpStatusCode: status } });
}

/** What was asked of an {@link Outside}, in order. */
interface Calls {
  aws: string[];
  rows: Row[];
  table: Map<string, Row>;
  log: LogLine[];
}

type Verb = "get" | "head" | "put" | "query" | "delete";

/** Objects by key, any other being "text", and errors that the next calls end in. */
interface Given extends Partial<Record<`${Verb}Errors`, Error[]>> {
  objects?: Record<string, ObjectAnswer & { bytes: Uint8Array }>;
  /** ISO 8601; two seconds after {@link record}'s event by default. */
  now?: string;
  /** The time of that day when the stack was made. */
  stackCreated?: string;
}

/** Handles an event of some records; answers the error, and what was called. */
export async function handleRecords(records: unknown, given?: Given) {
  const { outside, calls } = fakes(given);
  let error: string | undefined;
  try {
    await handleEvent(event(...Array.isArray(records) ? records : [records]), outside);
  } catch (thrown) {
    error = String(thrown);
  }
  return { ...calls, error };
}

/** An outside of S3's objects and a table with DynamoDB's condition, whose clock ticks as it is read. */
export function fakes(given: Given = {}) {
  const { objects = {}, now = "2026-01-02T03:04:07Z", stackCreated } = given;
  const calls: Calls = { aws: [], rows: [], table: new Map(), log: [] };
  const find = ({ key }: Source) => Object.hasOwn(objects, key) ? objects[key] : object("text");
  const call = async (verb: Verb, what: string) => {
    await Promise.resolve();
    calls.aws.push(`${verb.toUpperCase()} ${what}`);
    const error = given[`${verb}Errors`]?.shift();
    if (error) throw error;
  };
  let nowMs = Date.parse(now);
  const outside: Outside = {
    bucket: "uploads",
    onTimeMs: ON_TIME_MS,
    stackCreatedMs: stackCreated ? Date.parse(`2026-01-02T${stackCreated}Z`) : undefined,
    async getObject(source) {
      await call("get", `${source.key} ${source.versionId}`);
      return find(source);
    },
    async headObject(source) {
      await call("head", `${source.key} ${source.versionId}`);
      const { bytes: _, ...answer } = find(source);
      return answer;
    },
    async putItem(put) {
      await call("put", nameOf(put.Item));
      calls.rows.push(putInto(calls.table, put));
    },
    async queryRows(query) {
      const { ":key": key, ":from": from, ":to": to } = query.ExpressionAttributeValues!;
      const order = query.ScanIndexForward ? "up" : "down";
      await call("query", `${key.S} ${from.S} to ${to.S} ${order}`);
      return queryIn(calls.table, query);
    },
    async deleteItem(deletion) {
      await call("delete", `${nameOf(deletion.Key!)} ${deletion.Key!.timestamp.S}`);
      deleteFrom(calls.table, deletion);
    },
    now: () => nowMs += 100,
    remainingMs: () => 28_000,
    log: (line) => calls.log.push(line),
  };
  return { outside, calls };
}

/** What the calls of {@link Calls.aws} are: GET, PUT, and so on. */
export function namesOfCalls(aws: string[]): string[] {
  return aws.map((call) => call.split(" ")[0]);
}

function nameOf({ file_key }: Put["Item"]) {
  return file_key.S!;
}

/** Rows by key and time. */
export type FakeTable = Map<string, Row>;

const REFUSED = ["ConditionalCheckFailedException", 400] as const;

/** Puts a row as DynamoDB does. @throws {Error} the condition fails */
export function putInto(table: FakeTable, put: Put): Row {
  const toValue = ({ N, S, M }: Put["Item"][string]): unknown =>
    M ? Object.fromEntries(Object.entries(M).map(([name, { S }]) => [name, S])) : S ?? Number(N);
  const values = Object.entries(put.Item).map(([name, value]) => [name, toValue(value)]);
  const row: Row = Object.fromEntries(values);
  const id = JSON.stringify([row.file_key, row.timestamp]);
  if (!holds(put, table.get(id))) throw awsError(...REFUSED);
  table.set(id, row);
  return row;
}

/** DynamoDB's answer to a condition: absences and comparisons with a value, by AND or by OR. */
function holds(
  { ConditionExpression, ExpressionAttributeValues }: Pick<Put | Deletion, ConditionFields>,
  row: Row | undefined,
): boolean {
  const holdsOne = (condition: string) => {
    const [, absent] = condition.match(/^attribute_not_exists\((\w+)\)$/) ?? [];
    if (absent !== undefined) return row?.[absent as keyof Row] === undefined;
    const [, name, operator, value] = condition.match(/^(\w+) ([<=]) (:\w+)$/)!;
    const given = ExpressionAttributeValues![value].S;
    assert.ok(given !== undefined, `no value of ${value}`);
    const attribute = row?.[name as keyof Row];
    if (attribute === undefined) return false; // a comparison with nothing is false
    return operator === "<" ? attribute < given : attribute === given;
  };
  return ConditionExpression!.split(" OR ").some((all) => all.split(" AND ").every(holdsOne));
}

type ConditionFields = "ConditionExpression" | "ExpressionAttributeValues";

/** A page of a key's rows in a span of time, both ends included. */
export function queryIn(table: FakeTable, query: RowQuery) {
  const { ":key": key, ":from": from, ":to": to } = query.ExpressionAttributeValues!;
  const found = [...table.values()]
    .filter(({ file_key, timestamp }) =>
      file_key === key.S && timestamp >= from.S! && timestamp <= to.S!
    )
    .sort((a, b) => a.timestamp < b.timestamp ? -1 : 1);
  if (!query.ScanIndexForward) found.reverse();
  const toValues = (row: Row) =>
    Object.fromEntries(Object.entries(row).map(([name, value]) => [name, { S: String(value) }]));
  return {
    Items: found.slice(0, query.Limit).map(toValues),
    LastEvaluatedKey: found.length > query.Limit! ? {} : undefined,
  };
}

/** Deletes a row as DynamoDB does. @throws {Error} the condition fails */
export function deleteFrom(table: FakeTable, deletion: Deletion): void {
  const id = JSON.stringify([deletion.Key!.file_key.S, deletion.Key!.timestamp.S]);
  if (!holds(deletion, table.get(id))) throw awsError(...REFUSED);
  table.delete(id);
}
