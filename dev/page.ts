/// <reference lib="dom" />
/** The page: shows what the server tells. Text from elsewhere is set as text, never as markup. */

import type { Item } from "../tasks/table.ts";
import type { Card, Failure, Message, Outcome, Update } from "./messages.ts";

const SHOWN_ROWS = 200;
const SHOWN_UPLOADS = 8;
const PLOTTED = 30;

/** A browser opens six connections to a server for all its tabs: two are left for the rest. */
const PARALLEL_UPLOADS = 4;

/** How often the page asks for news: a connection that stays open would be one of the six. */
const ASK_MS = 300;
const ANSWER_MS = 10_000;

/** How long a row counts as new. */
const NEW_MS = 15_000;

/** The token is behind the address's #, which no request carries by itself. */
const headers = { authorization: `Bearer ${location.hash.slice(1)}` };

/** A file, and its path below what was chosen or dropped. */
type Chosen = { file: File; path: string };

const rows = new Map<string, { row: Item; line: HTMLElement; text: string }>();
/** The lines of this page's uploads. */
const uploads = new Map<string, HTMLElement>();
/** Keys that are deleted, by their rows. */
const deletedKeys = new Set<string>();
const waiting: Chosen[] = [];
/** Uploads that have not ended. */
let sending = 0;
const latencies: number[] = [];
let prefix = "";
let isReady = false;
/** How far AWS's clock is ahead of this one. */
let aheadMs = 0;

function find<T extends Element = HTMLElement>(selector: string, within: ParentNode = document): T {
  return within.querySelector<T>(selector)!;
}

function show(selector: string, text: string, within?: ParentNode): void {
  find(selector, within).textContent = text;
}

/** A copy of a template, with the texts of its parts and a class. */
function make(template: string, texts: Record<string, string>, className = ""): HTMLElement {
  const { content } = find<HTMLTemplateElement>(`#${template}-template`);
  const copy = content.firstElementChild!.cloneNode(true) as HTMLElement;
  copy.className = className;
  for (const [selector, text] of Object.entries(texts)) show(selector, text, copy);
  return copy;
}

/** Asks for what is new as long as the page is open. */
async function follow(): Promise<void> {
  for (let last = 0;; await new Promise((end) => setTimeout(end, ASK_MS))) {
    try {
      const signal = AbortSignal.timeout(ANSWER_MS);
      const response = await fetch(`/news?last=${last}`, { headers, signal });
      if (response.status === 401) {
        return connect("lost", "This address has no valid token: open the one that dev printed");
      }
      const update: Update = await response.json();
      connect("live", "Connected");
      last = update.last;
      aheadMs = update.nowMs - Date.now();
      if (update.messages.length === 0) continue;
      update.messages.forEach(take);
      filterRows();
      plot();
    } catch {
      connect("lost", "Disconnected: start dev again, and open the address that it prints");
    }
  }
}

function connect(state: "live" | "lost", text: string): void {
  if (find("#connection").textContent === text) return; // else it is read aloud again
  find("#connection").className = state;
  show("#connection", text);
  if (state === "lost" && !isReady) show("#empty", "No rows: the page is not connected.");
}

function take(message: Message): void {
  switch (message.type) {
    case "place":
      prefix = message.prefix;
      show("#place", message.place);
      return show("#prefix", message.note);
    case "row":
      return showRow(message.row, message.removal);
    case "key":
      deletedKeys[message.isDeleted ? "add" : "delete"](message.key);
      return;
    case "outcome":
      return showOutcome(message.outcome);
    case "failures":
      isReady = true;
      return showFailures(message.failures, message.note);
    case "cards":
      return find("#cards").replaceChildren(...message.cards.map(toCard));
    case "code":
      find("#code").className = `box ${message.code.state}`;
      return show("#code", message.code.text);
    case "trouble":
      return show("#trouble", message.text);
  }
}

function toCard({ name, text, note, isBad }: Card): HTMLElement {
  return make("part", { dt: name, dd: text, ".note": note }, isBad ? "box bad" : "box");
}

function showRow(row: Item, removal?: string): void {
  const id = `${row.file_key} ${row.timestamp}`;
  forget(id); // the newest is last here, and first in the table
  const { file_key, file_size, content_type = "", content_preview = "" } = row;
  const line = make("row", {
    ".key": String(file_key),
    ".size": file_size?.toLocaleString("en") ?? "",
    ".type": removal ?? String(content_type),
    ".preview": String(content_preview).slice(0, 120),
  });
  find("button", line).addEventListener("click", () => openRow(row));
  find("#rows tbody").prepend(line);
  const text = [file_key, content_type, content_preview].join(" ").toLowerCase();
  rows.set(id, { row, line, text });
  if (rows.size > SHOWN_ROWS) forget(rows.keys().next().value!);
}

function forget(id: string): void {
  rows.get(id)?.line.remove();
  rows.delete(id);
}

function filterRows(): void {
  const wanted = find<HTMLInputElement>("#filter").value.trim().toLowerCase();
  for (const { row, line, text } of rows.values()) {
    line.hidden = !text.includes(wanted);
    line.classList.toggle("deleted", deletedKeys.has(String(row.file_key)));
  }
  const isEmpty = document.querySelector("#rows tbody tr:not([hidden])") === null;
  find("#rows").hidden = isEmpty;
  find("#empty").hidden = !isEmpty;
  if (rows.size > 0) show("#empty", `None of the ${rows.size} newest rows matches the filter.`);
  else if (isReady) show("#empty", "No row yet. Drop a file anywhere: its row will appear here.");
  showAges();
}

function showAges(): void {
  for (const { row, line } of rows.values()) {
    const ms = Date.now() + aheadMs - Date.parse(String(row.processed_at));
    show(".age", toAge(ms), line);
    line.classList.toggle("new", ms <= NEW_MS);
  }
}

function openRow(row: Item): void {
  show("#row-title", String(row.file_key));
  find("#row dl").replaceChildren(
    ...Object.entries<unknown>(row).map(([dt, value]) => {
      const dd = typeof value === "object" ? JSON.stringify(value, null, 1) : String(value);
      return make("part", { dt, dd });
    }),
  );
  find<HTMLDialogElement>("#row").showModal();
}

function showFailures(failures: Failure[], note: string): void {
  const items = failures.toReversed().map(({ key, reason, tries }) => {
    const item = make("failure", { ".key": key, ".reason": reason, ".note": `tries: ${tries}` });
    find("button", item).addEventListener("click", () => replay(key));
    find("button", item).setAttribute("aria-label", `Replay ${key}`);
    return item;
  });
  find("#failures ul").replaceChildren(...items);
  find("#failures").hidden = failures.length === 0 && note === "";
  show("#failures-note", note);
}

/** Replays one object's events, or all. */
async function replay(key?: string): Promise<void> {
  show("#replay-note", "Replaying …");
  const query = key === undefined ? "" : `?key=${encodeURIComponent(key)}`;
  const text = await fetch(`/replay${query}`, { method: "POST", headers })
    .then((response) => response.text(), () => "Nothing was replayed: the server does not answer.");
  show("#replay-note", text);
}

function upload(files: Chosen[]): void {
  waiting.push(...files);
  sending += files.length;
  for (let lane = 0; lane < PARALLEL_UPLOADS; lane++) void sendAll(`lane ${lane}`);
}

/** Sends what waits, one after the other in each lane; all tabs together have so many lanes. */
async function sendAll(lane: string): Promise<void> {
  while (waiting.length > 0) {
    await navigator.locks.request(lane, async () => {
      const next = waiting.shift();
      show("#waiting", waiting.length > 0 ? `${waiting.length} more wait` : "");
      if (next) await sendOne(next);
    });
  }
}

async function sendOne({ file, path }: Chosen): Promise<void> {
  const line = addUpload(prefix + path);
  const id = crypto.randomUUID();
  uploads.set(id, line);
  try {
    await send(file, prefix + path, id, line);
  } catch (error) {
    failUpload(line, error as Error);
  }
  sending--;
}

function addUpload(key: string): HTMLElement {
  const line = make("upload", { ".key": key });
  find("progress", line).setAttribute("aria-label", `Upload of ${key}`);
  find("#uploads").prepend(line);
  return line;
}

function failUpload(line: HTMLElement, { message }: Error): void {
  line.className = "failed";
  show(".note", `not uploaded: ${message}`, line);
}

/** XMLHttpRequest, since fetch tells no progress of an upload. */
function send(file: File, key: string, id: string, line: HTMLElement): Promise<void> {
  return new Promise((resolve, reject) => {
    const bar = find<HTMLProgressElement>("progress", line);
    const request = new XMLHttpRequest();
    request.open("POST", `/upload?id=${id}&key=${encodeURIComponent(key)}`);
    request.setRequestHeader("authorization", headers.authorization);
    if (file.type !== "") request.setRequestHeader("content-type", file.type);
    request.upload.onprogress = ({ loaded, total }) => bar.value = total && loaded / total;
    request.onload = () => {
      if (request.status !== 200) return reject(new Error(request.responseText));
      bar.value = 1; // an empty file makes no progress
      resolve();
    };
    request.onerror = () =>
      reject(new Error("the server does not answer, or the file can't be read"));
    request.send(file);
  });
}

/** Shows what became of an upload; of the lines that are done, the last few stay. */
function showOutcome({ id, result, note, ms }: Outcome): void {
  if (ms !== undefined) latencies.push(ms);
  const line = uploads.get(id);
  if (!line) return; // another page's
  if (result === "done") uploads.delete(id);
  line.className = result;
  show(".note", note, line);
  show("#announce", `${find(".key", line).textContent}: ${note}`);
  const done = document.querySelectorAll("#uploads .done");
  for (const old of [...done].slice(SHOWN_UPLOADS)) old.remove();
}

/** Bars for the latencies of the last uploads, the newest at the right. */
function plot(): void {
  const last = latencies.slice(-PLOTTED);
  if (last.length === 0) return;
  const most = Math.max(...last);
  show("#latency figcaption", `Upload to row: ${last.at(-1)} ms, longest ${most} ms`);
  const bars = last.map((ms, index) => `M${4 + index * 8} 40v${-Math.max(1, ms / most * 40)}`);
  find("#latency path").setAttribute("d", bars.join(""));
  find("#latency svg").setAttribute("aria-label", `Milliseconds: ${last.join(", ")}`);
}

/** The files of what was dropped, in folders too, with their paths; names what can't be read. */
async function filesOf(entry: FileSystemEntry): Promise<Chosen[]> {
  const path = entry.fullPath.slice(1);
  const files: Chosen[] = [];
  try {
    if (entry.isFile) {
      const file = await new Promise<File>((...end) => (entry as FileSystemFileEntry).file(...end));
      return [{ file, path }];
    }
    const reader = (entry as FileSystemDirectoryEntry).createReader();
    for (;;) { // it gives out 100 at a time
      const some = await new Promise<FileSystemEntry[]>((...end) => reader.readEntries(...end));
      if (some.length === 0) break;
      files.push(...(await Promise.all(some.map(filesOf))).flat());
    }
  } catch (error) {
    failUpload(addUpload(prefix + path), error as Error);
  }
  return files;
}

function toAge(ms: number): string {
  const units = [["d", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1000]] as const;
  const [unit, size] = units.find(([, size]) => ms >= 2 * size) ?? units[3];
  return `${Math.max(0, Math.floor(ms / size))} ${unit}`;
}

for (const input of document.querySelectorAll<HTMLInputElement>("input[type=file]")) {
  input.addEventListener("change", () => {
    const files = [...input.files!];
    upload(files.map((file) => ({ file, path: file.webkitRelativePath || file.name })));
    input.value = ""; // so that the same file can be chosen again
  });
}
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragged");
});
const leave = () => document.body.classList.remove("dragged");
for (const end of ["dragleave", "drop"]) addEventListener(end, leave);
addEventListener("drop", async (event) => {
  event.preventDefault();
  const entries = [...event.dataTransfer!.items].map((item) => item.webkitGetAsEntry());
  upload((await Promise.all(entries.filter((entry) => entry !== null).map(filesOf))).flat());
});
addEventListener("hashchange", () => location.reload()); // another token
addEventListener("beforeunload", (event) => void (sending > 0 && event.preventDefault()));
find("#filter").addEventListener("input", filterRows);
find("#close").addEventListener("click", () => find<HTMLDialogElement>("#row").close());
find("#replay-all").addEventListener("click", () => replay());
setInterval(showAges, 1000);
void follow();
