/** A key as people paste it: which object they mean. */

import { listVersions } from "./bucket.ts";
import { rowsOfKey } from "./rows.ts";
import type { Stack } from "./target.ts";
import { say, UserError, visibleName } from "./terminal.ts";

/** https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html */
const KEY_BYTES = 1024;

/**
 * The key that is meant: the text itself where there is an object or a row of that key, else the one
 * other reading of it of which there is.
 *
 * @throws {UserError} it can be no key, is another bucket's, or has several readings
 */
export async function keyMeant(stack: Stack, text: string): Promise<string> {
  const bucket = stack.outputs.s3_bucket_name;
  const [key, ...others] = readingsOf(text, bucket);
  if (key === undefined) throw new UserError(`KEY must have 1 to ${KEY_BYTES} bytes`);
  if (await isKnown(stack, key)) return key;
  const known: string[] = [];
  for (const other of others) if (await isKnown(stack, other)) known.push(other);
  if (known.length > 1) {
    const names = known.map(nameOf).join(" or ");
    throw new UserError(`"${visibleName(text)}" may be ${names}: name one of them exactly`);
  }
  const own = text.startsWith(uriOf(bucket)) ? others[0] : undefined;
  const [meant = own ?? key] = known;
  if (meant === key && key.startsWith("s3://")) {
    throw new UserError(`"${visibleName(text)}" is no object of this bucket, ${bucket}`);
  }
  if (meant !== key) say(`Taken for the key ${nameOf(meant)}`);
  return meant;
}

function uriOf(bucket: string): string {
  return `s3://${bucket}/`;
}

/**
 * What a text may stand for, first the key that it is: a URI of this bucket, a path with a slash before
 * it, a key as URLs and events have it, or one in the other Unicode form.
 */
function readingsOf(text: string, bucket: string): string[] {
  const key = text.startsWith(uriOf(bucket)) ? text.slice(uriOf(bucket).length) : text;
  const plain = [key, key.replace(/^\/+/, "")];
  const decoded = plain.flatMap((each) => [each, decode(each), decode(each.replaceAll("+", " "))]);
  const all = decoded.flatMap((each) => [each, each.normalize("NFC"), each.normalize("NFD")]);
  const isKey = (each: string) => each !== "" && new TextEncoder().encode(each).length <= KEY_BYTES;
  return [...new Set([text, ...all])].filter(isKey);
}

function decode(key: string): string {
  try {
    return decodeURIComponent(key);
  } catch {
    return key;
  }
}

/** Two Unicode forms of a key look the same. */
function nameOf(key: string): string {
  return `"${visibleName(key)}"` + (key === key.normalize("NFC") ? "" : " in Unicode's form NFD");
}

async function isKnown(stack: Stack, key: string): Promise<boolean> {
  for await (const page of listVersions(stack.s3, stack.outputs.s3_bucket_name, key)) {
    if (page.some(({ Key }) => Key === key)) return true;
    break; // those of the very key come first
  }
  for await (const _row of rowsOfKey(stack, key, { limit: 1 })) return true;
  return false;
}
