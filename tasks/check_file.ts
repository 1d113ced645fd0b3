/** Verifying one file: uploads it, waits for its row, and compares the row with S3's own answer. */

import { HeadObjectCommand, type HeadObjectCommandOutput } from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { unquoted, type Upload as Uploaded, versionOf } from "../handler.ts";
import { encodeKey, invoke, SHORT_RUN_MS, toEvent } from "./invoke.ts";
import { type Item, queryRows, rowsOfVersion, waitForRows } from "./table.ts";
import type { Sample } from "./samples.ts";
import type { Stack } from "./target.ts";
import { repeat, say, visible } from "./terminal.ts";

/** What was seen of one file. `rowAfterMs` counts from the end of its upload to its row. */
export interface FileReport {
  file: string;
  key: string;
  rowAfterMs?: number;
  row?: Item;
  /** How many checks passed. */
  checks: number;
  problems: string[];
}

/** Larger files are uploaded in parts of this size, the least that S3 takes. */
export const PART_BYTES = 5 * 1024 * 1024;

/** Uploads one file under a key, waits for its row and compares. */
export async function checkFile(
  stack: Stack,
  sample: Sample,
  key: string,
  deadlineMs: number,
): Promise<FileReport> {
  const report: FileReport = { file: sample.file, key, checks: 0, problems: [] };
  const { uploaded, head } = await upload(stack, sample, key);
  const uploadedMs = performance.now();
  const items = await waitForRows(stack, uploaded, deadlineMs);
  if (items.length === 0) {
    const seconds = Math.round(deadlineMs / 1000);
    report.problems.push(`no row after ${seconds} s: ${await explainMissing(stack, uploaded)}`);
    return report;
  }
  report.rowAfterMs = Math.round(performance.now() - uploadedMs);
  report.row = items[0];
  if (items.length === 1) report.checks++;
  else report.problems.push(`${items.length} rows instead of one`);
  checkRow(report, sample, uploaded, head);
  return report;
}

/** Uploads a file and returns what S3 says of it. */
async function upload(
  { s3, outputs }: Stack,
  sample: Sample,
  Key: string,
): Promise<{ uploaded: Uploaded; head: HeadObjectCommandOutput }> {
  const Bucket = outputs.s3_bucket_name;
  const params = { Bucket, Key, Body: sample.open(), ContentType: sample.type };
  const upload = new Upload({ client: s3, partSize: PART_BYTES, params });
  let sent = 0;
  upload.on("httpUploadProgress", ({ loaded = 0 }) => sent = loaded);
  using _progress = repeat(2000, () => {
    const percent = Math.floor(sent / Math.max(1, sample.size) * 100);
    if (percent < 100) say(`Uploading ${visible(sample.file)}: ${percent} %`);
  });
  const { VersionId } = await upload.done();
  return await describeUpload({ s3, outputs }, Key, VersionId);
}

/** What S3 says of an upload, and what the upload's event should say. */
export async function describeUpload(
  { s3, outputs }: Pick<Stack, "s3" | "outputs">,
  Key: string,
  VersionId: string | undefined,
): Promise<{ uploaded: Uploaded; head: HeadObjectCommandOutput }> {
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
    versionId: head.VersionId,
  };
  return { uploaded, head };
}

/** Compares a row's attributes with S3's own answer, and counts what passed. */
function checkRow(
  report: FileReport,
  sample: Sample,
  uploaded: Uploaded,
  head: HeadObjectCommandOutput,
): void {
  const check = (passed: boolean, problem: string) => {
    if (passed) report.checks++;
    else report.problems.push(problem);
  };
  const { timestamp, processed_at, sequencer, ...others } = report.row!;
  const attributes: Record<string, unknown> = {
    ...others,
    version_id: versionOf(others.version_id),
  };
  const expected: Record<string, string | number | undefined> = {
    file_key: uploaded.key,
    bucket_name: uploaded.bucket,
    file_size: uploaded.size,
    content_type: head.ContentType,
    last_modified: uploaded.timestamp,
    etag: uploaded.etag,
    version_id: versionOf(uploaded.versionId),
    event_name: uploaded.eventName,
    content_preview: sample.preview,
  };
  check(uploaded.size === sample.size, `S3 has ${uploaded.size} bytes of it`);
  for (const name of new Set([...Object.keys(expected), ...Object.keys(attributes)])) {
    check(
      attributes[name] === expected[name],
      `${name} is ${show(attributes[name])}, not ${show(expected[name])}`,
    );
  }
  // Nothing takes a day, so S3's own time tells a time of now from nonsense.
  for (const [name, value] of Object.entries({ timestamp, processed_at })) {
    const isTime = typeof value === "string" && /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(value);
    const isNear = isTime &&
      Math.abs(Date.parse(value) - Date.parse(uploaded.timestamp)) < 86_400_000;
    check(isNear, `${name} is ${show(value)}, which is not a time of today`);
  }
  check(/^[0-9A-F]+$/i.test(String(sequencer)), `sequencer is ${show(sequencer)}`);
}

/** Why a row is missing, as far as invoking the function with the same event shows. */
export async function explainMissing(stack: Stack, uploaded: Uploaded): Promise<string> {
  const encoded = encodeKey(uploaded.key);
  const isUndecoded = async () =>
    encoded !== uploaded.key && (await queryRows(stack, encoded)).length > 0;
  if (await isUndecoded()) return `there is a row under the undecoded key ${show(encoded)}`;
  const error = await invoke(stack, toEvent(stack, [uploaded]), { limitMs: SHORT_RUN_MS });
  if (error !== undefined) return `the function fails: ${error}`;
  if ((await rowsOfVersion(stack, uploaded)).length > 0) {
    return "invoked directly, the function writes it: the bucket's event does not reach the function";
  }
  if (await isUndecoded()) return `the function writes it under the undecoded key ${show(encoded)}`;
  return "invoked directly, the function reports success, but writes no row";
}

function show(value: unknown): string {
  const json = value === undefined ? "absent" : JSON.stringify(value);
  return json.length > 100 ? json.slice(0, 100) + "…" : json;
}
