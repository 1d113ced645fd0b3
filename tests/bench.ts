/**
 * Measures what the function, `backfill` and `destroy` cost, each figure beside another one of the same run, so
 * that a busy machine changes both: the bundle beside the same code without one and in the bundle that
 * esbuild makes by default, many records, bytes and versions beside few. The function runs in the
 * runtime's own Node; stubs on this machine answer for S3 and DynamoDB.
 *
 *   deno run --allow-all tests/bench.ts      a table; exit code 1 if a ratio is too high
 */

import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import process from "node:process";
import * as esbuild from "esbuild";
import { unzipSync, zipSync } from "fflate";
import { backfillRows } from "../tasks/backfill.ts";
import { emptyBucket } from "../tasks/bucket.ts";
import { build, ENTRY } from "../tasks/build.ts";
import { temporaryFolder } from "../tasks/files.ts";
import { OPTIONS } from "../tasks/options.ts";
import { ROOT } from "../tasks/shell.ts";
import { type Clients, clientsOf } from "../tasks/clients.ts";
import { say, toTable } from "../tasks/terminal.ts";
import type { Outputs } from "../tasks/terraform.ts";
import { makeTools } from "../tasks/tools.ts";
import { type Counts, type Holding, startServices } from "./backfill_services.ts";
import { nodeOptions, toEvent } from "./fixtures.ts";
import {
  type Environment,
  FunctionProcess,
  type Invocation,
  writeFunction,
} from "./function_process.ts";
import { makeCertificate, TlsStub } from "./tls_stub.ts";

/** Each figure of the function is the median of this many rounds. */
const ROUNDS = 5;

/** How long each AWS call takes where an event of many records is measured. */
const DELAY_MS = 20;

const VARIANTS = ["bundle", "unbundled", "default bundle"] as const;
type Variant = typeof VARIANTS[number];

/** What is measured, what it is measured beside, and the most that it may be of that. */
const FIGURES = {
  zip: { name: "zip, bytes", beside: "default bundle", most: 0.35 },
  import: { name: "import, ms", beside: "unbundled", most: 0.5 },
  importOfDefault: { name: "import, ms", beside: "default bundle", most: 0.7 },
  cold: { name: "import and first event, ms", beside: "unbundled", most: 0.7 },
  first: { name: "first event, ms of CPU", beside: "without a warm-up", most: 0.6 },
  event: { name: "an event after 400, ms of CPU", beside: "unbundled", most: 1.25 },
  memory: { name: "peak memory after 1,900 events, MB", beside: "unbundled", most: 1 },
  records: { name: "an event of 500 records, ms", beside: "32 records", most: 18 },
  large: { name: "an object of 512 MB, ms of CPU", beside: "4 KB", most: 1.15 },
  largeMemory: { name: "an object of 512 MB, MB", beside: "4 KB", most: 1.05 },
  backfill: { name: "backfill of 100,000 objects, µs of CPU each", beside: "10,000", most: 1 },
  backfillMemory: { name: "backfill of 100,000 objects, MB", beside: "10,000", most: 2.2 },
  emptying: {
    name: "destroy of 1,000,000 versions, µs of CPU each",
    beside: "100,000",
    most: 1.15,
  },
  emptyingMemory: { name: "destroy of 1,000,000 versions, MB", beside: "100,000", most: 1.25 },
} satisfies Record<string, { name: string; beside: string; most: number }>;

/** A figure, and the one that it is measured beside. */
type Pair = [own: number, other: number];
type Pairs = Partial<Record<keyof typeof FIGURES, Pair>>;

async function measureAll(): Promise<Pairs[]> {
  const { node } = await makeTools();
  // In the project's folder, where Node finds the packages of the variant without a bundle.
  await using folder = await temporaryFolder();
  const written = await writeVariants(folder.path);
  await using stub = await TlsStub.start(folder.path);
  const env = { NODE_OPTIONS: await nodeOptions(), AWS_ENDPOINT_URL: stub.url };
  const rounds: Pairs[] = [];
  while (rounds.length < ROUNDS) {
    say(`Round ${rounds.length + 1} of ${ROUNDS} ...`);
    rounds.push(await measureRound(node, written, env));
  }
  return [...rounds, await measureBackfill(), await measureDestroy(folder.path)];
}

/** Measures the variants in turn. */
async function measureRound(
  node: string,
  { folders, core }: Awaited<ReturnType<typeof writeVariants>>,
  env: Environment,
): Promise<Pairs> {
  await using processes = new AsyncDisposableStack();
  const imports = {} as Record<Variant, number>;
  const firsts = {} as Record<Variant, Invocation>;
  for (const variant of VARIANTS) {
    const { folder } = folders[variant];
    await using cold = await FunctionProcess.start(node, folder, { ...env, WARM_UP: "off" });
    imports[variant] = checked(cold.init).ms;
    firsts[variant] = checked(await cold.invoke(eventOf("first")));
  }
  const start = async (folder: string) => {
    const started = processes.use(await FunctionProcess.start(node, folder, env));
    checked(started.init);
    return started;
  };
  const coldMs = (variant: Variant) => imports[variant] + firsts[variant].ms;
  const { bundle, unbundled } = folders;
  const warm = [await start(bundle.folder), await start(unbundled.folder)];
  return {
    zip: [bundle.zipBytes, folders["default bundle"].zipBytes],
    import: [imports.bundle, imports.unbundled],
    importOfDefault: [imports.bundle, imports["default bundle"]],
    cold: [coldMs("bundle"), coldMs("unbundled")],
    ...await measureEvents(warm, firsts.bundle),
    ...await measureObjects(warm[0]),
    records: await measureRecords(await start(core)),
  };
}

/** CPU of the first event, CPU of one once the code is compiled, and the memory after 1,900. */
async function measureEvents(
  warm: FunctionProcess[],
  withoutWarmUp: Invocation,
): Promise<Pairs> {
  const invoke = async (key: string, times: number) => {
    const invocations: Invocation[] = [];
    for (const lambda of warm) {
      invocations.push(checked(await lambda.invoke(eventOf(key), { times })));
    }
    return {
      cpuMs: invocations.map(({ cpuMs }) => cpuMs / times) as Pair,
      peakMb: invocations.map(({ peakMb }) => peakMb) as Pair,
    };
  };
  const first = await invoke("first", 1);
  await invoke("warm", 399);
  const event = await invoke("event", 100);
  const last = await invoke("more", 1400);
  return {
    first: [first.cpuMs[0], withoutWarmUp.cpuMs],
    event: event.cpuMs,
    memory: last.peakMb,
  };
}

/** What a large object costs, beside a small one. */
async function measureObjects(lambda: FunctionProcess): Promise<Pairs> {
  const invocations: Invocation[] = [];
  for (const key of ["small", "large", "large", "small"]) {
    invocations.push(checked(await lambda.invoke(eventOf(key), { times: 25 })));
  }
  const [small1, large1, large2, small2] = invocations;
  return {
    large: [(large1.cpuMs + large2.cpuMs) / 50, (small1.cpuMs + small2.cpuMs) / 50],
    largeMemory: [large2.peakMb, small1.peakMb],
  };
}

/** How long an event of 500 records takes in the function's core, beside one of 32. */
async function measureRecords(core: FunctionProcess): Promise<Pair> {
  const ms = async (records: number) =>
    checked(await core.invoke(eventOf(`of-${records}`, records))).ms;
  await ms(64);
  const few = await ms(32);
  return [await ms(500), few];
}

/** An event of this many objects, whose keys also differ from one invocation to the next. */
function eventOf(name: string, records = 1) {
  const keys = Array.from({ length: records }, (_, i) => `${name}-{time}-${i}`);
  return toEvent("bucket", keys, 4096);
}

/** The core alone: calls of S3 and DynamoDB are answered in the process, after DELAY_MS. */
const FAKED = `
import { handleEvent } from ${JSON.stringify(`${ROOT}handler.ts`)};
const answer = { ContentLength: 2048, ContentType: "text/plain", LastModified: new Date() };
const bytes = new Uint8Array(2048).fill(97);
const later = (value) => new Promise((resolve) => setTimeout(resolve, ${DELAY_MS}, value));
export const handler = (event) =>
  handleEvent(event, {
    getObject: () => later({ ...answer, bytes }),
    headObject: () => later(answer),
    putItem: () => later({}),
    onTimeMs: 300_000,
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
    return { files, zipBytes: zipSync(files, { level: 9 }).length };
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
  const folders = {} as Record<Variant, { folder: string; zipBytes: number }>;
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

/** What a task's work took, in a process of its own. */
interface Taken {
  cpuMs: number;
  peakMb: number;
}

/** Runs this file again with another part of it, which prints what it took. */
async function measurePart(part: keyof typeof PARTS, env: Environment): Promise<Taken> {
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", import.meta.filename!, part],
    env: { ...env, NO_PROXY: "127.0.0.1" },
    stderr: "inherit",
  }).output();
  if (!success) throw new Error(`Cannot measure ${part}: it failed`);
  return JSON.parse(new TextDecoder().decode(stdout));
}

/** By name: the parts, which act by the code of the tasks behind AWS_ENDPOINT_URL. */
const PARTS = {
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
  dynamodb_table_name: "files",
  lambda_function_name: "function",
  filter_prefix: "",
  filter_suffix: "",
  aws_region: "us-east-1",
} as Outputs;

async function runPart(part: keyof typeof PARTS): Promise<void> {
  const clients = clientsOf({ local: true, ca: Deno.env.get("CERTIFICATE") }, "us-east-1");
  const startCpu = process.cpuUsage();
  let peakMb = 0;
  const look = () => peakMb = Math.max(peakMb, Deno.memoryUsage().rss / 1e6);
  setInterval(look, 50);
  await PARTS[part](clients);
  look();
  const { user, system } = process.cpuUsage(startCpu);
  console.log(JSON.stringify({ cpuMs: (user + system) / 1000, peakMb } satisfies Taken));
  Deno.exit(); // connections stay open
}

/** Runs `backfill` against services that answer at once. @throws {Error} an object has no row then */
export async function runBackfill(holding: Holding): Promise<{ taken: Taken; counts: Counts }> {
  await using folder = await temporaryFolder();
  await using services = await startServices(folder.path, holding);
  const taken = await measurePart("backfill", { ...services.env, CERTIFICATE: services.ca });
  const counts = await services.counts();
  if (counts.rows !== holding.objects) {
    throw new Error(`backfill recorded ${counts.rows} of ${holding.objects} objects`);
  }
  return { taken, counts };
}

async function measureBackfill(): Promise<Pairs> {
  const [few, many] = [10_000, 100_000];
  say(`Backfilling ${few} and ${many} objects ...`);
  const { taken: less } = await runBackfill({ objects: few, recorded: false });
  const { taken: more } = await runBackfill({ objects: many, recorded: false });
  return {
    backfill: [1000 * more.cpuMs / many, 1000 * less.cpuMs / few],
    backfillMemory: [more.peakMb, less.peakMb],
  };
}

async function measureDestroy(folder: string): Promise<Pairs> {
  const [few, many] = [100_000, 1_000_000];
  say(`Emptying buckets of ${few} and ${many} versions ...`);
  const less = await emptyFake(folder, few);
  const more = await emptyFake(folder, many);
  return {
    emptying: [1000 * more.cpuMs / many, 1000 * less.cpuMs / few],
    emptyingMemory: [more.peakMb, less.peakMb],
  };
}

/** Empties a fake bucket of so many versions, as `destroy` does. */
async function emptyFake(folder: string, versions: number): Promise<Taken> {
  const certificate = await makeCertificate(folder);
  const bucket = fakeBucket(versions);
  const server = createServer(certificate, async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const { searchParams } = new URL(request.url!, "https://fake");
    response.writeHead(200, { "content-type": "application/xml" });
    response.end(request.method === "POST" ? bucket.delete(body) : bucket.list(searchParams));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const { port } = server.address() as AddressInfo;
    const taken = await measurePart("destroy", {
      AWS_ENDPOINT_URL: `https://127.0.0.1:${port}`,
      AWS_ACCESS_KEY_ID: "fake",
      AWS_SECRET_ACCESS_KEY: "fake",
      CERTIFICATE: certificate.cert,
    });
    if (bucket.left() > 0) throw new Error(`${bucket.left()} versions are left`);
    return taken;
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** A bucket of versions, whose keys are as long as those of many buckets. */
function fakeBucket(versions: number) {
  const isGone = new Uint8Array(versions);
  const keyOf = (index: number) =>
    `year=2026/month=01/day=02/part-${String(index).padStart(9, "0")}.csv`;
  const entry = (index: number) =>
    `<Version><Key>${encodeURIComponent(keyOf(index))}</Key>` +
    `<VersionId>${"v".repeat(32)}</VersionId><IsLatest>true</IsLatest>` +
    "<LastModified>2026-01-02T03:04:05.000Z</LastModified>" +
    "<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>4096</Size>" +
    `<StorageClass>STANDARD</StorageClass><Owner><ID>${"a".repeat(64)}</ID></Owner></Version>`;
  const indexOf = (key: string) => Number(/(\d{9})\.csv$/.exec(key)?.[1] ?? -1);
  return {
    left: () => versions - isGone.reduce((sum, gone) => sum + gone, 0),
    list(search: URLSearchParams): string {
      if (search.has("uploads")) return "<ListMultipartUploadsResult/>";
      const page: number[] = [];
      let index = indexOf(search.get("key-marker") ?? "") + 1;
      for (; index < versions && page.length < 1000; index++) if (!isGone[index]) page.push(index);
      const next = index < versions
        ? `<NextKeyMarker>${encodeURIComponent(keyOf(index - 1))}</NextKeyMarker>` +
          `<NextVersionIdMarker>v</NextVersionIdMarker>`
        : "";
      return `<ListVersionsResult><EncodingType>url</EncodingType><IsTruncated>${next !== ""}` +
        `</IsTruncated>${next}${page.map(entry).join("")}</ListVersionsResult>`;
    },
    delete(body: string): string {
      for (const [, key] of body.matchAll(/<Key>(.*?)<\/Key>/g)) isGone[indexOf(key)] = 1;
      return "<DeleteResult/>";
    },
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
  return figure >= 1000
    ? Math.round(figure).toLocaleString("en-US")
    : String(Number(figure.toPrecision(3)));
}

function median(figures: number[]): number {
  const sorted = figures.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

async function main(): Promise<number> {
  const rows = toRows(await measureAll());
  const head = ["median", "here", "beside", "ratio", "at most", ""];
  console.log(toTable([head, ...rows.map(({ cells }) => cells)], [1, 3, 4]).join("\n"));
  return rows.every(({ isMet }) => isMet) ? 0 : 1;
}

if (import.meta.main) {
  const [part] = Deno.args;
  if (part === "backfill" || part === "destroy") await runPart(part);
  else Deno.exit(await main());
}
