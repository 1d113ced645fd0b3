/**
 * What the uploader said of an object by `x-amz-meta-` headers. S3 returns values that are not US-ASCII
 * as words of RFC 2047, in UTF-8:
 * https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html#UserMetadata
 */

const WORD = "=\\?utf-8\\?([bq])\\?([!->@-~]*)\\?=";

/** Words with only blanks between them: these are no part of the text, and may cut a character. */
const WORDS = new RegExp(`(?<!\\S)${WORD}(?:\\s+${WORD})*(?!\\S)`, "gi");

const UTF_8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The names and values that S3 answers, decoded; undefined for none. Untrusted, as a preview is. */
export function decodeUserMetadata(
  metadata: Record<string, string> = {},
): Record<string, string> | undefined {
  // DynamoDB takes no empty name.
  const named = Object.entries(metadata).filter(([name]) => name !== "");
  if (named.length === 0) return undefined;
  return Object.fromEntries(named.map(([name, value]) => [name, decodeValue(value)]));
}

/** A value as text. What cannot be decoded for sure stays as S3 answers it. */
function decodeValue(value: string): string {
  const text = value.replace(WORDS, (words) => fromUtf8(bytesOf(words)) ?? words);
  // S3 takes the bytes of a header that is sent in plain UTF-8 for Latin-1. Real text in Latin-1 may
  // look like that too ("CAFÉ®"), but it has none of the controls from 80 to 9F.
  const isMistaken = /^[\0-\xff]*[\x80-\x9f][\0-\xff]*$/.test(text);
  return isMistaken ? fromUtf8(text) ?? text : text;
}

/** The bytes of words, one character each; undefined where a word is malformed. */
function bytesOf(words: string): string | undefined {
  let bytes = "";
  for (const [, encoding, text] of words.matchAll(new RegExp(WORD, "gi"))) {
    if (encoding === "B" || encoding === "b") {
      if (!/^([a-z\d+/]{4})*([a-z\d+/]{2}(==)?|[a-z\d+/]{3}=?)?$/i.test(text)) return undefined;
      bytes += atob(text);
    } else {
      if (/=(?![\da-f]{2})/i.test(text)) return undefined;
      const toByte = (_: string, hex: string) => String.fromCharCode(parseInt(hex, 16));
      bytes += text.replaceAll("_", " ").replace(/=(..)/g, toByte);
    }
  }
  return bytes;
}

/** The text that bytes are in UTF-8; undefined where they are not. */
function fromUtf8(bytes: string | undefined): string | undefined {
  try {
    return bytes && UTF_8.decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0)));
  } catch { // TypeError
    return undefined;
  }
}
