/** The way to AWS: straight, or through the proxy that the environment names. */

import { Agent } from "node:https";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import { HttpsProxyAgent } from "hpagent";
import { getProxyForUrl } from "proxy-from-env";
import { MOST_CALLS } from "../function/parallel.ts";
import { UserError, visible } from "./terminal.ts";

/** Never asked through a proxy: the instance metadata service, and this machine. */
const NEAR = ["169.254.169.254", "[fd00:ec2::254]", "localhost", "127.0.0.1", "[::1]"];

/** The variables of {@link proxyVariables}; each is also read in lower case. */
export const PROXY_VARIABLES = ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"];

type Environment = Record<string, string | undefined>;

/**
 * The proxy variables as every program reads them alike: in both spellings, with a scheme, and with
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
  const exempt = (given("NO_PROXY") ?? "").split(/[\s,]+/).filter(Boolean).flatMap((host) =>
    // To Terraform and curl a name means its subdomains too; to proxy-from-env it does not.
    /^[a-z]/i.test(host) ? [host, `.${host}`] : [host]
  );
  const all = [...proxies, ["NO_PROXY", [...new Set([...exempt, ...NEAR])].join(",")]];
  return Object.fromEntries(
    all.flatMap(([name, value]) => [[name, value], [name.toLowerCase(), value]]),
  );
}

/** The proxy's host and port, for sentences; undefined where there is none. */
export function proxyName(environment: Environment): string | undefined {
  const { HTTPS_PROXY } = proxyVariables(environment);
  return HTTPS_PROXY === undefined ? undefined : URL.parse(HTTPS_PROXY)?.host;
}

/**
 * How the AWS clients send their requests. The proxy is decided for each host, since NO_PROXY may
 * exempt some services. The SDK asks the metadata service on its own, without this.
 *
 * @param ca certificates to trust (PEM); the usual ones by default
 * @throws {UserError} HTTPS_PROXY is no address of an HTTP proxy
 */
export function requestHandler(ca: string | undefined, environment: Environment) {
  const settings = { ca, keepAlive: true, maxSockets: MOST_CALLS };
  const straight = new NodeHttpHandler({ httpsAgent: new Agent(settings) });
  const { HTTPS_PROXY } = proxyVariables(environment);
  if (HTTPS_PROXY === undefined) return straight;

  const proxy = parseProxy(HTTPS_PROXY);
  const proxied = new NodeHttpHandler({ httpsAgent: new HttpsProxyAgent({ ...settings, proxy }) });
  const handlerFor = (request: { protocol: string; hostname: string }) =>
    request.protocol === "https:" && getProxyForUrl(`https://${request.hostname}`)
      ? proxied
      : straight;
  return {
    metadata: straight.metadata,
    handle: ((request, options) => handlerFor(request).handle(request, options)) as NodeHttpHandler[
      "handle"
    ],
    updateHttpClientConfig: ((key, value) => {
      straight.updateHttpClientConfig(key, value);
      proxied.updateHttpClientConfig(key, value);
    }) as NodeHttpHandler["updateHttpClientConfig"],
    httpHandlerConfigs: () => straight.httpHandlerConfigs(),
    destroy() {
      straight.destroy();
      proxied.destroy();
    },
  };
}

function parseProxy(text: string): URL {
  const url = URL.parse(text);
  if (url?.hostname && /^https?:$/.test(url.protocol)) return url;
  throw new UserError(
    `HTTPS_PROXY is "${
      visible(text.replace(/\/\/.*@/, "//"))
    }", which is no HTTP proxy: write http://HOST:PORT`,
  );
}
