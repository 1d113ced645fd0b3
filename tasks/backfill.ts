/** Backfill: rows for objects that have none: older than the trigger, or their event was lost. */

import { type Upload } from "../handler.ts";
import { listVersions, type Version } from "./bucket.ts";
import { FAILURE_LIMIT, invoke, toEvent } from "./function.ts";
import { forEachParallel } from "./parallel.ts";
import { BACKFILLED, rowsOfVersion, tidyRows } from "./rows.ts";
import { interrupted, pause } from "./signals.ts";
import type { Stack } from "./target.ts";
import { plural, repeat, say, toDuration, UserError, visible } from "./terminal.ts";

/** Objects of one event: as many as the function works on at the same time. */
const BATCH = 32;

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
  /** Objects uploaded since the backfill began: their own events record them. */
  newer: number;
}

/** A current object, with the facts that an event of it would have. */
interface Current extends Upload {
  createdMs: number;
  /** Whether the listing could carry the key. */
  legible: boolean;
}

/**
 * Lists the current objects and invokes the function, `concurrency` events at the same time, with
 * those that have no row of their version (without versions: of their ETag). Running it again goes
 * on where it ended, since what has a row is skipped.
 *
 * An object younger than `settleMs` is held back until it is that old, since its event may still be
 * on its way. If the event arrives even later, the backfill's row is deleted (see tidyRows).
 */
export async function backfillRows(
  stack: Stack,
  options: { prefix: string; dryRun: boolean; concurrency: number; settleMs: number },
): Promise<BackfillReport> {
  const { dryRun, concurrency, settleMs } = options;
  const prefix = narrowest(options.prefix, stack.outputs.filter_prefix);
  const startMs = Date.now();
  const report: BackfillReport = {
    ok: true,
    dryRun,
    objects: 0,
    recorded: 0,
    sent: 0,
    failures: [],
    newer: 0,
  };
  let total: number | undefined;
  let waits = false;

  async function* batches(): AsyncGenerator<Current[]> {
    for await (const page of listCurrent(stack, prefix)) {
      for (const { key } of page.filter(({ legible }) => !legible)) {
        report.failures.push({
          key,
          reason: "this S3 does not encode its listings: the key is lost",
        });
      }
      const legible = page.filter(({ legible }) => legible);
      const due = legible.filter(({ createdMs }) => createdMs <= startMs);
      report.newer += legible.length - due.length;
      for (let start = 0; start < due.length; start += BATCH) {
        if (interrupted.aborted || report.failures.length >= FAILURE_LIMIT) return;
        yield due.slice(start, start + BATCH);
      }
    }
  }

  const handle = async (batch: Current[]) => {
    let missing = await withoutRow(stack, batch, dryRun);
    if (!dryRun && missing.length > 0) {
      const settledMs = Math.max(...missing.map(({ createdMs }) => createdMs)) + settleMs;
      const waitMs = settledMs - Date.now();
      if (waitMs > 0) {
        if (!waits) {
          say(`Waiting ${toDuration(waitMs)}: events of the newest objects may still come`);
          waits = true;
        }
        await pause(waitMs);
        missing = await withoutRow(stack, missing, dryRun);
      }
    }
    const failures = dryRun ? [] : await send(stack, missing);
    report.failures.push(...failures);
    report.objects += batch.length;
    report.recorded += batch.length - missing.length;
    report.sent += missing.length - failures.length;
  };

  const counting = countCurrent(stack, prefix).then((count) => total = count, () => {});
  try {
    using _progress = repeat(2000, () => say(progressLine(report, total, Date.now() - startMs)));
    await forEachParallel(batches(), concurrency, (batch) =>
      handle(batch).catch((error) => {
        if (!interrupted.aborted) throw error; // Ctrl-C in a pause: the batch is left for next time
      }));
  } finally {
    await counting;
  }
  report.ok = report.failures.length === 0;
  return report;
}

/** A report for people: what failed and why, then the counts. */
export function backfillToText(report: BackfillReport): string {
  const { dryRun, objects, recorded, sent, failures, newer } = report;
  const lines = failures.map(({ key, reason }) => `FAILED: ${visible(key)}: ${visible(reason)}`);
  lines.push(
    `${plural(objects, "object")}: ${recorded} had their row, ` +
      `${sent} ${dryRun ? "have none" : "recorded now"}, ${failures.length} failed` +
      (newer > 0 ? `; ${newer} came meanwhile and are left to their events` : ""),
  );
  if (failures.length >= FAILURE_LIMIT) {
    lines.push(`Stopped after ${failures.length} failures: fix their cause, then run it again`);
  }
  return lines.join("\n");
}

/** Current objects that the trigger's filter lets through, a page at a time. */
async function* listCurrent({ s3, outputs }: Stack, prefix: string): AsyncGenerator<Current[]> {
  const { s3_bucket_name, filter_suffix } = outputs;
  for await (const page of listVersions(s3, s3_bucket_name, prefix)) {
    yield page
      .filter(({ Key, IsLatest, ETag }) =>
        IsLatest && ETag !== undefined && Key.endsWith(filter_suffix)
      )
      .map((version) => toCurrent(s3_bucket_name, version));
  }
}

function toCurrent(
  bucket: string,
  { Key, VersionId, ETag, Size, LastModified, otherwise }: Version,
): Current {
  return {
    bucket,
    key: Key,
    timestamp: LastModified!.toISOString(),
    eventName: BACKFILLED,
    size: Size,
    etag: ETag!.replaceAll('"', ""),
    // Objects from before versioning are version "null"; their events name none.
    versionId: VersionId === "null" ? undefined : VersionId,
    createdMs: LastModified!.getTime(),
    legible: otherwise.length === 0,
  };
}

async function countCurrent(stack: Stack, prefix: string): Promise<number> {
  let count = 0;
  for await (const page of listCurrent(stack, prefix)) {
    interrupted.throwIfAborted();
    count += page.length;
  }
  return count;
}

/** The objects whose version has no row. */
async function withoutRow(
  stack: Stack,
  objects: Current[],
  dryRun: boolean,
): Promise<Current[]> {
  const find = dryRun ? rowsOfVersion : tidyRows;
  const rows = await Promise.all(objects.map((object) => find(stack, object)));
  return objects.filter((_, index) => rows[index].length === 0);
}

/** Sends objects through the function; answers those that have no row afterwards, and why. */
async function send(
  stack: Stack,
  objects: Current[],
): Promise<BackfillReport["failures"]> {
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
function narrowest(wanted: string, filter: string): string {
  if (wanted.startsWith(filter)) return wanted;
  if (filter.startsWith(wanted)) return filter;
  throw new UserError(
    `No object below "${visible(wanted)}" is recorded: the stack's filter_prefix is "${filter}"`,
  );
}

function progressLine(
  { objects, sent, failures }: BackfillReport,
  total: number | undefined,
  elapsedMs: number,
): string {
  const perSecond = objects / elapsedMs * 1000;
  const left = total === undefined || objects === 0
    ? ""
    : `, ${toDuration(Math.max(0, total - objects) / perSecond * 1000)} left`;
  return `Backfilling: ${objects}${total === undefined ? "" : ` of ${total}`} done, ` +
    `${sent} sent, ${failures.length} failed, ${Math.round(perSecond)} a second${left}`;
}
