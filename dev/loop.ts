/** The loop: builds what is saved, makes the function run it, tries it once, and reports. */

import { interrupted } from "../tasks/signals.ts";
import type { Code } from "./messages.ts";

/** Code that can run. */
export interface BuiltCode {
  zip: Uint8Array<ArrayBuffer>;
  sha256: string;
}

/** The new code does not build or does not run; the message says why. */
export class BrokenCodeError extends Error {
  override name = "BrokenCodeError";
}

/** What the loop needs of the outside. */
export interface Workshop {
  /** @throws {BrokenCodeError} it does not build */
  build(): Promise<BuiltCode>;
  /** Makes it the function's code. */
  update(code: BuiltCode): Promise<void>;
  /** Runs the function once, until the signal. @throws {BrokenCodeError} it fails */
  tryOut(signal: AbortSignal): Promise<void>;
  /** Tells type errors, which keep no code from running, until the signal; "" if there is none. */
  check(signal: AbortSignal): Promise<string>;
  /** `sha256` is of the function's code now. */
  tell(code: Code, sha256: string): void;
}

/** One save is worked on at a time; the next one breaks off its trial and its type check. */
export class Loop {
  /** Of the last save: aborted by the next one, or at the end. */
  #save = new AbortController();
  #working?: Promise<void>;
  /** Whether an update of the function's code was begun. */
  hasUpdated = false;

  /** `sha256` is of the function's code now. */
  constructor(readonly workshop: Workshop, public sha256: string) {}

  /** Something was saved; settles when the last save runs and is checked, or has failed. */
  save(): Promise<void> {
    this.#save.abort();
    this.#save = new AbortController();
    return this.#working ??= this.#work();
  }

  /** Settles when nothing is under way; a trial or check is broken off. */
  async end(): Promise<void> {
    this.#save.abort();
    await this.#working;
  }

  async #work(): Promise<void> {
    let save: AbortController;
    do {
      save = this.#save;
      await this.#make(AbortSignal.any([save.signal, interrupted]));
    } while (save !== this.#save);
    this.#working = undefined;
  }

  /** After the signal it reports no more: dev ends, or the next save is worked on. */
  async #make(signal: AbortSignal): Promise<void> {
    const startMs = performance.now();
    this.#tell("building", "building");
    try {
      const built = await this.workshop.build();
      if (signal.aborted) return;
      const isOther = built.sha256 !== this.sha256;
      if (isOther) {
        this.hasUpdated = true;
        await this.workshop.update(built);
      }
      this.sha256 = built.sha256;
      await this.workshop.tryOut(signal);
      const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
      const runs = isOther ? `new code runs, ${seconds} s` : "this folder's code runs";
      this.#tell("running", runs);
      const errors = await this.workshop.check(signal).catch(String);
      if (errors === "" || signal.aborted) return;
      this.#tell("warning", `${runs}; deno check says:\n${errors}`);
    } catch (error) {
      if (signal.aborted) return;
      const { name, message } = error as Error;
      const isBroken = error instanceof BrokenCodeError;
      this.#tell("broken", isBroken ? message : `AWS refused: ${name}: ${message}`);
    }
  }

  #tell(state: Code["state"], text: string): void {
    this.workshop.tell({ state, text }, this.sha256);
  }
}
