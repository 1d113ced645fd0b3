/** Backfill: rows for objects that have none, being older than the trigger or their event lost. */

import { listVersions, type Version } from "./bucket.ts";
import type { Upload } from "../handler.ts";
import { forEachParallel, interrupted, pause, repeat, say, UserError } from "./shell.ts";
import {
  type Clients,
  deleteRow,
  FAILURE_LIMIT,
  invoke,
  type Item,
  queryRows,
  toEvent,
} from "./function.ts";
import type { Outputs } from "./terraform.ts";
import { plural, toDuration, visible } from "./terminal.ts";

/** The `event_name` of a row that came by a backfill. */
export const BACKFILLED = "ObjectCreated:Backfill";

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
  /** Objects that came since the beginning: their own events record them. */
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
 * those that have no row of their version (without versions: of their tag). Running it again goes
 * on where it ended, since what has a row is skipped.
 *
 * An object's own event may still be on its way: one younger than `settleMs` is taken up when it has
 * that age, and should both come to write a row, the backfill's is removed.
 */
export async function backfillRows(
  stack: Outputs,
  clients: Clients,
  options: { prefix: string; dryRun: boolean; concurrency: number; settleMs: number },
): Promise<BackfillReport> {
  const { dryRun, concurrency, settleMs } = options;
  const prefix = narrowest(options.prefix, stack.filter_prefix);
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
    for await (const page of listCurrent(stack, clients, prefix)) {
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
    let missing = await withoutRow(stack, clients, batch, dryRun);
    if (!dryRun && missing.length > 0) {
      const settledMs = Math.max(...missing.map(({ createdMs }) => createdMs)) + settleMs;
      const waitMs = settledMs - Date.now();
      if (waitMs > 0) {
        if (!waits) {
          say(`Waiting ${toDuration(waitMs)}: events of the newest objects may still come`);
          waits = true;
        }
        await pause(waitMs);
        missing = await withoutRow(stack, clients, missing, dryRun);
      }
    }
    const failures = dryRun ? [] : await send(stack, clients, missing);
    report.failures.push(...failures);
    report.objects += batch.length;
    report.recorded += batch.length - missing.length;
    report.sent += missing.length - failures.length;
  };

  const counting = countCurrent(stack, clients, prefix).then((count) => total = count, () => {});
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
    lines.push(`Stopped after ${failures.length} failures: mend their cause, then run it again`);
  }
  return lines.join("\n");
}

/** Current objects that the trigger's filter lets through, a page at a time. */
async function* listCurrent(
  { s3_bucket_name, filter_suffix }: Outputs,
  { s3 }: Clients,
  prefix: string,
): AsyncGenerator<Current[]> {
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

async function countCurrent(stack: Outputs, clients: Clients, prefix: string): Promise<number> {
  let count = 0;
  for await (const page of listCurrent(stack, clients, prefix)) {
    interrupted.throwIfAborted();
    count += page.length;
  }
  return count;
}

/** The objects whose version has no row. */
async function withoutRow(
  stack: Outputs,
  clients: Clients,
  objects: Current[],
  dryRun: boolean,
): Promise<Current[]> {
  const look = dryRun ? rowsOf : tidyRows;
  const rows = await Promise.all(objects.map((object) => look(stack, clients, object)));
  return objects.filter((_, index) => rows[index].length === 0);
}

/** The rows of one version of an object; without versions, of its tag. */
async function rowsOf(stack: Outputs, clients: Clients, object: Upload): Promise<Item[]> {
  const isOf = ({ version_id, etag }: Item) =>
    version_id === object.versionId && (version_id !== undefined || etag === object.etag);
  return (await queryRows(stack, clients, object.key)).filter(isOf);
}

/**
 * The rows of one version, after a backfill's is removed where an event came after all and wrote its
 * own: that one has the exact time and the sequencer.
 */
export async function tidyRows(
  stack: Outputs,
  clients: Clients,
  object: Upload,
): Promise<Item[]> {
  const rows = await rowsOf(stack, clients, object);
  const own = rows.filter(({ event_name }) => event_name !== BACKFILLED);
  if (own.length === 0) return rows;
  for (const row of rows) {
    if (row.event_name === BACKFILLED) await deleteRow(stack, clients, row);
  }
  return own;
}

/** Sends objects through the function; answers those that have no row afterwards, and why. */
async function send(
  stack: Outputs,
  clients: Clients,
  objects: Current[],
): Promise<BackfillReport["failures"]> {
  if (objects.length === 0) return [];
  await invoke(stack, clients, toEvent(stack, objects));
  const failures: BackfillReport["failures"] = [];
  // The error of many names some: one by one they say what is wrong with each.
  for (const object of await withoutRow(stack, clients, objects, false)) {
    const error = await invoke(stack, clients, toEvent(stack, [object]));
    if ((await withoutRow(stack, clients, [object], false)).length === 0) continue;
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
