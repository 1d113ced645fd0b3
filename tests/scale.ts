/**
 * How far AWS lets the pipeline go: what some loads need, and a simulation of what becomes of them.
 * It makes two tables and the plot of docs/SCALE.md.
 *
 *   deno run tests/scale.ts 20000 60        a load of your own, a second and for how
 *     many seconds; then the concurrency, and the table's units a second, if they are raised
 *   deno run --allow-read --allow-write=. tests/scale.ts --write       then run deno fmt
 */

const SCALE = new URL("../docs/SCALE.md", import.meta.url);

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

/** What COST.md tells of an upload, as scale_test.ts checks. */
export const RUN_MS = 55;
export const DOLLARS_PER_MILLION = 1.84;
export const LOG_GB_PER_MILLION = 0.85;

interface Load {
  name: string;
  perSecond: number;
  uploads: number;
}

const BURST: Load = { name: "a million in 10 s", perSecond: 100_000, uploads: 1e6 };
const LOADS: Load[] = [
  ...[10, 1000, 10_000, 100_000].map((perSecond) => ({
    name: `${count(perSecond)} a second, for an hour`,
    perSecond,
    uploads: perSecond * 3600,
  })),
  BURST,
];

interface Stack {
  /** Most runs at the same time. */
  concurrency: number;
  /** What the table takes a second at first; a row is a unit. */
  units: number;
}

const AS_DEPLOYED: Stack = { concurrency: CONCURRENCY, units: NEW_TABLE_UNITS };

/** What to raise for a load, in round numbers; undefined where the default is enough. */
function raisedFor({ perSecond }: Load): Stack | undefined {
  const needed = runsAtOnce(perSecond);
  if (needed <= CONCURRENCY && perSecond <= NEW_TABLE_UNITS) return undefined;
  const more = (need: number) => Math.ceil(need * HEADROOM / 500) * 500;
  return { concurrency: Math.max(CONCURRENCY, more(needed)), units: more(perSecond) };
}

function runsAtOnce(perSecond: number): number {
  return Math.ceil(perSecond * RUN_MS / 1000);
}

/** A load on a stack, for {@link Simulation}. */
export interface Model extends Stack {
  /** Events that arrive in each step. */
  arrivals: ArrayLike<number>;
  /** How long a run takes that writes its row at the first attempt: a step. */
  runMs: number;
  /** A number from 0 to 1; each pause draws one. */
  random(): number;
}

export function modelOf({ perSecond, uploads }: Omit<Load, "name">, stack: Stack): Model {
  const until = (steps: number) => Math.min(uploads, Math.floor(perSecond * steps * RUN_MS / 1000));
  const steps = Math.ceil(uploads / perSecond * 1000 / RUN_MS);
  const arrivals = Array.from({ length: steps }, (_, i) => until(i + 1) - until(i));
  let state = 1; // a linear congruential generator, so that each time is the same
  const random = () => (state = (1664525 * state + 1013904223) % 2 ** 32) / 2 ** 32;
  return { ...stack, arrivals, runMs: RUN_MS, random };
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

/** What becomes of a load, once it has run. Times are from the first arrival. */
export class Simulation {
  rows = 0;
  /** Events that ended in the failure queue. */
  failed = 0;
  mostWaiting = 0;
  /** Longest time from an event to its row. */
  latestMs = 0;
  lastRowMs = 0;
  /** Most that wait, minute by minute. */
  waitingByMinute: number[] = [];

  #model: Model;
  #step = 0;
  #toStart: Due = [];
  #toWrite: Due = [];
  #waiting = 0;
  #running = 0;
  #environments = 0;
  #newEnvironments = GROWTH.environments;
  #unitsLeft = 0;

  /** Runs until each event has its row or has failed. */
  constructor(model: Model) {
    this.#model = model;
    for (; this.#step < model.arrivals.length || this.#waiting > 0; this.#step++) this.#takeStep();
  }

  #takeStep(): void {
    const { arrivals, runMs, units } = this.#model;
    const nowMs = this.#step * runMs;
    const made = GROWTH.environments * runMs / GROWTH.everyMs;
    this.#newEnvironments = Math.min(GROWTH.environments, this.#newEnvironments + made);
    const doubled = units * 2 ** Math.floor(nowMs / TABLE_DOUBLES_MS);
    const perSecond = Math.min(Math.max(units, TABLE_UNITS), doubled);
    this.#unitsLeft = Math.min(perSecond, this.#unitsLeft + perSecond * runMs / 1000);

    const count = arrivals[this.#step] ?? 0;
    this.#waiting += count;
    for (const group of this.#take(this.#toWrite)) this.#write(group);
    for (const group of this.#take(this.#toStart)) this.#start(group);
    if (count > 0) {
      this.#start({ arrivedStep: this.#step, count, throttles: 0, failures: 0, refusals: 0 });
    }
    this.mostWaiting = Math.max(this.mostWaiting, this.#waiting);
    const minute = Math.floor(nowMs / 60_000);
    this.waitingByMinute[minute] = Math.max(this.waitingByMinute[minute] ?? 0, this.#waiting);
  }

  /** Starts as many of the events as there are free runs; Lambda throttles the others. */
  #start(group: Group): void {
    const idle = this.#environments - this.#running;
    const most = idle + Math.floor(this.#newEnvironments);
    const others = split(group, Math.min(this.#model.concurrency - this.#running, most));
    if (others !== group) {
      const made = Math.max(0, group.count - idle);
      this.#newEnvironments -= made;
      this.#environments += made;
      this.#running += group.count;
      this.#put(this.#toWrite, group, 0);
    }
    if (others === undefined) return;
    const longestMs = Math.min(THROTTLED_MOST_MS, THROTTLED_FIRST_MS * 2 ** others.throttles++);
    this.#postpone(others, longestMs * (1 - JITTER * this.#model.random()));
  }

  /** Writes as many rows as the table takes; the other runs write again later, or fail. */
  #write(group: Group): void {
    const { runMs, random } = this.#model;
    const refused = split(group, Math.floor(this.#unitsLeft));
    if (refused !== group) {
      this.#unitsLeft -= group.count;
      this.#running -= group.count;
      this.#waiting -= group.count;
      this.rows += group.count;
      this.lastRowMs = this.#step * runMs;
      this.latestMs = Math.max(this.latestMs, (this.#step - group.arrivedStep) * runMs);
    }
    if (refused === undefined) return;
    const pauseMs = WRITE_PAUSES_MS[refused.refusals++];
    if (pauseMs !== undefined) return this.#put(this.#toWrite, refused, random() * pauseMs);
    refused.refusals = 0;
    this.#running -= refused.count;
    this.#postpone(refused, RETRY_PAUSES_MS[refused.failures++] ?? Infinity);
  }

  /** Tries the events again after a pause; those that would be too old then have failed. */
  #postpone(group: Group, pauseMs: number): void {
    const ageMs = (this.#step - group.arrivedStep) * this.#model.runMs + pauseMs;
    if (ageMs <= EVENT_AGE_MS) return this.#put(this.#toStart, group, pauseMs);
    this.#waiting -= group.count;
    this.failed += group.count;
  }

  #take(due: Due): Group[] {
    const groups = due[this.#step] ?? [];
    due[this.#step] = undefined;
    return groups;
  }

  #put(due: Due, group: Group, pauseMs: number): void {
    const steps = Math.max(1, Math.ceil(pauseMs / this.#model.runMs));
    (due[this.#step + steps] ??= []).push(group);
  }
}

/** Leaves the first `most` events in a group, and returns the rest: all of it, a part or nothing. */
function split(group: Group, most: number): Group | undefined {
  if (most >= group.count) return undefined;
  if (most <= 0) return group;
  const rest = { ...group, count: group.count - most };
  group.count = most;
  return rest;
}

function needsOf({ name, perSecond, uploads }: Load): string[] {
  return [
    name,
    count(runsAtOnce(perSecond)),
    count(Math.ceil(perSecond / S3_PUTS)),
    count(perSecond),
    `${Number((uploads * LOG_GB_PER_MILLION / 1e6).toPrecision(2))} GB`,
    `$${(uploads * DOLLARS_PER_MILLION / 1e6).toFixed(2)}`,
  ];
}

/** Most waiting, the latest row, the last row, and the failed. */
function outcomeOf(load: Omit<Load, "name">, stack: Stack): string[] {
  const { mostWaiting, latestMs, lastRowMs, failed } = new Simulation(modelOf(load, stack));
  const late = latestMs < 1000 ? "at once" : `${duration(latestMs)} late`;
  return [about(mostWaiting), late, duration(lastRowMs), about(failed)];
}

/** The burst's backlog on three stacks, for Mermaid: the most of each minute, in thousands. */
function plot(): string {
  const { units, concurrency } = raisedFor(BURST)!;
  const curves = Object.entries({
    "as deployed": AS_DEPLOYED,
    [`table warmed to ${count(units)}`]: { ...AS_DEPLOYED, units },
    [`concurrency raised to ${count(concurrency)}, too`]: { units, concurrency },
  }).map(([name, stack]) => ({ name, ...new Simulation(modelOf(BURST, stack)) }));
  const minutes = Math.max(...curves.map(({ waitingByMinute }) => waitingByMinute.length));
  const lines = curves.map(({ name, waitingByMinute }) => {
    const thousands = Array.from({ length: minutes }, (_, minute) => {
      return Math.round((waitingByMinute[minute] ?? 0) / 1000);
    });
    return `    line "${name}" [${thousands.join(", ")}]\n`;
  });
  return `    x-axis "minutes" 0 --> ${minutes - 1}\n${lines.join("")}`;
}

/** SCALE.md with what is computed here: the rows of two tables, and the plot's axis and lines. */
export function computed(scale: string): string {
  const outcomes = LOADS.flatMap((load) => {
    const stacks = { "as deployed": AS_DEPLOYED, raised: raisedFor(load) };
    return Object.entries(stacks).filter(([, stack]) => stack !== undefined)
      .map(([name, stack]) => [load.name, name, ...outcomeOf(load, stack!)]);
  });
  const rows = (cells: string[][]) => cells.map((row) => `| ${row.join(" | ")} |\n`).join("");
  const parts: [place: RegExp, text: string][] = [
    [/(?<=\n\| uploads +\| runs at once .*\n.*\n)(\|.*\n)*/, rows(LOADS.map(needsOf))],
    [/(?<=\n\| uploads +\| stack .*\n.*\n)(\|.*\n)*/, rows(outcomes)],
    [/(?<=\nxychart-beta\n.*\n.*\n)[^`]*/, plot()],
  ];
  return parts.reduce((text, [place, part]) => {
    if (!place.test(text)) throw new Error(`SCALE.md has no ${place}`);
    return text.replace(place, () => part);
  }, scale);
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

function count(number: number): string {
  return number.toLocaleString("en-US");
}

/** What becomes of a load of the user's, in a sentence. */
export function toSentence(args: number[]): string {
  const [perSecond, seconds, concurrency = CONCURRENCY, units = NEW_TABLE_UNITS] = args;
  const load = { perSecond, uploads: Math.round(perSecond * seconds) };
  const [waiting, late, last, failed] = outcomeOf(load, { concurrency, units });
  return `${waiting} wait at most; the latest row comes ${late}, the last after ${last}; ` +
    `${failed} events fail`;
}

if (import.meta.main) {
  if (Deno.args[0] === "--write") {
    await Deno.writeTextFile(SCALE, computed(await Deno.readTextFile(SCALE)));
  } else console.log(toSentence(Deno.args.map(Number)));
}
