/** The page's server: only on 127.0.0.1, and only for those who have the token. */

import { randomBytes, timingSafeEqual } from "node:crypto";
import { Upload } from "@aws-sdk/lib-storage";
import * as esbuild from "esbuild";
import { unquoted } from "../handler.ts";
import { PART_BYTES } from "../tasks/verify.ts";
import { say } from "../tasks/terminal.ts";
import type { Board } from "./board.ts";

/**
 * Nothing comes from elsewhere, nothing is inline, and text never becomes markup. No page of
 * another site may frame this one or read its files.
 */
const HEADERS = {
  "content-security-policy": [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join("; "),
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "cache-control": "no-store",
};

/** Names that lead to this machine's own address wherever they are asked for. */
const OWN_HOST = /^(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?$/;

/** S3 takes 10,000 parts; four at a time are in memory. */
const MOST_PARTS = 9000;

/** Replays the failure queue's events, or those of one object, and says what came of it. */
type Replay = (key?: string) => Promise<string>;

/**
 * Starts the server on a port, or on the next free one; returns the page's address with its
 * token. When it is disposed of, open requests and uploads end.
 */
export async function serve(
  board: Board,
  replay: Replay,
  port: number,
): Promise<{ url: string } & AsyncDisposable> {
  const files = await readFiles();
  const token = randomBytes(16).toString("base64url");
  const ending = new AbortController();
  const server = listen(port, ending.signal, async (request) => {
    const response = refusalOf(request) ?? files.get(whatOf(request))?.() ??
      (hasToken(request, token)
        ? await answer(request, board, replay)
          .catch(({ name, message }) => refuse(502, `${name}: ${message}`))
        : refuse(401, "The token is missing or wrong: open the address that dev printed"));
    for (const [name, value] of Object.entries(HEADERS)) response.headers.set(name, value);
    return response;
  });
  return {
    url: `http://127.0.0.1:${server.addr.port}/#${token}`,
    async [Symbol.asyncDispose]() {
      ending.abort();
      await server.finished;
    },
  };
}

function listen(
  wanted: number,
  signal: AbortSignal,
  handle: Deno.ServeHandler,
): Deno.HttpServer<Deno.NetAddr> {
  for (let port = wanted;; port++) {
    try {
      const options = { hostname: "127.0.0.1", port, signal, onListen: () => {} };
      const server = Deno.serve(options, handle);
      if (port !== wanted) say(`Port ${wanted} is not free, so the page is at port ${port}`);
      return server;
    } catch (error) {
      const { AddrInUse, PermissionDenied } = Deno.errors;
      const isTaken = error instanceof AddrInUse || error instanceof PermissionDenied;
      if (!isTaken || port === 65_535) throw error;
    }
  }
}

/** What answers with the page's files; its script is turned into JavaScript. */
async function readFiles(): Promise<Map<string, () => Response>> {
  const read = (name: string) => Deno.readTextFile(new URL(name, import.meta.url));
  const { code } = await esbuild.transform(await read("page.ts"), {
    loader: "ts",
    target: "es2022",
  });
  const files = [
    ["/", "text/html; charset=utf-8", await read("page.html")],
    ["/page.css", "text/css; charset=utf-8", await read("page.css")],
    ["/page.js", "text/javascript; charset=utf-8", code],
    ["/icon.svg", "image/svg+xml", await read("icon.svg")],
  ];
  return new Map(files.map(([path, type, text]) => [
    `GET ${path}`,
    () => new Response(text, { headers: { "content-type": type } }),
  ]));
}

/**
 * Another site's page can make the browser ask here: by a name of its own that leads to 127.0.0.1
 * (then Host is that name), or straight (then Origin is that site). A forwarded port may be another
 * number, so Host may have any; but the page's Origin is where the page itself was found.
 */
function refusalOf({ headers, method }: Request): Response | undefined {
  const host = headers.get("host") ?? "";
  if (!OWN_HOST.test(host)) return refuse(421, "This server has another name");
  const origin = headers.get("origin");
  if (origin === null ? method !== "GET" : origin !== `http://${host}`) {
    return refuse(403, "Only this server's own page may ask");
  }
}

/** What is asked for: `GET /news`. */
function whatOf({ method, url }: Request): string {
  return `${method} ${new URL(url).pathname}`;
}

function hasToken(request: Request, token: string): boolean {
  const given = new TextEncoder().encode(request.headers.get("authorization") ?? "");
  const wanted = new TextEncoder().encode(`Bearer ${token}`);
  return given.length === wanted.length && timingSafeEqual(given, wanted);
}

async function answer(request: Request, board: Board, replay: Replay): Promise<Response> {
  const { searchParams } = new URL(request.url);
  switch (whatOf(request)) {
    case "GET /news":
      return Response.json(board.since(Number(searchParams.get("last"))));
    case "POST /upload":
      return await upload(request, board, searchParams);
    case "POST /replay":
      return new Response(await replay(searchParams.get("key") ?? undefined));
    default:
      return refuse(404, "There is no such page");
  }
}

/** Hands a request's body on as fast as S3 takes it; a body that breaks off leaves nothing. */
async function upload(request: Request, board: Board, asked: URLSearchParams): Promise<Response> {
  const { s3, outputs } = board.stack;
  const key = asked.get("key") ?? "";
  const length = Number(request.headers.get("content-length") ?? 0);
  const upload = new Upload({
    client: s3,
    partSize: Math.max(PART_BYTES, Math.ceil(length / MOST_PARTS)),
    params: {
      Bucket: outputs.s3_bucket_name,
      Key: key,
      Body: request.body ?? "",
      ContentType: request.headers.get("content-type") ?? undefined,
    },
  });
  const { VersionId: versionId, ETag } = await upload.done();
  board.expect(asked.get("id") ?? "", { key, versionId, etag: unquoted(ETag) });
  return new Response();
}

function refuse(status: number, text: string): Response {
  return new Response(text + "\n", {
    status,
    headers: { "content-type": "text/plain; charset=utf-8" },
  });
}
