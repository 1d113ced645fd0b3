/** The proof of a destroy, where AWS still shows what is gone. */

import assert from "node:assert/strict";
import { removeIfThere } from "../tasks/files.ts";
import { askUntilGone, findUnproven, keepForProof, leftOf, withoutQueue } from "../tasks/proof.ts";
import { parseState } from "../tasks/terraform.ts";
import { LOCAL_FOLDER } from "../tasks/shell.ts";
import { fakeTime, progressOf } from "./fixtures.ts";

Deno.test("askUntilGone() asks again for two minutes before anything is left", async (t) => {
  const cases = [
    { name: "gone at once", shownFor: 0, asks: 1, left: [], seconds: [] },
    { name: "gone at the third look", shownFor: 2, asks: 3, left: [], seconds: [120, 110] },
    {
      name: "never gone",
      shownFor: Infinity,
      asks: 13,
      left: ["aws_sqs_queue.failures"],
      seconds: [120, 110, 100, 90, 80, 70, 60, 50, 40, 30, 20, 10],
    },
  ];
  for (const { name, shownFor, asks, left, seconds } of cases) {
    await t.step(name, async () => {
      const { time } = fakeTime();
      let asked = 0;
      let found: string[] = [];
      const ask = () => Promise.resolve(asked++ < shownFor ? ["aws_sqs_queue.failures"] : []);
      const said = await progressOf(async () => void (found = await askUntilGone(ask, time)));
      assert.deepEqual([found, asked], [left, asks]);
      const line = (s: number) =>
        "AWS still shows 1 resource, the first is aws_sqs_queue.failures; that may take a while: " +
        `asking again for ${s} s ...\n`;
      assert.equal(said, seconds.map(line).join(""));
    });
  }
});

Deno.test("the provider is not asked for the queue, but for one of another name", () => {
  const before = parseState(STATE);
  assert.deepEqual(before.resources.map(({ address }) => address), ["aws_sqs_queue.failures"]);
  const asked = withoutQueue(before);
  assert.deepEqual(asked.resources, []);
  const { resources: [stack, ...others], serial } = JSON.parse(asked.text);
  assert.deepEqual([stack.type, others, serial], ["terraform_data", [], 7]);
  const renamed = parseState(STATE.replace('"app-1-failures"', '"own"'));
  const { text, resources } = renamed;
  assert.deepEqual(withoutQueue(renamed), { text, resources });

  const queue = { address: "aws_sqs_queue.failures", id: "https://queue" };
  const bucket = { address: "aws_s3_bucket.uploads", id: "app-1" };
  assert.deepEqual(leftOf(["aws_s3_bucket.uploads"], [bucket, queue]), [
    "aws_s3_bucket.uploads",
    "aws_sqs_queue.failures (https://queue)",
  ]);
});

Deno.test("the state from before destroy is kept for its proof, and for no other", async () => {
  const workspace = "local-deno-task-test-proof";
  const file = `${LOCAL_FOLDER}/${workspace}.before-destroy.tfstate`;
  try {
    assert.equal(await findUnproven(workspace), undefined);
    const kept = parseState(STATE);
    await keepForProof(workspace, kept);
    assert.deepEqual(await findUnproven(workspace), kept);
    assert.equal(await findUnproven(`${workspace}-2`), undefined);
    assert.deepEqual([kept.name, kept.region], ["app-1", "eu-west-1"]);
    assert.deepEqual(kept.resources.map(({ address }) => address), ["aws_sqs_queue.failures"]);
    // A state may hold secrets.
    if (Deno.build.os !== "windows") assert.equal((await Deno.stat(file)).mode! & 0o777, 0o600);
  } finally {
    await removeIfThere(file);
  }
});

const STATE = JSON.stringify({
  serial: 7,
  resources: [
    {
      mode: "managed",
      provider: 'provider["terraform.io/builtin/terraform"]',
      type: "terraform_data",
      name: "stack",
      instances: [{ attributes: { input: { value: { region: "eu-west-1", name: "app-1" } } } }],
    },
    {
      mode: "managed",
      provider: 'provider["registry.terraform.io/hashicorp/aws"]',
      type: "aws_sqs_queue",
      name: "failures",
      instances: [{ attributes: { id: "https://queue", name: "app-1-failures" } }],
    },
  ],
});
