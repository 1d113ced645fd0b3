/** Replay: runs the failure queue's events through the function again. */

import {
  ChangeMessageVisibilityCommand,
  DeleteMessageCommand,
  type Message,
  ReceiveMessageCommand,
} from "@aws-sdk/client-sqs";
import { forEachParallel } from "../function/parallel.ts";
import { decodeKey, isObject } from "../handler.ts";
import { countFailures, invoke, parseObject, type QueueCounts, toReason } from "./invoke.ts";
import { interrupted } from "./signals.ts";
import type { Stack } from "./target.ts";
import {
  clip,
  plural,
  sayEvery,
  terminalColumns,
  toDuration,
  toTable,
  visible,
} from "./terminal.ts";

/** The most messages that SQS returns at once. */
const RECEIVED_MESSAGES = 10;

/** Invocations at the same time. */
const PARALLEL_EVENTS = 8;

/** Visibility timeout: if this process dies, a received message is visible again after it. */
const HIDDEN_SECONDS = 300;

/** Keys of an event that a line names. */
const NAMED_KEYS = 3;

/** What a message of the queue says: the event, and why it is there, as far as that is known. */
interface FailedEvent {
  event: { Records?: unknown[] };
  /** Decoded keys of its objects. */
  keys: string[];
  tries?: number;
  error?: string;
}

export interface ReplayReport {
  ok: boolean;
  dryRun: boolean;
  /** Events that went through; in a dry run those that would be tried. */
  replayed: number;
  failed: number;
  failures: { messageId: string; keys: string[]; reason: string }[];
  /** The queue afterwards; in flight are messages that another run has received. */
  left: QueueCounts;
  /** What a dry run found. */
  events?: (Omit<FailedEvent, "event"> & { messageId: string; failedAt: string })[];
}

/** A replay that runs. */
interface Replay {
  stack: Stack;
  /** Whether an event is wanted, by its objects' keys; by default each is. */
  only?: (keys: string[]) => boolean;
  report: ReplayReport;
  /** Ids of messages that were tried and not deleted, and their newest receipt handles. */
  held: Map<string, string>;
}

/**
 * Receives events from the failure queue and invokes the function with each, once. A message is
 * deleted only after it succeeded. The others are made visible again at the end, also after Ctrl-C,
 * and by SQS after {@link HIDDEN_SECONDS} if the process is killed. It may run at any time and any
 * number of times, since the function may see an event any number of times.
 */
export async function replayFailures(
  stack: Stack,
  { dryRun, max, only }: { dryRun: boolean; max: number; only?: Replay["only"] },
): Promise<ReplayReport> {
  const left = await countFailures(stack);
  const report: ReplayReport = { ok: true, dryRun, replayed: 0, failed: 0, failures: [], left };
  if (dryRun) report.events = [];
  const replay: Replay = { stack, only, report, held: new Map() };
  const total = Math.min(max, left.visible);
  try {
    using _progress = sayEvery(() => {
      const { replayed, failed } = report;
      return dryRun
        ? `Looking into the failure queue: ${replayed + failed} of about ${total} ...`
        : `Replaying: ${replayed} of about ${total} done, ${failed} failed ...`;
    });
    await forEachParallel(
      untriedMessages(replay, max),
      PARALLEL_EVENTS,
      (message) => replayOne(replay, message),
    );
  } catch (error) {
    if (!interrupted.aborted) throw error; // a call that Ctrl-C ended; the report has the others
  } finally {
    await giveBack(replay);
  }
  report.left = await countFailures(stack);
  report.ok = report.failed === 0;
  return report;
}

/**
 * Each message once, however long the work takes: what failed becomes visible again after its timeout,
 * is received once more, and so hidden again. It ends when no message is visible, or too many are held:
 * https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
 */
async function* untriedMessages({ stack, held }: Replay, max: number): AsyncGenerator<Message> {
  for (let tried = 0; tried < max && !interrupted.aborted;) {
    const messages = await receive(stack, { most: max - tried, hiddenSeconds: HIDDEN_SECONDS });
    if (messages.length === 0) return;
    const untried = messages.filter(({ MessageId }) => !held.has(MessageId!));
    for (const { MessageId, ReceiptHandle } of messages) held.set(MessageId!, ReceiptHandle!);
    tried += untried.length;
    yield* untried;
  }
}

/** Receives messages, and hides them from others for some seconds. */
export async function receive(
  { sqs, outputs }: Stack,
  { most = RECEIVED_MESSAGES, hiddenSeconds }: { most?: number; hiddenSeconds: number },
): Promise<Message[]> {
  const { Messages = [] } = await sqs.send(
    new ReceiveMessageCommand({
      QueueUrl: outputs.failure_queue_url,
      MaxNumberOfMessages: Math.min(RECEIVED_MESSAGES, most),
      WaitTimeSeconds: 1, // a wait asks all of SQS's servers: no message means that none is visible
      VisibilityTimeout: hiddenSeconds,
      MessageSystemAttributeNames: ["SentTimestamp"],
    }),
  );
  return Messages;
}

/** Runs a message's event, or in a dry run only reads it. What is not deleted is given back. */
async function replayOne(
  { stack, only, report, held }: Replay,
  { MessageId = "", Body = "", Attributes = {} }: Message,
): Promise<void> {
  if (interrupted.aborted) return;
  const fail = (keys: string[], reason: string) => {
    report.failed++;
    report.failures.push({ messageId: MessageId, keys, reason });
  };
  const failedEvent = readMessage(Body);
  if (failedEvent === undefined) {
    return only ? undefined : fail([], "the message holds no S3 event");
  }
  const { event, ...known } = failedEvent;
  if (only && !only(known.keys)) return;
  if (report.events) {
    const failedAt = new Date(Number(Attributes.SentTimestamp)).toISOString();
    report.events.push({ messageId: MessageId, failedAt, ...known });
  } else {
    const error = await invoke(stack, event);
    if (error !== undefined) return fail(known.keys, error);
    const QueueUrl = stack.outputs.failure_queue_url;
    const ReceiptHandle = held.get(MessageId);
    await stack.sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle }));
    held.delete(MessageId);
  }
  report.replayed++;
}

/** Makes messages visible again. One for which that fails is visible again by itself. */
async function giveBack({ stack: { sqs, outputs }, held }: Replay): Promise<void> {
  const QueueUrl = outputs.failure_queue_url;
  await forEachParallel(held.values(), PARALLEL_EVENTS, async (ReceiptHandle) => {
    const visible = { QueueUrl, ReceiptHandle, VisibilityTimeout: 0 };
    await sqs.send(new ChangeMessageVisibilityCommand(visible)).catch(() => {});
  });
}

/**
 * The event in a message, if it holds one: in the envelope of Lambda's on-failure destination, or
 * bare, as in a dead-letter queue.
 * https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
 */
export function readMessage(body: string): FailedEvent | undefined {
  const message = parseObject(body) ?? {};
  const { requestPayload: event = message, requestContext, responsePayload } = message;
  if (!isEvent(event)) return undefined;
  const keys = keysOf(event);
  if (event === message) return { event, keys };
  const { approximateInvokeCount, condition } = isObject(requestContext) ? requestContext : {};
  return {
    event,
    keys,
    tries: typeof approximateInvokeCount === "number" ? approximateInvokeCount : undefined,
    error: isObject(responsePayload)
      ? toReason(responsePayload)
      : typeof condition === "string"
      ? condition
      : undefined,
  };
}

/** A test event has no records. */
function isEvent(value: unknown): value is FailedEvent["event"] {
  return isObject(value) && (Array.isArray(value.Records) || value.Event === "s3:TestEvent");
}

/** The objects' keys, decoded where they can be. */
function keysOf({ Records = [] }: FailedEvent["event"]): string[] {
  return (Records as ({ s3?: { object?: { key?: unknown } } } | null)[]).flatMap((record) => {
    const key = record?.s3?.object?.key;
    if (typeof key !== "string") return [];
    try {
      return decodeKey(key);
    } catch {
      return key; // the function says what is wrong with it
    }
  });
}

/** A report for people: what was found, or what failed and why, then the counts. */
export function replayToText(report: ReplayReport): string {
  const { dryRun, replayed, failed, failures, left, events = [] } = report;
  if (replayed + failed + left.visible + left.inFlight === 0) return "The failure queue is empty.";
  const lines: string[] = [];
  if (events.length > 0) {
    const rows = events.map(({ failedAt, tries, keys, error }) => [
      failedAt,
      String(tries ?? ""),
      nameKeys(keys),
      clip(error ?? "unknown", 160),
    ]);
    const table = [["failed", "tries", "objects", "why"], ...rows];
    lines.push(...toTable(table, [1], terminalColumns()));
  }
  for (const { keys, reason, messageId } of failures) {
    lines.push(`FAILED: ${keys.length > 0 ? nameKeys(keys) : messageId}: ${visible(reason)}`);
  }
  const hidden = `visible again within ${toDuration(HIDDEN_SECONDS * 1000)}`;
  lines.push(
    `${plural(replayed, "event")} ${dryRun ? "to replay" : "replayed"}, ` +
      `${failed} ${dryRun ? "unreadable" : "failed"}; ` +
      `${plural(left.visible, "message")} in the failure queue` +
      (left.inFlight > 0 ? `, and ${left.inFlight} in flight: ${hidden}` : ""),
  );
  return lines.join("\n");
}

function nameKeys(keys: string[]): string {
  const unnamed = keys.length - NAMED_KEYS;
  const named = keys.slice(0, NAMED_KEYS).map((key) => clip(key, 60)).join(", ");
  return named + (unnamed > 0 ? ` and ${unnamed} more` : "");
}
