/** previewOf() in Deno, and where permissions allow it, in the runtime's own Node as well. */

import assert from "node:assert/strict";
import { PREVIEW_CHARACTERS, previewOf } from "../function/preview.ts";
import { previewsInRuntime } from "./runtime.ts";

type Options = Parameters<typeof previewOf>[1];

/** What previewOf() must answer; the bytes are the whole object. */
interface Case {
  name: string;
  bytes: Uint8Array;
  type?: string;
  coding?: string;
  preview?: string;
}

/** Bytes of a charset, and the text that they are. */
const CHARSETS: [name: string, charset: string, bytes: string, preview: string][] = [
  ["F48 Latin 1", "iso-8859-1", "c\xe9", "cé"],
  ["F48 quoted", '"ISO-8859-1"', "c\xe9", "cé"],
  ["F48 quoted otherwise", "'iso-8859-1'", "c\xe9", "cé"],
  ["F48a Western quotes", "windows-1252", "\x80 \x93a\x94 it\x92s \x96", "€ “a” it’s –"],
  ["F48a the same by its other name", "us-ascii", "\x93a\x94", "“a”"],
  ["F48a Ukrainian", "koi8-u", "\xae\xbe", "ўЎ"],
  ["F48a Romanian", "iso-8859-16", "\xaa\xa4", "Ș€"],
  ["F48a Japanese", "shift_jis", "\x82\xa0\xb1", "あｱ"],
  ["F48a Japanese of Unix", "euc-jp", "\xa4\xa2\x8e\xb1", "あｱ"],
  ["F48a Japanese mail", "iso-2022-jp", '\x1b$B$"\x1b(Ba', "あa"],
  ["F48a Chinese", "gbk", "\xb0\xa1\x80\xa2\xe3", "啊€€"],
  ["F48a Taiwanese", "big5", "\xa4\x40\xf9\xfe", "一￭"],
  ["F48a Korean", "euc-kr", "\xb0\xa1\x8c\x63", "가똠"],
  ["F48a unknown bytes", "euc-kr", "\xff a", "\ufffd a"],
  ["F48b cp932", "cp932", "\x82\xa0", "あ"],
  ["F48b ms949", "ms949", "\x8c\x63", "똠"],
  ["F48b utf8mb4", "utf8mb4", "\xc3\xa9", "é"],
  ["F48b latin-1", "latin-1", "\xe9", "é"],
  ["F49 unknown", "bogus", "\xc3\xa9", "é"],
  ["F49 unclosed quote", '"utf-8', "\xc3\xa9", "é"],
  ["F49 10 kB", "x".repeat(10_000), "\xc3\xa9", "é"],
  ["F46 the mark wins", "iso-8859-1", "\xef\xbb\xbf\xc3\xa9", "é"],
];

const CASES: Case[] = [
  ...textTypes(),
  ...signatures(),
  ...compressed(),
  ...charsets(),
  ...bytesThatDecide(),
  ...declarations(),
  ...codings(),
  ...almost(),
];

Deno.test("previewOf() decides by type, encoding and bytes", async (t) => {
  for (const { name, bytes, preview, ...options } of CASES) {
    await t.step(name, () => assert.equal(previewOf(bytes, optionsOf(options)), preview));
  }
});

Deno.test("F38 F43 previewOf() takes its characters, none of them half", () => {
  const options = { contentType: "text/plain", complete: true };
  const [less, most] = [PREVIEW_CHARACTERS - 1, PREVIEW_CHARACTERS];
  for (const [length, expected] of [[1, 1], [less, less], [most, most], [most + 1, most]]) {
    assert.equal(previewOf(utf8("a".repeat(length)), options), "a".repeat(expected));
  }
  assert.equal(previewOf(utf8("a".repeat(less) + "😀b"), options), "a".repeat(less) + "😀");
});

Deno.test("F42 previewOf() leaves out a character that is cut at the end of the range", () => {
  const cut = utf8("aé").slice(0, 2);
  for (const contentType of ["text/plain", undefined, "text/plain; charset=euc-kr"]) {
    assert.equal(previewOf(cut, { contentType, complete: false }), "a");
  }
  assert.equal(previewOf(cut, { contentType: "text/plain", complete: true }), "a\ufffd");
  assert.equal(previewOf(cut, { complete: true }), undefined);
  assert.equal(previewOf(utf8("a\x1a"), { complete: false }), undefined); // no final Ctrl-Z
});

Deno.test("previewOf() does so in the runtime's Node", async (t) => {
  const inputs = CASES.map(({ bytes, ...options }) => [bytes, optionsOf(options)] as const);
  const previews = await previewsInRuntime(inputs);
  for (const [i, { name, preview }] of CASES.entries()) {
    await t.step(name, () => assert.equal(previews[i], preview ?? null));
  }
});

function textTypes(): Case[] {
  const types = [
    ["F51 text", "application/json application/problem+json application/xml image/svg+xml"],
    ["F51 text", "application/atom+xml application/yaml application/x-yaml application/x-ndjson"],
    ["F51 text", "application/javascript application/sql application/csv text/x-anything"],
    ["F53 any", "application/octet-stream binary/octet-stream nonsense application/x-sh"],
    ["F53a another's", "image/png image/vnd.dxf image/svg image/x-xpixmap video/mp2t video/MP2T"],
    ["F53a another's", "audio/mpegurl audio/x-scpls font/x-bdf application/pdf application/gzip"],
  ];
  const texts: [name: string, text: string, type: string][] = [
    ["F52 case and spaces", "é", "TEXT/PLAIN ; Charset=UTF-8"],
    ["F54 markup is stored as it is", "<script>1</script>", "text/html"],
    ["F54 a formula is stored as it is", "=1+1", "text/csv"],
    ["F54 controls are stored as they are", "\x01\x1b[31m\x9b", "text/plain"],
  ];
  return [
    ...types.flatMap(([name, types]) =>
      types.split(" ").map((type) => textCase(`${name} type: ${type}`, "<a>: 1", type))
    ),
    ...texts.map(([name, text, type]) => textCase(name, text, type)),
    { name: "F50 text with NUL", bytes: utf8("a\0b"), type: "text/plain" },
    { name: "F45 invalid UTF-8", bytes: latin1("c\xe9"), type: "text/plain", preview: "c\ufffd" },
    { name: "nothing", bytes: new Uint8Array(), type: "text/plain" },
    { name: "only a mark", bytes: utf8("\ufeff"), type: "text/plain" },
  ];
}

/** What is nearly a type, a signature or a coding, and what is just one. */
function almost(): Case[] {
  const [bad, replaced] = [latin1("c\xe9"), "c\ufffd"];
  const types = ["application/json", "application/atom+xml", "application/json ;"];
  const noTypes = ["nontext/plain", "application/jsonp", "image/svg+xmlx"];
  const latin = ["text/plain;charset=iso-8859-1", "text/plain; CHARSET = iso-8859-1"];
  const marks = { "\xef\xbbx": "ï»x", "\xefa\xbf": "ïa¿", "ab\xbf": "ab¿" };
  const texts = ["see %PDF-1.7", "see BZh91AY&SY", "see P1 2 3 4"];
  const pictures = ["P2  1 1 1", "P2 12 34 255", "P3 # a\n  # b\n1  1 1", "BZh91AY&SY"];
  return [
    ...types.map((type) => ({ name: `F51 ${type}`, bytes: bad, type, preview: replaced })),
    ...noTypes.map((type) => ({ name: `F53 no text type: ${type}`, bytes: bad, type })),
    ...latin.map((type) => ({ name: `F48 ${type}`, bytes: bad, type, preview: "cé" })),
    ...Object.entries(marks).map(([bytes, preview]) => ({
      name: `F46 no mark: ${preview}`,
      bytes: latin1(bytes),
      type: latin[0],
      preview,
    })),
    ...texts.map((text) => textCase(`F55 in the middle: ${text}`, text, "text/plain")),
    ...pictures.map((text) => ({ name: `F55 ${text}`, bytes: latin1(text), type: "text/plain" })),
    ...["ungzip", "gzipped"].map((coding) => ({
      name: `F55 no compression: ${coding}`,
      bytes: latin1("a"),
      coding,
      preview: "a",
    })),
    { name: "F55 bzip", bytes: latin1("a"), type: "text/plain", coding: "bzip" },
    { name: "F55 one unknown", bytes: bad, type: "text/plain", coding: "identity, odd" },
    { name: "F53 Ctrl-Z twice", bytes: latin1("a\x1a\x1a"), preview: "a\x1a\x1a" },
  ];
}

/** Bodies under text types that say nothing of their compression. */
function compressed(): Case[] {
  const bodies = {
    // Of `{"a": [1, 2]}`: brotli keeps short texts as they are.
    "brotli": '\x0b\x06\x80{"a": [1, 2]}\x03',
    // Of "ndisha, kutenda, kua" in Shona: bodies without a NUL are rare.
    "deflate": "\xcbK\xc9,\xceH\xd4Q\xc8.-I\xcdK\x013\x12\x01",
    "zlib": "x\x9c\xcbK\xc9,\xceH\xd4Q\xc8.-I\xcdK\x013\x12\x01M\xce\x07=",
  };
  const types = ["text/plain", "application/json", "text/csv; charset=iso-8859-1"];
  const cyrillic = "\xcf\xf0\xe8\xe2\xe5\xf2";
  return [
    ...Object.entries(bodies).flatMap(([name, body]) =>
      types.map((type) => ({ name: `F55a ${name} as ${type}`, bytes: latin1(body), type }))
    ),
    { name: "F45a mostly bad bytes", bytes: latin1(cyrillic + ", a"), type: "text/plain" },
    {
      name: "F45a half of them bad",
      bytes: latin1(cyrillic + ", abcd"),
      type: "text/plain",
      preview: "\ufffd".repeat(6) + ", abcd",
    },
    {
      name: "F45a a bad byte and a final Ctrl-Z",
      bytes: latin1("c\xe9\r\n\x1a"),
      type: "text/plain",
      preview: "c\ufffd\r\n\x1a",
    },
    {
      name: "F54 a control in UTF-16",
      bytes: latin1("\xff\xfea\0\x01\0"),
      type: "text/plain",
      preview: "a\x01",
    },
  ];
}

/** What is no text by its first bytes, whatever its type. */
function signatures(): Case[] {
  const signatures = {
    "PDF": "%PDF-1.7\n",
    "PDF after a line": "\r\n%PDF-1.4\n",
    "FITS": "SIMPLE  =                    T",
    "NITF": "NITF02.10",
    "ar": "!<arch>\ndebian-binary   ",
    "bitmap": "P4\n# made by hand\n8 8\naaaaaaaa",
    "ASCII pixmap": "P3 1 1 255\n0 0 0\n",
    "GIF": "GIF89aaaaaaaaaa",
    "gzip": "\x1f\x8baaaaaaaa",
    "bzip2": "BZh91AY&SYaaaa",
    "Zstandard": "\x28\xb5\x2f\xfdaaaa",
  };
  const notQuite = ["%PDF is a format", "P3 is a runner's class", "SIMPLE = easy", "PDF", "BZh"];
  return [
    ...Object.entries(signatures).flatMap(([name, head]) =>
      ["text/plain", undefined, "application/json"].map((type) => ({
        name: `F53c ${name} as ${type}`,
        bytes: latin1(head),
        type,
      }))
    ),
    ...notQuite.map((text) => textCase(`F53c no signature: ${text}`, text)),
  ];
}

function charsets(): Case[] {
  const undecodable = ["utf-7", "hz-gb-2312", "iso-2022-kr", "cp037", "replacement", "cp850"];
  const utf16: [name: string, bytes: string, preview?: string][] = [
    ["F47 UTF-16LE mark", "\xff\xfea\0\x3d\xd8\0\xde", "a😀"],
    ["F47 UTF-16BE mark", "\xfe\xff\0a", "a"],
    ["UTF-32 mark", "\xff\xfe\0\0a\0\0\0"],
    ["UTF-16 without mark", "a\0"],
  ];
  return [
    ...CHARSETS.map(([name, charset, bytes, preview]) => ({
      name,
      type: `text/plain; charset=${charset}`,
      bytes: latin1(bytes),
      preview,
    })),
    ...undecodable.map((charset) => ({
      name: `F49a ${charset}`,
      type: `text/plain; charset=${charset}`,
      bytes: utf8("a"),
    })),
    ...utf16.flatMap(([name, bytes, preview]) =>
      ["text/plain", undefined].map((type) => ({
        name: `${name} as ${type}`,
        type,
        bytes: latin1(bytes),
        preview,
      }))
    ),
    ...[
      ["F48d ISO-2022-JP", 'a \x1b$B$"\x1b(B', "a あ"],
      ["F48d its first version", 'a\x1b$@$"\x1b(J', "aあ"],
      ["F48d ISO-2022-KR", "\x1b$)Ca"],
      ["F48d ISO-2022-CN", "\x1b$A0!"],
      ["F48d no such escape", "\x1b[1m$B\x1b(B", "\x1b[1m$B\x1b(B"],
    ].flatMap(([name, bytes, preview]) =>
      ["text/plain", undefined].map((type) => ({
        name: `${name} as ${type}`,
        type,
        bytes: latin1(bytes),
        preview,
      }))
    ),
    {
      name: "F47 UTF-16LE, odd",
      type: "text/plain",
      bytes: latin1("\xff\xfea\0b"),
      preview: "a\ufffd",
    },
  ];
}

function bytesThatDecide(): Case[] {
  const texts = {
    "F53 text": "a,ü\r\n\t\f",
    "F53 colours and a bell": "\x1b[31mred\x1b[0m\x07",
    "F53 backspace, vertical tab": "a\bb\vc",
    "F53 a final Ctrl-Z": "DIR\r\n\x1a",
    "F53 next line": "a\u0085b",
    "F53 C1 characters": "a\u009bb",
    "a replacement character": "a\ufffd",
  };
  const noTexts = {
    "F53 a control character": "a\x01",
    "F53 Ctrl-Z in the middle": "a\x1ab",
    "F53 delete": "a\x7f",
    "F53 NUL": "a\0",
    "Latin 1": "c\xe9",
    "a cut character at the end": "\xc3",
    "an odd UTF-16": "\xff\xfea\0b",
    "half a pair of UTF-16": "\xff\xfe\x3d\xd8a\0",
  };
  return [
    ...Object.entries(texts).map(([name, text]) => textCase(name, text)),
    textCase("F46 a mark", "\ufeffa", undefined, "a"),
    ...Object.entries(noTexts).map(([name, bytes]) => ({ name, bytes: latin1(bytes) })),
    {
      name: "F48 the charset of an unknown type",
      bytes: latin1("c\xe9"),
      type: "application/x-tex; charset=latin1",
      preview: "cé",
    },
    {
      name: "bytes that the charset of an unknown type has not",
      bytes: latin1("\xff\xff"),
      type: "application/x-tex; charset=euc-jp",
    },
  ];
}

function declarations(): Case[] {
  const meta = '<meta charset="windows-1251">';
  const http = "<META http-equiv=Content-Type content='text/html; charset=windows-1251'>";
  const xml = '<?xml version="1.0" encoding="windows-1251"?>';
  const found: [name: string, type: string | undefined, head: string][] = [
    ["XML", "application/xml", xml],
    ["XML in single quotes", "text/xml", "<?xml version='1.0'  encoding = 'Windows-1251' ?>"],
    ["XML of a kind", "application/rss+xml", xml],
    ["XML without a type", undefined, xml],
    ["HTML", "text/html", `<!doctype html><html><head>${meta}`],
    ["HTML without a type", undefined, `<html>${meta}`],
    ["HTML's older form", "text/html", `<html>${http}`],
    ["the first known one", "text/html", `<meta charset=bogus>${meta}`],
    ["a comment before", "text/html", `<!-- <meta charset=koi8-r> -->${meta}`],
    ["another meta before", "text/html", `<meta name=x content="a; charset=koi8-r">${meta}`],
    ["CSS", "text/css", '@charset "windows-1251";'],
    ["an unknown charset", "text/html; charset=bogus", `<html>${meta}`],
    ["space before", "text/html", `\n  ${meta}`],
    ["between comments", "text/html", `<!-- a -->${meta}<!-- b -->`],
    ["spaces and single quotes", "text/html", "<meta charset = 'windows-1251'>"],
    ["the older form, spaced", "text/html", http.replace("charset=", "CHARSET = ")],
    ["metas of nothing before", "text/html", `${http.replace(/ content=.*/, ">")}<meta a>${meta}`],
    ["no charset before", "text/html", `${http.replace(/;.*'/, "'")}${meta}`],
  ];
  const notFound: [name: string, type: string, head: string][] = [
    ["the charset says otherwise", "text/html; charset=utf-8", `<html>${meta}`],
    ["after 1,024 bytes", "text/html", `<html>${" ".repeat(1024)}${meta}`],
    ["a text about HTML", "text/plain", `Write ${meta}`],
    ["an indented one", "text/plain", `\n  Write ${meta}`],
    ["CSS later on", "text/css", '\n@charset "windows-1251";'],
    ["UTF-16 in bytes that are none", "text/html", '<meta charset="utf-16">'],
    ["XML later on", "application/xml", `<a/>${xml}`],
  ];
  const own = "<meta charset=x-user-defined>";
  return [
    {
      name: "F48c a page's own",
      bytes: latin1(`${own}\x80`),
      type: "text/html",
      preview: `${own}€`,
    },
    ...found.map(([name, type, head]) => ({
      name: `F48c ${name}`,
      type,
      bytes: latin1(head + "\xe4\xe0"),
      preview: Array.from(head + "да").slice(0, PREVIEW_CHARACTERS).join(""),
    })),
    ...notFound.map(([name, type, head]) =>
      textCase(`F48c ${name}`, head + "да", type, (head + "да").slice(0, PREVIEW_CHARACTERS))
    ),
  ];
}

function codings(): Case[] {
  const hide = "gzip,GZIP,br,deflate,zstd,x-gzip,compress,dcb,lz4,snappy,xz,bzip2,aes128gcm," +
    "zstd;identity,aws-chunked;gzip,utf-8;gzip";
  const trusted = ",identity,aws-chunked,AWS-Chunked; Identity";
  const unknown = "utf-8,UTF-8,none,binary,base64,8bit,what";
  const bytes = latin1("c\xe9");
  const type = "text/plain";
  const each = (list: string) => list.split(",").map((coding) => coding.replaceAll(";", ","));
  return [
    ...each(hide).map((coding) => ({ name: `F55 ${coding}`, coding, bytes: utf8("text"), type })),
    ...each(trusted).map((coding) => ({
      name: `F56 '${coding}'`,
      coding,
      bytes,
      type,
      preview: "c\ufffd",
    })),
    ...each(unknown).flatMap((coding) => [
      { name: `F56a ${coding}, text`, coding, bytes: utf8("cé"), type, preview: "cé" },
      { name: `F56a ${coding}, no text`, coding, bytes, type },
    ]),
  ];
}

function textCase(name: string, text: string, type?: string, preview = text): Case {
  return { name, bytes: utf8(text), type, preview };
}

function optionsOf({ type, coding }: { type?: string; coding?: string }): Options {
  return { contentType: type, contentEncoding: coding, complete: true };
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** The bytes of a text's character codes. */
function latin1(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}
