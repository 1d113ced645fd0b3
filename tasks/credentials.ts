/** Whether this machine has credentials for AWS, and why not. */

import { request } from "node:http";
import { S3Client } from "@aws-sdk/client-s3";
import { UserError } from "./terminal.ts";

const METADATA_URL = "http://169.254.169.254";

/** On EC2 the answer takes some milliseconds; a hop limit that is too low takes it away for good. */
const METADATA_DEADLINE_MS = 1500;

const OTHERWISE = "or try it without AWS with --local";

/**
 * Asks the SDK's own sources for credentials, without a call to AWS.
 *
 * @throws {UserError} there are none; the sentence says what the metadata service did
 */
export async function checkCredentials(): Promise<void> {
  try {
    await new S3Client({ region: "us-east-1" }).config.credentials();
  } catch (error) {
    const { message } = error as Error;
    throw new UserError(`No AWS credentials found: ${await explainMissing(message)}`);
  }
}

async function explainMissing(message: string): Promise<string> {
  if (/^true$/i.test(Deno.env.get("AWS_EC2_METADATA_DISABLED") ?? "")) {
    return `AWS_EC2_METADATA_DISABLED switches the instance's role off: unset it, ${OTHERWISE}`;
  }
  const url = Deno.env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") || METADATA_URL;
  switch (await askMetadata(url)) {
    case "silent":
      return `the metadata service ${url} takes the question and never answers. In a container ` +
        "its answer has one hop too many; allow it on the instance: aws ec2 " +
        "modify-instance-metadata-options --http-put-response-hop-limit 2 --instance-id ID";
    case "answers":
      return `the metadata service ${url} answers, and has none: give this instance a role, ` +
        OTHERWISE;
    case "absent":
      return `run this on an EC2 instance with a role, ${OTHERWISE} (${message})`;
  }
}

/** Asks for a token, as every SDK does first. A machine elsewhere gets no connection. */
function askMetadata(url: string): Promise<"answers" | "silent" | "absent"> {
  return new Promise((resolve) => {
    let connected = false;
    const asked = request(new URL("/latest/api/token", url), {
      method: "PUT",
      headers: { "x-aws-ec2-metadata-token-ttl-seconds": "60" },
      agent: false,
    }, (response) => {
      response.resume();
      answer("answers");
    });
    const answer = (state: "answers" | "silent" | "absent") => {
      clearTimeout(timer);
      resolve(state);
      asked.destroy();
    };
    const timer = setTimeout(() => answer(connected ? "silent" : "absent"), METADATA_DEADLINE_MS);
    asked.on("socket", (socket) => socket.on("connect", () => connected = true));
    asked.on("error", () => answer("absent"));
    asked.end();
  });
}
