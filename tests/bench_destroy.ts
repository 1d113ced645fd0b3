/**
 * Measures what emptying a bucket costs this machine, from ten thousand versions to a million: CPU a
 * version, memory, and versions a second. A process of its own empties a fake of S3 behind TLS by the
 * code of `deno task destroy`. The fake answers at once, and in the last run as late as S3 may.
 *
 *   deno run --allow-all tests/bench_destroy.ts      a table; exit code 1 if a target is missed
 */

import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { temporaryFolder } from "../tasks/files.ts";
import { toTable } from "../tasks/terminal.ts";
import { makeCertificate } from "./tls_stub.ts";

const PAGE = 1000;

const SIZES = [10_000, 100_000, 1_000_000];
const LATE = { versions: 100_000, delayMs: 300 };

/** What a million versions may cost, as ratios to a hundred thousand. */
const MOST = { cpu: 1.15, memory: 1.25 };

/** What the emptying process tells of itself. */
interface Measured {
  versions: number;
  seconds: number;
  cpuMs: number;
  peakMb: number;
}

/** Empties a fake bucket of so many versions in a process of its own. */
async function measure(versions: number, delayMs = 0): Promise<Measured & { calls: number }> {
  await using folder = await temporaryFolder();
  const certificate = await makeCertificate(folder.path);
  const bucket = fakeBucket(versions);
  let calls = 0;
  const server = createServer(certificate, async (request, response) => {
    calls++;
    let body = "";
    for await (const chunk of request) body += chunk;
    await new Promise((resolve) => setTimeout(resolve, delayMs));
    const { searchParams } = new URL(request.url!, "https://fake");
    response.writeHead(200, { "content-type": "application/xml" });
    response.end(request.method === "POST" ? bucket.delete(body) : bucket.list(searchParams));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const { port } = server.address() as AddressInfo;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--allow-all", fileURLToPath(import.meta.url), "empty"],
      env: {
        AWS_ENDPOINT_URL: `https://127.0.0.1:${port}`,
        AWS_ACCESS_KEY_ID: "fake",
        AWS_SECRET_ACCESS_KEY: "fake",
        CERTIFICATE: certificate.cert,
      },
      stderr: "inherit",
    });
    const { code, stdout } = await child.output();
    if (code !== 0) throw new Error(`Cannot measure emptying: it ended with exit code ${code}`);
    return { ...JSON.parse(new TextDecoder().decode(stdout)), calls };
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** The process that is measured: it empties the bucket behind AWS_ENDPOINT_URL. */
async function empty(): Promise<Measured> {
  const { emptyBucket } = await import("../tasks/bucket.ts");
  const { clientsOf } = await import("../tasks/target.ts");
  const { s3 } = clientsOf({ local: true, ca: Deno.env.get("CERTIFICATE") }, "us-east-1");
  let peakMb = 0;
  const sample = () => peakMb = Math.max(peakMb, Deno.memoryUsage().rss / 1e6);
  const timer = setInterval(sample, 50);
  const [startMs, startCpu] = [performance.now(), process.cpuUsage()];
  const { versions } = await emptyBucket(s3, "bucket");
  const { user, system } = process.cpuUsage(startCpu);
  const seconds = (performance.now() - startMs) / 1000;
  clearInterval(timer);
  sample();
  return { versions, seconds, cpuMs: (user + system) / 1000, peakMb };
}

/** A bucket of versions, whose keys are as long as those of many buckets. */
function fakeBucket(versions: number) {
  const isGone = new Uint8Array(versions);
  const keyOf = (index: number) =>
    `year=2026/month=01/day=02/part-${String(index).padStart(9, "0")}.csv`;
  const entry = (index: number) =>
    `<Version><Key>${encodeURIComponent(keyOf(index))}</Key><VersionId>${
      "v".repeat(32)
    }</VersionId>` +
    "<IsLatest>true</IsLatest><LastModified>2026-01-02T03:04:05.000Z</LastModified>" +
    "<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>4096</Size>" +
    `<StorageClass>STANDARD</StorageClass><Owner><ID>${"a".repeat(64)}</ID></Owner></Version>`;
  const indexOf = (key: string) => Number(/(\d{9})\.csv$/.exec(key)?.[1] ?? -1);
  return {
    list(search: URLSearchParams): string {
      if (search.has("uploads")) return "<ListMultipartUploadsResult/>";
      const page: number[] = [];
      let index = indexOf(search.get("key-marker") ?? "") + 1;
      for (; index < versions && page.length < PAGE; index++) if (!isGone[index]) page.push(index);
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

async function main(): Promise<number> {
  const rows = [[
    "versions",
    "an answer after",
    "CPU a version",
    "peak memory",
    "calls",
    "a second",
  ]];
  const measureRow = async (size: number, delayMs = 0) => {
    const measured = await measure(size, delayMs);
    const { versions, seconds, cpuMs, peakMb, calls } = measured;
    if (versions !== size) throw new Error(`${versions} of ${size} versions were deleted`);
    rows.push([
      String(versions),
      `${delayMs} ms`,
      `${(cpuMs / versions * 1000).toFixed(0)} µs`,
      `${peakMb.toFixed(0)} MB`,
      String(calls),
      (versions / seconds).toFixed(0),
    ]);
    return measured;
  };
  const measured = [];
  for (const size of SIZES) measured.push(await measureRow(size));
  await measureRow(LATE.versions, LATE.delayMs);
  const [less, more] = measured.slice(-2);
  const cpu = (more.cpuMs / more.versions) / (less.cpuMs / less.versions);
  const memory = more.peakMb / less.peakMb;
  const isMet = cpu <= MOST.cpu && memory <= MOST.memory;
  console.log(toTable(rows, [0, 1, 2, 3, 4, 5]).join("\n"));
  console.log(
    `\n${more.versions} versions, of ${less.versions}: CPU a version ${
      cpu.toFixed(2)
    } times (at most ` +
      `${MOST.cpu}), memory ${memory.toFixed(2)} times (at most ${MOST.memory}): ` +
      (isMet ? "met" : "MISSED"),
  );
  return isMet ? 0 : 1;
}

if (import.meta.main) {
  if (Deno.args[0] === "empty") console.log(JSON.stringify(await empty()));
  else Deno.exit(await main());
}
