/** Verify: real files through S3, and whether each gets its one row, exact. */

import { isDeepStrictEqual } from "node:util";
import { HeadObjectCommand, PutObjectCommand } from "@aws-sdk/client-s3";
import { Upload as S3Upload } from "@aws-sdk/lib-storage";
import { forEachParallel } from "../function/parallel.ts";
import type { ObjectAnswer } from "../function/read.ts";
import { isRemoval } from "../function/removals.ts";
import { ATTRIBUTES, letsThrough, toRow, unquoted, type Upload, versionOf } from "../handler.ts";
import { emptyBucket } from "./bucket.ts";
import { describeKeys } from "./filters.ts";
import {
  areAsDeployed,
  countFailed,
  invoke,
  notificationsOf,
  SHORT_RUN_MS,
  silenceOf,
  tellsRemovals,
  toEvent,
} from "./invoke.ts";
import { type Found, type Sample, toHeaders } from "./samples.ts";
import { interrupted, pause, TIME, type Time } from "./signals.ts";
import { deleteRow, type Item, queryRows, rowsOfVersion, toText } from "./table.ts";
import type { Stack, Target } from "./target.ts";
import {
  clip,
  plural,
  say,
  sayEvery,
  terminalColumns,
  toDuration,
  toTable,
  UserError,
  visible,
  visibleName,
} from "./terminal.ts";

/** What was seen of one file. `rowAfterMs` counts from the end of its upload to its row. */
export interface FileReport {
  file: string;
  key: string;
  rowAfterMs?: number;
  row?: Item;
  problems: string[];
}

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

/** A larger file is a multipart upload, with parts of this size: the least that S3 takes. */
export const PART_BYTES = 5 * 1024 * 1024;

/** A probe is uploaded again after this time without a row. */
const NEXT_PROBE_MS = 15_000;
const PROBE = new TextEncoder().encode("Is this recorded?\n");

/** How long to wait for a file's row before the next file is uploaded beside it. */
const NEXT_FILE_MS = 1000;

/** How often the rows of what verify itself removed are looked for. */
const REMOVALS_MS = 1000;

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
  { samples, leftOut }: Found,
  options: Pick<Target, "rowDeadlineMs" | "firstRowDeadlineMs"> & { keep: boolean },
): Promise<Report> {
  const { outputs } = stack;
  const { filter_prefixes: [prefix = ""], filter_suffixes: [suffix = ""] } = outputs;
  const own = `${prefix}verify-${crypto.randomUUID()}/`;
  const [folder, ending] = options.keep ? [prefix, ""] : [own, suffix];
  const keys = samples.map(({ file }) => folder + file + ending);
  const ignored = keys.find((key) => !letsThrough(outputs, key));
  if (ignored !== undefined) {
    const rule = `it records ${describeKeys(outputs)}`;
    throw new UserError(`The trigger would ignore "${visible(ignored)}": ${rule}`);
  }
  const probe = `${own}probe${suffix}`;
  const before = await countFailed(stack);
  const notifications = await notificationsOf(stack);
  if (!areAsDeployed(stack, notifications)) { // no row would come, however long one waits
    return await toReport(stack, [], before, [`nothing was uploaded, as ${silenceOf(stack)}`]);
  }
  // Throws if the table is deleted: a file uploaded now would get its row later, in a new table.
  await queryRows(stack, probe);
  try {
    const stuck = await probeTrigger(stack, probe, before, options.firstRowDeadlineMs);
    if (!stuck) {
      const but = leftOut.length > 0 ? `, ${leftOut.length} left out` : "";
      const where = `${outputs.s3_bucket_name}/${folder}`;
      say(`Uploading ${plural(samples.length, "file")} to ${where}${but} ...`);
    }
    const files = stuck ? [stuck] : await checkFiles(stack, samples, keys, options.rowDeadlineMs);
    interrupted.throwIfAborted();
    return await toReport(stack, files, before, leftOut);
  } finally {
    const removalsMs = tellsRemovals(notifications) ? options.rowDeadlineMs : 0;
    await removeTraces(stack, own, options.keep ? [probe] : [probe, ...keys], { removalsMs });
  }
}

async function toReport(
  stack: Stack,
  files: FileReport[],
  before: number,
  others: string[],
): Promise<Report> {
  const after = await countFailed(stack);
  const more = `${after - before} more than before`;
  const problems = [
    ...others,
    ...after > before ? [`the failure queue holds ${plural(after, "event")}, ${more}`] : [],
    ...files.flatMap(({ file, problems }) => problems.map((problem) => `${file}: ${problem}`)),
  ];
  const times = files.flatMap(({ rowAfterMs }) => rowAfterMs ?? []).sort((a, b) => a - b);
  const [p50, max] = [times[Math.ceil(times.length / 2) - 1], times.at(-1)];
  return {
    ok: problems.length === 0,
    bucket: stack.outputs.s3_bucket_name,
    files,
    latencyMs: max === undefined ? undefined : { p50, max },
    failureQueue: { before, after },
    problems,
  };
}

/**
 * Uploads one file after another, so that no file waits for another's cold start; a slow one goes on
 * beside the next. Waits for all before it fails, so that no upload outlives the clean-up.
 */
async function checkFiles(
  stack: Stack,
  samples: Sample[],
  keys: string[],
  deadlineMs: number,
): Promise<FileReport[]> {
  const begun: Promise<FileReport>[] = [];
  for (const [index, sample] of samples.entries()) {
    if (interrupted.aborted) break;
    begun.push(checkFile(stack, sample, keys[index], deadlineMs));
    await Promise.race([begun[index], pause(NEXT_FILE_MS)]).catch(() => {}); // thrown below
  }
  await Promise.allSettled(begun);
  return await Promise.all(begun);
}

/**
 * Uploads a probe every 15 s until a first row of its key comes: a new notification takes about five
 * minutes on AWS, and S3 sends no event for what was uploaded before. Returns what is wrong if no row
 * comes in time, or if meanwhile the failure queue gets more than the events that it held before.
 */
export async function probeTrigger(
  stack: Stack,
  key: string,
  before: number,
  deadlineMs: number,
  time: Time = TIME,
): Promise<FileReport | undefined> {
  const startMs = time.nowMs();
  for (;;) {
    const object = { Bucket: stack.outputs.s3_bucket_name, Key: key, ContentType: "text/plain" };
    const { VersionId } = await stack.s3.send(new PutObjectCommand({ ...object, Body: PROBE }));
    const leftMs = startMs + deadlineMs - time.nowMs();
    const waitMs = Math.min(NEXT_PROBE_MS, leftMs);
    const rows = await waitForRows(() => queryRows(stack, key), waitMs, time);
    if (rows.length > 0) return undefined;
    const waitedMs = time.nowMs() - startMs;
    const waited = `no row after ${Math.round(waitedMs / 1000)} s`;
    if (waitedMs >= deadlineMs || await countFailed(stack) > before) {
      const { uploaded } = await describeUpload(stack, key, VersionId);
      const why = await explainMissing(stack, uploaded);
      const problem = `${waited}, so nothing else was uploaded: ${why}`;
      return { file: "probe", key, problems: [problem] };
    }
    say(
      `The probe has ${waited}: a new notification takes about five minutes on AWS; trying again ` +
        `for ${toDuration(deadlineMs - waitedMs)} ...`,
    );
  }
}

/** Uploads one file under a key, waits for its row and compares, and sends its event again. */
async function checkFile(
  stack: Stack,
  sample: Sample,
  key: string,
  deadlineMs: number,
): Promise<FileReport> {
  const { file } = sample;
  const { uploaded, head } = await upload(stack, sample, key);
  const uploadedMs = performance.now();
  const [row, ...others] = await waitForRows(() => rowsOfVersion(stack, uploaded), deadlineMs);
  if (row === undefined) {
    const waited = `no row after ${Math.round(deadlineMs / 1000)} s`;
    return { file, key, problems: [`${waited}: ${await explainMissing(stack, uploaded)}`] };
  }
  const rowAfterMs = Math.round(performance.now() - uploadedMs);
  const problems = others.length > 0
    ? [`${1 + others.length} rows instead of one`]
    : [...checkRow(row, sample, uploaded, head), ...await checkRepeat(stack, row, uploaded)];
  return { file, key, rowAfterMs, row, problems };
}

/** Uploads a file and returns what S3 says of it. */
async function upload(
  { s3, outputs }: Stack,
  sample: Sample,
  Key: string,
): Promise<{ uploaded: Upload; head: ObjectAnswer }> {
  const Bucket = outputs.s3_bucket_name;
  const object = { ContentType: sample.type, Metadata: toHeaders(sample.metadata) };
  const params = { Bucket, Key, Body: sample.open(), ...object };
  const upload = new S3Upload({ client: s3, partSize: PART_BYTES, params });
  let sent = 0;
  upload.on("httpUploadProgress", ({ loaded = 0 }) => sent = loaded);
  using _progress = sayEvery(() => {
    const percent = Math.floor(sent / Math.max(1, sample.size) * 100);
    return `Uploading ${visible(sample.file)}: ${percent} %`;
  });
  const { VersionId } = await upload.done();
  return await describeUpload({ s3, outputs }, Key, VersionId);
}

/** What S3 says of an upload, and what the upload's event should say. */
async function describeUpload(
  { s3, outputs }: Pick<Stack, "s3" | "outputs">,
  Key: string,
  VersionId: string | undefined,
): Promise<{ uploaded: Upload; head: ObjectAnswer }> {
  const Bucket = outputs.s3_bucket_name;
  const head = await s3.send(new HeadObjectCommand({ Bucket, Key, VersionId }));
  const uploaded = {
    bucket: Bucket,
    key: Key,
    timestamp: head.LastModified!.toISOString(),
    eventName: head.ContentLength! > PART_BYTES
      ? "ObjectCreated:CompleteMultipartUpload"
      : "ObjectCreated:Put",
    size: head.ContentLength,
    etag: unquoted(head.ETag),
    versionId: versionOf(head.VersionId),
  };
  return { uploaded, head };
}

/** Looks for rows often at first, then less; none at the deadline. */
export async function waitForRows(
  look: () => Promise<Item[]>,
  deadlineMs: number,
  time: Time = TIME,
): Promise<Item[]> {
  const endMs = time.nowMs() + deadlineMs;
  for (let waitMs = 20;; waitMs = Math.min(1000, waitMs * 1.2)) {
    const items = await look();
    if (items.length > 0 || time.nowMs() >= endMs) return items;
    await time.pause(Math.min(waitMs, endMs - time.nowMs()));
  }
}

/**
 * What is wrong with a row, by what S3 answers. handler.ts alone says which attributes a row has and
 * which of them S3 gives; the preview is the sample's own.
 */
export function checkRow(
  row: Item,
  sample: Pick<Sample, "size" | "preview" | "metadata">,
  uploaded: Upload,
  head: ObjectAnswer,
): string[] {
  const actual: Record<string, unknown> = row;
  const expected: Record<string, unknown> = {
    ...toRow(uploaded, head, undefined, uploaded.timestamp),
    content_preview: sample.preview,
    user_metadata: sample.metadata,
  };
  const isOfToday = (time: string) =>
    // no run takes a day
    /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(time) &&
    Math.abs(Date.parse(time) - Date.parse(uploaded.timestamp)) < 86_400_000;
  const problems = uploaded.size === sample.size ? [] : [`S3 has ${uploaded.size} bytes of it`];
  for (const name of new Set([...ATTRIBUTES, ...Object.keys(row)])) {
    const value = actual[name];
    const [isRight, right] = name === "timestamp" || name === "processed_at"
      ? [isOfToday(String(value)), "a time of today"]
      : name === "sequencer"
      ? [/^[0-9A-F]+$/i.test(String(value)), "hexadecimal"]
      : [isDeepStrictEqual(value, expected[name]), show(expected[name])];
    if (!isRight) problems.push(`${name} is ${show(value)}, not ${right}`);
  }
  return problems;
}

/** Why a row is missing: invokes the function with the same event to see. */
async function explainMissing(stack: Stack, uploaded: Upload): Promise<string> {
  const error = await invoke(stack, toEvent(stack, [uploaded]), { limitMs: SHORT_RUN_MS });
  if (error !== undefined) return `the function fails: ${error}`;
  return (await rowsOfVersion(stack, uploaded)).length > 0
    ? "invoked directly, the function writes it: the bucket's event does not reach the function"
    : "invoked directly, the function reports success, but writes no row";
}

function show(value: unknown): string {
  return value === undefined ? "absent" : clip(JSON.stringify(value), 100);
}

/** Sends the event of a row again, which must change nothing. */
async function checkRepeat(stack: Stack, row: Item, uploaded: Upload): Promise<string[]> {
  const { timestamp, sequencer } = row as Record<string, string>;
  const event = toEvent(stack, [{ ...uploaded, timestamp, sequencer }]);
  const error = await invoke(stack, event, { limitMs: SHORT_RUN_MS });
  if (error !== undefined) return [`the same event again makes the function fail: ${error}`];
  const rows = await rowsOfVersion(stack, uploaded);
  if (rows.length !== 1) return [`the same event again left ${rows.length} rows`];
  return isDeepStrictEqual(rows[0], row) ? [] : ["the same event again changed the row"];
}

/**
 * Removes the folder's objects and all rows of its keys. Where removals are recorded that makes more
 * rows: they are waited for, and deleted too.
 */
export async function removeTraces(
  stack: Stack,
  folder: string,
  keys: string[],
  { removalsMs, time = TIME }: { removalsMs: number; time?: Time },
): Promise<void> {
  const { s3, outputs } = stack;
  const versions = await emptyBucket(s3, outputs.s3_bucket_name, { prefix: folder });
  const endMs = time.nowMs() + removalsMs;
  for (let left = versions;;) {
    await forEachParallel(keys, PARALLEL_KEYS, async (key) => {
      for (const row of await queryRows(stack, key)) {
        if (isRemoval(row.event_name)) left--;
        await deleteRow(stack, row);
      }
    });
    if (removalsMs === 0 || left <= 0) return;
    if (interrupted.aborted || time.nowMs() >= endMs) {
      return say(`${plural(left, "removal")} below ${folder} had no row yet: one may still come`);
    }
    await time.pause(REMOVALS_MS).catch(() => {}); // Ctrl-C
  }
}

/** A report for people: a line a file, then what is wrong. */
export function reportToText({ ok, files, latencyMs, failureQueue, problems }: Report): string {
  const lines = files.map(({ file, rowAfterMs, problems }) => [
    visibleName(file),
    rowAfterMs === undefined ? "no row" : `${rowAfterMs} ms`,
    problems.length === 0 ? "exact" : "WRONG",
  ]);
  return [
    ...toTable([["file", "row after", "row"], ...lines], [1], terminalColumns()),
    "",
    ...latencyMs ? [`upload to row: p50 ${latencyMs.p50} ms, max ${latencyMs.max} ms`] : [],
    `failure queue: ${plural(failureQueue.after, "event")}, ${failureQueue.before} before`,
    ...problems.map((problem) => `WRONG: ${visible(problem)}`),
    ok ? "Every file has its one row, exact." : `Wrong: ${problems.length}.`,
  ].join("\n");
}

/** A row for people, whole: a line for each attribute. */
export function rowToText(row: Item): string {
  const names = Object.keys(row).sort();
  return toTable(names.map((name) => [`  ${name}`, visibleName(toText(row[name]))])).join("\n");
}
