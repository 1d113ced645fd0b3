/** Steps of the end-to-end tests: what plans show of a deployed stack, and what they refuse. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { ROOT, run } from "../tasks/shell.ts";
import { pullState } from "../tasks/terraform.ts";
import {
  type Deployed,
  inWorkspace,
  RESOURCES,
  type Steps,
  task,
  taskIn,
  unwrapped,
  withoutAws,
} from "./pipeline_context.ts";

/** What the stand-in forgets of an alarm between an apply and the next plan; AWS does not. */
const FORGOTTEN_OF_ALARMS = [
  "actions_enabled",
  "alarm_description",
  "dimensions",
  "period",
  "statistic",
  "treat_missing_data",
];

export const PLAN: Steps<Deployed> = {
  "a second plan changes only what the stand-in forgets": async (deployed) => {
    for (const { type, change } of await plannedChanges(deployed)) {
      for (const name of Object.keys(change.after)) {
        const same = JSON.stringify(change.after[name]) === JSON.stringify(change.before[name]);
        const forgotten = type === "aws_cloudwatch_metric_alarm" &&
          FORGOTTEN_OF_ALARMS.includes(name);
        assert.ok(same || forgotten, `${name} of ${type} would change`);
      }
    }
  },

  // Every plan refuses them, as identity.tftest.hcl shows; destroy asks before it empties the bucket.
  "another region or project than the state's is refused": async (deployed) => {
    const { variables, target } = deployed;
    const before = await Deno.readTextFile(variables);
    const cases = [
      [
        "destroy",
        'aws_region = "eu-west-1"',
        /This state's stack is in us-east-1, not in eu-west-1\. Set/,
      ],
      [
        "deploy",
        'project_name = "other"',
        /This state holds the stack "file-.*", not "other-local-deno-task-test"/,
      ],
    ] as const;
    for (const [name, line, sentence] of cases) {
      const variable = line.split(" ")[0];
      const lines = before.split("\n").filter((other) => !other.startsWith(variable));
      await Deno.writeTextFile(variables, [...lines, line].join("\n"));
      const { code, stderr } = await task(deployed, name, "--yes");
      assert.equal(code, 1, name);
      assert.match(unwrapped(stderr), sentence);
    }
    await Deno.writeTextFile(variables, before);
    const { resources } = await pullState(target.workspace);
    assert.equal(resources.length, RESOURCES);
  },

  "a wrapper around terraform that prints is noticed": async (deployed) => {
    const bin = await Deno.makeTempDir();
    try {
      const real = (await run("which", ["terraform"], { quiet: true })).stdout.trim();
      const script = `#!/bin/sh\necho "Welcome to the wrapper"\nexec '${real}' "$@"\n`;
      await Deno.writeTextFile(join(bin, "terraform"), script, { mode: 0o755 });
      const shell = { ...deployed.shell, PATH: `${bin}:${deployed.shell.PATH}` };
      const verify = await task({ ...deployed, shell }, "verify");
      assert.equal(verify.code, 1);
      assert.match(verify.stderr, /it begins with "Welcome to the wrapper"; does a wrapper/);
    } finally {
      await Deno.remove(bin, { recursive: true });
    }
  },

  "credentials that AWS does not accept are told in one sentence": async ({ shell }) => {
    const options = { hostname: "127.0.0.1", port: 0, onListen: () => {} };
    await using metadata = Deno.serve(options, ({ method, url }) => {
      if (method === "PUT") return new Response("token");
      if (url.endsWith("/security-credentials/")) return new Response("role");
      return Response.json({
        Code: "Success",
        Type: "AWS-HMAC",
        Token: "x",
        Expiration: "2099-01-01T00:00:00Z",
        AccessKeyId: "ASIASTRANGER",
        SecretAccessKey: "x",
      });
    });
    const env = {
      ...withoutAws(shell),
      AWS_EC2_METADATA_SERVICE_ENDPOINT: `http://127.0.0.1:${metadata.addr.port}`,
      AWS_ENDPOINT_URL: Deno.env.get("AWS_ENDPOINT_URL")!,
      AWS_CA_BUNDLE: Deno.env.get("AWS_CA_BUNDLE")!,
    };
    const plan = await taskIn(ROOT, env, "plan", "--env", "stranger");
    assert.equal(plan.code, 1);
    const last = plan.stderr.trimEnd().split("\n").at(-1)!;
    assert.match(last, /^terraform plan failed: AWS does not accept the credentials/);
  },
};

/** The changes that a plan would make. */
// deno-lint-ignore no-explicit-any
async function plannedChanges(deployed: Deployed): Promise<any[]> {
  const file = join(ROOT, "build", "test.tfplan");
  const args = ["-input=false", `-out=${file}`, `-var-file=${deployed.variables}`];
  try {
    await run("terraform", ["plan", ...args], inWorkspace(deployed));
    const { stdout } = await run("terraform", ["show", "-json", file], inWorkspace(deployed));
    return JSON.parse(stdout).resource_changes;
  } finally {
    await Deno.remove(file);
  }
}
