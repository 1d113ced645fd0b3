/** Text for people at a terminal: tables, ages, and nothing that could steer the terminal. */

/** What others control, as it may reach a terminal: control characters made visible. */
export function visible(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}

/** Rows of cells as lines, each column as wide as its widest cell; `right` names number columns. */
export function toTable(rows: string[][], right: number[] = []): string[] {
  const last = rows[0].length - 1;
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => width(row[column]))));
  return rows.map((row) =>
    row.map((cell, column) => {
      const padding = " ".repeat(widths[column] - width(cell));
      if (right.includes(column)) return padding + cell;
      return column === last ? cell : cell + padding;
    }).join("  ").trimEnd()
  );
}

/** At most `columns` columns of a text, made visible; an ellipsis stands for the rest. */
export function clip(text: string, columns: number): string {
  const characters = Array.from(visible(text));
  let used = 0;
  let end = 0;
  while (end < characters.length && used + width(characters[end]) <= columns) {
    used += width(characters[end++]);
  }
  if (end === characters.length) return characters.join("");
  while (used + 1 > columns) used -= width(characters[--end]);
  return characters.slice(0, end).join("") + "…";
}

/** A duration in its largest whole unit: `12 s`, `3 min`, `5 h`, `9 d`. */
export function toDuration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** `1 event`, `2 events`. */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Columns that a text takes: East Asian characters and emoji take two. */
function width(text: string): number {
  return Array.from(text).reduce(
    (sum, character) =>
      sum + (/[\u1100-\u115f\u2e80-\uffdc\u{1f000}-\u{3fffd}]/u.test(character) ? 2 : 1),
    0,
  );
}
