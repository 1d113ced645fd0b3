/** Why: finds the key that is meant, shows all that is known of it, and says what to do. */

import { isDeleted } from "../function/removals.ts";
import { letsThrough, versionOf } from "../handler.ts";
import { listVersions, PAGE_OBJECTS } from "./bucket.ts";
import { bucketNotifies, countFailures, parseObject, silenceOf } from "./invoke.ts";
import { now } from "./clients.ts";
import { canCopy, denoTask } from "./commands.ts";
import { logToText, type Search, searchBack } from "./logs.ts";
import { readMessage, receive } from "./replay.ts";
import { type Item, removalOf, rowsOfKey } from "./table.ts";
import type { Stack } from "./target.ts";
import {
  clip,
  say,
  terminalColumns,
  toTable,
  UserError,
  visible,
  visibleName,
} from "./terminal.ts";

/** Versions, rows and lines that are shown. */
const SHOWN = 5;

/** Rows that are looked at: a key may have any number. */
const MOST_ROWS = 100;

/** How far back the log is searched by default. */
const LOG_SINCE_MS = 7 * 86_400_000;

/** How long log and failure queue are looked into; the log for longer if a time is asked for. */
const MOST_MS = 1000;
const LONG_MS = 30_000;

/** https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html */
const KEY_BYTES = 1024;

/** https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html */
const PATTERN_CHARACTERS = 1024;

/** What is known of a key, the newest first: of versions and rows no more than a page. */
export interface Facts {
  key: string;
  /** Whether the trigger's filter lets the key through, and the bucket calls the function. */
  matches: boolean;
  notifies: boolean;
  /** Delete markers too, which have no size. */
  versions: { versionId?: string; lastModified?: string; size?: number }[];
  rows: Item[];
  /** The function's log lines about it, as for people. */
  log: string[];
  /** Where the search of the log ended early: older lines are not among these. */
  logSince?: string;
  /** The last error that the function logged about it, if nothing better came after. */
  lastError?: string;
  /** Its events in the failure queue, and how many of the queue's messages were looked at. */
  failures: { failedAt: string; error?: string }[];
  messages: { lookedAt: number; inQueue: number };
}

export interface Why extends Facts {
  ok: boolean;
  /** What it means, and what to do. */
  conclusion: string;
}

/** Looks everywhere for a key. `since` is how far back the log is searched, in milliseconds. */
export async function explain(stack: Stack, key: string, since?: number): Promise<Why> {
  const search = {
    sinceMs: now() - (since ?? LOG_SINCE_MS),
    mostMs: since === undefined ? MOST_MS : LONG_MS,
  };
  const [notifies, versions, rows, log, failures] = await Promise.all([
    bucketNotifies(stack),
    versionsOf(stack, key),
    Array.fromAsync(rowsOfKey(stack, key, { limit: MOST_ROWS })),
    linesAbout(stack, key, search),
    failuresOf(stack, key),
  ]);
  const matches = letsThrough(stack.outputs, key);
  const facts: Facts = { key, matches, notifies, versions, rows, ...log, ...failures };
  return { ...facts, ...conclude(facts, stack) };
}

/** What the facts mean, and what to do. */
export function conclude(facts: Facts, stack: Pick<Stack, "flags" | "outputs">) {
  const well = ifWell(facts);
  return { ok: well !== undefined, conclusion: well ?? whatToDo(facts, stack) };
}

function ifWell({ versions: [newest], rows, failures }: Facts): string | undefined {
  const rowsStay = isDeleted(rows) ? "Its rows say so." : "Its rows stay.";
  if (failures.length === 0 && newest === undefined && rows.length > 0) {
    return `The object was deleted, with all its versions. ${rowsStay}`;
  }
  if (failures.length === 0 && newest !== undefined && newest.size === undefined) {
    return `The object was deleted; a delete marker is its newest version. ${rowsStay}`;
  }
  if (newest && rows.some(({ version_id }) => versionOf(version_id) === newest.versionId)) {
    return "The newest version has its row.";
  }
}

/** Why the newest version has no row, and what to do. */
function whatToDo(facts: Facts, stack: Pick<Stack, "flags" | "outputs">): string {
  const { key, versions: [newest], failures: [failure], messages } = facts;
  if (failure) {
    return `Its event failed three times: ${failure.error ?? "the reason is not known"}. ` +
      `Fix the cause, then run ${denoTask(stack, "replay")}.`;
  }
  if (newest === undefined) {
    return "There is no such object and no row of it: check the key's letters, case and spaces.";
  }
  if (!facts.matches) {
    return "The trigger ignores this key: see filter_prefixes and filter_suffixes in variables.tf.";
  }
  if (facts.lastError) {
    return `The function failed: ${facts.lastError}. Lambda tries again within minutes.`;
  }
  if (!facts.notifies) {
    return `It had no event: ${silenceOf(stack)}. Run ${denoTask(stack, "backfill")} then.`;
  }
  if (messages.lookedAt < messages.inQueue) {
    const onlyIts = canCopy(key) ? ["--key", key] : [];
    return "Its event did not arrive, or is in the failure queue among what was not looked at: run " +
      `${denoTask(stack, "replay", "--dry-run", ...onlyIts)}.`;
  }
  return "Its event did not arrive: the object is newer than a minute, older than the trigger, or its " +
    "event was lost. " +
    (canCopy(key)
      ? `Run ${denoTask(stack, "backfill", "--prefix", key)}.`
      : "Run backfill; the key holds characters that can't be copied, so its command is not shown.");
}

/** A screen for people. */
export function whyToText(why: Why): string {
  const { key, versions, rows, log, logSince, failures, messages, conclusion } = why;
  const lines = [visibleName(key), ""];
  const section = (name: string, all: string[][], most = Infinity, columns = terminalColumns()) => {
    const counted = all.length < most ? `${all.length}` : `the newest ${most} were looked at`;
    const newest = all.length > SHOWN ? `, the newest ${SHOWN}` : "";
    lines.push(`${name}: ${counted}${newest}`);
    if (all.length === 0) return;
    const shown = all.slice(0, SHOWN).map(([a, ...rest]) => [`  ${a}`, ...rest]);
    lines.push(...toTable(shown, [], columns));
  };
  section(
    "versions in the bucket",
    versions.map(({ versionId, lastModified, size }) => [
      lastModified ?? "",
      versionId ?? "null",
      size === undefined ? "delete marker" : `${size} bytes`,
    ]),
    PAGE_OBJECTS,
  );
  section(
    "rows",
    rows.map((row) => [
      visible(String(row.timestamp)),
      visible(String(row.version_id ?? "null")),
      visible(String(row.event_name ?? "")),
      removalOf(row) ?? clip(String(row.content_preview ?? "no preview"), 24),
    ]),
    MOST_ROWS,
  );
  const since = logSince === undefined
    ? ""
    : ` since ${logSince} (the log is large: with --since it is searched longer)`;
  section(`log lines${since}`, log.map((line) => [line]), Infinity, Infinity); // whole
  const { lookedAt, inQueue } = messages;
  const of = lookedAt < inQueue ? ` (${lookedAt} of about ${inQueue} were looked at)` : "";
  const failed = failures.map(({ failedAt, error = "" }) => [failedAt, visible(error)]);
  section(`events in the failure queue${of}`, failed);
  return [...lines, "", visible(conclusion)].join("\n");
}

async function versionsOf({ s3, outputs }: Stack, key: string): Promise<Facts["versions"]> {
  for await (const page of listVersions(s3, outputs.s3_bucket_name, key)) {
    // Versions of a key come together, in the order of time, its delete markers apart.
    return page.filter(({ Key }) => Key === key)
      .sort((a, b) => Number(b.LastModified) - Number(a.LastModified))
      .map(({ VersionId, LastModified, Size }) => ({
        versionId: versionOf(VersionId),
        lastModified: LastModified?.toISOString(),
        size: Size,
      }));
  }
  return [];
}

async function linesAbout(
  stack: Stack,
  key: string,
  search: Search,
): Promise<Pick<Facts, "log" | "logSince" | "lastError">> {
  const log: string[] = [];
  let last: Record<string, unknown> | undefined;
  let logSince: string | undefined;
  for await (const span of searchBack(stack, { ...search, pattern: patternOf(key) })) {
    for (const event of span.lines) {
      const fields = parseObject(event.message);
      if (fields?.file_key !== key) continue;
      log.push(logToText(event) ?? "");
      last ??= fields;
    }
    logSince = span.since;
  }
  const lastError = last?.outcome === "failed" ? String(last.error) : undefined;
  return { log, logSince, lastError };
}

/** CloudWatch's filter pattern for the lines about a key; without one all lines come. */
function patternOf(key: string): string | undefined {
  const pattern = `{ $.file_key = "${key}" }`;
  // It takes no quotes and backslashes inside its own quotes.
  return /["\\]/.test(key) || pattern.length > PATTERN_CHARACTERS ? undefined : pattern;
}

/**
 * The key's events among the messages that the failure queue gives within a second: SQS cannot search.
 * A message that was looked at is hidden from others for one second.
 */
async function failuresOf(
  stack: Stack,
  key: string,
): Promise<Pick<Facts, "failures" | "messages">> {
  const endMs = performance.now() + MOST_MS;
  const { visible, inFlight } = await countFailures(stack);
  const failures: Facts["failures"] = [];
  const lookedAt = new Set<string>();
  do {
    const messages = await receive(stack, { hiddenSeconds: 1 });
    if (messages.length === 0) break;
    for (const { MessageId = "", Body = "", Attributes = {} } of messages) {
      if (lookedAt.has(MessageId)) continue;
      lookedAt.add(MessageId);
      const event = readMessage(Body);
      if (!event?.keys.includes(key)) continue;
      const failedAt = new Date(Number(Attributes.SentTimestamp)).toISOString();
      failures.push({ failedAt, error: event.error });
    }
  } while (performance.now() < endMs && lookedAt.size < visible);
  return { failures, messages: { lookedAt: lookedAt.size, inQueue: visible + inFlight } };
}

/**
 * The key that is meant: of all that the text may stand for, the first of which there is an object or a
 * row.
 *
 * @throws {UserError} it can be no key
 */
export async function keyMeant(stack: Stack, text: string): Promise<string> {
  const [key, ...others] = readingsOf(text, stack.outputs.s3_bucket_name);
  if (key === undefined) throw new UserError(`KEY must have 1 to ${KEY_BYTES} bytes`);
  if (await isKnown(stack, key)) return key;
  for (const other of others) {
    if (!await isKnown(stack, other)) continue;
    const looksSame = other.normalize() === key.normalize();
    say(`Taken for the key "${visibleName(other)}"${looksSame ? ", in another Unicode form" : ""}`);
    return other;
  }
  return key;
}

/**
 * What a text may stand for, first the key that it is, or that its URI names: a path with a slash before
 * it, a key as URLs and events have it, or one in the other Unicode form.
 */
function readingsOf(text: string, bucket: string): string[] {
  const uri = `s3://${bucket}/`;
  const key = text.startsWith(uri) ? text.slice(uri.length) : text;
  const plain = [key, key.replace(/^\/+/, "")];
  const decoded = plain.flatMap((each) => [each, decode(each), decode(each.replaceAll("+", " "))]);
  const all = decoded.flatMap((each) => [each, each.normalize("NFC"), each.normalize("NFD")]);
  const isKey = (each: string) => each !== "" && new TextEncoder().encode(each).length <= KEY_BYTES;
  return [...new Set(all)].filter(isKey);
}

function decode(key: string): string {
  try {
    return decodeURIComponent(key);
  } catch {
    return key;
  }
}

async function isKnown(stack: Stack, key: string): Promise<boolean> {
  for await (const page of listVersions(stack.s3, stack.outputs.s3_bucket_name, key)) {
    if (page.some(({ Key }) => Key === key)) return true;
    break; // those of the very key come first
  }
  for await (const _row of rowsOfKey(stack, key, { limit: 1 })) return true;
  return false;
}
