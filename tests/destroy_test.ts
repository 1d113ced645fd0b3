/** The proof of a destroy, where AWS still shows what was deleted. */

import assert from "node:assert/strict";
import {
  askUntilDeleted,
  findUnproven,
  keepForProof,
  leftOf,
  withoutQueue,
} from "../tasks/destroy.ts";
import { removeIfThere } from "../tasks/files.ts";
import { LOCAL_FOLDER } from "../tasks/shell.ts";
import { parseState } from "../tasks/terraform.ts";
import { fakeTime, progressOf } from "./fixtures.ts";

const QUEUE = "aws_sqs_queue.failures";

Deno.test("askUntilDeleted() asks again for two minutes before anything is left", async () => {
  const cases: [shownFor: number, asks: number, left: string[], seconds: number[]][] = [
    [0, 1, [], []],
    [2, 3, [], [120, 110]],
    [Infinity, 13, [QUEUE], [120, 110, 100, 90, 80, 70, 60, 50, 40, 30, 20, 10]],
  ];
  for (const [shownFor, asks, left, seconds] of cases) {
    const { time } = fakeTime();
    let asked = 0;
    let found: string[] = [];
    const ask = () => Promise.resolve(asked++ < shownFor ? [QUEUE] : []);
    const said = await progressOf(async () => void (found = await askUntilDeleted(ask, time)));
    assert.deepEqual([found, asked], [left, asks]);
    const line = (s: number) =>
      `AWS still shows 1 resource, the first is ${QUEUE}; that may take a while: ` +
      `asking again for ${s} s ...\n`;
    assert.equal(said, seconds.map(line).join(""));
  }
});

Deno.test("the provider is not asked for the queue, but for one of another name", () => {
  const before = parseState(stateWith("app-1-failures"));
  assert.deepEqual(before.resources.map(({ address }) => address), [QUEUE]);
  const asked = withoutQueue(before);
  assert.deepEqual([asked.resources, asked.name], [[], "app-1"]);
  assert.equal(JSON.parse(asked.text).serial, 7);
  const renamed = parseState(stateWith("own"));
  assert.deepEqual(withoutQueue(renamed), renamed);

  const queue = { address: QUEUE, id: "https://queue" };
  const bucket = { address: "aws_s3_bucket.uploads", id: "app-1" };
  const left = leftOf(["aws_s3_bucket.uploads"], [bucket, queue]);
  assert.deepEqual(left, ["aws_s3_bucket.uploads", `${QUEUE} (https://queue)`]);
});

Deno.test("the state from before destroy is kept for its proof, and for no other", async () => {
  const workspace = "local-deno-task-test-proof";
  const file = `${LOCAL_FOLDER}/${workspace}.before-destroy.tfstate`;
  try {
    assert.equal(await findUnproven(workspace), undefined);
    const kept = parseState(stateWith("app-1-failures"));
    await keepForProof(workspace, kept);
    assert.deepEqual(await findUnproven(workspace), kept);
    assert.equal(await findUnproven(`${workspace}-2`), undefined);
    assert.deepEqual([kept.name, kept.region], ["app-1", "eu-west-1"]);
    // A state may hold secrets.
    if (Deno.build.os !== "windows") assert.equal((await Deno.stat(file)).mode! & 0o777, 0o600);
  } finally {
    await removeIfThere(file);
  }
});

/** The state of a stack that has a failure queue of this name, and nothing else. */
function stateWith(queue: string): string {
  const resource = (source: string, type: string, name: string, attributes: object) => ({
    mode: "managed",
    provider: `provider["${source}"]`,
    type,
    name,
    instances: [{ attributes }],
  });
  const input = { value: { region: "eu-west-1", name: "app-1" } };
  const resources = [
    resource("terraform.io/builtin/terraform", "terraform_data", "stack", { input }),
    resource("x/hashicorp/aws", "aws_sqs_queue", "failures", { id: "https://queue", name: queue }),
  ];
  return JSON.stringify({ serial: 7, resources });
}
