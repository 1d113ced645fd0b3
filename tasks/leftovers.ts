/**
 * Leftovers of an interrupted apply. Ctrl-C makes Terraform cancel the requests that are on their
 * way; AWS carries them out all the same, and the state knows nothing of it. Names are unique to a
 * stack, so whatever has the stack's name belongs to the stack, whatever the state says.
 */

import { DescribeAlarmsCommand } from "@aws-sdk/client-cloudwatch";
import { DescribeLogGroupsCommand } from "@aws-sdk/client-cloudwatch-logs";
import {
  DescribeTableCommand,
  waitUntilTableExists,
  waitUntilTableNotExists,
} from "@aws-sdk/client-dynamodb";
import { GetRoleCommand } from "@aws-sdk/client-iam";
import { GetFunctionCommand, GetPolicyCommand } from "@aws-sdk/client-lambda";
import { HeadBucketCommand } from "@aws-sdk/client-s3";
import { GetQueueUrlCommand } from "@aws-sdk/client-sqs";
import { GetCallerIdentityCommand } from "@aws-sdk/client-sts";
import { type Clients, clientsOf } from "./clients.ts";
import { interrupted } from "./signals.ts";
import type { OpenTarget } from "./target.ts";
import { say, visible } from "./terminal.ts";
import * as terraform from "./terraform.ts";

/** A resource that is named after the stack. */
interface Named {
  address: string;
  /** Its name, in which NAME stands for the stack's. */
  name: string;
  /** Whether it is never replaced to finish its creation. */
  holdsData?: true;
  /** Its id for `terraform import`; undefined if AWS has no such thing. */
  find(clients: Clients, name: string): Promise<string | undefined>;
}

/** A resource that exists in AWS, with its id for `terraform import`. */
export interface Found {
  address: string;
  id: string;
}

/**
 * Every resource of main.tf that has a name of its own, in an order in which they can be imported.
 * Any other resource is a setting of one of these: it is deleted with it, and AWS takes it twice.
 */
export const NAMED: Named[] = [
  { address: "aws_s3_bucket.uploads[0]", name: "NAME", holdsData: true, find: findBucket },
  { address: "aws_dynamodb_table.files", name: "NAME", holdsData: true, find: findTable },
  { address: "aws_sqs_queue.failures", name: "NAME-failures", holdsData: true, find: findQueue },
  { address: "aws_cloudwatch_log_group.function", name: "/aws/lambda/NAME", find: findLogGroup },
  { address: "aws_iam_role.function", name: "NAME", find: findRole },
  { address: "aws_iam_role.batch[0]", name: "NAME-batch", find: findRole },
  { address: "aws_lambda_function.metadata", name: "NAME", find: findFunction },
  // AWS refuses the same permission twice.
  {
    address: "aws_lambda_permission.uploads",
    name: "NAME/AllowUploadsBucket",
    find: findPermission,
  },
  ...["failures-waiting", "errors", "undelivered-failures"].map((alarm) => ({
    address: `aws_cloudwatch_metric_alarm.function["${alarm}"]`,
    name: `NAME-${alarm}`,
    find: findAlarm,
  })),
];

/** By these names of errors AWS says that a thing does not exist. */
const MISSING = [
  "NotFound",
  "NoSuchEntityException",
  "QueueDoesNotExist",
  "ResourceNotFoundException",
  "ValidationError", // IAM's, of a name that no role can have: main.tf then refuses batch_backfill
];

/** Seconds that a table may take to be made or deleted. */
const TABLE_SECONDS = 300;

/** Finds, of the named resources, those that exist in AWS. */
export async function findNamed(clients: Clients, stackName: string): Promise<Found[]> {
  const found = await Promise.all(NAMED.map(async ({ address, name, find }) => {
    const id = await find(clients, name.replace("NAME", stackName)).catch((error) => {
      if (!MISSING.includes(error.name)) throw error;
    });
    return id === undefined ? [] : [{ address, id }];
  }));
  return found.flat();
}

/** Of what was found in AWS, what the state lacks, or has no more of than its name. */
export function lackingIn({ resources }: Pick<terraform.State, "resources">, found: Found[]) {
  const whole = resources.filter((resource) => !isIncomplete(resource));
  return found.filter(({ address }) =>
    !whole.some((resource) => terraform.isSame(resource.address, address))
  );
}

/** Terraform did not see the end of its creation. Its empty attributes would make an import fail. */
function isIncomplete({ tainted, attributes }: terraform.Resource): boolean {
  return tainted && "arn" in attributes && !attributes.arn;
}

async function findLeftovers(target: OpenTarget, state: terraform.State): Promise<Found[]> {
  if (state.name === undefined) return []; // nothing is made before the stack has its name
  return lackingIn(state, await findNamed(clientsOf(target, state.region), state.name));
}

/** Shows what AWS has and the state lacks. */
export async function showLeftovers(target: OpenTarget): Promise<void> {
  const leftovers = await findLeftovers(target, await terraform.pullState(target.workspace));
  if (leftovers.length === 0) return;
  say("In AWS, but not in the state, as after an interrupted apply. deploy imports first:");
  for (const { address, id } of leftovers) say(`  ${address}  ${visible(id)}`);
}

/** Imports what AWS has and the state lacks, and returns the state that has it. */
export async function importLeftovers(
  target: OpenTarget,
  state: terraform.State,
): Promise<terraform.State> {
  const { workspace } = target;
  const leftovers = await findLeftovers(target, state);
  if (leftovers.length === 0) return state;
  const incomplete = state.resources.filter(isIncomplete).map(({ address }) => address);
  if (incomplete.length > 0) await terraform.forget(workspace, incomplete);
  for (const { address, id } of leftovers) {
    say(`${id} is in AWS, but not in the state, as after an interrupted apply: it is imported`);
    await terraform.importResource(workspace, address, id);
  }
  return await terraform.pullState(workspace);
}

/**
 * Before a deploy: names a new stack. After an interrupted apply it makes the state whole: imports what
 * AWS has and the state lacks, and keeps what holds data although Terraform did not see the end of its
 * creation (it would replace it). Returns whether the stack is new.
 */
export async function completeState(target: OpenTarget): Promise<boolean> {
  const { workspace } = target;
  const state = await terraform.pullState(workspace);
  if (terraform.isEmpty(state)) {
    await terraform.nameStack(workspace);
    return true;
  }
  for (const resource of (await importLeftovers(target, state)).resources) {
    const { holdsData } = NAMED.find(({ address }) =>
      terraform.isSame(address, resource.address)
    ) ?? {};
    if (resource.tainted && holdsData && !isIncomplete(resource)) {
      await terraform.untaint(workspace, resource.address);
    }
  }
  return false;
}

/** A bucket of another account that took the name is none of the stack's: S3 answers 403. */
export async function findBucket({ s3, sts }: Clients, name: string): Promise<string | undefined> {
  const { Account } = await sts.send(new GetCallerIdentityCommand({}));
  try {
    await s3.send(new HeadBucketCommand({ Bucket: name, ExpectedBucketOwner: Account }));
    return name;
  } catch (error) {
    const { $metadata } = error as { $metadata?: { httpStatusCode?: number } };
    // 301: it is in another region, where this stack has nothing.
    if ([301, 403].includes($metadata?.httpStatusCode ?? 0)) return undefined;
    throw error;
  }
}

async function findTable({ dynamo }: Clients, name: string): Promise<string | undefined> {
  const { Table } = await dynamo.send(new DescribeTableCommand({ TableName: name }));
  const waiting = {
    client: dynamo,
    maxWaitTime: TABLE_SECONDS,
    minDelay: 1,
    maxDelay: 5,
    abortSignal: interrupted,
  };
  if (Table?.TableStatus === "DELETING") {
    await waitUntilTableNotExists(waiting, { TableName: name });
    return undefined;
  }
  if (Table?.TableStatus === "CREATING") await waitUntilTableExists(waiting, { TableName: name });
  return name;
}

async function findQueue({ sqs }: Clients, name: string): Promise<string | undefined> {
  return (await sqs.send(new GetQueueUrlCommand({ QueueName: name }))).QueueUrl;
}

async function findLogGroup({ logs }: Clients, name: string): Promise<string | undefined> {
  // The first group that begins with a name is the one of that very name.
  const { logGroups = [] } = await logs.send(
    new DescribeLogGroupsCommand({ logGroupNamePrefix: name }),
  );
  return logGroups.some(({ logGroupName }) => logGroupName === name) ? name : undefined;
}

async function findRole({ iam }: Clients, name: string): Promise<string | undefined> {
  return (await iam.send(new GetRoleCommand({ RoleName: name }))).Role?.RoleName;
}

async function findFunction({ lambda }: Clients, name: string): Promise<string | undefined> {
  const { Configuration } = await lambda.send(new GetFunctionCommand({ FunctionName: name }));
  return Configuration?.FunctionName;
}

async function findPermission({ lambda }: Clients, name: string): Promise<string | undefined> {
  const [FunctionName, statementId] = name.split("/");
  const { Policy = "{}" } = await lambda.send(new GetPolicyCommand({ FunctionName }));
  const { Statement = [] } = JSON.parse(Policy) as { Statement?: { Sid: string }[] };
  return Statement.some(({ Sid }) => Sid === statementId) ? name : undefined;
}

async function findAlarm({ cloudwatch }: Clients, name: string): Promise<string | undefined> {
  const { MetricAlarms = [] } = await cloudwatch.send(
    new DescribeAlarmsCommand({ AlarmNames: [name] }),
  );
  return MetricAlarms.find(({ AlarmName }) => AlarmName === name)?.AlarmName;
}
