/**
 * One version, one row: a model of S3 and the table, in which runs of the function meet. Each call of
 * a run has its effect at one moment, and time passes only in the model.
 */

import { setImmediate } from "node:timers";
import { handleJob, type Listed, type Task } from "../function/job.ts";
import { BACKFILLED, ON_TIME_MS } from "../function/one_row.ts";
import type { Source } from "../function/read.ts";
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

const START_MS = Date.parse("2026-01-02T03:00:00Z");

/** When what was killed is run again. */
const AGAIN_MS = 61_000;

/** One upload of the model's only key. */
export interface ModelUpload {
  /** From the end of the one before to the end of this one. */
  gapMs: number;
  /** LastModified is when it began. */
  tookMs: number;
  /** The same bytes as the one before: the same ETag. */
  alike: boolean;
  /** How far the clock that sets LastModified is off. */
  skewMs: number;
}

/** A run of the function. */
export interface ModelRun {
  /** A task of `backfill` is about what is current when it begins; a job names a version. */
  kind: "event" | "backfill" | "job";
  /** The upload from whose end its beginning is counted. */
  of: number;
  afterMs: number;
  /** How far its clock is off. */
  skewMs: number;
  /** How long each call takes to its effect; its answer takes as long. */
  callMs: number[];
  /** It is killed at this call, before or after its effect, and run again. */
  cut?: { call: number; after: boolean };
}

export interface Scenario {
  versions: boolean;
  uploads: ModelUpload[];
  runs: ModelRun[];
  /** After the end of the last upload; with versions by a delete marker, or for good. */
  deleted?: { afterMs: number; forGood: boolean };
}

/** What the rule must not need, to see the property red without it. */
export type Without = "lateQuery" | "secondLook";

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
  /** Whether it has put a row. */
  hasPut: boolean;
  done: boolean;
}

interface World {
  scenario: Scenario;
  stored: Stored[];
  table: FakeTable;
  nowMs: number;
  goneMs: number;
  timers: { atMs: number; go: () => void }[];
  without?: Without;
}

/** Plays a scenario; returns each breach of the rule as a sentence, and the rows. */
export async function play(scenario: Scenario, without?: Without) {
  const stored = store(scenario);
  const { deleted } = scenario;
  const goneMs = deleted ? stored.at(-1)!.endMs + deleted.afterMs : Infinity;
  const table: FakeTable = new Map();
  const world: World = { scenario, stored, table, nowMs: START_MS, goneMs, timers: [], without };
  const runs = scenario.runs.map((run) => begin(world, run));
  while (world.timers.length > 0) {
    const next = world.timers.reduce((a, b) => b.atMs < a.atMs ? b : a);
    world.timers.splice(world.timers.indexOf(next), 1);
    world.nowMs = Math.max(world.nowMs, next.atMs);
    next.go();
    await new Promise<void>((resolve) => void setImmediate(resolve));
  }
  const breaches = stored.flatMap((upload) => breachesOf(world, upload, runs.flat()));
  return { breaches, rows: [...table.values()], calls: runs.flat().map(({ calls }) => calls) };
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
function begin(world: World, given: ModelRun): Run[] {
  const stored = world.stored[given.of % world.stored.length];
  const first: Run = { ...given, stored, calls: [], times: {}, hasPut: false, done: false };
  const again: Run = { ...first, calls: [], times: {}, cut: undefined };
  const atMs = stored.endMs + given.afterMs;
  const start = async (run: Run) => {
    run.listed = first.listed ??= currentOf(world);
    if (run.kind === "event") await handleEvent(eventOf(run), outsideOf(world, run));
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

function currentOf({ nowMs, goneMs, stored }: World): Stored | undefined {
  return nowMs >= goneMs ? undefined : stored.findLast(({ endMs }) => endMs <= nowMs);
}

function eventOf({ stored: { etag, versionId, endMs, index } }: Run) {
  const object = { size: 1, eTag: etag, versionId, sequencer: `0${index}` };
  return event(record(object, { eventTime: new Date(endMs).toISOString() }));
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
  const isBlind = () =>
    run.kind === "event"
      ? world.without === "lateQuery"
      : world.without === "secondLook" && run.hasPut;
  return {
    bucket: "uploads",
    onTimeMs: ON_TIME_MS,
    getObject: (source) => call("GET", () => get(world, source)),
    headObject: () => Promise.reject(new Error("no object is empty")),
    putItem: (put) =>
      call("PUT", () => {
        putInto(world.table, put);
        run.hasPut = true;
      }),
    queryRows: (query) => call("QUERY", () => isBlind() ? {} : queryIn(world.table, query)),
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
  if (found === undefined || deleted?.forGood && world.nowMs >= world.goneMs) {
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

/** How the rule is broken for an upload. What FAULTS.md excepts is told as "known: ...". */
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
  if (all > 1) {
    const isKnown = runs.some(({ kind, cut, times }) =>
      kind !== "event" && cut !== undefined && times.PUT + AGAIN_MS >= world.goneMs
    );
    breaches.push(`${isKnown ? "known: " : ""}a version has ${all} rows`);
  }
  if (isHandled && ofEvent.length === 0) breaches.push("a version lacks the row of its event");
  if (!isHandled && all === 0 && runs.some((run) => foundIt(world, upload, run))) {
    const isKnown = world.stored.some((other) =>
      other !== upload && other.etag === upload.etag &&
      other.modified.getTime() === upload.modified.getTime()
    );
    breaches.push(`${isKnown ? "known: " : ""}a version that a task found has no row`);
  }
  return breaches;
}

/** Whether a task that ended must have found this upload there, and old enough. */
function foundIt({ goneMs, stored, scenario }: World, upload: Stored, run: Run): boolean {
  if (run.kind === "event" || !run.done) return false;
  const readMs = run.times.GET ?? run.times.QUERY;
  if (!(readMs >= upload.modified.getTime() + 2 * ON_TIME_MS + 4000) || readMs >= goneMs) {
    return false;
  }
  if (run.kind === "job" && scenario.versions) return run.stored === upload;
  const next = stored[upload.index + 1]?.endMs ?? Infinity;
  const isListed = run.kind === "job" || run.listed === upload;
  return isListed && readMs >= upload.endMs && readMs < next;
}
