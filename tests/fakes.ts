/** A table, a failure queue and a clock for the fake stack of fixtures.ts. */

import type { Item } from "../tasks/table.ts";
import type { Time } from "../tasks/signals.ts";
import { type Answers, toAttributes } from "./fixtures.ts";

/** A row of 2026-01-02 with just these attributes more. */
export function row(file_key: string, attributes: Record<string, string | undefined>): Item {
  const timestamp = "2026-01-02T03:04:05.000Z";
  return JSON.parse(JSON.stringify({ file_key, timestamp, event_name: "x", ...attributes }));
}

/** A time of its own that passes at once, where something pauses. */
export function fakeTime() {
  const pauses: number[] = [];
  let nowMs = 0;
  const time: Time = {
    nowMs: () => nowMs,
    async pause(ms, signal) {
      signal?.throwIfAborted();
      pauses.push(ms);
      nowMs += ms;
      await new Promise((resolve) => setTimeout(resolve)); // all else that is ready runs first
    },
  };
  return { time, pauses };
}

type Values = Record<string, { S: string }>;

/** A table that answers queries by key and time, page by page. It counts the rows that they read. */
export function fakeTable(rows: Item[]) {
  const table = { rows, read: 0 };
  const answers: Answers = {
    QueryCommand: ({ ExpressionAttributeValues, ScanIndexForward, Limit, ExclusiveStartKey }) => {
      const { ":key": key, ":from": from, ":to": to } = ExpressionAttributeValues as Values;
      const found = table.rows
        .filter(({ file_key, timestamp }) =>
          file_key === key.S && (!from || timestamp >= from.S) && (!to || timestamp <= to.S)
        )
        .sort((a, b) => a.timestamp < b.timestamp ? -1 : 1);
      if (ScanIndexForward === false) found.reverse();
      const last = (ExclusiveStartKey as { at: number } | undefined)?.at ?? 0;
      const page = found.slice(last, last + (Number(Limit) || 1000));
      table.read += page.length;
      const end = last + page.length;
      return {
        Items: page.map(toAttributes),
        LastEvaluatedKey: end < found.length ? { at: end } : undefined,
      };
    },
    DeleteItemCommand: ({ Key }) => {
      const { file_key, timestamp } = Key as Values;
      table.rows = table.rows.filter((row) =>
        row.file_key !== file_key.S || row.timestamp !== timestamp.S
      );
      return {};
    },
  };
  return { table, answers };
}

/** A failure queue with a clock of its own: what is received is hidden for its timeout. */
export function fakeQueue(bodies: Record<string, string>) {
  const visibleAt = new Map(Object.keys(bodies).map((id) => [id, 0]));
  const queue = { nowSeconds: 0, visibleAt };
  const idOf = ({ ReceiptHandle }: Record<string, unknown>) => String(ReceiptHandle).split(" ")[0];
  const answers: Answers = {
    GetQueueAttributesCommand: () => {
      const visible = [...visibleAt.values()].filter((at) => at <= queue.nowSeconds).length;
      return {
        Attributes: {
          ApproximateNumberOfMessages: String(visible),
          ApproximateNumberOfMessagesNotVisible: String(visibleAt.size - visible),
        },
      };
    },
    ReceiveMessageCommand: ({ MaxNumberOfMessages, VisibilityTimeout }) => {
      const ids = [...visibleAt].filter(([, at]) => at <= queue.nowSeconds).map(([id]) => id)
        .slice(0, MaxNumberOfMessages as number);
      if (ids.length === 0) queue.nowSeconds++;
      for (const id of ids) visibleAt.set(id, queue.nowSeconds + Number(VisibilityTimeout));
      return {
        Messages: ids.map((MessageId) => ({
          MessageId,
          ReceiptHandle: `${MessageId} ${queue.nowSeconds}`,
          Body: bodies[MessageId],
          Attributes: { SentTimestamp: "0" },
        })),
      };
    },
    DeleteMessageCommand: (input) => {
      visibleAt.delete(idOf(input));
      return {};
    },
    ChangeMessageVisibilityCommand: (input) => {
      if (visibleAt.get(idOf(input))! <= queue.nowSeconds) {
        throw Object.assign(new Error("not in flight"), { name: "MessageNotInflight" });
      }
      visibleAt.set(idOf(input), queue.nowSeconds);
      return {};
    },
  };
  return { queue, answers };
}

/**
 * A log with a line of a written row every so often, until a time, which FilterLogEvents reads a page
 * at a time from the oldest on. A call takes 100 ms.
 */
export function fakeLog(
  { fromMs, toMs, everyMs, pageLines }: {
    fromMs: number;
    toMs: number;
    everyMs: number;
    pageLines: number;
  },
) {
  const log = { calls: 0, lines: 0, nowMs: toMs };
  const answers: Answers = {
    FilterLogEventsCommand: ({ startTime, endTime = Infinity, nextToken }) => {
      log.calls++;
      log.nowMs += 100;
      const firstMs = Math.max(fromMs, Number(nextToken ?? startTime));
      const lastMs = Math.min(toMs, Number(endTime));
      const events: { timestamp: number; message: string }[] = [];
      let ms = Math.ceil(firstMs / everyMs) * everyMs;
      for (; ms <= lastMs && events.length < pageLines; ms += everyMs) {
        const line = {
          outcome: "written",
          file_key: `in/${ms}`,
          timestamp: new Date(ms).toISOString(),
        };
        events.push({ timestamp: ms, message: JSON.stringify(line) });
      }
      log.lines += events.length;
      return { events, nextToken: ms <= lastMs ? String(ms) : undefined };
    },
    BatchGetItemCommand: ({ RequestItems }) => {
      const { files: { Keys } } = RequestItems as { files: { Keys: Values[] } };
      const rows = Keys.map((key) => ({ ...key, processed_at: key.timestamp }));
      return { Responses: { files: rows } };
    },
  };
  return { log, answers };
}
