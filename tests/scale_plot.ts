/** The plot of docs/SCALE.md: how the backlog of a burst shrinks, on three stacks. */

import { BURST, count, modelOf, type Raised, raisedFor, type Upload } from "./limits.ts";
import { about, duration } from "./scale_tables.ts";
import { type Outcome, simulate } from "./simulation.ts";

/** What is plotted: events that wait for their row in the burst, on three stacks. */
function curvesOf(upload: Upload) {
  const { units, concurrency } = raisedFor(BURST, upload);
  const stacks: Record<string, Raised> = {
    "as deployed": {},
    [`table warmed to ${count(units!)}`]: { units },
    [`concurrency raised to ${count(concurrency!)}, too`]: { units, concurrency },
  };
  return Object.entries(stacks).map(([name, stack]) => ({
    name,
    outcome: simulate(modelOf(BURST, upload, stack), { sampleMs: 5000 }),
  }));
}

const TITLE = `Uploads that wait for their row: ${BURST.name}`;
const WIDTH = 760;
const HEIGHT = 340;
const FRAME = { left: 70, right: 20, top: 50, bottom: 50 };

/** The plot as SVG: with a background of its own, so that it can be read on a page of any color. */
export function plotOf(upload: Upload): string {
  const curves = curvesOf(upload);
  const mostMs = Math.max(...curves.map(({ outcome }) => outcome.lastRowMs));
  const minutes = Math.ceil(mostMs / 60_000 / 4) * 4;
  const x = (ms: number) =>
    round(FRAME.left + ms / 60_000 / minutes * (WIDTH - FRAME.left - FRAME.right));
  const y = (events: number) =>
    round(HEIGHT - FRAME.bottom - events / BURST.uploads * (HEIGHT - FRAME.top - FRAME.bottom));
  const parts = [
    `<rect class="ground" width="${WIDTH}" height="${HEIGHT}" rx="8"/>`,
    text(WIDTH / 2, 26, "middle", TITLE, "title"),
    ...[0, 0.25, 0.5, 0.75, 1].flatMap((part) => [
      line(x(0), y(part * BURST.uploads), x(minutes * 60_000), y(part * BURST.uploads)),
      text(x(0) - 8, y(part * BURST.uploads) + 4, "end", about(part * BURST.uploads)),
    ]),
    ...Array.from({ length: minutes / 4 + 1 }, (_, i) => 4 * i).map((minute) =>
      text(x(minute * 60_000), y(0) + 20, "middle", String(minute))
    ),
    text((x(0) + x(minutes * 60_000)) / 2, HEIGHT - 10, "middle", "minutes"),
    ...curves.flatMap(({ name, outcome }, i) => [
      `<polyline class="curve c${i}" points="${pointsOf(outcome, x, y)}"/>`,
      line(
        x(minutes * 60_000) - 330,
        124 + 18 * i,
        x(minutes * 60_000) - 300,
        124 + 18 * i,
        `c${i}`,
      ),
      text(x(minutes * 60_000) - 292, 128 + 18 * i, "start", `${name}: ${ended(outcome)}`),
    ]),
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img">
<title>${TITLE}, by minutes</title>
<style>${STYLE}</style>
${parts.join("\n")}
</svg>
`;
}

const STYLE = `
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.ground { fill: #fff; stroke: #d0d7de }
line { stroke: #d8dee4 }
.curve, line[class] { fill: none; stroke-width: 2.5 }
.c0 { stroke: #bc4c00 }
.c1 { stroke: #8250df; stroke-dasharray: 7 4 }
.c2 { stroke: #0969da; stroke-dasharray: 2 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .ground { fill: #0d1117; stroke: #30363d }
  line { stroke: #30363d }
  .c0 { stroke: #f0883e }
  .c1 { stroke: #bc8cff }
  .c2 { stroke: #58a6ff }
}
`;

function pointsOf(
  { samples, lastRowMs }: Outcome,
  x: (ms: number) => number,
  y: (events: number) => number,
): string {
  const points = samples.map(({ ms, waiting }) => `${x(ms)},${y(waiting)}`);
  return ["", ...points, `${x(lastRowMs)},${y(0)}`].join(" ").trim();
}

function ended({ lastRowMs, parked }: Outcome): string {
  return `${duration(lastRowMs)}${parked > 0 ? `, ${about(parked)} parked` : ""}`;
}

function line(x1: number, y1: number, x2: number, y2: number, name?: string): string {
  const named = name === undefined ? "" : ` class="${name}"`;
  return `<line${named} x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}"/>`;
}

function text(x: number, y: number, anchor: string, words: string, name?: string): string {
  const named = name === undefined ? "" : ` class="${name}"`;
  return `<text${named} x="${x}" y="${y}" text-anchor="${anchor}">${words}</text>`;
}

function round(number: number): number {
  return Math.round(10 * number) / 10;
}
