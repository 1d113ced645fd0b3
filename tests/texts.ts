/**
 * Bytes and the texts that they are: what a preview must be of them, and to tell the Encoding
 * Standard's encodings apart, sequences of bytes.
 */

/** The standard's encodings but Unicode's: https://encoding.spec.whatwg.org/#names-and-labels */
export const ENCODINGS = `
ibm866 iso-8859-2 iso-8859-3 iso-8859-4 iso-8859-5 iso-8859-6 iso-8859-7 iso-8859-8 iso-8859-8-i
iso-8859-10 iso-8859-13 iso-8859-14 iso-8859-15 iso-8859-16 koi8-r koi8-u macintosh windows-874
windows-1250 windows-1251 windows-1252 windows-1253 windows-1254 windows-1255 windows-1256
windows-1257 windows-1258 x-mac-cyrillic gb18030 big5 euc-jp iso-2022-jp shift_jis euc-kr
x-user-defined
`.trim().split(/\s+/);

/**
 * The text of every sequence of one and two bytes, and of longer ones where there are any, in the
 * order of their numbers.
 */
export function decodeSequences(
  encoding: string,
  decode: (bytes: Uint8Array, encoding: string) => string | undefined,
): string[] {
  const sequences = sequencesOf(encoding);
  const decodeBinary = (binary: string) =>
    decode(Uint8Array.from(binary, (byte) => byte.charCodeAt(0)), encoding)!;
  return encoding === "iso-2022-jp"
    ? sequences.map((sequence) => decodeBinary(TWO_BYTES + sequence + ONE_BYTE))
    : decodeBinary(sequences.join("\n")).split("\n"); // no character goes on over the end of a line
}

/** ISO-2022-JP's escapes to its characters of two bytes, and back. */
const TWO_BYTES = "\x1b$B";
const ONE_BYTE = "\x1b(B";

/** Sequences of bytes, as characters of the same numbers. */
function sequencesOf(encoding: string): string[] {
  const sequences = rowsOf("", 0x00, 0xff, 0x00, 0xff);
  for (let byte = 0; byte < 256; byte++) sequences.push(String.fromCharCode(byte));
  if (encoding === "euc-jp") sequences.push(...rowsOf("\x8f", 0xa1, 0xfe, 0xa1, 0xfe));
  if (encoding === "gb18030") {
    // All of the first plane, then some of the others, which are numbered through.
    for (const first of "\x81\x82\x83\x84\x90\xe3\xfe") {
      for (let second = 0; second <= 9; second++) {
        sequences.push(...rowsOf(`${first}${second}`, 0x81, 0xfe, 0x30, 0x39));
      }
    }
  }
  return sequences.filter((sequence) => !sequence.includes("\n"));
}

function rowsOf(start: string, firstRow: number, lastRow: number, first: number, last: number) {
  const sequences: string[] = [];
  for (let row = firstRow; row <= lastRow; row++) {
    for (let cell = first; cell <= last; cell++) {
      sequences.push(start + String.fromCharCode(row, cell));
    }
  }
  return sequences;
}

/** What textOf() must answer for bytes, which are the whole object; their numbers are characters'. */
type Case = [name: string, type: string | undefined, bytes: string, text?: string, coding?: string];

const PLAIN = "text/plain";

/** Types that say nothing of the bytes. */
const ANY = [PLAIN, undefined];

const words = (list: string) => list.trim().split(/\s+/);

const utf8 = (text: string) => String.fromCharCode(...new TextEncoder().encode(text));

function asItIs(name: string, type: string | undefined, text: string): Case {
  return [name, type, utf8(text), text];
}

/** A case of each type. */
function asEach(types: (string | undefined)[], name: string, bytes: string, text?: string): Case[] {
  return types.map((type) => [`${name} as ${type}`, type, bytes, text]);
}

/** Bytes that are no UTF-8, and what they are in a text type. */
const BAD = "c\xe9";
const REPLACED = "c\ufffd";

const TEXT_TYPES = words(`application/json application/problem+json application/xml image/svg+xml
  application/atom+xml application/yaml application/x-yaml application/x-ndjson text/x-anything
  application/javascript application/sql application/csv`);

/** Types that say nothing, types of something else, and what is nearly a text type. */
const OTHER_TYPES = words(`application/octet-stream binary/octet-stream nonsense application/x-sh
  image/png image/vnd.dxf image/svg image/x-xpixmap video/mp2t video/MP2T audio/mpegurl
  audio/x-scpls font/x-bdf application/pdf application/gzip nontext/plain application/jsonp
  image/svg+xmlx`);

const TYPES: Case[] = [
  ...TEXT_TYPES.map((type): Case => [`F51 ${type}`, type, BAD, REPLACED]),
  ...OTHER_TYPES.flatMap((type): Case[] => [
    asItIs(`F53 F53a ${type}`, type, "é"),
    [`F53 F53a ${type}, no text`, type, BAD],
  ]),
  ["F52 case and spaces", "APPLICATION/JSON ; Charset=UTF-8", BAD, REPLACED],
  ["F45 invalid UTF-8", PLAIN, BAD, REPLACED],
  ["F50 NUL in a text", PLAIN, "a\0b"],
  ["nothing", PLAIN, ""],
  ["only a mark", PLAIN, "\xef\xbb\xbf"],
  asItIs("F54 markup is stored as it is", "text/html", "<script>1</script>"),
  asItIs("F54 a formula is stored as it is", "text/csv", "=1+1"),
  asItIs("F54 controls are stored as they are", PLAIN, "\x01\x1b[31m\x9b"),
  ["F54 a control in UTF-16", PLAIN, "\xff\xfea\0\x01\0", "a\x01"],
];

/** Under a type that says nothing: text, and what is none. */
const BYTES: Case[] = [
  asItIs("F53 text", undefined, "a,ü\r\n\t\f"),
  asItIs("F53 colours and a bell", undefined, "\x1b[31mred\x1b[0m\x07"),
  asItIs("F53 backspace, vertical tab", undefined, "a\bb\vc"),
  asItIs("F53 a final Ctrl-Z", undefined, "DIR\r\n\x1a"),
  asItIs("F53 Ctrl-Z twice", undefined, "a\x1a\x1a"),
  asItIs("F53 C1 characters", undefined, "a\u0085b\u009b"),
  asItIs("a replacement character", undefined, "a\ufffd"),
  ["F46 a mark", undefined, "\xef\xbb\xbfa", "a"],
  ...["a\x01", "a\x1ab", "a\x7f", "a\0", "\xc3", "\xff\xfea\0b", "\xff\xfe\x3d\xd8a\0"].map(
    (bytes): Case => [`F53 no text: ${JSON.stringify(bytes)}`, undefined, bytes],
  ),
  ["F48 the charset of an unknown type", "application/x-tex; charset=latin1", BAD, "cé"],
  ["bytes that its charset has not", "application/x-tex; charset=euc-jp", "\xff\xff"],
];

const SIGNATURES: Case[] = [
  ...["%PDF-1.7\n", "\r\n%PDF-1.4\n", "\xef\xbb\xbf%PDF-1.4", "SIMPLE  =       T", "NITF02.10"],
  ...["!<arch>\ndebian-binary   ", "P4\n# made by hand\n8 8\naaa", "P3 1 1 255\n0 0 0\n"],
  ...["P2  1 1 1", "P2 12 34 255", "P3 # a\n  # b\n1  1 1", "GIF89aaaaaaaaaa", "\x1f\x8baaaa"],
  ...["BZh91AY&SYaaaa", "\x28\xb5\x2f\xfdaaaa"],
].flatMap((head) => asEach(ANY, `F53c ${JSON.stringify(head)}`, head)).concat(
  ["%PDF is a format", "P3 is a runner's class", "SIMPLE = easy", "PDF", "BZh", "see %PDF-1.7"]
    .concat("see BZh91AY&SY", "see P1 2 3 4")
    .map((text) => asItIs(`F53c no signature: ${text}`, undefined, text)),
);

/** Bodies under text types that say nothing of their compression. */
const COMPRESSED: Case[] = [
  // Of `{"a": [1, 2]}`: brotli keeps short texts as they are.
  ["brotli", '\x0b\x06\x80{"a": [1, 2]}\x03'],
  // Of "ndisha, kutenda, kua" in Shona: bodies without a NUL are rare.
  ["deflate", "\xcbK\xc9,\xceH\xd4Q\xc8.-I\xcdK\x013\x12\x01"],
  ["zlib", "x\x9c\xcbK\xc9,\xceH\xd4Q\xc8.-I\xcdK\x013\x12\x01M\xce\x07="],
].flatMap(([name, body]) =>
  asEach([PLAIN, "application/json", "text/csv; charset=iso-8859-1"], `F55a ${name}`, body)
);

const CYRILLIC = "\xcf\xf0\xe8\xe2\xe5\xf2";
const BAD_BYTES: Case[] = [
  ["F45a mostly bad bytes", PLAIN, CYRILLIC + ", a"],
  ["F45a half of them bad", PLAIN, CYRILLIC + ", abcd", "\ufffd".repeat(6) + ", abcd"],
  ["F45a a bad byte and a final Ctrl-Z", PLAIN, "c\xe9\r\n\x1a", "c\ufffd\r\n\x1a"],
];

/** A text in the charset that its type names. */
function inCharset(name: string, charset: string, bytes: string, text?: string): Case {
  return [`${name} ${charset.slice(0, 20)}`, `text/plain; charset=${charset}`, bytes, text];
}

const CHARSETS: Case[] = [
  inCharset("F48 named", "iso-8859-1", BAD, "cé"),
  inCharset("F48 quoted", '"ISO-8859-1"', BAD, "cé"),
  inCharset("F48 quoted otherwise", "'iso-8859-1'", BAD, "cé"),
  inCharset(
    "F48a quotes",
    "windows-1252",
    "\x80 \x93a\x94 it\x92s \x96",
    "€ “a” it’s –",
  ),
  inCharset("F48a the same by its other name", "us-ascii", "\x93a\x94", "“a”"),
  inCharset("F48a by the standard", "koi8-u", "\xae\xbe", "ўЎ"),
  inCharset("F48a by the standard", "euc-jp", "\xa4\xa2\x8e\xb1", "あｱ"),
  inCharset("F48a by the standard", "iso-2022-jp", '\x1b$B$"\x1b(Ba', "あa"),
  inCharset("F48a by the standard", "big5", "\xa4\x40\xf9\xfe", "一￭"),
  inCharset("F48a by the standard", "gbk", "\xb0\xa1\x80\xa2\xe3", "啊€€"),
  inCharset("F48a unknown bytes in", "euc-kr", "\xff a", "\ufffd a"),
  inCharset("F48b in use", "cp932", "\x82\xa0", "あ"),
  inCharset("F48b in use", "utf8mb4", "\xc3\xa9", "é"),
  inCharset("F49 unknown", "bogus", "\xc3\xa9", "é"),
  inCharset("F49 unclosed quote", '"utf-8', "\xc3\xa9", "é"),
  inCharset("F49 10 kB", "x".repeat(10_000), "\xc3\xa9", "é"),
  inCharset("F46 the mark wins over", "iso-8859-1", "\xef\xbb\xbf\xc3\xa9", "é"),
  ...["\xef\xbbx", "\xefa\xbf", "ab\xbf"]
    .map((bytes) => inCharset("F46 no mark in", "iso-8859-1", bytes, bytes)),
  ...words("utf-7 hz-gb-2312 iso-2022-kr cp037 replacement cp850")
    .map((charset) => inCharset("F49a not decoded", charset, "a")),
  ["F48 without a space", "text/plain;charset=iso-8859-1", BAD, "cé"],
  ["F48 with more of them", "text/plain; CHARSET = iso-8859-1", BAD, "cé"],
];

/** Encodings that the bytes themselves tell. */
const TOLD: Case[] = [
  ...asEach(ANY, "F47 UTF-16LE", "\xff\xfea\0\x3d\xd8\0\xde", "a😀"),
  ...asEach(ANY, "F47 UTF-16BE", "\xfe\xff\0a", "a"),
  ["F47 an odd byte of UTF-16", PLAIN, "\xff\xfea\0b", "a\ufffd"],
  ...asEach(ANY, "UTF-32", "\xff\xfe\0\0a\0\0\0"),
  ...asEach(ANY, "UTF-16 without a mark", "a\0"),
  ...asEach(ANY, "F48d ISO-2022-JP", 'a \x1b$B$"\x1b(B', "a あ"),
  ...asEach(ANY, "F48d its first version", 'a\x1b$@$"\x1b(J', "aあ"),
  ...asEach(ANY, "F48d ISO-2022-KR", "\x1b$)Ca"),
  ...asEach(ANY, "F48d ISO-2022-CN", "\x1b$A0!"),
  ...asEach(ANY, "F48d no such escape", "\x1b[1m$B\x1b(B", "\x1b[1m$B\x1b(B"),
];

const META = '<meta charset="windows-1251">';
const HTTP = "<META http-equiv=Content-Type content='text/html; charset=windows-1251'>";
const XML = '<?xml version="1.0" encoding="windows-1251"?>';
const OWN = "<meta charset=x-user-defined>";

/** Declarations of an encoding: those that count, and those that don't. */
const DECLARED: Case[] = ([
  ["XML", "application/xml", XML],
  ["XML in single quotes", "text/xml", "<?xml version='1.0'  encoding = 'Windows-1251' ?>"],
  ["XML of a kind", "application/rss+xml", XML],
  ["XML without a type", undefined, XML],
  ["HTML", "text/html", `<!doctype html><html><head>${META}`],
  ["HTML without a type", undefined, `<html>${META}`],
  ["HTML's older form", "text/html", `<html>${HTTP}`],
  ["the first known one", "text/html", `<meta charset=bogus>${META}`],
  ["a comment before", "text/html", `<!-- <meta charset=koi8-r> -->${META}`],
  ["another meta before", "text/html", `<meta name=x content="a; charset=koi8-r">${META}`],
  ["CSS", "text/css", '@charset "windows-1251";'],
  ["an unknown charset", "text/html; charset=bogus", `<html>${META}`],
  ["space before", "text/html", `\n  ${META}`],
  ["between comments", "text/html", `<!-- a -->${META}<!-- b -->`],
  ["spaces and single quotes", "text/html", "<meta charset = 'windows-1251'>"],
  ["the older form, spaced", "text/html", HTTP.replace("charset=", "CHARSET = ")],
  ["metas of nothing before", "text/html", `${HTTP.replace(/ content=.*/, ">")}<meta a>${META}`],
  ["no charset before", "text/html", `${HTTP.replace(/;.*'/, "'")}${META}`],
] as const).map((
  [name, type, head],
): Case => [`F48c ${name}`, type, head + "\xe4\xe0", head + "да"]).concat(
  ([
    ["the charset says otherwise", "text/html; charset=utf-8", `<html>${META}`],
    ["after 1,024 bytes", "text/html", `<html>${" ".repeat(1024)}${META}`],
    ["a text about HTML", PLAIN, `Write ${META}`],
    ["an indented one", PLAIN, `\n  Write ${META}`],
    ["CSS later on", "text/css", '\n@charset "windows-1251";'],
    ["UTF-16 in bytes that are none", "text/html", '<meta charset="utf-16">'],
    ["XML later on", "application/xml", `<a/>${XML}`],
  ] as const).map(([name, type, head]) => asItIs(`F48c not ${name}`, type, head + "да")),
  [["F48c a page's own", "text/html", `${OWN}\x80`, `${OWN}€`]],
);

/** Content encodings: those that hide the text, those that say nothing, and unknown ones. */
const HIDING = words(
  `gzip GZIP br deflate zstd x-gzip compress dcb lz4 snappy xz bzip bzip2 aes128gcm
  zstd,identity aws-chunked,gzip utf-8,gzip`,
);
const SAYING_NOTHING = ["", "identity", "aws-chunked", "AWS-Chunked, Identity"];
const UNKNOWN = words("utf-8 UTF-8 none binary base64 8bit what ungzip gzipped identity,odd");
const CODINGS: Case[] = [
  ...HIDING.map((coding): Case => [`F55 ${coding}`, PLAIN, "text", undefined, coding]),
  ...SAYING_NOTHING.map((coding): Case => [`F56 "${coding}"`, PLAIN, BAD, REPLACED, coding]),
  ...UNKNOWN.flatMap((coding): Case[] => [
    [`F56a ${coding}, text`, PLAIN, utf8("cé"), "cé", coding],
    [`F56a ${coding}, no text`, PLAIN, BAD, undefined, coding],
  ]),
];

/** All cases, as arguments of textOf() and its answer. */
export const CASES = [
  ...[...TYPES, ...BYTES, ...SIGNATURES, ...COMPRESSED, ...BAD_BYTES],
  ...[...CHARSETS, ...TOLD, ...DECLARED, ...CODINGS],
].map(([name, contentType, bytes, text, contentEncoding]) => ({
  name,
  bytes: Uint8Array.from(bytes, (character) => character.charCodeAt(0)),
  options: { contentType, contentEncoding, isWhole: true },
  text,
}));
