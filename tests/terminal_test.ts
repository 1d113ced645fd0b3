import assert from "node:assert/strict";
import { clip, toDuration, toJson, toTable, visible } from "../tasks/terminal.ts";

Deno.test("visible() leaves no character that a terminal acts on", () => {
  const cases = [
    ["plain äö 日本 😀", "plain äö 日本 😀"],
    ["\u001b[31mred", "\\u{1b}[31mred"],
    ["a\nb\rc\td", "a\\nb\\rc\\td"],
    ["\u009b31m\u007f", "\\u{9b}31m\\u{7f}"],
    ["\u202etxt.exe\u2028", "\\u{202e}txt.exe\\u{2028}"],
    ["\ud800", "\\u{d800}"],
  ];
  for (const [text, shown] of cases) assert.equal(visible(text), shown);
});

Deno.test("toJson() is the same value, and leaves no character that a terminal acts on", () => {
  const value = {
    "\u202e": "\u001b[31m \u009b31m \u007f \u2028 \u2066 \ufeff \u{e0001} \ud800 日本 😀\n",
  };
  const steering = /[^\P{Cc}\n]|[\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u;
  for (const indent of [undefined, 2]) {
    const json = toJson(value, indent);
    assert.deepEqual(JSON.parse(json), value);
    assert.doesNotMatch(json, steering);
    assert.ok(json.includes("日本 😀"));
    assert.equal(json.includes("\n"), indent !== undefined);
  }
});

Deno.test("toTable() aligns columns, whatever the width of their characters", () => {
  const rows = [["file", "size", "checks"], ["日本 😀", "7", "14"], ["a", "1024", "3 FAILED"]];
  assert.deepEqual(toTable(rows, [1]), [
    "file     size  checks",
    "日本 😀     7  14",
    "a        1024  3 FAILED",
  ]);
  const marked = "e\u0301\u20dd"; // an e, and two marks on it
  assert.deepEqual(toTable([[marked, "1"], ["ab", "2"]]), [`${marked}   1`, "ab  2"]);
});

Deno.test("toTable() cuts the widest texts, and no number, until a line fits", () => {
  const rows = [["key", "bytes", "preview"], ["a/long/name.txt", "123456789", "a long preview"]];
  const fitting = (columns: number) => toTable(rows, [1], columns);
  assert.deepEqual(fitting(42), toTable(rows, [1]));
  assert.deepEqual(fitting(41)[1], "a/long/name.t…  123456789  a long preview");
  assert.deepEqual(fitting(36), [
    "key               bytes  preview",
    "a/long/name…  123456789  a long pre…",
  ]);
  assert.deepEqual(fitting(1)[1], "a/long/…  123456789  a long …"); // no narrower than that
});

Deno.test("clip() keeps to the columns and says that something is left out", () => {
  const cases = [
    ["short", 5, "short"],
    ["longer", 5, "long…"],
    ["日本語", 5, "日本…"],
    ["a\nb", 7, "a\\nb"],
    ["", 5, ""],
    ["e\u0301e\u0301", 2, "e\u0301e\u0301"],
    ["\uff76\uff85 \ufe8d", 4, "\uff76\uff85 \ufe8d"], // half-width kana, and an Arabic form
  ] as const;
  for (const [text, columns, expected] of cases) assert.equal(clip(text, columns), expected);
});

Deno.test("toDuration() rounds down to the unit that people would say", () => {
  const cases = [
    [-5000, "0 s"],
    [119_000, "119 s"],
    [120_000, "2 min"],
    [7_199_000, "119 min"],
    [7_200_000, "2 h"],
    [172_800_000, "2 d"],
  ] as const;
  for (const [ms, expected] of cases) assert.equal(toDuration(ms), expected);
});
