/**
 * The whole pipeline on the stand-in, as its users run it: by `deno task` and by plain Terraform,
 * with a workspace and a stand-in of the test's own. Each step goes on from where the last one
 * ended. It needs every permission, Terraform, Python and some minutes.
 */

import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { request } from "node:https";
import { join } from "node:path";
import type { BackfillReport } from "../tasks/backfill.ts";
import type { Policy } from "../tasks/stand_in.ts";
import type { ReplayReport } from "../tasks/replay.ts";
import type { Status } from "../tasks/status.ts";
import type { State } from "../tasks/terraform.ts";
import type { Report } from "../tasks/verify.ts";

const ROOT = join(import.meta.dirname!, "..");
const ENVIRONMENT = ["--local", "--env", "test"];
const WORKSPACE = "local-test";
const VARIABLES = join(ROOT, `${WORKSPACE}.tfvars`);

/** With `-local-test-` 53 characters, the most that are allowed. */
const LONGEST_PROJECT = "file-metadata-with-the-longest-name-there";

const RESOURCES = 20;

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
    const { enterStandIn, grantInstanceRole, rootOf, stopStandIn } = await import(
      "../tasks/stand_in.ts"
    );
    const { removeIfThere } = await import("../tasks/files.ts");
    const { outputs, pullState } = await import("../tasks/terraform.ts");
    const { connect, targetOf } = await import("../tasks/target.ts");
    const { countVersions, emptyBucket } = await import("../tasks/bucket.ts");
    const { BACKFILLED, queryRows } = await import("../tasks/rows.ts");
    const { replayFailures } = await import("../tasks/replay.ts");
    const fn = await import("../tasks/function.ts");
    const { readLog } = await import("../tasks/logs.ts");
    const { forEachParallel } = await import("../tasks/parallel.ts");
    const { run } = await import("../tasks/shell.ts");
    const { corpus } = await import("./corpus.ts");
    const { bucketTakesNothingAlong, yesDeletesNoData } = await import("./steps_identity.ts");
    const { CloudTrailClient, LookupEventsCommand } = await import("@aws-sdk/client-cloudtrail");
    const cloudwatch = await import("@aws-sdk/client-cloudwatch");
    const iam = await import("@aws-sdk/client-iam");
    const { InvokeCommand, LambdaClient } = await import("@aws-sdk/client-lambda");
    const dynamodb = await import("@aws-sdk/client-dynamodb");
    const sqs = await import("@aws-sdk/client-sqs");
    const s3 = await import("@aws-sdk/client-s3");

    const shell = Deno.env.toObject(); // before the stand-in's environment replaces it
    const clone = await Deno.makeTempDir({ prefix: "ä b%20#1 " });
    const cleanUp = async () => {
      for (const workspace of [WORKSPACE, "local-killed"]) await stopStandIn(workspace);
      await removeIfThere(VARIABLES);
      // Terraform makes a folder for each workspace that it is asked about: this one is empty.
      await Deno.remove(join(ROOT, "terraform.tfstate.d", "stranger")).catch(() => {});
    };
    await cleanUp(); // of a run that was killed
    const standIns = () => processesOf(join(ROOT, ".local", "venv"));
    const standInsBefore = await standIns();

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

      await t.step("a name that is none for an environment is refused, nothing made", async () => {
        const states = join(ROOT, "terraform.tfstate.d");
        const before = await namesIn(states);
        for (
          const name of ["Prod", "a_b", "-a", "a".repeat(33), "a\u001b[31m", "default", "local-x"]
        ) {
          const plan = await task(shell, "plan", `--env=${name}`);
          assert.equal(plan.code, 1);
          assert.match(plan.stderr, /^--env .*$/m);
          assert.equal(plan.stderr.includes("\u001b[31m"), false);
        }
        const { stderr } = await task(shell, "verify", "--evn", "prod");
        assert.match(stderr, /--evn is not an option: did you mean --env\?/);
        assert.deepEqual(await namesIn(states), before);
      });

      await t.step("a half-made virtual environment is made again", async () => {
        const venv = join(ROOT, ".local", "venv");
        await removeIfThere(join(venv, "installed.txt"));
        for (const lib of await Array.fromAsync(globPip(venv))) await removeIfThere(lib);
        const plan = await task(shell, "plan", "--local", "--env", "killed");
        assert.equal(plan.code, 0, plan.stderr);
        assert.match(plan.stderr, /Installing MiniStack and Node/);
        assert.match(
          plan.stderr,
          new RegExp(`: ${RESOURCES + 1} to add, 0 to change, 0 to destroy`),
        );
      });

      await t.step(
        "a killed stand-in is cleared away, with the state of what it held",
        async () => {
          const folder = join(ROOT, ".local", "local-killed");
          const { pid } = JSON.parse(await Deno.readTextFile(join(folder, "running.json")));
          Deno.kill(-pid, "SIGKILL");
          const state = join(ROOT, "terraform.tfstate.d", "local-killed");
          await Deno.mkdir(state, { recursive: true });
          const text = JSON.stringify({ version: 4, resources: [{ mode: "managed" }] }, null, 2);
          await Deno.writeTextFile(join(state, "terraform.tfstate"), text);
          const verify = await task(shell, "verify", "--local", "--env", "killed");
          assert.equal(verify.code, 1);
          assert.match(verify.stderr, /was killed or does not answer: it is cleared away/);
          assert.match(verify.stderr, /its Terraform state is removed/);
          assert.match(verify.stderr, /Nothing is deployed/);
          await assert.rejects(Deno.stat(state), Deno.errors.NotFound);
        },
      );

      await t.step("Ctrl-C while the stand-in starts leaves no process", async () => {
        const { code, stderr } = await interruptedTask(shell, /Starting the local/, [
          "deploy",
          ...ENVIRONMENT,
          "--yes",
        ]);
        assert.equal(code, 130);
        assert.match(stderr, /Interrupted: deno task deploy --local --env test --yes goes on/);
        assert.deepEqual(await standIns(), standInsBefore);
      });

      await t.step("a name too long or a region that is none is refused at plan", async () => {
        const cases = [
          [`project_name = "${LONGEST_PROJECT}x"`, /at most 53 characters; it has 54\./],
          ['project_name = "My.Project"', /lower-case letters, digits and inner hyphens/],
          [
            'aws_region = "eu-nowhere-9"',
            /knows no such region; correct aws_region .*terraform init -upgrade/,
          ],
          ["lambda_memory_mb = 64", /must be a whole number from 128 to 10240/],
        ] as const;
        for (const [variables, sentence] of cases) {
          await Deno.writeTextFile(VARIABLES, variables);
          const plan = await task(shell, "plan", ...ENVIRONMENT);
          assert.equal(plan.code, 1);
          assert.match(unwrapped(plan.stderr), sentence);
          assert.match(plan.stderr.trimEnd().split("\n").at(-1)!, /^terraform plan failed/);
        }
        await Deno.writeTextFile(VARIABLES, `project_name = "${LONGEST_PROJECT}"\n`);
      });

      await t.step("the zip has the same bytes in any time zone, umask and folder", async () => {
        await copyAsWindowsClone(clone);
        const hashes = [];
        for (
          const [folder, TZ, umask] of [
            [ROOT, "America/Los_Angeles", 0o077],
            [ROOT, "Asia/Tokyo", 0o000],
            [clone, "UTC", 0o022],
          ] as const
        ) {
          const before = Deno.umask(umask);
          try {
            hashes.push((await taskIn(folder, { ...shell, TZ }, "build")).stdout);
          } finally {
            Deno.umask(before);
          }
        }
        assert.match(hashes[0], /^build\/lambda.zip {2}\d+ bytes {2}SHA-256 \S+\n$/);
        assert.deepEqual(hashes.slice(1), [hashes[0], hashes[0]]);
        const zip = await Deno.readFile(join(ROOT, "build", "lambda.zip"));
        assert.equal(zipEntryMode(zip), 0o644);
      });

      // A shell full of settings that must not get in.
      const hostile = {
        ...shell,
        AWS_PROFILE: "somebody",
        AWS_ENDPOINT_URL_S3: "https://127.0.0.1:1",
        AWS_EC2_METADATA_DISABLED: "true",
        AWS_REGION: "eu-west-3",
        HTTPS_PROXY: "http://127.0.0.1:1",
        TF_WORKSPACE: "prod",
        TF_VAR_environment: "prod",
        TF_VAR_aws_region: "eu-west-3",
        TF_CLI_ARGS_plan: "-destroy",
        TF_CLI_ARGS: "-no-such-option",
      };

      await t.step("Ctrl-C in the middle of apply lets Terraform save its state", async () => {
        const deploy = ["deploy", ...ENVIRONMENT, "--yes"];
        const { code, stderr } = await interruptedTask(
          hostile,
          /uploads: Creation complete/,
          deploy,
        );
        assert.equal(code, 130);
        assert.equal(stderr.match(/Interrupt received/g)?.length, 1);
        assert.match(stderr, /deno task destroy --local --env test --yes removes what is there/);
        assert.deepEqual(await processesOf(`${WORKSPACE}.tfplan`), []);
      });

      await t.step("deploy goes on where it was interrupted", async () => {
        const deploy = await task(hostile, "deploy", ...ENVIRONMENT, "--yes");
        assert.equal(deploy.code, 0, deploy.stderr);
        assert.match(
          deploy.stdout,
          new RegExp(`^s3_bucket_name = ${LONGEST_PROJECT}-local-test-[0-9a-f]{10}$`, "m"),
        );
        assert.match(
          deploy.stderr,
          /Account 123456789012, region us-east-1, environment local-test/,
        );
      });

      const local = await enterStandIn(WORKSPACE, "find");
      assert.ok(local);
      try {
        const stack = await outputs(WORKSPACE);
        assert.ok(stack);
        const target = targetOf({ env: "test", local: true });
        const Bucket = stack.s3_bucket_name;
        /** What a task would act with: the deployer's. */
        const deployer = connect(
          { ...target, ca: local.ca, [Symbol.asyncDispose]: () => Promise.resolve() },
          stack,
        );
        /** The test's own, of the stand-in's root, whom no policy binds. */
        const root = rootOf(Deno.env.get("AWS_ENDPOINT_URL")!, local.ca);
        const clients = {
          s3: new s3.S3Client(root),
          dynamo: new dynamodb.DynamoDBClient(root),
          lambda: new LambdaClient(root),
          sqs: new sqs.SQSClient(root),
          iam: new iam.IAMClient(root),
          cloudwatch: new cloudwatch.CloudWatchClient(root),
        };
        const asRoot = { ...clients, outputs: stack };
        const inLocal = { env: { TF_WORKSPACE: WORKSPACE }, quiet: true };

        /** Plans with arguments, without a trace, and hands over the resources' changes. */
        // deno-lint-ignore no-explicit-any
        const withPlan = async (args: string[], use: (changes: any[]) => void) => {
          const file = join(ROOT, "build", "test.tfplan");
          const all = [`-var-file=${VARIABLES}`, ...args];
          try {
            await run("terraform", ["plan", "-input=false", `-out=${file}`, ...all], inLocal);
            const { stdout } = await run("terraform", ["show", "-json", file], inLocal);
            use(JSON.parse(stdout).resource_changes);
          } finally {
            await Deno.remove(file);
          }
        };

        const parkedMessage = async (): Promise<string | undefined> => {
          const { Messages = [] } = await clients.sqs.send(
            new sqs.ReceiveMessageCommand({
              QueueUrl: stack!.failure_queue_url,
              VisibilityTimeout: 0,
            }),
          );
          return Messages[0]?.Body;
        };

        const countParked = async () => (await fn.countFailures(asRoot)).visible;

        const rowOf = async (key: string) => {
          const { Item } = await clients.dynamo.send(
            new dynamodb.GetItemCommand({
              TableName: stack!.dynamodb_table_name,
              Key: { file_key: { S: key }, timestamp: { S: TIMESTAMP } },
            }),
          );
          return Item;
        };

        /** Versions and markers under keys of every kind, two held ones before, and an upload. */
        const fillBucket = async () => {
          const names = ["a+b", "100%", "%2B", "new\nline", "return\r", "both\r\n", "tab\t\u0001"];
          for (const Key of [...names, " space ", "é/ü", "../x", "<&>"]) {
            for (const Body of ["1", "2"]) {
              await clients.s3.send(new s3.PutObjectCommand({ Bucket, Key, Body }));
            }
            await clients.s3.send(new s3.DeleteObjectCommand({ Bucket, Key }));
          }
          const Key = "unfinished+upload";
          const { UploadId } = await clients.s3.send(
            new s3.CreateMultipartUploadCommand({ Bucket, Key }),
          );
          const part = { Bucket, Key, UploadId, PartNumber: 1, Body: "part" };
          await clients.s3.send(new s3.UploadPartCommand(part));
        };

        const rowsOf = async (key: string) => {
          const { Items = [] } = await clients.dynamo.send(
            new dynamodb.QueryCommand({
              TableName: stack.dynamodb_table_name,
              KeyConditionExpression: "file_key = :key",
              ExpressionAttributeValues: { ":key": { S: key } },
              ConsistentRead: true,
            }),
          );
          return Items;
        };

        const rowsBelow = async (prefix: string) => {
          const rows = [];
          const pages = dynamodb.paginateScan({ client: clients.dynamo }, {
            TableName: stack.dynamodb_table_name,
            FilterExpression: "begins_with(file_key, :prefix)",
            ExpressionAttributeValues: { ":prefix": { S: prefix } },
            ConsistentRead: true,
          });
          for await (const { Items = [] } of pages) rows.push(...Items);
          return rows;
        };

        const putOf = async (Key: string, Body: string) => {
          const bytes = new TextEncoder().encode(Body); // the client warns of an empty text
          const object = { Bucket, Key, Body: bytes, ContentType: "text/plain" };
          const { VersionId, ETag } = await clients.s3.send(new s3.PutObjectCommand(object));
          return { versionId: VersionId, eTag: ETag!.replaceAll('"', "") };
        };

        const FunctionName = stack.lambda_function_name;

        const invoke = (Records: unknown[]) => fn.invoke(asRoot, { Records });

        const invokeLater = async (event: unknown) => {
          const Payload = new TextEncoder().encode(JSON.stringify(event));
          await clients.lambda.send(
            new InvokeCommand({ FunctionName, InvocationType: "Event", Payload }),
          );
        };

        /** The names of the AWS operations that the function called; its client names its Node. */
        const functionCalls = new Set<string>();
        /** Takes them from the stand-in's trail, newest first, which keeps the last 10,000 calls. */
        const collectFunctionCalls = async () => {
          const trail = new CloudTrailClient(root);
          let EndTime: Date | undefined;
          for (;;) {
            const { Events = [] } = await trail.send(new LookupEventsCommand({ EndTime }));
            for (const { EventName, CloudTrailEvent, Resources = [] } of Events) {
              const { userAgent } = JSON.parse(CloudTrailEvent!);
              const ours = Resources.some(({ ResourceName }) => ResourceName === Bucket);
              if (ours && / md\/nodejs#/.test(userAgent)) functionCalls.add(EventName!);
            }
            if (Events.length < 50) return;
            EndTime = new Date(Events.at(-1)!.EventTime!.getTime() + 1); // it gives no next page
          }
        };
        await fetchTrusting(local.ca, `${root.endpoint}/_ministack/config`, {
          "cloudtrail._recording_enabled": true,
        });

        // The same variables in the same account, from another clone, by plain Terraform; meanwhile.
        const other = plainTerraform(clone, shell, ["apply", "-input=false", "-auto-approve"]);

        await t.step("F1 F2 verify finds every file's row, exact", async () => {
          const verify = await task(hostile, "verify", ...ENVIRONMENT, "--json");
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
          await withPlan([], (changes) => {
            for (const { type, change } of changes) {
              for (const name of Object.keys(change.after)) {
                const same =
                  JSON.stringify(change.after[name]) === JSON.stringify(change.before[name]);
                const forgotten = type === "aws_cloudwatch_metric_alarm" &&
                  FORGOTTEN_OF_ALARMS.includes(name);
                assert.ok(same || forgotten, `${name} of ${type} would change`);
              }
            }
          });
        });

        await t.step("filters reach S3 form-encoded, the slash as it is", async () => {
          const filters = ["-var=filter_prefix=dt=2024-01-01/ä b+", "-var=filter_suffix=.c&v"];
          await withPlan(filters, (changes) => {
            const { change } = changes.find(({ type }) => type === "aws_s3_bucket_notification")!;
            const [{ filter_prefix, filter_suffix }] = change.after.lambda_function;
            assert.equal(filter_prefix, "dt%3D2024-01-01/%C3%A4+b%2B");
            assert.equal(filter_suffix, ".c%26v");
          });
        });

        await t.step(
          "another region or project than the state's is refused by every task",
          async () => {
            const before = await Deno.readTextFile(VARIABLES);
            const cases = [
              [
                'aws_region = "eu-west-1"',
                /This state's stack is in us-east-1, not in eu-west-1\. Set/,
              ],
              [
                'project_name = "other"',
                /This state holds the stack "file-.*", not "other-local-test"/,
              ],
            ] as const;
            for (const [line, sentence] of cases) {
              const name = line.split(" ")[0];
              const lines = before.split("\n").filter((other) => !other.startsWith(name));
              await Deno.writeTextFile(VARIABLES, [...lines, line].join("\n"));
              for (const name of ["plan", "deploy", "destroy"]) {
                const yes = name === "plan" ? [] : ["--yes"];
                const { code, stderr } = await task(shell, name, ...ENVIRONMENT, ...yes);
                assert.equal(code, 1, name);
                assert.match(unwrapped(stderr), sentence);
              }
            }
            await Deno.writeTextFile(VARIABLES, before);
            const { resources } = await pullState(WORKSPACE);
            assert.equal(resources.length, RESOURCES);
          },
        );

        await t.step("a wrapper around terraform that prints is noticed", async () => {
          const bin = await Deno.makeTempDir();
          try {
            const real = (await run("which", ["terraform"], { quiet: true })).stdout.trim();
            const script = `#!/bin/sh\necho "Welcome to the wrapper"\nexec '${real}' "$@"\n`;
            await Deno.writeTextFile(join(bin, "terraform"), script, { mode: 0o755 });
            const env = { ...shell, PATH: `${bin}:${shell.PATH}` };
            const verify = await task(env, "verify", ...ENVIRONMENT);
            assert.equal(verify.code, 1);
            assert.match(verify.stderr, /it begins with "Welcome to the wrapper"; does a wrapper/);
          } finally {
            await Deno.remove(bin, { recursive: true });
          }
        });

        await t.step("credentials that AWS does not accept are told in one sentence", async () => {
          const stranger = {
            Code: "Success",
            Type: "AWS-HMAC",
            Token: "x",
            Expiration: "2099-01-01T00:00:00Z",
          };
          const options = { hostname: "127.0.0.1", port: 0, onListen: () => {} };
          await using metadata = Deno.serve(options, ({ method, url }) => {
            if (method === "PUT") return new Response("token");
            if (url.endsWith("/security-credentials/")) return new Response("role");
            return Response.json({
              ...stranger,
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
          const plan = await task(env, "plan", "--env", "stranger");
          assert.equal(plan.code, 1);
          const last = plan.stderr.trimEnd().split("\n").at(-1)!;
          assert.match(last, /^terraform plan failed: AWS does not accept the credentials/);
        });

        await t.step("an event that can't be handled is retried, then parked whole", async () => {
          const poison = eventOf(Bucket, ["poison/%zz", "poison/good.txt"]);
          await invokeLater(poison);
          const parked = await waitFor(60_000, parkedMessage);
          const envelope = JSON.parse(parked);
          assert.deepEqual(envelope.requestPayload, poison);
          assert.equal(envelope.requestContext.condition, "RetriesExhausted");
          assert.equal(envelope.requestContext.approximateInvokeCount, 3);
          assert.match(
            JSON.stringify(envelope.responsePayload),
            /1 of 2 records failed: .*poison\/%zz/,
          );
          // The event's other object is gone by now, which is a fact and no failure.
          const row = await rowOf("poison/good.txt");
          assert.equal(row?.file_size.N, "7");
          assert.equal(row?.content_preview, undefined);
        });

        await t.step("status, logs and replay say what is wrong with it, and keep it", async () => {
          const status = await task(shell, "status", ...ENVIRONMENT, "--json");
          assert.equal(status.code, 1, status.stderr);
          const { ok, failureQueue, rows, problems }: Status = JSON.parse(status.stdout);
          assert.equal(ok, false);
          assert.deepEqual(failureQueue, { visible: 1, inFlight: 0 });
          assert.match(problems.join(), /^1 event in the failure queue: deno task logs says why/);
          assert.equal(rows[0].file_key, "poison/good.txt");

          const logs = await task(shell, "logs", ...ENVIRONMENT, "--since", "5m");
          assert.equal(logs.code, 0, logs.stderr);
          assert.match(logs.stdout, /^\S+Z {2}ERROR {2}failed .* Cannot decode .*"poison\/%zz"/m);
          assert.match(logs.stdout, /^\S+Z {2}INFO {3}written +\d+ ms {2}poison\/good\.txt/m);
          assert.doesNotMatch(logs.stdout, /RequestId/);

          const look = await task(shell, "replay", ...ENVIRONMENT, "--dry-run", "--json");
          assert.equal(look.code, 0, look.stderr);
          const { replayed, events: [event] = [] }: ReplayReport = JSON.parse(look.stdout);
          assert.equal(replayed, 1);
          assert.deepEqual(event.keys, ["poison/%zz", "poison/good.txt"]);
          assert.equal(event.tries, 3);
          assert.ok(Date.now() - Date.parse(event.parkedAt) < 600_000, event.parkedAt);
          assert.match(event.error!, /1 of 2 records failed/);

          const replay = await task(shell, "replay", ...ENVIRONMENT, "--json");
          assert.equal(replay.code, 1);
          const report: ReplayReport = JSON.parse(replay.stdout);
          assert.equal(report.replayed, 0);
          assert.match(report.failures[0].reason, /UndecodableKeyError: Cannot decode .*%zz/);
          assert.deepEqual(report.left, { visible: 1, inFlight: 0 });
        });

        await t.step("two clones with the same variables live side by side", async () => {
          const applied = await other;
          assert.equal(applied.code, 0, applied.stderr);
          const output = await plainTerraform(clone, shell, ["output", "-raw", "s3_bucket_name"]);
          assert.match(output.stdout, new RegExp(`^${LONGEST_PROJECT}-local-test-[0-9a-f]{10}$`));
          assert.notEqual(output.stdout, Bucket);

          const planned = () => plainTerraform(clone, shell, ["plan", "-input=false"]);
          const gone = await bucketTakesNothingAlong(clients.s3, output.stdout, planned);
          const destroyed = await plainTerraform(clone, shell, ["destroy", "-auto-approve"]);
          assert.equal(destroyed.code, 0, destroyed.stderr);
          assert.match(
            destroyed.stdout,
            new RegExp(`Resources: ${RESOURCES + 1 - gone} destroyed`),
          );
          assert.ok(await parkedMessage());
          assert.ok(await rowOf("poison/good.txt"));
        });

        await t.step("two deploys at once: the second one waits", async () => {
          const deploy = () => task(shell, "deploy", ...ENVIRONMENT, "--yes");
          const both = await Promise.all([deploy(), deploy()]);
          assert.deepEqual(both.map(({ code }) => code), [0, 0], both[0].stderr + both[1].stderr);
          const waiting = both.filter(({ stderr }) =>
            /Waiting for another task on this environment: deploy --local .*, process \d+/.test(
              stderr,
            )
          );
          assert.equal(waiting.length, 1);
          // The other clone's destroy and these changes left the stack whole.
          const verify = await task(shell, "verify", ...ENVIRONMENT);
          assert.equal(verify.code, 0, verify.stdout + verify.stderr);
        });

        await t.step("without any one statement of its policy the deployer fails", async (t) => {
          const policy: Policy = JSON.parse(
            await Deno.readTextFile(join(ROOT, "docs", "deployer_policy.json")),
          );
          const planOf = (address: string) => () => {
            const target = ["-lock=false", "-input=false", `-target=${address}`];
            const variables = `-var-file=${VARIABLES}`;
            return run("terraform", ["plan", "-refresh-only", variables, ...target], inLocal);
          };
          const Key = "needed/a";
          const put = () => deployer.s3.send(new s3.PutObjectCommand({ Bucket, Key, Body: "1" }));
          const plans: Record<string, () => Promise<unknown>> = {
            Bucket: planOf("aws_s3_bucket_versioning.uploads"),
            Table: planOf("aws_dynamodb_table.files"),
            Queue: planOf("aws_sqs_queue.failures"),
            LogGroup: planOf("aws_cloudwatch_log_group.function"),
            ListLogGroups: planOf("aws_cloudwatch_log_group.function"),
            FunctionRole: planOf("aws_iam_role_policy.function"),
            Function: planOf("aws_lambda_permission.uploads"),
            Alarms: planOf("aws_cloudwatch_metric_alarm.failures_waiting"),
            ListAlarms: planOf("aws_cloudwatch_metric_alarm.failures_waiting"),
          };
          let whole = true;
          const needs: Record<string, () => Promise<unknown>> = {
            ...plans, // which the second plan above has seen succeed
            ChangeInPlace: () => {
              const memory = `lambda_memory_mb=${whole ? 256 : 512}`;
              const target = ["-target=aws_lambda_function.metadata", "-auto-approve"];
              const variables = ["-input=false", `-var-file=${VARIABLES}`, `-var=${memory}`];
              return run("terraform", ["apply", ...variables, ...target], inLocal);
            },
            EmptyBucket: async () => {
              await clients.s3.send(new s3.PutObjectCommand({ Bucket, Key, Body: "1" }));
              await emptyBucket(deployer.s3, Bucket, { prefix: Key });
            },
            VerifyFiles: put,
            OperateRows: () => queryRows(deployer, "any"),
            OperateFunction: () => fn.invoke(deployer, { Records: [] }),
            OperateQueue: () => replayFailures(deployer, { dryRun: true, max: 1 }),
            ReadLog: () =>
              Array.fromAsync(
                readLog(deployer.logs, stack.log_group_name, { sinceMs: Date.now() }),
              ),
          };
          const untried = policy.Statement.map(({ Sid }) => Sid).filter((sid) => !needs[sid]);
          assert.deepEqual(untried, NOT_CHECKED_BY_THE_STAND_IN);
          try {
            for (const [sid, need] of Object.entries(needs)) {
              await t.step(sid, async () => {
                const Statement = policy.Statement.filter(({ Sid }) => Sid !== sid);
                assert.equal(Statement.length, policy.Statement.length - 1);
                await grantInstanceRole(clients.iam, { ...policy, Statement });
                whole = false;
                await assert.rejects(need(), /denied|not authorized|refused|UnknownError|failed/);
                await grantInstanceRole(clients.iam, policy);
                whole = true;
                if (!(sid in plans)) await need();
              });
            }
          } finally {
            await grantInstanceRole(clients.iam, policy);
          }
        });

        await t.step(
          "the function's role allows what the function calls, and no more",
          async () => {
            const role = { RoleName: stack.lambda_function_name, PolicyName: "metadata" };
            const { PolicyDocument } = await clients.iam.send(new iam.GetRolePolicyCommand(role));
            const document: Policy = JSON.parse(decodeURIComponent(PolicyDocument!));
            const actionsOf = (sids: string[]) =>
              document.Statement.filter(({ Sid }) => sids.includes(Sid)).flatMap(({ Action }) =>
                Action
              );
            const others = document.Statement.filter(({ Sid }) => !ROLE_IN_USE.includes(Sid));
            assert.deepEqual(others.map(({ Sid }) => Sid), ROLE_WITHOUT_CALLS);

            const { versionId } = await putOf("role/a", "text");
            const empty = await putOf("role/empty", "");
            const bare = recordOf(Bucket, { key: "role/a" });
            const versioned = recordOf(Bucket, { key: "role/a", versionId, sequencer: "0A" });
            const head = recordOf(Bucket, { key: "role/empty", size: 0, ...empty });
            const needs: Record<string, unknown> = {
              "s3:GetObject": bare,
              "s3:GetObjectVersion": versioned,
              "dynamodb:PutItem": head,
            };
            assert.deepEqual(Object.keys(needs).sort(), actionsOf(ROLE_IN_USE).sort());
            try {
              for (const [action, record] of Object.entries(needs)) {
                const Statement = document.Statement.map((statement) => ({
                  ...statement,
                  Action: [statement.Action].flat().filter((name) => name !== action),
                })).filter(({ Action }) => Action.length > 0);
                const less = JSON.stringify({ ...document, Statement });
                await clients.iam.send(
                  new iam.PutRolePolicyCommand({ ...role, PolicyDocument: less }),
                );
                assert.match(await invoke([record]) ?? "", /AccessDenied|HTTP 403/, action);
              }
            } finally {
              const whole = JSON.stringify(document);
              await clients.iam.send(
                new iam.PutRolePolicyCommand({ ...role, PolicyDocument: whole }),
              );
            }
            for (const record of Object.values(needs)) {
              assert.equal(await invoke([record]), undefined);
            }
          },
        );

        await t.step("F23-F55 objects of every kind get their one row, exact", async () => {
          const samples = corpus();
          await forEachParallel(samples, 8, async ({ key, body, type, encoding }) => {
            const object = { Key: key, Body: body, ContentType: type, ContentEncoding: encoding };
            await clients.s3.send(new s3.PutObjectCommand({ Bucket, ...object }));
          });
          const wrong: string[] = [];
          await forEachParallel(samples, 16, async ({ name, key, body, preview }) => {
            const rows = await waitFor(60_000, async () => {
              const rows = await rowsOf(key);
              return rows.length > 0 ? rows : undefined;
            }).catch(() => []);
            const head = await clients.s3.send(new s3.HeadObjectCommand({ Bucket, Key: key }));
            const type = Array.from(head.ContentType!).slice(0, 1024).join("");
            const seen = rows.map((row) => [
              row.file_size.N,
              row.content_type?.S,
              row.version_id?.S,
              row.content_preview?.S,
            ]);
            const expected = [[String(body.length), type, head.VersionId, preview]];
            if (JSON.stringify(seen) !== JSON.stringify(expected)) {
              wrong.push(`${name} ${JSON.stringify(key)}: ${JSON.stringify({ seen, expected })}`);
            }
          });
          assert.deepEqual(wrong, []);
          assert.equal(await countParked(), 1); // the poison
          assert.ok(samples.length > 500, `${samples.length} objects`);
        });

        await t.step("duplicates, disorder and changes leave exact rows", async (t) => {
          const previews = async (key: string, time = TIMESTAMP) =>
            (await rowsOf(key)).filter((row) => row.timestamp.S === time)
              .map((row) => [row.sequencer?.S, row.content_preview?.S]);
          const later = "2026-01-02T03:04:06.000Z";

          await t.step("F3 20 copies at the same time", async () => {
            const { versionId } = await putOf("copies", "one");
            const record = recordOf(Bucket, { key: "copies", versionId, sequencer: "0A" });
            const copies = Array.from({ length: 20 }, () => invoke([record]));
            assert.deepEqual(await Promise.all(copies), copies.map(() => undefined));
            assert.deepEqual(await previews("copies"), [["0A", "one"]]);
          });
          await t.step(
            "F4 F5 F10 two versions, in either order, each its own content",
            async () => {
              for (const key of ["order", "disorder"]) {
                const [first, second] = [await putOf(key, "first"), await putOf(key, "second")];
                const records = [
                  recordOf(Bucket, { key, versionId: first.versionId, sequencer: "0A" }),
                  recordOf(Bucket, { key, versionId: second.versionId, sequencer: "0B" }, later),
                ];
                if (key === "disorder") records.reverse();
                for (const record of records) assert.equal(await invoke([record]), undefined);
                assert.deepEqual(await previews(key), [["0A", "first"]]);
                assert.deepEqual(await previews(key, later), [["0B", "second"]]);
              }
            },
          );
          await t.step("F6 F7 one time, two sequencers: the higher one stays", async () => {
            for (const key of ["up", "down"]) {
              const [first, second] = [await putOf(key, "first"), await putOf(key, "second")];
              const records = [
                recordOf(Bucket, {
                  key,
                  versionId: first.versionId,
                  sequencer: "0055AED6DCD90281",
                }),
                recordOf(Bucket, {
                  key,
                  versionId: second.versionId,
                  sequencer: "0055AED6DCD90281E5",
                }),
              ];
              if (key === "down") records.reverse();
              for (const record of records) assert.equal(await invoke([record]), undefined);
              assert.deepEqual(await previews(key), [["0055AED6DCD90281E5", "second"]]);
            }
          });
          await t.step("F2 F8 F9 twice, without sequencer and version", async () => {
            const { eTag } = await putOf("bare", "text");
            for (let i = 0; i < 2; i++) {
              assert.equal(await invoke([recordOf(Bucket, { key: "bare", eTag })]), undefined);
            }
            assert.deepEqual(await previews("bare"), [[undefined, "text"]]);
          });
          await t.step("F11 without version, overwritten since", async () => {
            const { eTag } = await putOf("over", "old");
            await putOf("over", "new one");
            const record = recordOf(Bucket, { key: "over", eTag, size: 3, sequencer: "0A" });
            assert.equal(await invoke([record]), undefined);
            assert.deepEqual(await previews("over"), [["0A", undefined]]);
          });
          await t.step("F57 deleted before it is read", async () => {
            const { versionId } = await putOf("gone", "text");
            const version = { Bucket, Key: "gone", VersionId: versionId };
            await clients.s3.send(new s3.DeleteObjectCommand(version));
            const record = recordOf(Bucket, { key: "gone", versionId, size: 4, sequencer: "0A" });
            assert.equal(await invoke([record]), undefined);
            assert.deepEqual(await previews("gone"), [["0A", undefined]]);
          });
          await t.step("F21 F26 a key that can't be decoded holds up no other record", async () => {
            const { versionId } = await putOf("fine", "text");
            const keys = ["100%", "%zz", "%C3"];
            const records = keys.map((key) => recordOf(Bucket, { key }));
            const error = await invoke([...records, recordOf(Bucket, { key: "fine", versionId })]);
            assert.match(error!, /3 of 4 records failed: UndecodableKeyError: Cannot decode/);
            assert.deepEqual(await previews("fine"), [[undefined, "text"]]);
          });
        });

        await t.step("the function called what its role allows, and nothing else", async () => {
          await collectFunctionCalls();
          assert.deepEqual([...functionCalls].sort(), ["GetObject", "HeadObject", "PutItem"]);
        });

        /** The rows of the 1,000 objects, which the steps below bring back in their own ways. */
        let loaded: Awaited<ReturnType<typeof rowsBelow>> = [];
        const loadedNow = async () => (await rowsBelow("load/")).sort(byKey);
        const forgetLoaded = async () => {
          await forEachParallel(await loadedNow(), 16, async ({ file_key, timestamp }) => {
            const Key = { file_key, timestamp };
            const TableName = stack.dynamodb_table_name;
            await clients.dynamo.send(new dynamodb.DeleteItemCommand({ TableName, Key }));
          });
          assert.equal((await loadedNow()).length, 0);
        };
        /** Their events, in the envelope that the poison has; one of ten bare, as in a dead-letter queue. */
        const parkLoaded = async (rows: typeof loaded) => {
          const envelope = JSON.parse((await parkedMessage())!);
          await forEachParallel(chunksOf(10, rows), 8, async (chunk) => {
            const Entries = chunk.map((row, index) => {
              const requestPayload = { Records: [recordOfRow(Bucket, row)] };
              const message = index === 0 ? requestPayload : { ...envelope, requestPayload };
              return { Id: String(index), MessageBody: JSON.stringify(message) };
            });
            const QueueUrl = stack.failure_queue_url;
            await clients.sqs.send(new sqs.SendMessageBatchCommand({ QueueUrl, Entries }));
          });
        };

        await t.step(
          "1,000 objects at once; then their events again, twice and in disorder",
          async () => {
            const keys = Array.from({ length: 1000 }, (_, i) => `load/${i} +%.txt`);
            await forEachParallel(keys, 8, async (Key) => {
              await clients.s3.send(new s3.PutObjectCommand({ Bucket, Key, Body: Key }));
            });
            await waitFor(120_000, async () => (await loadedNow()).length >= 1000 || undefined);
            assert.equal(await countParked(), 1); // the poison

            loaded = await loadedNow();
            assert.equal(loaded.length, 1000);
            const records = loaded.map((row) => recordOfRow(Bucket, row));
            const twice = shuffled([...records, ...records]);
            await forEachParallel(chunksOf(100, twice), 4, async (records) => {
              assert.equal(await invoke(records), undefined);
            });
            assert.deepEqual(await loadedNow(), loaded);
          },
        );

        await t.step("replay, stopped in the middle and run again: all rows, exact", async () => {
          await forgetLoaded();
          await parkLoaded(loaded);
          const replay = ["replay", ...ENVIRONMENT, "--json"];
          const { code, stderr } = await interruptedTask(shell, /Replaying: [1-9]/, replay);
          assert.equal(code, 130, stderr);
          const some = (await loadedNow()).length;
          assert.ok(some > 0 && some < 1000, `${some} rows`);
          const again = await task(shell, ...replay);
          assert.equal(again.code, 1); // the poison
          const report: ReplayReport = JSON.parse(again.stdout);
          assert.equal(report.failures.length, 1);
          assert.ok(report.replayed < 1000, `${report.replayed} replayed`);
          assert.deepEqual(report.left, { visible: 1, inFlight: 0 });
          const timeless = (rows: typeof loaded) =>
            rows.map(({ processed_at: _, ...attributes }) => attributes);
          assert.deepEqual(timeless(await loadedNow()), timeless(loaded));
        });

        await t.step("backfill, stopped in the middle and run again: a row each", async () => {
          const backfill = (...args: string[]) => ["backfill", ...ENVIRONMENT, "--json", ...args];
          const report = ({ stdout }: Ended): BackfillReport => JSON.parse(stdout);
          await forgetLoaded();
          const dry = await task(shell, ...backfill("--prefix", "load/", "--dry-run"));
          assert.equal(dry.code, 0, dry.stderr);
          assert.equal(report(dry).sent, 1000);
          assert.equal((await loadedNow()).length, 0);

          const slowly = backfill("--prefix", "load/", "--concurrency", "1");
          const { code, stderr } = await interruptedTask(
            shell,
            /Backfilling: [1-9]\d* of 1000 done, \d+ sent, 0 failed, \d+ a second, .* left/,
            slowly,
          );
          assert.equal(code, 130, stderr);
          const some = (await loadedNow()).length;
          assert.ok(some > 0 && some < 1000, `${some} rows`);
          const again = await task(shell, ...backfill("--prefix", "load/"));
          assert.equal(again.code, 0, again.stderr);
          assert.deepEqual(report(again), {
            ok: true,
            dryRun: false,
            objects: 1000,
            recorded: some,
            sent: 1000 - some,
            failures: [],
            newer: 0,
          });
          const facts = (rows: typeof loaded) =>
            rows.map(({ file_key, version_id, etag, file_size }) => [
              file_key.S,
              version_id.S,
              etag.S,
              file_size.N,
            ]);
          const rows = await loadedNow();
          assert.deepEqual(facts(rows), facts(loaded));
          assert.ok(rows.every(({ event_name }) => event_name.S === BACKFILLED));

          // Some of their events come after all, of another time than the listing's, as on AWS: theirs
          // is the row that stays.
          const other = ({ S }: { S?: string }) => ({ S: S!.replace(/^\d{4}/, "2001") });
          const some50 = loaded.slice(0, 50);
          await parkLoaded(some50.map((row) => ({ ...row, timestamp: other(row.timestamp) })));
          assert.equal((await task(shell, "replay", ...ENVIRONMENT)).code, 1); // the poison
          const mixed = await loadedNow();
          assert.deepEqual(facts(mixed), facts(loaded));
          assert.equal(mixed.filter(({ event_name }) => event_name.S === BACKFILLED).length, 950);
        });

        await t.step("backfill finds that every other object has its row", async () => {
          const { code, stdout } = await task(
            shell,
            "backfill",
            ...ENVIRONMENT,
            "--dry-run",
            "--json",
          );
          const { objects, sent, failures }: BackfillReport = JSON.parse(stdout);
          assert.ok(objects > 1500, stdout);
          assert.equal(sent, 0);
          // Of keys with a carriage return or line feed the stand-in's listing can't tell.
          assert.ok(failures.every(({ key }) => key.includes("\n")), stdout);
          assert.equal(code, failures.length > 0 ? 1 : 0);
        });

        await t.step(
          "the function killed in the middle of an event: the retry records it",
          async () => {
            const keys = Array.from({ length: 1000 }, (_, i) => `killed/${i}`);
            await invokeLater(eventOf(Bucket, keys));
            const rows = () => rowsBelow("killed/");
            const some = await waitFor(30_000, async () => (await rows()).length || undefined);
            const { stdout } = await run("ps", ["-eo", "pid=,command="], { quiet: true });
            const workers = stdout.split("\n").filter((line) =>
              line.includes("ministack-lambda-") && line.includes(stack.lambda_function_name)
            );
            assert.ok(workers.length > 0, stdout);
            for (const worker of workers) Deno.kill(parseInt(worker), "SIGKILL");
            assert.ok(some < 1000, `${some} rows were there already`);
            await waitFor(60_000, async () => (await rows()).length === 1000 || undefined);
            assert.equal(await countParked(), 1); // the poison
          },
        );

        await t.step(
          "status no longer names the queue when it is empty, but a fired alarm",
          async () => {
            const QueueUrl = stack.failure_queue_url;
            await clients.sqs.send(new sqs.PurgeQueueCommand({ QueueUrl }));
            const AlarmName = `${stack.lambda_function_name}-dropped-events`;
            const alarm = {
              AlarmName,
              StateValue: "ALARM" as const,
              StateReason: "Tried \u202e",
            };
            await clients.cloudwatch.send(new cloudwatch.SetAlarmStateCommand(alarm));
            const { code, stdout } = await task(shell, "status", ...ENVIRONMENT);
            assert.equal(code, 1);
            assert.match(stdout, /^code .*, as built here$/m);
            assert.match(stdout, /^failure queue +0 events$/m);
            assert.match(stdout, /-dropped-events, \d+ s ago: Tried \\u\{202e\}/);
            assert.match(stdout, /^WRONG: the alarm \S+-dropped-events is in ALARM$/m);
            assert.doesNotMatch(stdout, /^WRONG: (?!the alarm)/m);
          },
        );

        await t.step("Ctrl-C in verify removes verify's own files", async () => {
          const before = await countVersions(clients.s3, Bucket, 100_000);
          const { code } = await interruptedTask(shell, /Uploading 8 files/, [
            "verify",
            ...ENVIRONMENT,
          ]);
          assert.equal(code, 130);
          assert.equal(await countVersions(clients.s3, Bucket, 100_000), before);
        });

        await t.step("all of this called nothing else", async () => {
          await collectFunctionCalls();
          assert.equal(functionCalls.size, 3, [...functionCalls].join());
        });

        await t.step("verify fails, and says why, when the bucket no longer calls", async () => {
          await clients.s3.send(
            new s3.PutBucketNotificationConfigurationCommand({
              Bucket,
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

        await t.step("--yes does not replace a table and a queue that hold data", async () => {
          await yesDeletesNoData(
            asRoot,
            (args) => run("terraform", args, inLocal),
            () => task(shell, "deploy", ...ENVIRONMENT, "--yes"),
          );
        });

        await t.step("destroy stops, all else whole, where S3 refuses to delete", async () => {
          for (const Key of ["held/a", "held/\u001b[31mred\n"]) {
            await clients.s3.send(new s3.PutObjectCommand({ Bucket, Key, Body: "1" }));
          }
          const { Policy } = await clients.s3.send(new s3.GetBucketPolicyCommand({ Bucket }));
          const hold = {
            Effect: "Deny",
            Principal: "*",
            Action: ["s3:DeleteObject", "s3:DeleteObjectVersion"],
            Resource: `arn:aws:s3:::${Bucket}/held/*`,
          };
          const held = JSON.stringify({ Version: "2012-10-17", Statement: [hold] });
          await clients.s3.send(new s3.PutBucketPolicyCommand({ Bucket, Policy: held }));
          const destroy = await task(shell, "destroy", ...ENVIRONMENT, "--yes");
          assert.equal(destroy.code, 1, destroy.stderr);
          assert.match(
            destroy.stderr,
            /S3 refused to delete 2 versions from .*"held\/a": AccessDenied/,
          );
          assert.match(destroy.stderr, /"held\/\\u\{1b\}\[31mred\\u\{a\}": AccessDenied/);
          assert.equal(destroy.stderr.includes("\u001b[31mred"), false);
          const { resources } = await pullState(WORKSPACE);
          assert.equal(resources.length, RESOURCES);
          await clients.s3.send(new s3.PutBucketPolicyCommand({ Bucket, Policy }));
        });

        let left: State["resources"];
        await t.step("Ctrl-C in the middle of destroy leaves the rest for the next", async () => {
          // Somebody tidied up by hand.
          await clients.sqs.send(new sqs.DeleteQueueCommand({ QueueUrl: stack.failure_queue_url }));
          await fillBucket();
          const versions = await countVersions(clients.s3, Bucket, 100_000);
          const { code, stderr } = await interruptedTask(shell, /Destroying\.\.\./, [
            "destroy",
            ...ENVIRONMENT,
            "--yes",
          ]);
          assert.equal(code, 130, stderr);
          assert.match(
            stderr,
            new RegExp(`Emptied \\S+: ${versions} versions and markers, 1 unfinished uploads`),
          );
          assert.match(stderr, /Interrupted: deno task destroy --local --env test --yes goes on/);
          ({ resources: left } = await pullState(WORKSPACE));
          assert.ok(left.length > 0 && left.length < RESOURCES, `${left.length} resources`);
        });

        await t.step("destroy removes the rest and proves it, without a built zip", async () => {
          await Deno.remove(join(ROOT, "build", "lambda.zip"));
          const destroy = await task(shell, "destroy", ...ENVIRONMENT, "--yes");
          assert.equal(destroy.code, 0, destroy.stderr);
          assert.equal(destroy.stdout, `${left.length} of ${left.length} resources gone\n`);
        });
      } finally {
        await local.leave();
      }

      await t.step("without credentials one sentence says so, soon", async () => {
        // A metadata service that accepts and never answers, as behind a container's hop limit.
        using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
        const env = {
          ...withoutAws(shell),
          AWS_EC2_METADATA_SERVICE_ENDPOINT: `http://127.0.0.1:${silent.addr.port}`,
        };
        const startMs = performance.now();
        const deploy = await task(env, "deploy", "--env", "nobody", "--yes");
        assert.equal(deploy.code, 1);
        assert.match(
          deploy.stderr.trimEnd(),
          /No AWS credentials found: the metadata service .* --http-put-response-hop-limit 2 .*$/,
        );
        assert.ok(performance.now() - startMs < 60_000);
      });

      await t.step("nothing is left on this machine", async () => {
        for (const folder of [".local", "terraform.tfstate.d"]) {
          const names = await namesIn(join(ROOT, folder));
          assert.deepEqual(names.filter((name) => [WORKSPACE, "local-killed"].includes(name)), []);
        }
        assert.deepEqual(
          (await namesIn(join(ROOT, "build"))).filter((name) => /^tmp-/.test(name)),
          [],
        );
        assert.deepEqual(await standIns(), standInsBefore);
      });
    } finally {
      await cleanUp();
      await Deno.remove(clone, { recursive: true });
    }

    async function processesOf(part: string): Promise<string[]> {
      const { stdout } = await run("ps", ["-eo", "command="], { quiet: true });
      return stdout.split("\n").filter((line) => line.includes(part));
    }
  },
});

/** Checked by AWS alone: without it Lambda may not be given the function's role. */
const NOT_CHECKED_BY_THE_STAND_IN = ["PassFunctionRole"];

/** What the function itself calls for. */
const ROLE_IN_USE = ["ReadUploads", "WriteRows"];

/**
 * ListBucket is no call: S3 looks for it to answer 404 rather than 403. Lambda itself writes the log
 * and parks the failed events, as this role.
 */
const ROLE_WITHOUT_CALLS = ["TellGoneFromForbidden", "WriteOwnLogs", "ParkFailedEvents"];

const TIMESTAMP = "2026-01-02T03:04:05.678Z";

function byKey(a: Record<string, { S?: string }>, b: Record<string, { S?: string }>): number {
  return a.file_key.S! < b.file_key.S! ? -1 : 1;
}

function chunksOf<T>(size: number, items: T[]): T[][] {
  const count = Math.ceil(items.length / size);
  return Array.from({ length: count }, (_, i) => items.slice(i * size, (i + 1) * size));
}

/** The event that a row is of. */
function recordOfRow(bucket: string, row: Record<string, { S?: string; N?: string }>) {
  return recordOf(bucket, {
    key: encodeURIComponent(row.file_key.S!),
    size: Number(row.file_size.N),
    eTag: row.etag.S,
    versionId: row.version_id.S,
    sequencer: row.sequencer.S,
  }, row.timestamp.S);
}

/** Posts JSON to a server with a certificate of its own. */
function fetchTrusting(ca: string, url: string, body: unknown): Promise<void> {
  return new Promise((resolve, reject) => {
    const answered = ({ statusCode }: IncomingMessage) =>
      statusCode === 200 ? resolve() : reject(new Error(`HTTP ${statusCode}`));
    request(url, { method: "POST", ca, agent: false }, answered).on("error", reject)
      .end(JSON.stringify(body));
  });
}

function shuffled<T>(items: T[]): T[] {
  return items.map((item) => [Math.random(), item] as const).sort(([a], [b]) => a - b)
    .map(([, item]) => item);
}

/** An S3 event about objects that do not exist (any more). */
function eventOf(bucket: string, encodedKeys: string[]) {
  const Records = encodedKeys.map((key) => recordOf(bucket, { key, size: 7, sequencer: "00" }));
  return { Records };
}

function recordOf(bucket: string, object: Record<string, unknown>, eventTime = TIMESTAMP) {
  return {
    eventVersion: "2.1",
    eventSource: "aws:s3",
    eventTime,
    eventName: "ObjectCreated:Put",
    s3: { bucket: { name: bucket }, object },
  };
}

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

function task(env: Record<string, string>, ...args: string[]): Promise<Ended> {
  return taskIn(ROOT, env, ...args);
}

/** A task of the clone in a folder, started from elsewhere. */
function taskIn(folder: string, env: Record<string, string>, ...args: string[]): Promise<Ended> {
  const words = ["task", "--quiet", "--config", join(folder, "deno.json"), ...args];
  return ended(Deno.execPath(), words, "/", env);
}

/** Plain Terraform in the other clone, in the stand-in's environment that this process is in. */
async function plainTerraform(clone: string, shell: Record<string, string>, args: string[]) {
  const env = { ...Deno.env.toObject(), TF_WORKSPACE: WORKSPACE };
  if (args[0] === "apply") {
    // As a user would: the provider comes from where this clone has it.
    const providers = await Deno.realPath(join(ROOT, ".terraform", "providers"));
    const init = ["init", "-no-color", "-input=false", `-plugin-dir=${providers}`];
    const { code, stderr } = await ended("terraform", init, clone, shell);
    assert.equal(code, 0, stderr);
  }
  const [command, ...rest] = args;
  const variables = command === "output" ? [] : [`-var=project_name=${LONGEST_PROJECT}`];
  return await ended("terraform", [command, "-no-color", ...variables, ...rest], clone, env);
}

async function ended(
  command: string,
  args: string[],
  cwd: string,
  env: Record<string, string>,
): Promise<Ended> {
  const child = new Deno.Command(command, { args, cwd, env, clearEnv: true, stdin: "null" });
  const { code, stdout, stderr } = await child.output();
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: decode(stdout), stderr: decode(stderr) };
}

/** Runs a task, with the permissions of deno.json, and sends SIGINT once stderr has the pattern. */
async function interruptedTask(
  env: Record<string, string>,
  pattern: RegExp,
  [name, ...args]: string[],
): Promise<{ code: number; stderr: string }> {
  const { tasks } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
  const [, ...words] = tasks[name].command.split(" ");
  const child = new Deno.Command(Deno.execPath(), {
    args: [...words, ...args],
    cwd: ROOT,
    env,
    clearEnv: true,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  let stderr = "";
  let sent = false;
  for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
    stderr += text;
    if (!sent && pattern.test(stderr)) {
      child.kill("SIGINT");
      sent = true;
    }
  }
  assert.ok(sent, `never came to ${pattern}: ${stderr}`);
  return { code: (await child.status).code, stderr };
}

/** The project's files, as git on Windows may write them. */
async function copyAsWindowsClone(folder: string): Promise<void> {
  for (const part of [".", "function", "tasks", "tests", "docs"]) {
    await Deno.mkdir(join(folder, part), { recursive: true });
    for await (const { name, isFile } of Deno.readDir(join(ROOT, part))) {
      if (!isFile || /\.tfvars$|^terraform\.tfstate/.test(name)) continue;
      const text = await Deno.readTextFile(join(ROOT, part, name));
      await Deno.writeTextFile(join(folder, part, name), text.replace(/\r?\n/g, "\r\n"));
    }
  }
}

async function* globPip(venv: string): AsyncGenerator<string> {
  for (const name of await namesIn(join(venv, "lib"))) {
    yield join(venv, "lib", name, "site-packages", "pip");
  }
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await Array.fromAsync(Deno.readDir(folder), ({ name }) => name)).sort();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
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

/** Terraform wraps its sentences at the terminal's width. */
function unwrapped(text: string): string {
  return text.replace(/\s+/g, " ");
}

function withoutAws(env: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith("AWS_")));
}

/** The Unix mode of a zip's first entry, from its central directory. */
function zipEntryMode(zip: Uint8Array): number {
  const view = new DataView(zip.buffer);
  const end = zip.length - 22; // the record that ends a zip without a comment
  assert.equal(view.getUint32(end, true), 0x06054b50);
  const entry = view.getUint32(end + 16, true);
  return view.getUint32(entry + 38, true) >>> 16;
}
