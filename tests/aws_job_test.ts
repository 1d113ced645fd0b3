/** `backfill --batch` against a fake of S3 Control that speaks the SDK's own wire format. */

import assert from "node:assert/strict";
import { S3ControlClient } from "@aws-sdk/client-s3-control";
import { TASKS } from "../tasks.ts";
import { toSentence } from "../tasks/failures.ts";
import { backfillByJob, type JobOptions, type JobReport, jobToText, runJob } from "../tasks/job.ts";
import type { Outputs } from "../tasks/terraform.ts";
import { fakeTime, progressOf } from "./fixtures.ts";

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

/** What DescribeJob answers of a job: its status, and its counts if its objects are listed. */
function job(status: string, counts?: [all: number, succeeded: number, failed: number], more = "") {
  const progress = counts === undefined ? "" : "<ProgressSummary>" +
    `<TotalNumberOfTasks>${counts[0]}</TotalNumberOfTasks>` +
    `<NumberOfTasksSucceeded>${counts[1]}</NumberOfTasksSucceeded>` +
    `<NumberOfTasksFailed>${counts[2]}</NumberOfTasksFailed></ProgressSummary>`;
  return `<Status>${status}</Status>${progress}${more}` +
    `<Operation><LambdaInvoke><FunctionArn>${FUNCTION}</FunctionArn></LambdaInvoke></Operation>`;
}

function reason(code: string, text: string): string {
  return `<FailureReasons><member><FailureCode>${code}</FailureCode>` +
    `<FailureReason>${text}</FailureReason></member></FailureReasons>`;
}

const ID = "job-0a-1";
const NOT_FOUND = "";
const CANCELLED = { requestedJobStatus: "Cancelled" };

interface ControlRequest {
  method: string;
  path: string;
  query: Record<string, string>;
  hostname: string;
  headers: Record<string, string>;
  body: string;
}

/**
 * S3 Control as the SDK reaches it. It answers with each of `jobs` in turn, then always with the last
 * one, or refuses every call by a code.
 */
function fakeControl(jobs: string[], refusal = "") {
  const requests: ControlRequest[] = [];
  const left = [...jobs];
  const answer = ({ method, path, query }: ControlRequest): [status: number, xml: string] => {
    const refused = (status: number, code: string): [number, string] => [
      status,
      `<ErrorResponse><Error><Code>${code}</Code><Message>no</Message></Error></ErrorResponse>`,
    ];
    if (refusal !== "") return refused(403, refusal);
    if (method === "GET") {
      assert.equal(path, `/v20180820/jobs/${ID}`);
      const job = left.length > 1 ? left.shift()! : left[0];
      if (job === NOT_FOUND) return refused(404, "NoSuchJobException");
      return [200, `<DescribeJobResult><Job>${job}</Job></DescribeJobResult>`];
    }
    if (path === "/v20180820/jobs") return [200, `<R><JobId>${ID}</JobId></R>`];
    assert.deepEqual([path, query], [`/v20180820/jobs/${ID}/status`, CANCELLED]);
    left[0] = left[0].replace("Active", "Cancelled");
    return [200, "<R></R>"];
  };
  const handle = (request: ControlRequest) => {
    requests.push(request);
    const [statusCode, xml] = answer(request);
    const body = new TextEncoder().encode(xml);
    return Promise.resolve({ response: { statusCode, headers: {}, body } });
  };
  const client = new S3ControlClient({
    region: "eu-central-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    requestHandler: { handle } as never,
  });
  return { client, requests };
}

/** Runs a job of the stack: its report, the lines of progress, and the requests. */
async function run(
  jobs: string[],
  options: Partial<JobOptions> = {},
  { outputs = {}, refusal }: { outputs?: Partial<Outputs>; refusal?: string } = {},
) {
  const { client, requests } = fakeControl(jobs, refusal);
  const { time } = fakeTime();
  let report: JobReport | undefined;
  let error: unknown;
  const progress = await progressOf(async () => {
    const stack = { outputs: { ...OUTPUTS, ...outputs }, flags: " --env x" };
    const all = { ...{ prefix: "", detach: false, cancel: false, time }, ...options };
    await runJob(client, stack, all).then((done) => report = done, (thrown) => error = thrown);
  });
  const methods = requests.map(({ method }) => method).join(" ");
  return { report: report!, error, progress: progress.split("\n").slice(0, -1), requests, methods };
}

Deno.test("backfill --batch makes a job of what the trigger lets through", async () => {
  const { requests: [{ body, ...request }] } = await run([job("New")], {
    prefix: "in/2026/",
    detach: true,
  });
  const { method, path, hostname, headers } = request;
  assert.deepEqual([method, path], ["POST", "/v20180820/jobs"]);
  assert.equal(hostname, "123456789012.s3-control.eu-central-1.amazonaws.com");
  assert.equal(headers["x-amz-account-id"], "123456789012");
  const xml = body.replace(/<\?xml.*?\?>/, "").replace(/ xmlns="[^"]*"/, "")
    .replace(/(<ClientRequestToken>)[\w-]{36}(<)/, "$1TOKEN$2");
  assert.equal(xml.replaceAll("><", ">\n<"), CREATE_JOB);

  // A condition on keys is there only where there is one.
  const one = (kind: string, text: string) =>
    `<MatchAny${kind}><member>${text}</member></MatchAny${kind}>`;
  const cases: [prefix: string, ofFilter: string, suffix: string, constraint?: string][] = [
    ["", "", "", undefined],
    ["a&b/", "", "", one("Prefix", "a&amp;b/")],
    ["", "in/", "", one("Prefix", "in/")],
    ["", "", ".csv", one("Suffix", ".csv")],
  ];
  for (const [prefix, filter_prefix, filter_suffix, expected] of cases) {
    const outputs = { filter_prefix, filter_suffix };
    const { requests: [{ body }] } = await run([job("New")], { prefix, detach: true }, { outputs });
    const constraint = body.match(/<KeyNameConstraint>(.*)<\/KeyNameConstraint>/)?.[1];
    assert.equal(constraint, expected);
    assert.equal(body.includes("KeyNameConstraint"), expected !== undefined);
  }
});

Deno.test("backfill --batch waits for a job, and tells its end", async (t) => {
  const reasons = reason("E", "no \u009b[31m");
  const none = "Manifest generation found no keys matching the filter criteria.";
  const complete = job("Complete", [2, 2, 0]);
  const active = job("Active", [2, 1, 0]);
  const end = "Job job-0a-1 is Complete: 2 objects, 2 done, 0 failed";
  const look = { job: ID };
  type Case = [string, string[], Partial<JobOptions>, methods: string, text: string, ok: boolean];
  const cases: Case[] = [
    ["it ends", [job("Preparing"), active, complete], {}, "POST GET GET GET", end, true],
    [
      "S3 does not know it yet",
      [NOT_FOUND, NOT_FOUND, complete],
      {},
      "POST GET GET GET",
      end,
      true,
    ],
    ["looked at again", [active, complete], look, "GET GET", end, true],
    ["--cancel when it has ended", [complete], { ...look, cancel: true }, "GET GET", end, true],
    [
      "--cancel",
      [active],
      { ...look, cancel: true },
      "GET POST GET",
      "Job job-0a-1 is Cancelled: 2 objects, 1 done, 0 failed",
      false,
    ],
    [
      "--detach",
      [active, complete],
      { ...look, detach: true },
      "GET",
      "Job job-0a-1 is Active: 2 objects, 1 done, 0 failed",
      true,
    ],
    [
      "objects fail",
      [job("Complete", [3, 1, 2])],
      {},
      "POST GET",
      "Job job-0a-1 is Complete: 3 objects, 1 done, 2 failed",
      false,
    ],
    [
      "it finds no object",
      [job("Failed", undefined, reason("ManifestGenerationFailed", none))],
      {},
      "POST GET",
      "Job job-0a-1 found no object that the trigger's filter lets through",
      true,
    ],
    ...["Failed", "Cancelled", "Suspended"].map((status): Case => [
      `it ends as ${status}`,
      [job(status, undefined, reasons)],
      {},
      "POST GET",
      `FAILED: E: no \\u{9b}[31m\nJob job-0a-1 is ${status}: its objects are not listed yet`,
      false,
    ]),
  ];
  for (const [name, jobs, options, methods, text, ok] of cases) {
    await t.step(name, async () => {
      const done = await run(jobs, options);
      assert.deepEqual([done.methods, jobToText(done.report), done.report.ok], [methods, text, ok]);
    });
  }
  const { report, progress } = await run([job("New"), job("Active", [400, 100, 0]), complete]);
  assert.deepEqual(progress, [
    "Job job-0a-1 runs on AWS by itself: deno task backfill --batch job-0a-1 --env x looks at it again",
    "Job job-0a-1 is New: its objects are not listed yet",
    "Job job-0a-1 is Active: 400 objects, 100 done, 0 failed",
  ]);
  const counts = { objects: 2, succeeded: 2, failed: 0 };
  assert.deepEqual(report, { ok: true, job: ID, status: "Complete", ...counts, reasons: [] });
});

Deno.test("backfill --batch refuses another stack's job, and tells AWS's refusal", async () => {
  const foreign = new RegExp(
    `^${ID} is no job of this stack; deno task backfill --batch --env x makes`,
  );
  const complete = job("Complete");
  const cases: [jobs: string[], Partial<JobOptions>, Parameters<typeof run>[2], RegExp, string][] =
    [
      [[NOT_FOUND, complete], { job: ID }, {}, foreign, "GET"],
      [[complete.replace(FUNCTION, `${FUNCTION}-2`)], { job: ID }, {}, foreign, "GET"],
      [["<Status>Complete</Status>"], { job: ID, cancel: true }, {}, foreign, "GET"],
      [[NOT_FOUND], {}, {}, foreign, "POST GET GET GET GET GET"], // for two minutes
      [[], { prefix: "out/" }, {}, /filter_prefix is "in\/"$/, ""],
      [
        [],
        {},
        { outputs: { batch_role_arn: undefined } },
        /deploy it with batch_backfill = true first$/,
        "",
      ],
    ];
  for (const [jobs, options, stack, message, methods] of cases) {
    const done = await run(jobs, options, stack);
    assert.match((done.error as Error).message, message);
    assert.equal(done.methods, methods);
  }
  const { error } = await run([], {}, { refusal: "AccessDenied" });
  assert.match(toSentence(error, {})!, /^AWS refused: AccessDenied: no\nThe role .* permission/);
});

Deno.test("backfill says which of its options exclude each other", async () => {
  const none = {
    prefix: "",
    json: false,
    dryRun: false,
    batch: true,
    detach: false,
    cancel: false,
  };
  const foreign = /^--detach, --cancel and JOB are for --batch: add it$/;
  const cases: [options: Partial<typeof none & { job: string }>, local: boolean, RegExp][] = [
    [{ dryRun: true }, false, /^--dry-run and --batch exclude each other: choose one$/],
    [{}, true, /^The stand-in has no S3 Batch Operations: leave --batch or --local out$/],
    [{ batch: false, job: ID }, false, foreign],
    [{ batch: false, detach: true }, false, foreign],
    [{ batch: false, cancel: true }, false, foreign],
    [{ cancel: true }, false, /^--cancel needs the id of a job: --batch JOB --cancel$/],
    [{ job: "a/b\u001bcd" }, false, /^a\/b\\u\{1b\}cd is no id of a job: 5 to 36 letters, digits/],
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
