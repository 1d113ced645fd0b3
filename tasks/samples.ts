/** The files that verify uploads: its own eight, or the user's. */

import { createReadStream } from "node:fs";
import { basename, join, resolve } from "node:path";
import { buffer } from "node:stream/consumers";
import mime from "mime";
import { textOf } from "../function/preview.ts";
import { firstCharacters, PREFIX_BYTES, PREVIEW_CHARACTERS } from "../handler.ts";
import { calledFrom } from "./files.ts";
import { UserError, visible } from "./terminal.ts";

/** A file to upload, and the preview that its row must have. */
export interface Sample {
  /** Its name, which ends its key. */
  file: string;
  size: number;
  type?: string;
  /** Absent where the row must have none. */
  preview?: string;
  /** What its row must have as user metadata. */
  metadata?: Record<string, string>;
  open(): Uint8Array | ReturnType<typeof createReadStream>;
}

/** A file of each kind: its previews are written down here, not computed by the function's code. */
export const SAMPLES: Sample[] = [
  { ...text("plain.txt", "text/plain", "A line.\nAnother line.\n"), metadata: { note: "a  b" } },
  {
    ...text(`odd + 100% & "quoted" 'name' äö 日本 😀.txt`, "text/plain; charset=utf-8", "odd name"),
    metadata: { title: "Привет, 日本 😀 سلام" },
  },
  text("object.json", "application/json", '{"answer": 42}'),
  text("table-without-type.csv", undefined, "id,name\n1,Zoë\n"),
  binary("binary.bin", "application/octet-stream", 4096),
  binary("empty.txt", "text/plain", 0),
  text("long.txt", "text/plain; charset=utf-8", "Grüße, 世界! 👩‍👩‍👧 𝒳 ".repeat(200)),
  binary("large.bin", "application/zip", 8 * 1024 * 1024),
];

/** User metadata as S3 takes it: what is not US-ASCII as words of RFC 2047. */
export function toHeaders(metadata: Record<string, string> = {}): Record<string, string> {
  const encode = (value: string) =>
    /^[ -~]*$/.test(value) ? value : `=?UTF-8?B?${new TextEncoder().encode(value).toBase64()}?=`;
  const pairs = Object.entries(metadata).map(([name, value]) => [name, encode(value)]);
  return Object.fromEntries(pairs);
}

/** What verify finds under the paths that it is given. */
export interface Found {
  samples: Sample[];
  /** A sentence for everything that is not uploaded, and why. */
  leftOut: string[];
}

/**
 * The user's files, and those in the user's folders, each with the type that its name suggests. Links
 * to files are files.
 *
 * @throws {UserError} nothing to upload, or two files of one key
 */
export async function readSamples(paths: string[]): Promise<Found> {
  const found: Found = { samples: [], leftOut: [] };
  const { samples, leftOut } = found;
  for (const path of paths) {
    const full = resolve(calledFrom(), path);
    await find(full, basename(full), found);
  }
  if (samples.length === 0) {
    throw new UserError(["There is no file in what you named", ...leftOut].join("\n"));
  }
  const names = samples.map(({ file }) => file);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice === undefined) return found;
  throw new UserError(`Two files would have the key "${visible(twice)}": verify one at a time`);
}

/** Adds a file, or all files in a folder, whose names then begin with the folder's. */
async function find(path: string, name: string, found: Found, isLink = false): Promise<void> {
  const leaveOut = (why: string) => found.leftOut.push(`"${visible(name)}" was left out: ${why}`);
  try {
    const { isFile, isDirectory, size } = await Deno.stat(path);
    if (isFile) found.samples.push(await toSample(path, name, size));
    else if (!isDirectory) leaveOut("it is neither a file nor a folder");
    else if (isLink) leaveOut("it is a link to a folder, and may lead back to where it is");
    else {
      for await (const entry of Deno.readDir(path)) {
        await find(join(path, entry.name), `${name}/${entry.name}`, found, entry.isSymlink);
      }
    }
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    if (code === undefined) throw error; // it is not about the file
    leaveOut(visible(message));
  }
}

async function toSample(path: string, name: string, size: number): Promise<Sample> {
  const bytes = await buffer(createReadStream(path, { end: PREFIX_BYTES - 1 }));
  const type = mime.getType(name) ?? undefined;
  const content = textOf(bytes, { contentType: type, isWhole: size <= PREFIX_BYTES });
  const preview = firstCharacters(PREVIEW_CHARACTERS, content);
  return { file: name, size, type, preview, open: () => createReadStream(path) };
}

function text(file: string, type: string | undefined, content: string): Sample {
  const bytes = new TextEncoder().encode(content);
  const preview = firstCharacters(PREVIEW_CHARACTERS, content);
  return { file, type, size: bytes.length, preview, open: () => bytes };
}

/** Bytes of every value, NUL included. */
function binary(file: string, type: string, size: number): Sample {
  const bytes = Uint8Array.from({ length: size }, (_, index) => (index * 31) % 256);
  return { file, type, size, open: () => bytes };
}
