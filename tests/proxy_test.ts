import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, connect, type Server } from "node:net";
import { join } from "node:path";
import { GetFunctionCommand, InvokeCommand, LambdaClient } from "@aws-sdk/client-lambda";
import { ListBucketsCommand, S3Client } from "@aws-sdk/client-s3";
import { toSentence } from "../tasks/failures.ts";
import { proxyVariables, requestHandler } from "../tasks/proxy.ts";
import { run } from "../tasks/shell.ts";
import { clientsOf } from "../tasks/clients.ts";
import { replaceEnvironment } from "./fixtures.ts";

const NEAR = "169.254.169.254,[fd00:ec2::254],localhost,127.0.0.1,[::1]";

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
      NO_PROXY: `corp.com,.corp.com,.b.c,*.d,10.0.0.0/8,${NEAR}`,
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

Deno.test("the clients reach AWS through a proxy alone", async (t) => {
  // Imported here: the SDK reads the environment, which plain `deno test` may not.
  await using aws = await startAws();
  await using proxy = await startProxy(aws.port);
  await using metadata = startMetadata();
  const environment = {
    AWS_CA_BUNDLE: aws.certificate,
    AWS_EC2_METADATA_SERVICE_ENDPOINT: metadata.url,
    HTTPS_PROXY: `http://us%40er:pass@127.0.0.1:${proxy.port}`,
    HTTP_PROXY: `http://127.0.0.1:${proxy.port}`,
    // What the tasks make of NO_PROXY=ec2.internal.
    NO_PROXY: "ec2.internal,.ec2.internal",
  };
  const listBuckets = async (changes: Record<string, string> = {}) => {
    using _environment = replaceEnvironment({ ...environment, ...changes });
    const { s3 } = clientsOf({ local: false }, "us-east-1");
    try {
      await s3.send(new ListBucketsCommand({}));
      return "ok";
    } catch (error) {
      return toSentence(error, Deno.env.toObject()) ?? "no sentence";
    } finally {
      s3.destroy();
    }
  };

  for (const [name, step] of Object.entries(STEPS)) {
    await t.step(name, () => step({ listBuckets, proxy, metadata }));
  }
});

interface Setup {
  /** Asks S3, in an environment, for its buckets; returns "ok" or the sentence of a failure. */
  listBuckets(changes?: Record<string, string>): Promise<string>;
  proxy: { asked: string[]; status: number };
  metadata: { asked(): boolean };
}

const STEPS: Record<string, (setup: Setup) => Promise<void>> = {
  "with its name and password, the metadata service exempt": async (
    { listBuckets, proxy, metadata },
  ) => {
    assert.equal(await listBuckets(), "ok");
    assert.deepEqual(proxy.asked, ["s3.us-east-1.amazonaws.com:443 us@er:pass"]);
    assert.equal(metadata.asked(), true);
  },

  "not for a host of NO_PROXY": async ({ listBuckets, proxy }) => {
    proxy.asked.length = 0;
    const sentence = await listBuckets({
      NO_PROXY: ".ec2.internal,.nowhere.invalid",
      AWS_ENDPOINT_URL: "https://s3.nowhere.invalid",
    });
    assert.match(
      sentence,
      /^Cannot reach s3.nowhere.invalid: the name is not known .*NO_PROXY$/,
    );
    assert.deepEqual(proxy.asked, []);
  },

  "what the proxy refuses is not called AWS's refusal": async ({ listBuckets, proxy }) => {
    for (const status of [407, 403, 502]) {
      proxy.status = status;
      const sentence = await listBuckets();
      assert.match(
        sentence,
        new RegExp(`^The proxy 127.0.0.1:\\d+ refused with status ${status}`),
      );
    }
  },

  "a proxy that does not run is named": async ({ listBuckets }) => {
    const sentence = await listBuckets({ HTTPS_PROXY: "http://127.0.0.1:1" });
    assert.match(sentence, /^Cannot reach AWS through the proxy 127.0.0.1:1: nothing listens/);
  },

  "one that is reached by TLS is named by a name": async ({ listBuckets }) => {
    for (const host of ["127.0.0.1", "[::1]"]) {
      await assert.rejects(
        listBuckets({ HTTPS_PROXY: `https://me:secret@${host}:1` }),
        /^UserError: HTTPS_PROXY is "https:\/\/\S+:1", an address: .* write https:\/\/NAME:PORT, or http/,
      );
    }
  },

  "one that is no HTTP proxy is refused, its password hidden": async ({ listBuckets }) => {
    await assert.rejects(
      listBuckets({ HTTPS_PROXY: "socks5://me:secret@127.0.0.1:1" }),
      /^UserError: HTTPS_PROXY is "socks5:\/\/127.0.0.1:1", which is no HTTP proxy: write http/,
    );
  },
};

Deno.test("a server or a proxy that never answers is given up", async () => {
  const held: Deno.Conn[] = [];
  using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  void (async () => {
    for await (const connection of silent) held.push(connection);
  })();
  const address = `127.0.0.1:${silent.addr.port}`;
  const credentials = { accessKeyId: "a", secretAccessKey: "b" };
  const sentence = async (environment: Record<string, string>, endpoint?: string) => {
    using _environment = replaceEnvironment(environment);
    const limits = { connectMs: 300, answerMs: 600 };
    const s3 = new S3Client({
      region: "us-east-1",
      endpoint,
      credentials,
      requestHandler: requestHandler(undefined, environment, limits),
    });
    const startMs = performance.now();
    const error = await s3.send(new ListBucketsCommand({})).catch((error) => error);
    assert.ok(performance.now() - startMs < 10_000);
    return toSentence(error, environment) ?? String(error);
  };
  try {
    assert.match(
      await sentence(proxyVariables({ HTTPS_PROXY: address })),
      /^Cannot reach AWS through the proxy 127\.0\.0\.1:\d+: no answer in time \(TimeoutError\)/,
    );
    assert.match(await sentence({}, `https://${address}`), /^Cannot reach AWS: no answer in time/);
  } finally {
    for (const connection of held) connection.close();
  }
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
    credentials: { accessKeyId: "a", secretAccessKey: "b" },
    maxAttempts: 1,
    requestHandler: requestHandler(undefined, {}, { answerMs: 300 }),
  });
  const FunctionName = "fn";
  await lambda.send(new InvokeCommand({ FunctionName }));
  await assert.rejects(lambda.send(new GetFunctionCommand({ FunctionName })), {
    name: "TimeoutError",
  });
  lambda.destroy();
});

Deno.test(
  "a call that waits ends soon after Ctrl-C, and one that begins then does not",
  async () => {
    const program = `
    import { endAtCtrlC } from "./tasks/clients.ts";
    import { handleSignals, interrupted } from "./tasks/signals.ts";
    handleSignals();
    const hangs = (signal) => new Promise((resolve, reject) => {
      signal?.addEventListener("abort", () => reject(signal.reason));
      setTimeout(resolve, 8000, "waited 8 s");
    });
    const client = { send: (_, { abortSignal } = {}) => hangs(abortSignal) };
    endAtCtrlC(client);
    const before = client.send({}, { abortSignal: new AbortController().signal });
    Deno.kill(Deno.pid, "SIGINT");
    await new Promise((resolve) => interrupted.addEventListener("abort", resolve));
    const after = client.send({});
    console.log(await before.catch(({ name }) => name), await after);
    Deno.exit(0);`;
    const { stdout } = await run(Deno.execPath(), ["eval", "--no-check", program], { quiet: true });
    assert.equal(stdout, "InterruptedError waited 8 s\n");
  },
);

/** A server that S3's clients take for S3, with a certificate of its own. */
async function startAws() {
  const folder = await Deno.makeTempDir();
  const [key, certificate] = ["key.pem", "certificate.pem"].map((name) => join(folder, name));
  const request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"];
  const names = ["-addext", "subjectAltName=DNS:s3.us-east-1.amazonaws.com"];
  const args = [...request, ...names, "-keyout", key, "-out", certificate];
  const { success } = await new Deno.Command("openssl", { args, stderr: "null" }).output();
  assert.ok(success);
  const options = { key: await Deno.readTextFile(key), cert: await Deno.readTextFile(certificate) };
  const server = createTlsServer(options, (_request, response) => {
    response.end("<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>");
  });
  const port = await listen(server);
  return {
    port,
    certificate,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await close(server);
      await Deno.remove(folder, { recursive: true });
    },
  };
}

/** A CONNECT proxy, through which every host is one port of this machine. */
async function startProxy(targetPort: number) {
  const asked: string[] = [];
  const state = { status: 200 };
  const server = createServer((_request, response) => {
    asked.push("plain HTTP");
    response.writeHead(500).end();
  });
  server.on("connect", ({ url, headers }, socket) => {
    const login = headers["proxy-authorization"]?.replace("Basic ", "") ?? "";
    asked.push(`${url} ${atob(login)}`);
    if (state.status !== 200) {
      socket.end(`HTTP/1.1 ${state.status} No\r\nContent-Length: 2\r\n\r\nno`);
      return;
    }
    const target = connect(targetPort, "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      target.pipe(socket).pipe(target);
    });
    for (const end of [socket, target]) {
      end.on("error", () => [socket, target].map((s) => s.destroy()));
    }
  });
  const port = await listen(server);
  return Object.assign(state, { port, asked, [Symbol.asyncDispose]: () => close(server) });
}

/** A metadata service with credentials that a stand-in for S3 does not check. */
function startMetadata() {
  let asked = false;
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    ({ url, method }) => {
      asked = true;
      if (method === "PUT") return new Response("token");
      if (url.endsWith("/security-credentials/")) return new Response("role");
      const [AccessKeyId, SecretAccessKey, Token] = ["ASIATEST", "x", "x"];
      const Expiration = "2099-01-01T00:00:00Z";
      return Response.json({ Code: "Success", AccessKeyId, SecretAccessKey, Token, Expiration });
    },
  );
  return {
    url: `http://127.0.0.1:${server.addr.port}`,
    asked: () => asked,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}
