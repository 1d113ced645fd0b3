/** What all open pages show. The first page starts the one poller, and the last one ends it. */

import { type Clock, readClock } from "../tasks/clock.ts";
import { denoTask } from "../tasks/commands.ts";
import { followNews, type News } from "../tasks/feed.ts";
import { bucketNotifies, countFailures, type QueueCounts } from "../tasks/function.ts";
import type { Upload } from "../handler.ts";
import { type Item, waitForRows } from "../tasks/rows.ts";
import { interrupted, pause } from "../tasks/signals.ts";
import { newestRows, readAlarms, readFunction } from "../tasks/status.ts";
import type { Stack } from "../tasks/target.ts";
import { plural, say, visible } from "../tasks/terminal.ts";
import type { Card, Code, Failure, Message } from "./messages.ts";

/** Rows that a page gets when it opens, and that are kept for the next one. */
const FIRST_ROWS = 50;
const KEPT_ROWS = 500;

/** A page that opens learns of the failures since so long ago. */
const LOOK_BACK_MS = 15 * 60_000;

const POLL_MS = 2000;

/** Function, bucket and alarms change seldom: they are looked at once in so many polls. */
const POLLS_A_STATE = 5;

/** An upload's row is asked for so long; then the log tells of it. */
const ASK_MS = 10_000;

/** Uploads whose rows are asked for at the same time. */
const MOST_ASKED = 32;

interface Shown {
  row: Item;
  ms?: number;
}

export class Board {
  readonly #pages = new Set<(message: Message) => void>();
  readonly #rows = new Map<string, Shown>();
  readonly #failures = new Map<string, Failure>();
  /** When the uploads ended that have no row yet. */
  readonly #uploads = new Map<string, number>();
  #asked = 0;
  #code: Code = { state: "unsaved", text: "" };
  #codeSha256 = "";
  #parts?: Parts;
  #trouble = "";
  #isReady = false;
  #poller?: AbortController;
  #clock?: Promise<Clock>;

  constructor(
    readonly stack: Stack,
    readonly place: string,
    readonly pollMs = POLL_MS,
  ) {}

  /** Tells a page all that is known, then all that comes; returns how to end it. */
  join(tell: (message: Message) => void): () => void {
    const { filter_prefix: prefix, filter_suffix: suffix } = this.stack.outputs;
    const note = prefix + suffix === ""
      ? ""
      : `Keys get the prefix "${prefix}"; those like ${prefix}…${suffix} are recorded.`;
    const followLog = denoTask(this.stack, "logs", "--follow");
    tell({ type: "place", place: this.place, prefix, note, followLog });
    tell({ type: "code", code: this.#code });
    if (this.#parts) tell({ type: "cards", cards: this.#cards(this.#parts) });
    for (const shown of this.#rows.values()) tell({ type: "row", ...shown, isNew: false });
    tell(this.#failuresMessage());
    if (this.#isReady) tell({ type: "ready" });
    if (this.#trouble) tell({ type: "trouble", text: this.#trouble });
    this.#pages.add(tell);
    if (this.#poller === undefined) {
      this.#poller = new AbortController();
      void this.#poll(AbortSignal.any([this.#poller.signal, interrupted]));
    }
    return () => {
      this.#pages.delete(tell);
      if (this.#pages.size > 0) return;
      this.#poller?.abort();
      this.#poller = undefined;
      this.#isReady = false;
    };
  }

  get pages(): number {
    return this.#pages.size;
  }

  /** Looks for the row of an upload that has just ended; its failure comes by the log. */
  async expect(object: Pick<Upload, "key" | "versionId" | "etag">): Promise<void> {
    this.#uploads.set(`${object.key} ${object.versionId}`, performance.now());
    if (this.#asked >= MOST_ASKED) return;
    this.#asked++;
    try {
      const bucket = this.stack.outputs.s3_bucket_name;
      const timestamp = new Date((await this.#readClock())()).toISOString();
      const upload = { ...object, bucket, timestamp, eventName: "ObjectCreated" };
      const [row] = await waitForRows(this.stack, upload, ASK_MS);
      if (row) this.#show(row, true);
    } catch {
      // Ctrl-C, or AWS refuses: the poller says so.
    } finally {
      this.#asked--;
    }
  }

  /** What the loop did; `sha256` is of the code that it made run. */
  setCode(code: Code, sha256 = this.#codeSha256): void {
    this.#code = code;
    this.#codeSha256 = sha256;
    this.#tell({ type: "code", code });
    if (!this.#parts) return;
    if (this.#parts.fn) this.#parts.fn.codeSha256 = sha256; // it is looked at again in some seconds
    this.#tell({ type: "cards", cards: this.#cards(this.#parts) });
  }

  /** The server ends: pages are told, so that they need not find out. */
  end(): void {
    this.#tell({ type: "end" });
    this.#poller?.abort();
  }

  #tell(message: Message): void {
    for (const tell of this.#pages) tell(message);
  }

  /** Until the signal: what is there first, then what is new. After a failure all begins again. */
  async #poll(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const now = await this.#readClock();
        const sinceMs = now() - LOOK_BACK_MS;
        this.#failures.clear();
        await this.#readParts(true);
        const { rows } = await newestRows(this.stack, now, FIRST_ROWS);
        for (const row of rows.reverse()) this.#show(row, false);
        let polls = 0;
        for await (
          const news of followNews(this.stack, { sinceMs, now, signal, pollMs: this.pollMs })
        ) {
          this.#take(news, polls > 0);
          if (polls === 0) this.#setReady();
          await this.#readParts(++polls % POLLS_A_STATE === 0);
          this.#setTrouble("");
        }
      } catch (error) {
        if (signal.aborted) return;
        const { name, message } = error as Error;
        this.#setTrouble(
          `There is no news: AWS does not answer as it should (${name}: ${message}). It is asked ` +
            `again all the time; if this stays, run ${
              denoTask(this.stack, "status")
            } in a terminal.`,
        );
        await pause(this.pollMs, signal).catch(() => {});
      }
    }
  }

  /** AWS's clock, read once; a refusal is not kept. */
  #readClock(): Promise<Clock> {
    this.#clock ??= readClock(this.stack).catch((error) => {
      this.#clock = undefined;
      throw error;
    });
    return this.#clock;
  }

  #setReady(): void {
    this.#isReady = true;
    this.#tell({ type: "ready" });
  }

  #setTrouble(text: string): void {
    if (text === this.#trouble) return;
    if (text !== "") say(visible(text));
    this.#trouble = text;
    this.#tell({ type: "trouble", text });
  }

  #take(news: News[], isNew: boolean): void {
    let changed = false;
    for (const { outcome, key, timestamp, versionId, atMs, error = "", row } of news) {
      const id = `${key} ${timestamp}`;
      if (outcome === "failed") {
        const written = this.#rows.get(id)?.row.processed_at;
        if (Date.parse(String(written)) > atMs) continue; // its line is late: a later try wrote the row
        this.#uploads.delete(`${key} ${versionId}`); // what it takes until a replay is no latency
        const tries = (this.#failures.get(id)?.tries ?? 0) + 1;
        const name = key ?? "(no key)";
        this.#failures.set(id, { id, key: name, versionId, reason: error, tries, atMs });
        changed = true;
      } else {
        changed = this.#failures.delete(id) || changed;
        if (row) this.#show(row, isNew);
      }
    }
    if (changed) this.#tell(this.#failuresMessage());
  }

  #failuresMessage(): Message {
    const failures = [...this.#failures.values()];
    const { visible: queued, inFlight } = this.#parts?.queue ?? { visible: 0, inFlight: 0 };
    const isOld = failures.length === 0 && queued + inFlight > 0;
    const note = isOld ? "The queue holds events that failed before: replay runs them again." : "";
    return { type: "failures", failures, note };
  }

  /** Shows a row, unless this very writing of it is shown already, and no upload waits for it. */
  #show(row: Item, isNew: boolean): void {
    const id = `${row.file_key} ${row.timestamp}`;
    const uploadId = `${row.file_key} ${row.version_id}`;
    const uploadedMs = this.#uploads.get(uploadId);
    const isKnown = this.#rows.get(id)?.row.processed_at === row.processed_at;
    if (isKnown && uploadedMs === undefined) return;
    this.#uploads.delete(uploadId);
    const ms = uploadedMs === undefined
      ? undefined
      : Math.max(1, Math.round(performance.now() - uploadedMs));
    this.#rows.delete(id); // the newest is last
    this.#rows.set(id, { row, ms });
    if (this.#rows.size > KEPT_ROWS) this.#rows.delete(this.#rows.keys().next().value!);
    this.#tell({ type: "row", row, ms, isNew });
    if (this.#failures.delete(id)) this.#tell(this.#failuresMessage());
  }

  /** The queue's count each time; the rest only if all is asked for. */
  async #readParts(all: boolean): Promise<void> {
    const queue = await countFailures(this.stack);
    const before = this.#parts;
    this.#parts = { ...(all || !before ? await readSlowParts(this.stack) : before), queue };
    if (JSON.stringify(this.#parts) === JSON.stringify(before)) return;
    this.#tell({ type: "cards", cards: this.#cards(this.#parts) });
    this.#tell(this.#failuresMessage());
  }

  #cards({ notifies, fn, alarms, queue }: Parts): Card[] {
    const isOurs = fn?.codeSha256 === this.#codeSha256;
    return [{
      name: "Bucket",
      text: this.stack.outputs.s3_bucket_name,
      note: notifies ? "calls the function" : "does not call the function: deploy again",
      isBad: !notifies,
    }, {
      name: "Function",
      text: `${fn?.runtime}, ${fn?.state}`,
      note: this.#codeSha256 === ""
        ? ""
        : `code: ${isOurs ? "this folder's" : "other than this folder's"}`,
      isBad: !["Active", "Inactive", "Pending"].includes(String(fn?.state)),
    }, {
      name: "Failure queue",
      text: plural(queue.visible, "event"),
      note: queue.inFlight > 0 ? `and ${queue.inFlight} in flight` : "",
      isBad: queue.visible + queue.inFlight > 0,
    }, {
      name: "Alarms",
      text: alarms.length === 0 ? "none in ALARM" : `${alarms.length} in ALARM`,
      note: alarms.map(({ name }) => name).join(", "),
      isBad: alarms.length > 0,
    }];
  }
}

async function readSlowParts(stack: Stack) {
  const [notifies, fn, alarms] = await Promise.all([
    bucketNotifies(stack),
    readFunction(stack, ""),
    readAlarms(stack),
  ]);
  return { notifies, fn, alarms };
}

/** What is deployed. */
type Parts = Awaited<ReturnType<typeof readSlowParts>> & { queue: QueueCounts };
