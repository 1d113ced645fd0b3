/**
 * Measures what the function weighs and takes, beside the same handler without its bundle and in
 * the bundle that esbuild makes by default. All three run in the runtime's own Node, by turns,
 * against a stub of S3 and DynamoDB on this machine.
 *
 *   deno task bench          a table; exit code 1 if a target is missed
 *   deno task bench --json   the same for machines
 */

import { join } from "node:path";
import * as esbuild from "esbuild";
import { unzipSync, zipSync } from "fflate";
import { build, ENTRY } from "../tasks/build.ts";
import { FunctionProcess, Stub, type Taken, type Work, writeFunction } from "./function_process.ts";
import { temporaryFolder } from "../tasks/files.ts";
import { ROOT } from "../tasks/shell.ts";
import { interrupted } from "../tasks/signals.ts";
import { say, toTable } from "../tasks/terminal.ts";
import { makeTools } from "../tasks/tools.ts";

/** Each figure is the median of so many runs. */
const ROUNDS = 15;

/** Time of a call, where a whole lot of them is measured. */
const DELAY_MS = 20;

const VARIANTS = ["bundle", "unbundled", "default bundle"] as const;
type Variant = typeof VARIANTS[number];

/** What is measured of each run, and what it should be. */
const FIGURES = {
  zipBytes: { name: "zip", unit: "bytes", most: 100_000 },
  importMs: {
    name: "import",
    unit: "ms",
    mostOf: { "unbundled": 0.5, "default bundle": 0.7 },
  },
  coldMs: { name: "import and first event", unit: "ms", mostOf: { "unbundled": 0.7 } },
  firstCpuMs: { name: "first event after a warmed init", unit: "ms of CPU", most: 12 },
  eventCpuMs: { name: "an event after 400", unit: "ms of CPU" },
  peakMb: { name: "peak memory after 1,900 events", unit: "MB", most: 97 },
  manyMs: { name: "500 records at 20 ms a call of a fake", unit: "ms", most: 800 },
  manyWholeMs: { name: "500 records at 20 ms a call of the stub", unit: "ms" },
  largeOfSmall: { name: "an object of 512 MB, of one of 4 KB: CPU", unit: "times", most: 1.15 },
  largePeak: { name: "an object of 512 MB, of one of 4 KB: memory", unit: "times", most: 1.05 },
} satisfies Record<string, Figure>;

interface Figure {
  name: string;
  unit: string;
  /** The bundle's own figure at most. */
  most?: number;
  /** Its ratio to another variant's figure at most. */
  mostOf?: Partial<Record<Variant, number>>;
}

/** What depends on neither bundle is measured of the first variant alone. */
type Run = Partial<Record<keyof typeof FIGURES, number>>;

export interface Result {
  name: string;
  unit: string;
  medians: Record<Variant, number>;
  ratios: Record<Variant, number>;
  target: string;
  met: boolean;
}

/** Measures, and compares with the targets. It takes about three minutes. */
export async function bench(): Promise<Result[]> {
  const { node } = await makeTools();
  // In the project's folder, where Node finds the packages of the variant without a bundle.
  await using folder = await temporaryFolder();
  return judge(await measure(node, folder.path));
}

/** Runs all variants by turns, so that whatever else the machine does meets all of them. */
async function measure(node: string, parent: string): Promise<Record<Variant, Run[]>> {
  const written = await writeVariants(parent);
  await using stub = await Stub.start(parent);
  const runs: Record<Variant, Run[]> = { "bundle": [], "unbundled": [], "default bundle": [] };
  const env = { NODE_OPTIONS: await nodeOptions() };
  const startMs = performance.now();
  for (let round = 0; round < ROUNDS; round++) {
    const seconds = Math.round((performance.now() - startMs) / 1000);
    say(`Run ${round + 1} of ${ROUNDS}, after ${seconds} s ...`);
    const measured = await measureRound(node, written, stub, env);
    for (const variant of VARIANTS) runs[variant].push(measured[variant]);
  }
  return runs;
}

async function measureRound(
  node: string,
  { folders, core }: Awaited<ReturnType<typeof writeVariants>>,
  stub: Stub,
  env: Record<string, string>,
): Promise<Record<Variant, Run>> {
  const runs = {} as Record<Variant, Run>;
  const warm = {} as Record<Variant, FunctionProcess>;
  try {
    for (const variant of VARIANTS) {
      interrupted.throwIfAborted();
      const { folder, zipBytes } = folders[variant];
      const options = { env: { ...env, WARM_UP: "off" } };
      await using cold = FunctionProcess.start(node, folder, stub.url, options);
      const importMs = well(await cold.taken()).ms;
      const coldMs = importMs + well(await cold.invoke({ key: "first" })).ms;
      runs[variant] = { zipBytes, importMs, coldMs };
    }
    for (const variant of VARIANTS) {
      const { folder } = folders[variant];
      warm[variant] = FunctionProcess.start(node, folder, stub.url, { env });
      well(await warm[variant].taken());
      runs[variant].firstCpuMs = well(await warm[variant].invoke({ key: "first" })).cpuMs;
    }
    const each = (work: Work) =>
      Promise.all(VARIANTS.map(async (variant) => well(await warm[variant].invoke(work))));
    await each({ key: "warm", times: 399 });
    for (const variant of VARIANTS) {
      interrupted.throwIfAborted();
      const { cpuMs } = well(await warm[variant].invoke({ key: "event", times: 100 }));
      runs[variant].eventCpuMs = cpuMs / 100;
    }
    const taken = await each({ key: "more", times: 1400 });
    for (const [i, variant] of VARIANTS.entries()) runs[variant].peakMb = taken[i].peakMb;

    const lambda = warm.bundle;
    const sizes = [];
    for (const key of ["small", "large", "large", "small"]) {
      sizes.push(well(await lambda.invoke({ key, times: 25 })));
    }
    const [small1, large1, large2, small2] = sizes;
    runs.bundle.largeOfSmall = (large1.cpuMs + large2.cpuMs) / (small1.cpuMs + small2.cpuMs);
    runs.bundle.largePeak = large2.peakMb / small1.peakMb;

    interrupted.throwIfAborted();
    stub.delayMs = DELAY_MS;
    well(await lambda.invoke({ key: "open", records: 64 })); // opens its connections
    runs.bundle.manyWholeMs = well(await lambda.invoke({ key: "many", records: 500 })).ms;
    await using fake = FunctionProcess.start(node, core, stub.url, { env });
    well(await fake.taken());
    well(await fake.invoke({ key: "warm", records: 64 }));
    runs.bundle.manyMs = well(await fake.invoke({ key: "many", records: 500 })).ms;
    return runs;
  } finally {
    stub.delayMs = 0;
    for (const lambda of Object.values(warm)) await lambda[Symbol.asyncDispose]();
  }
}

/** The core alone, between fakes of S3 and DynamoDB. */
const FAKED = `
import { handleEvent } from "../handler.ts";
const answer = { ContentLength: 2048, ContentType: "text/plain" };
const bytes = new Uint8Array(2048).fill(97);
const later = (value) => new Promise((resolve) => setTimeout(resolve, ${DELAY_MS}, value));
export const handler = (event) =>
  handleEvent(event, {
    getObject: () => later({ ...answer, bytes }),
    headObject: () => later(answer),
    putItem: () => later({}),
    now: Date.now,
    remainingMs: () => 60_000,
    log() {},
  });
`;

/** The bundle as it is deployed, and the two that it is compared with, with the same entry. */
async function writeVariants(parent: string) {
  const { zip } = await build();
  const plain = {
    absWorkingDir: ROOT,
    entryPoints: ["function/lambda.ts"],
    platform: "node" as const,
  };
  const bundleWith = async (options: esbuild.BuildOptions) => {
    const { outputFiles } = await esbuild.build({
      ...plain,
      bundle: true,
      write: false,
      ...options,
    });
    const files = {
      "lambda.mjs": new TextEncoder().encode(ENTRY),
      "bundle.cjs": outputFiles![0].contents,
    };
    return { files, zipBytes: options.packages ? undefined : zipSync(files, { level: 9 }).length };
  };
  const contents = {
    "bundle": { files: unzipSync(zip), zipBytes: zip.length },
    "unbundled": await bundleWith({ packages: "external" }),
    "default bundle": await bundleWith({}),
  };
  const { files: faked } = await bundleWith({
    entryPoints: undefined,
    stdin: { contents: FAKED, resolveDir: ROOT },
  });
  await esbuild.stop();
  const core = await writeFunction(parent, "core", faked);
  const folders = {} as Record<Variant, { folder: string; zipBytes?: number }>;
  for (const variant of VARIANTS) {
    const { files, zipBytes } = contents[variant];
    folders[variant] = { folder: await writeFunction(parent, variant, files), zipBytes };
  }
  return { folders, core };
}

/** As main.tf sets them, so that the figures are those of what is deployed. */
async function nodeOptions(): Promise<string> {
  const text = await Deno.readTextFile(join(ROOT, "main.tf"));
  return text.match(/NODE_OPTIONS\s*= "(.*)"/)?.[1] ?? "";
}

function well(taken: Taken): Taken {
  if (taken.error === undefined) return taken;
  throw new Error(`Cannot measure the function: it failed with ${taken.error}`);
}

/** Medians, each run's ratio to the bundle's, and whether the targets are met. */
function judge(runs: Record<Variant, Run[]>): Result[] {
  return Object.entries<Figure>(FIGURES).map(([key, { name, unit, most, mostOf = {} }]) => {
    const of = (variant: Variant) => runs[variant].map((run) => run[key as keyof Run] ?? NaN);
    const own = of("bundle");
    const medians = {} as Record<Variant, number>;
    const ratios = {} as Record<Variant, number>;
    for (const variant of VARIANTS) {
      medians[variant] = median(of(variant));
      ratios[variant] = median(of(variant).map((figure, i) => own[i] / figure));
    }
    const targets = Object.entries(mostOf) as [Variant, number][];
    return {
      name,
      unit,
      medians,
      ratios,
      target: [
        ...(most === undefined ? [] : [String(most)]),
        ...targets.map(([variant, ratio]) => `${ratio} of ${variant}`),
      ].join(", "),
      met: (most === undefined || medians.bundle <= most) &&
        targets.every(([variant, ratio]) => ratios[variant] <= ratio),
    };
  });
}

function median(figures: number[]): number {
  const sorted = figures.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** A table for people. */
export function resultsToText(results: Result[]): string {
  const number = (figure: number) =>
    figure >= 1000
      ? Math.round(figure).toLocaleString("en-US")
      : String(Number(figure.toPrecision(3)));
  const rows = results.map(({ name, unit, medians, ratios, target, met }) => [
    `${name}, ${unit}`,
    number(medians.bundle),
    ...(["unbundled", "default bundle"] as const).map((variant) =>
      Number.isNaN(medians[variant])
        ? ""
        : `${number(medians[variant])} (${ratios[variant].toFixed(2)})`
    ),
    target,
    target === "" ? "" : met ? "met" : "MISSED",
  ]);
  const head = ["median", "bundle", "unbundled (ratio)", "default bundle (ratio)", "at most", ""];
  return toTable([head, ...rows]).join("\n");
}
