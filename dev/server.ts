/** The page's server: on 127.0.0.1 alone, for who has the token alone. */

import { randomBytes, timingSafeEqual } from "node:crypto";
import { Upload } from "@aws-sdk/lib-storage";
import * as esbuild from "esbuild";
import { letsThrough, unquoted } from "../handler.ts";
import { PART_BYTES } from "../tasks/verify.ts";
import { canCopy, denoTask } from "../tasks/commands.ts";
import type { Stack } from "../tasks/target.ts";
import { say, UserError } from "../tasks/terminal.ts";
import { type Board, idOf } from "./board.ts";
import type { Uploaded } from "./messages.ts";

const TYPES = {
  "page.html": "text/html; charset=utf-8",
  "page.css": "text/css; charset=utf-8",
  "page.js": "text/javascript; charset=utf-8",
  "icon.svg": "image/svg+xml",
};

/**
 * Nothing comes from elsewhere, nothing is inline, and text never becomes markup. No page of another
 * site may frame this one or read its files.
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

/** The next ports that are tried where one is taken. */
const TRIED_PORTS = 20;

/** S3 takes 10,000 parts; four at a time are in memory. */
const MOST_PARTS = 9000;

/** A key's limit in S3, in UTF-8 bytes. */
const KEY_BYTES = 1024;

export interface Server {
  /** The page's address, with the token. */
  url: string;
  /** Ends open pages and uploads. */
  close(): Promise<void>;
}

/** What the page may do beside looking and uploading. */
export interface Actions {
  /** Replays the failure queue's events, or those of one object, and says what came of it. */
  replay(key?: string): Promise<string>;
}

/** Starts the server on a port, or on the next free one. @throws {UserError} none is free */
export async function serve(board: Board, actions: Actions, port: number): Promise<Server> {
  const files = await readFiles();
  const token = randomBytes(16).toString("base64url");
  const ending = new AbortController();
  const server = listen(port, async (request) => {
    const response = refusalOf(request) ?? fileOf(request, files) ??
      (hasToken(request, token)
        ? await answer(request, board, actions, ending.signal).catch(toFailure)
        : refuse(401, "The token is missing or wrong: open the address that dev printed"));
    for (const [name, value] of Object.entries(HEADERS)) response.headers.set(name, value);
    return response;
  });
  return {
    url: `http://127.0.0.1:${server.addr.port}/#${token}`,
    close: async () => {
      ending.abort();
      await server.shutdown();
    },
  };
}

function listen(wanted: number, handle: Deno.ServeHandler): Deno.HttpServer<Deno.NetAddr> {
  for (let port = wanted; port < wanted + TRIED_PORTS && port <= 65_535; port++) {
    try {
      const server = Deno.serve({ hostname: "127.0.0.1", port, onListen: () => {} }, handle);
      if (port !== wanted) say(`Port ${wanted} is taken, so the page is at port ${port}`);
      return server;
    } catch (error) {
      if (error instanceof Deno.errors.PermissionDenied) {
        throw new UserError(`This user may not open port ${port}: choose another one by --port`);
      }
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
  throw new UserError(`Port ${wanted} and the next ones are taken: choose another one by --port`);
}

/** The page's files; its script is turned into JavaScript. */
async function readFiles(): Promise<Map<string, string>> {
  const read = (name: string) => Deno.readTextFile(new URL(name, import.meta.url));
  const [html, css, ts, icon] = await Promise.all(
    ["page.html", "page.css", "page.ts", "icon.svg"].map(read),
  );
  const { code } = await esbuild.transform(ts, { loader: "ts", target: "es2022" });
  return new Map([["page.html", html], ["page.css", css], ["page.js", code], ["icon.svg", icon]]);
}

/**
 * Another site's page can make the browser ask here: by a name of its own that leads to 127.0.0.1
 * (then Host is that name), or straight (then Origin or Sec-Fetch-Site tell). A forwarded port may be
 * another number, so Host may have any; but the page's Origin is where the page itself was found.
 */
function refusalOf(request: Request): Response | undefined {
  const { headers, method } = request;
  const host = headers.get("host") ?? "";
  if (!OWN_HOST.test(host)) return refuse(421, "This server has another name");
  const origin = headers.get("origin");
  const changes = method !== "GET" && method !== "HEAD";
  if (origin === null ? changes : origin !== `http://${host}`) {
    return refuse(403, "Only this server's own page may ask");
  }
  // A link or the address bar may open the page, but no frame.
  const site = headers.get("sec-fetch-site");
  const opens = headers.get("sec-fetch-dest") === "document" && !changes;
  if (site !== null && site !== "same-origin" && site !== "none" && !opens) {
    return refuse(403, "Only this server's own page may ask");
  }
}

function fileOf(request: Request, files: Map<string, string>): Response | undefined {
  const path = new URL(request.url).pathname;
  const name = (path === "/" ? "page.html" : path.slice(1)) as keyof typeof TYPES;
  const text = files.get(name);
  if (text === undefined || request.method !== "GET") return undefined;
  return new Response(text, { headers: { "content-type": TYPES[name] } });
}

function hasToken(request: Request, token: string): boolean {
  const given = new TextEncoder().encode(request.headers.get("authorization") ?? "");
  const wanted = new TextEncoder().encode(`Bearer ${token}`);
  return given.length === wanted.length && timingSafeEqual(given, wanted);
}

async function answer(
  request: Request,
  board: Board,
  actions: Actions,
  ending: AbortSignal,
): Promise<Response> {
  const { pathname, searchParams } = new URL(request.url);
  switch (`${request.method} ${pathname}`) {
    case "GET /news":
      return Response.json(board.since(Number(searchParams.get("last"))));
    case "POST /upload":
      return await upload(request, board, searchParams.get("key") ?? "", ending);
    case "POST /replay":
      return new Response(await actions.replay(searchParams.get("key") ?? undefined));
    default:
      return refuse(404, "There is no such page");
  }
}

/** Hands a request's body on to S3, as fast as S3 takes it; a body that breaks off leaves nothing. */
async function upload(
  request: Request,
  board: Board,
  key: string,
  ending: AbortSignal,
): Promise<Response> {
  const bytes = new TextEncoder().encode(key).length;
  if (bytes === 0 || bytes > KEY_BYTES || !key.isWellFormed()) {
    return refuse(400, `A key has 1 to ${KEY_BYTES} bytes; this one has ${bytes}`);
  }
  const { s3, outputs } = board.stack;
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
  const abort = () => void upload.abort();
  ending.addEventListener("abort", abort, { once: true });
  try {
    const { VersionId: versionId, ETag } = await upload.done();
    const note = noteOf(board.stack, key);
    if (note === undefined) board.expect({ key, versionId, etag: unquoted(ETag) });
    const id = idOf({ key, versionId });
    return Response.json({ id, note, late: lateNote(board.stack, key) } satisfies Uploaded);
  } finally {
    ending.removeEventListener("abort", abort);
  }
}

/** Why an upload will have no row. */
function noteOf({ outputs }: Stack, key: string): string | undefined {
  if (letsThrough(outputs, key)) return undefined;
  const { filter_prefix, filter_suffix } = outputs;
  return `no row: the bucket records only keys like ${filter_prefix}…${filter_suffix}`;
}

/** What to say of an upload whose row does not come. */
function lateNote(stack: Stack, key: string): string {
  const command = canCopy(key) && !key.startsWith("-")
    ? denoTask(stack, "why", key)
    : denoTask(stack, "logs", "--follow");
  return `no row yet: ${command} tells more`;
}

function toFailure(error: unknown): Response {
  const { name, message } = error as Error;
  return refuse(502, `${name}: ${message}`);
}

function refuse(status: number, text: string): Response {
  return new Response(text + "\n", {
    status,
    headers: { "content-type": "text/plain; charset=utf-8" },
  });
}
