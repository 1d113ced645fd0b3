/** Servers on this machine for AWS's own clients: any behind TLS, and the metadata service. */

import type { IncomingHttpHeaders, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { run } from "../tasks/shell.ts";

export interface TlsRequest {
  method: string;
  /** With its query. */
  path: string;
  headers: IncomingHttpHeaders;
  body: string;
  /** The connection that it came by, counted from 1. */
  connection: number;
}

export interface TlsServer extends AsyncDisposable {
  url: string;
  port: number;
  /** The certificate to trust, PEM. */
  ca: string;
  /** Connections made so far. */
  connections: number;
}

/** Serves on a free port. A request that `answer` fails for loses its connection. */
export async function serveTls(
  answer: (request: TlsRequest, response: ServerResponse) => void | Promise<void>,
): Promise<TlsServer> {
  const pem = await makeCertificate();
  const connections = new WeakMap<object, number>();
  const options = { key: pem, cert: pem, keepAliveTimeout: 60_000 };
  const server = createServer(options, async (request, response) => {
    try {
      const { method = "", url: path = "", headers } = request;
      let body = "";
      for await (const chunk of request) body += chunk;
      const connection = connections.get(request.socket)!;
      await answer({ method, path, headers, body, connection }, response);
    } catch {
      response.destroy();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const served = {
    url: `https://127.0.0.1:${port}`,
    port,
    ca: pem,
    connections: 0,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  server.on("secureConnection", (socket: object) => {
    connections.set(socket, ++served.connections);
  });
  return served;
}

/** A key and its certificate, which signs for itself: of this machine, and of S3. PEM. */
function makeCertificate(): Promise<string> {
  const args = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
  const names = "subjectAltName=IP:127.0.0.1,DNS:s3.us-east-1.amazonaws.com";
  const rest = ["-subj", "/CN=test", "-addext", names, "-keyout", "/dev/stdout"];
  return run("openssl", [...args.split(" "), ...rest], { quiet: true });
}

/** The metadata service of an EC2 instance whose role has these credentials. */
export function serveMetadata([AccessKeyId, SecretAccessKey, Token]: string[]) {
  const options = { hostname: "127.0.0.1", port: 0, onListen() {} };
  const server = Deno.serve(options, ({ url, method }) => {
    if (method === "PUT") {
      return new Response("token", {
        headers: { "x-aws-ec2-metadata-token-ttl-seconds": "21600" },
      });
    }
    if (url.endsWith("/security-credentials/")) return new Response("role");
    const Expiration = "2099-01-01T00:00:00Z";
    return Response.json({ Code: "Success", AccessKeyId, SecretAccessKey, Token, Expiration });
  });
  const url = `http://127.0.0.1:${server.addr.port}`;
  return { url, [Symbol.asyncDispose]: () => server.shutdown() };
}
