/** The first characters of an object, if it is text. */

/** Characters (code points) of a preview at most. */
export const PREVIEW_CHARACTERS = 500;

/** Types beside `text/*` that are text: their bytes are decoded whatever they are. */
const TEXT_TYPES =
  /^(text\/.+|application\/((x-)?(json|jsonl|ndjson|json5|javascript|ecmascript|typescript|yaml|csv|sql)|xml|json-seq|.+\+(json|xml|yaml))|image\/svg\+xml)$/;

/** Types that are never text, even where the first bytes look like it, as those of a PDF do. */
const BINARY_TYPES =
  /^((image|audio|video|font)\/.+|application\/((x-)?(pdf|zip|gzip|bzip2?|7z-compressed|rar(-compressed)?|tar|gtar|xz|zstd|compress|java-archive|zip-compressed|iso9660-image)|vnd\.rar|vnd\.ms-fontobject|font-.+|epub\+zip))$/;

/** Control characters that text does not hold: all but tab, line feed, form feed, return. */
// deno-lint-ignore no-control-regex
const CONTROL = /[\u0000-\u0008\u000b\u000e-\u001f\u007f-\u009f]/;

/**
 * The preview of an object's first bytes; undefined where it is no text or has none.
 *
 * A text type is decoded by its byte order mark, else its charset, else as UTF-8, bad bytes as
 * U+FFFD. For any type that is neither text nor media the bytes decide: only valid UTF-8 without
 * control characters is text. `complete` says that the bytes are the whole object, so that a
 * character cut at the end is a fault of the object and not of the reading.
 */
export function previewOf(
  bytes: Uint8Array,
  options: { contentType?: string; contentEncoding?: string; complete: boolean },
): string | undefined {
  if (bytes.length === 0 || isCompressed(options.contentEncoding)) return undefined;
  const contentType = (options.contentType ?? "").slice(0, 1024);
  const type = contentType.split(";", 1)[0].trim().toLowerCase();
  if (BINARY_TYPES.test(type) && type !== "image/svg+xml") return undefined;

  const stream = !options.complete;
  if (TEXT_TYPES.test(type)) {
    const text = decoder(bytes, contentType).decode(bytes, { stream });
    return text.includes("\0") ? undefined : firstCharacters(text);
  }
  try {
    const utf8 = new TextDecoder("utf-8", { fatal: true });
    const text = utf8.decode(bytes, { stream });
    return CONTROL.test(text) ? undefined : firstCharacters(text);
  } catch {
    return undefined;
  }
}

/** `aws-chunked` only says how the upload was sent; anything else hides the text. */
function isCompressed(contentEncoding = ""): boolean {
  return contentEncoding.toLowerCase().split(",").some((coding) =>
    !["", "identity", "aws-chunked"].includes(coding.trim())
  );
}

/** By byte order mark, charset parameter, or UTF-8 for an unknown charset. */
function decoder(bytes: Uint8Array, contentType: string): TextDecoder {
  const [first, second, third] = bytes;
  if (first === 0xef && second === 0xbb && third === 0xbf) return new TextDecoder();
  if (first === 0xff && second === 0xfe) return new TextDecoder("utf-16le");
  if (first === 0xfe && second === 0xff) return new TextDecoder("utf-16be");
  const charset = contentType.match(/;\s*charset\s*=\s*"?([^";\s]+)/i)?.[1];
  try {
    return new TextDecoder(charset);
  } catch { // RangeError: an unknown label
    return new TextDecoder();
  }
}

/** Whole code points only: half a surrogate pair is no character. */
function firstCharacters(text: string): string | undefined {
  let end = 0;
  for (let count = 0; count < PREVIEW_CHARACTERS && end < text.length; count++) {
    end += text.codePointAt(end)! > 0xffff ? 2 : 1;
  }
  return text.slice(0, end) || undefined;
}
