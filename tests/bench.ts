/**
 * Measures what the function, `backfill` and `destroy` cost. A ratio is a gate: each figure stands
 * beside another one of the same run, so that a busy machine changes both.
 *
 *   deno run --allow-all tests/bench.ts      a table; exit code 1 if a ratio is too high
 */

import { join } from "node:path";
import process from "node:process";
import * as esbuild from "esbuild";
import { unzipSync } from "fflate";
import { backfillRows } from "../tasks/backfill.ts";
import { emptyBucket } from "../tasks/bucket.ts";
import { build, BUNDLE_OPTIONS, zipOf } from "../tasks/build.ts";
import { type Clients, clientsOf } from "../tasks/clients.ts";
import { temporaryFolder } from "../tasks/files.ts";
import { OPTIONS } from "../tasks/options.ts";
import { say, toTable } from "../tasks/terminal.ts";
import type { Outputs } from "../tasks/terraform.ts";
import { makeTools } from "../tasks/tools.ts";
import { AwsServices, type Holding } from "./aws_services.ts";
import { nodeOptions } from "./fixtures.ts";
import {
  type Environment,
  eventOf,
  type Invocation,
  startFunction,
  writeFunction,
} from "./function_process.ts";
import { Stub } from "./stub.ts";

/** Each figure of the function is the median of this many rounds. */
const ROUNDS = 5;

/** What is measured, what it is measured beside, and the most that it may be of that. */
const FIGURES = {
  zip: { name: "zip, bytes", beside: "esbuild's default", most: 0.35 },
  import: { name: "import, ms of CPU", beside: "esbuild's default", most: 0.5 },
  cold: { name: "import and first event, ms of CPU", beside: "esbuild's default", most: 0.7 },
  first: { name: "first event, ms of CPU", beside: "without a warm-up", most: 0.6 },
  event: { name: "an event after 400, ms of CPU", beside: "esbuild's default", most: 1.25 },
  backfill: { name: "backfill of 100,000 objects, µs of CPU each", beside: "10,000", most: 1 },
  backfillMemory: { name: "backfill of 100,000 objects, MB", beside: "10,000", most: 2.2 },
  destroy: { name: "destroy of 1,000,000 versions, µs of CPU each", beside: "100,000", most: 1.15 },
  destroyMemory: { name: "destroy of 1,000,000 versions, MB", beside: "100,000", most: 1.25 },
};

/** A figure, and the one that it is measured beside. */
type Pair = [own: number, other: number];
type Pairs = Partial<Record<keyof typeof FIGURES, Pair>>;

async function measureAll(): Promise<Pairs[]> {
  const { node } = await makeTools();
  await using folder = await temporaryFolder();
  await using stub = await Stub.start();
  const env = { NODE_OPTIONS: await nodeOptions(), AWS_ENDPOINT_URL: stub.server.url };
  const { zip } = await build();
  const bundle = await writeFunction(join(folder.path, "bundle"), unzipSync(zip));
  const defaultZip = await zipByDefault();
  const other = await writeFunction(join(folder.path, "default"), unzipSync(defaultZip));
  const rounds: Pairs[] = [{ zip: [zip.length, defaultZip.length] }];
  for (let round = 1; round <= ROUNDS; round++) {
    say(`Round ${round} of ${ROUNDS} ...`);
    const [own, beside] = [
      await measureFunction(node, bundle, env),
      await measureFunction(node, other, env),
    ];
    rounds.push({
      import: [own.import, beside.import],
      cold: [own.cold, beside.cold],
      first: [own.first, own.unwarmed],
      event: [own.event, beside.event],
    });
  }
  return [...rounds, await measureTask("backfill", 10_000), await measureTask("destroy", 100_000)];
}

/** The function in the bundle that esbuild makes by default. */
async function zipByDefault(): Promise<Uint8Array> {
  const { absWorkingDir, entryPoints, platform } = BUNDLE_OPTIONS;
  const options = { absWorkingDir, entryPoints, platform, bundle: true, write: false } as const;
  const { outputFiles } = await esbuild.build(options).finally(esbuild.stop);
  return zipOf(outputFiles[0].contents);
}

/** Milliseconds of CPU: its start without a warm-up; then, in another process, a first event and one after 400. */
async function measureFunction(node: string, folder: string, env: Environment) {
  await using cold = await startFunction(node, folder, { ...env, WARM_UP: "off" });
  const unwarmed = checked(await cold.invoke(eventOf("first")));
  await using warm = await startFunction(node, folder, env);
  checked(warm.init);
  const first = checked(await warm.invoke(eventOf("first")));
  checked(await warm.invoke(eventOf("warm"), { times: 399 }));
  const events = checked(await warm.invoke(eventOf("event"), { times: 100 }));
  return {
    import: checked(cold.init).cpuMs,
    cold: cold.init.cpuMs + unwarmed.cpuMs,
    unwarmed: unwarmed.cpuMs,
    first: first.cpuMs,
    event: events.cpuMs / 100,
  };
}

function checked(invocation: Invocation): Invocation {
  if (invocation.error === undefined) return invocation;
  throw new Error(`Cannot measure the function: it failed with ${invocation.error}`);
}

/** What a task's work took, in a process of its own. */
interface Taken {
  cpuMs: number;
  peakMb: number;
}

/** By name: the tasks, by their own code. */
const TASKS = {
  async backfill(clients: Clients): Promise<void> {
    const concurrency = OPTIONS.concurrency.read(undefined);
    const stack = { ...clients, outputs: OUTPUTS, flags: "" };
    const { ok } = await backfillRows(stack, { prefix: "", dryRun: false, concurrency });
    if (!ok) throw new Error("some objects failed");
  },
  async destroy({ s3 }: Clients): Promise<void> {
    await emptyBucket(s3, "bucket");
  },
};

const OUTPUTS = {
  s3_bucket_name: "uploads",
  lambda_function_name: "function",
  filter_prefixes: [] as string[],
  filter_suffixes: [] as string[],
} as Outputs;

/** Does a task's work in this process, and prints what it took. */
async function runTask(task: keyof typeof TASKS): Promise<void> {
  const clients = clientsOf("us-east-1");
  const startCpu = process.cpuUsage();
  let peakMb = 0;
  const look = () => peakMb = Math.max(peakMb, Deno.memoryUsage().rss / 1e6);
  setInterval(look, 50);
  await TASKS[task](clients);
  look();
  const { user, system } = process.cpuUsage(startCpu);
  console.log(JSON.stringify({ cpuMs: (user + system) / 1000, peakMb } satisfies Taken));
  Deno.exit(); // connections stay open
}

/** Does a task's work in a process of its own, on services of this process. */
export async function measured(
  task: keyof typeof TASKS,
  holding: Holding,
): Promise<{ taken: Taken; services: AwsServices }> {
  await using services = await AwsServices.start(holding);
  await using folder = await temporaryFolder();
  const certificate = `${folder.path}/certificate.pem`;
  await Deno.writeTextFile(certificate, services.server.ca);
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", import.meta.filename!, task],
    env: {
      AWS_ENDPOINT_URL: services.server.url,
      AWS_ACCESS_KEY_ID: "test",
      AWS_SECRET_ACCESS_KEY: "test",
      AWS_CA_BUNDLE: certificate,
      NO_PROXY: "127.0.0.1",
    },
    stderr: "inherit",
  }).output();
  if (!success) throw new Error(`Cannot measure ${task}: it failed`);
  const { left } = services;
  if (left > 0) throw new Error(`${task} left out ${left} of ${holding.objects} objects`);
  return { taken: JSON.parse(new TextDecoder().decode(stdout)), services };
}

/** Many objects beside a tenth of them. */
async function measureTask(task: keyof typeof TASKS, few: number): Promise<Pairs> {
  const many = 10 * few;
  say(`${task} of ${few} and ${many} objects ...`);
  const { taken: less } = await measured(task, { objects: few });
  const { taken: more } = await measured(task, { objects: many });
  return {
    [task]: [1000 * more.cpuMs / many, 1000 * less.cpuMs / few],
    [`${task}Memory`]: [more.peakMb, less.peakMb],
  };
}

/** A line for each figure: the medians, and the median of the rounds' ratios. */
function toRows(rounds: Pairs[]): { cells: string[]; isMet: boolean }[] {
  return Object.entries(FIGURES).map(([key, { name, beside, most }]) => {
    const pairs = rounds.map((round) => round[key as keyof Pairs])
      .filter((pair) => pair !== undefined);
    const own = number(median(pairs.map(([own]) => own)));
    const other = number(median(pairs.map(([, other]) => other)));
    const ratio = median(pairs.map(([own, other]) => own / other));
    const isMet = ratio <= most;
    const verdict = isMet ? "" : "MISSED";
    return {
      cells: [name, own, `${other} ${beside}`, ratio.toFixed(2), `${most}`, verdict],
      isMet,
    };
  });
}

function number(figure: number): string {
  return figure.toLocaleString("en-US", { maximumSignificantDigits: 3 });
}

/** Of an odd number of figures. */
function median(figures: number[]): number {
  return figures.toSorted((a, b) => a - b)[figures.length >> 1];
}

async function main(): Promise<number> {
  const rows = toRows(await measureAll());
  const head = ["median", "here", "beside", "ratio", "at most", ""];
  console.log(toTable([head, ...rows.map(({ cells }) => cells)], [1, 3, 4]).join("\n"));
  return rows.every(({ isMet }) => isMet) ? 0 : 1;
}

if (import.meta.main) {
  const [task] = Deno.args;
  if (task === "backfill" || task === "destroy") await runTask(task);
  else Deno.exit(await main());
}
