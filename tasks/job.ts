/** Backfill past one machine: a job of S3 Batch Operations invokes the function for each object. */

import {
  CreateJobCommand,
  DescribeJobCommand,
  type JobDescriptor,
  S3ControlClient,
  UpdateJobStatusCommand,
} from "@aws-sdk/client-s3-control";
import { denoTask } from "./commands.ts";
import { narrowest, toArguments } from "./filters.ts";
import { TIME, type Time } from "./signals.ts";
import { configOf } from "./clients.ts";
import { type Stack, type Where, withStack } from "./target.ts";
import { FindingError, plural, print, say, UserError, visible } from "./terminal.ts";

/** AWS asks to look at a job no more often: AmazonS3/latest/userguide/batch-ops-job-status.html */
const POLL_MS = 30_000;

/** S3 may not find a new job for so long: AmazonS3/latest/userguide/troubleshooting-batch-ops.html */
const APPEARS_MS = 120_000;

/** A job never leaves these states by itself; a suspended one waits for somebody to confirm it. */
const ENDED = ["Complete", "Failed", "Cancelled", "Suspended"];

/** By these words of S3 a failed job is one that had nothing to do. */
const NO_OBJECT = /no keys matching the filter criteria/;

/** By S3's service model: JobId. */
const JOB_ID = /^[a-zA-Z0-9_-]{5,36}$/;

/** How far a job is. */
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
}

export interface JobOptions {
  /** A job that is there; a new one by default. */
  job?: string;
  /** Of the keys; the trigger's filter counts too. */
  prefix: string;
  /** Does not wait for the job's end. */
  detach: boolean;
  /** Ends the job. */
  cancel: boolean;
  time?: Time;
}

type StackOfJob = Pick<Stack, "outputs" | "flags">;

/** What `backfill --batch` does. */
export async function backfillByJob(
  where: Where,
  { json, dryRun, batch, ...options }: JobOptions & Record<"json" | "dryRun" | "batch", boolean>,
): Promise<void> {
  if (!batch) throw new UserError("--detach, --cancel and JOB are for --batch: add it");
  if (dryRun) throw new UserError("--dry-run and --batch exclude each other: choose one");
  if (options.cancel && options.job === undefined) {
    throw new UserError("--cancel needs the id of a job: --batch JOB --cancel");
  }
  if (options.job !== undefined && !JOB_ID.test(options.job)) {
    throw new UserError(
      `${visible(options.job)} is no id of a job: 5 to 36 letters, digits, - and _`,
    );
  }
  if (where.local) {
    throw new UserError("The stand-in has no S3 Batch Operations: leave --batch or --local out");
  }
  await withStack(where, async (stack) => {
    const control = new S3ControlClient(configOf(stack.outputs.aws_region));
    const report = await runJob(control, stack, options);
    print(report, json, jobToText);
    if (report.failed > 0) {
      const logs = denoTask(stack, "logs", "--failed", "--since", "1d");
      throw new FindingError(
        `The job did not record all objects: ${logs} names them, and says why`,
      );
    }
    if (!report.ok && !options.cancel) {
      throw new FindingError("The job ended before all objects were done: see above");
    }
  });
}

/**
 * Makes a job, unless one is given, and waits for its end. The job goes on when this is stopped.
 *
 * @throws {UserError} the stack has no role for jobs, or the given job is not of this stack
 */
export async function runJob(
  control: S3ControlClient,
  stack: StackOfJob,
  { job, prefix, detach, cancel, time = TIME }: JobOptions,
): Promise<JobReport> {
  const id = job ?? await createJob(control, stack, prefix);
  if (job === undefined) {
    const again = denoTask(stack, "backfill", "--batch", id);
    say(`Job ${id} runs on AWS by itself: ${again} looks at it again`);
  }
  const appearsUntilMs = time.nowMs() + APPEARS_MS;
  let isToEnd = cancel;
  while (true) {
    const found = await findJob(control, stack, id);
    // S3 knows a new job a little later.
    const isAwaited = job === undefined && time.nowMs() < appearsUntilMs;
    if (found === undefined && !isAwaited) {
      const make = denoTask(stack, "backfill", "--batch");
      throw new UserError(
        `${visible(id)} is no job of this stack; ${make} makes one, and says its id`,
      );
    }
    const report = toReport(found ?? {}, id);
    const hasEnded = ENDED.includes(report.status);
    if (isToEnd && (!hasEnded || report.status === "Suspended")) {
      const { account_id: AccountId } = stack.outputs;
      const end = { AccountId, JobId: id, RequestedJobStatus: "Cancelled" } as const;
      await control.send(new UpdateJobStatusCommand(end));
      isToEnd = false;
      continue;
    }
    if (detach || hasEnded) return report;
    say(jobToText(report));
    await time.pause(POLL_MS);
  }
}

async function createJob(
  control: S3ControlClient,
  { outputs }: StackOfJob,
  wanted: string,
): Promise<string> {
  const { account_id, batch_role_arn, filter_prefixes, filter_suffixes } = outputs;
  if (batch_role_arn === undefined) {
    throw new UserError(
      "The stack has no role for jobs of S3 Batch Operations: deploy with batch_backfill = true",
    );
  }
  const prefixes = narrowest(wanted, filter_prefixes);
  if (prefixes.length > 1) {
    const each = prefixes.map((prefix) => `--prefix "${prefix}"`).join(" and ");
    throw new UserError(
      `A job of S3 Batch Operations takes one prefix: make one for each, with ${each}`,
    );
  }
  // S3 takes one text in each list: of several suffixes the function leaves out what does not match.
  const only = (texts: string[]) => texts.length === 1 ? texts : undefined;
  const [MatchAnyPrefix, MatchAnySuffix] = [only(prefixes), only(filter_suffixes)];
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
          // The function checks them too: AWS does not say whether both of a manifest's must hold.
          UserArguments: toArguments({ filter_prefixes: prefixes, filter_suffixes }),
        },
      },
      ManifestGenerator: {
        S3JobManifestGenerator: {
          SourceBucket: outputs.s3_bucket_arn,
          ExpectedBucketOwner: account_id,
          EnableManifestOutput: false, // nobody reads it
          Filter: MatchAnyPrefix || MatchAnySuffix
            ? { KeyNameConstraint: { MatchAnyPrefix, MatchAnySuffix } }
            : undefined,
        },
      },
      Report: { Enabled: false }, // the function's log names each failure
    }),
  );
  return JobId!;
}

/** The job of an id; undefined if this stack's function has none. */
async function findJob(
  control: S3ControlClient,
  { outputs: { account_id: AccountId, lambda_function_arn } }: StackOfJob,
  JobId: string,
): Promise<JobDescriptor | undefined> {
  const look = new DescribeJobCommand({ AccountId, JobId });
  const { Job } = await control.send(look).catch((error) => {
    // NoSuchJobException by S3's documentation, NotFoundException by its service model.
    if (error.$metadata?.httpStatusCode !== 404) throw error;
    return { Job: undefined };
  });
  return Job?.Operation?.LambdaInvoke?.FunctionArn === lambda_function_arn ? Job : undefined;
}

function toReport(job: JobDescriptor, id: string): JobReport {
  const { Status = "New", ProgressSummary = {}, FailureReasons = [] } = job;
  const { TotalNumberOfTasks, NumberOfTasksSucceeded = 0, NumberOfTasksFailed = 0 } =
    ProgressSummary;
  const reasons = FailureReasons.map(({ FailureCode, FailureReason }) =>
    [FailureCode, FailureReason].filter((text) => text !== undefined).join(": ")
  );
  const isEmpty = Status === "Failed" && reasons.some((reason) => NO_OBJECT.test(reason));
  return {
    ok: isEmpty || NumberOfTasksFailed === 0 && !/^(Fail|Cancel|Suspend)/.test(Status),
    job: id,
    status: Status,
    objects: isEmpty ? 0 : TotalNumberOfTasks,
    succeeded: NumberOfTasksSucceeded,
    failed: NumberOfTasksFailed,
    reasons: isEmpty ? [] : reasons,
  };
}

/** A report for people: why the job failed, and its counts. */
export function jobToText(report: JobReport): string {
  const { ok, job, status, objects, succeeded, failed, reasons } = report;
  const counts = objects === undefined
    ? "its objects are not listed yet"
    : `${plural(objects, "object")}, ${succeeded} done, ${failed} failed`;
  return [
    ...reasons.map((reason) => `FAILED: ${visible(reason)}`),
    ok && status === "Failed"
      ? `Job ${job} found no object that the trigger's filter lets through`
      : `Job ${job} is ${visible(status)}: ${counts}`,
  ].join("\n");
}
