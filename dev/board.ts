/** What all open pages show: the board follows what happens in AWS, while pages ask it for what is new. */

import { isDeleted } from "../function/removals.ts";
import { letsThrough, type Upload } from "../handler.ts";
import { now } from "../tasks/clients.ts";
import { denoTask } from "../tasks/commands.ts";
import { followNews, newestRows, type News } from "../tasks/logs.ts";
import { describeKeys } from "../tasks/filters.ts";
import { bucketNotifies, countFailures } from "../tasks/invoke.ts";
import { interrupted, pause, TIME } from "../tasks/signals.ts";
import { readAlarms, readFunction } from "../tasks/status.ts";
import { type Item, removalOf, rowsOfVersion } from "../tasks/table.ts";
import type { Stack } from "../tasks/target.ts";
import { plural, say, visible } from "../tasks/terminal.ts";
import { waitForRows } from "../tasks/verify.ts";
import type { Card, Code, Failure, Message, Outcome, Update } from "./messages.ts";

/** The newest rows, which a page gets when it opens. */
const FIRST_ROWS = 50;

/** How many messages of a type are kept for pages that lack them; of other types, the last one. */
const KEPT = { row: 500, key: 500, outcome: 10_000 };

/** How far back a page that opens learns of failures. */
const LOOK_BACK_MS = 15 * 60_000;

const POLL_MS = 2000;

/** How soon it sees a page that is opened. */
const WAKE_MS = 100;

/** A hidden tab asks no more than once a minute: https://developer.chrome.com/blog/timer-throttling-in-chrome-88 */
const IDLE_MS = 90_000;

/** How long the board asks for an upload's row; after that the log tells of it, if it comes. */
const LATE_MS = 30_000;

/** How many failures a page lists: the newest. */
const SHOWN_FAILURES = 100;

export class Board {
  /** By type, then by what it is about: the last message, the newest last. */
  readonly #messages = new Map<Message["type"], Map<string, { at: number; message: Message }>>();
  #last = 0;
  /** Events that failed and have no row, by its keys. */
  readonly #failures = new Map<string, Failure>();
  /** Uploads without a row, by their objects; once one has failed, it does not matter when it ended. */
  readonly #uploads = new Map<string, { id: string; endedMs?: number }>();
  #codeSha256 = "";
  /** When a page asked last. */
  #askedMs = -Infinity;
  readonly #ending = new AbortController();
  readonly #signal = AbortSignal.any([this.#ending.signal, interrupted]);

  constructor(
    readonly stack: Stack,
    place: string,
    readonly times = { pollMs: POLL_MS, idleMs: IDLE_MS, lateMs: LATE_MS },
  ) {
    const { filter_prefixes: [prefix = ""], filter_suffixes: [suffix = ""] } = this.stack.outputs;
    const recorded = describeKeys(this.stack.outputs);
    const note = prefix + suffix === ""
      ? ""
      : `Keys get the prefix "${prefix}"; the bucket records ${recorded}.`;
    this.#tell({ type: "place", place, prefix, note });
    void this.#poll();
  }

  /** What a page that has the messages up to a number lacks: of each thing the last one. */
  since(last: number): Update {
    this.#askedMs = performance.now();
    const messages = [...this.#messages.values()].flatMap((kind) => [...kind.values()])
      .filter(({ at }) => at > last);
    return {
      messages: messages.map(({ message }) => message),
      last: this.#last,
      nowMs: now(),
    };
  }

  /** Waits for the row of an object that was just uploaded; `id` is the page's own of the upload. */
  expect(id: string, object: Pick<Upload, "key" | "versionId" | "etag">): void {
    if (!letsThrough(this.stack.outputs, object.key)) {
      const note = `no row: the bucket records only ${describeKeys(this.stack.outputs)}`;
      return this.#tellOutcome({ id, result: "failed", note });
    }
    this.#tellOutcome({ id, result: "", note: "uploaded, waiting for its row …" });
    this.#uploads.set(objectOf(object), { id, endedMs: performance.now() });
    void this.#waitForRow(object);
  }

  /** What the loop did; `sha256` is of the code that it made run. */
  setCode(code: Code, sha256 = ""): void {
    this.#codeSha256 = sha256;
    this.#tell({ type: "code", code });
  }

  /** Ends the questions to AWS. */
  [Symbol.dispose](): void {
    this.#ending.abort();
  }

  /** A message takes the place of an earlier one about the same; false if it says the same. */
  #tell(message: Message, about = ""): boolean {
    const kind = this.#messages.get(message.type) ?? new Map();
    this.#messages.set(message.type, kind);
    if (JSON.stringify(kind.get(about)?.message) === JSON.stringify(message)) return false;
    kind.delete(about);
    kind.set(about, { at: ++this.#last, message });
    const most = KEPT[message.type as keyof typeof KEPT];
    if (kind.size > most) kind.delete(kind.keys().next().value!);
    return true;
  }

  #tellOutcome(outcome: Outcome): void {
    this.#tell({ type: "outcome", outcome }, outcome.id);
  }

  get #isWatched(): boolean {
    return performance.now() - this.#askedMs < this.times.idleMs;
  }

  /** Follows the news while a page asks; after an error of AWS it begins again. */
  async #poll(): Promise<void> {
    while (!this.#signal.aborted) {
      try {
        if (this.#isWatched) await this.#follow();
        else await pause(WAKE_MS, this.#signal);
      } catch (error) {
        if (this.#signal.aborted) return;
        const { name, message } = error as Error;
        this.#setTrouble(
          `There is no news: AWS does not answer as it should (${name}: ${message}). It is asked ` +
            `again all the time; if this stays, run ${denoTask(this.stack, "status")}.`,
        );
        await pause(this.times.pollMs, this.#signal).catch(() => {});
      }
    }
  }

  /** What is there first, then what is new. */
  async #follow(): Promise<void> {
    const sinceMs = now() - LOOK_BACK_MS;
    await this.#look();
    const { rows } = await newestRows(this.stack, FIRST_ROWS);
    for (const row of rows.reverse()) this.#show(row);
    this.#failures.clear();
    const { pollMs } = this.times;
    for await (
      const news of followNews(this.stack, { sinceMs, signal: this.#signal, pollMs })
    ) {
      news.forEach((one) => this.#take(one));
      this.#tellFailures(await this.#look());
      this.#setTrouble("");
      if (!this.#isWatched) return;
    }
  }

  async #waitForRow(object: Parameters<Board["expect"]>[1]): Promise<void> {
    try {
      const timestamp = new Date(now()).toISOString();
      const bucket = this.stack.outputs.s3_bucket_name;
      const upload = { ...object, bucket, timestamp, eventName: "ObjectCreated" };
      const look = () => rowsOfVersion(this.stack, upload);
      const time = { ...TIME, pause: (ms: number) => pause(ms, this.#signal) };
      const [row] = await waitForRows(look, this.times.lateMs, time);
      if (row) return this.#show(row);
    } catch {
      return; // It ends; or AWS refuses, and the poller says so.
    }
    const upload = this.#uploads.get(objectOf(object));
    if (upload?.endedMs === undefined) return;
    const why = denoTask(this.stack, "why", "KEY");
    this.#tellOutcome({ id: upload.id, result: "", note: `no row yet: ${why} tells more` });
  }

  #setTrouble(text: string): void {
    if (this.#tell({ type: "trouble", text }) && text !== "") say(visible(text));
  }

  #take({ outcome, key = "(no key)", timestamp, versionId, atMs, error = "", row }: News): void {
    const id = `${key} ${timestamp}`;
    if (outcome !== "failed") {
      this.#failures.delete(id);
      if (row) this.#show(row);
      return;
    }
    const tries = (this.#failures.get(id)?.tries ?? 0) + 1;
    this.#failures.delete(id); // the newest is last
    this.#failures.set(id, { key, reason: error, tries, atMs });
    const upload = this.#uploads.get(objectOf({ key, versionId }));
    if (!upload) return;
    upload.endedMs = undefined; // the time until a replay is no latency
    this.#tellOutcome({ id: upload.id, result: "failed", note: "failed: see below" });
  }

  /** A failure ends with its row, by whichever way that is found: a line of the log may be late. */
  #tellFailures(queued: number): void {
    for (const [id, { atMs }] of this.#failures) {
      const shown = this.#messages.get("row")?.get(id)?.message as { row: Item } | undefined;
      if (Date.parse(String(shown?.row.processed_at)) > atMs) this.#failures.delete(id);
    }
    const failures = [...this.#failures.values()].slice(-SHOWN_FAILURES);
    // Some may have failed earlier, or Lambda was throttled, which leaves no line in its log.
    const note = queued === 0 ? "" : `The failure queue holds ${plural(queued, "event")}. ` +
      `To list them, run ${denoTask(this.stack, "replay", "--dry-run")}.`;
    this.#tell({ type: "failures", failures, note });
  }

  /** Shows a row, and ends the upload that waits for it. */
  #show(row: Item): void {
    const id = `${row.file_key} ${row.timestamp}`;
    this.#tell({ type: "row", row, removal: removalOf(row) }, id);
    this.#tellDeleted(String(row.file_key));
    const object = objectOf({ key: String(row.file_key), versionId: row.version_id });
    const upload = this.#uploads.get(object);
    if (!upload) return;
    this.#uploads.delete(object);
    const { endedMs } = upload;
    const ms = endedMs && Math.max(1, Math.round(performance.now() - endedMs));
    const note = ms ? `row after ${ms} ms` : "row, after it had failed";
    this.#tellOutcome({ id: upload.id, result: "done", note, ms });
  }

  #tellDeleted(key: string): void {
    const rows = [...this.#messages.get("row")!.values()]
      .map(({ message }) => (message as { row: Item }).row)
      .filter(({ file_key }) => file_key === key);
    if (!rows.some(removalOf)) return;
    this.#tell({ type: "key", key, isDeleted: isDeleted(rows) }, key);
  }

  /** Looks at what is deployed; returns how many events the failure queue holds. */
  async #look(): Promise<number> {
    const [notifies, fn, alarms, queue] = await Promise.all([
      bucketNotifies(this.stack),
      readFunction(this.stack),
      readAlarms(this.stack),
      countFailures(this.stack),
    ]);
    const isOurs = fn.codeSha256 === this.#codeSha256;
    const queued = queue.visible + queue.inFlight;
    const cards: Card[] = [{
      name: "Bucket",
      text: this.stack.outputs.s3_bucket_name,
      note: notifies
        ? "calls the function"
        : `does not call the function: run ${denoTask(this.stack, "status")}`,
      isBad: !notifies,
    }, {
      name: "Function",
      text: `${fn.runtime}, ${fn.state}`,
      note: this.#codeSha256 === ""
        ? ""
        : `code: ${isOurs ? "this folder's" : "other than this folder's"}`,
      isBad: !["Active", "Inactive", "Pending"].includes(fn.state),
    }, {
      name: "Failure queue",
      text: plural(queue.visible, "event"),
      note: queue.inFlight > 0 ? `and ${queue.inFlight} in flight` : "",
      isBad: queued > 0,
    }, {
      name: "Alarms",
      text: alarms.length === 0 ? "none in ALARM" : `${alarms.length} in ALARM`,
      note: alarms.map(({ name }) => name).join(", "),
      isBad: alarms.length > 0,
    }];
    this.#tell({ type: "cards", cards });
    return queued;
  }
}

/** A version of an object. */
function objectOf({ key, versionId }: { key: string; versionId?: string | number }): string {
  return `${key} ${versionId}`;
}
