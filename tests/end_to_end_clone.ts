/**
 * Ctrl-C in the middle of an apply, and one that is killed, with AWS's answers as late as they are from
 * afar, and the state in a backend of the user's own, a bucket; and a stack of a bucket that exists. All in
 * other clones, whose tasks act as on AWS, since a stand-in's own state stays on this machine.
 */

import assert from "node:assert/strict";
import { type AddressInfo, connect, createServer } from "node:net";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { build, sha256Of } from "../tasks/build.ts";
import { shellWord } from "../tasks/commands.ts";
import { namesIn } from "../tasks/files.ts";
import { findNamed, type Found, lackingIn, NAMED } from "../tasks/leftovers.ts";
import { ROOT } from "../tasks/shell.ts";
import { parseState } from "../tasks/terraform.ts";
import { pause, read } from "./fixtures.ts";
import {
  type Clients,
  endToEndTest,
  type Pipeline,
  RESOURCES,
  rootClients,
  runSteps,
  shareProvider,
  type Steps,
  waitFor,
} from "./pipeline.ts";
import { type Ended, interruptTask, listProcesses, runProgram, runTask } from "./run_task.ts";
import { serveMetadata } from "./stub.ts";

/** How late an answer is, and how long after a line on stderr the end comes: the request is on its way. */
const DELAY_MS = 400;
const ACT_AFTER_MS = 300;

/** By its name the deployer may use it. */
const BUCKET = "file-metadata-states";
const KEY = "file-metadata.tfstate";

/** As OPERATE.md has it. */
const BACKEND = `terraform {
  backend "s3" {
    bucket       = "${BUCKET}"
    key          = "${KEY}"
    region       = "us-east-1"
    use_lockfile = true
  }
}
`;

/** Before destroy the state loses one, and most of the other, as if interrupted in its creation. */
const FORGOTTEN = 'aws_cloudwatch_metric_alarm.function["failures-waiting"]';
const INCOMPLETE = "aws_cloudwatch_log_group.function";

/** The other clone, and the stand-in that it takes for AWS. */
interface Remote extends Pipeline {
  clone: string;
  /** The stand-in's clients, as its root, whom no policy binds. */
  root: Clients;
  /** A way to the stand-in whose answers can be late. */
  late: { port: number; delayMs: number };
  /** The instance's metadata service: the only source of credentials. */
  metadata: { url: string };
  /** What the last interruption left in AWS alone. */
  left: Found[];
}

endToEndTest("clone", async (t, local) => {
  const root = rootClients();
  using late = await lateProxy(Number(new URL(Deno.env.get("AWS_ENDPOINT_URL")!).port));
  const names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
  await using metadata = serveMetadata(names.map((name) => Deno.env.get(name)!));
  await using held = new AsyncDisposableStack();
  const remote = { ...local, clone: await cloneAsOnWindows(held), root, late, metadata, left: [] };
  await runSteps(t, INTERRUPTED, remote); // to which its provider belongs
  const shell = { ...remote.shell, TF_VAR_existing_bucket: EXISTING_BUCKET };
  const attached = attachExisting({ ...remote, shell, clone: await cloneAsOnWindows(held) });
  attached.catch(() => {}); // its own step tells of it; here it would end the test
  held.use(await shareProvider(remote, asOnAws(remote)));
  await runSteps(t, GOES_ON, remote);
  const last = "an existing bucket is attached, verified, and left as it was";
  await runSteps(t, { [last]: () => attached }, remote);
});

const INTERRUPTED: Steps<Remote> = {
  "Ctrl-C in the middle of apply: the state lacks what is on its way": async (remote) => {
    const { clone, root } = remote;
    await root.s3.createBucket({ Bucket: BUCKET });
    await Deno.writeTextFile(join(clone, "backend.tf"), BACKEND);
    const creating = /aws_iam_role\.function: Creating/;
    const { code, stderr } = await deployLate(remote, creating, (deploy) => deploy.kill("SIGINT"));
    assert.equal(code, 130, stderr);
    assert.equal(stderr.match(/Interrupt received/g)?.length, 1);
    assert.match(stderr, /deno task destroy --yes removes what is there$/m);
    assert.deepEqual(await processesOf(join(clone, "build")), []);
    remote.left = await leftovers(remote);
    assert.ok(remote.left.length > 0, "this interruption left nothing behind");
  },

  "what a killed deploy made has the name that the state has": async (remote) => {
    const { clone, root } = remote;
    const { name: FunctionName } = await stateNow(remote);
    const creating = /aws_lambda_function\.metadata: Creating/;
    const { stderr } = await deployLate(remote, creating, async (deploy) => {
      // AWS has it, and Terraform does not know yet.
      await waitFor(30_000, () => root.lambda.getFunction({ FunctionName }).catch(() => undefined));
      await killApply(deploy, clone);
    });
    assertImported(stderr, remote.left);
    // As terraform force-unlock does.
    await root.s3.deleteObject({ Bucket: BUCKET, Key: `${KEY}.tflock` });
    const { name } = await stateNow(remote);
    assert.match(name ?? "no name", /^file-metadata-dev-[0-9a-f]{10}$/);
    remote.left = await leftovers(remote);
    assert.ok(remote.left.length > 0, "the killed deploy made nothing");
  },
};

/** What comes after an interruption. */
const GOES_ON: Steps<Remote> = {
  "deploy goes on where it was interrupted, its state in a user's backend": async (remote) => {
    const { clone, root, left } = remote;
    const { code, stdout, stderr } = await taskIn(remote, "deploy", "--yes");
    assert.equal(code, 0, stderr);
    assertImported(stderr, left);
    assert.match(stderr, / to add, \d+ to change, 0 to destroy$/m);
    assert.doesNotMatch(stderr, /already ?exists|ResourceInUse|ResourceConflict/i);
    assert.match(stdout, /^environment = dev$/m);
    const { Contents = [] } = await root.s3.listObjectsV2({ Bucket: BUCKET });
    assert.deepEqual(Contents.map(({ Key }) => Key), [KEY]); // and no lock
    assert.equal((await namesIn(clone)).includes("terraform.tfstate"), false);
    const zip = await Deno.readFile(join(clone, "build", "lambda.zip"));
    assert.equal(sha256Of(zip), (await build()).sha256); // in another folder and time zone
  },

  "destroy takes in what the state lacks; Ctrl-C in its middle leaves the rest": async (remote) => {
    const { clone: folder, root } = remote;
    const { name } = await stateNow(remote);
    await damageState(remote);
    const absent = ["aws_iam_role.batch[0]", "aws_s3_bucket.uploads[0]"]; // the former is an opt-in
    const left = (await findNamed(root, name!)).map(({ address }) => address);
    assert.deepEqual([...left, ...absent].sort(), NAMED.map(({ address }) => address).sort());
    const words = ["destroy", "--yes"];
    const ended = await interruptTask(words, asOnAws(remote), /Destruction complete/, folder);
    assert.equal(ended.code, 130, ended.stderr);
    assertImported(ended.stderr, [{ address: FORGOTTEN }, { address: INCOMPLETE }]);
    assert.match(ended.stderr, /Interrupted: deno task destroy --yes goes on/);
    const { resources } = await stateNow(remote);
    assert.ok(resources.length > 0 && resources.length < RESOURCES, `${resources.length} are left`);
  },

  "destroy removes the rest, without a built zip, and proves it": async (remote) => {
    const { clone, root } = remote;
    const { name } = await stateNow(remote);
    await Deno.remove(join(clone, "build", "lambda.zip"));
    const { code, stdout, stderr } = await taskIn(remote, "destroy", "--yes");
    assert.equal(code, 0, stderr);
    assert.equal(stdout, `Nothing in AWS is named ${name} any more\n`);
    assert.deepEqual(await findNamed(root, name!), []);
  },
};

async function stateNow(remote: Remote) {
  return parseState(await plainly(remote, "state", "pull"));
}

/**
 * Takes one resource out of the state, leaves of another no more than an interruption does, and has AWS
 * lack the bucket, as where it would have come after these.
 */
async function damageState(remote: Remote): Promise<void> {
  await remote.root.s3.deleteBucket({ Bucket: (await stateNow(remote)).name });
  await plainly(remote, "state", "rm", FORGOTTEN, "aws_s3_bucket.uploads[0]");
  const state = JSON.parse(await plainly(remote, "state", "pull"));
  state.serial++;
  const [type, name] = INCOMPLETE.split(".");
  for (const resource of state.resources) {
    if (resource.type !== type || resource.name !== name) continue;
    resource.instances[0].status = "tainted";
    resource.instances[0].attributes.arn = null;
  }
  const file = join(remote.clone, "damaged.tfstate");
  await Deno.writeTextFile(file, JSON.stringify(state));
  await plainly(remote, "state", "push", file);
}

/** Runs plain Terraform in the other clone, and returns its standard output. */
async function plainly(remote: Remote, ...args: string[]): Promise<string> {
  const env = { ...asOnAws(remote), TF_WORKSPACE: "default" };
  const { code, stdout, stderr } = await runProgram("terraform", args, remote.clone, env);
  assert.equal(code, 0, stderr);
  return stdout;
}

/** What is in AWS and not in the state. */
async function leftovers(remote: Remote): Promise<Found[]> {
  const state = await stateNow(remote);
  return lackingIn(state, await findNamed(remote.root, state.name!));
}

function assertImported(stderr: string, left: Pick<Found, "address">[]): void {
  const imports = stderr.split("\n").filter((line) => line.startsWith("$ terraform import "));
  for (const { address } of left) {
    assert.ok(
      imports.some((line) => line.includes(` ${shellWord(address)} `)),
      `${address}: ${stderr}`,
    );
  }
}

/**
 * An environment in which the stand-in is AWS, behind the late proxy, and this machine an instance with
 * the deployer's role.
 */
function asOnAws({ shell, late, metadata }: Remote): Record<string, string> {
  const others = Object.entries(shell).filter(([name]) => !name.startsWith("AWS_"));
  return {
    ...Object.fromEntries(others),
    AWS_CA_BUNDLE: Deno.env.get("AWS_CA_BUNDLE")!,
    AWS_EC2_METADATA_SERVICE_ENDPOINT: metadata.url,
    // A queue's URL has the port in it by which it was made.
    AWS_ENDPOINT_URL: `https://127.0.0.1:${late.port}`,
    TZ: "Asia/Tokyo", // to which no byte of the zip owes anything
  };
}

/** Passes connections on to a port of this machine, and what comes back after `delayMs`. */
async function lateProxy(port: number) {
  const server = createServer((near) => {
    const late = async function* (answer: AsyncIterable<Uint8Array>) {
      for await (const bytes of answer) {
        await pause(proxy.delayMs);
        yield bytes;
      }
    };
    pipeline(near, connect(port, "127.0.0.1"), late, near).catch(() => {}); // either may be cut
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const proxy = {
    port: (server.address() as AddressInfo).port,
    delayMs: 0,
    [Symbol.dispose]: () => void server.close(),
  };
  return proxy;
}

/**
 * Deploys with late answers from its apply on, and does something to the task soon after a line on
 * stderr, when that line's request is on its way.
 */
async function deployLate(
  remote: Remote,
  line: RegExp,
  act: (deploy: Deno.ChildProcess) => void | Promise<void>,
): Promise<Ended> {
  const { clone: folder, late } = remote;
  let acting: Promise<void> | undefined;
  const ended = await runTask(["deploy", "--yes"], asOnAws(remote), {
    folder,
    onStderr: (text, deploy) => {
      if (/\$ terraform apply/.test(text)) late.delayMs = DELAY_MS;
      if (line.test(text)) acting ??= pause(ACT_AFTER_MS).then(() => act(deploy));
    },
  });
  late.delayMs = 0;
  assert.ok(acting, `never came to ${line}: ${ended.stderr}`);
  await acting;
  return ended;
}

/** Kills a task that applies in a folder, and its Terraform. */
async function killApply(task: Deno.ChildProcess, folder: string): Promise<void> {
  const [apply] = (await processesOf(folder))
    .filter(({ command }) => command.includes("terraform apply"));
  // Terraform leads a group of its own, in which its provider is too.
  for (const pid of [task.pid, -apply.pid]) Deno.kill(pid, "SIGKILL");
}

/** The deployer's own policy does not name it. */
const EXISTING_BUCKET = "photos-of-others";

/** What somebody else has it do. */
const FOREIGN = {
  EventBridgeConfiguration: {},
  LambdaFunctionConfigurations: [{
    Id: "thumbs",
    LambdaFunctionArn: "arn:aws:lambda:us-east-1:123456789012:function:thumbs",
    Events: ["s3:ObjectRemoved:*" as const],
  }],
};

/** Attaches, verifies and destroys; nothing of the bucket changes but what its owner adds. */
async function attachExisting(remote: Remote): Promise<void> {
  const { root: { s3, iam } } = remote;
  const Bucket = EXISTING_BUCKET;
  await s3.createBucket({ Bucket });
  await s3.putObject({ Bucket, Key: "old", Body: "1" });
  await s3.putBucketNotificationConfiguration({ Bucket, NotificationConfiguration: FOREIGN });
  const text = await read("docs/existing_bucket_policy.json");
  const PolicyDocument = text.replaceAll("BUCKET", Bucket);
  await iam.putRolePolicy({ RoleName: "deployer", PolicyName: "existing", PolicyDocument });
  const before = (await s3.listObjectVersions({ Bucket })).Versions;

  const run = async (...words: string[]) => {
    const { code, stdout, stderr } = await taskIn(remote, ...words);
    assert.equal(code, 0, stdout + stderr);
    return stderr;
  };
  assert.match(await run("deploy", "--yes"), /does not call .* yet,[^]*^aws s3api get-/m);
  const entries = JSON.parse(await plainly(remote, "output", "-raw", "notification_json"));
  const LambdaFunctionConfigurations = [...FOREIGN.LambdaFunctionConfigurations, ...entries];
  const NotificationConfiguration = { ...FOREIGN, LambdaFunctionConfigurations };
  await s3.putBucketNotificationConfiguration({ Bucket, NotificationConfiguration });
  await run("verify");
  const said = await run("destroy", "--yes");
  assert.match(said, /stay as they are[^]*still names the function[^]*^aws s3api get-/m);
  assert.deepEqual((await s3.listObjectVersions({ Bucket })).Versions, before);
  const { $metadata: _, ...left } = await s3.getBucketNotificationConfiguration({ Bucket });
  assert.deepEqual(left, NotificationConfiguration);
}

/** Another clone of the project, its files as git on Windows may write them. */
async function cloneAsOnWindows(held: AsyncDisposableStack): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: "ä b%20#1 " });
  held.defer(() => Deno.remove(folder, { recursive: true }));
  for (const part of [".", "dev", "docs", "function", "tasks", "tests"]) {
    await Deno.mkdir(join(folder, part), { recursive: true });
    for await (const { name, isFile } of Deno.readDir(join(ROOT, part))) {
      if (!isFile || /\.tfvars$|^terraform\.tfstate/.test(name)) continue;
      const text = await Deno.readTextFile(join(ROOT, part, name));
      await Deno.writeTextFile(join(folder, part, name), text.replace(/\r?\n/g, "\r\n"));
    }
  }
  return folder;
}

/** Runs a task of the clone as on AWS, started from elsewhere. */
function taskIn(remote: Remote, ...args: string[]): Promise<Ended> {
  const words = ["task", "--quiet", "--config", join(remote.clone, "deno.json"), ...args];
  return runProgram(Deno.execPath(), words, "/", asOnAws(remote));
}

/** Processes of this machine whose command lines hold `part`. */
async function processesOf(part: string) {
  return (await listProcesses()).filter(({ command }) => command.includes(part));
}
