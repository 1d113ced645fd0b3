/** Dev's server: attacked over HTTP as other sites and users would, and an upload through it. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import * as esbuild from "esbuild";
import { serve } from "../dev/server.ts";
import type { Stack } from "../tasks/target.ts";
import { makeBoard, pause, quiet, row } from "./dev_fixtures.ts";
import { fakeStack, progressOf, toAttributes } from "./fixtures.ts";

/** Each asks for what it should not get. */
const ATTACKS: Record<string, (context: ReturnType<typeof openPage>) => void | Promise<void>> = {
  "a name that leads here is another name (DNS rebinding)": async ({ host, ask, bearer }) => {
    const port = host.split(":")[1];
    const names = ["evil.example", "localhost.evil.example", "localhost.", "127.0.0.1.nip.io"];
    const addresses = ["0.0.0.0", "127.0.0.2", "[::]", "127.1", "2130706433", "me@127.0.0.1"];
    for (
      const name of [...names, ...addresses].map((name) => `${name}:${port}`).concat("", ":80")
    ) {
      for (const path of ["/", "/news", "/page.js"]) {
        const { status } = await ask([`GET ${path} HTTP/1.1`, `Host: ${name}`, bearer]);
        assert.equal(status, 421, `${name} ${path}`);
      }
    }
  },
  "a forwarded port is another number, but the page's own": async ({ ask, bearer }) => {
    for (const name of ["localhost", "127.0.0.1", "[::1]"]) {
      for (const host of [name, `${name}:1`, `${name}:65535`]) {
        const lines = [`Host: ${host}`, bearer];
        assert.equal((await ask(["GET /news HTTP/1.1", ...lines])).status, 200, host);
        const replay = ["POST /replay HTTP/1.1", ...lines];
        assert.equal((await ask([...replay, `Origin: http://${host}`])).status, 200, host);
        for (const origin of [`http://${name}:2`, `https://${host}`, "http://localhost:65534"]) {
          assert.equal((await ask([...replay, `Origin: ${origin}`])).status, 403, origin);
        }
      }
    }
  },
  "without the token, or with another one, only the page's files": async ({ host, token, ask }) => {
    const wrong = token.slice(0, -1) + (token.endsWith("A") ? "B" : "A");
    for (const line of ["X: y", "Authorization: Bearer ", `Authorization: Bearer ${wrong}`]) {
      for (const request of ["GET /news", "GET /deno.json", "GET /%2e%2e/deno.json"]) {
        const { status } = await ask([`${request} HTTP/1.1`, `Host: ${host}`, line]);
        assert.equal(status, 401, `${request} ${line}`);
      }
      for (const request of ["POST /upload?key=a", "POST /replay"]) {
        const lines = [`${request} HTTP/1.1`, `Host: ${host}`, `Origin: http://${host}`, line];
        assert.equal((await ask(lines)).status, 401, `${request} ${line}`);
      }
    }
    for (const path of ["/", "/page.css", "/page.js", "/icon.svg"]) {
      const { status, text } = await ask([`GET ${path} HTTP/1.1`, `Host: ${host}`]);
      assert.equal(status, 200);
      assert.equal(text.includes(token), false);
    }
    assert.equal(Buffer.from(token, "base64url").length, 16);
  },
  "the token in the address, where logs and other sites see it, counts for nothing": async (
    { host, token, ask },
  ) => {
    const { status } = await ask([`GET /news?token=${token} HTTP/1.1`, `Host: ${host}`]);
    assert.equal(status, 401);
  },
  "another site that has the token gets nothing": async ({ host, ask, own }) => {
    const others = ["http://evil.example", "null", `http://localhost:${host.split(":")[1]}`];
    for (const origin of others) {
      for (const request of ["GET /news", "POST /replay", "POST /upload?key=a", "OPTIONS /news"]) {
        const { status } = await ask([`${request} HTTP/1.1`, ...own, `Origin: ${origin}`]);
        assert.equal(status, 403, `${request} ${origin}`);
      }
    }
    for (const site of ["cross-site", "same-site"]) { // another port of this machine is the same site
      const statusOf = async (mode: string, dest: string) => {
        const lines = [
          `Sec-Fetch-Site: ${site}`,
          `Sec-Fetch-Mode: ${mode}`,
          `Sec-Fetch-Dest: ${dest}`,
        ];
        return (await ask(["GET / HTTP/1.1", ...own, ...lines])).status;
      };
      assert.equal(await statusOf("no-cors", "script"), 403);
      assert.equal(await statusOf("navigate", "iframe"), 403);
      assert.equal(await statusOf("navigate", "document"), 200, "a link may open the page");
    }
    // What changes something says where it comes from: a browser always does.
    assert.equal((await ask(["POST /replay HTTP/1.1", ...own])).status, 403);
  },
  "every answer forbids what the page does not need": async ({ host, ask }) => {
    for (const lines of [["GET / HTTP/1.1", `Host: ${host}`], ["GET /x HTTP/1.1", "Host: x"]]) {
      const { headers } = await ask(lines);
      const policy = headers.get("content-security-policy")!;
      assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self';/);
      assert.match(policy, /require-trusted-types-for 'script'; trusted-types 'none'$/);
      assert.match(policy, /frame-ancestors 'none'/);
      assert.equal(policy.includes("unsafe"), false);
      assert.equal(headers.get("access-control-allow-origin"), null);
      assert.equal(headers.get("x-content-type-options"), "nosniff");
      assert.equal(headers.get("cross-origin-resource-policy"), "same-origin");
      assert.equal(headers.get("referrer-policy"), "no-referrer");
    }
  },
  "it listens on 127.0.0.1 alone": async ({ host }) => {
    const port = Number(host.split(":")[1]);
    const addresses = Deno.networkInterfaces().filter(({ family, address }) =>
      family === "IPv4" && address !== "127.0.0.1"
    );
    for (const { address } of addresses) {
      await assert.rejects(Deno.connect({ hostname: address, port }), address);
    }
  },
};

Deno.test("the server answers nobody but its own page", async (t) => {
  const { stack, calls } = fakeStack(quiet());
  await using server = await startServer(stack);
  for (const [name, attack] of Object.entries(ATTACKS)) {
    await t.step(name, async () => await attack(openPage(server)));
  }
  assert.equal(calls.some(({ name }) => /Put|Upload|Receive/.test(name)), false);
});

/** What an attacker on this machine or in a browser knows, and the page's own token. */
function openPage({ host, token }: { host: string; token: string }) {
  const bearer = `Authorization: Bearer ${token}`;
  const ask = (lines: string[]) => raw(host, lines);
  return { host, token, ask, bearer, own: [`Host: ${host}`, bearer] };
}

Deno.test("a taken port is told, and the next one is used", async () => {
  const { stack } = fakeStack(quiet());
  await using first = await startServer(stack);
  const port = Number(first.host.split(":")[1]);
  let second = "";
  const said = await progressOf(async () => {
    await using server = await startServer(stack, port);
    second = server.host;
  });
  const [next] = second.split(":").slice(1).map(Number);
  assert.ok(next > port && next < port + 20, second);
  assert.equal(said, `Port ${port} is taken, so the page is at port ${next}\n`);
});

Deno.test("the page's files have no inline code and nothing from elsewhere", async () => {
  const read = (name: string) => Deno.readTextFile(new URL(`../dev/${name}`, import.meta.url));
  const [html, css, ts] = await Promise.all(["page.html", "page.css", "page.ts"].map(read));
  assert.equal(/\son\w+=|\sstyle=|<style|javascript:|<script(?![^>]*src=)/i.test(html), false);
  const sources = [...html.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, url]) => url);
  assert.ok(sources.length > 0 && sources.every((url) => url.startsWith("/")), sources.join());
  assert.equal(/url\(|@import/.test(css), false);
  assert.equal(
    /innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|https?:(?!\/\/www\.w3)/.test(ts),
    false,
  );
});

const UPLOADS: Record<string, (context: Uploads) => void | Promise<void>> = {
  "bytes, key and type": async ({ send, calls }) => {
    const answer = await send("in/ü b.txt", "Hello", "text/plain");
    assert.deepEqual(await answer.json(), {
      id: "in/ü b.txt 1",
      late: "no row yet: deno task why 'in/ü b.txt' --env x tells more",
    });
    const { input } = calls.find(({ name }) => name === "PutObjectCommand")!;
    const { Body, ...rest } = input;
    assert.equal(new TextDecoder().decode(Body as Uint8Array), "Hello");
    assert.deepEqual(JSON.parse(JSON.stringify(rest)), {
      Bucket: "uploads",
      Key: "in/ü b.txt",
      ContentType: "text/plain",
    });
  },
  "a key that the bucket's filter leaves out is uploaded, and said to have no row": async (
    { send },
  ) => {
    const { note } = await (await send("out.txt", "x")).json();
    assert.equal(note, "no row: the bucket records only keys like in/….txt");
  },
  "a key that S3 can't have is refused": async ({ send }) => {
    for (const key of ["", "x".repeat(1025), "ü".repeat(513)]) {
      assert.equal((await send(key, "x")).status, 400);
    }
  },
  "a body that breaks off leaves nothing": async ({ host, token, calls }) => {
    const before = calls.length;
    const connection = await Deno.connect({
      hostname: "127.0.0.1",
      port: Number(host.split(":")[1]),
    });
    const head = [
      "POST /upload?key=in/broken.txt HTTP/1.1",
      `Host: ${host}`,
      `Origin: http://${host}`,
      `Authorization: Bearer ${token}`,
      "Content-Length: 1000",
    ];
    await connection.write(new TextEncoder().encode(head.join("\r\n") + "\r\n\r\nonly this"));
    await pause(50);
    connection.close();
    await pause(200);
    assert.deepEqual(calls.slice(before).filter(({ name }) => /Put|Complete/.test(name)), []);
  },
};

Deno.test("an upload goes through to S3 as it is", async (t) => {
  const { stack, calls } = fakeStack({
    ...quiet(),
    PutObjectCommand: () => ({ VersionId: "1", ETag: '"tag"' }),
    QueryCommand: () => ({ Items: [toAttributes(row("in/ü b.txt"))] }),
  });
  await using server = await startServer(stack);
  for (const [name, step] of Object.entries(UPLOADS)) {
    await t.step(name, async () => await step({ ...openUploads(server), calls }));
  }
});

function openUploads({ host, token, url }: { host: string; token: string; url: string }) {
  const send = (key: string, body: BodyInit, type?: string) =>
    fetch(`${url}upload?key=${encodeURIComponent(key)}`, {
      method: "POST",
      body,
      headers: {
        authorization: `Bearer ${token}`,
        origin: `http://${host}`,
        ...(type ? { "content-type": type } : {}),
      },
    });
  return { host, token, send };
}

interface Uploads extends ReturnType<typeof openUploads> {
  calls: Awaited<ReturnType<typeof fakeStack>>["calls"];
}

async function startServer(stack: Stack, port = 0) {
  // lib-storage asks the client where it is.
  Object.assign(stack.s3, { config: { requestHandler: {}, endpoint: () => ({ hostname: "s3" }) } });
  const board = makeBoard(stack);
  const server = await serve(board, { replay: () => Promise.resolve("replayed") }, port);
  const { host, hash, origin } = new URL(server.url);
  return {
    host,
    url: `${origin}/`,
    token: hash.slice(1),
    [Symbol.asyncDispose]: async () => {
      board.end();
      await server.close();
      await esbuild.stop();
    },
  };
}

/** A request whose every header is the test's: fetch would set Host and Origin itself. */
async function raw(host: string, lines: string[]) {
  const [hostname, port] = host.split(":");
  using connection = await Deno.connect({ hostname, port: Number(port) });
  const head = [...lines, "Connection: close", "Content-Length: 0"].join("\r\n");
  await connection.write(new TextEncoder().encode(`${head}\r\n\r\n`));
  const answer = await new Response(connection.readable).text();
  const [top] = answer.split("\r\n\r\n", 1);
  const [status, ...headers] = top.split("\r\n");
  return {
    status: Number(status.split(" ")[1]),
    headers: new Headers(headers.map((line) => line.split(": ", 2) as [string, string])),
    text: answer.slice(top.length),
  };
}
