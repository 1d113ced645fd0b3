import assert from "node:assert/strict";

/** Ids of checkov, trivy and AWS Security Hub. */
const ID =
  /\b(?:CKV2?_AWS_\d+|AVD-AWS-\d{4}|(?:CloudWatch|DynamoDB|IAM|KMS|Lambda|S3|SQS)\.\d+)\b/g;

/** Ids that SECURITY.md places, so that an emptied list is noticed. */
const AT_LEAST = { "On by default": 94, "Opt-in": 21, "Refused": 30, "Not applicable": 3 };

/** What AWS lists as a whole or not at all. */
const ON_ALL: Record<string, string[]> = {
  ListLogGroups: ["*"],
  ListAlarms: ["arn:aws:cloudwatch:*:*:alarm:*"],
};

const places = Object.keys(AT_LEAST) as (keyof typeof AT_LEAST)[];

Deno.test({
  name:
    "every check of SECURITY.md is asserted, opt-in or refused (needs permissions: deno task test)",
  ignore: Deno.permissions.querySync({ name: "read" }).state !== "granted",
  fn: async (t) => {
    const read = (name: string) => Deno.readTextFile(new URL(`../${name}`, import.meta.url));
    const document = await read("docs/SECURITY.md");
    const defaults = assertedIds(await read("tests/main.tftest.hcl"));
    const hardened = assertedIds(await read("tests/hardened.tftest.hcl"));
    const [byDefault, optIn, refused, notApplicable] = places.map((place) =>
      placedIds(document, place)
    );

    await t.step("none is lost", () => {
      for (const place of places) {
        const { length } = placedIds(document, place);
        assert.ok(length >= AT_LEAST[place], `"${place}" has ${length} ids`);
      }
    });
    await t.step("each has one place", () => {
      const placed = [...byDefault, ...optIn, ...refused, ...notApplicable];
      assert.deepEqual(placed.filter((id, i) => placed.indexOf(id) !== i), []);
      assert.deepEqual(
        [...document.matchAll(ID)].map(([id]) => id).filter((id) => !placed.includes(id)),
        [],
      );
    });
    await t.step("main.tftest.hcl asserts what is on by default, each once, and no more", () => {
      assert.deepEqual(defaults.toSorted(), [...byDefault, ...notApplicable].toSorted());
    });
    await t.step("hardened.tftest.hcl asserts each opt-in, and nothing that is refused", () => {
      assert.deepEqual(optIn.filter((id) => !hardened.includes(id)), []);
      assert.deepEqual(hardened.filter((id) => ![...optIn, ...byDefault].includes(id)), []);
    });
    await t.step(
      "the deployer's policy names actions and the project's resources alone",
      async () => {
        const text = await read("docs/deployer_policy.json");
        // AWS counts a managed policy's characters without white space, and takes 6,144.
        assert.ok(text.replaceAll(/\s/g, "").length <= 6144);
        const statements: { Sid: string; Action: string[]; Resource: string | string[] }[] =
          JSON.parse(text).Statement;
        for (const { Sid, Action, Resource } of statements) {
          assert.deepEqual(
            Action.filter((action) => !/^[a-z0-9]+:[A-Za-z]+$/.test(action)),
            [],
            Sid,
          );
          const foreign = [Resource].flat().filter((arn) =>
            !/^arn:aws:[a-z0-9]+:.*[:/]file-metadata-\*(\/\*)?$/.test(arn)
          );
          assert.deepEqual(foreign, ON_ALL[Sid] ?? [], Sid);
          assert.ok(section(document, "The deployer's policy").includes(`\`${Sid}\``), Sid);
        }
      },
    );
    await t.step("hardened.tfvars sets each opt-in's variable", async () => {
      const named = section(document, "Opt-in").matchAll(/^\| `(\w+)`/gm).map(([, name]) => name);
      const set = (await read("docs/hardened.tfvars")).matchAll(/^(\w+)\s*=/gm).map(([, name]) =>
        name
      );
      assert.deepEqual([...new Set(named)].toSorted(), [...set].toSorted());
    });
  },
});

/** The text under a heading of the second level. */
function section(markdown: string, heading: string): string {
  const [, text] = markdown.split(`\n## ${heading}\n`);
  assert.ok(text !== undefined, `SECURITY.md has no section "${heading}"`);
  return text.split("\n## ")[0];
}

function placedIds(markdown: string, heading: string): string[] {
  const rows = section(markdown, heading).split("\n").filter((line) => line.startsWith("|"));
  return [...rows.join("\n").matchAll(ID)].map(([id]) => id);
}

/** The ids with which the assertions' messages begin, up to the colon. */
function assertedIds(test: string): string[] {
  const messages = test.matchAll(/^ +error_message += "([^:"]+): /gm);
  return [...messages].flatMap(([, start]) => [...start.matchAll(ID)].map(([id]) => id));
}
