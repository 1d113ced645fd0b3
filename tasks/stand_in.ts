/**
 * The stand-in for AWS on this machine: MiniStack, with TLS and IAM enforced. Each local workspace has
 * its own, whose state is in memory. Its files are in `.local/`, and it listens on 127.0.0.1 alone. In
 * its shell every AWS SDK, the aws CLI and Terraform reach it.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { get } from "node:https";
import { basename, delimiter, dirname, join } from "node:path";
import { EntityAlreadyExistsException, IAM } from "@aws-sdk/client-iam";
import { type Credentials, STS } from "@aws-sdk/client-sts";
import { shellWord } from "./commands.ts";
import { environmentFor } from "./environment.ts";
import { calledFrom, ifMissing, namesIn, readText, removeIfThere } from "./files.ts";
import { requestHandler } from "./proxy.ts";
import { LOCAL_FOLDER, ROOT, startProgram } from "./shell.ts";
import { interrupted, pause, signalGroup } from "./signals.ts";
import { say, UserError } from "./terminal.ts";
import { makeTools } from "./tools.ts";
import { LOCAL_REGION, ownFolder, stateFolder, variableSources } from "./workspace.ts";

/** The account that the stand-in plays. */
const ACCOUNT_ID = "123456789012";

/** The role that the tasks act as. */
const DEPLOYER = "deployer";

/** The files of a workspace's stand-in. */
function placesOf(workspace: string) {
  const folder = join(LOCAL_FOLDER, workspace);
  const tmp = join(folder, "tmp");
  return {
    folder,
    tmp,
    home: join(folder, "home"),
    log: join(folder, "ministack.log"),
    running: join(folder, "running.json"),
    certificate: join(tmp, "ministack-tls", "server.crt"),
    state: stateFolder(workspace),
  };
}

type Places = ReturnType<typeof placesOf>;

const START_DEADLINE_MS = 60_000;

/** It answers nobody while it reads a large object. */
const ANSWER_MS = 15_000;

interface Running {
  pid: number;
  port: number;
}

/**
 * Enters a workspace's stand-in. If none runs, "start" starts one, "find" changes nothing, and "clear"
 * removes what an ended one has left here. Until the result is disposed, this process and its children
 * take the stand-in for AWS; it runs on after that.
 *
 * @throws {UserError} Python or openssl is missing, or the stand-in does not start, or does not answer
 */
export async function enterStandIn(
  workspace: string,
  ifStopped: "start" | "find" | "clear",
): Promise<Disposable | undefined> {
  const places = placesOf(workspace);
  await Deno.mkdir(LOCAL_FOLDER, { recursive: true });
  // Only one process at a time makes, starts and finds stand-ins.
  using lock = await Deno.open(join(LOCAL_FOLDER, "lock"), { create: true, write: true });
  await lock.lock(true);

  const running = await findRunning(places);
  if (running !== undefined) return await enter(places, running);
  if (ifStopped === "find") return undefined;
  await stopStandIn(workspace);
  if (ifStopped === "clear") return undefined;
  return await enter(places, await start(places));
}

/** Ends a workspace's stand-in and removes what was in it, its Terraform state too; the tools stay. */
export async function stopStandIn(workspace: string): Promise<void> {
  const places = placesOf(workspace);
  const running = await readRunning(places);
  if (running !== undefined) await end(places, running);
  await removeIfThere(places.folder);
  await removeIfThere(places.state);
}

/** Ends the stand-in of each workspace whose name begins with a text. */
export async function stopStandIns(beginning: string): Promise<void> {
  for (const workspace of await namesIn(LOCAL_FOLDER)) {
    if (workspace.startsWith(beginning)) await stopStandIn(workspace);
  }
}

/** Starts the stand-in apart from this process, and waits until it answers. */
async function start(places: Places): Promise<Running> {
  const tools = await makeTools();
  for (const folder of [places.tmp, places.home]) {
    await Deno.mkdir(folder, { recursive: true, mode: 0o700 });
  }
  const port = freePort();
  say(`Starting the local stand-in on https://127.0.0.1:${port}`);
  const child = launch(places, tools, port);
  const running = { pid: child.pid!, port };
  await Deno.writeTextFile(places.running, JSON.stringify(running));
  try {
    const deadlineMs = Date.now() + START_DEADLINE_MS;
    while (!await answers(places, running)) {
      if (child.exitCode !== null || Date.now() > deadlineMs) {
        const tail = (await readText(places.log) ?? "").trimEnd().split("\n").slice(-5).join("\n");
        throw new UserError(`${tail}\nThe local stand-in did not start; its log ends as above`);
      }
      await pause(100);
    }
    return running;
  } catch (error) {
    // It may hold no lock yet, by which end() finds it; the id of a child is nobody else's.
    if (child.exitCode === null) signalGroup(running.pid, "SIGKILL");
    await end(places, running);
    await removeIfThere(places.running);
    throw error;
  }
}

/**
 * Starts MiniStack in a process group of its own, with its log locked: the system frees the lock when
 * the last process of the group has ended, and until then no other group can get its id.
 */
function launch(places: Places, { python, node }: Record<"python" | "node", string>, port: number) {
  const log = openSync(places.log, "w", 0o600);
  try {
    const child = spawn(python, [join(ROOT, "tasks", "stand_in.py"), basename(places.folder)], {
      cwd: places.folder,
      detached: true,
      stdio: ["ignore", log, log],
      env: {
        ...environmentFor("standIn", Deno.env.toObject()),
        PATH: [dirname(node), Deno.env.get("PATH") ?? ""].join(delimiter),
        HOME: places.home,
        TMPDIR: places.tmp,
        BIND_HOST: "127.0.0.1",
        GATEWAY_PORT: String(port),
        USE_SSL: "1",
        AUTH: "true",
        MINISTACK_ACCOUNT_ID: ACCOUNT_ID,
        MINISTACK_REGION: LOCAL_REGION,
        // It would also listen on other ports.
        SFTP_ENABLED: "0",
        IOT_MTLS_ENABLED: "0",
        // Without a bound it starts a process for each waiting event.
        LAMBDA_ACCOUNT_CONCURRENCY: "12",
        // A failed event is tried again after these seconds, then after twice as many: Lambda takes minutes.
        LAMBDA_ASYNC_RETRY_BASE_SECONDS: "2",
      },
    });
    child.unref();
    return child;
  } finally {
    closeSync(log);
  }
}

/**
 * The workspace's stand-in, if it runs.
 *
 * @throws {UserError} it runs and does not answer, as when its machine was suspended or it is busy
 */
async function findRunning(places: Places): Promise<Running | undefined> {
  const running = await readRunning(places);
  if (running === undefined || await answers(places, running)) return running;
  const { pid } = running;
  if (await isAlive(places)) {
    throw new UserError(
      `The local stand-in, process ${pid}, runs but does not answer: wait and run this again, or ` +
        `end it with all that is in it: kill -9 -- -${pid}`,
    );
  }
  say(`The local stand-in, process ${pid}, has ended, and all that was in it is lost`);
}

async function readRunning(places: Places): Promise<Running | undefined> {
  try {
    const { pid, port } = JSON.parse(await readText(places.running) ?? "");
    if (Number.isInteger(pid) && pid > 1 && Number.isInteger(port)) return { pid, port };
  } catch {
    // Absent or half written: not running.
  }
}

/** Whether this very stand-in answers on its port: another one has another certificate. */
async function answers(places: Places, { port }: Running): Promise<boolean> {
  const ca = await readText(places.certificate);
  if (ca === undefined) return false;
  const signal = AbortSignal.any([interrupted, AbortSignal.timeout(ANSWER_MS)]);
  const url = `https://127.0.0.1:${port}/_ministack/health`;
  const [response] = await once(get(url, { ca, agent: false, signal }), "response")
    .catch(() => []);
  response?.resume();
  return response?.statusCode === 200;
}

/** Kills the stand-in and the Node processes it started; a stranger with its id is left alone. */
async function end(places: Places, { pid }: Running): Promise<void> {
  for (let tries = 0; await isAlive(places); tries++) {
    if (tries === 50) {
      throw new UserError(
        `The stand-in, process ${pid}, does not end: end it, then run this again`,
      );
    }
    signalGroup(pid, "SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 100)); // after Ctrl-C, too
  }
}

/** Whether a process of the stand-in still holds the lock that {@link launch} speaks of. */
async function isAlive({ log }: Places): Promise<boolean> {
  using file = await Deno.open(log).catch(ifMissing(undefined));
  return file !== undefined && !await file.tryLock(false);
}

/** Replaces the environment of this process, which its children inherit, until the result is disposed. */
async function enter(places: Places, { port }: Running): Promise<Disposable> {
  const reached = {
    AWS_ENDPOINT_URL: `https://127.0.0.1:${port}`,
    AWS_CA_BUNDLE: places.certificate,
  };
  const session = await assumeDeployer(reached);
  const shell = Deno.env.toObject();
  replaceEnvironment({
    ...environmentFor("localRun", shell),
    ...reached,
    AWS_REGION: LOCAL_REGION,
    AWS_DEFAULT_REGION: LOCAL_REGION, // all that boto3 and aws CLI 1 read
    AWS_ACCESS_KEY_ID: session.AccessKeyId!,
    AWS_SECRET_ACCESS_KEY: session.SecretAccessKey!,
    AWS_SESSION_TOKEN: session.SessionToken!,
    // No profile of the user's adds to these.
    AWS_CONFIG_FILE: join(places.home, "none"),
    AWS_SHARED_CREDENTIALS_FILE: join(places.home, "none"),
    NO_PROXY: "127.0.0.1",
    no_proxy: "127.0.0.1",
    TF_VAR_aws_region: LOCAL_REGION,
  });
  return { [Symbol.dispose]: () => replaceEnvironment(shell) };
}

function replaceEnvironment(environment: Record<string, string>): void {
  for (const name of Object.keys(Deno.env.toObject())) Deno.env.delete(name);
  for (const [name, value] of Object.entries(environment)) Deno.env.set(name, value);
}

/**
 * Credentials of the deployer. The first call makes the role, as the stand-in's root: the only identity
 * that it knows when it starts.
 */
async function assumeDeployer(reached: Record<string, string>): Promise<Credentials> {
  const config = rootOf(reached);
  const iam = new IAM(config);
  const sts = new STS(config);
  const root = { AWS: `arn:aws:iam::${ACCOUNT_ID}:root` };
  const trust = { Effect: "Allow", Action: "sts:AssumeRole", Principal: root };
  try {
    await iam.createRole({
      RoleName: DEPLOYER,
      AssumeRolePolicyDocument: JSON.stringify({ Version: "2012-10-17", Statement: [trust] }),
    }).catch((error) => {
      if (!(error instanceof EntityAlreadyExistsException)) throw error;
    });
    const policy = await Deno.readTextFile(join(ROOT, "docs", "deployer_policy.json"));
    await grantDeployer(iam, JSON.parse(policy));
    const { Credentials } = await sts.assumeRole({
      RoleArn: `arn:aws:iam::${ACCOUNT_ID}:role/${DEPLOYER}`,
      RoleSessionName: "local",
      DurationSeconds: 365 * 24 * 3600, // longer than AWS lets a session be
    });
    return Credentials!;
  } finally {
    iam.destroy();
    sts.destroy();
  }
}

export interface Policy {
  Version: string;
  Statement: { Sid: string; Effect: string; Action: string[]; Resource: string | string[] }[];
}

/** Gives the deployer a policy. */
export async function grantDeployer(iam: IAM, policy: Policy): Promise<void> {
  const PolicyDocument = JSON.stringify(policy);
  await iam.putRolePolicy({ RoleName: DEPLOYER, PolicyName: "deploy", PolicyDocument });
}

/** A client's settings to act as the root of the stand-in that an environment leads to. */
export function rootOf(environment: Record<string, string>) {
  return {
    endpoint: environment.AWS_ENDPOINT_URL,
    region: LOCAL_REGION,
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    requestHandler: requestHandler(environment),
  };
}

/** A port of 127.0.0.1 on which nothing listens now. */
export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

const PROMPT = "(stand-in) $ ";

/** Shells without the files that they read first: these may set a profile, a region or a prompt. */
const WITHOUT_FILES = new Map([
  ["bash", ["--noprofile", "--norc"]],
  ["zsh", ["-f"]],
  ["fish", ["--no-config", "--init-command", `function fish_prompt; echo -n '${PROMPT}'; end`]],
]);

/** The user's shell as a command; sh where there is none, or one that is not known. */
export function shellCommand(shell = ""): string[] {
  const args = WITHOUT_FILES.get(basename(shell));
  return args ? [shell, ...args] : ["sh"];
}

/**
 * Runs a command at the user's terminal and returns its exit code. It gets this process's
 * environment, which {@link enterStandIn} has made the stand-in's.
 *
 * @throws {UserError} the program does not start
 */
export async function runAtTerminal(
  workspace: string,
  [program, ...args]: string[],
): Promise<number> {
  const env = {
    // The aws CLI and boto3 read AWS_CA_BUNDLE, Node only this.
    NODE_EXTRA_CA_CERTS: Deno.env.get("AWS_CA_BUNDLE")!,
    PATH: `${await makeTerraform(workspace)}:${Deno.env.get("PATH")}`,
    // A terraform that is found in another way has a state of its own.
    TF_WORKSPACE: workspace,
    PS1: PROMPT,
    ENV: "", // the file that sh reads first
    BASH_ENV: "",
  };
  // Ctrl-C is for the program, which gets it from the terminal.
  const ignore = () => {};
  Deno.addSignalListener("SIGINT", ignore);
  try {
    return (await startProgram(program, { args, cwd: calledFrom(), env }).status).code;
  } finally {
    Deno.removeSignalListener("SIGINT", ignore);
  }
}

/** Makes a `terraform` that acts on the stand-in in the project's folder; returns its own folder. */
async function makeTerraform(workspace: string): Promise<string> {
  const values = (await variableSources(workspace)).args.join(" ");
  const lines = [
    "#!/bin/sh",
    `PATH=${shellWord(Deno.env.get("PATH") ?? "")}`,
    `[ "$(pwd -P)" = ${shellWord(await Deno.realPath(ROOT))} ] || exec terraform "$@"`,
    'case $1 in -chdir=*) exec terraform "$@" ;; esac', // as tasks do
    "for command in plan apply destroy refresh import console; do",
    `  export "TF_CLI_ARGS_$command=${values}"`,
    "done",
    `exec terraform ${shellWord(`-chdir=${await ownFolder()}`)} "$@"`,
  ];
  const bin = join(LOCAL_FOLDER, workspace, "bin");
  await Deno.mkdir(bin, { recursive: true });
  await Deno.writeTextFile(join(bin, "terraform"), lines.join("\n") + "\n", { mode: 0o755 });
  return bin;
}
