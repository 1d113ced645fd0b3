/** The demo: what the pipeline does, in two minutes and on one screen. */

import { join } from "node:path";
import { GetRolePolicyCommand, PutRolePolicyCommand } from "@aws-sdk/client-iam";
import { DeleteObjectCommand, PutObjectCommand } from "@aws-sdk/client-s3";
import { writeZip } from "./build.ts";
import { denoTask } from "./commands.ts";
import { deploy } from "./deploy.ts";
import { destroy } from "./destroy.ts";
import { readText } from "./files.ts";
import { countFailures } from "./invoke.ts";
import { replayFailures } from "./replay.ts";
import { queryRows } from "./table.ts";
import { SAMPLES } from "./samples.ts";
import { LOCAL_FOLDER } from "./shell.ts";
import { interrupted, pause } from "./signals.ts";
import { stopStandIn } from "./stand_in.ts";
import { connect, DEMO, lockWorkspace, openTarget, type Stack, targetOf } from "./target.ts";
import { clip, FindingError, plural, redirectProgress, say, toTable, visible } from "./terminal.ts";
import { type FileReport, type Report, rowToText, verifyStack } from "./verify.ts";

/** Where the output of Terraform and the others goes. */
const DEMO_LOG = join(LOCAL_FOLDER, "demo.log");

/** Columns of a step's line before its time. */
const COLUMNS = 70;

/** How long an event may take to fail three times. */
const FAILED_WITHIN_MS = 60_000;

/** Deploys, shows and destroys, on a stand-in of its own, which it always stops at the end. */
export async function demo({ verbose }: { verbose: boolean }): Promise<void> {
  const { workspace } = DEMO;
  await Deno.mkdir(LOCAL_FOLDER, { recursive: true });
  using _lock = await lockWorkspace(workspace);
  try {
    await stopStandIn(workspace); // of a demo that was killed
    using screen = openScreen(verbose ? undefined : DEMO_LOG);
    await showAll(screen.step);
  } catch (error) {
    if (!verbose && !interrupted.aborted) say(await readText(DEMO_LOG) ?? "");
    throw error;
  } finally {
    await stopStandIn(workspace);
  }
}

async function showAll(step: Step): Promise<void> {
  const startMs = performance.now();
  await step("Bundle and zip the function", writeZip, ({ zip }) => `${zip.length} bytes`);
  await onTarget(step);
  const seconds = Math.round((performance.now() - startMs) / 1000);
  const next = (...words: string[]) => `  ${denoTask(targetOf({ local: true }), ...words)}`;
  const commands = toTable([
    [next("deploy"), "the same, until destroy --local"],
    [next("verify", "README.md", "--keep"), "a file of yours"],
    [next("rows"), "its row"],
  ]);
  console.log(
    `\nThat took ${seconds} s, and nothing is left of it. What you would type next:\n\n` +
      commands.join("\n"),
  );
}

async function onTarget(step: Step): Promise<void> {
  const open = () => openTarget(DEMO, { standIn: "start" });
  await using target = await step("Start the stand-in for AWS on this machine", open);
  const outputs = await step(
    "Deploy main.tf to it",
    () => deploy(target, { yes: true, show: "brief" }),
  );
  const stack = connect(target, outputs);
  const report = await step(
    `Upload ${SAMPLES.length} files, wait for their rows, send each event again`,
    () => verifyStack(stack, { samples: SAMPLES, leftOut: [] }, { ...target, keep: false }),
  );
  if (!report.ok) throw new FindingError(report.problems.map(visible).join("\n"));
  console.log(filesToText(report));
  await showFailure(step, stack);
  await step(
    "Destroy it, and look for all that has its name",
    () => destroy(target, { yes: true }),
    () => "nothing is left",
  );
}

/** A line for each file, then one row whole. */
export function filesToText({ files }: Report): string {
  const size = (file: FileReport) => Number(file.row!.file_size).toLocaleString("en-US");
  const rows = files.map((file) => [
    `  ${clip(file.file, 22)}`,
    size(file),
    clip(String(file.row!.content_type ?? ""), 16),
    `${file.rowAfterMs} ms`,
    clip(String(file.row!.content_preview ?? "-"), 14),
  ]);
  const head = ["  file", "bytes", "type", "row after", "preview"];
  return [
    ...toTable([head, ...rows], [1, 3]),
    "  The row of the first one, whole:",
    rowToText(files[0].row!),
  ].join("\n");
}

/** An upload whose row can't be written: the failure queue keeps its event, which is replayed. */
async function showFailure(step: Step, stack: Stack): Promise<void> {
  const Bucket = stack.outputs.s3_bucket_name;
  const Key = "kept.txt";
  const role = { RoleName: stack.outputs.lambda_function_name, PolicyName: "metadata" };
  const put = (PolicyDocument: string) =>
    stack.iam.send(new PutRolePolicyCommand({ ...role, PolicyDocument }));
  const { PolicyDocument } = await stack.iam.send(new GetRolePolicyCommand(role));
  const whole = decodeURIComponent(PolicyDocument!);

  await step("Forbid it the table, and upload a file", async () => {
    const policy = JSON.parse(whole);
    const isKept = ({ Sid }: { Sid: string }) => Sid !== "WriteRows";
    await put(JSON.stringify({ ...policy, Statement: policy.Statement.filter(isKept) }));
    await stack.s3.send(new PutObjectCommand({ Bucket, Key, Body: "Nothing is lost.\n" }));
    for (const endMs = Date.now() + FAILED_WITHIN_MS; (await countFailures(stack)).visible === 0;) {
      if (Date.now() > endMs) throw new FindingError("The event did not reach the failure queue");
      await pause(200);
    }
  }, () => "failed 3 times, and kept");

  await step("Give the permission back, and replay", async () => {
    await put(whole);
    const { replayed } = await replayFailures(stack, { dryRun: false, max: Infinity });
    const rows = await queryRows(stack, Key);
    if (rows.length !== 1) throw new FindingError(`The replayed event left ${rows.length} rows`);
    await stack.s3.send(new DeleteObjectCommand({ Bucket, Key }));
    return replayed;
  }, (replayed) => `${plural(replayed, "event")}, one row`);
}

type Step = ReturnType<typeof openScreen>["step"];

/**
 * What the demo prints; on a terminal a step's time runs while it works. The steps' own progress goes to a
 * file, or is shown if there is none.
 */
export function openScreen(logFile: string | undefined) {
  const file = logFile === undefined
    ? undefined
    : Deno.openSync(logFile, { write: true, create: true, truncate: true, mode: 0o600 });
  const log = file && redirectProgress((bytes) => void file.writeSync(bytes));
  const live = file !== undefined && Deno.stdout.isTerminal();
  const write = (text: string) => Deno.stdout.writeSync(new TextEncoder().encode(text));

  /** Does a step: what `work` returns ends its line. */
  async function step<T>(
    name: string,
    work: () => Promise<T>,
    ending: (result: T) => string = () => "",
  ): Promise<T> {
    const startMs = performance.now();
    const show = (mark: string, text: string, end = "") => {
      const time = `${((performance.now() - startMs) / 1000).toFixed(1)} s`.padStart(8);
      write(`${live ? "\r" : ""}${mark} ${text.padEnd(COLUMNS - 2)}${time}${end}`);
    };
    const timer = setInterval(() => live && show("·", name), 100);
    try {
      const result = await work();
      show("✓", [name, ending(result)].filter((part) => part !== "").join(": "), "\n");
      return result;
    } catch (error) {
      show("✗", name, "\n");
      throw error;
    } finally {
      clearInterval(timer);
    }
  }
  return { step, [Symbol.dispose]: () => log?.[Symbol.dispose]() };
}
