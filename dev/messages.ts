/** What the server tells the page: a line of JSON for each message. */

/** A row of the table. */
export type Row = Record<string, string | number>;

/** An upload without a row, since the function failed. */
export interface Failure {
  /** Its row's keys: tries of one event have one id. */
  id: string;
  key: string;
  versionId?: string;
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
  /** First of all: where this is, what an upload's key begins with, a word about it, and a command. */
  | { type: "place"; place: string; prefix: string; note: string; followLog: string }
  /** `ms`: from the end of its upload by this server to its row. */
  | { type: "row"; row: Row; ms?: number; isNew: boolean }
  /** All that is known; `note` says what is in the queue beside it. */
  | { type: "failures"; failures: Failure[]; note: string }
  | { type: "cards"; cards: Card[] }
  | { type: "code"; code: Code }
  /** The rows and failures until now have been sent. */
  | { type: "ready" }
  /** Why there is no news; empty when it is over. */
  | { type: "trouble"; text: string }
  /** The server ends. */
  | { type: "end" };

/** What the server answers to an upload. */
export interface Uploaded {
  key: string;
  versionId?: string;
  /** Why it will have no row, if that is known. */
  note?: string;
}
