/**
 * Whatever the order of events, tasks and kills, a version has exactly one row: its event's, if that
 * was ever handled. A removal has one too, by one call, and the rows tell whether the key is deleted.
 * This is a model of S3 and the table, in which runs of the function meet. Each call of a run has its
 * effect at one moment, and time passes only in the model.
 */

import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import fc from "npm:fast-check@4.10.2";
import { handleJob, type Listed, type Task } from "../function/job.ts";
import { BACKFILLED, ON_TIME_MS } from "../function/one_row.ts";
import type { Source } from "../function/read.ts";
import { isDeleted, isRemoval } from "../function/removals.ts";
import { handleEvent, type Outside } from "../handler.ts";
import {
  awsError,
  deleteFrom,
  event,
  type FakeTable,
  putInto,
  queryIn,
  record,
} from "./outside.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

const START_MS = Date.parse("2026-01-02T03:00:00Z");

/** When what was killed is run again. */
const AGAIN_MS = 61_000;

/** How far a clock is off. */
const SKEW_MS = fc.constantFrom(0, 0, -2000, 2000);

/**
 * One upload of the model's only key. No two end in the same millisecond: they would have one key of
 * the table.
 */
const UPLOAD = fc.record({
  /** From the end of the one before to the end of this one. */
  gapMs: fc.constantFrom(1, 2, 300, 999, 1000, 5000, 61_000, 10 * MINUTE_MS, HOUR_MS),
  /** LastModified is when it began. */
  tookMs: fc.constantFrom(0, 0, 700, 5000, 6 * MINUTE_MS, HOUR_MS, 7 * 24 * HOUR_MS),
  /** The same bytes as the one before: the same ETag. */
  alike: fc.boolean(),
  skewMs: SKEW_MS, // of the clock that sets LastModified
});

const around = (ms: number) => [-2000, -20, 0, 1, 5, 20, 2000].map((near) => ms + near);

/** A run of the function. */
const RUN = fc.record({
  /**
   * A task of `backfill` is about what is current when it begins; a job names a version. A removal is
   * the event of the deletion; where none is, an upload's.
   */
  kind: fc.constantFrom("event", "event", "backfill", "job", "removal", "removal"),
  /** The upload from whose end its beginning is counted. */
  of: fc.nat(3),
  afterMs: fc.constantFrom(
    ...[0, 1000, MINUTE_MS],
    ...[5 * MINUTE_MS, 10 * MINUTE_MS, 11 * MINUTE_MS, HOUR_MS].flatMap(around),
    ...[6 * HOUR_MS, 14 * 24 * HOUR_MS],
  ),
  skewMs: SKEW_MS,
  /** How long each call takes to its effect; its answer takes as long. */
  callMs: fc.array(fc.constantFrom(1, 5, 10, 100, 4000), { minLength: 1, maxLength: 3 }),
  /** It is killed at this call, before or after its effect, and run again. */
  cut: fc.option(fc.record({ call: fc.nat(5), after: fc.boolean() }), { nil: undefined, freq: 4 }),
});

const SCENARIO = fc.record({
  versions: fc.boolean(),
  uploads: fc.array(UPLOAD, { minLength: 1, maxLength: 4 }),
  runs: fc.array(RUN, { minLength: 1, maxLength: 9 }),
  /** After the end of the last upload; with versions by a delete marker, or for good. */
  deleted: fc.option(
    fc.record({
      afterMs: fc.constantFrom(1, 1000, 4 * MINUTE_MS, 11 * MINUTE_MS, HOUR_MS - 1000),
      forGood: fc.boolean(),
    }),
    { nil: undefined, freq: 3 },
  ),
})
  // Without versions nothing tells the same bytes apart, as FAULTS.md says.
  .filter(({ versions, uploads }) => versions || !uploads.some(({ alike }) => alike));

type Value<T> = T extends fc.Arbitrary<infer V> ? V : never;
type ModelRun = Value<typeof RUN>;
type Scenario = Value<typeof SCENARIO>;

Deno.test("F97 F98 one version has one row, its event's if that came, in any order", async () => {
  const property = fc.asyncProperty(SCENARIO, async (scenario) => {
    assert.deepEqual(await play(scenario), []);
  });
  await fc.assert(property, { numRuns: 3000, seed: 1 });
});

interface Stored {
  index: number;
  endMs: number;
  modified: Date;
  etag: string;
  versionId?: string;
}

interface Run extends ModelRun {
  stored: Stored;
  calls: string[];
  /** When its last call of a name had its effect. */
  times: Record<string, number>;
  listed?: Stored;
  done: boolean;
}

interface World {
  scenario: Scenario;
  stored: Stored[];
  table: FakeTable;
  nowMs: number;
  deletedMs: number;
  timers: { atMs: number; go: () => void }[];
}

/** Plays a scenario; returns each breach of the rule as a sentence. */
async function play(scenario: Scenario): Promise<string[]> {
  const stored = store(scenario);
  const { deleted } = scenario;
  const deletedMs = deleted ? stored.at(-1)!.endMs + deleted.afterMs : Infinity;
  const table: FakeTable = new Map();
  const world: World = { scenario, stored, table, nowMs: START_MS, deletedMs, timers: [] };
  const runs = scenario.runs.map((run) => begin(world, run));
  while (world.timers.length > 0) {
    const next = world.timers.reduce((a, b) => b.atMs < a.atMs ? b : a);
    world.timers.splice(world.timers.indexOf(next), 1);
    world.nowMs = Math.max(world.nowMs, next.atMs);
    next.go();
    await new Promise<void>((resolve) => void setImmediate(resolve));
  }
  const breaches = stored.flatMap((upload) => breachesOf(world, upload, runs.flat()));
  return [...breaches, ...falseRowsOf(world, runs.flat())];
}

function store({ versions, uploads }: Scenario): Stored[] {
  let endMs = START_MS;
  let etag = "";
  return uploads.map(({ gapMs, tookMs, alike, skewMs }, index) => {
    endMs += gapMs;
    if (!alike || etag === "") etag = `etag-${index}`;
    const modified = new Date(Math.floor((endMs - tookMs + skewMs) / 1000) * 1000);
    return { index, endMs, modified, etag, versionId: versions ? `v${index}` : undefined };
  });
}

/** Plans a run, and the one after it if it is killed. */
function begin(world: World, { kind, ...others }: ModelRun): Run[] {
  const isRemoved = kind === "removal" && world.deletedMs < Infinity;
  const given = { ...others, kind: kind === "removal" && !isRemoved ? "event" : kind };
  const stored = world.stored[given.of % world.stored.length];
  const first: Run = { ...given, stored, calls: [], times: {}, done: false };
  const again: Run = { ...first, calls: [], times: {}, cut: undefined };
  const atMs = (isRemoved ? world.deletedMs : stored.endMs) + given.afterMs;
  const start = async (run: Run) => {
    run.listed = first.listed ??= currentOf(world);
    if (run.kind === "event") await handleEvent(eventOf(run), outsideOf(world, run));
    else if (isRemoved) await handleEvent(removalOf(world, run), outsideOf(world, run));
    else if (run.kind === "job" || run.listed !== undefined) {
      const invocation = { invocationSchemaVersion: "2.0", invocationId: "i", job: { id: "j" } };
      const { results: [{ resultCode }] } = await handleJob(
        { ...invocation, tasks: [taskOf(run)] },
        outsideOf(world, run),
      );
      if (resultCode !== "Succeeded") throw new Error("the model has no faults but kills");
    }
    run.done = true;
  };
  world.timers.push({ atMs, go: () => void start(first) });
  if (given.cut === undefined) return [first];
  world.timers.push({ atMs: atMs + AGAIN_MS, go: () => first.done || void start(again) });
  return [first, again];
}

function currentOf({ nowMs, deletedMs, stored }: World): Stored | undefined {
  return nowMs >= deletedMs ? undefined : stored.findLast(({ endMs }) => endMs <= nowMs);
}

function eventOf({ stored: { etag, versionId, endMs, index } }: Run) {
  const object = { size: 1, eTag: etag, versionId, sequencer: `0${index}` };
  return event(record(object, { eventTime: new Date(endMs).toISOString() }));
}

/** With versions a marker's event, or the deletion of each version by its id. */
function removalOf({ deletedMs, scenario: { deleted, versions } }: World, { stored }: Run) {
  const isMarker = versions && !deleted!.forGood;
  const eventName = `ObjectRemoved:Delete${isMarker ? "MarkerCreated" : ""}`;
  const object = { versionId: isMarker ? "marker" : stored.versionId, sequencer: "1" };
  return event(record(object, { eventName, eventTime: new Date(deletedMs).toISOString() }));
}

function taskOf({ kind, stored, listed }: Run): Task {
  const task = { taskId: "t", s3Key: "key", s3Bucket: "uploads" };
  if (kind === "job") return { ...task, s3VersionId: stored.versionId };
  const { modified, etag } = listed!;
  const facts: Listed = { lastModified: modified.toISOString(), etag: `"${etag}"`, size: 1 };
  return { ...task, s3VersionId: null, listed: facts };
}

function outsideOf(world: World, run: Run): Outside {
  const sleep = (ms: number) =>
    new Promise<void>((go) => void world.timers.push({ atMs: world.nowMs + ms, go }));
  const call = async <T>(name: string, effect: () => T): Promise<T> => {
    const { callMs, calls, cut } = run;
    const isCut = cut?.call === calls.length;
    const ms = callMs[calls.length % callMs.length];
    calls.push(name);
    await sleep(ms);
    if (isCut && !cut!.after) await new Promise(() => {});
    run.times[name] = world.nowMs;
    try {
      return effect();
    } finally {
      if (isCut) await new Promise(() => {});
      await sleep(ms);
    }
  };
  return {
    bucket: "uploads",
    recordsRemovals: true,
    onTimeMs: ON_TIME_MS,
    getObject: (source) => call("GET", () => get(world, source)),
    headObject: () => Promise.reject(new Error("no object is empty")),
    putItem: (put) => call("PUT", () => putInto(world.table, put)),
    queryRows: (query) => call("QUERY", () => queryIn(world.table, query)),
    deleteItem: (deletion) => call("DELETE", () => deleteFrom(world.table, deletion)),
    now: () => world.nowMs + run.skewMs,
    remainingMs: () => 28_000,
    log() {},
  };
}

/** S3's answer; the content is the upload's number. */
function get(world: World, { versionId, etag }: Source) {
  const found = versionId === undefined
    ? currentOf(world)
    : world.stored.find((stored) => stored.versionId === versionId);
  const { deleted } = world.scenario;
  if (found === undefined || deleted?.forGood && world.nowMs >= world.deletedMs) {
    throw awsError(versionId === undefined ? "NoSuchKey" : "NoSuchVersion", 404);
  }
  if (versionId === undefined && etag !== undefined && etag !== found.etag) {
    throw awsError("PreconditionFailed", 412);
  }
  const bytes = new TextEncoder().encode(String(found.index));
  return {
    bytes,
    ContentLength: bytes.length,
    ContentType: "text/plain",
    ETag: `"${found.etag}"`,
    LastModified: found.modified,
    VersionId: found.versionId,
  };
}

/** How the rows of removals are broken, and what all rows tell of the key. */
function falseRowsOf({ table, scenario, stored, deletedMs }: World, runs: Run[]): string[] {
  const removals = runs.filter(({ kind, done }) => kind === "removal" && done);
  const breaches = removals.flatMap(({ calls }) =>
    calls.join() === "PUT" ? [] : [`a removal made the calls ${calls.join()}`]
  );
  const rows = [...table.values()];
  const isOne = !scenario.versions || !scenario.deleted?.forGood; // a deletion of all versions
  const ids = new Set(removals.map(({ stored }) => isOne ? "" : stored.versionId));
  if (rows.filter(({ event_name }) => isRemoval(event_name)).length < ids.size) {
    breaches.push("a removal has no row");
  }
  const isKnown = (id = "") => isOne ? ids.size > 0 : ids.has(id);
  const left = rows.filter((row) => !isRemoval(row.event_name) && !isKnown(row.version_id));
  // A clock that is ahead may set LastModified after the deletion.
  const isAhead = stored.some(({ modified }) => modified.getTime() >= deletedMs);
  if (!isAhead && rows.length > 0 && isDeleted(rows) !== (left.length === 0)) {
    breaches.push("the rows do not tell whether the key is deleted");
  }
  return breaches;
}

/** How the rule is broken for an upload, but for what FAULTS.md excepts. */
function breachesOf(world: World, upload: Stored, runs: Run[]): string[] {
  const { index, endMs } = upload;
  const eventTime = new Date(endMs).toISOString();
  const rows = [...world.table.values()];
  const ofEvent = rows.filter(({ timestamp }) => timestamp === eventTime);
  const ofBackfill = rows.filter((row) =>
    row.event_name === BACKFILLED && row.content_preview === String(index)
  );
  const all = ofEvent.length + ofBackfill.length;
  const isHandled = runs.some(({ kind, stored, done }) =>
    kind === "event" && stored === upload && done
  );
  const breaches: string[] = [];
  const isExcepted = runs.some(({ kind, cut, times }) =>
    kind !== "event" && kind !== "removal" && cut !== undefined &&
    times.PUT + AGAIN_MS >= world.deletedMs
  );
  if (all > 1 && !isExcepted) breaches.push(`a version has ${all} rows`);
  if (isHandled && ofEvent.length === 0) breaches.push("a version lacks the row of its event");
  const hasTwin = world.stored.some((other) =>
    other !== upload && other.etag === upload.etag &&
    other.modified.getTime() === upload.modified.getTime()
  );
  const isLost = !isHandled && all === 0 && runs.some((run) => foundIt(world, upload, run));
  if (isLost && !hasTwin) breaches.push("a version that a task found has no row");
  return breaches;
}

/** Whether a task that ended must have found this upload there, and old enough. */
function foundIt({ deletedMs, stored, scenario }: World, upload: Stored, run: Run): boolean {
  if (run.kind === "event" || !run.done) return false;
  const readMs = run.times.GET ?? run.times.QUERY;
  if (!(readMs >= upload.modified.getTime() + 2 * ON_TIME_MS + 4000) || readMs >= deletedMs) {
    return false;
  }
  if (run.kind === "job" && scenario.versions) return run.stored === upload;
  const next = stored[upload.index + 1]?.endMs ?? Infinity;
  const isListed = run.kind === "job" || run.listed === upload;
  return isListed && readMs >= upload.endMs && readMs < next;
}
