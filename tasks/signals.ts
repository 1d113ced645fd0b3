/** Ctrl-C: the first one ends the work in order, a second one ends everything at once. */

import * as timers from "node:timers/promises";

const interruption = new AbortController();

/** Aborted at the first Ctrl-C, or when the terminal is closed; long work ends then. */
export const interrupted: AbortSignal = interruption.signal;

/** What is under way at the first Ctrl-C ends within this time. */
const GRACE_MS = 5000;

const overtime = new AbortController();

/** Aborted some seconds after {@link interrupted}: it ends calls that began before and still wait. */
export const overdue: AbortSignal = overtime.signal;

/** Programs that run now; each gets one SIGINT at the first Ctrl-C. */
export const children = new Set<Deno.ChildProcess>();

/** Two signals within this time are one Ctrl-C: `deno task` passes on what the terminal sends too. */
const SAME_SIGNAL_MS = 1000;

/**
 * From now on the first SIGINT, SIGTERM or SIGHUP aborts {@link interrupted} and is passed on to
 * running programs as one SIGINT, after which Terraform saves its state. A second one kills them.
 */
export function handleSignals(): void {
  let firstMs = 0;
  const onSignal = () => {
    if (interrupted.aborted && performance.now() - firstMs < SAME_SIGNAL_MS) return;
    if (interrupted.aborted) {
      console.error("Stopped at once: work may be left half done. Run the same command again.");
      for (const child of children) kill(child, "SIGKILL");
      Deno.exit(130);
    }
    firstMs = performance.now();
    interruption.abort();
    Deno.unrefTimer(setTimeout(() => overtime.abort(), GRACE_MS));
    console.error("\nInterrupted: ending in order (Ctrl-C again to stop at once) ...");
    for (const child of children) kill(child, "SIGINT");
  };
  const signals: Deno.Signal[] = Deno.build.os === "windows"
    ? ["SIGINT"]
    : ["SIGINT", "SIGTERM", "SIGHUP"];
  for (const signal of signals) Deno.addSignalListener(signal, onSignal);
}

/** Waits `ms`; throws at Ctrl-C, or when another signal is aborted. */
export async function pause(ms: number, signal: AbortSignal = interrupted): Promise<void> {
  await timers.setTimeout(ms, undefined, { signal }).catch(() => signal.throwIfAborted());
}

/** How time passes; a test's own passes at once. */
export interface Time {
  /** Milliseconds since some moment. */
  nowMs(): number;
  pause(ms: number, signal?: AbortSignal): Promise<void>;
}

export const TIME: Time = { nowMs: () => performance.now(), pause };

/**
 * Ends what a program that was interrupted has left in its process group: asks, waits, and after
 * 10 seconds kills.
 */
export async function endGroup(pid: number): Promise<void> {
  signalGroup(pid, "SIGTERM");
  for (let tries = 0; tries < 100 && signalGroup(pid, "SIGCONT"); tries++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  signalGroup(pid, "SIGKILL");
}

/** Signals a process group by its leader's id; false if there is none, as on Windows. */
export function signalGroup(pid: number, signal: Deno.Signal): boolean {
  try {
    Deno.kill(-pid, signal);
    return true;
  } catch {
    return false;
  }
}

function kill(child: Deno.ChildProcess, signal: Deno.Signal): void {
  try {
    child.kill(signal);
  } catch {
    // It has ended by itself.
  }
}
