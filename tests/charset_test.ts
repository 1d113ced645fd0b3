/**
 * Every encoding and short sequence, against Deno's own decoder, which keeps to the standard: here, and
 * in the runtime's own Node.
 */

import assert from "node:assert/strict";
import * as esbuild from "esbuild";
import { decode, encodingOf } from "../function/charset.ts";
import { BUNDLE_OPTIONS } from "../tasks/build.ts";
import { makeTools } from "../tasks/tools.ts";
import { CASES, decodeSequences, ENCODINGS } from "./texts.ts";

/** What the runtime's Node does not know, so that U+FFFD stands for it: characters of Hong Kong. */
const UNKNOWN: Record<string, number> = { "big5": 5091 };

Deno.test("encodingOf() knows the standard's names, and names in use that are none", () => {
  for (const name of ENCODINGS) assert.equal(encodingOf(name), name);
  const names = {
    "utf-8": "utf8mb4 utf-8-sig cp65001 UTF_8 'utf-8'",
    "utf-16le": "UTF16 utf_16_le ucs2",
    "windows-1252": "latin-1 iso8859_1 8859_1 us_ascii win1252 ms1252 CP1252",
    "windows-1251": "win1251 windows1251 x-windows-1251",
    "iso-8859-15": "iso8859_15 latin9",
    "iso-8859-16": "iso8859-16 latin10",
    "shift_jis": "cp932 ms932 x-sjis sjis csWindows31J windows-31j",
    "euc-jp": "eucJP EUC_JP ujis",
    "iso-2022-jp": "iso2022jp cp50220",
    "euc-kr": "ms949 cp949 uhc EUC_KR x-windows-949",
    "gb18030": "gbk cp936 gb2312 gb_18030 GB18030-2022 EUC_CN",
    "big5": "cp950 ms950 big5_hkscs",
    "windows-874": "cp874 tis620",
    "koi8-u": "koi8u",
    "macintosh": "mac-roman macroman",
  };
  for (const [encoding, labels] of Object.entries(names)) {
    for (const label of labels.split(" ")) assert.equal(encodingOf(label), encoding, label);
  }
  for (const label of ["", "bogus", "johab", "iso-8859-12", "__proto__", "constructor"]) {
    assert.equal(encodingOf(label), undefined, label);
  }
  const undecodable = "utf-7 hz iso-2022-kr cp037 IBM1047 ebcdic-cp-us cp437 850 dos-720 ibm-00858";
  for (const label of undecodable.split(" ")) {
    assert.equal(encodingOf(label), "replacement", label);
    assert.equal(decode(new Uint8Array(1), "replacement"), undefined);
  }
});

Deno.test("decode() gives the standard's characters or U+FFFD, in Deno", async (t) => {
  // In Node every encoding is compared, below; here those for which there is a rule of our own.
  const ruled = /^(windows-125[235]|iso-8859-16|koi8-u|gb18030|big5|euc-..|shift_jis|iso-2022-jp)$/;
  for (const encoding of ENCODINGS.filter((name) => ruled.test(name))) {
    await t.step(encoding, () => {
      compare(encoding, decodeSequences(encoding, decode));
    });
  }
});

Deno.test("decode() leaves out a character that is cut at the end", () => {
  const cases: [encoding: string, bytes: number[], text: string][] = [
    ["shift_jis", [0x82, 0xa0, 0x82], "あ"],
    ["euc-jp", [0xa4, 0xa2, 0x8f, 0xa2], "あ"],
    ["gb18030", [0xb0, 0xa1, 0x81, 0x30, 0x81], "啊"],
    ["gb18030", [0xb0, 0xa1, 0x81, 0x30], "啊"],
    ["big5", [0xa4, 0x40, 0xa4], "一"],
    ["euc-kr", [0xb0, 0xa1, 0xb0], "가"],
    ["iso-2022-jp", [0x1b, 0x24, 0x42, 0x24, 0x22, 0x24], "あ"],
    ["iso-2022-jp", [0x61, 0x1b, 0x24], "a"],
    ["utf-8", [0x61, 0xc3], "a"],
    ["utf-16le", [0x61, 0, 0x3d, 0xd8], "a"],
  ];
  for (const [encoding, numbers, text] of cases) {
    const bytes = Uint8Array.from(numbers);
    assert.equal(decode(bytes, encoding, { stream: true }), text, encoding);
    assert.equal(decode(bytes, encoding), text + "\ufffd", encoding);
    assert.equal(decode(bytes, encoding, { fatal: true }), undefined, encoding);
  }
});

Deno.test("decode() does so in the runtime's Node", async (t) => {
  const runtime = await openRuntime();
  await t.step("every name", async () => {
    assert.deepEqual(await runtime("ENCODINGS.map(encodingOf)"), ENCODINGS);
  });
  await t.step("and textOf()", async () => {
    const texts = await runtime("CASES.map(({ bytes, options }) => textOf(bytes, options))");
    assert.deepEqual(texts, CASES.map(({ text = null }) => text));
  });
  for (const encoding of ENCODINGS) {
    await t.step(encoding, async () => {
      const ours = await runtime(`decodeSequences("${encoding}", decode)`);
      assert.equal(compare(encoding, ours), UNKNOWN[encoding] ?? 0, "unknown characters");
    });
  }
});

/** A function that evaluates an expression in the runtime's own Node. */
async function openRuntime() {
  const contents = `
    export { decode, encodingOf } from "./function/charset.ts";
    export { textOf } from "./function/preview.ts";
    export { CASES, decodeSequences, ENCODINGS } from "./tests/texts.ts";`;
  const { absWorkingDir: resolveDir, platform, target } = BUNDLE_OPTIONS;
  const stdin = { contents, resolveDir, loader: "ts" } as const;
  const output = { bundle: true, write: false, format: "iife", globalName: "ours" } as const;
  const { outputFiles: [{ text }] } = await esbuild.build({ stdin, platform, target, ...output });
  await esbuild.stop();
  const { node } = await makeTools();
  return async (expression: string) => {
    const script = `${text}; with (ours) process.stdout.write(JSON.stringify(${expression}))`;
    const command = new Deno.Command(node, { args: ["--eval", script], stderr: "inherit" });
    const { stdout } = await command.output();
    return JSON.parse(new TextDecoder().decode(stdout));
  };
}

/** Fails for a character that is another than the standard's; the number of lines not known. */
function compare(encoding: string, ours: string[]): number {
  const decoder = new TextDecoder(encoding);
  const standards = decodeSequences(encoding, (bytes) => decoder.decode(bytes));
  assert.equal(ours.length, standards.length);
  let unknown = 0;
  for (const [i, standard] of standards.entries()) {
    if (ours[i] === standard) continue;
    const isRight = isPart(ours[i].replaceAll("\ufffd", ""), standard);
    if (!isRight) assert.fail(`${JSON.stringify(ours[i])} and not ${JSON.stringify(standard)}`);
    if (/^[^\ufffd\x80-\x9f\ue000-\uf8ff]+$/.test(standard)) unknown++;
  }
  return unknown;
}

/** Whether characters stand in a text, in this order. */
function isPart(characters: string, text: string): boolean {
  let from = 0;
  for (const character of characters) {
    const at = text.indexOf(character, from);
    if (at < 0) return false;
    from = at + character.length;
  }
  return true;
}
