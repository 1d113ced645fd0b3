/** AWS's time. The local clock may be wrong: it is never compared with times that AWS set. */

import { HeadBucketCommand, type S3Client } from "@aws-sdk/client-s3";
import type { Stack } from "./target.ts";

/** The parts of an HTTP answer that are used here. */
interface HttpAnswer {
  headers?: Record<string, string>;
}

/** A clock that shows AWS's time. S3 tells it in whole seconds: it is up to a second slow. */
export async function readClock({ s3, outputs }: Pick<Stack, "s3" | "outputs">): Promise<Clock> {
  const date = await readDate(s3, outputs.s3_bucket_name);
  const readMs = performance.now();
  const ms = Date.parse(date ?? "");
  if (Number.isNaN(ms)) throw new TypeError("Cannot read S3's time: its answer has no Date");
  return () => ms + Math.round(performance.now() - readMs);
}

/** Milliseconds since 1970. */
export type Clock = () => number;

/** The Date of an answer by S3. A refusal has one too, so it is good enough. */
async function readDate(s3: S3Client, Bucket: string): Promise<string | undefined> {
  const command = new HeadBucketCommand({ Bucket });
  // The SDK leaves the header out of its own output.
  command.middlewareStack.add(
    (next) => async (args) => {
      const result = await next(args);
      const { date } = (result.response as HttpAnswer).headers ?? {};
      Object.assign(result.output!.$metadata, { date });
      return result;
    },
    { step: "deserialize", priority: "high" },
  );
  try {
    const { $metadata } = await s3.send(command);
    return ($metadata as { date?: string } | undefined)?.date;
  } catch (error) {
    const { $response } = error as { $response?: HttpAnswer };
    const date = $response?.headers?.date;
    if (date === undefined) throw error;
    return date;
  }
}
