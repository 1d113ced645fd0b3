/** `backfill --batch` against a fake of S3 Control; the SDK's types are AWS's model of its requests. */

import assert from "node:assert/strict";
import type {
  CreateJobCommandInput,
  JobDescriptor,
  S3ControlClient,
} from "@aws-sdk/client-s3-control";
import { TASKS } from "../tasks.ts";
import { backfillByJob, type JobOptions, type JobReport, jobToText, runJob } from "../tasks/job.ts";
import type { Outputs } from "../tasks/terraform.ts";
import { fakeStack, fakeTime, progressOf } from "./fixtures.ts";
import { awsError } from "./outside.ts";

const FUNCTION = "arn:aws:lambda:eu-central-1:123456789012:function:app";

const OUTPUTS = {
  account_id: "123456789012",
  aws_region: "eu-central-1",
  s3_bucket_name: "app",
  s3_bucket_arn: "arn:aws:s3:::app",
  lambda_function_arn: FUNCTION,
  filter_prefixes: ["in/"],
  filter_suffixes: [".txt"],
  batch_role_arn: "arn:aws:iam::123456789012:role/app-batch",
} as Outputs;

const ID = "job-0a-1";

const NOT_FOUND = awsError("NoSuchJobException", 404);

/** What S3 tells of a job: its status, and its counts if its objects are listed. */
function job(
  Status: JobDescriptor["Status"],
  counts?: [all: number, succeeded: number, failed: number],
  FailureReasons?: JobDescriptor["FailureReasons"],
): JobDescriptor {
  const [TotalNumberOfTasks, NumberOfTasksSucceeded, NumberOfTasksFailed] = counts ?? [];
  const ProgressSummary = { TotalNumberOfTasks, NumberOfTasksSucceeded, NumberOfTasksFailed };
  const Operation = { LambdaInvoke: { FunctionArn: FUNCTION } };
  return { Status, ProgressSummary, FailureReasons, Operation };
}

/**
 * Runs a job of which S3 tells each of `jobs` in turn, then always the last one. Calls are told by their
 * first letters: CreateJob, DescribeJob, UpdateJobStatus.
 */
async function run(
  jobs: (JobDescriptor | Error)[],
  options: Partial<JobOptions> = {},
  outputs: Partial<Outputs> = {},
) {
  let left = jobs;
  const { stack: { sqs: control }, calls } = fakeStack({
    CreateJobCommand: () => ({ JobId: ID }),
    DescribeJobCommand: ({ AccountId, JobId }) => {
      assert.deepEqual([AccountId, JobId], [OUTPUTS.account_id, ID]);
      const [job, ...later] = left;
      if (later.length > 0) left = later;
      return job instanceof Error ? job : { Job: job };
    },
    UpdateJobStatusCommand: ({ AccountId, JobId, RequestedJobStatus }) => {
      assert.deepEqual([AccountId, JobId], [OUTPUTS.account_id, ID]);
      left = ["Cancelling", RequestedJobStatus].map((Status) => ({ ...left[0], Status }));
      return {};
    },
  });
  const stack = { outputs: { ...OUTPUTS, ...outputs }, flags: " --env x" };
  const all = { prefix: "", detach: false, cancel: false, time: fakeTime().time, ...options };
  let done: { report?: JobReport; error?: Error } = {};
  const progress = await progressOf(async () => {
    done = await runJob(control as unknown as S3ControlClient, stack, all)
      .then((report) => ({ report }), (error) => ({ error }));
  });
  return {
    report: done.report!,
    error: done.error,
    progress: progress.split("\n").slice(0, -1),
    calls: calls.map(({ name }) => name[0]).join(""),
    made: calls.find(({ name }) => name === "CreateJobCommand")?.input,
  };
}

Deno.test("backfill --batch makes a job of what the trigger lets through", async () => {
  const { made } = await run([job("New")], { prefix: "in/2026/", detach: true });
  const expected: Omit<CreateJobCommandInput, "ClientRequestToken"> = { // the SDK makes that
    AccountId: "123456789012",
    ConfirmationRequired: false,
    Description: "Backfill of app",
    Priority: 1,
    RoleArn: "arn:aws:iam::123456789012:role/app-batch",
    Operation: {
      LambdaInvoke: {
        FunctionArn: FUNCTION,
        InvocationSchemaVersion: "2.0",
        UserArguments: { filter: '{"filter_prefixes":["in/2026/"],"filter_suffixes":[".txt"]}' },
      },
    },
    ManifestGenerator: {
      S3JobManifestGenerator: {
        SourceBucket: "arn:aws:s3:::app",
        ExpectedBucketOwner: "123456789012",
        EnableManifestOutput: false,
        Filter: {
          KeyNameConstraint: { MatchAnyPrefix: ["in/2026/"], MatchAnySuffix: [".txt"] },
        },
      },
    },
    Report: { Enabled: false },
  };
  assert.deepEqual(made, expected);

  // A condition on keys is there only where there is one.
  const cases: [prefix: string, ofFilter: string[], suffixes: string[], constraint?: object][] = [
    ["", [], [], undefined],
    ["a/", [], [], { MatchAnyPrefix: ["a/"] }],
    ["", [], [".csv"], { MatchAnySuffix: [".csv"] }],
    ["", [], [".csv", ".txt"], undefined], // S3 takes one, so the function decides
    ["in/a", ["in/", "out/"], [".csv", ".txt"], { MatchAnyPrefix: ["in/a"] }],
  ];
  for (const [prefix, filter_prefixes, filter_suffixes, expected] of cases) {
    const outputs = { filter_prefixes, filter_suffixes };
    const { made } = await run([job("New")], { prefix, detach: true }, outputs);
    const { ManifestGenerator } = JSON.parse(JSON.stringify(made)) as CreateJobCommandInput;
    const constraint = ManifestGenerator?.S3JobManifestGenerator?.Filter?.KeyNameConstraint;
    assert.deepEqual(constraint, expected);
  }
});

Deno.test("backfill --batch waits for a job, and tells its end", async () => {
  const complete = job("Complete", [2, 2, 0]);
  const active = job("Active", [2, 1, 0]);
  const waiting = job("Suspended", [2, 0, 0]); // for somebody to confirm it
  const end = "Complete: 2 objects, 2 done, 0 failed";
  const look = { job: ID };
  const [cancel, detach] = [{ ...look, cancel: true }, { ...look, detach: true }];
  const cases: [Parameters<typeof run>[0], Partial<JobOptions>, string, string, boolean][] = [
    [[job("Preparing"), active, complete], {}, "CDDD", end, true],
    [[NOT_FOUND, NOT_FOUND, complete], {}, "CDDD", end, true], // S3 soon knows it
    [[active, complete], look, "DD", end, true],
    [[complete], cancel, "D", end, true],
    [[active], cancel, "DUDD", "Cancelled: 2 objects, 1 done, 0 failed", false],
    [[waiting], cancel, "DUDD", "Cancelled: 2 objects, 0 done, 0 failed", false],
    [[active, complete], detach, "D", "Active: 2 objects, 1 done, 0 failed", true],
    [[job("Complete", [3, 1, 2])], {}, "CD", "Complete: 3 objects, 1 done, 2 failed", false],
  ];
  for (const [jobs, options, calls, told, ok] of cases) {
    const done = await run(jobs, options);
    const expected = [calls, `Job ${ID} is ${told}`, ok];
    assert.deepEqual([done.calls, jobToText(done.report), done.report.ok], expected);
  }
  const reasons = [{ FailureCode: "E", FailureReason: "no \u009b[31m" }];
  for (const status of ["Failed", "Cancelled", "Suspended"] as const) {
    const { report } = await run([job(status, undefined, reasons)]);
    const text = `Job ${ID} is ${status}: its objects are not listed yet`;
    assert.deepEqual([jobToText(report), report.ok], [`FAILED: E: no \\u{9b}[31m\n${text}`, false]);
  }
  const FailureReason = "Manifest generation found no keys matching the filter criteria.";
  const empty = await run([job("Failed", undefined, [{ FailureReason }])]);
  const nothing = `Job ${ID} found no object that the trigger's filter lets through`;
  assert.deepEqual([jobToText(empty.report), empty.report.ok], [nothing, true]);
  const { report, progress } = await run([job("New"), job("Active", [400, 100, 0]), complete]);
  assert.deepEqual(progress, [
    "Job job-0a-1 runs on AWS by itself: deno task backfill --batch job-0a-1 --env x looks at it again",
    "Job job-0a-1 is New: its objects are not listed yet",
    "Job job-0a-1 is Active: 400 objects, 100 done, 0 failed",
  ]);
  const counts = { objects: 2, succeeded: 2, failed: 0 };
  assert.deepEqual(report, { ok: true, job: ID, status: "Complete", ...counts, reasons: [] });
});

Deno.test("backfill --batch refuses a job of another stack, and a stack without the role", async () => {
  const foreign = new RegExp(
    `^${ID} is no job of this stack; deno task backfill --batch --env x makes`,
  );
  const complete = job("Complete");
  const other = { LambdaInvoke: { FunctionArn: `${FUNCTION}-2` } };
  const noRole = { batch_role_arn: undefined };
  const cases: [Parameters<typeof run>, message: RegExp, calls: string][] = [
    [[[NOT_FOUND, complete], { job: ID }], foreign, "D"],
    [[[{ ...complete, Operation: other }], { job: ID }], foreign, "D"],
    [[[{ ...complete, Operation: undefined }], { job: ID, cancel: true }], foreign, "D"],
    [[[NOT_FOUND]], foreign, "CDDDDD"], // for two minutes
    [
      [[], { prefix: "out/" }],
      /^No object below "out\/" is recorded: the stack records keys that begin with "in\/"$/,
      "",
    ],
    [[[], {}, { filter_prefixes: ["a/", "b/"] }], /--prefix "a\/" and --prefix "b\/"$/, ""],
    [[[], {}, noRole], /deploy with batch_backfill = true$/, ""],
  ];
  for (const [args, message, calls] of cases) {
    const done = await run(...args);
    assert.match(done.error!.message, message);
    assert.equal(done.calls, calls);
  }
});

Deno.test("backfill says which of its options exclude each other", async () => {
  const off = { json: false, dryRun: false, detach: false, cancel: false };
  const none = { ...off, prefix: "", batch: true };
  const foreign = /^--detach, --cancel and JOB are for --batch: add it$/;
  const cases: [options: Partial<typeof none & { job: string }>, local: boolean, RegExp][] = [
    [{ dryRun: true }, false, /^--dry-run and --batch exclude each other: choose one$/],
    [{}, true, /^The stand-in has no S3 Batch Operations: leave --batch or --local out$/],
    [{ batch: false, job: ID }, false, foreign],
    [{ batch: false, detach: true }, false, foreign],
    [{ batch: false, cancel: true }, false, foreign],
    [{ job: "a/b\u001bcd" }, false, /^a\/b\\u\{1b\}cd is no id of a job: 5 to 36 letters, digits/],
    [{ cancel: true }, false, /^--cancel needs the id of a job: --batch JOB --cancel$/],
  ];
  for (const [options, local, message] of cases) {
    const running = backfillByJob({ local }, { ...none, ...options });
    await assert.rejects(running, { name: "UserError", message });
  }
});

Deno.test("after Ctrl-C backfill says what goes on", () => {
  const afterCtrlC = TASKS.backfill.afterCtrlC!;
  assert.match(afterCtrlC("deno task backfill --batch"), /^the job that is named above goes on$/);
  assert.match(afterCtrlC("deno task backfill"), /^deno task backfill goes on where this ended$/);
});
