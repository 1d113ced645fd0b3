/** The way to AWS: straight, or through the proxy that the environment names. */

import { Agent } from "node:https";
import { isIP } from "node:net";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import { UserError, visible } from "./terminal.ts";

/** Never asked through a proxy: who gives an instance, a container or a pod its role, and this machine. */
const NEAR = [
  ...["169.254.169.254", "[fd00:ec2::254]", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"],
  ...["localhost", "127.0.0.1", "[::1]"],
];

type Environment = Record<string, string | undefined>;

/**
 * The proxy variables in a form that every program reads alike: in both spellings, with a scheme, and with
 * {@link NEAR} exempt. Where the spellings differ, the upper-case one counts, as for Terraform.
 * Without a proxy there are none.
 */
export function proxyVariables(environment: Environment): Record<string, string> {
  const given = (name: string) => environment[name] || environment[name.toLowerCase()];
  const proxies = ["HTTPS_PROXY", "HTTP_PROXY"].flatMap((name) => {
    const proxy = given(name);
    if (!proxy) return [];
    return [[name, proxy.includes("://") ? proxy : `http://${proxy}`]];
  });
  if (proxies.length === 0) return {};
  const exempt = (given("NO_PROXY") ?? "").split(/[\s,]+/).filter(Boolean);
  const all = [...proxies, ["NO_PROXY", [...new Set([...exempt, ...NEAR])].join(",")]];
  return Object.fromEntries(
    all.flatMap(([name, value]) => [[name, value], [name.toLowerCase(), value]]),
  );
}

/** Calls of one service that may be in flight at the same time. */
export const MOST_CALLS = 100;

/** A connection is made within this time, the proxy's answer to CONNECT included. */
const CONNECT_MS = 10_000;

/** An answer begins so long after a request without a body; SQS and the log's search take seconds. */
const ANSWER_MS = 30_000;

/** A body is sent at least so fast: uploads go over slow lines, several at a time. */
const SLOW_BYTES_A_MS = 10;

/** An invocation is answered at its end: Lambda ends a run after 15 minutes; its start comes before. */
export const LONGEST_RUN_MS = 930_000;

/**
 * How the AWS clients send their requests. The SDK asks the metadata service on its own, without this.
 *
 * @throws {UserError} HTTPS_PROXY is not the address of an HTTP proxy, or AWS_CA_BUNDLE cannot be read
 */
export function requestHandler(
  environment: Environment,
  { answerMs = ANSWER_MS, connectMs = CONNECT_MS } = {},
): NodeHttpHandler {
  const { HTTPS_PROXY, NO_PROXY } = proxyVariables(environment);
  if (HTTPS_PROXY !== undefined) checkProxy(HTTPS_PROXY);
  const proxyEnv = { HTTPS_PROXY, NO_PROXY }; // an HTTP_PROXY would count for HTTPS too
  const ca = readTrusted(environment);
  const settings = { ca, keepAlive: true, maxSockets: MOST_CALLS, proxyEnv };
  const handler = new NodeHttpHandler({
    httpsAgent: new Agent(settings),
    connectionTimeout: connectMs,
    throwOnRequestTimeout: true,
    socketTimeout: LONGEST_RUN_MS, // of an answer that stops half-way, too
  });
  const handle = handler.handle.bind(handler);
  handler.handle = (request, options) => {
    const bytes = Number(request.headers["content-length"] ?? 0);
    const workMs = request.path.endsWith("/invocations") ? LONGEST_RUN_MS : answerMs;
    return handle(request, { ...options, requestTimeout: workMs + bytes / SLOW_BYTES_A_MS });
  };
  return handler;
}

/** The certificates that AWS_CA_BUNDLE names: Terraform and the aws CLI read it, the SDK does not. */
function readTrusted({ AWS_CA_BUNDLE: path }: Environment): string | undefined {
  if (!path) return undefined;
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    throw new UserError(
      `Cannot read AWS_CA_BUNDLE, ${visible(path)}: ${(error as Error).name}; correct or unset it`,
    );
  }
}

/** @throws {UserError} the address is not an HTTP proxy's */
function checkProxy(text: string): void {
  const url = URL.parse(text);
  // Node's TLS takes no address as the name that it asks for.
  const isAddress = url?.protocol === "https:" && isIP(url.hostname.replace(/^\[|\]$/g, "")) !== 0;
  if (url?.hostname && /^https?:$/.test(url.protocol) && !isAddress) return;
  throw new UserError(
    `HTTPS_PROXY is "${
      visible(text.replace(/\/\/.*@/, "//"))
    }", which is not an HTTP proxy: write ` +
      "http://HOST:PORT, or https://NAME:PORT where it is reached by TLS, which takes no address",
  );
}
