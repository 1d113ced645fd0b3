/** The probe: tiny uploads that show when the bucket calls the function, before files are verified. */

import { PutObjectCommand } from "@aws-sdk/client-s3";
import { describeUpload, explainMissing, type FileReport } from "./check_file.ts";
import { lookForRows, queryRows } from "./table.ts";
import { TIME, type Time } from "./signals.ts";
import type { Stack } from "./target.ts";
import { say, toDuration } from "./terminal.ts";

/** How long a probe's row is waited for before the next probe. */
const NEXT_PROBE_MS = 15_000;

const CONTENT = new TextEncoder().encode("Is this recorded?\n");

/**
 * Uploads a probe every 15 s until a first row of its key comes: a new notification takes about five
 * minutes on AWS, and S3 sends no event for what was uploaded before. Returns what is wrong if no row
 * comes in time, or if `isFailing` says meanwhile that events reach the function in vain.
 */
export async function probeTrigger(
  stack: Stack,
  key: string,
  { deadlineMs, isFailing, time = TIME }: {
    deadlineMs: number;
    isFailing: () => Promise<boolean>;
    time?: Time;
  },
): Promise<FileReport | undefined> {
  const startMs = time.nowMs();
  for (;;) {
    const probe = { Bucket: stack.outputs.s3_bucket_name, Key: key, Body: CONTENT };
    const { VersionId } = await stack.s3.send(
      new PutObjectCommand({ ...probe, ContentType: "text/plain" }),
    );
    const leftMs = startMs + deadlineMs - time.nowMs();
    const look = () => queryRows(stack, key);
    const rows = await lookForRows(look, Math.min(NEXT_PROBE_MS, leftMs), time);
    if (rows.length > 0) return undefined;
    const waitedMs = time.nowMs() - startMs;
    const waited = `no row after ${Math.round(waitedMs / 1000)} s`;
    if (waitedMs >= deadlineMs || await isFailing()) {
      const { uploaded } = await describeUpload(stack, key, VersionId);
      const why = await explainMissing(stack, uploaded);
      const problem = `${waited}, so nothing else was uploaded: ${why}`;
      return { file: "probe", key, checks: 0, problems: [problem] };
    }
    say(
      `The probe has ${waited}: a new notification takes about five minutes on AWS; trying again ` +
        `for ${toDuration(deadlineMs - waitedMs)} ...`,
    );
  }
}
