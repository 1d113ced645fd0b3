/** Backfill past one machine: a job of S3 Batch Operations invokes the function for each object. */

import {
  CreateJobCommand,
  DescribeJobCommand,
  type JobDescriptor,
  type JobManifestGeneratorFilter,
  S3ControlClient,
} from "@aws-sdk/client-s3-control";
import { CREATED_BEFORE } from "../function/batch.ts";
import { narrowest } from "./backfill.ts";
import { readClock } from "./clock.ts";
import { denoTask } from "./commands.ts";
import { SETTLED_MS } from "./rows.ts";
import { pause } from "./signals.ts";
import { configOf, type Stack, type Where, withStack } from "./target.ts";
import { FindingError, plural, print, say, toDuration, UserError, visible } from "./terminal.ts";

/** How often a job is asked after. */
const POLL_MS = 10_000;

/** In these it stays; a suspended one waits for somebody to confirm it. */
const ENDED = ["Complete", "Failed", "Cancelled", "Suspended"];

/** A job, as far as it is. */
export interface JobReport {
  /** Whether nothing has failed so far. */
  ok: boolean;
  job: string;
  /** Its state, by S3's own word. */
  status: string;
  /** Objects that it is about; undefined until S3 has listed them. */
  objects?: number;
  succeeded: number;
  failed: number;
  /** Why it ended before all objects were done. */
  reasons: string[];
  /** Where the report of failures is. S3 writes it at the end, if an object failed. */
  report?: string;
}

export interface JobOptions {
  /** A job that is there; a new one by default. */
  job?: string;
  /** Of the keys; the trigger's filter counts too. */
  prefix: string;
  /** Does not wait for the job's end. */
  detach: boolean;
  pollMs?: number;
}

type StackOfJob = Pick<Stack, "outputs" | "flags">;

/** The story of `backfill --batch`. */
export async function backfillByJob(
  where: Where,
  { json, dryRun, batch, ...options }: JobOptions & Record<"json" | "dryRun" | "batch", boolean>,
): Promise<void> {
  if (!batch) throw new UserError("--detach and JOB are for --batch: add it");
  if (dryRun) throw new UserError("--dry-run and --batch exclude each other: choose one");
  if (where.local) {
    throw new UserError("The stand-in has no S3 Batch Operations: leave --batch or --local out");
  }
  await withStack(where, async (stack, target) => {
    const control = new S3ControlClient(configOf(target, stack.outputs.aws_region));
    const nowMs = (await readClock(stack))();
    const report = await runJob(control, stack, { ...options, nowMs });
    print(report, json, jobToText);
    if (!report.ok) throw new FindingError("The job did not record all objects: see above");
  });
}

/**
 * Makes a job, unless one is given, and waits for its end. It goes on by itself when this is stopped.
 * `nowMs` is S3's time.
 *
 * @throws {UserError} the stack has no role for jobs, or the given job is not of this stack
 */
export async function runJob(
  control: S3ControlClient,
  stack: StackOfJob,
  { job, prefix, detach, nowMs, pollMs = POLL_MS }: JobOptions & { nowMs: number },
): Promise<JobReport> {
  const id = job ?? await createJob(control, stack, prefix, nowMs);
  if (job === undefined) {
    const again = denoTask(stack, "backfill", "--batch", id);
    say(`Job ${id} runs on AWS by itself: ${again} looks at it again`);
  }
  while (true) {
    const found = await findJob(control, stack, id);
    const report = toReport(found, id);
    if (detach || ENDED.includes(report.status)) return report;
    say(progressLine(report, found.ProgressSummary?.Timers?.ElapsedTimeInActiveSeconds));
    await pause(pollMs);
  }
}

/** Its objects are so old that their own event came or never will; the function looks for its row. */
async function createJob(
  control: S3ControlClient,
  { outputs }: StackOfJob,
  prefix: string,
  nowMs: number,
): Promise<string> {
  const { account_id, batch_role_arn, batch_bucket_name, filter_suffix } = outputs;
  if (batch_role_arn === undefined || batch_bucket_name === undefined) {
    throw new UserError(
      "The stack has no role for jobs of S3 Batch Operations: deploy it with batch_backfill = true first",
    );
  }
  const before = new Date(nowMs - SETTLED_MS);
  const Filter = filterOf(before, narrowest(prefix, outputs.filter_prefix), filter_suffix);
  const { JobId } = await control.send(
    new CreateJobCommand({
      AccountId: account_id,
      ConfirmationRequired: false,
      Description: `Backfill of ${outputs.s3_bucket_name}`,
      Priority: 1,
      RoleArn: batch_role_arn,
      Operation: {
        LambdaInvoke: {
          FunctionArn: outputs.lambda_function_arn,
          InvocationSchemaVersion: "2.0", // the first one has no arguments
          UserArguments: { [CREATED_BEFORE]: before.toISOString() },
        },
      },
      ManifestGenerator: {
        S3JobManifestGenerator: {
          SourceBucket: outputs.s3_bucket_arn,
          ExpectedBucketOwner: account_id,
          EnableManifestOutput: false, // nobody reads it
          Filter,
        },
      },
      Report: {
        Enabled: true,
        Bucket: outputs.s3_bucket_arn.replace(/[^:]*$/, batch_bucket_name),
        ExpectedBucketOwner: account_id,
        Format: "Report_CSV_20180820",
        ReportScope: "FailedTasksOnly",
      },
    }),
  );
  return JobId!;
}

/** Which objects S3 lists. An empty text among the conditions on keys would be refused. */
function filterOf(before: Date, prefix: string, suffix: string): JobManifestGeneratorFilter {
  const given = (text: string) => text === "" ? undefined : [text];
  const keys = { MatchAnyPrefix: given(prefix), MatchAnySuffix: given(suffix) };
  const KeyNameConstraint = prefix === "" && suffix === "" ? undefined : keys;
  return { CreatedBefore: before, KeyNameConstraint };
}

async function findJob(
  control: S3ControlClient,
  stack: StackOfJob,
  id: string,
): Promise<JobDescriptor> {
  const notOfStack = () =>
    new UserError(
      `${visible(id)} is no job of this stack; ${
        denoTask(stack, "backfill", "--batch")
      } makes one, and says its id`,
    );
  try {
    const { account_id: AccountId, lambda_function_arn } = stack.outputs;
    const { Job = {} } = await control.send(new DescribeJobCommand({ AccountId, JobId: id }));
    const { FunctionArn } = Job.Operation?.LambdaInvoke ?? {};
    if (FunctionArn === lambda_function_arn) return Job;
  } catch (error) {
    if ((error as Error).name !== "NotFoundException") throw error;
  }
  throw notOfStack();
}

function toReport(job: JobDescriptor, id: string): JobReport {
  const { Status = "New", ProgressSummary = {}, FailureReasons = [], Report } = job;
  const { TotalNumberOfTasks, NumberOfTasksSucceeded = 0, NumberOfTasksFailed = 0 } =
    ProgressSummary;
  const bucket = Report?.Bucket?.split(":").at(-1);
  return {
    ok: NumberOfTasksFailed === 0 && !/^(Fail|Cancel|Suspend)/.test(Status),
    job: id,
    status: Status,
    objects: TotalNumberOfTasks,
    succeeded: NumberOfTasksSucceeded,
    failed: NumberOfTasksFailed,
    reasons: FailureReasons.map(({ FailureCode, FailureReason }) =>
      [FailureCode, FailureReason].filter((text) => text !== undefined).join(": ")
    ),
    report: NumberOfTasksFailed > 0 && bucket !== undefined
      ? `s3://${bucket}/job-${id}/`
      : undefined,
  };
}

/** A report for people: why the job failed, its counts, and where the failures are listed. */
export function jobToText(report: JobReport): string {
  const { job, status, objects, succeeded, failed, reasons } = report;
  const counts = objects === undefined
    ? "its objects are not listed yet"
    : `${plural(objects, "object")}, ${succeeded} done, ${failed} failed`;
  return [
    ...reasons.map((reason) => `FAILED: ${visible(reason)}`),
    `Job ${visible(job)} is ${visible(status)}: ${counts}`,
    ...(report.report === undefined ? [] : [`What failed, and why, is in ${report.report}`]),
  ].join("\n");
}

function progressLine(
  { status, objects, succeeded, failed }: JobReport,
  activeSeconds: number | undefined,
): string {
  const done = succeeded + failed;
  const left = objects === undefined || done === 0 || !activeSeconds
    ? ""
    : `, ${toDuration((objects - done) / done * activeSeconds * 1000)} left`;
  const counts = objects === undefined ? "" : `: ${done} of ${objects} done, ${failed} failed`;
  return `The job is ${visible(status)}${counts}${left}`;
}
