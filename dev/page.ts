/// <reference lib="dom" />
/** The page: shows what the server tells. Text from elsewhere is set as text, never as markup. */

import type { Card, Failure, Message, Row, Uploaded } from "./messages.ts";

const SHOWN_ROWS = 200;
const SHOWN_UPLOADS = 8;
const PARALLEL_UPLOADS = 4;
const PLOTTED = 30;

/** After so long an upload without a row says what to look at. */
const LATE_MS = 30_000;

/** So long a row is marked as new. */
const NEW_MS = 15_000;

/** The token is behind the address's #, which no request carries by itself. */
const headers = { authorization: `Bearer ${location.hash.slice(1)}` };

/** A file, and its path below what was chosen or dropped. */
type Chosen = { file: File; path: string };

const rows = new Map<string, { row: Row; line: HTMLElement; text: string; ms?: number }>();
/** Uploads that wait for their rows, by key and version. */
const uploaded = new Map<string, { item: HTMLElement; sinceMs: number }>();
const waiting: { file: File; key: string }[] = [];
const latencies: number[] = [];
let sending = 0;
let prefix = "";
let followLog = "";
let isReady = false;

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

/** Reads the feed as long as the page is open. */
async function follow(): Promise<void> {
  for (;;) {
    try {
      const response = await fetch("/feed", { headers });
      if (response.status === 401) {
        return connect("lost", "This address has no valid token: open the one that dev printed");
      }
      connect("live", "Connected");
      const reader = response.body!.getReader(); // Safari can't iterate over a stream
      const decoder = new TextDecoder();
      let rest = "";
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const lines = (rest + decoder.decode(part.value, { stream: true })).split("\n");
        rest = lines.pop()!;
        for (const line of lines) take(JSON.parse(line));
      }
    } catch { /* as at the stream's end */ }
    connect("lost", "Disconnected: start dev again, and open the address that it prints");
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

function connect(state: "live" | "lost", text: string): void {
  find("#connection").className = state;
  show("#connection", text);
  if (state === "lost" && !isReady) show("#empty", "No rows: the page is not connected.");
}

function take(message: Message): void {
  switch (message.type) {
    case "place":
      ({ prefix, followLog } = message);
      show("#place", message.place);
      return show("#prefix", message.note);
    case "row":
      return showRow(message.row, message.isNew, message.ms);
    case "failures":
      return showFailures(message.failures, message.note);
    case "cards":
      return find("#cards").replaceChildren(...message.cards.map(toCard));
    case "code":
      find("#code").className = message.code.state;
      return show("#code", [message.code.text, ...message.code.typeErrors ?? []].join("\n"));
    case "ready":
      isReady = true;
      return filterRows();
    case "trouble":
      return show("#trouble", message.text);
  }
}

function toCard({ name, text, note, isBad }: Card): HTMLElement {
  return make("card", { dt: name, dd: text, ".note": note }, isBad ? "bad" : "");
}

function showRow(row: Row, isNew: boolean, ms?: number): void {
  const id = `${row.file_key} ${row.timestamp}`;
  forget(id); // the newest is last here, and first in the table
  const { file_key, file_size, content_type = "", content_preview = "" } = row;
  const line = make("row", {
    ".key": String(file_key),
    ".size": file_size?.toLocaleString("en") ?? "",
    ".type": String(content_type),
    ".preview": String(content_preview).slice(0, 120),
  }, isNew ? "new" : "");
  find("button", line).addEventListener("click", () => openRow(row));
  find("#rows tbody").prepend(line);
  const text = [file_key, content_type, content_preview].join(" ").toLowerCase();
  rows.set(id, { row, line, text, ms });
  if (rows.size > SHOWN_ROWS) forget(rows.keys().next().value!);
  if (ms !== undefined) {
    plot(ms);
    endUpload(`${file_key} ${row.version_id}`, "done", `row after ${ms} ms`);
  }
  filterRows();
}

function forget(id: string): void {
  rows.get(id)?.line.remove();
  rows.delete(id);
}

function filterRows(): void {
  const wanted = find<HTMLInputElement>("#filter").value.trim().toLowerCase();
  for (const { line, text } of rows.values()) line.hidden = !text.includes(wanted);
  const isEmpty = document.querySelector("#rows tbody tr:not([hidden])") === null;
  find("#rows").hidden = isEmpty;
  find("#empty").hidden = !isEmpty;
  if (rows.size > 0) show("#empty", `None of the ${rows.size} newest rows matches the filter.`);
  else if (isReady) show("#empty", "No row yet. Drop a file anywhere: its row will appear here.");
  showAges();
}

function showAges(): void {
  for (const { row, line } of rows.values()) {
    const ms = Date.now() - Date.parse(String(row.processed_at));
    show(".age", toAge(ms), line);
    if (ms > NEW_MS) line.className = "";
  }
  for (const { item, sinceMs } of uploaded.values()) {
    if (Date.now() - sinceMs < LATE_MS) continue;
    show(".note", `no row yet: ${followLog} shows what the function does`, item);
  }
}

function openRow(row: Row): void {
  show("#row-title", String(row.file_key));
  find("#row dl").replaceChildren(
    ...Object.entries(row).map(([dt, dd]) => make("attribute", { dt, dd: String(dd) })),
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
  for (const { key, versionId } of failures) {
    endUpload(`${key} ${versionId}`, "failed", "failed: see below");
  }
}

/** Replays one object's events, or all. */
async function replay(key?: string): Promise<void> {
  show("#replay-note", "Replaying …");
  const query = key === undefined ? "" : `?key=${encodeURIComponent(key)}`;
  const text = await fetch(`/replay${query}`, { method: "POST", headers })
    .then((response) => response.text(), () => "Nothing was replayed: the server is gone.");
  show("#replay-note", text);
}

function upload(files: Chosen[]): void {
  waiting.push(...files.map(({ file, path }) => ({ file, key: prefix + path })));
  while (sending < PARALLEL_UPLOADS && waiting.length > 0) void sendNext();
}

async function sendNext(): Promise<void> {
  sending++;
  const { file, key } = waiting.shift()!;
  const item = make("upload", { ".key": key });
  find("progress", item).setAttribute("aria-label", `Upload of ${key}`);
  find("#uploads").prepend(item);
  show("#waiting", waiting.length > 0 ? `${waiting.length} more wait` : "");
  try {
    const { versionId, note } = await send(file, key, item);
    show(".note", "uploaded, waiting for its row …", item);
    const id = `${key} ${versionId}`;
    uploaded.set(id, { item, sinceMs: Date.now() });
    if (note !== undefined) endUpload(id, "failed", note);
    const known = [...rows.values()].find(({ row }) => `${row.file_key} ${row.version_id}` === id);
    if (known?.ms) endUpload(id, "done", `row after ${known.ms} ms`); // it came before S3's answer
  } catch (error) {
    item.className = "failed";
    show(".note", `not uploaded: ${(error as Error).message}`, item);
  }
  sending--;
  if (waiting.length > 0) void sendNext();
}

/** XMLHttpRequest, since fetch tells no progress of an upload. */
function send(file: File, key: string, item: HTMLElement): Promise<Uploaded> {
  return new Promise((resolve, reject) => {
    const bar = find<HTMLProgressElement>("progress", item);
    const request = new XMLHttpRequest();
    request.open("POST", `/upload?key=${encodeURIComponent(key)}`);
    request.setRequestHeader("authorization", headers.authorization);
    if (file.type !== "") request.setRequestHeader("content-type", file.type);
    request.upload.onprogress = ({ loaded, total }) => bar.value = total && loaded / total;
    request.onload = () => {
      if (request.status === 200) resolve(JSON.parse(request.responseText));
      else reject(new Error(request.responseText));
    };
    request.onerror = () => reject(new Error("the server or the file is gone"));
    request.send(file);
  });
}

/** Ends the line of an upload, if it is one of this page's; only the last few stay. */
function endUpload(id: string, result: "done" | "failed", note: string): void {
  const item = uploaded.get(id)?.item;
  if (!uploaded.delete(id) || !item) return;
  item.className = result;
  show(".note", note, item);
  show("#announce", `${find(".key", item).textContent}: ${note}`);
  const done = document.querySelectorAll("#uploads .done");
  for (const old of [...done].slice(SHOWN_UPLOADS)) old.remove();
}

/** Bars for the latencies of the last uploads, the newest at the right. */
function plot(ms: number): void {
  latencies.push(ms);
  const last = latencies.slice(-PLOTTED);
  const most = Math.max(...last);
  show("#latency figcaption", `Upload to row: ${ms} ms, longest ${most} ms`);
  const bars = last.map((ms, index) => `M${4 + index * 8} 40v${-Math.max(1, ms / most * 40)}`);
  find("#latency path").setAttribute("d", bars.join(""));
  find("#latency svg").setAttribute("aria-label", `Milliseconds: ${last.join(", ")}`);
}

/** The files of what was dropped, those in folders too, with their paths. */
async function filesOf(entry: FileSystemEntry): Promise<Chosen[]> {
  if (entry.isFile) {
    const file = await new Promise<File>((...end) => (entry as FileSystemFileEntry).file(...end));
    return [{ file, path: entry.fullPath.slice(1) }];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const files: Chosen[] = [];
  for (;;) { // it gives out 100 at a time
    const some = await new Promise<FileSystemEntry[]>((...end) => reader.readEntries(...end));
    if (some.length === 0) return files;
    files.push(...(await Promise.all(some.map(filesOf))).flat());
  }
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
  for (const entry of entries) if (entry) upload(await filesOf(entry));
});
addEventListener("beforeunload", (event) => void (sending > 0 && event.preventDefault()));
find("#filter").addEventListener("input", filterRows);
find("#close").addEventListener("click", () => find<HTMLDialogElement>("#row").close());
find("#replay-all").addEventListener("click", () => replay());
setInterval(showAges, 1000);
void follow();
