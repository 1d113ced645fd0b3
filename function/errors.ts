/** Errors as sentences, and one line of text from whatever they hold. */

/** Characters of a text that a message keeps. */
export const MAX_TEXT_LENGTH = 1024;

/** The payload, or a record of it, is not what S3 sends, or not about this function's bucket. */
export class InvalidEventError extends TypeError {
  override name = "InvalidEventError";
}

/** A call did not end in time, or no time was left to begin. */
export class OutOfTimeError extends Error {
  override name = "OutOfTimeError";
}

/** Some records of an event failed; the others are done. */
export class RecordsFailedError extends Error {
  override name = "RecordsFailedError";
}

/** What the SDK's errors carry. */
export interface SdkError extends Error {
  $metadata?: { httpStatusCode?: number };
}

/** An error as a sentence: what could not be done, with which object, and why. */
export function cannot(
  action: string,
  object: { key: string; bucket: string },
  error: unknown,
): Error {
  return new Error(
    `Cannot ${action} ${quote(object.key)} from ${quote(object.bucket)}: ${describe(error)}`,
  );
}

export function describe(error: unknown): string {
  if (!(error instanceof Error)) return clip(String(error));
  if (error.name === "Error") return error.message;
  const { httpStatusCode } = (error as SdkError).$metadata ?? {};
  // A HEAD's answer has no body, so its status is all there is to know.
  return `${error.name}: ${clip(error.message)}` +
    (httpStatusCode ? ` (HTTP ${httpStatusCode})` : "");
}

/** A value as it may stand in a message: escaped, and of bounded length. */
export function quote(value: unknown): string {
  return clip(value === undefined ? "undefined" : toJsonLine(value));
}

export function clip(text: string): string {
  return text.length > MAX_TEXT_LENGTH ? text.slice(0, MAX_TEXT_LENGTH).toWellFormed() + "…" : text;
}

/** One JSON object in one line, whatever the strings hold: line separators are escaped too. */
export function toJsonLine(line: unknown): string {
  return JSON.stringify(line).replace(
    /[\u007f-\u009f\u2028\u2029]/g,
    (character) => "\\u" + character.charCodeAt(0).toString(16).padStart(4, "0"),
  );
}
