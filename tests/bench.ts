/**
 * Measures the function's size, start, CPU and memory, beside the same handler without a bundle and
 * in the bundle that esbuild makes by default. All three run in the runtime's own Node, in turn,
 * against a stub of S3 and DynamoDB on this machine.
 *
 *   deno task bench          a table; exit code 1 if a target is missed
 *   deno task bench --json   the same for machines
 */

import * as esbuild from "esbuild";
import { unzipSync, zipSync } from "fflate";
import { build, ENTRY } from "../tasks/build.ts";
import { nodeOptions, toEvent } from "./fixtures.ts";
import {
  type Environment,
  FunctionProcess,
  type Invocation,
  writeFunction,
} from "./function_process.ts";
import { TlsStub } from "./tls_stub.ts";
import { temporaryFolder } from "../tasks/files.ts";
import { ROOT } from "../tasks/shell.ts";
import { interrupted } from "../tasks/signals.ts";
import { say, toTable } from "../tasks/terminal.ts";
import { makeTools } from "../tasks/tools.ts";

/** Each figure is the median of this many rounds. */
const ROUNDS = 15;

/** How long each AWS call takes where an event of 500 records is measured. */
const DELAY_MS = 20;

const VARIANTS = ["bundle", "unbundled", "default bundle"] as const;
type Variant = typeof VARIANTS[number];

/** What is measured in each round, and the targets. */
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
  /** The target of the bundle's own figure, an upper limit. */
  most?: number;
  /** Targets of the ratio to another variant's figure, upper limits. */
  mostOf?: Partial<Record<Variant, number>>;
}

/** One round's figures of a variant. What bundling does not change is measured on "bundle" only. */
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

/** Runs the variants in turn, so that other load on the machine slows all of them alike. */
async function measure(node: string, parent: string): Promise<Record<Variant, Run[]>> {
  const written = await writeVariants(parent);
  await using stub = await TlsStub.start(parent);
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

type Written = Awaited<ReturnType<typeof writeVariants>>;

async function measureRound(
  node: string,
  { folders, core }: Written,
  stub: TlsStub,
  nodeEnv: Environment,
): Promise<Record<Variant, Run>> {
  const runs = {} as Record<Variant, Run>;
  const env = { ...nodeEnv, AWS_ENDPOINT_URL: stub.url };
  await using processes = new AsyncDisposableStack();
  for (const variant of VARIANTS) {
    interrupted.throwIfAborted();
    const { folder, zipBytes } = folders[variant];
    const cold = await FunctionProcess.start(node, folder, { ...env, WARM_UP: "off" });
    await using _ = cold;
    const importMs = checked(cold.init).ms;
    const coldMs = importMs + checked(await cold.invoke(eventOf("first"))).ms;
    runs[variant] = { zipBytes, importMs, coldMs };
  }
  const warm = {} as Record<Variant, FunctionProcess>;
  for (const variant of VARIANTS) {
    const { folder } = folders[variant];
    warm[variant] = processes.use(await FunctionProcess.start(node, folder, env));
    checked(warm[variant].init);
    runs[variant].firstCpuMs = checked(await warm[variant].invoke(eventOf("first"))).cpuMs;
  }
  await measureManyEvents(warm, runs);
  const fake = processes.use(await FunctionProcess.start(node, core, env));
  Object.assign(runs.bundle, await measureObjects(warm.bundle));
  Object.assign(runs.bundle, await measureRecords(warm.bundle, fake, stub));
  return runs;
}

/** An event's CPU once the code is compiled, and the memory that 1,900 events leave in use. */
async function measureManyEvents(
  warm: Record<Variant, FunctionProcess>,
  runs: Record<Variant, Run>,
): Promise<void> {
  const allVariants = (key: string, times: number) =>
    Promise.all(
      VARIANTS.map(async (name) => checked(await warm[name].invoke(eventOf(key), { times }))),
    );
  await allVariants("warm", 399);
  for (const variant of VARIANTS) {
    interrupted.throwIfAborted();
    const { cpuMs } = checked(await warm[variant].invoke(eventOf("event"), { times: 100 }));
    runs[variant].eventCpuMs = cpuMs / 100;
  }
  const last = await allVariants("more", 1400);
  for (const [i, variant] of VARIANTS.entries()) runs[variant].peakMb = last[i].peakMb;
}

/** What a large object costs, as a ratio to a small one. */
async function measureObjects(lambda: FunctionProcess): Promise<Run> {
  const sizes = [];
  for (const key of ["small", "large", "large", "small"]) {
    sizes.push(checked(await lambda.invoke(eventOf(key), { times: 25 })));
  }
  const [small1, large1, large2, small2] = sizes;
  return {
    largeOfSmall: (large1.cpuMs + large2.cpuMs) / (small1.cpuMs + small2.cpuMs),
    largePeak: large2.peakMb / small1.peakMb,
  };
}

/** How long an event of 500 records takes, in the whole function and in its core alone. */
async function measureRecords(
  lambda: FunctionProcess,
  fake: FunctionProcess,
  stub: TlsStub,
): Promise<Run> {
  interrupted.throwIfAborted();
  stub.delayMs = DELAY_MS;
  try {
    checked(await lambda.invoke(eventOf("open", 64))); // opens its connections
    const manyWholeMs = checked(await lambda.invoke(eventOf("many", 500))).ms;
    checked(fake.init);
    checked(await fake.invoke(eventOf("warm", 64)));
    return { manyWholeMs, manyMs: checked(await fake.invoke(eventOf("many", 500))).ms };
  } finally {
    stub.delayMs = 0;
  }
}

/** An event of this many objects, whose keys also differ from one invocation to the next. */
function eventOf(name: string, records = 1) {
  const keys = Array.from({ length: records }, (_, i) => `${name}-{time}-${i}`);
  return toEvent("bucket", keys, 4096);
}

/** The core alone: calls of S3 and DynamoDB are answered in the process, after DELAY_MS. */
const FAKED = `
import { handleEvent } from "./handler.ts";
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

/**
 * Writes the deployed bundle, the two that it is compared with (all with the same lambda.mjs), and
 * the core alone.
 */
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

function checked(invocation: Invocation): Invocation {
  if (invocation.error === undefined) return invocation;
  throw new Error(`Cannot measure the function: it failed with ${invocation.error}`);
}

/** The medians, the bundle's ratio to each variant round by round, and whether it meets its targets. */
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
