/** Status: what is deployed, on one screen, what was changed by hand, and whether it needs attention. */

import { DescribeAlarmsCommand } from "@aws-sdk/client-cloudwatch";
import { DescribeTableCommand } from "@aws-sdk/client-dynamodb";
import { GetFunctionCommand } from "@aws-sdk/client-lambda";
import { writeZip, ZIP_URL } from "./build.ts";
import { now } from "./clients.ts";
import { denoTask } from "./commands.ts";
import { bucketNotifies, countFailures, type QueueCounts, silenceOf, strayCode } from "./invoke.ts";
import { newestRows } from "./logs.ts";
import { toRowTable } from "./rows.ts";
import type { Item } from "./table.ts";
import { findDeleted, type Stack, type Target } from "./target.ts";
import { clip, plural, toDuration, toTable, visible, withProgress } from "./terminal.ts";
import * as terraform from "./terraform.ts";

/** Rows that are shown. */
const NEWEST = 10;

export interface Status {
  ok: boolean;
  bucket: { name: string; notifies: boolean };
  function?: Awaited<ReturnType<typeof readFunction>> & { code: "as deployed" | "not as deployed" };
  /** Newest first. */
  rows: Item[];
  /** Where the search for rows ended early: those written before are not shown. */
  rowsSince?: string;
  failureQueue: QueueCounts;
  alarms: { name: string; since: string; reason: string }[];
  /** Whether each resource was compared with main.tf. */
  compared: boolean;
  /** What needs attention, as sentences. */
  problems: string[];
}

/**
 * Looks at each part. `deployedSha256` is of the code that Terraform deployed, in base64; `drift` is
 * what its plan would change, if there was one.
 */
export async function readStatus(
  stack: Stack,
  deployedSha256: string,
  drift?: terraform.Change[],
): Promise<Status> {
  const { s3_bucket_name, dynamodb_table_name: TableName } = stack.outputs;
  const wrong = new Map<string, string>(); // what is wrong with a part, by its address in main.tf
  const [notifies, fn, table, failureQueue, alarms] = await Promise.all([
    partOf(stack, wrong, bucketNotifies(stack)),
    partOf(stack, wrong, readFunction(stack)),
    partOf(stack, wrong, stack.dynamo.send(new DescribeTableCommand({ TableName }))),
    partOf(stack, wrong, countFailures(stack)),
    readAlarms(stack),
  ]);
  const newest = table && await partOf(stack, wrong, newestRows(stack, NEWEST));
  if (notifies === false) wrong.set("aws_s3_bucket_notification.uploads[0]", silenceOf(stack));
  const { TableStatus = "ACTIVE" } = table?.Table ?? {};
  if (!["ACTIVE", "UPDATING"].includes(TableStatus)) { // as without its key
    wrong.set("aws_dynamodb_table.files", `the table ${TableName} is ${TableStatus}, not ACTIVE`);
  }
  const code = fn?.codeSha256 === deployedSha256 ? "as deployed" : "not as deployed";
  const seen: Omit<Status, "ok" | "problems"> = {
    bucket: { name: s3_bucket_name, notifies: notifies ?? false },
    function: fn && { ...fn, code },
    rows: newest?.rows ?? [],
    rowsSince: newest?.since,
    failureQueue: failureQueue ?? { visible: 0, inFlight: 0 },
    alarms,
    compared: drift !== undefined,
  };
  const problems = [
    ...wrong.values(),
    ...driftToProblems((drift ?? []).filter(({ address }) => !wrong.has(address)), stack),
    ...problemsOf(stack, seen),
  ];
  return { ok: problems.length === 0, ...seen, problems };
}

/** Undefined where a part was deleted by hand. */
async function partOf<T>(stack: Stack, wrong: Map<string, string>, look: Promise<T>) {
  try {
    return await look;
  } catch (error) {
    const found = findDeleted(error, stack);
    if (found === undefined) throw error;
    wrong.set(found.address, found.sentence);
  }
}

function problemsOf(
  target: Pick<Stack, "flags">,
  { function: fn, failureQueue, alarms }: Omit<Status, "ok" | "problems">,
): string[] {
  const problems: string[] = [];
  if (fn && !["Active", "Inactive"].includes(fn.state)) {
    problems.push(`the function is ${fn.state}, not Active`);
  }
  if (fn?.code === "not as deployed") {
    problems.push(`${strayCode(fn.lastModified)}; ${denoTask(target, "deploy")} puts it right`);
  }
  const failed = failureQueue.visible + failureQueue.inFlight;
  if (failed > 0) {
    const [logs, replay] = [denoTask(target, "logs"), denoTask(target, "replay")];
    const what = `${plural(failed, "event")} in the failure queue`;
    problems.push(`${what}: ${logs} says why, ${replay} runs them again`);
  }
  return [...problems, ...alarms.map(({ name }) => `the alarm ${name} is in ALARM`)];
}

/** A status for people, on one screen. */
export function statusToText(status: Status): string {
  const { bucket, function: fn, rows, rowsSince, failureQueue, alarms, problems } = status;
  const age = (iso: string) => toDuration(now() - Date.parse(iso));
  const inFlight = failureQueue.inFlight > 0 ? `, and ${failureQueue.inFlight} in flight` : "";
  const changed = fn &&
    `${fn.name}, ${fn.runtime}, ${fn.state}, changed ${age(fn.lastModified)} ago`;
  const well = status.compared
    ? "All is well."
    : "The trigger, the code, the failure queue and the alarms are well; no more was looked at.";
  return [
    ...toTable([
      ["bucket", `${bucket.name}, ${bucket.notifies ? "calls" : "does not call"} the function`],
      ["function", changed ?? "deleted"],
      ["code", fn ? `${fn.codeSha256}, ${fn.code}` : "deleted"],
      ["failure queue", plural(failureQueue.visible, "event") + inFlight],
      ["alarms", alarms.length === 0 ? "none in ALARM" : `${alarms.length} in ALARM`],
    ]),
    ...alarms.map(({ name, since, reason }) =>
      `  ${visible(name)}, ${age(since)} ago: ${clip(reason, 100)}`
    ),
    "",
    ...rows.length > 0 ? toRowTable(rows) : ["No row was written lately."],
    ...rowsSince === undefined
      ? []
      : [`The log is large: rows written more than ${age(rowsSince)} ago were not looked for.`],
    "",
    ...problems.length > 0 ? problems.map((problem) => `WRONG: ${visible(problem)}`) : [well],
  ].join("\n");
}

export async function readFunction({ lambda, outputs }: Stack) {
  const FunctionName = outputs.lambda_function_name;
  const { Configuration = {} } = await lambda.send(new GetFunctionCommand({ FunctionName }));
  const { LastUpdateStatus, State = "", LastModified = "", Runtime = "", CodeSha256 = "" } =
    Configuration;
  return {
    name: FunctionName,
    state: LastUpdateStatus === "Failed" ? "failed to update" : State,
    lastModified: LastModified,
    runtime: Runtime,
    codeSha256: CodeSha256,
  };
}

export async function readAlarms({ cloudwatch, outputs }: Stack): Promise<Status["alarms"]> {
  const { MetricAlarms = [] } = await cloudwatch.send(
    new DescribeAlarmsCommand({
      AlarmNamePrefix: `${outputs.lambda_function_name}-`,
      StateValue: "ALARM",
    }),
  );
  return MetricAlarms.map(({ AlarmName = "", StateUpdatedTimestamp, StateReason = "" }) => ({
    name: AlarmName,
    since: StateUpdatedTimestamp?.toISOString() ?? "",
    reason: StateReason,
  }));
}

/** Compares every resource with AWS. It changes nothing, and waits for no other Terraform. */
export async function readDrift({ workspace }: Target): Promise<terraform.Change[]> {
  await Deno.stat(ZIP_URL).catch(writeZip); // without it main.tf refuses to plan
  const planning = terraform.plan(workspace, { quiet: true });
  await using file = await withProgress("terraform plan", planning);
  return driftIn((await terraform.readPlan(workspace, file)).changes);
}

/** The changes of what is in AWS, which are no mere consequence of others. */
export function driftIn(changes: terraform.Change[]): terraform.Change[] {
  return changes.map(({ attributes, ...change }) => {
    // Of code that is saved here and not deployed.
    const isExpected = (name: string) =>
      change.type === "aws_lambda_function" && name === "source_code_hash";
    return { ...change, attributes: attributes.filter((name) => !isExpected(name)) };
  }).filter(({ type, actions, attributes }) =>
    type !== "terraform_data" && (actions[0] !== "update" || attributes.length > 0)
  );
}

/** A sentence for all that is not there, and one for each resource that was changed. */
function driftToProblems(
  changes: terraform.Change[],
  target: Pick<Target, "flags">,
): string[] {
  const deploy = denoTask(target, "deploy");
  const isMissing = ({ actions }: terraform.Change) => actions.join() === "create";
  const missing = changes.filter(isMissing).map(({ address }) => address);
  const changed = changes.filter((change) => !isMissing(change));
  return [
    ...(missing.length === 0 ? [] : [`not there: ${missing.join(", ")}; ${deploy} makes it`]),
    ...changed.map(({ address, attributes }) => {
      const names = attributes.length === 0 ? "" : ` (${attributes.join(", ")})`;
      return `${address} is not as main.tf has it${names}; ${deploy} puts it right`;
    }),
  ];
}
