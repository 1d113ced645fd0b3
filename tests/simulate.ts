/**
 * Simulates loads on the pipeline (simulation.ts) under AWS's limits (limits.ts).
 *
 *   deno run --allow-read tests/simulate.ts             the tables of docs/SCALE.md and README.md
 *   deno run --allow-read --allow-write=. tests/simulate.ts --write    puts them and the plot there
 *   deno run --allow-read tests/simulate.ts --rate 20000 --seconds 60  a load of your own:
 *     its backlog over time; also --concurrency N, --units N (that the table takes), --run-ms N
 */

import { parseArgs } from "node:util";
import { toTable } from "../tasks/terminal.ts";
import { read } from "./fixtures.ts";
import { count, modelOf, readUpload, type Upload } from "./limits.ts";
import { plotOf } from "./scale_plot.ts";
import {
  type Cells,
  duration,
  limitsTable,
  needsTable,
  outcomesTable,
  simulateLoads,
  summaryTable,
} from "./scale_tables.ts";
import { simulate } from "./simulation.ts";

const ROOT = new URL("../", import.meta.url);
export const PLOT = "docs/scale.svg";

/** The tables, in the order in which their documents show them. */
export function tablesOf(upload: Upload): Record<"README.md" | "docs/SCALE.md", Cells[]> {
  const outcomes = simulateLoads(upload);
  return {
    "README.md": [summaryTable(upload, outcomes)],
    "docs/SCALE.md": [limitsTable(upload), needsTable(upload), outcomesTable(outcomes)],
  };
}

/** The cells of a document's table that has this head; undefined if none has. */
export function tableIn(document: string, [head]: Cells): Cells | undefined {
  const rows = document.split("\n").map(toCells);
  const start = rows.findIndex((cells) => cells?.join() === head.join());
  if (start < 0) return undefined;
  const end = rows.findIndex((cells, i) => i > start && cells === undefined);
  const [first, _rule, ...others] = rows.slice(start, end < 0 ? undefined : end) as Cells;
  return [first, ...others];
}

function toCells(line: string): string[] | undefined {
  if (!line.startsWith("|")) return undefined;
  return line.split("|").slice(1, -1).map((cell) => cell.trim());
}

/** A document with the table that has the same head replaced. */
export function withTable(document: string, cells: Cells): string {
  const lines = document.split("\n");
  const start = lines.findIndex((line) => toCells(line)?.join() === cells[0].join());
  if (start < 0) throw new Error(`Cannot write a table: none begins with ${cells[0].join(" | ")}`);
  const length = lines.slice(start).findIndex((line) => !line.startsWith("|"));
  const rule = cells[0].map(() => "---");
  const table = [cells[0], rule, ...cells.slice(1)].map((row) => `| ${row.join(" | ")} |`);
  lines.splice(start, length < 0 ? lines.length : length, ...table);
  return lines.join("\n");
}

/** A load's backlog over time, and how it ended. */
export function backlogOf(
  load: { rate: number; seconds: number; concurrency?: number; units?: number },
  upload: Upload,
): string[] {
  const { rate, seconds, concurrency, units } = load;
  const uploads = Math.round(rate * seconds);
  const model = modelOf({ name: "", perSecond: rate, uploads }, upload, { concurrency, units });
  const { samples, latestMs, ...outcome } = simulate(model);
  const shown = samples.filter((_, i) => i % Math.ceil(samples.length / 20) === 0);
  return [
    ...toTable([
      ["after, s", "waiting", "parked"],
      ...shown.map(({ ms, waiting, parked }) =>
        [Math.round(ms / 1000), waiting, parked].map(count)
      ),
    ], [0, 1, 2]),
    `${count(outcome.rows)} rows, the last after ${duration(outcome.lastRowMs)}, the latest ` +
    `${duration(latestMs)} after its event; ${count(outcome.parked)} events parked; at most ` +
    `${count(outcome.mostWaiting)} waited`,
  ];
}

/** The script's result; with --write it also writes documents, which need deno fmt then. */
export async function run(args: string[]): Promise<string[]> {
  const number = { type: "string" } as const;
  const options = { rate: number, seconds: number, concurrency: number, units: number };
  const { values } = parseArgs({
    args,
    options: { ...options, "run-ms": number, write: { type: "boolean" } },
  });
  const { write, "run-ms": runMs, ...load } = values;
  const numbers = Object.entries({ ...load, runMs }).filter(([, value]) => value !== undefined);
  for (const [name, value] of numbers) {
    if (!(Number(value) > 0)) throw new TypeError(`--${name} must be a number above 0: ${value}`);
  }
  const given = Object.fromEntries(numbers.map(([name, value]) => [name, Number(value)]));
  const upload = { ...await readUpload(), ...(given.runMs && { runMs: given.runMs }) };
  if (given.rate) return backlogOf({ rate: given.rate, seconds: 60, ...given }, upload);
  const tables = Object.entries(tablesOf(upload));
  if (write) {
    for (const [path, cells] of tables) {
      const document = cells.reduce(withTable, await read(path));
      await Deno.writeTextFile(new URL(path, ROOT), document);
    }
    await Deno.writeTextFile(new URL(PLOT, ROOT), plotOf(upload));
  }
  return tables.flatMap(([path, cells]) => cells.flatMap((rows) => [path, ...toTable(rows), ""]));
}

if (import.meta.main) console.log((await run(Deno.args)).join("\n"));
