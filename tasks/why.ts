/** Why: all that is known of one key, on one screen, and what to do about it. */

import { versionOf } from "../handler.ts";
import { listVersions } from "./bucket.ts";
import { bucketNotifies } from "./function.ts";
import type { Clock } from "./clock.ts";
import { canCopy, denoTask } from "./commands.ts";
import { searchBack } from "./log_search.ts";
import { logToText, parseLine } from "./logs.ts";
import { replayFailures } from "./replay.ts";
import { type Item, queryRows } from "./rows.ts";
import type { Stack } from "./target.ts";
import { clip, toTable, visible } from "./terminal.ts";

/** Versions, rows and lines that are shown. */
const SHOWN = 5;

/** How long the log is searched: an account has five calls a second. */
const MOST_CALLS = 60;
const MOST_MS = 30_000;

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
  /** The function's log lines about it, as for people. */
  log: string[];
  /** Where the search of the log ended early: older lines are not among these. */
  logSince?: string;
  /** The last error that the function logged about it, if nothing better came after. */
  lastError?: string;
  /** Its events in the failure queue. */
  failures: { parkedAt: string; error?: string }[];
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
  { sinceMs, now }: { sinceMs: number; now: Clock },
): Promise<Why> {
  const { filter_prefix, filter_suffix } = stack.outputs;
  const [notifies, versions, rows, { lines, since }, failures] = await Promise.all([
    bucketNotifies(stack),
    versionsOf(stack, key),
    queryRows(stack, key),
    linesAbout(stack, key, sinceMs, now),
    failuresOf(stack, key),
  ]);
  const last = lines.at(-1)?.fields;
  const facts: Facts = {
    key,
    matches: key.startsWith(filter_prefix) && key.endsWith(filter_suffix),
    notifies,
    versions,
    rows: rows.toReversed(),
    log: lines.map(({ text }) => text).toReversed(),
    logSince: since,
    lastError: last?.outcome === "failed" ? String(last.error) : undefined,
    failures,
  };
  return { ...facts, ...conclude(facts, stack) };
}

/** What the facts mean, and what to do. */
export function conclude(
  facts: Facts,
  target: Pick<Stack, "flags">,
): { ok: boolean; conclusion: string } {
  const { key, versions: [newest], rows, failures: [failure] } = facts;
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
  return bad(
    "Its event did not arrive: the object is newer than a minute, older than the trigger, or its " +
      "event was lost. " +
      (canCopy(key)
        ? `Run ${denoTask(target, "backfill", "--prefix", key)}.`
        : "Run backfill; the key holds characters that can't be copied, so its command is not shown."),
  );
}

/** A screen for people. */
export function whyToText(
  { key, versions, rows, log, logSince, failures, conclusion }: Why,
): string {
  const lines = [`${visible(key)}`, ""];
  const section = (name: string, all: string[][]) => {
    const shown = all.slice(0, SHOWN);
    const more = all.length > SHOWN ? `, the newest ${SHOWN}` : "";
    lines.push(`${name}: ${all.length}${more}`);
    if (shown.length > 0) lines.push(...toTable(shown.map(([a, ...rest]) => [`  ${a}`, ...rest])));
  };
  section(
    "versions in the bucket",
    versions.map(({ versionId, lastModified, size }) => [
      lastModified ?? "",
      versionId ?? "null",
      size === undefined ? "delete marker" : `${size} bytes`,
    ]),
  );
  section(
    "rows",
    rows.map((row) => [
      String(row.timestamp),
      visible(String(row.version_id ?? "null")),
      visible(String(row.event_name)),
      clip(String(row.content_preview ?? "no preview"), 24),
    ]),
  );
  const since = logSince === undefined
    ? ""
    : ` since ${logSince} (the log is large: not searched further)`;
  section(`log lines${since}`, log.map((line) => [line]));
  section(
    "events in the failure queue",
    failures.map((f) => [f.parkedAt, clip(f.error ?? "", 90)]),
  );
  return [...lines, "", visible(conclusion)].join("\n");
}

async function versionsOf({ s3, outputs }: Stack, key: string): Promise<ObjectVersion[]> {
  for await (const page of listVersions(s3, outputs.s3_bucket_name, key)) {
    const own = page.filter(({ Key }) => Key === key);
    // Versions of a key come together, in the order of time, its delete markers apart.
    return own.toSorted((a, b) => Number(b.LastModified) - Number(a.LastModified))
      .map(({ VersionId, LastModified, Size }) => ({
        versionId: versionOf(VersionId),
        lastModified: LastModified?.toISOString(),
        size: Size,
      }));
  }
  return [];
}

async function linesAbout({ logs, outputs }: Stack, key: string, sinceMs: number, now: Clock) {
  // A pattern takes no quotes and backslashes inside its own quotes.
  const pattern = /^[^"\\]*$/.test(key) ? `{ $.file_key = "${key}" }` : undefined;
  const lines: { text: string; fields: Record<string, unknown> }[] = [];
  let searchedMs = now();
  const search = { sinceMs, now, pattern, mostCalls: MOST_CALLS, mostMs: MOST_MS };
  for await (const span of searchBack(logs, outputs.log_group_name, search)) {
    const own = span.lines.map((event) => ({ event, fields: parseLine(event.message) ?? {} }))
      .filter(({ fields }) => fields.file_key === key);
    lines.unshift(...own.map(({ event, fields }) => ({ text: logToText(event) ?? "", fields })));
    searchedMs = span.sinceMs;
  }
  return { lines, since: searchedMs > sinceMs ? new Date(searchedMs).toISOString() : undefined };
}

async function failuresOf(stack: Stack, key: string): Promise<Facts["failures"]> {
  const { events = [] } = await replayFailures(stack, { dryRun: true, max: Infinity });
  return events.filter(({ keys }) => keys.includes(key))
    .map(({ parkedAt, error }) => ({ parkedAt, error }));
}
