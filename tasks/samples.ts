/** The files that verify uploads: its own eight, or the user's. */

import { createReadStream } from "node:fs";
import { basename, join, resolve } from "node:path";
import mime from "mime";
import { PREFIX_BYTES } from "../handler.ts";
import { PREVIEW_CHARACTERS, previewOf } from "../function/preview.ts";
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
  open(): Uint8Array | ReturnType<typeof createReadStream>;
}

const MEGABYTE = 1024 * 1024;
const LONG_TEXT = "Grüße, 世界! 👩‍👩‍👧 𝒳 ".repeat(200);

/** A file of each kind: its previews are written down here, not computed by the function's code. */
export const SAMPLES: Sample[] = [
  text("plain.txt", "text/plain", "A line.\nAnother line.\n"),
  text(`odd + 100% & "quoted" 'name' äö 日本 😀.txt`, "text/plain; charset=utf-8", "odd name"),
  text("object.json", "application/json", '{"answer": 42}'),
  text("table-without-type.csv", undefined, "id,name\n1,Zoë\n"),
  binary("binary.bin", "application/octet-stream", 4096),
  binary("empty.txt", "text/plain", 0),
  text("long.txt", "text/plain; charset=utf-8", LONG_TEXT),
  binary("large.bin", "application/zip", 8 * MEGABYTE),
];

/**
 * The user's files, and those in the user's folders, each with the type that its name suggests.
 *
 * @throws {UserError} a file that does not exist, or two that would have one key
 */
export async function readSamples(paths: string[]): Promise<Sample[]> {
  const samples: Sample[] = [];
  for (const path of paths) {
    const full = resolve(calledFrom(), path);
    for await (const [file, name] of filesIn(full, basename(full))) {
      samples.push(await toSample(file, name));
    }
  }
  if (samples.length === 0) throw new UserError("There is no file in what you named");
  const names = samples.map(({ file }) => file);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice === undefined) return samples;
  throw new UserError(`Two files would have the key "${visible(twice)}": verify one at a time`);
}

/** Paths of files with the keys that they get: a folder's name begins those of its files. */
async function* filesIn(path: string, name: string): AsyncGenerator<[path: string, name: string]> {
  let info: Deno.FileInfo;
  try {
    info = await Deno.stat(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new UserError(`Cannot verify "${visible(path)}": there is no such file`);
  }
  if (info.isFile) yield [path, name];
  if (!info.isDirectory) return;
  const entries = await Array.fromAsync(Deno.readDir(path));
  // A link to a folder may lead back to where it is.
  for (const entry of entries.filter(({ isSymlink }) => !isSymlink)) {
    yield* filesIn(join(path, entry.name), `${name}/${entry.name}`);
  }
}

async function toSample(path: string, name: string): Promise<Sample> {
  const { size } = await Deno.stat(path);
  const chunks: Uint8Array[] = [];
  for await (const chunk of createReadStream(path, { end: PREFIX_BYTES - 1 })) chunks.push(chunk);
  const bytes = new Uint8Array(await new Blob(chunks as BlobPart[]).arrayBuffer());
  const type = mime.getType(name) ?? undefined;
  const preview = previewOf(bytes, { contentType: type, complete: size <= PREFIX_BYTES });
  return { file: name, size, type, preview, open: () => createReadStream(path) };
}

function text(file: string, type: string | undefined, content: string): Sample {
  const bytes = new TextEncoder().encode(content);
  const preview = Array.from(content).slice(0, PREVIEW_CHARACTERS).join("");
  return { file, type, size: bytes.length, preview, open: () => bytes };
}

/** Bytes of every value, NUL included. */
function binary(file: string, type: string, size: number): Sample {
  const bytes = Uint8Array.from({ length: size }, (_, index) => (index * 31) % 256);
  return { file, type, size, open: () => bytes };
}
