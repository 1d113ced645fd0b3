/** What the server tells the page. */

import type { Item } from "../tasks/table.ts";

/** An event that failed, until its row is there. */
export interface Failure {
  key: string;
  reason: string;
  tries: number;
  /** When the last one ended: milliseconds since 1970. */
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
  state: "unsaved" | "building" | "running" | "warning" | "broken";
  text: string;
}

/** What became of an upload through the page. */
export interface Outcome {
  /** The page's own. */
  id: string;
  /** Empty while its row is still waited for. */
  result: "" | "done" | "failed";
  note: string;
  /** From the end of the upload to its row, unless the function failed in between. */
  ms?: number;
}

export type Message =
  /** Where this is, what an upload's key begins with, and a word about it. */
  | { type: "place"; place: string; prefix: string; note: string }
  /** What is said in place of a type, if it is the row of a removal. */
  | { type: "row"; row: Item; removal?: string }
  /** Of a key that has such a row, whether it is deleted by the rows that are shown. */
  | { type: "key"; key: string; isDeleted: boolean }
  | { type: "outcome"; outcome: Outcome }
  /** The newest; `note` says what the failure queue holds. It comes once the newest rows are told. */
  | { type: "failures"; failures: Failure[]; note: string }
  | { type: "cards"; cards: Card[] }
  | { type: "code"; code: Code }
  /** Why there is no news; empty when it is over. */
  | { type: "trouble"; text: string };

/** What a page asks for all the time: the messages that it has not got. */
export interface Update {
  messages: Message[];
  /** The number of the last one, for the next time. */
  last: number;
  /** AWS's clock. */
  nowMs: number;
}
