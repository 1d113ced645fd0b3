/** AWS's time, as the SDK's own client gives it. */

import assert from "node:assert/strict";
import { S3Client } from "@aws-sdk/client-s3";
import { readClock } from "../tasks/clients.ts";
import type { Stack } from "../tasks/target.ts";

Deno.test("readClock() shows the time of S3's answer, also of a refusal", async () => {
  for (const statusCode of [200, 403, 404]) {
    const { now } = await clockOf(statusCode, { date: "Fri, 01 Jan 2100 00:00:00 GMT" });
    const ms = now() - Date.parse("2100-01-01T00:00:00Z");
    assert.ok(ms >= 0 && ms < 60_000, `${ms} ms`);
  }
});

Deno.test("readClock() fails where S3 tells no time, or nobody answers", async () => {
  await assert.rejects(clockOf(200, {}), { message: /^Cannot read S3's time/ });
  await assert.rejects(clockOf(404, {}), { name: "NotFound" });
  await assert.rejects(clockOf(0, {}), { message: "no network" });
});

/** The clock of a stack whose S3 gives one answer; no answer with status 0. */
async function clockOf(statusCode: number, headers: Record<string, string>) {
  const s3 = new S3Client({
    region: "us-east-1",
    credentials: { accessKeyId: "a", secretAccessKey: "b" },
    maxAttempts: 1,
    requestHandler: {
      handle: () =>
        statusCode === 0
          ? Promise.reject(new Error("no network"))
          : Promise.resolve({ response: { statusCode, headers, body: new Uint8Array() } as never }),
    },
  });
  return { now: await readClock({ s3, outputs: { s3_bucket_name: "b" } } as unknown as Stack) };
}
