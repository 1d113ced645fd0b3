/** What deploy asks before the apply and does after it, and how it runs and updates the function. */

import assert from "node:assert/strict";
import { confirmCode } from "../dev/code.ts";
import { sha256Of } from "../tasks/build.ts";
import {
  confirmPlan,
  deletedBy,
  lossesOf,
  refuseOtherAccounts,
  repairCode,
} from "../tasks/deploy.ts";
import { invoke, runFunction, updateCode } from "../tasks/invoke.ts";
import type { Stack } from "../tasks/target.ts";
import { parsePlan } from "../tasks/terraform.ts";
import { type Answers, fakeStack, fakeTime, NO_FAILURES, progressOf, queue } from "./fixtures.ts";

const TABLE = "aws_dynamodb_table.files";
const BUCKET = "aws_s3_bucket.uploads[0]";
const QUEUE = "aws_sqs_queue.failures";

const FULL: Answers = {
  ScanCommand: () => ({ Count: 2 }),
  ListObjectVersionsCommand: () => ({ Versions: [{ Key: "a", VersionId: "1" }] }),
  GetQueueAttributesCommand: () => queue(3, 1),
};
const EMPTY: Answers = {
  ScanCommand: () => ({ Count: 0 }),
  ...NO_FAILURES,
};
const REFUSING: Answers = Object.fromEntries(
  Object.keys(FULL).map((command) => [command, () => new Error("no")]),
);

/** The contents that a plan loses of the table, the bucket and the queue. */
const CASES: [name: string, actions: string[], answers: Answers, expected: string[]][] = [
  ["deletion", ["delete"], FULL, ["2 rows", "1 object version", "4 failed events"]],
  ["replacement", ["delete", "create"], FULL, ["2 rows", "1 object version", "4 failed events"]],
  ["update", ["update"], FULL, []],
  ["an empty queue is no loss", ["delete"], EMPTY, ["0 rows", "0 object versions"]],
  ["what cannot be counted is unknown, not none", ["delete"], REFUSING, [
    "an unknown number of rows",
    "an unknown number of object versions",
    "an unknown number of failed events",
  ]],
];

Deno.test("lossesOf() names and counts what a plan deletes", async () => {
  for (const [name, actions, answers, expected] of CASES) {
    const { stack } = fakeStack(answers);
    const losses = await lossesOf(deletedBy(parsePlan(planJson(actions))), stack);
    assert.deepEqual(losses.map(({ contents }) => contents), expected, name);
    const addresses = [[TABLE, "app"], [BUCKET, "app"], [QUEUE, "app-failures"]];
    const named = losses.map(({ address, name }) => [address, name]);
    assert.deepEqual(named, addresses.slice(0, expected.length), name);
  }
});

/** A plan as `terraform show -json` prints it: these actions on what holds data, others beside. */
function planJson(actions: string[]): string {
  const before = {
    "aws_iam_role.function": { id: "app" },
    [TABLE]: { id: "app", name: "app" },
    [BUCKET]: { id: "app" },
    [QUEUE]: { id: "https://queue", name: "app-failures" },
  };
  const resource_changes = Object.entries(before).map(([address, before]) => ({
    address,
    type: address.split(".")[0],
    change: { actions, before },
  }));
  return JSON.stringify({ resource_changes });
}

Deno.test("a plan that deletes data is applied when a name is typed, not for --yes", async () => {
  const target = { flags: " --local --env a" };
  const losses = [{ address: TABLE, name: "app", contents: "2 rows" }];
  await confirmPlan([], true, target);
  await assert.rejects(confirmPlan(losses, true, target), {
    name: "UserError",
    message: "Nothing was changed, as --yes alone does not delete data: to lose what is listed " +
      "above, run deno task deploy --local --env a and type app when asked",
  });
  const notConfirmed = { message: "Not confirmed, so nothing was changed" };
  using terminal = answering();
  terminal.answer = "yes";
  await confirmPlan([], false, target);
  await assert.rejects(confirmPlan(losses, false, target), notConfirmed);
  terminal.answer = "app";
  await confirmPlan(losses, false, target);
  await assert.rejects(confirmPlan([], false, target), notConfirmed);
});

Deno.test("dev --code names account, environment and function, then asks", async () => {
  const names = { account_id: "123456789012", aws_region: "eu-west-1", environment: "team" };
  const stack = { outputs: { ...names, lambda_function_name: "fn" } } as Stack;
  using _nobody = answering();
  const said = await progressOf(async () => {
    const message = /^\nNobody answered, so nothing was changed: /;
    await assert.rejects(confirmCode(stack, { yes: false }), { name: "UserError", message });
    await confirmCode(stack, { yes: true });
  });
  const asked = "Account 123456789012, region eu-west-1, environment team: the function fn will " +
    "run what is saved in this folder, at once and after each save. Every upload";
  assert.equal(said.split(asked).length, 3, said);
});

/** A person at the terminal, until disposed; without an answer nobody. */
function answering(): { answer?: string } & Disposable {
  const { stdin, stderr } = Deno;
  const [read, write] = [stdin.read, stderr.write];
  const person = {
    answer: undefined as string | undefined,
    [Symbol.dispose]() {
      stdin.read = read;
      stderr.write = write;
    },
  };
  const encode = (answer: string, buffer: Uint8Array) =>
    new TextEncoder().encodeInto(`${answer}\n`, buffer).written;
  stdin.read = (buffer) =>
    Promise.resolve(person.answer === undefined ? null : encode(person.answer, buffer));
  stderr.write = (question) => Promise.resolve(question.length);
  return person;
}

const ZIP = new TextEncoder().encode("zip");

Deno.test("deploy sends the zip if the function runs other code, and only then", async () => {
  for (const [CodeSha256, isSent] of [["other", true], [sha256Of(ZIP), false]] as const) {
    const { stack, calls } = fakeStack({
      GetFunctionCommand: () => ({
        Configuration: { CodeSha256, State: "Active", LastUpdateStatus: "Successful" },
      }),
    });
    await repairCode(stack, ZIP);
    const updates = calls.filter(({ name }) => name === "UpdateFunctionCodeCommand");
    const expected = isSent ? [{ FunctionName: "fn", ZipFile: ZIP }] : [];
    assert.deepEqual(updates.map(({ input }) => input), expected);
  }
});

Deno.test("an existing bucket must be this account's", async () => {
  await refuseOtherAccounts(fakeStack({}).stack, "photos");
  const forbidden = Object.assign(new Error(), { $metadata: { httpStatusCode: 403 } });
  const refused = refuseOtherAccounts(
    fakeStack({ HeadBucketCommand: [forbidden] }).stack,
    "photos",
  );
  await assert.rejects(refused, /^UserError: The bucket photos is another account's/);
});

Deno.test("a plan knows since when the function runs code that was not deployed", () => {
  const since = (change: object) => {
    const resource_changes = [{ address: "aws_lambda_function.metadata", type: "", change }];
    return parsePlan(JSON.stringify({ resource_changes })).strayCodeSince;
  };
  const unchanged = (code_sha256: string, source_code_hash: string | null) =>
    since({
      actions: ["no-op"],
      before: { source_code_hash, code_sha256, last_modified: "then" },
    });
  assert.equal(unchanged("saved", "deployed"), "then");
  assert.equal(unchanged("deployed", "deployed"), undefined);
  assert.equal(unchanged("imported", null), undefined);
  assert.equal(since({ actions: ["create"], before: null }), undefined);
});

Deno.test("an update of the code waits for another one, within its deadline", async () => {
  const conflict = Object.assign(new Error("busy"), { name: "ResourceConflictException" });
  const update = async (conflicts: number, signal?: AbortSignal) => {
    const { stack, calls } = fakeStack({
      UpdateFunctionCodeCommand: () => conflicts-- > 0 ? conflict : {},
      GetFunctionCommand: () => ({ Configuration: { LastUpdateStatus: "Successful" } }),
    });
    const { time } = fakeTime();
    const error = await updateCode(stack, ZIP, { signal, time }).then(() => "done", (e) => e.name);
    const tries = calls.filter(({ name }) => name === "UpdateFunctionCodeCommand").length;
    return { error, tries, seconds: time.nowMs() / 1000 };
  };
  assert.deepEqual(await update(3), { error: "done", tries: 4, seconds: 1.5 });
  const given = { error: "ResourceConflictException", tries: 241, seconds: 120 };
  assert.deepEqual(await update(Infinity), given);
  assert.equal((await update(1, AbortSignal.abort(new Error()))).error, "Error");
});

Deno.test("a run that failed is a failure, whatever Lambda tells of it", async () => {
  const cases = [
    ['{"errorType":"E","errorMessage":"broke"}', "E: broke"],
    ['{"errorMessage":"Task timed out after 30.00 seconds"}', "Task timed out after 30.00 seconds"],
    ['{"errorType":"Runtime.ExitError"}', "Runtime.ExitError"],
    ["{}", "it failed, and Lambda does not say why"],
    ["", "it failed, and Lambda does not say why"],
    ["null", "null"],
    ["no JSON", "no JSON"],
  ];
  for (const [payload, reason] of cases) {
    const Payload = new TextEncoder().encode(payload);
    const { stack } = fakeStack({
      InvokeCommand: () => ({ FunctionError: "Unhandled", Payload }),
    });
    assert.equal(await invoke(stack, {}), reason);
  }
});

Deno.test("a run that never ends is given up at its limit, or when nobody cares", async () => {
  const send = (_: unknown, { abortSignal }: { abortSignal: AbortSignal }) =>
    new Promise<never>((_, reject) =>
      abortSignal.addEventListener("abort", () => reject(new Error("aborted")))
    );
  const stack = { ...fakeStack({}).stack, lambda: { send } } as unknown as Stack;
  assert.equal(await invoke(stack, {}, { limitMs: 20 }), "no answer within 0 s: it may never end");
  const left = new AbortController();
  const running = runFunction(stack, {}, { signal: left.signal });
  left.abort();
  await assert.rejects(running, /aborted/);
});
