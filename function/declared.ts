/** The encoding that an object says it is in: by its first bytes, else by its type. */

import { encodingOf, toBinary } from "./charset.ts";

/** Bytes in which HTML declares its encoding, by its standard; in XML and CSS it stands first. */
const DECLARATION_BYTES = 1024;

/** How ISO 2022 (ECMA-35) switches to a set of two-byte characters; `$@` and `$B` are Japanese. */
// deno-lint-ignore no-control-regex
const ISO_2022_ESCAPE = /\x1b\$[(-/]?[@-~]/;

/**
 * An encoding that charset.ts knows: of the byte order mark, else of the type's charset, else of the
 * text's own escapes or declaration; UTF-8 where none of them names a known one.
 */
export function declaredEncoding(bytes: Uint8Array, contentType: string): string {
  const [first, second, third] = bytes;
  if (first === 0xef && second === 0xbb && third === 0xbf) return "utf-8";
  if (first === 0xff && second === 0xfe) return "utf-16le";
  if (first === 0xfe && second === 0xff) return "utf-16be";

  const charset = contentType.match(/;\s*charset\s*=\s*"?([^";\s]+)/i)?.[1];
  const encoding = charset && encodingOf(charset);
  if (encoding) return encoding;

  const escape = bytes.includes(0x1b) && toBinary(bytes).match(ISO_2022_ESCAPE);
  if (escape) return /\$[@B]/.test(escape[0]) ? "iso-2022-jp" : "replacement";

  if (!/[\s<@]/.test(String.fromCharCode(first))) return "utf-8"; // no declaration begins so
  for (const label of declarations(toBinary(bytes.subarray(0, DECLARATION_BYTES)))) {
    const encoding = encodingOf(label);
    // What was read here byte by byte is not UTF-16; HTML has the second rule as well:
    // https://html.spec.whatwg.org/multipage/parsing.html#prescan-a-byte-stream-to-determine-its-encoding
    if (encoding?.startsWith("utf-16")) return "utf-8";
    if (encoding === "x-user-defined") return "windows-1252";
    if (encoding) return encoding;
  }
  return "utf-8";
}

/** The labels in XML's and CSS's first line, or in HTML's meta elements. */
function declarations(head: string): string[] {
  const first = head.match(/^<\?xml\s[^>]*?\sencoding\s*=\s*["']([^"'>]+)/) ??
    head.match(/^@charset "([^"]*)";/);
  if (first) return [first[1]];
  if (!/^\s*</.test(head)) return []; // a text about HTML
  const tags = head.replace(/<!--[^]*?-->/g, "").match(/<meta[\s/][^>]*>/gi) ?? [];
  return tags.flatMap((tag) => {
    const attributes = attributesOf(tag);
    if (attributes.charset) return [attributes.charset];
    if (attributes["http-equiv"]?.toLowerCase() !== "content-type") return [];
    return attributes.content?.match(/charset\s*=\s*["']?([^"';\s]+)/i)?.[1] ?? [];
  });
}

function attributesOf(tag: string): Record<string, string | undefined> {
  const attributes = tag.matchAll(/([^\s/"'=<>]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))/g);
  return Object.fromEntries(
    Array.from(attributes, ([, name, a, b, c]) => [name.toLowerCase(), a ?? b ?? c]),
  );
}
