/** The tables of limits and loads in README.md and docs/SCALE.md. */

import {
  count,
  type Limit,
  LIMITS,
  type Load,
  LOADS,
  MAXIMUM_AGE_MS,
  modelOf,
  needsOf,
  raisedFor,
  TABLE_UNITS,
  THROTTLED,
  type Upload,
} from "./limits.ts";
import { type Outcome, simulate } from "./simulation.ts";

/** Cells of a table, its head first. */
export type Cells = string[][];

/** The limits, in the order in which a growing load meets them. */
export function limitsTable(upload: Upload): Cells {
  const sorted = inOrder(LIMITS, upload);
  return [
    ["limit", "by default", "uploads a second", "what one sees beyond it", "what to raise"],
    ...sorted.map(({ name, byDefault, source, enoughFor, seen, raise }) => [
      name,
      `[${byDefault}](${source})`,
      Number.isFinite(enoughFor(upload)) ? count(Math.floor(enoughFor(upload))) : "any",
      seen,
      raise,
    ]),
  ];
}

export function needsTable(upload: Upload): Cells {
  return [
    ["uploads", "runs at once", "prefixes", "units a second", "log", "cost"],
    ...LOADS.map((load) => {
      const { runs, prefixes, units, logGb, dollars } = needsOf(load, upload);
      return [load.name, runs, prefixes, units].map((cell) =>
        typeof cell === "number" ? count(cell) : cell
      ).concat(`${Number(logGb.toPrecision(2))} GB`, `$${dollars.toFixed(2)}`);
    }),
  ];
}

/** What the simulation says of each load: as deployed, and with what it needs. */
export function simulateLoads(upload: Upload): { asDeployed: Outcome; raised: Outcome }[] {
  return LOADS.map((load) => {
    const raised = raisedFor(load, upload);
    const asDeployed = simulate(modelOf(load, upload));
    const isRaised = Object.values(raised).some((value) => value !== undefined);
    return {
      asDeployed,
      raised: isRaised ? simulate(modelOf(load, upload, raised)) : asDeployed,
    };
  });
}

export function outcomesTable(outcomes: ReturnType<typeof simulateLoads>): Cells {
  const cells = ({ mostWaiting, latestMs, lastRowMs, parked }: Outcome) => [
    about(mostWaiting),
    late(latestMs),
    duration(lastRowMs),
    about(parked),
  ];
  return [
    ["uploads", "stack", "most waiting", "latest row", "last row after", "parked"],
    ...LOADS.flatMap(({ name }, i) => {
      const { asDeployed, raised } = outcomes[i];
      return [
        [name, "as deployed", ...cells(asDeployed)],
        ...(raised === asDeployed ? [] : [[name, "raised", ...cells(raised)]]),
      ];
    }),
  ];
}

/** README.md's table. */
export function summaryTable(
  upload: Upload,
  outcomes: ReturnType<typeof simulateLoads>,
): Cells {
  return [
    [
      "uploads",
      "limits met, in order",
      "latest row",
      "parked",
      "raise",
      "latest row, once raised",
      "cost",
    ],
    ...LOADS.map((load, i) => {
      const { asDeployed, raised } = outcomes[i];
      const { dollars } = needsOf(load, upload);
      return [
        load.name,
        limitsMet(load, upload, asDeployed),
        late(asDeployed.latestMs),
        about(asDeployed.parked),
        toRaise(load, upload),
        late(raised.latestMs),
        `$${dollars.toFixed(2)}`,
      ];
    }),
  ];
}

/** Limits that a load meets, but for the one of a single key. */
function limitsMet({ perSecond }: Load, upload: Upload, { latestMs }: Outcome): string {
  const isTooOld = latestMs > MAXIMUM_AGE_MS - THROTTLED.mostMs; // its next try would be later
  const met = LIMITS.filter(({ short, enoughFor }) =>
    short === "event age" ? isTooOld : short !== "one key" && enoughFor(upload) < perSecond
  );
  return inOrder(met, upload).map(({ short }) => short).join(", ") || "none";
}

function inOrder(limits: Limit[], upload: Upload): Limit[] {
  const order = (a: Limit, b: Limit) => a.enoughFor(upload) < b.enoughFor(upload) ? -1 : 1;
  return limits.toSorted(order);
}

function toRaise(load: Load, upload: Upload): string {
  const { prefixes } = needsOf(load, upload);
  const { concurrency, units } = raisedFor(load, upload);
  return [
    prefixes > 1 && `${prefixes} prefixes`,
    concurrency !== undefined && `concurrency ${count(concurrency)}`,
    units !== undefined && units > TABLE_UNITS && `table quota ${count(units)}`,
    units !== undefined && `table warmed to ${count(units)}`,
  ].filter(Boolean).join(", ") || "nothing";
}

function late(ms: number): string {
  return ms < 1000 ? "at once" : `${duration(ms)} late`;
}

export function duration(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** A count in two digits, in millions where it is so large. */
export function about(number: number): string {
  const rounded = Number(number.toPrecision(2));
  return rounded >= 1e6 ? `${count(rounded / 1e6)} million` : count(rounded);
}
