/** Commands that sentences advise, to be copied into a shell. */

import { visible } from "./terminal.ts";

/** For a command that itself says where it acts. */
export const ANYWHERE = { flags: "" };

/** `deno task` and these words, acting where the target is. */
export function denoTask({ flags }: { flags: string }, ...words: string[]): string {
  return `deno task ${words.map(shellWord).join(" ")}${flags}`;
}

/**
 * A word as a shell takes it, quoted where it must be. Between quotes fish reads backslashes, and
 * csh exclamation marks: these stand outside, as quotes themselves do.
 */
export function shellWord(word: string): string {
  return isPlain(word) ? word : `'${visible(word).replace(/['\\!]/g, `'\\$&'`)}'`;
}

/** Whether a word can be copied: what a terminal does not show as it is, cannot. */
export function canCopy(word: string): boolean {
  // Windows' shells quote in other ways.
  return Deno.build.os === "windows" ? isPlain(word) : visible(word) === word;
}

function isPlain(word: string): boolean {
  return /^[\w@%+:,./-][\w@%+=:,./-]*$/.test(word);
}
