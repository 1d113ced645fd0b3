/** Proxies in front of the stand-in: one counts, one fails an answer; and what they are made of. */

export interface Counted {
  method: string;
  range: string | null;
  bytes: number;
}

/** Passes all on, and counts. */
export function countingProxy(upstream: string) {
  const requests: Counted[] = [];
  const counter = { requests, mostAtOnce: 0 };
  let atOnce = 0;
  const server = serveLocally(async (request) => {
    counter.mostAtOnce = Math.max(counter.mostAtOnce, ++atOnce);
    const response = await forward(upstream, request);
    const body = new Uint8Array(await response.arrayBuffer());
    const range = request.headers.get("range");
    requests.push({ method: request.method, range, bytes: body.length });
    atOnce--;
    const bodyless = request.method === "HEAD" || response.status === 304;
    return new Response(bodyless ? null : body, response);
  });
  return Object.assign(counter, server);
}

/** Lets the first request to DynamoDB take effect, and answers it with 500. */
export function firstAnswer500Proxy(upstream: string) {
  const counter = { requests: 0 };
  const server = serveLocally(async (request) => {
    const response = await forward(upstream, request);
    if (++counter.requests > 1) return response;
    await response.body?.cancel();
    const body = JSON.stringify({ __type: "com.amazonaws.dynamodb.v20120810#InternalServerError" });
    const headers = { "content-type": "application/x-amz-json-1.0" };
    return new Response(body, { status: 500, headers });
  });
  return Object.assign(counter, server);
}

/** Serves on a free port of this machine until it is disposed of. */
export function serveLocally(handler: (request: Request) => Promise<Response>) {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, handler);
  const close = () => server.shutdown();
  return { url: `http://127.0.0.1:${server.addr.port}`, [Symbol.asyncDispose]: close };
}

/** Sends a request on to the server at `upstream`. */
export async function forward(upstream: string, request: Request): Promise<Response> {
  const { pathname, search } = new URL(request.url);
  const { method, headers } = request;
  const body = method === "POST" ? await request.arrayBuffer() : undefined;
  return await fetch(upstream + pathname + search, { method, headers, body });
}
