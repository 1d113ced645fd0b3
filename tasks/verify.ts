/** Verification of what is deployed: real files through S3, and their rows. */

import {
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  HeadObjectCommand,
  type HeadObjectCommandOutput,
  PutObjectCommand,
  UploadPartCommand,
} from "@aws-sdk/client-s3";
import type { Upload } from "../handler.ts";
import { emptyBucket } from "./bucket.ts";
import { bucketNotifies, countFailures, encodeKey, invoke, toEvent } from "./function.ts";
import { deleteRow, type Item, queryRows } from "./rows.ts";
import { interrupted, pause } from "./signals.ts";
import type { Stack } from "./target.ts";
import { plural, say, toTable, visible } from "./terminal.ts";

/** What was seen of one file. `rowAfterMs` counts from the end of its upload to its row. */
export interface FileReport {
  file: string;
  key: string;
  rowAfterMs?: number;
  checks: number;
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

interface Sample {
  file: string;
  body: Uint8Array;
  type?: string;
  /** The row's preview, none if absent. */
  preview?: string;
  multipart?: boolean;
}

/** How long to wait for a file's row before the next file is uploaded beside it. */
const NEXT_FILE_MS = 1000;

const MEGABYTE = 1024 * 1024;
const EMOJI_TEXT = "Grüße, 世界! 👩‍👩‍👧 𝒳 ".repeat(200);

const SAMPLES: Sample[] = [
  text("plain.txt", "text/plain", "A line.\nAnother line.\n"),
  text(`odd + 100% & "quoted" 'name' äö 日本 😀.txt`, "text/plain; charset=utf-8", "odd name"),
  text("object.json", "application/json", '{"answer": 42}'),
  text("table-without-type.csv", undefined, "id,name\n1,Zoë\n"),
  { file: "binary.bin", type: "application/octet-stream", body: bytes(4096) },
  { file: "empty.txt", type: "text/plain", body: new Uint8Array() },
  text("long.txt", "text/plain; charset=utf-8", EMOJI_TEXT),
  { file: "large.bin", type: "application/zip", body: bytes(8 * MEGABYTE), multipart: true },
];

/**
 * Uploads the samples, waits for their rows, compares each attribute with S3's own answer, sends
 * the same events again, looks into the failure queue, and removes what it made.
 */
export async function verifyStack(
  stack: Stack,
  options: { deadlineMs: number },
): Promise<Report> {
  const folder = `${stack.outputs.filter_prefix}verify-${crypto.randomUUID()}/`;
  const keyOf = ({ file }: Sample) => `${folder}${file}${stack.outputs.filter_suffix}`;
  const before = await countFailed(stack);
  const problems: string[] = [];
  const rows = new Map<string, Item>();
  let files: FileReport[];
  let after: number;
  try {
    say(`Uploading ${SAMPLES.length} files to ${stack.outputs.s3_bucket_name}/${folder} ...`);
    files = await oneAfterAnother(SAMPLES, async (sample) => {
      const key = keyOf(sample);
      const report: FileReport = { file: sample.file, key, checks: 0, problems: [] };
      await checkSample(stack, sample, report, rows, options.deadlineMs);
      return report;
    });
    interrupted.throwIfAborted();
    if (rows.size > 0) problems.push(...await checkRepeat(stack, rows));
    after = await countFailed(stack);
    if (after > before) {
      problems.push(
        `the failure queue holds ${plural(after, "event")}, ${after - before} more than before`,
      );
    }
    problems.unshift(...await checkNotification(stack, files));
  } finally {
    const keys = SAMPLES.map(keyOf).flatMap((key) => [key, encodeKey(key)]);
    await removeTraces(stack, folder, keys);
  }

  const latencies = files.flatMap(({ rowAfterMs }) => rowAfterMs ?? []).sort((a, b) => a - b);
  problems.push(...files.flatMap(({ file, problems }) => problems.map((p) => `${file}: ${p}`)));
  return {
    ok: problems.length === 0,
    bucket: stack.outputs.s3_bucket_name,
    files,
    latencyMs: latencies.length === 0 ? undefined : {
      p50: latencies[Math.ceil(latencies.length / 2) - 1],
      max: latencies.at(-1)!,
    },
    failureQueue: { before, after },
    problems,
  };
}

/** A report for people: a line a file, then the latencies, then what is wrong. */
export function reportToText(report: Report): string {
  const lines = toTable([
    ["file", "row after", "checks"],
    ...report.files.map(({ file, rowAfterMs, checks, problems }) => [
      visible(file),
      rowAfterMs === undefined ? "no row" : `${rowAfterMs} ms`,
      problems.length === 0 ? `${checks} passed` : `${problems.length} FAILED, ${checks} passed`,
    ]),
  ], [1]);
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

/**
 * Works on one item after another, so that no file waits for another's cold start; slow work goes on
 * beside the next item's. Waits for all of it before it fails, so that no upload outlives the
 * clean-up.
 */
async function oneAfterAnother<T, R>(items: T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const begun: Promise<R>[] = [];
  for (const item of items) {
    if (interrupted.aborted) break;
    begun.push(work(item));
    await Promise.race([begun.at(-1), pause(NEXT_FILE_MS)]).catch(() => {}); // thrown below
  }
  await Promise.allSettled(begun);
  return await Promise.all(begun);
}

/** Uploads one file, waits for its row and compares; adds to the report, and the row to `rows`. */
async function checkSample(
  stack: Stack,
  sample: Sample,
  report: FileReport,
  rows: Map<string, Item>,
  deadlineMs: number,
): Promise<void> {
  const startedAt = new Date();
  await upload(stack, sample, report.key);
  const uploadedMs = performance.now();
  const head = await stack.s3.send(
    new HeadObjectCommand({ Bucket: stack.outputs.s3_bucket_name, Key: report.key }),
  );

  const items = await waitForRows(stack, report.key, deadlineMs);
  if (items.length === 0) {
    const seconds = Math.round(deadlineMs / 1000);
    const why = await explainMissing(stack, report.key, head);
    report.problems.push(`no row after ${seconds} s: ${why}`);
    return;
  }
  report.rowAfterMs = Math.round(performance.now() - uploadedMs);
  rows.set(report.key, items[0]);
  if (items.length !== 1) report.problems.push(`${items.length} rows instead of one`);
  else report.checks++;
  checkRow(stack, sample, report, items[0], head, startedAt);
}

/** Compares a row's attributes with S3's own answer, and counts what passed. */
function checkRow(
  { outputs }: Stack,
  sample: Sample,
  report: FileReport,
  row: Item,
  head: HeadObjectCommandOutput,
  startedAt: Date,
): void {
  const check = (passed: boolean, problem: string) => {
    if (passed) report.checks++;
    else report.problems.push(problem);
  };
  const { timestamp, processed_at, sequencer, ...attributes } = row;
  const expected: Record<string, string | number | undefined> = {
    file_key: report.key,
    bucket_name: outputs.s3_bucket_name,
    file_size: head.ContentLength,
    content_type: head.ContentType,
    last_modified: head.LastModified?.toISOString(),
    etag: head.ETag?.replaceAll('"', ""),
    version_id: head.VersionId,
    event_name: sample.multipart ? "ObjectCreated:CompleteMultipartUpload" : "ObjectCreated:Put",
    content_preview: sample.preview,
  };
  for (const name of new Set([...Object.keys(expected), ...Object.keys(attributes)])) {
    check(
      attributes[name] === expected[name],
      `${name} is ${show(attributes[name])}, not ${show(expected[name])}`,
    );
  }
  // A day of difference between the clocks still tells a time from nonsense.
  for (const [name, value] of Object.entries({ timestamp, processed_at })) {
    const isTime = typeof value === "string" && /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(value);
    const isNear = isTime && Math.abs(Date.parse(value) - startedAt.getTime()) < 86_400_000;
    check(isNear, `${name} is ${show(value)}, which is not a time of today`);
  }
  check(/^[0-9A-F]+$/i.test(String(sequencer)), `sequencer is ${show(sequencer)}`);
}

async function upload(
  { s3, outputs }: Stack,
  { body, type, multipart }: Sample,
  Key: string,
): Promise<void> {
  const Bucket = outputs.s3_bucket_name;
  if (!multipart) {
    await s3.send(new PutObjectCommand({ Bucket, Key, Body: body, ContentType: type }));
    return;
  }
  const { UploadId } = await s3.send(
    new CreateMultipartUploadCommand({ Bucket, Key, ContentType: type }),
  );
  const partSize = 5 * MEGABYTE; // the least that S3 takes of any part but the last
  const Parts = [];
  for (let PartNumber = 1; (PartNumber - 1) * partSize < body.length; PartNumber++) {
    const Body = body.subarray((PartNumber - 1) * partSize, PartNumber * partSize);
    const { ETag } = await s3.send(
      new UploadPartCommand({ Bucket, Key, UploadId, PartNumber, Body }),
    );
    Parts.push({ PartNumber, ETag });
  }
  await s3.send(
    new CompleteMultipartUploadCommand({ Bucket, Key, UploadId, MultipartUpload: { Parts } }),
  );
}

/** The rows of a key, looked for often at first, then less; none at the deadline. */
async function waitForRows(
  stack: Stack,
  key: string,
  deadlineMs: number,
): Promise<Item[]> {
  const endMs = performance.now() + deadlineMs;
  for (let waitMs = 20;; waitMs = Math.min(1000, waitMs * 1.2)) {
    const items = await queryRows(stack, key);
    if (items.length > 0 || performance.now() > endMs) return items;
    await pause(waitMs);
  }
}

/** Why a row is missing, as far as invoking the function with the same event shows. */
async function explainMissing(
  stack: Stack,
  key: string,
  head: HeadObjectCommandOutput,
): Promise<string> {
  const encoded = encodeKey(key);
  if (encoded !== key && (await queryRows(stack, encoded)).length > 0) {
    return `there is a row under the undecoded key ${show(encoded)}`;
  }
  const upload: Upload = {
    bucket: stack.outputs.s3_bucket_name,
    key,
    timestamp: head.LastModified!.toISOString(),
    eventName: "ObjectCreated:Put",
    size: head.ContentLength,
    etag: head.ETag?.replaceAll('"', ""),
    versionId: head.VersionId,
  };
  const error = await invoke(stack, toEvent(stack, [upload]));
  if (error !== undefined) return `the function fails: ${error}`;
  if ((await queryRows(stack, key)).length > 0) {
    return "invoked directly, the function writes it: the bucket's event does not reach the function";
  }
  if (encoded !== key && (await queryRows(stack, encoded)).length > 0) {
    return `the function writes it under the undecoded key ${show(encoded)}`;
  }
  return "invoked directly, the function reports success, but writes no row";
}

/** Sends the same events again, which must change nothing. */
async function checkRepeat(
  stack: Stack,
  rows: Map<string, Item>,
): Promise<string[]> {
  const uploads = [...rows.values()].map(uploadOfRow);
  const error = await invoke(stack, toEvent(stack, uploads));
  if (error !== undefined) return [`the same events again make the function fail: ${error}`];
  const problems: string[] = [];
  for (const [key, row] of rows) {
    const items = await queryRows(stack, key);
    if (items.length !== 1) {
      problems.push(`the same event again left ${items.length} rows of ${key}`);
    } else if (stable(items[0]) !== stable(row)) {
      problems.push(`the same event again changed the row of ${key}`);
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

async function checkNotification(
  stack: Stack,
  files: FileReport[],
): Promise<string[]> {
  if (files.every(({ rowAfterMs }) => rowAfterMs !== undefined)) return [];
  if (await bucketNotifies(stack)) return [];
  const bucket = stack.outputs.s3_bucket_name;
  return [`the bucket ${bucket} has no notification that calls the function; deploy again`];
}

async function countFailed(stack: Stack): Promise<number> {
  const { visible, inFlight } = await countFailures(stack);
  return visible + inFlight;
}

async function removeTraces(
  stack: Stack,
  folder: string,
  keys: string[],
): Promise<void> {
  await emptyBucket(stack.s3, stack.outputs.s3_bucket_name, { prefix: folder });
  for (const key of keys) {
    for (const row of await queryRows(stack, key)) await deleteRow(stack, row);
  }
}

function text(file: string, type: string | undefined, content: string): Sample {
  const preview = Array.from(content).slice(0, 500).join("");
  return { file, type, body: new TextEncoder().encode(content), preview };
}

/** Bytes of every value, NUL included. */
function bytes(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 31) % 256);
}

function stable(item: Item): string {
  return JSON.stringify(Object.entries(item).sort(([a], [b]) => a < b ? -1 : 1));
}

function show(value: unknown): string {
  const json = value === undefined ? "absent" : JSON.stringify(value);
  return json.length > 100 ? json.slice(0, 100) + "…" : json;
}
