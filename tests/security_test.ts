/** Compares docs/SECURITY.md, its opt-ins, and the deployer's policy. */

import assert from "node:assert/strict";
import { read } from "./fixtures.ts";

/** Ids of checkov, trivy and AWS Security Hub. */
const ID =
  /\b(?:CKV2?_AWS_\d+|AVD-AWS-\d{4}|(?:CloudWatch|DynamoDB|IAM|KMS|Lambda|S3|SQS)\.\d+)\b/g;

/** AWS lists these completely or not at all, and gives a job of S3 Batch Operations a name of its own. */
const ON_ALL: Record<string, string[]> = {
  ListLogGroups: ["*"],
  ListAlarms: ["arn:aws:cloudwatch:*:*:alarm:*"],
  MakeBatchJobs: ["*"],
  ReadBatchJobs: ["arn:aws:s3:*:*:job/*"],
  EndBatchJobs: ["arn:aws:s3:*:*:job/*"],
};

/** Characters of a managed policy, without white space: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html */
const POLICY_LIMIT = 6144;

Deno.test("every check that SECURITY.md names stands in one of its tables, once", async () => {
  const document = await read("docs/SECURITY.md");
  const placed = ["On by default", "Opt-in", "Refused"]
    .flatMap((heading) => placedIds(document, heading));
  assert.deepEqual(placed.filter((id, i) => placed.indexOf(id) !== i), [], "twice");
  const named = [...document.matchAll(ID)].map(([id]) => id);
  assert.deepEqual(named.filter((id) => !placed.includes(id)), [], "in no table");
});

Deno.test("hardened.tfvars sets the variable of each opt-in, and a test shows its effect", async () => {
  const optIn = section(await read("docs/SECURITY.md"), "Opt-in");
  const named = [...new Set([...optIn.matchAll(/^\| `(\w+)`/gm)].map(([, name]) => name))];
  const variables = await read("docs/hardened.tfvars");
  const set = [...variables.matchAll(/^(\w+)\s*=/gm)].map(([, name]) => name);
  assert.deepEqual(named.toSorted(), set.toSorted());
  const hardened = await read("tests/hardened.tftest.hcl");
  assert.deepEqual(named.filter((name) => !hardened.includes(`var.${name}`)), [], "not shown");
});

Deno.test("the deployer's policy allows named actions on the project's resources only", async () => {
  const document = section(await read("docs/SECURITY.md"), "The deployer's policy");
  const text = await read("docs/deployer_policy.json");
  assert.ok(text.replaceAll(/\s/g, "").length <= POLICY_LIMIT);
  const statements: { Sid: string; Action: string[]; Resource: string | string[] }[] =
    JSON.parse(text).Statement;
  for (const { Sid, Action, Resource } of statements) {
    assert.deepEqual(Action.filter((action) => !/^[a-z0-9]+:[A-Za-z]+$/.test(action)), [], Sid);
    const foreign = [Resource].flat().filter((arn) =>
      !/^arn:aws:[a-z0-9]+:.*[:/]file-metadata-\*(\/\*)?$/.test(arn)
    );
    assert.deepEqual(foreign, ON_ALL[Sid] ?? [], Sid);
    assert.ok(document.includes(`\`${Sid}\``), `SECURITY.md does not explain ${Sid}`);
  }
});

/** The text under a heading of the second level. */
function section(markdown: string, heading: string): string {
  const [, text] = markdown.split(`\n## ${heading}\n`);
  assert.ok(text !== undefined, `SECURITY.md has no section "${heading}"`);
  return text.split("\n## ")[0];
}

/** The ids in the table under a heading. */
function placedIds(markdown: string, heading: string): string[] {
  const rows = section(markdown, heading).split("\n").filter((line) => line.startsWith("|"));
  const ids = [...rows.join("\n").matchAll(ID)].map(([id]) => id);
  assert.ok(ids.length > 0, `the table under "${heading}" names no check`);
  return ids;
}
