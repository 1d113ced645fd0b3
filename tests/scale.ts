/**
 * How far AWS lets the pipeline go: some loads, what they need, and a simulation of what becomes of
 * them. It makes docs/SCALE.md's tables of these, and its plot.
 *
 *   deno run --allow-read tests/scale.ts --rate 20000 --seconds 60     a load of your own; also
 *     --concurrency N, and --units N that the table takes
 *   deno run --allow-read --allow-write=. tests/scale.ts --write       then run deno fmt
 */

import { parseArgs } from "node:util";
import { toTable } from "../tasks/terminal.ts";
import { read } from "./fixtures.ts";

/** AWS's limits that loads meet here: SCALE.md has them all, with their sources. */
export const S3_PUTS = 3500;
export const NEW_TABLE_UNITS = 4000;
export const TABLE_UNITS = 40_000;
const TABLE_DOUBLES_MS = 30 * 60_000;
export const CONCURRENCY = 1000;
export const GROWTH = { environments: 1000, everyMs: 10_000 };

/**
 * How Lambda tries events again; main.tf sets the number of retries, and the age:
 * https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
 */
export const RETRY_PAUSES_MS = [60_000, 120_000];
export const EVENT_AGE_MS = 6 * 3_600_000;
const THROTTLED_FIRST_MS = 1000;
const THROTTLED_MOST_MS = 5 * 60_000;
/** The part of such a pause that is left to chance: an assumption. */
const JITTER = 0.5;

/**
 * Longest pauses of the SDK's DynamoDB client between its four attempts, when it is throttled:
 * https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
 */
const WRITE_PAUSES_MS = [1000, 2000, 4000];

/** What is asked for above what a load needs, so that a backlog shrinks. */
const HEADROOM = 1.25;

/** What COST.md tells of an upload, which cost_test.ts checks. */
export interface Upload {
  runMs: number;
  dollarsPerMillion: number;
  logGbPerMillion: number;
}

export async function readUpload(): Promise<Upload> {
  const costs = (await read("docs/COST.md")).replaceAll(/ +/g, " ");
  const figure = (pattern: RegExp) => {
    const found = costs.match(pattern);
    if (found === null) {
      throw new Error(`Cannot read COST.md's costs: nothing is like ${pattern}`);
    }
    return Number(found[1]);
  };
  return {
    runMs: figure(/ are (\d+) ms at \d+ MB/),
    dollarsPerMillion: figure(/^\| together.*\| \$([\d.]+) \|$/m),
    logGbPerMillion: figure(/ Logs: .*\| ([\d.]+) GB \|/),
  };
}

export interface Load {
  name: string;
  perSecond: number;
  uploads: number;
}

const BURST: Load = { name: "a million in 10 s", perSecond: 100_000, uploads: 1e6 };
const HOURS: Load[] = [10, 1000, 10_000, 100_000].map((perSecond) => ({
  name: `${count(perSecond)} a second, for an hour`,
  perSecond,
  uploads: perSecond * 3600,
}));
const LOADS: Load[] = [...HOURS, BURST];

/** What a stack may have more than a new one by default. */
interface Raised {
  concurrency?: number;
  units?: number;
}

/** What to raise for a load, in round numbers; undefined where the default is enough. */
function raisedFor({ perSecond }: Load, upload: Upload): Required<Raised> | undefined {
  const needed = Math.ceil(perSecond * upload.runMs / 1000);
  if (needed <= CONCURRENCY && perSecond <= NEW_TABLE_UNITS) return undefined;
  const more = (need: number) => Math.ceil(need * HEADROOM / 500) * 500;
  return { concurrency: Math.max(CONCURRENCY, more(needed)), units: more(perSecond) };
}

/** A load on a stack, for {@link simulate}. */
export interface Model {
  /** Events that arrive in each step. */
  arrivals: ArrayLike<number>;
  /** How long a run takes that writes its row at the first attempt. */
  runMs: number;
  /** Length of a step; every time is rounded up to whole steps. */
  stepMs: number;
  /** Most runs at the same time. */
  concurrency: number;
  /** What the table takes a second at first; a row is a unit. */
  units: number;
  /** A number from 0 to 1; each pause draws one. */
  random(): number;
}

export function modelOf(
  { perSecond, uploads }: Load,
  { runMs }: Upload,
  { concurrency = CONCURRENCY, units = NEW_TABLE_UNITS }: Raised = {},
): Model {
  const until = (steps: number) => Math.min(uploads, Math.floor(perSecond * steps * runMs / 1000));
  const steps = Math.ceil(uploads / perSecond * 1000 / runMs);
  const arrivals = Array.from({ length: steps }, (_, i) => until(i + 1) - until(i));
  return { arrivals, runMs, stepMs: runMs, concurrency, units, random: randomOf(1) };
}

/** What becomes of a load. Times are from the first arrival. */
export interface Outcome {
  rows: number;
  /** Events that ended in the failure queue. */
  failed: number;
  /** Most events that were neither of both. */
  mostWaiting: number;
  /** Longest time from an event to its row. */
  latestMs: number;
  lastRowMs: number;
  /** How many wait, second by second. */
  waiting: number[];
}

/** Events that have gone the same way so far: counted together, hours take a second to simulate. */
interface Group {
  arrivedStep: number;
  count: number;
  throttles: number;
  failures: number;
  /** Writes that the table refused in this run. */
  refusals: number;
}

/** Groups by the step at which something happens to them. */
type Due = (Group[] | undefined)[];

interface State extends Model {
  step: number;
  /** Events to start, and runs that write, by step. */
  toStart: Due;
  toWrite: Due;
  waiting: number;
  running: number;
  environments: number;
  /** Environments that can still be made, and units that the table has left. */
  newEnvironments: number;
  unitsLeft: number;
  outcome: Outcome;
}

/** Goes on until each event has its row or has failed. */
export function simulate(model: Model): Outcome {
  const outcome = { rows: 0, failed: 0, mostWaiting: 0, latestMs: 0, lastRowMs: 0, waiting: [] };
  const state: State = {
    ...model,
    step: 0,
    toStart: [],
    toWrite: [],
    waiting: 0,
    running: 0,
    environments: 0,
    newEnvironments: GROWTH.environments,
    unitsLeft: 0,
    outcome,
  };
  for (; state.step < model.arrivals.length || state.waiting > 0; state.step++) takeStep(state);
  return outcome;
}

function takeStep(state: State): void {
  const { step, stepMs, units, outcome } = state;
  const made = GROWTH.environments * stepMs / GROWTH.everyMs;
  state.newEnvironments = Math.min(GROWTH.environments, state.newEnvironments + made);
  const doubled = units * 2 ** Math.floor(step * stepMs / TABLE_DOUBLES_MS);
  const perSecond = Math.min(Math.max(units, TABLE_UNITS), doubled);
  state.unitsLeft = Math.min(perSecond, state.unitsLeft + perSecond * stepMs / 1000);

  const arrived = state.arrivals[step] ?? 0;
  state.waiting += arrived;
  const fresh = { arrivedStep: step, count: arrived, throttles: 0, failures: 0, refusals: 0 };
  for (const group of take(state.toWrite, step)) write(state, group);
  for (const group of take(state.toStart, step)) start(state, group);
  if (arrived > 0) start(state, fresh);
  outcome.mostWaiting = Math.max(outcome.mostWaiting, state.waiting);
  if (step * stepMs >= outcome.waiting.length * 1000) outcome.waiting.push(state.waiting);
}

/** Starts as many of the events as there are free runs; Lambda throttles the others. */
function start(state: State, group: Group): void {
  const idle = state.environments - state.running;
  const free = Math.min(
    state.concurrency - state.running,
    idle + Math.floor(state.newEnvironments),
  );
  const others = split(group, free);
  if (group.count > 0) {
    const made = Math.max(0, group.count - idle);
    state.newEnvironments -= made;
    state.environments += made;
    state.running += group.count;
    put(state, state.toWrite, group, state.runMs);
  }
  if (others.count === 0) return;
  const longestMs = Math.min(THROTTLED_MOST_MS, THROTTLED_FIRST_MS * 2 ** others.throttles++);
  postpone(state, others, longestMs * (1 - JITTER * state.random()));
}

/** Writes as many rows as the table takes; the other runs write again later, or fail. */
function write(state: State, group: Group): void {
  const { stepMs, outcome, step } = state;
  const refused = split(group, Math.floor(state.unitsLeft));
  if (group.count > 0) {
    state.unitsLeft -= group.count;
    state.running -= group.count;
    state.waiting -= group.count;
    outcome.rows += group.count;
    outcome.lastRowMs = step * stepMs;
    outcome.latestMs = Math.max(outcome.latestMs, (step - group.arrivedStep) * stepMs);
  }
  if (refused.count === 0) return;
  const pauseMs = WRITE_PAUSES_MS[refused.refusals++];
  if (pauseMs !== undefined) return put(state, state.toWrite, refused, state.random() * pauseMs);
  refused.refusals = 0;
  state.running -= refused.count;
  postpone(state, refused, RETRY_PAUSES_MS[refused.failures++] ?? Infinity);
}

/** Tries the events again after a pause; those that would be too old then have failed. */
function postpone(state: State, group: Group, pauseMs: number): void {
  const ageMs = (state.step - group.arrivedStep) * state.stepMs + pauseMs;
  if (ageMs <= EVENT_AGE_MS) return put(state, state.toStart, group, pauseMs);
  state.waiting -= group.count;
  state.outcome.failed += group.count;
}

/** Leaves the first `most` events in a group, and returns the rest. */
function split(group: Group, most: number): Group {
  const kept = Math.max(0, Math.min(most, group.count));
  const rest = { ...group, count: group.count - kept };
  group.count = kept;
  return rest;
}

function take(due: Due, step: number): Group[] {
  const groups = due[step] ?? [];
  due[step] = undefined;
  return groups;
}

function put({ step, stepMs }: State, due: Due, group: Group, pauseMs: number): void {
  (due[step + Math.max(1, Math.ceil(pauseMs / stepMs))] ??= []).push(group);
}

/** Numbers from 0 to 1 that a seed determines: mulberry32, https://github.com/bryc/code/blob/master/jshash/PRNGs.md */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = state + 0x6d2b79f5 | 0;
    let mixed = Math.imul(state ^ state >>> 15, 1 | state);
    mixed = mixed + Math.imul(mixed ^ mixed >>> 7, 61 | mixed) ^ mixed;
    return ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32;
  };
}

/** Cells of a table, its head first. */
type Cells = string[][];

function needsTable(upload: Upload): Cells {
  return [
    ["uploads", "runs at once", "prefixes", "units a second", "log", "cost"],
    ...LOADS.map(({ name, perSecond, uploads }) => [
      name,
      count(Math.ceil(perSecond * upload.runMs / 1000)),
      count(Math.ceil(perSecond / S3_PUTS)),
      count(perSecond),
      `${Number((uploads * upload.logGbPerMillion / 1e6).toPrecision(2))} GB`,
      `$${(uploads * upload.dollarsPerMillion / 1e6).toFixed(2)}`,
    ]),
  ];
}

function outcomesTable(upload: Upload): Cells {
  const cells = (load: Load, stack: string, raised?: Raised) => {
    const { mostWaiting, latestMs, lastRowMs, failed } = simulate(modelOf(load, upload, raised));
    const late = latestMs < 1000 ? "at once" : `${duration(latestMs)} late`;
    return [load.name, stack, about(mostWaiting), late, duration(lastRowMs), about(failed)];
  };
  return [
    ["uploads", "stack", "most waiting", "latest row", "last row after", "in the failure queue"],
    ...LOADS.flatMap((load) => {
      const raised = raisedFor(load, upload);
      const asDeployed = cells(load, "as deployed");
      return raised === undefined ? [asDeployed] : [asDeployed, cells(load, "raised", raised)];
    }),
  ];
}

/** SCALE.md's tables that are made here. */
export function tablesOf(upload: Upload): Cells[] {
  return [needsTable(upload), outcomesTable(upload)];
}

/** The lines of a Markdown table that has this head, from and to. */
export function placeOf(lines: string[], [head]: Cells): [from: number, to: number] {
  const from = lines.findIndex((line) => toCells(line).join() === head.join());
  const length = lines.slice(from).findIndex((line) => !line.startsWith("|"));
  if (from < 0 || length < 0) throw new Error(`No table begins with ${head.join(" | ")}`);
  return [from, from + length];
}

export function toCells(line: string): string[] {
  return line.split("|").slice(1, -1).map((cell) => cell.trim());
}

const TITLE = `Uploads that wait for their row: ${BURST.name}`;
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [760, 340, 70, 740, 50, 290];

/** The burst's backlog on three stacks, as SVG: its own background makes it readable on any page. */
export function plotOf(upload: Upload): string {
  const { units, concurrency } = raisedFor(BURST, upload)!;
  const curves = Object.entries({
    "as deployed": {},
    [`table warmed to ${count(units)}`]: { units },
    [`concurrency raised to ${count(concurrency)}, too`]: { units, concurrency },
  }).map(([name, raised]) => ({ name, outcome: simulate(modelOf(BURST, upload, raised)) }));
  const longestMs = Math.max(...curves.map(({ outcome }) => outcome.lastRowMs));
  const minutes = Math.ceil(longestMs / 60_000 / 4) * 4;
  const x = (seconds: number) => Math.round(LEFT + seconds / 60 / minutes * (RIGHT - LEFT));
  const y = (events: number) => Math.round(BOTTOM - events / BURST.uploads * (BOTTOM - TOP));
  const grid = [0, 0.25, 0.5, 0.75, 1].map((part) => part * BURST.uploads).flatMap((events) => [
    line(LEFT, y(events), RIGHT, y(events)),
    text(LEFT - 8, y(events) + 4, "end", about(events)),
  ]);
  const ticks = Array.from({ length: minutes / 4 + 1 }, (_, i) => 4 * i)
    .map((minute) => text(x(60 * minute), BOTTOM + 20, "middle", String(minute)));
  const drawn = curves.flatMap(({ name, outcome: { waiting, lastRowMs, failed } }, i) => {
    const points = waiting.map((events, second) => `${x(second)},${y(events)}`);
    const end = `${x(lastRowMs / 1000)},${y(0)}`;
    const ended = duration(lastRowMs) + (failed > 0 ? `, ${about(failed)} failed` : "");
    return [
      `<polyline class="c${i}" points="${[...new Set([...points, end])].join(" ")}"/>`,
      line(RIGHT - 330, 124 + 18 * i, RIGHT - 300, 124 + 18 * i, `c${i}`),
      text(RIGHT - 292, 128 + 18 * i, "start", `${name}: ${ended}`),
    ];
  });
  const title = text(WIDTH / 2, 26, "middle", TITLE, "title");
  const unit = text((LEFT + RIGHT) / 2, HEIGHT - 10, "middle", "minutes");
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img">
<title>${TITLE}, by minutes</title>
<style>${STYLE}</style>
<rect class="ground" width="${WIDTH}" height="${HEIGHT}" rx="8"/>
${[title, ...grid, ...ticks, unit, ...drawn].join("\n")}
</svg>
`;
}

const STYLE = `
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.ground { fill: #fff; stroke: #d0d7de }
line { stroke: #d8dee4 }
.c0, .c1, .c2 { fill: none; stroke-width: 2.5 }
.c0 { stroke: #bc4c00 }
.c1 { stroke: #8250df; stroke-dasharray: 7 4 }
.c2 { stroke: #0969da; stroke-dasharray: 2 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .ground { fill: #0d1117; stroke: #30363d }
  line { stroke: #30363d }
  .c0 { stroke: #f0883e }
  .c1 { stroke: #bc8cff }
  .c2 { stroke: #58a6ff }
}
`;

function line(x1: number, y1: number, x2: number, y2: number, name = "grid"): string {
  return `<line class="${name}" x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}"/>`;
}

function text(x: number, y: number, anchor: string, words: string, name = "label"): string {
  return `<text class="${name}" x="${x}" y="${y}" text-anchor="${anchor}">${words}</text>`;
}

function duration(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** A count in two digits, in millions where it is so large. */
function about(number: number): string {
  const rounded = Number(number.toPrecision(2));
  return rounded >= 1e6 ? `${count(rounded / 1e6)} million` : count(rounded);
}

export function count(number: number): string {
  return number.toLocaleString("en-US");
}

/** A load's backlog over time, and how it ended. */
export function backlogOf(load: Omit<Load, "name">, upload: Upload, raised: Raised): string[] {
  const outcome = simulate(modelOf({ name: "", ...load }, upload, raised));
  const every = Math.ceil(outcome.waiting.length / 20);
  const shown = outcome.waiting.map((waiting, second) => [count(second), count(waiting)])
    .filter((_, second) => second % every === 0);
  return [
    ...toTable([["after, s", "waiting"], ...shown], [0, 1]),
    `${count(outcome.rows)} rows, the last after ${duration(outcome.lastRowMs)}, the latest ` +
    `${duration(outcome.latestMs)} after its event; ${count(outcome.failed)} events failed`,
  ];
}

async function main(): Promise<void> {
  const string = { type: "string" } as const;
  const options = { rate: string, seconds: string, concurrency: string, units: string };
  const { values } = parseArgs({ options: { ...options, write: { type: "boolean" } } });
  const { write, ...given } = values;
  const { rate = 0, seconds = 60, ...raised } = Object.fromEntries(
    Object.entries(given).map(([name, value]) => [name, Number(value)]),
  );
  const upload = await readUpload();
  if (rate > 0) {
    const load = { perSecond: rate, uploads: Math.round(rate * seconds) };
    console.log(backlogOf(load, upload, raised).join("\n"));
  }
  if (!write) return;
  const lines = (await read("docs/SCALE.md")).split("\n");
  for (const table of tablesOf(upload)) {
    const [from, to] = placeOf(lines, table);
    const rows = [table[0], table[0].map(() => "---"), ...table.slice(1)];
    lines.splice(from, to - from, ...rows.map((row) => `| ${row.join(" | ")} |`));
  }
  const docs = new URL("../docs/", import.meta.url);
  await Deno.writeTextFile(new URL("SCALE.md", docs), lines.join("\n"));
  await Deno.writeTextFile(new URL("scale.svg", docs), plotOf(upload));
}

if (import.meta.main) await main();
