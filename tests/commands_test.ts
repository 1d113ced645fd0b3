/** Commands that sentences advise: what a shell makes of them, and where they are made. */

import assert from "node:assert/strict";
import { ANYWHERE, canCopy, denoTask } from "../tasks/commands.ts";
import { isInPath } from "../tasks/shell.ts";
import { read } from "./fixtures.ts";

/** Keys that would do harm in a shell, and some that only look odd. */
const KEYS = [
  "$(id) `id` ${HOME}$HOME~",
  `'; id; "; id; '"`,
  "\\'; id; \\'",
  "a\\",
  "!! !$",
  "=ls",
  "-rf",
  "* ? [a] {a,b} (a) <a> #a | & ;",
  "photo 1+1=2.jpg",
  "Grüße/日本😀.txt",
  "",
];

Deno.test("a shell takes each word of a command as it is", () => {
  for (const shell of ["sh", "bash", "zsh", "dash", "ksh"].filter(isInPath)) {
    for (const key of KEYS) {
      const line = denoTask({ flags: " --local" }, "backfill", "--prefix", key);
      const script = `deno() { for word; do printf '%s\\0' "$word"; done; }; ${line}`;
      const { stdout } = new Deno.Command(shell, { args: ["-c", script] }).outputSync();
      const words = new TextDecoder().decode(stdout).split("\0").slice(0, -1);
      assert.deepEqual(words, ["task", "backfill", "--prefix", key, "--local"], shell);
    }
  }
  // These two are often not here: fish reads backslashes between quotes, csh exclamation marks.
  for (const key of KEYS) {
    const parts = denoTask(ANYWHERE, key).match(/'[^']*'|\\./g) ?? [];
    for (const part of parts) if (part.startsWith("'")) assert.doesNotMatch(part, /[\\!]/, key);
  }
});

Deno.test("what a terminal does not show as it is can't be copied, and reaches no terminal", () => {
  for (const key of ["a\nb", "a\r", "\u001b[31m", "a\u202eb", "\u200b", "\ud800", "\u0085"]) {
    assert.equal(canCopy(key), false, JSON.stringify(key));
    assert.match(denoTask(ANYWHERE, "why", key), /^deno task why '[\x20-\x7e]+'$/);
  }
  if (Deno.build.os !== "windows") assert.ok(KEYS.every(canCopy));
});

Deno.test("every command that is advised is made by denoTask()", async () => {
  const folders = ["dev", "tasks"].map(async (folder) =>
    (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => `${folder}/${name}`)
  );
  const names = ["tasks.ts", "main.tf", ...(await Promise.all(folders)).flat()];
  const sources = names.filter((name) => /\.(ts|tf|html)$/.test(name));
  assert.ok(sources.length > 30);
  const isComment = /^\s*(\/?\*|\/\/|#)/;
  const places: string[] = [];
  for (const name of sources) {
    const lines = (await read(name)).split("\n").filter((line) => !isComment.test(line));
    // `build` acts nowhere.
    if (lines.some((line) => /deno task(?! build)/.test(line))) places.push(name);
  }
  assert.deepEqual(places, ["tasks/commands.ts"]);
});
