/** A story told step by step: one line a step, with its time; all other output goes to a file. */

import { openSync, writeSync } from "node:fs";
import { styleText } from "node:util";
import { redirectProgress } from "./terminal.ts";

/** Columns of a line before its time. */
const COLUMNS = 70;

/** Prints a story's lines; on a terminal a step's time runs while it works. */
export interface Story extends Disposable {
  /** Does a step: what `work` returns ends its line. */
  step<T>(name: string, work: () => Promise<T>, ending?: (result: T) => string): Promise<T>;
  /** Prints a line of its own. */
  line(text?: string): void;
}

/** Begins a story, whose steps' own progress goes to a file, or is shown if there is none. */
export function tell(logFile: string | undefined): Story {
  const live = logFile !== undefined && Deno.stdout.isTerminal();
  const file = logFile === undefined ? undefined : openSync(logFile, "w", 0o600);
  const log = file === undefined
    ? undefined
    : redirectProgress((bytes) => void writeSync(file, bytes));
  const write = (text: string) => Deno.stdout.writeSync(new TextEncoder().encode(text));

  async function step<T>(
    name: string,
    work: () => Promise<T>,
    ending: (result: T) => string = () => "",
  ): Promise<T> {
    const startMs = performance.now();
    const seconds = () => `${((performance.now() - startMs) / 1000).toFixed(1)} s`.padStart(8);
    if (live) write(toLine("·", name, seconds()));
    const timer = setInterval(() => live && write("\r" + toLine("·", name, seconds())), 100);
    try {
      const result = await work();
      const text = [name, ending(result)].filter((part) => part !== "").join(": ");
      write((live ? "\r" : "") + toLine(color("green", "✓"), text, seconds()) + "\n");
      return result;
    } catch (error) {
      write((live ? "\r" : "") + toLine(color("red", "✗"), name, seconds()) + "\n");
      throw error;
    } finally {
      clearInterval(timer);
    }
  }
  return {
    step,
    line: (text = "") => void write(text + "\n"),
    [Symbol.dispose]: () => log?.[Symbol.dispose](),
  };
}

function toLine(mark: string, text: string, time: string): string {
  return `${mark} ${text.padEnd(COLUMNS - 2)}${time}`;
}

/** Colours a text where a terminal shows it, and NO_COLOR does not forbid it. */
export function color(name: "green" | "red" | "yellow" | "dim" | "bold", text: string): string {
  return Deno.stdout.isTerminal() && !Deno.noColor
    ? styleText(name, text, { validateStream: false })
    : text;
}
