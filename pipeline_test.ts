/**
 * The whole pipeline on the stand-in, as its users run it: by `deno task`, with a workspace and a
 * stand-in of the test's own. It needs every permission, Terraform, Python and a few minutes.
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import type { Outputs } from "./terraform.ts";
import type { Report } from "./verify.ts";

const ROOT = import.meta.dirname!;
const ENVIRONMENT = ["--local", "--env", "test"];
const WORKSPACE = "local-test";

/** What the stand-in forgets of an alarm between an apply and the next plan; AWS does not. */
const FORGOTTEN_OF_ALARMS = [
  "actions_enabled",
  "alarm_description",
  "dimensions",
  "period",
  "statistic",
  "treat_missing_data",
];

const permitted = ["run", "net", "env", "sys", "write"].every((name) =>
  Deno.permissions.querySync({ name } as Deno.PermissionDescriptor).state === "granted"
);

Deno.test({
  name: "the pipeline, end to end on the stand-in (needs permissions: deno task test)",
  ignore: !permitted,
  fn: async (t) => {
    // Imported here: the SDK reads the environment, which plain `deno test` may not.
    const { enterLocal, stopLocal } = await import("./local.ts");
    const { outputs, pullState } = await import("./terraform.ts");
    const { clientsOf } = await import("./tasks.ts");
    const { run } = await import("./run.ts");
    const { InvokeCommand } = await import("@aws-sdk/client-lambda");
    const { GetItemCommand } = await import("@aws-sdk/client-dynamodb");
    const { ReceiveMessageCommand } = await import("@aws-sdk/client-sqs");
    const {
      CreateMultipartUploadCommand,
      DeleteObjectCommand,
      PutBucketNotificationConfigurationCommand,
      PutObjectCommand,
      UploadPartCommand,
    } = await import("@aws-sdk/client-s3");
    await stopLocal(WORKSPACE); // of a run that was killed
    const shell = Deno.env.toObject(); // before the stand-in's environment replaces it

    try {
      await t.step("verify and destroy say that nothing is deployed", async () => {
        const verify = await task(shell, "verify", ...ENVIRONMENT);
        assert.equal(verify.code, 1);
        assert.match(
          verify.stderr,
          /Nothing is deployed on the stand-in in environment test: run /,
        );
        const destroy = await task(shell, "destroy", ...ENVIRONMENT, "--yes");
        assert.equal(destroy.code, 0);
        assert.match(destroy.stderr, /Nothing is deployed on the stand-in in environment test/);
      });

      await t.step("the zip has the same bytes in any time zone and with any umask", async () => {
        const hashes = [];
        for (
          const [TZ, umask] of [["America/Los_Angeles", 0o077], ["Asia/Tokyo", 0o000]] as const
        ) {
          const before = Deno.umask(umask);
          try {
            hashes.push((await task({ ...shell, TZ }, "build")).stdout);
          } finally {
            Deno.umask(before);
          }
        }
        assert.match(hashes[0], /^build\/lambda.zip {2}\d+ bytes {2}SHA-256 \S+\n$/);
        assert.equal(hashes[0], hashes[1]);
        const zip = await Deno.readFile(join(ROOT, "build", "lambda.zip"));
        assert.ok(zip.length <= 150 * 1024, `the zip has ${zip.length} bytes`);
        assert.equal(zipEntryMode(zip), 0o644);
      });

      await t.step("deploy makes the stack", async () => {
        // A shell full of other settings, none of which may get in.
        const hostile = {
          ...shell,
          AWS_PROFILE: "somebody",
          AWS_ENDPOINT_URL_S3: "https://127.0.0.1:1",
          AWS_EC2_METADATA_DISABLED: "true",
          AWS_REGION: "eu-west-3",
          TF_VAR_environment: "prod",
          TF_VAR_aws_region: "eu-west-3",
          TF_CLI_ARGS_plan: "-destroy",
        };
        const deploy = await task(hostile, "deploy", ...ENVIRONMENT, "--yes");
        assert.equal(deploy.code, 0, deploy.stderr);
        assert.match(deploy.stdout, /^s3_bucket_name = file-metadata-local-test-\d+$/m);
        assert.match(
          deploy.stderr,
          /Account 123456789012, region us-east-1, environment local-test/,
        );
      });

      const local = await enterLocal(WORKSPACE, { start: false });
      assert.ok(local);
      try {
        const stack = await outputs(WORKSPACE);
        assert.ok(stack);
        const clients = clientsOf({ workspace: WORKSPACE, local }, stack.aws_region);

        await t.step("verify finds every file's row, exact", async () => {
          const verify = await task(shell, "verify", ...ENVIRONMENT, "--json");
          assert.equal(verify.code, 0, verify.stdout + verify.stderr);
          const report: Report = JSON.parse(verify.stdout);
          assert.deepEqual(report.problems, []);
          assert.equal(report.files.length, 8);
          assert.ok(
            report.files.every(({ checks, rowAfterMs }) => checks >= 12 && rowAfterMs! >= 0),
          );
          assert.deepEqual(report.failureQueue, { before: 0, after: 0 });
        });

        await t.step("a second plan changes only what the stand-in forgets", async () => {
          const file = join(ROOT, "build", "second.tfplan");
          try {
            const env = { TF_WORKSPACE: WORKSPACE };
            await run("terraform", ["plan", "-input=false", `-out=${file}`], { env, quiet: true });
            const shown = await run("terraform", ["show", "-json", file], { quiet: true });
            for (const { type, change } of JSON.parse(shown.stdout).resource_changes) {
              for (const name of Object.keys(change.after)) {
                const same =
                  JSON.stringify(change.after[name]) === JSON.stringify(change.before[name]);
                const forgotten = type === "aws_cloudwatch_metric_alarm" &&
                  FORGOTTEN_OF_ALARMS.includes(name);
                assert.ok(same || forgotten, `${name} of ${type} would change`);
              }
            }
          } finally {
            await Deno.remove(file);
          }
        });

        await t.step("an event that can't be handled is retried, then parked whole", async () => {
          const poison = event(stack, ["poison/%zz", "poison/good.txt"]);
          await clients.lambda.send(
            new InvokeCommand({
              FunctionName: stack.lambda_function_name,
              InvocationType: "Event",
              Payload: new TextEncoder().encode(JSON.stringify(poison)),
            }),
          );
          const parked = await waitFor(60_000, async () => {
            const { Messages = [] } = await clients.sqs.send(
              new ReceiveMessageCommand({
                QueueUrl: stack.failure_queue_url,
                VisibilityTimeout: 0,
              }),
            );
            return Messages[0]?.Body;
          });
          const envelope = JSON.parse(parked);
          assert.deepEqual(envelope.requestPayload, poison);
          assert.equal(envelope.requestContext.condition, "RetriesExhausted");
          assert.equal(envelope.requestContext.approximateInvokeCount, 3);
          assert.match(
            JSON.stringify(envelope.responsePayload),
            /1 of 2 records failed: .*poison\/%zz/,
          );
          // The event's other object is gone by now, which is a fact and no failure.
          const { Item } = await clients.dynamo.send(
            new GetItemCommand({
              TableName: stack.dynamodb_table_name,
              Key: { file_key: { S: "poison/good.txt" }, timestamp: { S: TIMESTAMP } },
            }),
          );
          assert.equal(Item?.file_size.N, "7");
          assert.equal(Item?.content_preview, undefined);
        });

        await t.step("verify fails, and says why, when the bucket no longer calls", async () => {
          await clients.s3.send(
            new PutBucketNotificationConfigurationCommand({
              Bucket: stack.s3_bucket_name,
              NotificationConfiguration: {},
            }),
          );
          const verify = await task(shell, "verify", ...ENVIRONMENT);
          assert.equal(verify.code, 1);
          assert.match(
            verify.stdout,
            /WRONG: the bucket \S+ has no notification that calls the function/,
          );
          assert.match(
            verify.stdout,
            /WRONG: plain.txt: no row after 30 s: invoked directly, the function/,
          );
        });

        await t.step("destroy removes all, whatever the bucket holds, and proves it", async () => {
          const Bucket = stack.s3_bucket_name;
          const keys = [
            "a+b",
            "100%",
            "%2B",
            "new\nline",
            "tab\t\u0001",
            " space ",
            "é/ü",
            "../x",
            "<&>",
          ];
          for (const Key of keys) {
            for (const Body of ["1", "2"]) {
              await clients.s3.send(new PutObjectCommand({ Bucket, Key, Body }));
            }
            await clients.s3.send(new DeleteObjectCommand({ Bucket, Key }));
          }
          const Key = "unfinished+upload";
          const { UploadId } = await clients.s3.send(
            new CreateMultipartUploadCommand({ Bucket, Key }),
          );
          const part = { Bucket, Key, UploadId, PartNumber: 1, Body: "part" };
          await clients.s3.send(new UploadPartCommand(part));

          const { resources } = await pullState(WORKSPACE);
          const destroy = await task(shell, "destroy", ...ENVIRONMENT, "--yes");
          assert.equal(destroy.code, 0, destroy.stderr);
          assert.equal(
            destroy.stdout,
            `${resources.length} of ${resources.length} resources gone\n`,
          );
          assert.equal(resources.length, 20);
          assert.match(destroy.stderr, /27 object versions in /);
          assert.match(
            destroy.stderr,
            /Emptied \S+: 27 versions and markers, 1 unfinished uploads/,
          );
        });
      } finally {
        await local.leave();
      }

      await t.step("nothing is left on this machine", async () => {
        for (const path of [join(".local", WORKSPACE), join("terraform.tfstate.d", WORKSPACE)]) {
          await assert.rejects(Deno.stat(join(ROOT, path)), Deno.errors.NotFound);
        }
        const { stdout } = await run("ps", ["-eo", "command="], { quiet: true });
        assert.equal(stdout.includes(join(ROOT, ".local", WORKSPACE)), false);
      });
    } finally {
      await stopLocal(WORKSPACE);
    }
  },
});

const TIMESTAMP = "2026-01-02T03:04:05.678Z";

/** An S3 event about objects that do not exist (any more). */
function event(stack: Outputs, encodedKeys: string[]) {
  const Records = encodedKeys.map((key) => ({
    eventVersion: "2.1",
    eventSource: "aws:s3",
    eventTime: TIMESTAMP,
    eventName: "ObjectCreated:Put",
    s3: { bucket: { name: stack.s3_bucket_name }, object: { key, size: 7, sequencer: "00" } },
  }));
  return { Records };
}

async function task(env: Record<string, string>, ...args: string[]) {
  const command = new Deno.Command(Deno.execPath(), {
    args: ["task", "--quiet", ...args],
    cwd: ROOT,
    env,
    clearEnv: true,
    stdin: "null",
  });
  const { code, stdout, stderr } = await command.output();
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: decode(stdout), stderr: decode(stderr) };
}

async function waitFor<T>(deadlineMs: number, look: () => Promise<T | undefined>): Promise<T> {
  const endMs = Date.now() + deadlineMs;
  while (Date.now() < endMs) {
    const found = await look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error(`Nothing came within ${deadlineMs} ms`);
}

/** The Unix mode of a zip's first entry, from its central directory. */
function zipEntryMode(zip: Uint8Array): number {
  const view = new DataView(zip.buffer);
  const end = zip.length - 22; // the record that ends a zip without a comment
  assert.equal(view.getUint32(end, true), 0x06054b50);
  const entry = view.getUint32(end + 16, true);
  return view.getUint32(entry + 38, true) >>> 16;
}
