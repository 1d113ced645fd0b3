/** Verification of what is deployed: real files through S3, and their rows. */

import { letsThrough, type Upload } from "../handler.ts";
import { emptyBucket } from "./bucket.ts";
import { checkFile, type FileReport } from "./check_file.ts";
import { denoTask } from "./commands.ts";
import {
  bucketNotifies,
  countFailures,
  encodeKey,
  invoke,
  SHORT_RUN_MS,
  toEvent,
} from "./invoke.ts";
import { forEachParallel } from "../function/parallel.ts";
import { probeTrigger } from "./probe.ts";
import { deleteRow, type Item, queryRows, rowsOfVersion } from "./table.ts";
import type { Sample } from "./samples.ts";
import { interrupted, pause } from "./signals.ts";
import type { Stack, Target } from "./target.ts";
import {
  clip,
  plural,
  say,
  terminalColumns,
  toTable,
  UserError,
  visible,
  visibleName,
} from "./terminal.ts";

export interface Report {
  ok: boolean;
  bucket: string;
  files: FileReport[];
  /** Milliseconds from upload to row. */
  latencyMs?: { p50: number; max: number };
  failureQueue: { before: number; after: number };
  /** Everything wrong, files' problems included, as sentences. */
  problems: string[];
}

/** How long to wait for a file's row before the next file is uploaded beside it. */
const NEXT_FILE_MS = 1000;

/** Events that are sent again in one invocation, whose payload and time are bounded. */
const REPEATED_EVENTS = 100;

/** Columns of a file's name in the report: a problem names it whole. */
const NAME_COLUMNS = 60;

/** Keys that are cleaned up at the same time. */
const PARALLEL_KEYS = 8;

/**
 * Once a probe has its row, uploads files, waits for their rows, compares each attribute with S3's own
 * answer, sends the same events again, and looks into the failure queue. Then it removes what it made,
 * unless it is to keep that: kept files have their own names, all else is in a folder of its own.
 *
 * @throws {UserError} the trigger would ignore a kept file
 */
export async function verifyStack(
  stack: Stack,
  samples: Sample[],
  options: Pick<Target, "rowDeadlineMs" | "firstRowDeadlineMs"> & {
    keep: boolean;
    /** Sentences about files that are not uploaded, each a problem. */
    leftOut?: string[];
  },
): Promise<Report> {
  const { s3_bucket_name, filter_prefix, filter_suffix } = stack.outputs;
  const own = `${filter_prefix}verify-${crypto.randomUUID()}/`;
  const folder = options.keep ? filter_prefix : own;
  const keys = samples.map(({ file }) => keyIn(stack, folder, file, options));
  const probe = `${own}probe${filter_suffix}`;
  const before = await countFailed(stack);
  if (!await bucketNotifies(stack)) return silentReport(stack, before);
  // Throws where the table is gone: what is uploaded then would get its row once there is one again.
  await queryRows(stack, probe);
  const problems = [...options.leftOut ?? []];
  let files: FileReport[];
  let after: number;
  try {
    const stuck = await probeTrigger(stack, probe, {
      deadlineMs: options.firstRowDeadlineMs,
      isFailing: async () => await countFailed(stack) > before,
    });
    if (!stuck) {
      const but = problems.length > 0 ? `, ${problems.length} left out` : "";
      say(`Uploading ${plural(samples.length, "file")} to ${s3_bucket_name}/${folder}${but} ...`);
    }
    files = stuck ? [stuck] : await oneAfterAnother(
      samples,
      (sample, index) => checkFile(stack, sample, keys[index], options.rowDeadlineMs),
    );
    interrupted.throwIfAborted();
    problems.push(...await checkRepeat(stack, files));
    after = await countFailed(stack);
    if (after > before) {
      problems.push(
        `the failure queue holds ${plural(after, "event")}, ${after - before} more than before`,
      );
    }
  } finally {
    await removeTraces(stack, own, options.keep ? [probe] : [probe, ...keys]);
  }
  problems.push(...files.flatMap(({ file, problems }) => problems.map((p) => `${file}: ${p}`)));
  return {
    ok: problems.length === 0,
    bucket: s3_bucket_name,
    files,
    latencyMs: latencyOf(files),
    failureQueue: { before, after },
    problems,
  };
}

/** A report for people: a line a file, then the latencies, then what is wrong. */
export function reportToText(report: Report): string {
  const lines = toTable(
    [
      ["file", "row after", "checks"],
      ...report.files.map(({ file, rowAfterMs, checks, problems }) => [
        clip(visibleName(file), NAME_COLUMNS),
        rowAfterMs === undefined ? "no row" : `${rowAfterMs} ms`,
        problems.length === 0 ? `${checks} passed` : `${problems.length} FAILED, ${checks} passed`,
      ]),
    ],
    [1],
    terminalColumns(),
  );
  const { latencyMs, failureQueue, problems } = report;
  lines.push("");
  if (latencyMs) {
    lines.push(`upload to row: p50 ${latencyMs.p50} ms, max ${latencyMs.max} ms`);
  }
  lines.push(
    `failure queue: ${plural(failureQueue.after, "event")}, ${failureQueue.before} before`,
  );
  lines.push(...problems.map((problem) => `WRONG: ${visible(problem)}`));
  lines.push(
    report.ok ? "Every file has its one row, exact." : `Wrong: ${problems.length}.`,
  );
  return lines.join("\n");
}

/** A row for people, whole: a line for each attribute. */
export function rowToText(row: Item): string {
  const cells = Object.entries(row).sort(([a], [b]) => a < b ? -1 : 1);
  return toTable(cells.map(([name, value]) => [`  ${name}`, visibleName(String(value))])).join(
    "\n",
  );
}

function keyIn(
  { outputs }: Stack,
  folder: string,
  file: string,
  { keep }: { keep: boolean },
): string {
  const { filter_suffix } = outputs;
  if (!keep) return `${folder}${file}${filter_suffix}`;
  if (letsThrough(outputs, folder + file)) return folder + file;
  throw new UserError(
    `The trigger would ignore "${visible(file)}": it records keys that end with "${filter_suffix}"`,
  );
}

/**
 * Works on one item after another, so that no file waits for another's cold start; slow work goes on
 * beside the next item's. Waits for all of it before it fails, so that no upload outlives the
 * clean-up.
 */
async function oneAfterAnother<T, R>(
  items: T[],
  work: (item: T, index: number) => Promise<R>,
): Promise<R[]> {
  const begun: Promise<R>[] = [];
  for (const [index, item] of items.entries()) {
    if (interrupted.aborted) break;
    begun.push(work(item, index));
    await Promise.race([begun.at(-1), pause(NEXT_FILE_MS)]).catch(() => {}); // thrown below
  }
  await Promise.allSettled(begun);
  return await Promise.all(begun);
}

/** Sends the same events again, which must change nothing. */
async function checkRepeat(stack: Stack, files: FileReport[]): Promise<string[]> {
  const rows = files.map(({ row }) => row).filter((row) => row !== undefined);
  for (let start = 0; start < rows.length; start += REPEATED_EVENTS) {
    const uploads = rows.slice(start, start + REPEATED_EVENTS).map(uploadOfRow);
    const error = await invoke(stack, toEvent(stack, uploads), { limitMs: SHORT_RUN_MS });
    if (error !== undefined) return [`the same events again make the function fail: ${error}`];
  }
  const problems: string[] = [];
  for (const row of rows) {
    const items = await rowsOfVersion(stack, uploadOfRow(row));
    if (items.length !== 1) {
      problems.push(`the same event again left ${items.length} rows of ${row.file_key}`);
    } else if (rowToText(items[0]) !== rowToText(row)) {
      problems.push(`the same event again changed the row of ${row.file_key}`);
    }
  }
  return problems;
}

/** The upload that a row's event told of. */
function uploadOfRow(row: Item): Upload {
  return {
    bucket: row.bucket_name as string,
    key: row.file_key as string,
    timestamp: row.timestamp as string,
    eventName: row.event_name as string,
    size: row.file_size as number,
    etag: row.etag as string,
    versionId: row.version_id as string,
    sequencer: row.sequencer as string,
  };
}

/** No row would come, however long one waits. */
function silentReport(stack: Stack, failed: number): Report {
  const bucket = stack.outputs.s3_bucket_name;
  const problem =
    `the bucket ${bucket} has no notification that calls the function, so nothing was uploaded; ` +
    `${denoTask(stack, "deploy")} puts it right`;
  const failureQueue = { before: failed, after: failed };
  return { ok: false, bucket, files: [], failureQueue, problems: [problem] };
}

async function countFailed(stack: Stack): Promise<number> {
  const { visible, inFlight } = await countFailures(stack);
  return visible + inFlight;
}

function latencyOf(files: FileReport[]): Report["latencyMs"] {
  const sorted = files.flatMap(({ rowAfterMs }) => rowAfterMs ?? []).sort((a, b) => a - b);
  if (sorted.length === 0) return undefined;
  return { p50: sorted[Math.ceil(sorted.length / 2) - 1], max: sorted.at(-1)! };
}

/** Removes the folder's objects and all rows of its keys, undecoded ones too. */
async function removeTraces(stack: Stack, folder: string, keys: string[]): Promise<void> {
  await emptyBucket(stack.s3, stack.outputs.s3_bucket_name, { prefix: folder });
  const spellings = keys.flatMap((key) => [...new Set([key, encodeKey(key)])]);
  await forEachParallel(spellings, PARALLEL_KEYS, async (key) => {
    for (const row of await queryRows(stack, key)) await deleteRow(stack, row);
  });
}
