/**
 * Measures what `backfill` takes of the operator's machine: CPU an object, objects a second and peak
 * memory, in a process of its own, against services on this machine that answer at once.
 *
 *   deno run --allow-all tests/bench_backfill.ts                     10,000 and 100,000 objects
 *   deno run --allow-all tests/bench_backfill.ts 10000 1000000      so many
 */

import process from "node:process";
import { temporaryFolder } from "../tasks/files.ts";
import type { Outputs } from "../tasks/terraform.ts";
import { say, toTable } from "../tasks/terminal.ts";
import { type Counts, type Holding, startServices } from "./backfill_services.ts";

/** The most CPU that an object may take. */
const MOST_CPU_MS = { recorded: 0.1, sent: 0.1 };

/** The most memory, however many objects. Garbage fills most of it: V8 collects as it comes near. */
const MOST_MB = 320;

/** What an operator's process took. */
export interface Taken {
  objects: number;
  cpuMs: number;
  ms: number;
  peakMb: number;
}

/** Runs `backfill` in a process of its own. @throws {Error} it did not record every object */
export async function measure(holding: Holding): Promise<{ taken: Taken; counts: Counts }> {
  await using folder = await temporaryFolder();
  await using services = await startServices(folder.path, holding);
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", import.meta.filename!, "operate", services.ca],
    env: { ...services.env, NO_PROXY: "127.0.0.1" },
    stderr: "inherit",
  }).output();
  const counts = await services.counts();
  const { objects } = holding;
  if (!success || counts.rows !== objects) {
    throw new Error(`backfill recorded ${counts.rows} of ${objects} objects`);
  }
  return { taken: JSON.parse(new TextDecoder().decode(stdout)), counts };
}

/** The operator: a backfill as the task runs it. It prints what it took. */
async function operate(ca: string): Promise<void> {
  const { backfillRows } = await import("../tasks/backfill.ts");
  const { OPTIONS } = await import("../tasks/options.ts");
  const { clientsOf } = await import("../tasks/target.ts");
  const clients = clientsOf({ local: true, ca }, "us-east-1");
  const [startCpu, startMs] = [process.cpuUsage(), performance.now()];
  let peakMb = 0;
  const look = () => peakMb = Math.max(peakMb, Deno.memoryUsage().rss / 1024 ** 2);
  const timer = setInterval(look, 50);
  const { ok, objects } = await backfillRows({ ...clients, outputs: OUTPUTS, flags: "" }, {
    prefix: "",
    dryRun: false,
    concurrency: OPTIONS.concurrency.read(undefined),
  });
  clearInterval(timer);
  look();
  const { user, system } = process.cpuUsage(startCpu);
  const taken: Taken = {
    objects,
    cpuMs: (user + system) / 1000,
    ms: performance.now() - startMs,
    peakMb,
  };
  console.log(JSON.stringify(taken));
  Deno.exit(ok ? 0 : 1); // its connections stay open
}

const OUTPUTS = {
  s3_bucket_name: "uploads",
  dynamodb_table_name: "files",
  lambda_function_name: "function",
  filter_prefix: "",
  filter_suffix: "",
  aws_region: "us-east-1",
} as Outputs;

/** Measures both kinds of objects at each count, and prints a table; false if a target is missed. */
async function bench(counts: number[]): Promise<boolean> {
  const rows = [["objects", "CPU an object", "a second", "peak memory", "at most", ""]];
  let met = true;
  for (const [kind, most] of Object.entries(MOST_CPU_MS)) {
    for (const objects of counts) {
      say(`Measuring ${objects} objects, ${kind} ...`);
      const { taken } = await measure({ objects, recorded: kind === "recorded" });
      const { cpuMs, ms, peakMb } = taken;
      const isMet = cpuMs / objects <= most && peakMb <= MOST_MB;
      met &&= isMet;
      rows.push([
        `${objects.toLocaleString("en-US")} ${kind}`,
        `${(cpuMs / objects).toFixed(2)} ms`,
        String(Math.round(objects / ms * 1000)),
        `${Math.round(peakMb)} MB`,
        `${most} ms, ${MOST_MB} MB`,
        isMet ? "met" : "MISSED",
      ]);
    }
  }
  console.log(toTable(rows).join("\n"));
  return met;
}

if (import.meta.main) {
  const [first = "10000", ...others] = Deno.args;
  if (first === "operate") await operate(others[0]);
  const counts = Deno.args.length > 0 ? [first, ...others].map(Number) : [10_000, 100_000];
  Deno.exit(await bench(counts) ? 0 : 1);
}
