/** What documents say: of the tests, of a row, of security, and of the deployer's policy. */

import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { ATTRIBUTES, PREVIEW_CHARACTERS } from "../handler.ts";
import { TASKS } from "../tasks.ts";
import { TESTS_WITH_PACKAGES } from "../tasks/checks.ts";
import { namesIn } from "../tasks/files.ts";
import { parseArguments } from "../tasks/options.ts";
import { ROOT } from "../tasks/shell.ts";
import { read } from "./fixtures.ts";

Deno.test("every fault of FAULTS.md is named by a test, and no other", async () => {
  const table = (await read("docs/FAULTS.md")).split("\n")
    .filter((line) => line.startsWith("|"));
  const listed = table.map((line) => line.match(/^\| (\d+[a-z]?) +\|/)?.[1])
    .filter((id) => id !== undefined).map((id) => `F${id}`);
  assert.ok(listed.length > 0);
  assert.equal(listed.length, table.length - 2, "a row of FAULTS.md has no number"); // less its head
  assert.deepEqual(listed.filter((id, i) => listed.indexOf(id) !== i), [], "a number stands twice");

  const tested = new Set<string>();
  for (const file of await filesOfTests()) {
    for (const id of faultsNamed(await Deno.readTextFile(file))) tested.add(id);
  }
  assert.deepEqual(listed.filter((id) => !tested.has(id)), [], "no test names these");
  assert.deepEqual([...tested].filter((id) => !listed.includes(id)), [], "FAULTS.md lacks these");
});

Deno.test("every test that CONTRIBUTING.md names is there", async () => {
  const [, section] = (await read("docs/CONTRIBUTING.md")).split("\n## What it promises");
  const rows = section.split("\n").filter((line) => line.startsWith("|")).slice(2);
  assert.ok(rows.length > 0);
  for (const row of rows) {
    const places = [...row.matchAll(/((?:`[^`]+`, )*`[^`]+`) in `([^`]+)`/g)];
    assert.ok(places.length > 0 || row.includes("tftest.hcl"), `no test proves: ${row}`);
    for (const [, names, file] of places) {
      const source = await read(file);
      for (const name of names.slice(1, -1).split("`, `")) {
        assert.ok(source.includes(`"${name}`), `${file} has no test "${name}"`);
      }
    }
  }
});

Deno.test("every path and link of the documents leads somewhere", async () => {
  const names = (await namesIn(join(ROOT, "docs"))).filter((name) => name.endsWith(".md"));
  const readme = await read("README.md");
  for (const name of names) assert.ok(readme.includes(`](docs/${name}`), `README.md links ${name}`);
  for (const document of ["README.md", ...names.map((name) => `docs/${name}`)]) {
    const text = await read(document);
    const quoted = text.matchAll(
      /`((?:dev|docs|function|tasks|tests)\/[\w./]*|\w+\.(?:ts|tf|json))`/g,
    );
    const inCommands = text.matchAll(/^deno run .*?([\w/]+\.ts)\b/gm);
    for (const [, path] of [...quoted, ...inCommands]) {
      await assert.doesNotReject(Deno.stat(join(ROOT, path)), `${document} names ${path}`);
    }
    for (const [, path, anchor] of text.matchAll(/\]\((?!https:)([^)#]*)#?(.*?)\)/g)) {
      const target = join(dirname(document), path);
      await assert.doesNotReject(Deno.stat(join(ROOT, target)), `${document} links ${path}`);
      if (anchor === "") continue;
      const headings = [...(await read(target)).matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
        heading.toLowerCase().replaceAll(/[^\w -]/g, "").replaceAll(" ", "-")
      );
      assert.ok(headings.includes(anchor), `${document} links ${path}#${anchor}`);
    }
  }
});

Deno.test("README.md tells each attribute of a row, and the preview's length", async () => {
  const [, section] = (await read("README.md")).split("\n## The row\n");
  const [head] = section.split("\n\nAn unknown attribute");
  const named = [...head.matchAll(/^\| (`.*?`) +\|/gm)].flatMap(([, names]) => names.split(", "));
  assert.deepEqual(named, ATTRIBUTES.map((name) => `\`${name}\``));
  assert.match(head, new RegExp(`first ${PREVIEW_CHARACTERS} characters`));
});

Deno.test("github_actions.yml signs in by a token alone, and runs tasks as they are", async () => {
  const workflow = await read("docs/github_actions.yml");
  assert.match(workflow, /^permissions:\n +id-token: write .*\n +contents: read\n\n/m);
  assert.doesNotMatch(workflow, /secret|access-key|pull_request_target|^ +permissions:/im);
  assert.doesNotMatch(workflow, /uses: (?!\S+@[0-9a-f]{40} # v)/);
  const tasks = [...workflow.matchAll(/deno task (\w+)(?: (--\w+))?/g)];
  assert.deepEqual(tasks.map(([, name]) => name), ["plan", "deploy", "verify"]);
  for (const [, name, ...rest] of tasks) parseArguments(name, TASKS[name], rest.filter(Boolean));
});

/** The files that `deno task test` runs, and the tests' own files that these import. */
async function filesOfTests(): Promise<Set<string>> {
  const files = new Set(
    ["handler_test.ts", ...TESTS_WITH_PACKAGES].map((name) => join(ROOT, name)),
  );
  for await (const { name } of Deno.readDir(import.meta.dirname!)) {
    if (name.endsWith("_test.ts")) files.add(join(import.meta.dirname!, name));
  }
  for (const file of files) { // those added meanwhile included
    const imports = (await Deno.readTextFile(file)).matchAll(
      /(?:from|import\()\s*"\.\/(\w+\.ts)"/g,
    );
    for (const [, name] of imports) files.add(join(file, "..", name));
  }
  return files;
}

/** The faults with which names of tests begin, as "F1 F2 what happens", in a table too. */
function faultsNamed(source: string): string[] {
  return [...source.matchAll(/["`]((?:F\d+[a-z]? )+)/g)].flatMap(([, ids]) =>
    ids.trim().split(" ")
  );
}

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
