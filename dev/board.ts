/** What all open pages show. They ask for what is new; AWS is asked while one of them does. */

import { type Clock, readClock } from "../tasks/clock.ts";
import { denoTask } from "../tasks/commands.ts";
import { followNews, newestRows, type News } from "../tasks/feed.ts";
import { bucketNotifies, countFailures, type QueueCounts } from "../tasks/invoke.ts";
import type { Upload } from "../handler.ts";
import { type Item, rowsOfVersion } from "../tasks/table.ts";
import { interrupted, pause } from "../tasks/signals.ts";
import { readAlarms, readFunction } from "../tasks/status.ts";
import type { Stack } from "../tasks/target.ts";
import { plural, say, visible } from "../tasks/terminal.ts";
import type { Card, Code, Failure, Message, Update } from "./messages.ts";

/** Rows that a page gets when it opens. */
const FIRST_ROWS = 50;

/** Messages of a type that are kept for pages that have not got them; of other types the last one. */
const KEPT = { row: 500, upload: 10_000 };

/** A page that opens learns of the failures since so long ago. */
const LOOK_BACK_MS = 15 * 60_000;

const POLL_MS = 2000;

/**
 * A hidden tab may ask no more than once a minute.
 * https://developer.chrome.com/blog/timer-throttling-in-chrome-88
 */
const IDLE_MS = 90_000;

/** Function, bucket and alarms change seldom: they are looked at once in so many polls. */
const POLLS_A_STATE = 5;

/** Rows of uploads that are asked for at the same time. */
const MOST_ASKED = 32;

/** An upload's row is asked for again after a tenth of its age, within these limits. */
const LEAST_WAIT_MS = 20;
const MOST_WAIT_MS = 30_000;

/** Failures that a page lists: the newest. */
const SHOWN_FAILURES = 100;

/** Lambda runs a failing event so often, then it is in the failure queue. */
const TRIES = 3;

/** An upload that has no row yet. */
interface Open {
  object: Pick<Upload, "key" | "versionId" | "etag">;
  endedMs: number;
  /** When its row is asked for next. */
  askMs: number;
  /** The function failed: the time until a replay is no latency. */
  hasFailed?: boolean;
}

export class Board {
  /** By type, then by what it is about: the last message, the newest last. */
  readonly #messages = new Map<Message["type"], Map<string, { at: number; message: Message }>>();
  #last = 0;
  readonly #failures = new Map<string, Failure>();
  readonly #uploads = new Map<string, Open>();
  #codeSha256 = "";
  #parts?: Parts;
  #clock?: Promise<Clock>;
  #now?: Clock;
  /** When a page asked last. */
  #askedMs = -Infinity;
  #polling?: Promise<void>;
  #asking?: Promise<void>;
  readonly #ending = new AbortController();
  readonly #signal = AbortSignal.any([this.#ending.signal, interrupted]);

  constructor(
    readonly stack: Stack,
    readonly place: string,
    readonly times = { pollMs: POLL_MS, idleMs: IDLE_MS },
  ) {
    const { filter_prefix: prefix, filter_suffix: suffix } = this.stack.outputs;
    const note = prefix + suffix === ""
      ? ""
      : `Keys get the prefix "${prefix}"; those like ${prefix}…${suffix} are recorded.`;
    this.#tell({ type: "place", place, prefix, note });
    this.#tellFailures();
  }

  /** What a page that has the messages up to a number lacks: of each thing the last one. */
  since(last: number): Update {
    this.#keepAsking();
    const messages = [...this.#messages.values()].flatMap((kind) => [...kind.values()])
      .filter(({ at }) => at > last);
    return {
      messages: messages.map(({ message }) => message),
      last: this.#last,
      nowMs: this.#now?.(),
    };
  }

  /** Asks for the row of an upload that has just ended, until it is there. */
  expect(object: Open["object"]): void {
    const endedMs = performance.now();
    this.#uploads.set(idOf(object), { object, endedMs, askMs: endedMs });
    this.#keepAsking();
  }

  /** What the loop did; `sha256` is of the code that it made run. */
  setCode(code: Code, sha256 = this.#codeSha256): void {
    this.#codeSha256 = sha256;
    this.#tell({ type: "code", code });
    if (!this.#parts) return;
    if (this.#parts.fn) this.#parts.fn.codeSha256 = sha256; // it is looked at again in some seconds
    this.#tellCards(this.#parts);
  }

  /** Ends the questions to AWS. */
  end(): void {
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

  get #isWatched(): boolean {
    return !this.#signal.aborted && performance.now() - this.#askedMs < this.times.idleMs;
  }

  /** A page is there: what it shows is asked for. */
  #keepAsking(): void {
    this.#askedMs = performance.now();
    this.#polling ??= this.#poll().finally(() => this.#polling = undefined);
    this.#asking ??= this.#askForRows().finally(() => this.#asking = undefined);
  }

  /** What is there first, then what is new. After a failure all begins again. */
  async #poll(): Promise<void> {
    while (this.#isWatched) {
      try {
        const now = await this.#readClock();
        const sinceMs = now() - LOOK_BACK_MS;
        await this.#readParts(true);
        const { rows } = await newestRows(this.stack, now, FIRST_ROWS);
        for (const row of rows.reverse()) this.#show(row);
        await this.#follow(sinceMs, now);
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

  async #follow(sinceMs: number, now: Clock): Promise<void> {
    const options = { sinceMs, now, signal: this.#signal, pollMs: this.times.pollMs };
    let polls = 0;
    for await (const news of followNews(this.stack, options)) {
      if (polls === 0) this.#failures.clear();
      this.#take(news);
      this.#tell({ type: "ready" });
      await this.#readParts(++polls % POLLS_A_STATE === 0);
      this.#tellFailures();
      this.#setTrouble("");
      if (!this.#isWatched) return;
    }
  }

  /** Asks for the rows of uploads that have none, however many they are. */
  async #askForRows(): Promise<void> {
    while (this.#isWatched && this.#uploads.size > 0) {
      const nowMs = performance.now();
      const due = [...this.#uploads].filter(([, { askMs }]) => askMs <= nowMs);
      await Promise.all(due.slice(0, MOST_ASKED).map(([id, open]) => this.#askForRow(id, open)));
      if (due.length <= MOST_ASKED) await pause(LEAST_WAIT_MS, this.#signal).catch(() => {});
    }
  }

  async #askForRow(id: string, open: Open): Promise<void> {
    try {
      const now = await this.#readClock();
      const timestamp = new Date(now() + open.endedMs - performance.now()).toISOString();
      const bucket = this.stack.outputs.s3_bucket_name;
      const upload = { ...open.object, bucket, timestamp, eventName: "ObjectCreated" };
      const [row] = await rowsOfVersion(this.stack, upload);
      if (row) {
        this.#show(row);
        return this.#endUpload(id);
      }
    } catch {
      // AWS refuses: the poller says so.
    }
    const nowMs = performance.now();
    const waitMs = Math.max(LEAST_WAIT_MS, (nowMs - open.endedMs) / 10);
    open.askMs = nowMs + Math.min(waitMs, MOST_WAIT_MS);
    if (this.#uploads.delete(id)) this.#uploads.set(id, open); // behind those that wait longer
  }

  /** AWS's clock, read once; a refusal is not kept. */
  async #readClock(): Promise<Clock> {
    this.#clock ??= readClock(this.stack).catch((error) => {
      this.#clock = undefined;
      throw error;
    });
    return this.#now = await this.#clock;
  }

  #setTrouble(text: string): void {
    if (this.#tell({ type: "trouble", text }) && text !== "") say(visible(text));
  }

  #take(news: News[]): void {
    for (const { outcome, key, timestamp, versionId, atMs, error = "", row } of news) {
      const id = `${key} ${timestamp}`;
      if (outcome === "failed") {
        const written = this.#rowOf(id)?.processed_at;
        if (Date.parse(String(written)) > atMs) continue; // its line is late: a later try wrote the row
        const tries = (this.#failures.get(id)?.tries ?? 0) + 1;
        const name = key ?? "(no key)";
        this.#failures.delete(id); // the newest is last
        this.#failures.set(id, { id, key: name, reason: error, tries, atMs });
        this.#setFailed(idOf({ key: name, versionId }));
      } else {
        this.#failures.delete(id);
        if (row) this.#show(row);
      }
    }
  }

  #setFailed(id: string): void {
    const open = this.#uploads.get(id);
    if (!open) return;
    open.hasFailed = true;
    this.#tell({ type: "upload", id, hasFailed: true }, id);
  }

  #tellFailures(): void {
    const failures = [...this.#failures.values()];
    const { visible: queued, inFlight } = this.#parts?.queue ?? { visible: 0, inFlight: 0 };
    const known = failures.filter(({ tries }) => tries >= TRIES).length;
    const others = queued + inFlight - known;
    const notes = [];
    if (failures.length > SHOWN_FAILURES) {
      notes.push(`The newest ${SHOWN_FAILURES} of ${failures.length} are shown.`);
    }
    if (others > 0) {
      notes.push(
        `The failure queue holds ${plural(others, "more event")}. They failed before this page ` +
          "looked, or Lambda was throttled, which leaves no line in its log. " +
          `To list them, run ${denoTask(this.stack, "replay", "--dry-run")}.`,
      );
    }
    this.#tell({
      type: "failures",
      failures: failures.slice(-SHOWN_FAILURES),
      note: notes.join(" "),
    });
  }

  #rowOf(id: string): Item | undefined {
    const message = this.#messages.get("row")?.get(id)?.message;
    return message?.type === "row" ? message.row : undefined;
  }

  /** Shows a row, and ends the upload that waits for it. */
  #show(row: Item): void {
    this.#tell({ type: "row", row }, `${row.file_key} ${row.timestamp}`);
    this.#endUpload(idOf({ key: String(row.file_key), versionId: row.version_id }));
    if (this.#failures.delete(`${row.file_key} ${row.timestamp}`)) this.#tellFailures();
  }

  #endUpload(id: string): void {
    const open = this.#uploads.get(id);
    if (!open) return;
    this.#uploads.delete(id);
    const ms = Math.max(1, Math.round(performance.now() - open.endedMs));
    this.#tell({ type: "upload", id, ms: open.hasFailed ? undefined : ms }, id);
  }

  /** The queue's count each time; the rest only if all is asked for. */
  async #readParts(all: boolean): Promise<void> {
    const queue = await countFailures(this.stack);
    const before = this.#parts;
    this.#parts = { ...(all || !before ? await readSlowParts(this.stack) : before), queue };
    this.#tellCards(this.#parts);
  }

  #tellCards({ notifies, fn, alarms, queue }: Parts): void {
    const isOurs = fn?.codeSha256 === this.#codeSha256;
    const cards: Card[] = [{
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
    this.#tell({ type: "cards", cards });
  }
}

/** An upload's id, for the board and for its pages. */
export function idOf({ key, versionId }: { key: string; versionId?: string | number }): string {
  return `${key} ${versionId}`;
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
