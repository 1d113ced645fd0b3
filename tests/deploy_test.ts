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
import { awsError } from "./outside.ts";

const FULL: Answers = {
  ScanCommand: () => ({ Count: 2 }),
  ListObjectVersionsCommand: () => ({ Versions: [{ Key: "a", VersionId: "1" }] }),
  GetQueueAttributesCommand: () => queue(3, 1),
};
const EMPTY: Answers = { ScanCommand: () => ({ Count: 0 }), ...NO_FAILURES };
const REFUSING: Answers = Object.fromEntries(
  Object.keys(FULL).map((command) => [command, () => new Error("no")]),
);

Deno.test("lossesOf() names and counts what a plan deletes", async () => {
  const deleted = [
    { address: "aws_iam_role.function", attributes: { id: "app" } },
    { address: "aws_dynamodb_table.files", attributes: { id: "app", name: "app" } },
    { address: "aws_s3_bucket.uploads[0]", attributes: { id: "app" } },
    { address: "aws_sqs_queue.failures", attributes: { id: "https://q", name: "app-failures" } },
  ];
  const cases: [name: string, answers: Answers, contents: string[]][] = [
    ["all of it", FULL, ["2 rows", "1 object version", "4 failed events"]],
    ["an empty queue is no loss", EMPTY, ["0 rows", "0 object versions"]],
    ["what cannot be counted is unknown, not none", REFUSING, [
      "an unknown number of rows",
      "an unknown number of object versions",
      "an unknown number of failed events",
    ]],
  ];
  for (const [name, answers, contents] of cases) {
    const losses = await lossesOf(deleted, fakeStack(answers).stack);
    const expected = contents.map((contents, i) => {
      const { address, attributes: { id, name = id } } = deleted[i + 1];
      return { address, name, contents };
    });
    assert.deepEqual(losses, expected, name);
  }
  // Whether it is replaced first, or last.
  const changes = [["delete"], ["delete", "create"], ["create", "delete"], ["update"], ["create"]]
    .map((actions, i) => ({
      address: `${i}`,
      type: "",
      actions,
      before: { id: i },
      attributes: [],
    }));
  assert.deepEqual(
    deletedBy({ changes }),
    [0, 1, 2].map((i) => ({ address: `${i}`, attributes: { id: i } })),
  );
});

Deno.test("a plan that deletes data is applied when a name is typed, not for --yes", async () => {
  const target = { flags: " --local --env a" };
  const losses = [{ address: "aws_dynamodb_table.files", name: "app", contents: "2 rows" }];
  await confirmPlan([], true, target);
  await assert.rejects(confirmPlan(losses, true, target), {
    name: "UserError",
    message: "Nothing was changed, as --yes alone does not delete data: to lose what is listed " +
      "above, run deno task deploy --local --env a and type app when asked",
  });
  const notConfirmed = { message: "Not confirmed, so nothing was changed" };
  for (const [right, wrong, lost] of [["yes", "app", []], ["app", "yes", losses]] as const) {
    using terminal = answering(right);
    await confirmPlan([...lost], false, target);
    terminal.answer = wrong;
    await assert.rejects(confirmPlan([...lost], false, target), notConfirmed);
  }
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
function answering(answer?: string) {
  const { stdin, stderr } = Deno;
  const [read, write] = [stdin.read, stderr.write];
  const person = {
    answer,
    [Symbol.dispose]: () => void ([stdin.read, stderr.write] = [read, write]),
  };
  stdin.read = (buffer) => {
    if (person.answer === undefined) return Promise.resolve(null);
    const line = new TextEncoder().encodeInto(`${person.answer}\n`, buffer);
    return Promise.resolve(line.written);
  };
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
  const refused = refuseOtherAccounts(
    fakeStack({ HeadBucketCommand: [awsError("Forbidden", 403)] }).stack,
    "photos",
  );
  await assert.rejects(refused, /^UserError: The bucket photos is another account's/);
});

Deno.test("a plan knows since when the function runs code that was not deployed", () => {
  const since = (before: object | null) => {
    const change = { actions: ["no-op"], before };
    const resource_changes = [{ address: "aws_lambda_function.metadata", type: "", change }];
    return parsePlan(JSON.stringify({ resource_changes })).strayCodeSince;
  };
  const [deployed, last_modified] = ["deployed", "then"];
  const changed = { source_code_hash: deployed, code_sha256: "saved", last_modified };
  assert.equal(since(changed), "then");
  assert.equal(since({ ...changed, code_sha256: deployed }), undefined);
  assert.equal(since({ ...changed, source_code_hash: null }), undefined); // it was imported
  assert.equal(since(null), undefined);
});

Deno.test("an update of the code waits for another one, within its deadline", async () => {
  const conflict = awsError("ResourceConflictException");
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
