/**
 * A model of the way from S3's event to its row: Lambda's queue of asynchronous events, the function
 * with its limits of concurrency, and the table with its units. It counts events that go the same
 * way together, step by step, so that hours of 100,000 events a second take it a second.
 */

export interface Model {
  /** Length of a step in ms; every time below is rounded up to whole steps. */
  stepMs: number;
  /** Events that arrive in each step. */
  arrivals: ArrayLike<number>;
  /** Times of runs that write their row at the first attempt, in ms; each start draws one. */
  runMs: readonly number[];
  /** Most runs at the same time. */
  concurrency: number;
  /** New environments that can be made at once, and the time after which as many more can. */
  growth: { environments: number; everyMs: number };
  throttled: Throttled;
  /** Pauses before an event that failed is tried again; after the last one it is parked. */
  retryPausesMs: readonly number[];
  /** Age at which an event that waits is parked. */
  maximumAgeMs: number;
  table: Table;
  /** Longest pauses before a run writes again, after the table refused it; each draws a part. */
  writePausesMs: readonly number[];
}

/** What becomes of an event that finds no free run. */
export interface Throttled {
  /** Its first pause, which doubles each time, and the longest one. */
  firstMs: number;
  mostMs: number;
  /** The part of each pause that is left to chance, 0 to 1. */
  jitter: number;
  /** Whether it counts as a failure instead, and pauses as one. */
  isFailure: boolean;
}

/** What the table takes: a row is a unit. */
export interface Table {
  unitsPerSecond: number;
  /** Time after which it takes twice as much, and the most that it ever takes. */
  doublesEveryMs: number;
  mostPerSecond: number;
}

/** Times are from the first arrival, in ms. */
export interface Outcome {
  rows: number;
  parked: number;
  /** Most events that had neither a row nor were parked. */
  mostWaiting: number;
  /** Longest time from an event to its row. */
  latestMs: number;
  lastRowMs: number;
  /** Starts that found no free run, and writes that the table refused. */
  throttles: number;
  refusals: number;
  /** What there was at the end of each sample's time. */
  samples: { ms: number; waiting: number; parked: number }[];
}

/** Events that have gone the same way so far. */
interface Group {
  arrivedStep: number;
  count: number;
  throttles: number;
  failures: number;
  /** Writes that the table refused in this run. */
  refused: number;
}

/** What there is at a step. */
interface State {
  model: Model;
  random: () => number;
  step: number;
  /** Events to start, and runs that write, by step. */
  toStart: (Group[] | undefined)[];
  toWrite: (Group[] | undefined)[];
  waiting: number;
  running: number;
  environments: number;
  /** Environments that can still be made, and units that the table has left. */
  newEnvironments: number;
  units: number;
  outcome: Outcome;
}

/** Goes on until each event has its row or is parked. The same seed gives the same outcome. */
export function simulate(model: Model, { seed = 1, sampleMs = 1000 } = {}): Outcome {
  const state = begin(model, seed);
  const { outcome } = state;
  for (let i = 0; i < model.arrivals.length || state.waiting > 0; i++) {
    state.step = i;
    refill(state);
    arrive(state, model.arrivals[i] ?? 0);
    for (const group of take(state.toWrite, i)) write(state, group);
    for (const group of take(state.toStart, i)) start(state, group);
    outcome.mostWaiting = Math.max(outcome.mostWaiting, state.waiting);
    const ms = i * model.stepMs;
    if (ms >= outcome.samples.length * sampleMs) {
      outcome.samples.push({ ms, waiting: state.waiting, parked: outcome.parked });
    }
  }
  return outcome;
}

function begin(model: Model, seed: number): State {
  return {
    model,
    random: randomOf(seed),
    step: 0,
    toStart: [],
    toWrite: [],
    waiting: 0,
    running: 0,
    environments: 0,
    newEnvironments: model.growth.environments,
    units: 0,
    outcome: {
      rows: 0,
      parked: 0,
      mostWaiting: 0,
      latestMs: 0,
      lastRowMs: 0,
      throttles: 0,
      refusals: 0,
      samples: [],
    },
  };
}

/** Environments add up to the first ones again, and units to a second's: the rest is gone. */
function refill(state: State): void {
  const { model: { stepMs, growth, table }, step } = state;
  const made = growth.environments * stepMs / growth.everyMs;
  state.newEnvironments = Math.min(growth.environments, state.newEnvironments + made);
  const doublings = Math.floor(step * stepMs / table.doublesEveryMs);
  const units = Math.min(table.mostPerSecond, table.unitsPerSecond * 2 ** doublings);
  state.units = Math.min(units, state.units + units * stepMs / 1000);
}

function arrive(state: State, count: number): void {
  if (count === 0) return;
  state.waiting += count;
  const group = { arrivedStep: state.step, count, throttles: 0, failures: 0, refused: 0 };
  (state.toStart[state.step] ??= []).push(group);
}

/** Starts as many of the events as there are free runs; the others are throttled. */
function start(state: State, group: Group): void {
  const { model, random } = state;
  const idle = state.environments - state.running;
  const made = Math.floor(state.newEnvironments);
  const free = Math.min(model.concurrency - state.running, idle + made);
  const [started, others] = split(group, free);
  if (started !== undefined) {
    const made = Math.max(0, started.count - idle);
    state.newEnvironments -= made;
    state.environments += made;
    state.running += started.count;
    const runMs = model.runMs[Math.floor(random() * model.runMs.length)];
    put(state, state.toWrite, started, runMs);
  }
  if (others === undefined) return;
  state.outcome.throttles += others.count;
  if (model.throttled.isFailure) return fail(state, others);
  const { firstMs, mostMs, jitter } = model.throttled;
  const longestMs = Math.min(mostMs, firstMs * 2 ** others.throttles++);
  postpone(state, others, longestMs * (1 - jitter * random()));
}

/** Writes as many rows as the table takes; the other runs write again later, or fail. */
function write(state: State, group: Group): void {
  const { model: { stepMs, writePausesMs }, outcome, step } = state;
  const [written, refused] = split(group, Math.floor(state.units));
  if (written !== undefined) {
    state.units -= written.count;
    state.running -= written.count;
    state.waiting -= written.count;
    outcome.rows += written.count;
    outcome.lastRowMs = step * stepMs;
    outcome.latestMs = Math.max(outcome.latestMs, (step - written.arrivedStep) * stepMs);
  }
  if (refused === undefined) return;
  outcome.refusals += refused.count;
  const pauseMs = writePausesMs[refused.refused++];
  if (pauseMs !== undefined) return put(state, state.toWrite, refused, state.random() * pauseMs);
  refused.refused = 0;
  state.running -= refused.count;
  fail(state, refused);
}

function fail(state: State, group: Group): void {
  const pauseMs = state.model.retryPausesMs[group.failures++];
  if (pauseMs === undefined) return park(state, group);
  postpone(state, group, pauseMs);
}

/** Parks the events instead if they would be too old then. */
function postpone(state: State, group: Group, pauseMs: number): void {
  const { model: { stepMs, maximumAgeMs }, step } = state;
  const ageMs = (step - group.arrivedStep) * stepMs + pauseMs;
  if (ageMs > maximumAgeMs) return park(state, group);
  put(state, state.toStart, group, pauseMs);
}

function park(state: State, { count }: Group): void {
  state.waiting -= count;
  state.outcome.parked += count;
}

/** The first `most` events of a group, and the rest. */
function split(group: Group, most: number): [Group | undefined, Group | undefined] {
  if (most <= 0) return [undefined, group];
  if (most >= group.count) return [group, undefined];
  const rest = { ...group, count: group.count - most };
  group.count = most;
  return [group, rest];
}

function put(state: State, due: (Group[] | undefined)[], group: Group, pauseMs: number): void {
  const steps = Math.max(1, Math.ceil(pauseMs / state.model.stepMs));
  (due[state.step + steps] ??= []).push(group);
}

function take(due: (Group[] | undefined)[], step: number): Group[] {
  const groups = due[step] ?? [];
  due[step] = undefined;
  return groups;
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
