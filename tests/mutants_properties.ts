/** What mutate.ts changes, and that the code with all its mutants does as before while none is active. */

import assert from "node:assert/strict";
import { mutate } from "./mutants.ts";

/** By a piece of code: its mutants, in the order of the text. */
const CASES: Record<string, string[]> = {
  "let x: number = a < 1;": ["a <= 1", "a >= 1"],
  "x = a ?? (b && c);": ["(a ) && ( (b && c))", "(b ) || ( c)"],
  "x ??= a?.b.c;": ["x &&= a?.b.c", "a.b.c"],
  "x = a?.[0]?.(1);": ["a[0]?.(1)", "a?.[0](1)"],
  "x = a?.trim().length;": ["a.trim().length"],
  "if (!a) i++;": ["a", "true", "false", "i--"],
  "while (a) {}": ["false"],
  "x = a === 'b' || a + 'c';": ["(a === 'b' ) && ( a + 'c')", "a !== 'b'", '""', '""'],
  "const f = (a: string) => a.trim();": ["a", "undefined"],
  "x = `a${b}` + 'c' + '';": ['""', '""', '"mutant"'],
  "x = { a: true, 'b': [], c };": ["{}", "false", '["mutant"]'],
  "x = a.some(f) ? 1 : 2;": ["a.every(f)", "true", "false"],
  "x = /^a+[^b]\\d$/i;": [
    "/a+[^b]\\d$/i",
    "/^a[^b]\\d$/i",
    "/^a+[b]\\d$/i",
    "/^a+[^b]\\D$/i",
    "/^a+[^b]\\d/i",
    "/^a+[^b]\\d$/",
  ],
  "export function f() { 'use strict'; g(); }": ["{}"],
  "import a from 'b'; export { c } from 'd';": [],
};

Deno.test("mutate() makes these changes", () => {
  for (const [source, expected] of Object.entries(CASES)) {
    const { code, mutants } = mutate("file.ts", source, 7);
    assert.deepEqual(mutants.map(({ after }) => after), expected, source);
    assert.deepEqual(mutants.map(({ id }) => id), expected.map((_, i) => 7 + i));
    for (const { id } of mutants) assert.ok(code.includes(`$m(${id})`), code);
  }
});

Deno.test("code with its mutants does as before, until one is active", async () => {
  const source = `
    const NAMES = ["none", "few", "many"];
    export function nameOf(numbers: number[]): string {
      let sum = 0;
      for (const number of numbers) {
        if (number >= 2 && number < 5) sum += number;
      }
      return NAMES[sum > 6 ? 2 : Math.min(sum, 1)] + numbers.at(0)?.toFixed();
    }`;
  const { code, mutants } = mutate("file.ts", source);
  const inputs = [[], [1], [2], [2, 4], [3, 4], [5]];
  const resultsWith = async (active: number) => {
    Object.assign(globalThis, { $m: (id: number) => id === active });
    const { nameOf } = await import(`data:text/javascript,${encodeURIComponent(code)}#${active}`);
    return inputs.map((input) => {
      try {
        return nameOf(input);
      } catch (error) {
        return (error as Error).name;
      }
    });
  };
  const before = await resultsWith(-1);
  assert.deepEqual(before, ["noneundefined", "none1", "few2", "few2", "many3", "none5"]);
  assert.ok(mutants.length > 15);
  for (const mutant of mutants) {
    assert.notDeepEqual(await resultsWith(mutant.id), before, JSON.stringify(mutant));
  }
});
