/** A living stack as its operator meets it: its clients, its function, its rows, its queue. */

import type { CloudWatchClient } from "@aws-sdk/client-cloudwatch";
import type { CloudWatchLogsClient } from "@aws-sdk/client-cloudwatch-logs";
import {
  type AttributeValue,
  DeleteItemCommand,
  type DynamoDBClient,
  paginateQuery,
} from "@aws-sdk/client-dynamodb";
import { InvokeCommand, type InvokeCommandOutput, type LambdaClient } from "@aws-sdk/client-lambda";
import { GetBucketNotificationConfigurationCommand, type S3Client } from "@aws-sdk/client-s3";
import { GetQueueAttributesCommand, type SQSClient } from "@aws-sdk/client-sqs";
import type { Upload } from "../handler.ts";
import type { Outputs } from "./terraform.ts";

export interface Clients {
  s3: S3Client;
  dynamo: DynamoDBClient;
  lambda: LambdaClient;
  sqs: SQSClient;
  logs: CloudWatchLogsClient;
  cloudwatch: CloudWatchClient;
}

/** A row of the table: strings and numbers only. */
export type Item = Record<string, string | number>;

/** After so many failures of one replay or backfill their cause is not in the events. */
export const FAILURE_LIMIT = 1000;

/** Refusals that concern one event, and not every one to come. */
const REFUSALS = ["TooManyRequestsException", "RequestTooLargeException", "ServiceException"];

/** Invokes the function with an event and waits; answers its error or Lambda's refusal, if any. */
export async function invoke(
  { lambda_function_name }: Outputs,
  { lambda }: Pick<Clients, "lambda">,
  event: unknown,
): Promise<string | undefined> {
  const command = new InvokeCommand({
    FunctionName: lambda_function_name,
    Payload: new TextEncoder().encode(JSON.stringify(event)),
  });
  let answer: InvokeCommandOutput;
  try {
    answer = await lambda.send(command);
  } catch (error) {
    const { name, message } = error as Error;
    if (REFUSALS.includes(name)) return `${name}: ${message}`;
    throw error;
  }
  const { FunctionError, Payload } = answer;
  if (FunctionError === undefined) return undefined;
  const payload = new TextDecoder().decode(Payload);
  try {
    const { errorType, errorMessage } = JSON.parse(payload);
    return `${errorType}: ${errorMessage}`;
  } catch {
    return payload;
  }
}

/** An S3 event about uploads, as S3 would send it. */
export function toEvent({ aws_region }: Outputs, uploads: Upload[]) {
  const Records = uploads.map((upload) => ({
    eventVersion: "2.1",
    eventSource: "aws:s3",
    awsRegion: aws_region,
    eventTime: upload.timestamp,
    eventName: upload.eventName,
    s3: {
      s3SchemaVersion: "1.0",
      bucket: { name: upload.bucket, arn: `arn:aws:s3:::${upload.bucket}` },
      object: {
        key: encodeKey(upload.key),
        size: upload.size,
        eTag: upload.etag,
        versionId: upload.versionId,
        sequencer: upload.sequencer,
      },
    },
  }));
  return { Records };
}

/** A key as events carry it: form-encoded, but for the slash. */
export function encodeKey(key: string): string {
  return new URLSearchParams({ key }).toString().slice("key=".length).replaceAll("%2F", "/");
}

/** The rows of a key, oldest first. */
export async function queryRows(
  { dynamodb_table_name }: Outputs,
  { dynamo }: Clients,
  key: string,
): Promise<Item[]> {
  const items: Item[] = [];
  const pages = paginateQuery({ client: dynamo }, {
    TableName: dynamodb_table_name,
    KeyConditionExpression: "file_key = :key",
    ExpressionAttributeValues: { ":key": { S: key } },
    ConsistentRead: true,
  });
  for await (const { Items = [] } of pages) items.push(...Items.map(toItem));
  return items;
}

export function toItem(attributes: Record<string, AttributeValue>): Item {
  return Object.fromEntries(
    Object.entries(attributes).map(([name, { S, N }]) => [name, N === undefined ? S! : Number(N)]),
  );
}

/** A row's key, as DynamoDB takes it. */
export function rowKey({ file_key, timestamp }: Record<string, unknown>) {
  return { file_key: { S: String(file_key) }, timestamp: { S: String(timestamp) } };
}

export async function deleteRow(
  { dynamodb_table_name: TableName }: Outputs,
  { dynamo }: Clients,
  row: Item,
): Promise<void> {
  await dynamo.send(new DeleteItemCommand({ TableName, Key: rowKey(row) }));
}

/** Whether the bucket calls the function. */
export async function bucketNotifies(
  { s3_bucket_name, lambda_function_name }: Outputs,
  { s3 }: Clients,
): Promise<boolean> {
  const { LambdaFunctionConfigurations = [] } = await s3.send(
    new GetBucketNotificationConfigurationCommand({ Bucket: s3_bucket_name }),
  );
  return LambdaFunctionConfigurations.some(({ LambdaFunctionArn }) =>
    LambdaFunctionArn?.endsWith(`:${lambda_function_name}`)
  );
}

/** Messages of the failure queue, about: those waiting, and those in somebody's hands. */
export async function countFailures(
  { failure_queue_url }: Outputs,
  { sqs }: Pick<Clients, "sqs">,
): Promise<{ waiting: number; taken: number }> {
  const { Attributes = {} } = await sqs.send(
    new GetQueueAttributesCommand({
      QueueUrl: failure_queue_url,
      AttributeNames: ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    }),
  );
  return {
    waiting: Number(Attributes.ApproximateNumberOfMessages),
    taken: Number(Attributes.ApproximateNumberOfMessagesNotVisible),
  };
}
