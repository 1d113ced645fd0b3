/** What deploy does after the apply: code that was changed outside Terraform, and a new stack. */

import assert from "node:assert/strict";
import { sha256Of } from "../tasks/build.ts";
import { repairCode, sayIfNew } from "../tasks/deploy.ts";
import { invoke, runFunction, updateCode } from "../tasks/invoke.ts";
import { readStatus, statusToText } from "../tasks/status.ts";
import type { Stack } from "../tasks/target.ts";
import { parsePlan } from "../tasks/terraform.ts";
import { quiet } from "./dev_fixtures.ts";
import { fakeStack, fakeTime, NOTIFIES, progressOf } from "./fixtures.ts";

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

Deno.test("status says since when the function runs code that was not deployed", async () => {
  const LastModified = "2026-01-02T03:04:05.000+0000";
  const { stack } = fakeStack({
    ...quiet(),
    ...NOTIFIES,
    GetFunctionCommand: () => ({
      Configuration: { State: "Active", CodeSha256: "saved", LastModified },
    }),
  });
  const status = await readStatus(stack, "deployed", []);
  assert.deepEqual(status.problems, [
    `since ${LastModified} the function runs code that was not deployed, as dev lets it ` +
    "while it runs, and leaves it when it is killed; deno task deploy --env x puts it right",
  ]);
  assert.match(statusToText(status), /^code +saved, not as deployed$/m);
  assert.deepEqual((await readStatus(stack, "saved", [])).problems, []);
});

Deno.test("a plan knows since when the function runs code that was not deployed", () => {
  const since = (code_sha256: string, source_code_hash: string | null = "deployed") => {
    const before = { source_code_hash, code_sha256, last_modified: "then" };
    const change = { actions: ["no-op"], before };
    const resource_changes = [{ address: "aws_lambda_function.metadata", type: "", change }];
    return parsePlan(JSON.stringify({ resource_changes })).strayCodeSince;
  };
  assert.equal(since("saved"), "then");
  assert.equal(since("deployed"), undefined);
  assert.equal(since("imported", null), undefined);
  const made = { actions: ["create"], before: null };
  const resource_changes = [{ address: "aws_lambda_function.metadata", type: "", change: made }];
  assert.equal(parsePlan(JSON.stringify({ resource_changes })).strayCodeSince, undefined);
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
    const answer = { FunctionError: "Unhandled", Payload };
    const { stack } = fakeStack({ InvokeCommand: () => answer });
    assert.equal(await invoke(stack, {}), reason);
  }
});

Deno.test("a run that never ends is given up at its limit, or when nobody cares", async () => {
  const hangs = (signal: AbortSignal) =>
    new Promise<never>((_, reject) =>
      signal.addEventListener("abort", () => reject(new Error("aborted")))
    );
  const lambda = {
    send: (_: unknown, { abortSignal }: { abortSignal: AbortSignal }) => hangs(abortSignal),
  };
  const stack = { ...fakeStack({}).stack, lambda } as unknown as Stack;
  assert.equal(await invoke(stack, {}, { limitMs: 20 }), "no answer within 0 s: it may never end");
  const left = new AbortController();
  const running = runFunction(stack, {}, { signal: left.signal });
  left.abort();
  await assert.rejects(running, /aborted/);
});

Deno.test("deploy says for 15 minutes what the function does in a new stack", async () => {
  const said = (created: string | undefined, now: string) =>
    progressOf(() =>
      Promise.resolve(sayIfNew({ created }, { flags: " --env a" }, Date.parse(now)))
    );
  const made = "2026-01-02T03:04:05Z";
  assert.match(
    await said(made, "2026-01-02T03:19:04Z"),
    /^The stack is younger than 15 minutes, .* 404 .* deno task replay --env a runs those .*\n$/,
  );
  assert.equal(await said(made, "2026-01-02T03:19:05Z"), "");
  assert.equal(await said(undefined, made), "");
});
