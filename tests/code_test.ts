/** What deploy does after the apply: code that was changed outside Terraform, and a new stack. */

import assert from "node:assert/strict";
import { quiet } from "./dev_fixtures.ts";
import { fakeStack, permittedTest, progressOf } from "./fixtures.ts";

const ZIP = new TextEncoder().encode("zip");

permittedTest("deploy sends the zip if the function runs other code, and only then", async () => {
  const { repairCode } = await import("../tasks/deploy.ts");
  const { sha256Of } = await import("../tasks/build.ts");
  for (const [CodeSha256, isSent] of [["other", true], [sha256Of(ZIP), false]] as const) {
    const { stack, calls } = await fakeStack({
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

permittedTest("status counts other code than built here as a problem", async () => {
  const { readStatus } = await import("../tasks/status.ts");
  const { stack } = await fakeStack({
    ...quiet(),
    GetFunctionCommand: () => ({ Configuration: { State: "Active", CodeSha256: "deployed" } }),
    GetBucketNotificationConfigurationCommand: () => ({
      LambdaFunctionConfigurations: [{ LambdaFunctionArn: "arn:aws:lambda:x:1:function:fn" }],
    }),
  });
  const problems = async (built?: string) => (await readStatus(stack, built)).problems;
  assert.deepEqual(await problems("built"), [
    "the function runs other code than build/lambda.zip; deno task deploy --env x puts it right",
  ]);
  assert.deepEqual(await problems("deployed"), []);
  assert.deepEqual(await problems(), []);
});

permittedTest("deploy says for 15 minutes what the function does in a new stack", async () => {
  const { sayIfNew } = await import("../tasks/deploy.ts");
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
