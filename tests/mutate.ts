/**
 * Mutation testing of the function: makes small changes in its code, one at a time, and lists those
 * that no test notices: survivors, among them some that change nothing.
 *
 *   deno run --allow-all --lock=tests/deno.lock tests/mutate.ts [FILE...]     by default all files
 */

import { join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import * as esbuild from "esbuild";
import { namesIn, temporaryFolder } from "../tasks/files.ts";
import { ROOT } from "../tasks/shell.ts";
import { clip, say, sayEvery, toDuration, toTable } from "../tasks/terminal.ts";
import { type Mutant, mutate } from "./mutants.ts";
import type { Answer, Question, Survey } from "./mutate_worker.ts";

/** What only a real process can test: tests/function_test.ts and tests/faults_test.ts do. */
const NOT_MUTATED = ["lambda.ts", "warm_up.ts"];

const WORKERS = navigator.hardwareConcurrency;

/** A worker that takes so many times as long as without a mutant is in an endless loop. */
const MOST_TIMES = 10;
const SURVEY_DEADLINE_MS = 600_000;

interface Outcome {
  mutant: Mutant;
  state: "killed" | "survives" | "not reached";
}

/** The function's files, from the project's folder. */
async function functionFiles(): Promise<string[]> {
  const names = (await namesIn(join(ROOT, "function")))
    .filter((name) => name.endsWith(".ts") && !NOT_MUTATED.includes(name));
  return ["handler.ts", ...names.map((name) => `function/${name}`)];
}

/** The function's tests in this process: those that import its files, or a helper that does. */
async function testFiles(): Promise<string[]> {
  const names = await namesIn(join(ROOT, "tests"));
  const tests = names.filter((name) => /(_test|properties)\.ts$/.test(name));
  const files: string[] = [];
  for (const file of ["handler_test.ts", ...tests.map((name) => `tests/${name}`)]) {
    const text = await Deno.readTextFile(join(ROOT, file));
    const helpers = Array.from(text.matchAll(/from "(\.\/\w+\.ts)"/g), ([, path]) => path);
    const read = helpers.map((path) => Deno.readTextFile(join(ROOT, file, "..", path)));
    const texts = [text, ...await Promise.all(read)];
    const isOfFunction = texts.some((each) => /"\.\.?\/(handler|function\/\w+)\.ts"/.test(each));
    const isOfProcess = text.includes('"../tasks/') || text.includes("function_process.ts");
    if (isOfFunction && !isOfProcess) files.push(file);
  }
  return files;
}

/** Writes the tests and all that they test, with every mutant, as one module. */
async function bundle(
  folder: string,
  mutated: string[],
): Promise<{ url: string; mutants: Mutant[] }> {
  const mutants: Mutant[] = [];
  const sources = new Map<string, string>();
  for (const file of mutated) {
    const made = mutate(file, await Deno.readTextFile(join(ROOT, file)), mutants.length);
    sources.set(join(ROOT, file), made.code);
    mutants.push(...made.mutants);
  }
  const outfile = join(folder, "tests.mjs");
  await esbuild.build({
    stdin: {
      contents: (await testFiles()).map((file) => `import "./${file}";`).join("\n"),
      resolveDir: ROOT,
    },
    bundle: true,
    platform: "node",
    format: "esm",
    target: "esnext",
    packages: "external",
    banner: { js: "const Deno = globalThis.$Deno; const $m = globalThis.$m;" },
    define: { "import.meta.url": JSON.stringify(pathToFileURL(join(ROOT, "tests", "x.ts"))) },
    plugins: [{
      name: "mutants",
      setup: (build) =>
        build.onLoad({ filter: /\.ts$/ }, ({ path }) => {
          const contents = sources.get(path);
          return contents === undefined ? undefined : { contents, loader: "js" };
        }),
    }],
    outfile,
    logLevel: "error",
  });
  await esbuild.stop();
  return { url: pathToFileURL(outfile).href, mutants };
}

/** A worker that has loaded the bundle and run its tests. */
async function startWorker(
  url: string,
): Promise<{ worker: Worker; survey: Survey; deadlineMs: number }> {
  const startMs = performance.now();
  const worker = new Worker(new URL("mutate_worker.ts", import.meta.url), { type: "module" });
  const answer = await ask(worker, { bundle: url }, SURVEY_DEADLINE_MS);
  if (answer === undefined || !("survey" in answer)) throw new Error("The tests do not end");
  const { survey } = answer;
  if (survey.failure) throw new Error(`A test fails without a mutant: ${survey.failure}`);
  return { worker, survey, deadlineMs: MOST_TIMES * (performance.now() - startMs) };
}

/** The worker's answer; undefined if it does not come in time. */
function ask(
  worker: Worker,
  question: Question,
  deadlineMs: number,
): Promise<Answer | undefined> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => resolve(undefined), deadlineMs);
    worker.onmessage = ({ data }) => {
      clearTimeout(timer);
      resolve(data);
    };
    worker.onerror = (event) => reject(new Error(event.message));
    worker.postMessage(question);
  });
}

/** Tries all mutants, as many at a time as there are cores. */
async function tryAll(url: string, mutants: Mutant[]): Promise<Outcome[]> {
  const started = await Promise.all(Array.from({ length: WORKERS }, () => startWorker(url)));
  const { leftOut, reached } = started[0].survey;
  for (const name of leftOut) say(`Left out, as it needs more than this process: ${name}`);

  const [outcomes, left] = [[] as Outcome[], mutants.values()];
  const startMs = performance.now();
  using _progress = sayEvery(5000, () => {
    const survive = outcomes.filter(({ state }) => state !== "killed").length;
    const eachMs = (performance.now() - startMs) / Math.max(1, outcomes.length);
    const leftTime = toDuration(eachMs * (mutants.length - outcomes.length));
    return `${outcomes.length} of ${mutants.length}, of which ${survive} survive; ${leftTime} left`;
  });
  await Promise.all(started.map(async ({ worker, deadlineMs }) => {
    for (const mutant of left) {
      if (!reached.has(mutant.id)) {
        outcomes.push({ mutant, state: "not reached" });
        continue;
      }
      const answer = await ask(worker, { id: mutant.id }, deadlineMs);
      if (answer === undefined) { // it hangs, and so does its worker
        worker.terminate();
        ({ worker } = await startWorker(url));
      }
      const isKilled = answer === undefined || ("isKilled" in answer && answer.isKilled);
      outcomes.push({ mutant, state: isKilled ? "killed" : "survives" });
    }
    worker.terminate();
  }));
  return outcomes;
}

/** Survivors, then a line a file. */
function toLines(outcomes: Outcome[]): string[] {
  const survivors = outcomes.filter(({ state }) => state !== "killed")
    .sort((a, b) => a.mutant.id - b.mutant.id)
    .map(({ mutant: { file, line, before, after }, state }) =>
      [`${file}:${line}`, state, ...difference(before, after)].join("  ")
    );
  const files = Object.entries(Object.groupBy(outcomes, ({ mutant }) => mutant.file));
  const rows = [...files, ["all", outcomes] as const].map(([file, all = []]) => {
    const killed = all.filter(({ state }) => state === "killed").length;
    const share = (100 * killed / all.length).toFixed(1);
    return [file, String(all.length), String(killed), String(all.length - killed), `${share} %`];
  });
  const head = ["file", "mutants", "killed", "survive", "score"];
  return [...survivors, "", ...toTable([head, ...rows], [1, 2, 3, 4])];
}

/** Two texts in which only the surroundings of what differs are shown. */
function difference(before: string, after: string): string[] {
  const [a, b] = [before, after].map((text) => text.replace(/\s+/g, " "));
  const same = Array.from(a).findIndex((character, i) => character !== b[i]);
  const start = Math.max(0, same - 20);
  return [a, b].map((text) => (start > 0 ? "…" : "") + clip(text.slice(start), 50));
}

const files = Deno.args.length > 0
  ? Deno.args.map((file) => relative(ROOT, file))
  : await functionFiles();
await using folder = await temporaryFolder();
const { url, mutants } = await bundle(folder.path, files);
say(`${mutants.length} mutants of ${files.join(", ")}`);
console.log(toLines(await tryAll(url, mutants)).join("\n"));
