/** What the server tells the page. */

/** A row of the table. */
export type Row = Record<string, string | number>;

/** An upload without a row, since the function failed. */
export interface Failure {
  /** Its row's keys: tries of one event have one id. */
  id: string;
  key: string;
  reason: string;
  tries: number;
  /** Of the last try: milliseconds since 1970. */
  atMs: number;
}

/** A part of what is deployed, at a glance. */
export interface Card {
  name: "Bucket" | "Function" | "Failure queue" | "Alarms";
  text: string;
  note: string;
  /** Whether it needs attention. */
  isBad: boolean;
}

/** What became of the last save. */
export interface Code {
  state: "unsaved" | "building" | "running" | "broken";
  text: string;
  /** What `deno check` says; undefined until it is done. */
  typeErrors?: string[];
}

export type Message =
  /** Where this is, what an upload's key begins with, and a word about it. */
  | { type: "place"; place: string; prefix: string; note: string }
  | { type: "row"; row: Row }
  /** What became of an upload by this server: its row came, after `ms` if it did not fail before. */
  | { type: "upload"; id: string; ms?: number; hasFailed?: boolean }
  /** The newest; `note` says what there is beside them. */
  | { type: "failures"; failures: Failure[]; note: string }
  | { type: "cards"; cards: Card[] }
  | { type: "code"; code: Code }
  /** The rows and failures until now are known. */
  | { type: "ready" }
  /** Why there is no news; empty when it is over. */
  | { type: "trouble"; text: string };

/** What a page asks for all the time: the messages that it has not got. */
export interface Update {
  messages: Message[];
  /** The number of the last one, for the next time. */
  last: number;
  /** AWS's clock; unknown until it was read. */
  nowMs?: number;
}

/** What the server answers to an upload. */
export interface Uploaded {
  /** As messages name it. */
  id: string;
  /** Why it will have no row, if that is known. */
  note?: string;
  /** What to say if its row does not come soon. */
  late: string;
}
