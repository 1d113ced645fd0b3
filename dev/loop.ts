/** The loop: what is saved is built, made to run, tried once, and told. */

import { interrupted } from "../tasks/signals.ts";
import type { Code } from "./messages.ts";

/** Code that can run. */
export interface BuiltCode {
  zip: Uint8Array<ArrayBuffer>;
  sha256: string;
  /** Where its characters come from, as JSON. */
  sourceMap: string;
}

/** The new code does not build or does not run; the message says why and where. */
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
  tryOut(code: BuiltCode, signal: AbortSignal): Promise<void>;
  /** The type errors, which do not keep code from running. */
  check(): Promise<string[]>;
  /** `sha256` is of the function's code now. */
  tell(code: Code, sha256: string): void;
}

/** One save is worked on at a time; of those that come meanwhile only the last one is. */
export class Loop {
  #saves = 0;
  #working?: Promise<void>;
  #checking?: Promise<void>;
  #code: Code = { state: "unsaved", text: "" };
  #isBuilt = true;
  #isEnding = false;
  /** Aborted when nobody cares any more for what is tried out. */
  #trial = new AbortController();
  /** Whether the function's code was touched, be it in vain. */
  hasUpdated = false;

  /** `sha256` is of the function's code now. */
  constructor(readonly workshop: Workshop, public sha256: string) {}

  /** Something was saved. */
  save(): void {
    this.#saves++;
    this.#trial.abort();
    this.#working ??= this.#work();
  }

  /** Settles when the last save runs or is told not to. */
  async idle(): Promise<void> {
    await this.#working;
  }

  /** Settles when nothing is left to do, the type check included; a trial is broken off. */
  async end(): Promise<void> {
    this.#isEnding = true;
    this.#trial.abort();
    await this.#working;
    await this.#checking;
  }

  async #work(): Promise<void> {
    for (let done = 0; done !== this.#saves;) {
      done = this.#saves;
      await this.#make(done);
    }
    this.#working = undefined;
    // Of what does not build it would tell the same error again.
    if (this.#isBuilt) this.#checking ??= this.#check();
  }

  async #make(save: number): Promise<void> {
    const startMs = performance.now();
    this.#tell({ state: "building", text: "building" });
    this.#isBuilt = false;
    try {
      const built = await this.workshop.build();
      this.#isBuilt = true;
      if (save !== this.#saves) return;
      const isOther = built.sha256 !== this.sha256;
      if (isOther) {
        this.hasUpdated = true;
        await this.workshop.update(built);
      }
      this.sha256 = built.sha256;
      this.#trial = new AbortController();
      if (save !== this.#saves || this.#isEnding) return;
      await this.workshop.tryOut(built, this.#trial.signal);
      const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
      const text = isOther ? `new code runs, ${seconds} s` : "this folder's code runs";
      this.#tell({ state: "running", text });
    } catch (error) {
      // Dev ends, and says what runs; or the next save is worked on.
      if (interrupted.aborted || this.#isEnding || save !== this.#saves) return;
      const { name, message } = error as Error;
      const text = error instanceof BrokenCodeError ? message : `AWS refused: ${name}: ${message}`;
      this.#tell({ state: "broken", text });
    }
  }

  async #check(): Promise<void> {
    for (let done = -1; done !== this.#saves;) {
      done = this.#saves;
      const typeErrors = await this.workshop.check().catch(() => undefined); // Ctrl-C ends it
      await this.#working;
      if (typeErrors && done === this.#saves) this.#tell({ ...this.#code, typeErrors });
    }
    this.#checking = undefined;
  }

  #tell(code: Code): void {
    this.#code = code;
    this.workshop.tell(code, this.sha256);
  }
}
