/** The clients of AWS: their way through a proxy, how long they wait, and AWS's clock. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { pipeline } from "node:stream/promises";
import { GetFunctionCommand, InvokeCommand, LambdaClient } from "@aws-sdk/client-lambda";
import { ListBucketsCommand, S3Client } from "@aws-sdk/client-s3";
import { clientsOf, now, readClock } from "../tasks/clients.ts";
import { toSentence } from "../tasks/failures.ts";
import { readLog } from "../tasks/logs.ts";
import { proxyVariables, requestHandler } from "../tasks/proxy.ts";
import { fakeStack, replaceEnvironment } from "./fixtures.ts";
import { serveMetadata, serveTls } from "./stub.ts";

const CREDENTIALS = { accessKeyId: "a", secretAccessKey: "b" };
const NEAR = "169.254.169.254,[fd00:ec2::254],169.254.170.2,169.254.170.23,[fd00:ec2::23]," +
  "localhost,127.0.0.1,[::1]";

Deno.test("proxyVariables() gives every program the same proxy, in both spellings", () => {
  const cases: [Record<string, string>, Record<string, string>][] = [
    [{}, {}],
    [{ NO_PROXY: "a.b" }, {}],
    [{ HTTPS_PROXY: "" }, {}],
    [{ https_proxy: "proxy:3128" }, { HTTPS_PROXY: "http://proxy:3128", NO_PROXY: NEAR }],
    [{ HTTPS_PROXY: "http://upper", https_proxy: "http://lower" }, {
      HTTPS_PROXY: "http://upper",
      NO_PROXY: NEAR,
    }],
    [{ http_proxy: "http://p", no_proxy: "corp.com, .b.c *.d 10.0.0.0/8" }, {
      HTTP_PROXY: "http://p",
      NO_PROXY: `corp.com,.b.c,*.d,10.0.0.0/8,${NEAR}`,
    }],
  ];
  for (const [environment, expected] of cases) {
    const both = Object.entries(expected).flatMap(([name, value]) => [
      [name, value],
      [name.toLowerCase(), value],
    ]);
    assert.deepEqual(proxyVariables(environment), Object.fromEntries(both));
  }
});

const NAMED = "s3.us-east-1.amazonaws.com:443 us@er:pass";

/** By changes of the environment: what asking S3 comes to, what the proxy was asked for, and its status. */
const CASES: [
  name: string,
  changes: Record<string, string>,
  told: RegExp,
  asked?: string,
  status?: number,
][] = [
  ["with its name and password, the metadata service exempt", {}, /^ok$/, NAMED],
  [
    "not for a host below a name of NO_PROXY",
    { NO_PROXY: "ec2.internal,nowhere.invalid", AWS_ENDPOINT_URL: "https://s3.nowhere.invalid" },
    /^The connection failed: .* s3.nowhere.invalid\nAWS can't be reached; .*NO_PROXY$/,
  ],
  [
    "what the proxy refuses is not called AWS's refusal",
    {},
    /over http:\/\/127.0.0.1:\d+: HTTP\/1.1 407 No\nThe proxy .* refused/,
    NAMED,
    407,
  ],
  [
    "a proxy that does not run is named",
    { HTTPS_PROXY: "http://127.0.0.1:1" },
    /^The connection failed: connect ECONNREFUSED 127.0.0.1:1\nAWS can't be reached; /,
  ],
  [
    "a proxy that is reached by TLS needs a name, not an address",
    { HTTPS_PROXY: "https://me:secret@[::1]:1" },
    /^HTTPS_PROXY is "https:\/\/\[::1\]:1", which .* or https:\/\/NAME:PORT where it is reached by/,
  ],
  [
    "what is not an HTTP proxy is refused, its password hidden",
    { HTTPS_PROXY: "socks5://me:secret@127.0.0.1:1" },
    /^HTTPS_PROXY is "socks5:\/\/127.0.0.1:1", which is not an HTTP proxy: write http/,
  ],
];

Deno.test("the clients reach AWS through a proxy alone", async (t) => {
  await using aws = await serveTls((_request, response) => {
    response.end("<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>");
  });
  await using proxy = await startProxy(aws.port);
  await using metadata = serveMetadata(["ASIATEST", "x", "x"]);
  const certificate = await Deno.makeTempFile();
  await Deno.writeTextFile(certificate, aws.ca);
  const environment = {
    AWS_CA_BUNDLE: certificate,
    AWS_EC2_METADATA_SERVICE_ENDPOINT: metadata.url,
    HTTPS_PROXY: `http://us%40er:pass@127.0.0.1:${proxy.port}`,
    HTTP_PROXY: `http://127.0.0.1:${proxy.port}`,
    NO_PROXY: "ec2.internal",
  };
  const listBuckets = async () => {
    const { s3 } = clientsOf("us-east-1");
    await s3.send(new ListBucketsCommand({})).finally(() => s3.destroy());
    return "ok";
  };
  for (const [name, changes, told, asked, status = 200] of CASES) {
    await t.step(name, async () => {
      using _environment = replaceEnvironment({ ...environment, ...changes });
      Object.assign(proxy, { status, asked: [] });
      const sentence = await listBuckets().catch((error) =>
        toSentence(error, Deno.env.toObject()) ?? error.message
      );
      assert.match(sentence, told);
      assert.doesNotMatch(sentence, /pass|secret/);
      assert.deepEqual([...new Set(proxy.asked)], asked === undefined ? [] : [asked]);
    });
  }
  await Deno.remove(certificate);
});

Deno.test("a server or a proxy that never answers is given up", async () => {
  using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const address = `127.0.0.1:${silent.addr.port}`;
  const sentence = async (environment: Record<string, string>, endpoint?: string) => {
    using _environment = replaceEnvironment(environment);
    const limits = { connectMs: 300, answerMs: 600 };
    const s3 = new S3Client({
      region: "us-east-1",
      endpoint,
      credentials: CREDENTIALS,
      requestHandler: requestHandler(environment, limits),
    });
    const startMs = performance.now();
    const error = await s3.send(new ListBucketsCommand({})).catch((error) => error);
    s3.destroy();
    assert.ok(performance.now() - startMs < 10_000);
    return toSentence(error, environment) ?? String(error);
  };
  const late = /^The connection failed: .* configured .*\nAWS can.t be reached; /;
  assert.match(await sentence(proxyVariables({ HTTPS_PROXY: address })), late);
  assert.match(await sentence({}, `https://${address}`), late);
});

Deno.test("a run of the function is waited for, however long it takes", async () => {
  const options = { hostname: "127.0.0.1", port: 0, onListen() {} };
  await using server = Deno.serve(options, async () => {
    await new Promise((resolve) => setTimeout(resolve, 900));
    return Response.json({});
  });
  const lambda = new LambdaClient({
    region: "us-east-1",
    endpoint: `http://127.0.0.1:${server.addr.port}`,
    credentials: CREDENTIALS,
    maxAttempts: 1,
    requestHandler: requestHandler({}, { answerMs: 300 }),
  });
  const FunctionName = "fn";
  await lambda.send(new InvokeCommand({ FunctionName }));
  await assert.rejects(lambda.send(new GetFunctionCommand({ FunctionName })), {
    name: "TimeoutError",
  });
  lambda.destroy();
});

Deno.test("the time is AWS's, as any answer tells it", async () => {
  await using metadata = serveMetadata(["ASIATEST", "x", "x"]);
  let [status, aheadMs] = [200, 0];
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => {
    const date = new Date(Date.now() + aheadMs).toUTCString();
    return new Response(null, { status, headers: { date } });
  });
  using _environment = replaceEnvironment({
    AWS_ENDPOINT_URL: `http://127.0.0.1:${server.addr.port}`,
    AWS_EC2_METADATA_SERVICE_ENDPOINT: metadata.url,
  });
  const clients = clientsOf("us-east-1");
  for ([status, aheadMs] of [[404, 600_000], [403, -600_000], [200, 0]]) {
    await readClock(clients, "uploads");
    assert.ok(Math.abs(now() - Date.now() - aheadMs) < 3000, `${now() - Date.now()} ms`);
    const { stack, calls } = fakeStack({});
    const pages = readLog(stack, { sinceMs: 0, follow: true, pollMs: 1 });
    for (const _look of [1, 2]) await pages.next();
    const again = now() - calls[1].input.startTime;
    assert.ok(again > 0 && again < 120_000, `it follows the log from ${again} ms ago on`);
  }
  clients.s3.destroy();
  await server.shutdown();
  await assert.rejects(readClock(clients, "uploads"), /ECONNREFUSED/);
});

/** A CONNECT proxy, through which every host is one port of this machine. */
async function startProxy(targetPort: number) {
  const proxy = { status: 200, asked: [] as string[] };
  const server = createServer((_request, response) => {
    proxy.asked.push("plain HTTP");
    response.writeHead(500).end();
  });
  server.on("connect", ({ url, headers }, socket) => {
    const login = headers["proxy-authorization"]?.replace("Basic ", "") ?? "";
    proxy.asked.push(`${url} ${atob(login)}`);
    if (proxy.status !== 200) {
      socket.end(`HTTP/1.1 ${proxy.status} No\r\nContent-Length: 2\r\n\r\nno`);
      return;
    }
    socket.write("HTTP/1.1 200 OK\r\n\r\n");
    pipeline(socket, connect(targetPort, "127.0.0.1"), socket).catch(() => {}); // either may be cut
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return Object.assign(proxy, {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())),
  });
}
