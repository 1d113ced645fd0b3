/** Backfill: rows for objects that have none: older than the trigger, or their event was lost. */

import { BACKFILLED } from "../function/batch.ts";
import { PARALLEL_RECORDS, unquoted, type Upload, versionOf } from "../handler.ts";
import { findKeys, listVersions, type Version } from "./bucket.ts";
import { type Clock, readClock } from "./clock.ts";
import { invoke, toEvent } from "./function.ts";
import { forEachParallel } from "./parallel.ts";
import { makePace, type Pace, paced } from "./pace.ts";
import { findRows, isBackfilled, isInParts, lastEventMs, tidyRows } from "./rows.ts";
import { interrupted, pause } from "./signals.ts";
import type { Stack } from "./target.ts";
import { clip, plural, repeat, say, toDuration, UserError, visible } from "./terminal.ts";

/** Objects of one event: as many as the function works on at the same time. */
const EVENT_OBJECTS = PARALLEL_RECORDS;

/** Objects that are looked at again in the end; each takes 200 bytes until then. */
const AWAITED_OBJECTS = 50_000;

/** It stops after so many failures: then the cause is not in the objects. */
const FAILURE_LIMIT = 1000;

export interface BackfillReport {
  ok: boolean;
  dryRun: boolean;
  /** Current objects looked at, which the trigger's filter lets through. */
  objects: number;
  /** Of these, with a row of their version already. */
  recorded: number;
  /** Of these, sent through the function and now with a row; in a dry run, those without one. */
  sent: number;
  failures: { key: string; reason: string }[];
  /** Objects whose key S3's listing lost, and which no key that it may stand for has. */
  uncertain: { listedAs: string; versionId?: string }[];
  /** Objects uploaded since the backfill began: their own events record them. */
  newer: number;
  /** Objects sent whose own event may still come, and until when: it leaves a second row. */
  awaited: number;
  awaitedUntil?: string;
}

export interface BackfillOptions {
  prefix: string;
  dryRun: boolean;
  /** The most events at the same time. */
  concurrency: number;
  /** How old an object is before its own event is given up. */
  settleMs: number;
}

/** A backfill under way. */
interface Backfill extends Pick<BackfillOptions, "dryRun" | "settleMs"> {
  stack: Stack;
  prefix: string;
  report: BackfillReport;
  pace: Pace;
  /** AWS's time. */
  now: Clock;
  startMs: number;
  /** How far the listing is. */
  lastKey: string;
  /**
   * Events of objects sent whose own event may still come. As JSON: a string that was cut from a
   * listing keeps all of it in memory.
   */
  awaited: string[];
  /** Whether the user was told why nothing happens. */
  saidWhy: boolean;
}

/**
 * Lists the current objects and invokes the function with those that have no row of their version
 * (without versions: of their ETag): more events at the same time, up to `concurrency`, until AWS
 * throttles. Running it again goes on where it ended, since what has a row is skipped.
 *
 * An object younger than `settleMs` is held back until it is that old, since its event may still be
 * on its way. If the event arrives even later, the backfill's row is deleted (see tidyRows), at the
 * end of this backfill or by the next.
 */
export async function backfillRows(
  original: Stack,
  { prefix, dryRun, concurrency, settleMs }: BackfillOptions,
): Promise<BackfillReport> {
  const below = narrowest(prefix, original.outputs.filter_prefix);
  const now = await readClock(original);
  const pace = makePace(concurrency);
  const report = emptyReport(dryRun);
  const backfill: Backfill = {
    stack: paced(original, pace),
    prefix: below,
    dryRun,
    settleMs,
    report,
    pace,
    now,
    startMs: now(),
    lastKey: "",
    awaited: [],
    saidWhy: false,
  };
  using _progress = repeat(2000, () => say(progressLine(backfill)));
  await inParallel(backfill, dueObjects(backfill), record);
  await inParallel(backfill, awaitedObjects(backfill), lookAgain);
  report.ok = report.failures.length === 0 && report.uncertain.length === 0;
  return report;
}

/** Does some work for as many objects at once as one event holds, at the pace of AWS. */
async function inParallel(
  backfill: Backfill,
  objects: Iterable<Upload[]> | AsyncIterable<Upload[]>,
  work: (backfill: Backfill, objects: Upload[]) => Promise<void>,
): Promise<void> {
  await forEachParallel(objects, backfill.pace.limit, async (some) => {
    try {
      if (!interrupted.aborted) await work(backfill, some);
      backfill.pace.ended();
    } catch (error) {
      if (!interrupted.aborted) throw error; // Ctrl-C in a pause: they are left for next time
    }
  });
}

function emptyReport(dryRun: boolean): BackfillReport {
  return {
    ok: true,
    dryRun,
    objects: 0,
    recorded: 0,
    sent: 0,
    failures: [],
    uncertain: [],
    newer: 0,
    awaited: 0,
  };
}

/** A report for people: what failed and why, then the counts. */
export function backfillToText(report: BackfillReport): string {
  const { dryRun, objects, recorded, sent, failures, uncertain, newer } = report;
  const { awaited, awaitedUntil } = report;
  const lines = failures.map(({ key, reason }) => `FAILED: ${visible(key)}: ${visible(reason)}`);
  for (const { listedAs, versionId } of uncertain) {
    const version = versionId === undefined ? "" : `, version ${visible(versionId)}`;
    lines.push(
      `UNCERTAIN: what S3 lists as "${
        visible(listedAs)
      }"${version}: its listing cannot carry the ` +
        "key, and no key that it may stand for has that object",
    );
  }
  lines.push(
    `${plural(objects, "object")}: ${recorded} had a row, ` +
      `${sent} ${dryRun ? "without one" : "recorded now"}, ${failures.length} failed` +
      (uncertain.length > 0 ? `; ${uncertain.length} uncertain` : "") +
      (newer > 0 ? `; ${newer} uploaded meanwhile, left to S3's events` : ""),
  );
  if (awaited > 0) {
    lines.push(
      `The own events of ${
        plural(awaited, "object")
      } may still come, until ${awaitedUntil} at the ` +
        "latest: run it again then, so that no version keeps two rows",
    );
  }
  if (failures.length >= FAILURE_LIMIT) {
    lines.push(`Stopped after ${failures.length} failures: fix their cause, then run it again`);
  }
  return lines.join("\n");
}

/** Objects that are not left to their own event, as many at once as one event holds. */
async function* dueObjects(backfill: Backfill): AsyncGenerator<Upload[]> {
  const { report, startMs } = backfill;
  for await (const page of listCurrent(backfill)) {
    backfill.lastKey = page.at(-1)?.Key ?? backfill.lastKey;
    const due: Upload[] = [];
    // Rows of about the same time are found together.
    for (const version of page.toSorted((a, b) => timeOf(a) - timeOf(b))) {
      const objects = await toUploads(backfill, version);
      // The clock is up to a second slow.
      if (timeOf(version) < startMs + 1000) due.push(...objects);
      else report.newer += objects.length;
    }
    for (const objects of batches(due)) {
      if (interrupted.aborted || report.failures.length >= FAILURE_LIMIT) return;
      yield objects;
    }
  }
}

function timeOf({ LastModified }: Version): number {
  return LastModified!.getTime();
}

function* batches(objects: Upload[]): Generator<Upload[]> {
  for (let start = 0; start < objects.length; start += EVENT_OBJECTS) {
    yield objects.slice(start, start + EVENT_OBJECTS);
  }
}

/** Records those of some objects that have no row, when they are old enough. */
async function record(backfill: Backfill, objects: Upload[]): Promise<void> {
  const { stack, dryRun, report } = backfill;
  let missing = await withoutRow(stack, objects, dryRun);
  if (!dryRun && missing.length > 0 && await settle(backfill, missing)) {
    missing = await withoutRow(stack, missing, dryRun);
  }
  const failures = dryRun ? [] : await send(stack, missing);
  const failed = new Set(failures.map(({ key }) => key));
  if (!dryRun) expectEvents(backfill, missing.filter(({ key }) => !failed.has(key)));
  report.failures.push(...failures);
  report.objects += objects.length;
  report.recorded += objects.length - missing.length;
  report.sent += missing.length - failures.length;
}

/** Notes which of some objects, sent just now, may still get their own event. */
function expectEvents({ report, awaited, now }: Backfill, sent: Upload[]): void {
  const nowMs = now();
  const young = sent.filter((object) => lastEventMs(object) >= nowMs);
  if (young.length === 0) return;
  const until = new Date(Math.max(...young.map(lastEventMs))).toISOString();
  if (report.awaitedUntil === undefined || until > report.awaitedUntil) report.awaitedUntil = until;
  if (report.awaited < AWAITED_OBJECTS) awaited.push(JSON.stringify(young));
  report.awaited += young.length;
}

function* awaitedObjects({ awaited }: Backfill): Generator<Upload[]> {
  for (const objects of awaited) yield JSON.parse(objects);
}

/** Deletes the backfill's rows of those of some objects whose own event has come by now. */
async function lookAgain({ stack, report }: Backfill, objects: Upload[]): Promise<void> {
  const found = await tidyRows(stack, objects);
  report.awaited -= found.filter((rows) => rows.some((row) => !isBackfilled(row))).length;
  if (report.awaited === 0) delete report.awaitedUntil;
}

/** Waits until the events of some objects must have come; false if that was before. */
async function settle(backfill: Backfill, objects: Upload[]): Promise<boolean> {
  const { now, startMs, settleMs } = backfill;
  // LastModified of an object in parts is when its upload began. It ended before this backfill began.
  const createdMs = objects.map((object) =>
    isInParts(object) ? startMs : Date.parse(object.timestamp)
  );
  const waitMs = Math.max(...createdMs) + settleMs - now();
  if (waitMs <= 0) return false;
  if (!backfill.saidWhy) {
    say(`Waiting ${toDuration(waitMs)}: events of the newest objects may still come`);
    backfill.saidWhy = true;
  }
  await pause(waitMs);
  return true;
}

/** Current objects that the trigger's filter may let through, a page at a time. */
async function* listCurrent({ stack, prefix }: Backfill): AsyncGenerator<Version[]> {
  const { s3_bucket_name, filter_suffix } = stack.outputs;
  for await (const page of listVersions(stack.s3, s3_bucket_name, prefix)) {
    yield page.filter(({ Key, IsLatest, ETag, exact }) =>
      IsLatest && ETag !== undefined && (!exact || Key.endsWith(filter_suffix))
    );
  }
}

/** A listed object as an event of it would tell: one, unless the listing lost its key. */
async function toUploads(
  { stack, prefix, report }: Backfill,
  version: Version,
): Promise<Upload[]> {
  const { s3_bucket_name, filter_suffix } = stack.outputs;
  const { VersionId, ETag, Size, LastModified } = version;
  const keys = await findKeys(stack.s3, s3_bucket_name, version);
  if (keys.length === 0) {
    report.uncertain.push({ listedAs: version.Key, versionId: versionOf(VersionId) });
  }
  return keys.filter((key) => key.startsWith(prefix) && key.endsWith(filter_suffix)).map((key) => ({
    bucket: s3_bucket_name,
    key,
    timestamp: LastModified!.toISOString(),
    eventName: BACKFILLED,
    size: Size,
    etag: unquoted(ETag),
    versionId: versionOf(VersionId),
  }));
}

/** The objects whose version has no row. */
async function withoutRow(stack: Stack, objects: Upload[], dryRun: boolean): Promise<Upload[]> {
  const find = dryRun ? findRows : tidyRows;
  const rows = await find(stack, objects);
  return objects.filter((_, index) => rows[index].length === 0);
}

/** Sends objects through the function; returns those that have no row afterwards, and why. */
async function send(stack: Stack, objects: Upload[]): Promise<BackfillReport["failures"]> {
  if (objects.length === 0) return [];
  await invoke(stack, toEvent(stack, objects));
  const failures: BackfillReport["failures"] = [];
  // The error of many names some: one by one they say what is wrong with each.
  for (const object of await withoutRow(stack, objects, false)) {
    const error = await invoke(stack, toEvent(stack, [object]));
    if ((await withoutRow(stack, [object], false)).length === 0) continue;
    const reason = error ?? "the function reports success, but this version has no row";
    failures.push({ key: object.key, reason });
  }
  return failures;
}

/** The narrower of two prefixes, of which one must begin with the other. */
export function narrowest(wanted: string, filter: string): string {
  if (wanted.startsWith(filter)) return wanted;
  if (filter.startsWith(wanted)) return filter;
  throw new UserError(
    `No object below "${visible(wanted)}" is recorded: the stack's filter_prefix is "${filter}"`,
  );
}

function progressLine({ report, pace, now, startMs, lastKey }: Backfill): string {
  const { objects, sent, failures, dryRun } = report;
  const done = dryRun ? "without a row" : "sent";
  const perSecond = Math.round(objects / (now() - startMs) * 1000);
  return `${dryRun ? "Looking" : "Backfilling"}: ${objects} done, ${sent} ${done}, ` +
    `${failures.length} failed, ` +
    `${perSecond} a second, ${plural(pace.limit(), "event")} at once, at "${clip(lastKey, 60)}"`;
}
