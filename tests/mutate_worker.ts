/**
 * Runs the tests of a bundle that holds every mutant: once without any, to see which tests reach which
 * mutants, then those tests with one mutant at a time. A test that changes files or starts a process
 * is left out.
 */

import fc from "npm:fast-check@4.10.2";

/** What the worker is asked: to load a bundle, or to try a mutant. */
export type Question = { bundle: string } | { id: number };
export type Answer = { survey: Survey } | { isKilled: boolean };

/** What the tests do without a mutant. */
export interface Survey {
  /** Mutants that some test reaches. */
  reached: Set<number>;
  /** Names of tests that are left out. */
  leftOut: string[];
  /** A test that fails, and why: then nothing can be said of mutants. */
  failure?: string;
}

interface Test {
  name: string;
  ignore?: boolean;
  fn(context: Context): unknown;
}

interface Context {
  name: string;
  step(test: string | Test, fn?: Test["fn"]): Promise<boolean>;
}

/** A test without a mutant: how long it took, and what it called and reached. */
interface Seen {
  index: number;
  ms: number;
  calls: number;
  reached: Set<number>;
}

/** With a mutant a loop may be endless: it ends after so many times the calls that it makes without. */
const MOST_CALLS = 20;
const MOST_CALLS_AT_LEAST = 100_000;

/** And a promise may stay open. */
const DEADLINE_MS = 5000;

/** What changes files, or starts something: with a mutant it could do anything. */
const OUTWARD =
  /^(Command|remove|rename|mkdir|make|write|open|create|symlink|link|ch|kill|listen|connect|serve)/;

let bundle = "";
let loads = 0;
let tests: Test[] = [];
let seen: Seen[] = [];
let atLoad = new Set<number>();

let active = -1;
let calls = 0;
let mostCalls = Infinity;
let reached = new Set<number>();
let stray: unknown;
let reachedOut = false;

/** What the bundle calls: whether a mutant is active, and Deno's own names. */
Object.assign(globalThis, {
  $m(id: number): boolean {
    if (++calls > mostCalls) throw new Error("an endless loop");
    if (active === -1) reached.add(id);
    return id === active;
  },
  $Deno: new Proxy(Deno, {
    get(deno, name: keyof typeof Deno) {
      if (name === "test") return register;
      if (!OUTWARD.test(name)) return deno[name];
      reachedOut = true;
      throw new Error(`Deno.${name} is not for a mutant`);
    },
  }),
});

function register(given: string | Test, fn?: Test["fn"]): void {
  const test = toTest(given, fn);
  if (!test.ignore) tests.push(test);
}

function toTest(given: string | Test, fn?: Test["fn"]): Test {
  return typeof given === "string" ? { name: given, fn: fn! } : given;
}

addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  stray = event.reason;
});

const scope = globalThis as unknown as {
  onmessage(event: { data: Question }): Promise<void>;
  postMessage(answer: Answer): void;
};

scope.onmessage = async ({ data }) => {
  if ("bundle" in data) bundle = data.bundle;
  scope.postMessage(
    "bundle" in data ? { survey: await look() } : { isKilled: await isKilled(data.id) },
  );
};

/** Loads the modules anew: what ran when they were loaded runs again. */
async function load(): Promise<void> {
  tests = [];
  fc.configureGlobal({ seed: 1 }); // or a mutant may die by chance
  await import(`${bundle}?${loads++}`);
}

async function look(): Promise<Survey> {
  await load();
  atLoad = reached;
  const leftOut: string[] = [];
  for (const [index, test] of tests.entries()) {
    [reached, calls, reachedOut] = [new Set(), 0, false];
    const startMs = performance.now();
    try {
      await runTest(test, 60_000);
      seen.push({ index, ms: performance.now() - startMs, calls, reached });
    } catch (error) {
      if (!reachedOut) return { reached, leftOut, failure: `${test.name}: ${error}` };
      leftOut.push(test.name);
    }
  }
  seen = seen.sort((a, b) => a.ms - b.ms); // a quick one may be enough
  const all = seen.flatMap((test) => [...test.reached]);
  return { reached: new Set([...atLoad, ...all]), leftOut };
}

/** Whether a test fails with the mutant. */
async function isKilled(id: number): Promise<boolean> {
  const clean = tests;
  active = id;
  try {
    [calls, mostCalls] = [0, Infinity];
    if (atLoad.has(id)) await load();
    for (const test of seen) {
      if (!atLoad.has(id) && !test.reached.has(id)) continue;
      [calls, mostCalls] = [0, Math.max(MOST_CALLS_AT_LEAST, MOST_CALLS * test.calls)];
      await runTest(tests[test.index], DEADLINE_MS + 10 * test.ms);
    }
    return false;
  } catch {
    return true;
  } finally {
    [active, tests, mostCalls] = [-1, clean, Infinity];
  }
}

async function runTest(test: Test, deadlineMs: number): Promise<void> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error("no end")), deadlineMs);
  stray = undefined;
  try {
    await Promise.race([test.fn(contextOf(test.name)), late]);
  } finally {
    clearTimeout(timer);
  }
  if (stray !== undefined) throw stray;
}

function contextOf(name: string): Context {
  return {
    name,
    async step(given, fn) {
      const step = toTest(given, fn);
      if (!step.ignore) await step.fn(contextOf(step.name));
      return true;
    },
  };
}
