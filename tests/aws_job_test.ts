/** `backfill --batch` against a fake of S3 Control that speaks the SDK's own wire format. */

import assert from "node:assert/strict";
import { main, TASKS } from "../tasks.ts";
import { toSentence } from "../tasks/failures.ts";
import { type JobReport, jobToText, runJob } from "../tasks/job.ts";
import type { Outputs } from "../tasks/terraform.ts";
import { FakeControl } from "./fake_control.ts";
import { progressOf } from "./fixtures.ts";

const FUNCTION = "arn:aws:lambda:eu-central-1:123456789012:function:app";

const OUTPUTS = {
  account_id: "123456789012",
  aws_region: "eu-central-1",
  s3_bucket_name: "app",
  s3_bucket_arn: "arn:aws:s3:::app",
  lambda_function_arn: FUNCTION,
  filter_prefix: "in/",
  filter_suffix: ".txt",
  batch_role_arn: "arn:aws:iam::123456789012:role/app-batch",
} as Outputs;

const OPTIONS = { prefix: "", detach: false, cancel: false, pollMs: 1 };

/** What DescribeJob answers of a job: its status, and its counts if its objects are listed. */
function job(status: string, counts?: [all: number, succeeded: number, failed: number], more = "") {
  const progress = counts === undefined ? "" : "<ProgressSummary>" +
    `<TotalNumberOfTasks>${counts[0]}</TotalNumberOfTasks>` +
    `<NumberOfTasksSucceeded>${counts[1]}</NumberOfTasksSucceeded>` +
    `<NumberOfTasksFailed>${counts[2]}</NumberOfTasksFailed>` +
    "<Timers><ElapsedTimeInActiveSeconds>60</ElapsedTimeInActiveSeconds></Timers>" +
    "</ProgressSummary>";
  return `<Status>${status}</Status>${progress}${more}` +
    `<Operation><LambdaInvoke><FunctionArn>${FUNCTION}</FunctionArn></LambdaInvoke></Operation>` +
    "<Report><Enabled>false</Enabled></Report>";
}

Deno.test("backfill --batch makes a job, waits for it and tells its end", async (t) => {
  await using control = await FakeControl.start();
  for (const [name, step] of Object.entries(STEPS)) {
    await t.step(name, async () => {
      Object.assign(control, { requests: [], jobs: {}, refusal: undefined });
      await step(control);
    });
  }
});

const STEPS: Record<string, (control: FakeControl) => Promise<void>> = {
  "the job is about what is below the prefix and has the suffix, by S3's own list": async (
    control,
  ) => {
    control.jobs["job-0a-1"] = [job("New")];
    await run(control, { ...OPTIONS, prefix: "in/2026/", detach: true });
    const [{ body, ...request }] = control.requests;
    assert.deepEqual(request, {
      method: "POST",
      path: "/v20180820/jobs",
      host: "123456789012.s3-control.test",
      account: "123456789012",
      signed: true,
    });
    const xml = body.replace(/<\?xml.*?\?>/, "").replace(/ xmlns="[^"]*"/, "")
      .replace(/(<ClientRequestToken>)[\w-]{36}(<)/, "$1TOKEN$2");
    assert.equal(xml.replaceAll("><", ">\n<"), CREATE_JOB);
  },

  "a condition on keys is there only where there is one": async (control) => {
    control.jobs["job-0a-1"] = [job("New")];
    const constraintOf = async (prefix: string, filter_prefix: string, filter_suffix: string) => {
      control.requests.length = 0;
      const outputs = { ...OUTPUTS, filter_prefix, filter_suffix };
      await run(control, { ...OPTIONS, prefix, detach: true }, outputs);
      const [{ body }] = control.requests;
      const constraint = body.match(/<KeyNameConstraint>(.*)<\/KeyNameConstraint>/)?.[1];
      assert.equal(body.includes("KeyNameConstraint"), constraint !== undefined);
      return constraint;
    };
    const one = (kind: string, text: string) =>
      `<MatchAny${kind}><member>${text}</member></MatchAny${kind}>`;
    assert.equal(await constraintOf("", "", ""), undefined);
    assert.equal(await constraintOf("a&b/", "", ""), one("Prefix", "a&amp;b/"));
    assert.equal(await constraintOf("", "in/", ""), one("Prefix", "in/"));
    assert.equal(await constraintOf("", "", ".csv"), one("Suffix", ".csv"));
  },

  "it waits with progress, and ends with the counts": async (control) => {
    control.jobs["job-0a-1"] = [
      job("Preparing"),
      job("Active", [400, 100, 0]),
      job("Complete", [400, 400, 0]),
    ];
    const { report, progress } = await run(control, OPTIONS);
    assert.deepEqual(progress, [
      "Job job-0a-1 runs on AWS by itself: deno task backfill --batch job-0a-1 --env x looks at it again",
      "The job is Preparing",
      "The job is Active: 100 of 400 done, 0 failed, 3 min left",
    ]);
    assert.deepEqual(report, {
      ok: true,
      job: "job-0a-1",
      status: "Complete",
      objects: 400,
      succeeded: 400,
      failed: 0,
      reasons: [],
    });
    assert.equal(jobToText(report), "Job job-0a-1 is Complete: 400 objects, 400 done, 0 failed");
    assert.deepEqual(control.requests.map(({ method }) => method), ["POST", "GET", "GET", "GET"]);
  },

  "failed objects are a failure": async (control) => {
    control.jobs["job-0a-1"] = [job("Complete", [3, 1, 2])];
    const { report } = await run(control, OPTIONS);
    assert.equal(report.ok, false);
    assert.equal(jobToText(report), "Job job-0a-1 is Complete: 3 objects, 1 done, 2 failed");
  },

  "a job that ends otherwise is a failure, with its reasons": async (control) => {
    const reason = "<FailureReasons><member><FailureCode>E</FailureCode>" +
      "<FailureReason>no \u009b[31m</FailureReason></member></FailureReasons>";
    for (const status of ["Failed", "Cancelled", "Suspended"]) {
      control.jobs["job-0a-1"] = [job(status, undefined, reason)];
      const { report } = await run(control, OPTIONS);
      assert.equal(report.ok, false);
      assert.equal(
        jobToText(report),
        `FAILED: E: no \\u{9b}[31m\nJob job-0a-1 is ${status}: its objects are not listed yet`,
      );
    }
  },

  "a job that finds no object is a success": async (control) => {
    const reason = "<FailureReasons><member><FailureCode>ManifestGenerationFailed</FailureCode>" +
      "<FailureReason>Manifest generation found no keys matching the filter criteria." +
      "</FailureReason></member></FailureReasons>";
    control.jobs["job-0a-1"] = [job("Failed", undefined, reason)];
    const { report } = await run(control, OPTIONS);
    assert.deepEqual([report.ok, report.objects, report.reasons], [true, 0, []]);
    assert.equal(
      jobToText(report),
      "Job job-0a-1 found no object that the trigger's filter lets through",
    );
  },

  "a job that S3 does not know yet is asked for again, by its maker alone": async (control) => {
    control.jobs["job-0a-1"] = ["", "", job("Complete", [2, 2, 0])];
    const { report } = await run(control, OPTIONS);
    assert.deepEqual([report.status, report.succeeded], ["Complete", 2]);
    control.jobs["job-0a-1"] = ["", job("Complete", [2, 2, 0])];
    const asked = run(control, { ...OPTIONS, job: "job-0a-1" });
    await assert.rejects(asked, /^UserError: job-0a-1 is no job of this stack/);
  },

  "--cancel ends a job, and leaves one alone that has ended": async (control) => {
    control.jobs["job-0a-1"] = [job("Active", [2, 1, 0])];
    const { report } = await run(control, { ...OPTIONS, job: "job-0a-1", cancel: true });
    assert.deepEqual([report.status, report.succeeded], ["Cancelled", 1]);
    control.jobs["job-0a-1"] = [job("Complete", [2, 2, 0])];
    const ended = await run(control, { ...OPTIONS, job: "job-0a-1", cancel: true });
    assert.equal(ended.report.status, "Complete");
    const posts = control.requests.filter(({ method }) => method === "POST");
    assert.equal(posts.length, 1);
  },

  "--detach does not wait, and a job is looked at again by its id": async (control) => {
    control.jobs["job-0b-2"] = [job("Active", [2, 1, 0]), job("Complete", [2, 2, 0])];
    const early = await run(control, { ...OPTIONS, job: "job-0b-2", detach: true });
    assert.deepEqual([early.report.status, early.report.ok], ["Active", true]);
    const late = await run(control, { ...OPTIONS, job: "job-0b-2" });
    assert.deepEqual([late.report.status, late.progress], ["Complete", []]);
    assert.deepEqual(control.requests.map(({ method, path }) => `${method} ${path}`), [
      "GET /v20180820/jobs/job-0b-2",
      "GET /v20180820/jobs/job-0b-2",
    ]);
  },

  "a job that is not there, or of another function, is none of this stack's": async (control) => {
    control.jobs["job-0c-3"] = [job("Complete").replace(FUNCTION, `${FUNCTION}-2`)];
    control.jobs["job-0d-4"] = ["<Status>Complete</Status>"];
    for (const id of ["job-0c-3", "job-0d-4", "job-0e-5"]) {
      await assert.rejects(run(control, { ...OPTIONS, job: id }), {
        name: "UserError",
        message: new RegExp(
          `^${id} is no job of this stack; deno task backfill --batch --env x makes`,
        ),
      });
    }
  },

  "without the role nothing is asked": async (control) => {
    const { batch_role_arn: _, ...outputs } = OUTPUTS;
    await assert.rejects(run(control, OPTIONS, outputs as Outputs), {
      name: "UserError",
      message: /deploy it with batch_backfill = true first$/,
    });
    await assert.rejects(run(control, { ...OPTIONS, prefix: "out/" }), /filter_prefix is "in\/"$/);
    assert.deepEqual(control.requests, []);
  },

  "a refusal is AWS's own, and becomes a sentence": async (control) => {
    control.refusal = "AccessDenied";
    const error = await run(control, OPTIONS).catch((error) => error);
    assert.match(toSentence(error, {})!, /^AWS refused: AccessDenied: no\nThe role .* permission/);
  },
};

Deno.test("backfill says which of its options exclude each other", async () => {
  const cases: [args: string[], sentence: RegExp][] = [
    [["--batch", "--dry-run"], /^--dry-run and --batch exclude each other: choose one$/m],
    [["--batch", "--local"], /^The stand-in has no S3 Batch Operations: leave --batch or --local/m],
    ...[["job-0a-1"], ["--detach"], ["--cancel"]].map((args): [string[], RegExp] => [
      args,
      /^--detach, --cancel and JOB are for --batch: add it$/m,
    ]),
    [["--batch", "--cancel"], /^--cancel needs the id of a job: --batch JOB --cancel$/m],
    [["--batch", "a/b\u001bcd"], /^a\/b\\u\{1b\}cd is no id of a job: 5 to 36 letters, digits/m],
    [
      ["--batch", "job-0a-1", "0a-2"],
      /^"0a-2" is not an option; deno task backfill takes \[JOB\] /m,
    ],
  ];
  TASKS.backfill.interactive = true; // without signal handlers
  try {
    for (const [args, sentence] of cases) {
      let code = 0;
      const said = await progressOf(async () => code = await main(["backfill", ...args]));
      assert.match(said, sentence);
      assert.equal(code, 1);
    }
  } finally {
    delete TASKS.backfill.interactive;
  }
});

Deno.test("after Ctrl-C backfill says what goes on", () => {
  const afterCtrlC = TASKS.backfill.afterCtrlC!;
  assert.match(afterCtrlC("deno task backfill --batch"), /^the job that is named above goes on$/);
  assert.match(afterCtrlC("deno task backfill"), /^deno task backfill goes on where this ended$/);
});

/** Runs a job of the stack, and returns its report and the lines of progress. */
async function run(
  control: FakeControl,
  options: Parameters<typeof import("../tasks/job.ts").runJob>[2],
  outputs: Outputs = OUTPUTS,
) {
  let report: JobReport | undefined;
  const progress = await progressOf(async () => {
    report = await runJob(control.client, { outputs, flags: " --env x" }, options);
  });
  return { report: report!, progress: progress.split("\n").filter((line) => line !== "") };
}

/** The whole request, an element a line. */
const CREATE_JOB = `<CreateJobRequest>
<Operation>
<LambdaInvoke>
<FunctionArn>arn:aws:lambda:eu-central-1:123456789012:function:app</FunctionArn>
<InvocationSchemaVersion>2.0</InvocationSchemaVersion>
<UserArguments>
<entry>
<key>filter_prefix</key>
<value>in/2026/</value>
</entry>
<entry>
<key>filter_suffix</key>
<value>.txt</value>
</entry>
</UserArguments>
</LambdaInvoke>
</Operation>
<Report>
<Enabled>false</Enabled>
</Report>
<Priority>1</Priority>
<RoleArn>arn:aws:iam::123456789012:role/app-batch</RoleArn>
<ConfirmationRequired>false</ConfirmationRequired>
<ClientRequestToken>TOKEN</ClientRequestToken>
<Description>Backfill of app</Description>
<ManifestGenerator>
<S3JobManifestGenerator>
<SourceBucket>arn:aws:s3:::app</SourceBucket>
<EnableManifestOutput>false</EnableManifestOutput>
<ExpectedBucketOwner>123456789012</ExpectedBucketOwner>
<Filter>
<KeyNameConstraint>
<MatchAnyPrefix>
<member>in/2026/</member>
</MatchAnyPrefix>
<MatchAnySuffix>
<member>.txt</member>
</MatchAnySuffix>
</KeyNameConstraint>
</Filter>
</S3JobManifestGenerator>
</ManifestGenerator>
</CreateJobRequest>`;
