/** Steps of the end-to-end tests: what plans show of a deployed stack, and what they refuse. */

import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { get } from "node:https";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { ListTagsCommand } from "@aws-sdk/client-lambda";
import { readDrift } from "../tasks/drift.ts";
import { ROOT, run } from "../tasks/shell.ts";
import type { Policy } from "../tasks/stand_in.ts";
import { pullState } from "../tasks/terraform.ts";
import {
  type Deployed,
  RESOURCES,
  type Steps,
  task,
  taskIn,
  unwrapped,
  withoutAws,
} from "./pipeline_context.ts";

/** By a type of resource: the action without which AWS does not answer its tags. */
const READS_TAGS: Record<string, string> = {
  aws_cloudwatch_log_group: "logs:ListTagsForResource",
  aws_cloudwatch_metric_alarm: "cloudwatch:ListTagsForResource",
  aws_dynamodb_table: "dynamodb:ListTagsOfResource",
  aws_iam_role: "iam:GetRole",
  aws_lambda_function: "lambda:ListTags",
  aws_s3_bucket: "s3:GetBucketTagging",
  aws_sqs_queue: "sqs:ListQueueTags",
};

export const PLAN: Steps<Deployed> = {
  "every resource has its tags, and the deployer may read them": async ({ target, project }) => {
    const document = await Deno.readTextFile(join(ROOT, "docs", "deployer_policy.json"));
    const policy: Policy = JSON.parse(document);
    const allowed = policy.Statement.flatMap(({ Action }) => Action);
    const { resources } = await pullState(target.workspace);
    const tagged = resources.filter(({ attributes }) => "tags_all" in attributes);
    const types = new Set(tagged.map(({ address }) => address.split(".")[0]));
    assert.deepEqual([...types].sort(), Object.keys(READS_TAGS));
    assert.deepEqual(Object.values(READS_TAGS).filter((action) => !allowed.includes(action)), []);
    const tags = { Project: project, Environment: target.workspace, ManagedBy: "terraform" };
    for (const { address, attributes } of tagged) {
      assert.deepEqual(attributes.tags_all, tags, address);
    }
  },

  "a second plan changes nothing": async (deployed) => {
    await using lambda = await lambdaOfAws(deployed);
    Deno.env.set("AWS_ENDPOINT_URL_LAMBDA", lambda.url);
    try {
      assert.deepEqual(await readDrift(deployed.target), []);
    } finally {
      Deno.env.delete("AWS_ENDPOINT_URL_LAMBDA");
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

/**
 * The stand-in's Lambda, but GetFunction answers a function's tags only to who may list them:
 * https://docs.aws.amazon.com/lambda/latest/dg/configuration-tags.html#fxn-tags-required-permissions
 */
async function lambdaOfAws({ deployer, ca }: Deployed) {
  const { lambda_function_arn: Resource, lambda_function_name: name } = deployer.outputs;
  const mayList = await deployer.lambda.send(new ListTagsCommand({ Resource }))
    .then(() => true, () => false);
  const standIn = Deno.env.get("AWS_ENDPOINT_URL")!;
  // Not by fetch, which sets the header Host: that one is signed. A plan's calls are all GET.
  const ask = (path: string, headers: Record<string, string>) =>
    new Promise<IncomingMessage>((resolve, reject) => {
      get(standIn + path, { headers, ca, agent: false }, resolve).on("error", reject);
    });
  const options = { hostname: "127.0.0.1", port: 0, onListen: () => {} };
  const server = Deno.serve(options, async ({ url, headers }) => {
    const { pathname, search } = new URL(url);
    const answer = await ask(pathname + search, Object.fromEntries(headers));
    const body = JSON.parse(await text(answer));
    if (!mayList && pathname.endsWith(`/functions/${name}`)) delete body.Tags;
    return Response.json(body, { status: answer.statusCode });
  });
  return {
    url: `http://127.0.0.1:${server.addr.port}`,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}
