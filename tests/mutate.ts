/**
 * Mutation testing of the function: makes small changes in its code, one at a time, and lists those
 * that no test notices: survivors, among them some that change nothing.
 *
 *   deno run --allow-all --lock=tests/mutate.lock tests/mutate.ts [FILE...]     by default all files
 *
 * One bundle holds the tests and all mutants. Each worker runs the tests once without a mutant, to
 * see which of them reach which mutants, and then those with one mutant at a time.
 */

import { join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import * as esbuild from "esbuild";
import fc from "npm:fast-check@4.10.2";
import { namesIn, temporaryFolder } from "../tasks/files.ts";
import { ROOT } from "../tasks/shell.ts";
import { say, sayEvery, toDuration, toTable } from "../tasks/terminal.ts";

/**
 * Makes the mutants. Not imported by its name, as `deno check` would want it in tests/deno.lock: it
 * pins the SDK's tslib to a version of its own.
 */
const INSTRUMENTER = "npm:@stryker-mutator/instrumenter@10.1.1";

/** The function's own tests. */
const TESTS = [
  ...["handler_test.ts", "tests/charset_test.ts", "tests/job_test.ts", "tests/one_row_test.ts"],
  ...["tests/one_row_properties.ts", "tests/properties.ts"],
  ...["tests/record_test.ts", "tests/removals_test.ts"],
];

/** A test that starts a process, which has no mutants. */
const LEFT_OUT = /in the runtime's Node/;

/** What only a real process can test: tests/function_test.ts does. */
const NOT_MUTATED = "lambda.ts";

const WORKERS = navigator.hardwareConcurrency;

/** With a mutant a loop may be endless, or a promise stay open: a test fails after so much more. */
const MOST_CALLS = 20;
const MOST_TIMES = 10;
const MORE_MS = 5000;

/** So long a test may take without a mutant. */
const FIRST_RUN_MS = 600_000;

/** A file as Stryker takes it. */
interface Source {
  name: string;
  content: string;
  mutate: boolean;
}

/** As Stryker tells it: lines and columns begin with 0. */
interface Mutant {
  id: string;
  fileName: string;
  location: { start: { line: number; column: number } };
  replacement: string;
}

interface Outcome {
  mutant: Mutant;
  isKilled: boolean;
}

async function main(): Promise<void> {
  const named = Deno.args.map((file) => relative(ROOT, file));
  const all = (await namesIn(join(ROOT, "function"))).filter((name) => name !== NOT_MUTATED)
    .map((name) => `function/${name}`);
  const files = named.length > 0 ? named : ["handler.ts", ...all];
  const sources = await Promise.all(files.map(async (name) => {
    return { name, content: await Deno.readTextFile(join(ROOT, name)), mutate: true };
  }));
  await using folder = await temporaryFolder();
  const bundle = join(folder.path, "tests.mjs");
  const mutants = await writeBundle(bundle, sources);
  say(`${mutants.length} mutants of ${files.join(", ")}`);
  console.log(toLines(await tryAll(pathToFileURL(bundle).href, mutants)).join("\n"));
}

/** Writes the tests and all that they test, with every mutant, as one module. */
async function writeBundle(outfile: string, sources: Source[]): Promise<Mutant[]> {
  const { Instrumenter } = await import(INSTRUMENTER);
  const logger = { debug() {}, info() {}, isDebugEnabled: () => false };
  const options = { plugins: null, ignorers: [], excludedMutations: [] };
  const { files, mutants } = await new Instrumenter(logger).instrument(sources, options);
  const contents = TESTS.map((file) => `import "./${file}";`).join("\n");
  await esbuild.build({
    stdin: { contents, resolveDir: ROOT },
    bundle: true,
    platform: "node",
    format: "esm",
    target: "esnext",
    packages: "external",
    define: { "import.meta.url": JSON.stringify(pathToFileURL(join(ROOT, "tests", "x.ts"))) },
    plugins: [{
      name: "mutants",
      setup: (build) =>
        build.onLoad({ filter: /\.ts$/ }, ({ path }) => {
          const mutated = files.find(({ name }: Source) => join(ROOT, name) === path);
          return mutated && { contents: mutated.content, loader: "ts" };
        }),
    }],
    outfile,
    logLevel: "error",
  });
  await esbuild.stop();
  return mutants;
}

/** Tries all mutants, as many at a time as there are cores. */
async function tryAll(bundle: string, mutants: Mutant[]): Promise<Outcome[]> {
  const [outcomes, left] = [[] as Outcome[], mutants.values()];
  let startMs = performance.now();
  using _progress = sayEvery(() => {
    if (outcomes.length === 0) return "Running the tests without a mutant";
    const survive = outcomes.filter(({ isKilled }) => !isKilled).length;
    const eachMs = (performance.now() - startMs) / outcomes.length;
    const leftTime = toDuration(eachMs * (mutants.length - outcomes.length));
    return `${outcomes.length} of ${mutants.length}, of which ${survive} survive; ${leftTime} left`;
  }, 5000);
  await Promise.all(Array.from({ length: WORKERS }, async () => {
    let { worker, deadlineMs } = await startWorker(bundle);
    if (outcomes.length === 0) startMs = performance.now();
    for (const mutant of left) {
      const isKilled = await ask(worker, mutant.id, deadlineMs);
      outcomes.push({ mutant, isKilled: isKilled !== false });
      if (isKilled !== undefined) continue;
      worker.terminate(); // it hangs
      ({ worker, deadlineMs } = await startWorker(bundle));
    }
    worker.terminate();
  }));
  return outcomes;
}

/** A worker that has loaded the bundle and run its tests. */
async function startWorker(bundle: string): Promise<{ worker: Worker; deadlineMs: number }> {
  const startMs = performance.now();
  const worker = new Worker(import.meta.url, { type: "module", name: "mutants" });
  await ask(worker, bundle, FIRST_RUN_MS);
  return { worker, deadlineMs: MOST_TIMES * (performance.now() - startMs) };
}

/** A worker's answer; undefined if it does not come in time. */
function ask(worker: Worker, question: string, deadlineMs: number): Promise<boolean | undefined> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => resolve(undefined), deadlineMs);
    worker.onmessage = ({ data }) => {
      clearTimeout(timer);
      resolve(data);
    };
    worker.onerror = ({ message }) => reject(new Error(message));
    worker.postMessage(question);
  });
}

/** Survivors, each by its place and what then stands there; below them a line a file. */
function toLines(outcomes: Outcome[]): string[] {
  const survivors = outcomes.filter(({ isKilled }) => !isKilled)
    .sort((a, b) => Number(a.mutant.id) - Number(b.mutant.id))
    .map(({ mutant: { fileName, location: { start }, replacement } }) =>
      `${fileName}:${start.line + 1}:${start.column + 1}  ${replacement.replaceAll(/\s+/g, " ")}`
    );
  const files = Object.entries(Object.groupBy(outcomes, ({ mutant }) => mutant.fileName));
  const rows = [...files, ["all", outcomes] as const].map(([file, all = []]) => {
    const killed = all.filter(({ isKilled }) => isKilled).length;
    return [file, ...[all.length, killed, all.length - killed].map(String)];
  });
  return [
    ...survivors,
    "",
    ...toTable([["file", "mutants", "killed", "survive"], ...rows], [1, 2, 3]),
  ];
}

/** A test as Deno.test() and a step take it, and what it does without a mutant. */
interface Test {
  name: string;
  fn(context: { step: typeof step }): unknown;
  ms: number;
  calls: number;
  reached: Record<string, number>;
}

/** In a worker: the mutant that is active, and how often the bundle has asked for it. */
let active: string | undefined;
let calls = 0;
let mostCalls = Infinity;
let tests: Test[] = [];

/** What the mutants' code asks, and what it tells: the mutants that each test reaches. */
const stryker = {
  get activeMutant(): string | undefined {
    if (++calls > mostCalls) throw new Error("an endless loop");
    return active;
  },
  currentTestId: "",
  mutantCoverage: { static: {}, perTest: {} as Record<string, Test["reached"]> },
};

/** A promise that nobody waited for, and that failed. */
let stray: unknown;

function work(): void {
  const scope = self as unknown as { onmessage: unknown; postMessage(answer: boolean): void };
  Object.assign(globalThis, { __stryker__: stryker });
  Object.assign(Deno, {
    test(name: string, fn: Test["fn"]): void {
      if (!LEFT_OUT.test(name)) tests.push({ name, fn, ms: 0, calls: 0, reached: {} });
    },
  });
  addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    stray = event.reason;
  });
  let isKilledBy: ((id: string) => Promise<boolean>) | undefined;
  const answer = async (question: string) => {
    if (isKilledBy) return await isKilledBy(question);
    isKilledBy = await firstRun(question); // the first question is the bundle
    return true;
  };
  scope.onmessage = ({ data }: MessageEvent) => answer(data).then(scope.postMessage, reportError);
}

/** Runs the tests without a mutant; answers how to find out whether a mutant is killed. */
async function firstRun(bundle: string): Promise<(id: string) => Promise<boolean>> {
  let loads = 0;
  const load = async () => {
    tests = [];
    fc.configureGlobal({ seed: 1 }); // or a mutant may die by chance
    await import(`${bundle}?${loads++}`); // anew: what ran as it was loaded runs again
    return tests;
  };
  const all = await load();
  const { static: atLoad, perTest } = stryker.mutantCoverage;
  for (const [index, test] of all.entries()) {
    stryker.currentTestId = String(index);
    calls = 0;
    const startMs = performance.now();
    await run(test, FIRST_RUN_MS).catch((cause) => {
      throw new Error(`This test fails without a mutant: ${test.name}`, { cause });
    });
    Object.assign(test, { ms: performance.now() - startMs, calls, reached: { ...perTest[index] } });
  }
  return async (id) => {
    active = id;
    try {
      const loaded = id in atLoad ? await load() : all;
      const ofMutant = [...all.entries()].filter(([, { reached }]) => id in atLoad || id in reached)
        .sort(([, a], [, b]) => a.ms - b.ms); // a quick one may be enough
      for (const [index, { ms, calls: usual }] of ofMutant) {
        [calls, mostCalls] = [0, Math.max(100_000, MOST_CALLS * usual)];
        await run(loaded[index], MORE_MS + MOST_TIMES * ms);
      }
      return false;
    } catch {
      return true;
    } finally {
      [active, mostCalls] = [undefined, Infinity];
    }
  };
}

async function run({ fn }: Pick<Test, "fn">, deadlineMs: number): Promise<void> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error("no end")), deadlineMs);
  stray = undefined;
  try {
    await Promise.race([fn({ step }), late]);
  } finally {
    clearTimeout(timer);
  }
  if (stray !== undefined) throw stray;
}

async function step(_name: string, fn: Test["fn"]): Promise<boolean> {
  await fn({ step });
  return true;
}

if (self.name === "mutants") work();
else await main();
