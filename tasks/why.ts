/** Why: all that is known of one key, on one screen, and what to do about it. */

import { ReceiveMessageCommand } from "@aws-sdk/client-sqs";
import { letsThrough, versionOf } from "../handler.ts";
import { listVersions, PAGE_OBJECTS } from "./bucket.ts";
import { bucketNotifies, countFailures } from "./invoke.ts";
import type { Clock } from "./clock.ts";
import { canCopy, denoTask } from "./commands.ts";
import { rowsOfKey } from "./rows.ts";
import { searchBack } from "./log_search.ts";
import { logToText, parseLine } from "./logs.ts";
import { readMessage } from "./replay.ts";
import type { Item } from "./table.ts";
import type { Stack } from "./target.ts";
import { clip, terminalColumns, toTable, visible, visibleName } from "./terminal.ts";

/** Versions, rows and lines that are shown. */
const SHOWN = 5;

/** Rows that are looked at: a key may have any number. */
const MOST_ROWS = 100;

/** How long rows, log and failure queue are looked into; the log for longer if one asks for that. */
export const MOST_MS = 1000;
export const LONG_MS = 30_000;

/** Calls of a search of the log: see {@link searchBack}. */
const MOST_CALLS = 60;

/** https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html */
const PATTERN_CHARACTERS = 1024;

/** A version of the object, or a delete marker, which has no size. */
export interface ObjectVersion {
  versionId?: string;
  lastModified?: string;
  size?: number;
}

/** What is known of a key; the newest first. */
export interface Facts {
  key: string;
  /** Whether the trigger's filter lets the key through, and the bucket calls the function. */
  matches: boolean;
  notifies: boolean;
  versions: ObjectVersion[];
  rows: Item[];
  /** Whether there are more of them, which were not looked at. */
  moreVersions: boolean;
  moreRows: boolean;
  /** The function's log lines about it, as for people. */
  log: string[];
  /** Where the search of the log ended early: older lines are not among these. */
  logSince?: string;
  /** The last error that the function logged about it, if nothing better came after. */
  lastError?: string;
  /** Its events in the failure queue, of whose messages so many were looked at. */
  failures: { parkedAt: string; error?: string }[];
  messages: { lookedAt: number; inQueue: number };
}

export interface Why extends Facts {
  ok: boolean;
  /** What it means, and what to do. */
  conclusion: string;
}

/** Looks everywhere for a key. `sinceMs` is how far back the log is searched, in ms since 1970. */
export async function explain(
  stack: Stack,
  key: string,
  { sinceMs, now, logMs = MOST_MS }: { sinceMs: number; now: Clock; logMs?: number },
): Promise<Why> {
  const [notifies, versions, rows, { lines, since }, failures] = await Promise.all([
    bucketNotifies(stack),
    versionsOf(stack, key),
    newestRowsOf(stack, key),
    linesAbout(stack, key, { sinceMs, now, mostMs: logMs }),
    failuresOf(stack, key),
  ]);
  const last = lines.at(-1)?.fields;
  const facts: Facts = {
    key,
    matches: letsThrough(stack.outputs, key),
    notifies,
    ...versions,
    ...rows,
    log: lines.map(({ text }) => text).toReversed(),
    logSince: since,
    lastError: last?.outcome === "failed" ? String(last.error) : undefined,
    ...failures,
  };
  return { ...facts, ...conclude(facts, stack) };
}

/** What the facts mean, and what to do. */
export function conclude(
  facts: Facts,
  target: Pick<Stack, "flags">,
): { ok: boolean; conclusion: string } {
  const { key, versions: [newest], rows, failures: [failure], messages } = facts;
  const good = (conclusion: string) => ({ ok: true, conclusion });
  const bad = (conclusion: string) => ({ ok: false, conclusion });
  if (newest === undefined && failure === undefined) {
    return rows.length > 0
      ? good("The object was deleted, with all its versions. Its rows stay.")
      : bad("There is no such object and no row of it: check the key's letters, case and spaces.");
  }
  if (newest?.size === undefined && failure === undefined) {
    return good("The object was deleted; a delete marker is its newest version. Its rows stay.");
  }
  if (newest && rows.some(({ version_id }) => versionOf(version_id) === newest.versionId)) {
    return good("The newest version has its row.");
  }
  if (failure) {
    return bad(
      `Its event failed three times: ${failure.error ?? "the reason is not known"}. ` +
        `Fix the cause, then run ${denoTask(target, "replay")}.`,
    );
  }
  if (!facts.matches) {
    return bad(
      "The trigger ignores this key: see filter_prefix and filter_suffix in variables.tf.",
    );
  }
  if (facts.lastError) {
    return bad(`The function failed: ${facts.lastError}. Lambda tries again within minutes.`);
  }
  if (!facts.notifies) {
    return bad(
      `The bucket does not call the function: run ${denoTask(target, "deploy")}, then backfill.`,
    );
  }
  if (messages.lookedAt < messages.inQueue) {
    const onlyIts = canCopy(key) ? ["--key", key] : [];
    return bad(
      "Its event did not arrive, or is in the failure queue among what was not looked at: run " +
        `${denoTask(target, "replay", "--dry-run", ...onlyIts)}.`,
    );
  }
  return bad(
    "Its event did not arrive: the object is newer than a minute, older than the trigger, or its " +
      "event was lost. " +
      (canCopy(key)
        ? `Run ${denoTask(target, "backfill", "--prefix", key)}.`
        : "Run backfill; the key holds characters that can't be copied, so its command is not shown."),
  );
}

/** A screen for people. */
export function whyToText(why: Why): string {
  const { key, versions, rows, log, logSince, failures, messages, conclusion } = why;
  const lines = [visibleName(key), ""];
  const section = (name: string, all: string[][], { hasMore = false, columns = Infinity }) => {
    const shown = all.slice(0, SHOWN);
    const counted = hasMore ? `the newest ${all.length} were looked at` : String(all.length);
    const newest = all.length > SHOWN ? `, the newest ${SHOWN}` : "";
    lines.push(`${name}: ${counted}${newest}`);
    if (shown.length === 0) return;
    lines.push(...toTable(shown.map(([a, ...rest]) => [`  ${a}`, ...rest]), [], columns));
  };
  section(
    "versions in the bucket",
    versions.map(({ versionId, lastModified, size }) => [
      lastModified ?? "",
      versionId ?? "null",
      size === undefined ? "delete marker" : `${size} bytes`,
    ]),
    { hasMore: why.moreVersions },
  );
  section(
    "rows",
    rows.map((row) => [
      visible(String(row.timestamp)),
      visible(String(row.version_id ?? "null")),
      visible(String(row.event_name ?? "")),
      clip(String(row.content_preview ?? "no preview"), 24),
    ]),
    { hasMore: why.moreRows, columns: terminalColumns() },
  );
  const since = logSince === undefined
    ? ""
    : ` since ${logSince} (the log is large: with --since it is searched longer)`;
  section(`log lines${since}`, log.map((line) => [line]), {});
  const { lookedAt, inQueue } = messages;
  const of = lookedAt < inQueue ? ` (${lookedAt} of about ${inQueue} were looked at)` : "";
  section(
    `events in the failure queue${of}`,
    failures.map((f) => [f.parkedAt, visible(f.error ?? "")]),
    { columns: terminalColumns() },
  );
  return [...lines, "", visible(conclusion)].join("\n");
}

async function versionsOf(
  { s3, outputs }: Stack,
  key: string,
): Promise<Pick<Facts, "versions" | "moreVersions">> {
  for await (const page of listVersions(s3, outputs.s3_bucket_name, key)) {
    const own = page.filter(({ Key }) => Key === key);
    // Versions of a key come together, in the order of time, its delete markers apart.
    const versions = own.toSorted((a, b) => Number(b.LastModified) - Number(a.LastModified))
      .map(({ VersionId, LastModified, Size }) => ({
        versionId: versionOf(VersionId),
        lastModified: LastModified?.toISOString(),
        size: Size,
      }));
    return { versions, moreVersions: own.length >= PAGE_OBJECTS };
  }
  return { versions: [], moreVersions: false };
}

async function newestRowsOf(
  stack: Stack,
  key: string,
): Promise<Pick<Facts, "rows" | "moreRows">> {
  const endMs = performance.now() + MOST_MS;
  const rows: Item[] = [];
  for await (const row of rowsOfKey(stack, key, { limit: MOST_ROWS + 1 })) {
    if (rows.length === MOST_ROWS || performance.now() > endMs) return { rows, moreRows: true };
    rows.push(row);
  }
  return { rows, moreRows: false };
}

async function linesAbout(
  { logs, outputs }: Stack,
  key: string,
  options: { sinceMs: number; now: Clock; mostMs: number },
) {
  const { sinceMs, now } = options;
  const lines: { text: string; fields: Record<string, unknown> }[] = [];
  let searchedMs = now();
  const search = { ...options, pattern: patternOf(key), mostCalls: MOST_CALLS };
  for await (const span of searchBack(logs, outputs.log_group_name, search)) {
    const own = span.lines.map((event) => ({ event, fields: parseLine(event.message) ?? {} }))
      .filter(({ fields }) => fields.file_key === key);
    lines.unshift(...own.map(({ event, fields }) => ({ text: logToText(event) ?? "", fields })));
    searchedMs = span.sinceMs;
  }
  return { lines, since: searchedMs > sinceMs ? new Date(searchedMs).toISOString() : undefined };
}

/** CloudWatch's filter pattern for the lines about a key; without one all lines come. */
function patternOf(key: string): string | undefined {
  const pattern = `{ $.file_key = "${key}" }`;
  // It takes no quotes and backslashes inside its own quotes.
  return /["\\]/.test(key) || pattern.length > PATTERN_CHARACTERS ? undefined : pattern;
}

/**
 * The key's events in the failure queue, as far as its messages come within a second: SQS cannot search.
 * A message that was looked at is hidden from others for one second.
 */
async function failuresOf(
  stack: Stack,
  key: string,
): Promise<Pick<Facts, "failures" | "messages">> {
  const QueueUrl = stack.outputs.failure_queue_url;
  const endMs = performance.now() + MOST_MS;
  const { visible, inFlight } = await countFailures(stack);
  const failures: Facts["failures"] = [];
  const lookedAt = new Set<string>();
  do {
    const { Messages = [] } = await stack.sqs.send(
      new ReceiveMessageCommand({
        QueueUrl,
        MaxNumberOfMessages: 10,
        WaitTimeSeconds: 1, // a wait asks all of SQS's servers
        VisibilityTimeout: 1,
        MessageSystemAttributeNames: ["SentTimestamp"],
      }),
    );
    if (Messages.length === 0) break;
    for (const { MessageId = "", Body = "", Attributes = {} } of Messages) {
      if (lookedAt.has(MessageId)) continue;
      lookedAt.add(MessageId);
      const { keys, error } = readIfEvent(Body);
      if (!keys.includes(key)) continue;
      failures.push({ parkedAt: new Date(Number(Attributes.SentTimestamp)).toISOString(), error });
    }
  } while (performance.now() < endMs && lookedAt.size < visible);
  return { failures, messages: { lookedAt: lookedAt.size, inQueue: visible + inFlight } };
}

function readIfEvent(body: string): { keys: string[]; error?: string } {
  try {
    return readMessage(body);
  } catch {
    return { keys: [] }; // nothing here put it there
  }
}
