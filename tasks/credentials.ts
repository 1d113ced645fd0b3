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
  const answer = await askMetadata(url);
  const allow = (option: string) =>
    `allow it on the instance: aws ec2 modify-instance-metadata-options ${option} --instance-id ID`;
  switch (answer) {
    case "silent":
      return `the metadata service ${url} takes the question and never answers. In a container ` +
        `its answer has one hop too many; ${allow("--http-put-response-hop-limit 2")}`;
    case "absent":
      return `run this on an EC2 instance with a role, ${OTHERWISE} (${message})`;
    // https://repost.aws/knowledge-center/ec2-linux-metadata-retrieval
    case 401:
    case 403:
      return `the metadata service ${url} refuses to answer (HTTP ${answer}): it is switched off, or ` +
        `something on the way forbids it. If it is off, ${allow("--http-endpoint enabled")}`;
    default:
      return `the metadata service ${url} answers, and has none: give this instance a role, ` +
        OTHERWISE;
  }
}

/** What it got: the status of an answer, or none. A machine elsewhere gets no connection. */
type Answer = number | "silent" | "absent";

/** Asks for a token, as every SDK does first, and then for the role. */
async function askMetadata(url: string): Promise<Answer> {
  const ttl = { "x-aws-ec2-metadata-token-ttl-seconds": "60" };
  const [answer, token] = await ask(new URL("/latest/api/token", url), "PUT", ttl);
  if (answer !== 200) return answer;
  const role = new URL("/latest/meta-data/iam/security-credentials/", url);
  return (await ask(role, "GET", { "x-aws-ec2-metadata-token": token }))[0];
}

function ask(
  url: URL,
  method: string,
  headers: Record<string, string>,
): Promise<[answer: Answer, text: string]> {
  return new Promise((resolve) => {
    let connected = false;
    const asked = request(url, { method, headers, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part) => text += part);
      response.on("end", () => end(response.statusCode!, text));
    });
    const end = (answer: Answer, text = "") => {
      clearTimeout(timer);
      resolve([answer, text]);
      asked.destroy();
    };
    const timer = setTimeout(() => end(connected ? "silent" : "absent"), METADATA_DEADLINE_MS);
    asked.on("socket", (socket) => socket.on("connect", () => connected = true));
    asked.on("error", () => end("absent"));
    asked.end();
  });
}
