/**
 * Finds a text's encoding and decodes it as the Encoding Standard does: the right characters, or
 * U+FFFD in their place, and never other ones. https://encoding.spec.whatwg.org
 *
 * The runtime's own decoder keeps to the standard in UTF-8, UTF-16 and gb18030 alone. Node 22 takes
 * windows-1252 for Latin-1, so that quotes and dashes become control characters; 22 and 24 answer
 * with control or private characters where Big5, EUC-JP or EUC-KR has none. So a text is cut into
 * its characters here, and what the runtime makes of each is checked or corrected.
 */

/**
 * Names in use that are no labels of the standard, in small letters and digits: character sets of
 * MySQL and PostgreSQL, aliases of Python's codecs and of Java's, numbers of Windows' code pages.
 * https://docs.python.org/3/library/codecs.html#standard-encodings
 * https://dev.mysql.com/doc/refman/8.4/en/charset-charsets.html
 * https://learn.microsoft.com/en-us/windows/win32/intl/code-page-identifiers
 */
const ALIASES: Record<string, string> = {
  "utf-8": "u8 utf utf8 utf8mb3 utf8mb4 utf8sig 65001 1208",
  "utf-16le": "utf16 utf16le ucs2 1200",
  "utf-16be": "utf16be 1201",
  "windows-1252": "usascii 646 20127 8859 latin1",
  "iso-8859-13": "latin7",
  "iso-8859-14": "latin8",
  "iso-8859-15": "latin9",
  "iso-8859-16": "latin10",
  "windows-874": "874 tis620 thai",
  "ibm866": "866 alt",
  "koi8-r": "koi8r 20866",
  "koi8-u": "koi8u 21866",
  "macintosh": "macroman 10000",
  "x-mac-cyrillic": "maccyrillic macukrainian 10007",
  "shift_jis": "932 31j sjis shiftjis mskanji",
  "euc-jp": "eucjp eucjpms ujis 20932 51932",
  "iso-2022-jp": "iso2022jp 50220 50221 50222",
  "gb18030": "gb18030 936 54936 euccn eucgb2312cn gb180302000 gb180302022",
  "euc-kr": "949 51949 euckr uhc ksx1001",
  "big5": "950 big5tw big5hkscs hkscs 950hkscs",
};

/** Encodings that are not decoded here, though their bytes may look like ASCII or UTF-8. */
const UNDECODABLE =
  /^(replacement|utf7.*|unicode11utf7|hz.*|(cs)?iso2022(kr|cn).*|scsu|bocu1|utfebcdic|ebcdic.*)$/;

/**
 * How characters above ASCII begin and go on, where they take several bytes. A character ends before
 * an ASCII byte that can't be in it; any other wrong byte belongs to it.
 */
const SHAPES: Record<string, RegExp> = {
  "gb18030":
    /[\x81-\xfe](?:[0-9][\x81-\xfe][0-9]|[\x40-\x7e\x80-\xff]|[0-9]?[\x81-\xfe]?$)?|[\x80\xff]/g,
  "big5": /[\x81-\xfe][\x40-\x7e\x80-\xff]?|[\x80\xff]/g,
  "euc-jp": /\x8f[\xa1-\xfe][\x80-\xff]?|[\x8e\x8f\xa1-\xfe][\x80-\xff]?|[\x80-\xff]/g,
  "shift_jis": /[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xff]?|[\x80-\xff]/g,
  "euc-kr": /[\x81-\xfe][\x41-\x5a\x61-\x7a\x80-\xff]?|[\x80\xff]/g,
};
const ONE_BYTE = /[\x80-\xff]/g;

/** Characters that a runtime gets wrong or does not know, by the standard's indexes. */
const CORRECTIONS: Record<string, Record<string, string>> = {
  "windows-1252": charactersFrom(0x80, "€\x81‚ƒ„…†‡ˆ‰Š‹Œ\x8dŽ\x8f\x90‘’“”•–—˜™š›œ\x9džŸ"),
  "windows-1253": { "\xaa": "\ufffd" },
  "windows-1255": { "\xca": "\u05ba" },
  "koi8-u": { "\xae": "ў", "\xbe": "Ў" },
  "iso-8859-16": charactersFrom(
    0xa0,
    "\xa0ĄąŁ€„Š§š©Ș«Ź\xadźŻ°±ČłŽ”¶·žčș»ŒœŸżÀÁÂĂÄĆÆÇÈÉÊËÌÍÎÏĐŃÒÓÔŐÖŚŰÙÚÛÜĘȚß" +
      "àáâăäćæçèéêëìíîïđńòóôőöśűùúûüęțÿ",
  ),
  "x-user-defined": {},
  "big5": { "\xf9\xfe": "\uffed" },
  "euc-kr": { "\xa2\xe6": "€", "\xa2\xe7": "®" },
};

/** Half-width characters and rows of JIS X 0212 that the runtime adds to EUC-JP. */
const NOT_EUC_JP = /^(\x8e[^\xa1-\xdf]|\x8f[\xee-\xfe])/;

/** ISO-2022-JP up to its first fault: runtimes differ in how they go on after one. */
const ISO_2022_JP =
  // deno-lint-ignore no-control-regex
  /^[^\x0e\x0f\x1b\x80-\xff]*(\x1b\([BJ][^\x0e\x0f\x1b\x80-\xff]*|\x1b\(I[\x21-\x5f]*|\x1b\$[@B]([\x21-\x7e]{2})*)*/;

/** Bytes in which HTML declares its encoding, by its standard; in XML and CSS it stands first. */
const DECLARATION_BYTES = 1024;

/** How ISO 2022 (ECMA-35) switches to a set of two-byte characters; `$@` and `$B` are Japanese. */
// deno-lint-ignore no-control-regex
const ISO_2022_ESCAPE = /\x1b\$[(-/]?[@-~]/;

/**
 * The encoding that an object says it is in: by its byte order mark, else by its type's charset, else
 * by the text's own escapes or declaration; UTF-8 where none of them names a known one.
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
    // A declaration that can be read as ASCII is not in UTF-16; HTML has the second rule as well:
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

/**
 * The standard's name of the encoding that a label means: `replacement` where it is known and not
 * decoded here, undefined where it is unknown.
 */
export function encodingOf(label: string): string | undefined {
  const key = label.toLowerCase().replace(/[^a-z0-9]/g, "");
  if (UNDECODABLE.test(key)) return "replacement";
  const short = key.replace(
    /^(x|cs)?((cp|ibm|ccsid|dos|ms|mswin|win|windows|codepage)(?=\d))?/,
    "",
  );
  const iso = short.match(/^(?:iso)?8859(\d\d?)$/)?.[1];
  const name = Object.keys(ALIASES).find((name) => ALIASES[name].split(" ").includes(short)) ??
    (iso && `iso-8859-${iso}`) ??
    (/^125\d$/.test(short) ? `windows-${short}` : label.trim().toLowerCase());
  const encoding = runtimeDecoder(label)?.encoding ?? runtimeDecoder(name)?.encoding;
  // By the standard both have one decoder; the runtime's GBK lacks characters.
  if (encoding === "gbk") return "gb18030";
  if (encoding !== undefined) return encoding;
  if (Object.hasOwn(CORRECTIONS, name)) return name;
  // A code page by its number: of DOS, of EBCDIC, of another system.
  return /^\d{2,5}$/.test(short) ? "replacement" : undefined;
}

/**
 * The text of bytes in an encoding of {@link encodingOf}; undefined where it is not decoded here.
 * `stream`: more bytes would follow, so that a character cut at the end is left out. `fatal`: bad
 * bytes make the answer undefined, and not U+FFFD.
 */
export function decode(
  bytes: Uint8Array,
  encoding: string,
  { stream = false, fatal = false } = {},
): string | undefined {
  if (encoding === "replacement") return undefined;
  if (encoding.startsWith("utf-")) {
    try {
      return new TextDecoder(encoding, { fatal }).decode(bytes, { stream });
    } catch { // TypeError: bad bytes
      return undefined;
    }
  }
  const text = encoding === "iso-2022-jp"
    ? decodeIso2022Jp(bytes, stream)
    : decodeCharacters(bytes, encoding, stream);
  return fatal && text.includes("\ufffd") ? undefined : text;
}

/** Bytes as characters of the same numbers. */
export function toBinary(bytes: Uint8Array): string {
  let text = "";
  for (let start = 0; start < bytes.length; start += 4096) { // a call's arguments are bounded
    // Not `...bytes`, which takes ten times as long.
    text += String.fromCharCode.apply(null, bytes.subarray(start, start + 4096) as never);
  }
  return text;
}

function decodeCharacters(bytes: Uint8Array, encoding: string, stream: boolean): string {
  const decoder = runtimeDecoder(encoding);
  const shape = SHAPES[encoding];
  // What the runtime answers is no character of the encoding, if it is private or a control.
  const isCharacter = shape ? /^[^\x80-\x9f\ue000-\uf8ff]$/u : /^[^\ue000-\uf8ff]$/u;
  const toCharacter = (character: string) => {
    const corrected = CORRECTIONS[encoding]?.[character];
    if (corrected !== undefined) return corrected;
    if (encoding === "euc-jp" && NOT_EUC_JP.test(character)) return "\ufffd";
    const decoded = decoder?.decode(Uint8Array.from(character, (c) => c.charCodeAt(0))) ?? "";
    if (isCharacter.test(decoded) && decoded !== "\ufffd") return decoded;
    return encoding === "euc-kr" ? addedSyllable(character) : "\ufffd";
  };
  const decodedBefore = new Map<string, string>(); // a call of the runtime's decoder costs 2 µs
  return toBinary(bytes).replace(shape ?? ONE_BYTE, (character, offset) => {
    const decoded = decodedBefore.get(character) ?? toCharacter(character);
    decodedBefore.set(character, decoded);
    const isCut = stream && decoded === "\ufffd" && offset + character.length === bytes.length;
    return isCut ? "" : decoded;
  });
}

function decodeIso2022Jp(bytes: Uint8Array, stream: boolean): string {
  const { length } = toBinary(bytes).match(ISO_2022_JP)![0];
  const text = new TextDecoder("iso-2022-jp").decode(bytes.subarray(0, length));
  const rest = bytes.length - length;
  return rest === 0 || (stream && rest < 4) ? text : text + "\ufffd"; // an escape has 3 bytes
}

/** Hangul syllables beyond the 2,350 of KS X 1001, in the order in which Windows added them. */
let addedSyllables: string[] | undefined;

/** A syllable of Windows' EUC-KR (code page 949) that the runtime does not know. */
function addedSyllable(character: string): string {
  addedSyllables ??= syllablesBeyondKsX1001();
  const [lead, trail] = [character.charCodeAt(0), character.charCodeAt(1)];
  if (trail === 0x80 || trail === 0xff) return "\ufffd";
  const column = trail - (trail < 0x5b ? 0x41 : trail < 0x7b ? 0x47 : 0x4d);
  if (lead <= 0xa0) return addedSyllables[(lead - 0x81) * 178 + column] ?? "\ufffd";
  if (trail > 0xa0) return "\ufffd";
  return addedSyllables[32 * 178 + (lead - 0xa1) * 84 + column] ?? "\ufffd";
}

function syllablesBeyondKsX1001(): string[] {
  const rows = Array.from(
    { length: 25 * 94 * 2 },
    (_, i) => i % 2 === 0 ? 0xb0 + Math.floor(i / 188) : 0xa1 + (i % 188 - 1) / 2,
  );
  const known = new Set(new TextDecoder("euc-kr").decode(Uint8Array.from(rows)));
  const all = Array.from({ length: 11_172 }, (_, i) => String.fromCharCode(0xac00 + i));
  return all.filter((syllable) => !known.has(syllable));
}

/** The characters of the bytes from `first` on. */
function charactersFrom(first: number, characters: string): Record<string, string> {
  return Object.fromEntries(
    Array.from(characters, (character, i) => [String.fromCharCode(first + i), character]),
  );
}

/** Undefined for a label that the runtime does not know. */
function runtimeDecoder(label: string): TextDecoder | undefined {
  try {
    return new TextDecoder(label);
  } catch { // RangeError
    return undefined;
  }
}
