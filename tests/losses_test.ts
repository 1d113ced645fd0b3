/** A plan that deletes data is recognised, counted, and not applied by --yes. */

import assert from "node:assert/strict";
import { confirmPlan } from "../tasks/deploy.ts";
import { lossesOf } from "../tasks/losses.ts";
import { parsePlan } from "../tasks/terraform.ts";
import { type Answers, fakeStack } from "./fixtures.ts";

const TABLE = "aws_dynamodb_table.files";
const BUCKET = "aws_s3_bucket.uploads";
const QUEUE = "aws_sqs_queue.failures";
const BEFORE: Record<string, Record<string, string>> = {
  [TABLE]: { id: "app", name: "app" },
  [BUCKET]: { id: "app" },
  [QUEUE]: { id: "https://queue", name: "app-failures" },
};

const FULL: Answers = {
  ScanCommand: () => ({ Count: 2 }),
  ListObjectVersionsCommand: () => ({ Versions: [{ Key: "a", VersionId: "1" }] }),
  GetQueueAttributesCommand: () => ({
    Attributes: {
      ApproximateNumberOfMessages: "3",
      ApproximateNumberOfMessagesNotVisible: "1",
      ApproximateNumberOfMessagesDelayed: "0",
    },
  }),
};

const ALL = [
  { address: TABLE, name: "app", contents: "2 rows" },
  { address: BUCKET, name: "app", contents: "1 object version" },
  { address: QUEUE, name: "app-failures", contents: "4 failed events" },
];

const failing = () => {
  throw Object.assign(new Error("no"), { name: "AccessDenied" });
};

const cases = [
  { name: "a deletion", actions: ["delete"], answers: FULL, expected: ALL },
  { name: "a replacement", actions: ["delete", "create"], answers: FULL, expected: ALL },
  { name: "the other order", actions: ["create", "delete"], answers: FULL, expected: ALL },
  { name: "an update", actions: ["update"], answers: FULL, expected: [] },
  { name: "making what is gone", actions: ["create"], answers: FULL, expected: [] },
  {
    name: "an empty failure queue: no loss, where table and bucket always are",
    actions: ["delete"],
    answers: {
      ScanCommand: () => ({ Count: 0 }),
      GetQueueAttributesCommand: () => ({ Attributes: { ApproximateNumberOfMessages: "0" } }),
    },
    expected: [
      { address: TABLE, name: "app", contents: "0 rows" },
      { address: BUCKET, name: "app", contents: "0 object versions" },
    ],
  },
  {
    name: "counts that cannot be read: unknown, not none",
    actions: ["delete"],
    answers: {
      ScanCommand: failing,
      ListObjectVersionsCommand: failing,
      GetQueueAttributesCommand: failing,
    },
    expected: [
      { address: TABLE, name: "app", contents: "an unknown number of rows" },
      { address: BUCKET, name: "app", contents: "an unknown number of object versions" },
      { address: QUEUE, name: "app-failures", contents: "an unknown number of failed events" },
    ],
  },
];

Deno.test("lossesOf() names and counts what a plan deletes", async (t) => {
  for (const { name, actions, answers, expected } of cases) {
    await t.step(name, async () => {
      const { stack } = fakeStack(answers);
      assert.deepEqual(await lossesOf(parsePlan(planJson(actions)), stack), expected);
    });
  }
});

Deno.test("--yes does not apply a plan that deletes data, and applies others", async () => {
  const target = { flags: " --local --env a" };
  await confirmPlan([], true, target);
  await assert.rejects(confirmPlan(ALL, true, target), {
    name: "UserError",
    message: "Nothing was changed, as --yes alone does not delete data: to lose what is listed " +
      "above, run deno task deploy --local --env a and type app when asked",
  });
});

Deno.test(
  "a plan that deletes data is applied when its name is typed, not for yes",
  async () => {
    assert.deepEqual(await answered("yes"), {
      code: 1,
      last: "Not confirmed, so nothing was changed",
    });
    assert.equal((await answered("app")).code, 0);
  },
);

/** Answers confirmPlan() on standard input, as a person does. */
async function answered(answer: string): Promise<{ code: number; last: string }> {
  const program = `
    import { confirmPlan } from "./tasks/deploy.ts";
    try {
      await confirmPlan(${JSON.stringify(ALL)}, false, { flags: "" });
      Deno.exit(0);
    } catch (error) {
      console.error("\\n" + error.message);
      Deno.exit(1);
    }`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["eval", "--ext=ts", program],
    cwd: new URL("..", import.meta.url),
    stdin: "piped",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(answer + "\n"));
  await writer.close();
  const { code, stderr } = await child.output();
  return { code, last: new TextDecoder().decode(stderr).trimEnd().split("\n").at(-1)! };
}

/** A plan as `terraform show -json` prints it: these actions on what holds data, others beside. */
function planJson(actions: string[]): string {
  const changes = Object.entries(BEFORE).map(([address, before]) => ({
    address,
    type: address.split(".")[0],
    change: { actions, before: actions[0] === "create" && actions.length === 1 ? null : before },
  }));
  const role = { address: "aws_iam_role.function", type: "aws_iam_role" };
  const replaced = { actions: ["delete", "create"], before: { id: "app" } };
  return JSON.stringify({ resource_changes: [{ ...role, change: replaced }, ...changes] });
}
