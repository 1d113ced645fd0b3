/**
 * What was removed. A removal is one more row of its key: without its size, type and content, as nothing
 * is read for it. Nothing is overwritten or deleted for it.
 */

/** What of a row tells what became of its key. */
interface Row {
  timestamp?: unknown;
  event_name?: unknown;
  version_id?: unknown;
}

/** Whether a name is that of a removal's event, which a row may have too. */
export function isRemoval(eventName: unknown): boolean {
  return /^(ObjectRemoved|LifecycleExpiration):(Delete|DeleteMarkerCreated)$/.test(`${eventName}`);
}

/** Whether a removal is recorded: that of an old version by its lifecycle would double all rows. */
export function isRecorded(eventName: string, versionId: unknown): boolean {
  return isRemoval(eventName) && (eventName !== "LifecycleExpiration:Delete" || !versionId);
}

/** Whether a removal is that of one version by its id. */
export function deletesVersion(
  eventName: string | number,
  versionId: string | number | undefined,
): versionId is string | number {
  return versionId !== undefined && String(eventName).endsWith(":Delete");
}

/**
 * A removal as its row tells it. One of a version by its id has six digits more in its time, by that id:
 * one request may delete several versions of a key, and their rows must not meet, nor another's.
 */
export function toRemoval<T extends { timestamp: string; eventName: string; versionId?: string }>(
  removed: T,
): T {
  const { timestamp, eventName, versionId } = removed;
  const none = { size: undefined, etag: undefined };
  if (!deletesVersion(eventName, versionId)) return { ...removed, ...none };
  let digits = 0;
  for (const character of versionId) digits = (digits * 31 + character.charCodeAt(0)) % 1_000_000;
  const ofVersion = `${timestamp.slice(0, -1)}${String(digits).padStart(6, "0")}Z`;
  return { ...removed, ...none, timestamp: ofVersion };
}

/**
 * Whether a key is deleted, by its rows in any order. The newest row decides. One that deletes a version
 * cancels out with all rows of that version; without versions, with all rows before it.
 */
export function isDeleted(given: readonly object[]): boolean {
  const rows: readonly Row[] = given;
  const timeOf = ({ timestamp }: Row) => String(timestamp);
  const deletions = rows.filter(({ event_name }) => /:Delete$/.test(String(event_name)));
  const versions = new Set(deletions.map(({ version_id }) => version_id));
  const times = deletions.filter(({ version_id }) => version_id === undefined).map(timeOf);
  const last = times.sort().at(-1) ?? "";
  const left = rows.filter((row) =>
    row.version_id === undefined ? timeOf(row) > last : !versions.has(row.version_id)
  );
  if (left.length === 0) return rows.length > 0;
  return isRemoval(left.reduce((a, b) => timeOf(a) > timeOf(b) ? a : b).event_name);
}
