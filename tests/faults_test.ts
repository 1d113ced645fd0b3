/**
 * The built bundle in the runtime's own Node version, against a stand-in behind a proxy that breaks
 * things (microburst), and against a server that answers as no proxy can. Timeouts are small here;
 * steps are named by the number of the fault that FAULTS.md lists.
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { toLines } from "./function_process.ts";

const permitted = ["run", "net", "env", "sys", "write"].every((name) =>
  Deno.permissions.querySync({ name } as Deno.PermissionDescriptor).state === "granted"
);

const BUCKET = "faults";
const TABLE = "faults";
const TEXT = "Gr\u00fc\u00dfe \ud83d\ude00 ".repeat(400); // 5,600 bytes: more than is read
const PREVIEW = Array.from(TEXT).slice(0, 500).join("");

/** Limits of the function under test. */
const ATTEMPT_TIMEOUT_MS = 400;
const CALL_TIMEOUT_MS = 8000; // as by default

interface Case {
  name: string;
  /** What the proxy breaks, as microburst takes it. */
  rules: Record<string, unknown>[];
  /** The row: with preview, without, or none. */
  row: "whole" | "bare" | "none";
  error?: RegExp;
  /** Requests that reach the proxy. */
  s3: number;
  dynamodb: number;
  /** The event's size, 5,600 by default; `extra` more fields of its object. */
  size?: number;
  /** A second invocation with the same event succeeds. */
  thenRow?: boolean;
}

const get = (fault: Record<string, unknown>, times?: number) => ({
  service: "s3",
  operation: "GetObject",
  ...(times ? { times } : {}),
  ...fault,
});
const put = (fault: Record<string, unknown>, times?: number) => ({
  service: "dynamodb",
  operation: "PutItem",
  ...(times ? { times } : {}),
  ...fault,
});
const fails = (code: string, status: number) => ({ error: { code, status } });

const CASES: Case[] = [
  {
    name: "F57 the object is gone",
    rules: [get(fails("NoSuchKey", 404))],
    row: "bare",
    s3: 1,
    dynamodb: 1,
  },
  {
    name: "F57 the version is gone",
    rules: [get(fails("NoSuchVersion", 404))],
    row: "bare",
    s3: 1,
    dynamodb: 1,
  },
  {
    name: "F57 the version is a delete marker",
    rules: [get(fails("MethodNotAllowed", 405))],
    row: "bare",
    s3: 1,
    dynamodb: 1,
  },
  {
    name: "F11 overwritten since, without versions",
    rules: [get(fails("PreconditionFailed", 412))],
    row: "bare",
    s3: 1,
    dynamodb: 1,
  },
  {
    name: "F37 empty by now",
    rules: [get(fails("InvalidRange", 416))],
    row: "bare",
    s3: 2,
    dynamodb: 1,
  },
  {
    name: "F67 archived",
    rules: [get(fails("InvalidObjectState", 403))],
    row: "bare",
    s3: 2,
    dynamodb: 1,
  },
  {
    name: "F58 denied",
    rules: [get(fails("AccessDenied", 403))],
    row: "none",
    error: /AccessDenied.*HTTP 403/,
    s3: 1,
    dynamodb: 0,
  },
  {
    name: "F59 denied once",
    rules: [get(fails("AccessDenied", 403), 1)],
    row: "none",
    error: /AccessDenied/,
    s3: 1,
    dynamodb: 0,
    thenRow: true,
  },
  {
    name: "F60 SlowDown twice",
    rules: [get(fails("SlowDown", 503), 2)],
    row: "whole",
    s3: 3,
    dynamodb: 1,
  },
  {
    name: "F61 500 for ever",
    rules: [get(fails("InternalError", 500))],
    row: "none",
    error: /InternalError/,
    s3: 3,
    dynamodb: 0,
  },
  {
    name: "F62 reset before headers, once",
    rules: [get({ reset: true }, 1)],
    row: "whole",
    s3: 2,
    dynamodb: 1,
  },
  {
    name: "F63 reset in the body, once",
    rules: [get({ response: { abort_frac: 0.5 } }, 1)],
    row: "whole",
    s3: 2,
    dynamodb: 1,
  },
  {
    name: "F64 reset in the body for ever",
    rules: [get({ response: { abort_frac: 0.5 } })],
    row: "none",
    error: /BrokenBodyError: the body broke/,
    s3: 3,
    dynamodb: 0,
  },
  {
    name: "F65 no answer",
    rules: [get({ timeout_ms: 60_000 })],
    row: "none",
    error: /TimeoutError|OutOfTimeError/,
    s3: 3,
    dynamodb: 0,
  },
  {
    name: "F68 the key is disabled",
    rules: [get(fails("KMS.DisabledException", 400))],
    row: "none",
    error: /KMS.DisabledException/,
    s3: 1,
    dynamodb: 0,
  },
  {
    name: "F69 throttled twice",
    rules: [put(fails("ProvisionedThroughputExceededException", 400), 2)],
    row: "whole",
    s3: 1,
    dynamodb: 3,
  },
  {
    name: "F70 throttled for ever",
    rules: [put(fails("ThrottlingException", 400))],
    row: "none",
    error: /ThrottlingException|OutOfTimeError/,
    s3: 1,
    dynamodb: 4,
  },
  {
    name: "F72 reset after the write was applied",
    rules: [put({ response: { abort_bytes: 0 } }, 1)],
    row: "whole",
    s3: 1,
    dynamodb: 2,
  },
  {
    name: "F73 no such table",
    rules: [put(fails("ResourceNotFoundException", 400))],
    row: "none",
    error: /ResourceNotFoundException/,
    s3: 1,
    dynamodb: 1,
  },
  {
    name: "F73 write denied",
    rules: [put(fails("AccessDeniedException", 400))],
    row: "none",
    error: /AccessDeniedException/,
    s3: 1,
    dynamodb: 1,
  },
  {
    name: "F73 not valid",
    rules: [put(fails("ValidationException", 400))],
    row: "none",
    error: /ValidationException/,
    s3: 1,
    dynamodb: 1,
  },
];

Deno.test({
  name: "the bundle under faults (needs permissions: deno task test)",
  ignore: !permitted,
  fn: async (t) => {
    const { freePort } = await import("../tasks/stand_in.ts");
    const { makeTools } = await import("../tasks/tools.ts");
    const { forEachParallel } = await import("../tasks/parallel.ts");
    const { build } = await import("../tasks/build.ts");
    const { CreateBucketCommand, HeadObjectCommand, PutObjectCommand, S3Client } = await import(
      "@aws-sdk/client-s3"
    );
    const { CreateTableCommand, DynamoDBClient, QueryCommand, ScanCommand } = await import(
      "@aws-sdk/client-dynamodb"
    );
    const tools = await makeTools();
    const folder = await Deno.makeTempDir();
    const children: Deno.ChildProcess[] = [];
    const env = { PATH: Deno.env.get("PATH")!, HOME: folder, TMPDIR: folder };
    const start = (args: string[], more: Record<string, string>) => {
      const child = new Deno.Command(tools.python, {
        args,
        cwd: folder,
        env: { ...env, ...more },
        clearEnv: true,
        stdin: "null",
        stdout: "null",
        stderr: "null",
      }).spawn();
      children.push(child);
    };
    const [standInPort, proxyPort] = [freePort(), freePort()];
    const standIn = `http://127.0.0.1:${standInPort}`;
    const proxy = `http://127.0.0.1:${proxyPort}`;
    start(["-m", "ministack"], {
      BIND_HOST: "127.0.0.1",
      GATEWAY_PORT: String(standInPort),
      SFTP_ENABLED: "0",
      IOT_MTLS_ENABLED: "0",
    });
    start(
      ["-m", "microburst", "--host", "127.0.0.1", "--port", String(proxyPort), "-u", standIn],
      {},
    );

    const config = {
      region: "us-east-1",
      endpoint: standIn,
      credentials: { accessKeyId: "test", secretAccessKey: "test" },
    };
    const s3 = new S3Client({ ...config, forcePathStyle: true });
    const dynamo = new DynamoDBClient(config);
    const functions: LambdaProcess[] = [];
    try {
      await answering(`${standIn}/_ministack/health`);
      await answering(`${proxy}/_microburst/health`);
      const { code } = await build();
      await Deno.writeFile(join(folder, "lambda.js"), code);
      await Deno.writeTextFile(join(folder, "runtime.js"), RUNTIME);
      const startFunction = (more: Record<string, string>) => {
        const lambda = new LambdaProcess(tools.node, folder, {
          ...env,
          AWS_REGION: "us-east-1",
          AWS_ACCESS_KEY_ID: "test", // as in Lambda, whose environment holds the role's
          AWS_SECRET_ACCESS_KEY: "test",
          TABLE_NAME: TABLE,
          WARM_UP: "off", // requests are counted here
          CALL_TIMEOUT_MS: String(CALL_TIMEOUT_MS),
          ATTEMPT_TIMEOUT_MS: String(ATTEMPT_TIMEOUT_MS),
          ...more,
        });
        functions.push(lambda);
        return lambda;
      };
      await s3.send(new CreateBucketCommand({ Bucket: BUCKET }));
      await dynamo.send(
        new CreateTableCommand({
          TableName: TABLE,
          BillingMode: "PAY_PER_REQUEST",
          AttributeDefinitions: [
            { AttributeName: "file_key", AttributeType: "S" },
            { AttributeName: "timestamp", AttributeType: "S" },
          ],
          KeySchema: [
            { AttributeName: "file_key", KeyType: "HASH" },
            { AttributeName: "timestamp", KeyType: "RANGE" },
          ],
        }),
      );
      const putObject = async (Key: string, Body: string) => {
        const ContentType = "text/plain; charset=utf-8";
        await s3.send(new PutObjectCommand({ Bucket: BUCKET, Key, Body, ContentType }));
      };
      const rowsOf = async (key: string) => {
        const { Items = [] } = await dynamo.send(
          new QueryCommand({
            TableName: TABLE,
            KeyConditionExpression: "file_key = :key",
            ExpressionAttributeValues: { ":key": { S: key } },
          }),
        );
        return Items;
      };

      const lambda = startFunction({ AWS_ENDPOINT_URL: proxy });
      let warm = false;
      for (const [index, { name, rules, row, error, thenRow, ...expected }] of CASES.entries()) {
        await t.step(name, async () => {
          const key = `${index}.txt`;
          await putObject(key, TEXT);
          if (!warm) await lambda.invoke(eventOf([key, "warm"])); // the cold start's own time
          warm = true;
          await control(proxy, "POST", rules);
          const before = await counts(proxy);
          const ended = await lambda.invoke(eventOf([key]));
          const after = await counts(proxy);
          await control(proxy, "POST", []);

          if (error) {
            assert.match(ended.error ?? "", /^RecordsFailedError: 1 of 1 records failed: Cannot /);
            assert.match(ended.error!, error);
          } else assert.equal(ended.error, undefined);
          assert.deepEqual(
            { s3: after.s3 - before.s3, dynamodb: after.dynamodb - before.dynamodb },
            { s3: expected.s3, dynamodb: expected.dynamodb },
          );
          // One read and one write at most, each within its limit.
          assert.ok(ended.ms < 2 * CALL_TIMEOUT_MS + 500, `${ended.ms} ms`);
          assert.equal(ended.log.length, 1);
          assert.equal(ended.log.join().includes("Gr\u00fc\u00dfe"), false);

          const rows = await rowsOf(key);
          assert.equal(rows.length, row === "none" ? 0 : 1);
          if (row !== "none") {
            assert.equal(rows[0].file_size.N, String(new TextEncoder().encode(TEXT).length));
            assert.equal(rows[0].content_preview?.S, row === "whole" ? PREVIEW : undefined);
          }
          if (thenRow) {
            assert.equal((await lambda.invoke(eventOf([key]))).error, undefined);
            assert.equal((await rowsOf(key))[0].content_preview.S, PREVIEW);
          }
        });
      }

      await t.step("F71 500 after the write was applied", async () => {
        await putObject("applied.txt", TEXT);
        await using server = forwardThen500(standIn);
        const behind = startFunction({
          AWS_ENDPOINT_URL: standIn,
          AWS_ENDPOINT_URL_DYNAMODB: server.url,
        });
        const { error, log } = await behind.invoke(eventOf(["applied.txt"]));
        assert.equal(error, undefined);
        assert.equal(JSON.parse(log[0]).outcome, "unchanged"); // by its own first write
        assert.equal(server.requests, 2);
        assert.equal((await rowsOf("applied.txt")).length, 1);
      });

      await t.step(
        "F21 of three records the second fails, and the retry writes it alone",
        async () => {
          for (const key of ["one", "two", "three"]) await putObject(key, key);
          let denied = true;
          await using server = listen((request) => {
            const { pathname } = new URL(request.url);
            const refused = new Response(null, { status: 403 });
            return denied && pathname === `/${BUCKET}/two`
              ? Promise.resolve(refused)
              : pass(standIn, request);
          });
          const behind = startFunction({ AWS_ENDPOINT_URL: server.url });
          const event = eventOf(["one", "two", "three"]);
          const first = await behind.invoke(event);
          denied = false;
          assert.match(
            first.error!,
            /1 of 3 records failed: Cannot read "two" from "faults": .*HTTP 403/,
          );
          const before = JSON.stringify(await rowsOf("one"));
          assert.equal((await rowsOf("two")).length, 0);
          const second = await behind.invoke(event);
          assert.equal(second.error, undefined);
          const outcomes = second.log.map((line) => JSON.parse(line)).map(({ file_key, outcome }) =>
            `${file_key} ${outcome}`
          );
          assert.deepEqual(outcomes.sort(), ["one unchanged", "three unchanged", "two written"]);
          assert.equal(JSON.stringify(await rowsOf("one")), before);
        },
      );

      await t.step(
        "F22 1,000 records in one event, two calls each, on few connections",
        async () => {
          const keys = Array.from({ length: 1000 }, (_, i) => `many/${i}`);
          await forEachParallel(keys, 32, (key) => putObject(key, key));
          await using counter = countingProxy(standIn);
          const behind = startFunction({
            AWS_ENDPOINT_URL: counter.url,
            CALL_TIMEOUT_MS: "20000",
            ATTEMPT_TIMEOUT_MS: "20000",
          });
          const { error } = await behind.invoke(eventOf(keys), 60_000);
          assert.equal(error, undefined);
          assert.equal(counter.requests.length, 2000);
          assert.ok(
            counter.mostAtOnce > 8 && counter.mostAtOnce <= 32,
            `${counter.mostAtOnce} at once`,
          );
          const { Count } = await dynamo.send(
            new ScanCommand({
              TableName: TABLE,
              Select: "COUNT",
              FilterExpression: "begins_with(file_key, :many)",
              ExpressionAttributeValues: { ":many": { S: "many/" } },
            }),
          );
          assert.equal(Count, 1000);
        },
      );

      await t.step(
        "F39 of any object 2,048 bytes are read, in two calls, never without a range",
        async () => {
          await using counter = countingProxy(standIn);
          const behind = startFunction({ AWS_ENDPOINT_URL: counter.url });
          const sizes = { "1": 1, "2047": 2047, "2048": 2048, "2049": 2049, "8000000": 8_000_000 };
          for (const [key, size] of Object.entries(sizes)) {
            await putObject(key, "a".repeat(size));
            counter.requests.length = 0;
            assert.equal((await behind.invoke(eventOf([key]))).error, undefined);
            const [read, write] = counter.requests;
            assert.deepEqual(
              {
                calls: counter.requests.length,
                range: read.range,
                bytes: read.bytes,
                write: write.method,
              },
              { calls: 2, range: "bytes=0-2047", bytes: Math.min(size, 2048), write: "POST" },
            );
            const head = await s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key: key }));
            assert.equal((await rowsOf(key))[0].file_size.N, String(head.ContentLength));
          }
          await putObject("empty", "");
          counter.requests.length = 0;
          assert.equal((await behind.invoke(eventOf(["empty"], 0))).error, undefined);
          assert.deepEqual(counter.requests.map(({ method }) => method), ["HEAD", "POST"]);
        },
      );

      await t.step("F40-F66 answers that S3 should not give", async (t) => {
        using server = new OddServer();
        const behind = startFunction({
          AWS_ENDPOINT_URL: standIn,
          AWS_ENDPOINT_URL_S3: server.url,
        });
        await behind.invoke(eventOf(["warm"]));
        const big = 5 * 1024 ** 3;
        const cases: {
          name: string;
          key: string;
          error?: RegExp;
          row?: [size: number, preview?: string];
        }[] = [
          {
            name: "F40 5 GB, of which the range is read",
            key: "large",
            row: [big, "a".repeat(500)],
          },
          { name: "F41 200 with an endless body", key: "endless", row: [big, "a".repeat(500)] },
          { name: "F64 a body shorter than announced", key: "short", error: /BrokenBodyError/ },
          { name: "F64 a chunked body cut off", key: "cut-chunked", error: /BrokenBodyError/ },
          {
            name: "F65 headers, then silence",
            key: "silent-body",
            error: /BrokenBodyError|OutOfTimeError/,
          },
          {
            name: "F65 a byte every 100 ms",
            key: "drip",
            error: /OutOfTimeError: no answer within 8000 ms/,
          },
          { name: "F65 nothing at all", key: "silent", error: /TimeoutError|OutOfTimeError/ },
          {
            name: "F66 502 with HTML",
            key: "html",
            error: /Cannot read "html" from "faults": .*HTTP 502/,
          },
        ];
        for (const { name, key, error, row } of cases) {
          await t.step(name, async () => {
            const good = `good-${key}`;
            const ended = await behind.invoke(eventOf([key, good]));
            assert.ok(ended.ms < 2 * CALL_TIMEOUT_MS + READ_BACKOFF_MS, `${ended.ms} ms`);
            if (error) assert.match(ended.error!, error);
            else assert.equal(ended.error, undefined);
            const rows = await rowsOf(key);
            assert.deepEqual(
              rows.map((
                { file_size, content_preview },
              ) => [Number(file_size.N), content_preview?.S]),
              row ? [row] : [],
            );
            // The event's other record is done all the same.
            assert.equal((await rowsOf(good))[0].content_preview.S, "good");
            assert.ok(server.heads.every((head) => /^range: bytes=0-2047\r?$/im.test(head)));
          });
        }
      });

      await t.step("F74 cut JSON from PutItem", async () => {
        await putObject("cut-json", TEXT);
        using server = new OddServer();
        const behind = startFunction({
          AWS_ENDPOINT_URL: standIn,
          AWS_ENDPOINT_URL_DYNAMODB: server.url,
        });
        const { error } = await behind.invoke(eventOf(["cut-json"]));
        assert.match(error!, /Cannot write the row of "cut-json" from "faults"/);
        const again = startFunction({ AWS_ENDPOINT_URL: standIn });
        assert.equal((await again.invoke(eventOf(["cut-json"]))).error, undefined);
        assert.equal((await rowsOf("cut-json")).length, 1);
      });

      // Here and not in the pipeline: the stand-in's IAM does not match a line feed in a key.
      await t.step("F30 a key with line feeds, and NUL", async () => {
        const key = "new\nline \r\n\0";
        const behind = startFunction({
          AWS_ENDPOINT_URL_DYNAMODB: standIn,
          AWS_ENDPOINT_URL_S3: standIn,
        });
        await putObject(key.replace("\0", ""), "text");
        const read = await behind.invoke(eventOf([encodeURIComponent(key.replace("\0", ""))]));
        assert.equal(read.error, undefined);
        assert.equal((await rowsOf(key.replace("\0", "")))[0].content_preview.S, "text");
        await behind.invoke(eventOf([encodeURIComponent(key)])); // of an object that is gone
        assert.equal((await rowsOf(key)).length, 1);
      });

      await t.step("F76 without time left no record is begun", async () => {
        const { error } = await lambda.invoke(eventOf(["late"]), 2500);
        assert.match(error!, /OutOfTimeError: Cannot begin "late": no time left in this run/);
      });

      await t.step("F77 without TABLE_NAME the function does not start, and says why", async () => {
        const { stderr } = await new Deno.Command(tools.node, {
          args: [
            "-e",
            'try { require("./lambda.js") } catch (error) { console.error(error.message) }',
          ],
          cwd: folder,
          env,
          clearEnv: true,
        }).output();
        assert.match(
          new TextDecoder().decode(stderr),
          /Cannot start: the environment variable TABLE_NAME is not set/,
        );
      });

      await t.step("F78 another time zone changes no time", async () => {
        await putObject("zone", TEXT);
        const behind = startFunction({ AWS_ENDPOINT_URL: standIn, TZ: "Asia/Kathmandu" });
        await behind.invoke(eventOf(["zone"]));
        const [row] = await rowsOf("zone");
        const head = await s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key: "zone" }));
        assert.equal(row.timestamp.S, EVENT_TIME);
        assert.equal(row.last_modified.S, head.LastModified!.toISOString());
        assert.ok(Math.abs(Date.parse(row.processed_at.S!) - Date.now()) < 60_000);
      });
    } finally {
      for (const lambda of functions) await lambda.end();
      for (const child of children) child.kill("SIGKILL");
      await Promise.all(children.map((child) => child.status));
      s3.destroy();
      dynamo.destroy();
      await Deno.remove(folder, { recursive: true });
    }
  },
});

/** Two tries of a broken body more, each by the SDK's own backoff at most. */
const READ_BACKOFF_MS = 3500;

const EVENT_TIME = "2026-01-02T03:04:05.678Z";

/** An S3 event as of a bucket without versions. */
function eventOf(keys: string[], size = new TextEncoder().encode(TEXT).length) {
  const Records = keys.map((key) => ({
    eventVersion: "2.1",
    eventSource: "aws:s3",
    eventTime: EVENT_TIME,
    eventName: "ObjectCreated:Put",
    s3: { bucket: { name: BUCKET }, object: { key, size, sequencer: "0055AED6DCD90281E5" } },
  }));
  return { Records };
}

/** What Lambda's runtime does, as far as the handler sees it: a line in, a line out on stderr. */
const RUNTIME = `
const { handler } = require("./lambda.js");
require("node:readline").createInterface({ input: process.stdin }).on("line", async (line) => {
  const { event, remainingMs } = JSON.parse(line);
  const start = performance.now();
  const context = { getRemainingTimeInMillis: () => remainingMs - (performance.now() - start) };
  let error;
  try {
    await handler(event, context);
  } catch (thrown) {
    error = thrown.name + ": " + thrown.message;
  }
  const ms = performance.now() - start;
  process.stdout.write("", () => process.stderr.write(JSON.stringify({ error, ms }) + "\\n"));
});
`;

/** A running function, invoked one event at a time. */
class LambdaProcess {
  #child: Deno.ChildProcess;
  #input: WritableStreamDefaultWriter<Uint8Array>;
  #results: ReadableStreamDefaultReader<string>;
  #log: string[] = [];
  #logDone: Promise<void>;

  constructor(node: string, folder: string, env: Record<string, string>) {
    const child = new Deno.Command(node, {
      args: [join(folder, "runtime.js")],
      cwd: folder,
      env,
      clearEnv: true,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#child = child;
    this.#input = child.stdin.getWriter();
    this.#results = toLines(child.stderr).getReader();
    this.#logDone = (async () => {
      for await (const line of toLines(child.stdout)) this.#log.push(line);
    })();
  }

  async invoke(event: unknown, remainingMs = 12_000) {
    const line = JSON.stringify({ event, remainingMs }) + "\n";
    await this.#input.write(new TextEncoder().encode(line));
    const { value } = await this.#results.read();
    await new Promise((resolve) => setTimeout(resolve, 20)); // the log comes by another pipe
    const log = this.#log.splice(0);
    return { ...JSON.parse(value!) as { error?: string; ms: number }, log };
  }

  async end() {
    await this.#input.close();
    await this.#results.cancel();
    this.#child.kill("SIGKILL");
    await this.#child.status;
    await this.#logDone;
  }
}

/** S3 as it never is: the key of a request decides the answer. Plain TCP, a request a connection. */
class OddServer implements Disposable {
  #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  #open = new Set<Deno.TcpConn>();
  url = `http://127.0.0.1:${this.#listener.addr.port}`;
  heads: string[] = [];

  constructor() {
    (async () => {
      for await (const connection of this.#listener) {
        this.#open.add(connection);
        this.#serve(connection).catch(() => {}).finally(() => {
          this.#open.delete(connection);
          try {
            connection.close();
          } catch {
            // closed by the client
          }
        });
      }
    })().catch(() => {});
  }

  async #serve(connection: Deno.TcpConn) {
    const head = await readHead(connection);
    const write = async (text: string) => {
      const bytes = new TextEncoder().encode(text);
      for (let sent = 0; sent < bytes.length;) sent += await connection.write(bytes.subarray(sent));
    };
    const silence = () => connection.read(new Uint8Array(1)); // until the client goes
    const forever = async (step: () => Promise<void>) => {
      while (true) await step(); // until the client goes
    };
    const start = (status: string, ...headers: string[]) =>
      write(
        [`HTTP/1.1 ${status}`, "connection: close", "content-type: text/plain", ...headers, "", ""]
          .join("\r\n"),
      );
    if (head.startsWith("POST")) { // PutItem
      return await start("200 OK", "content-length: 9").then(() => write('{"Attri'));
    }
    this.heads.push(head);
    const key = head.split(" ")[1].split(/[/?]/)[2];
    const size = 5 * 1024 ** 3;
    switch (key) {
      case "large":
        await start(
          "206 Partial Content",
          "content-length: 2048",
          `content-range: bytes 0-2047/${size}`,
        );
        return await write("a".repeat(2048));
      case "endless":
        await start("200 OK", `content-length: ${size}`);
        return await forever(() => write("a".repeat(4096)));
      case "short":
        await start(
          "206 Partial Content",
          "content-length: 2048",
          "content-range: bytes 0-2047/9999",
        );
        return await write("a".repeat(1000));
      case "cut-chunked":
        await start(
          "206 Partial Content",
          "transfer-encoding: chunked",
          "content-range: bytes 0-2047/9999",
        );
        return await write("3e8\r\n" + "a".repeat(500));
      case "silent-body":
        await start(
          "206 Partial Content",
          "content-length: 2048",
          "content-range: bytes 0-2047/9999",
        );
        return void await silence();
      case "drip":
        await start(
          "206 Partial Content",
          "content-length: 2048",
          "content-range: bytes 0-2047/9999",
        );
        return await forever(async () => {
          await write("a");
          await new Promise((resolve) => setTimeout(resolve, 100));
        });
      case "silent":
        return void await silence();
      case "html": {
        const page = "<html><body><h1>502 Bad Gateway</h1></body></html>";
        return await start("502 Bad Gateway", `content-length: ${page.length}`).then(() =>
          write(page)
        );
      }
      default:
        await start("206 Partial Content", "content-length: 4", "content-range: bytes 0-3/4");
        return await write("good");
    }
  }

  [Symbol.dispose]() {
    this.#listener.close();
    for (const connection of this.#open) connection.close();
  }
}

async function readHead(connection: Deno.TcpConn): Promise<string> {
  const buffer = new Uint8Array(65_536);
  let head = "";
  while (!head.includes("\r\n\r\n")) {
    const length = await connection.read(buffer);
    if (length === null) break;
    head += new TextDecoder("latin1").decode(buffer.subarray(0, length));
  }
  return head;
}

interface Counted {
  method: string;
  range: string | null;
  bytes: number;
}

/** Passes all on, and counts. */
function countingProxy(upstream: string) {
  const requests: Counted[] = [];
  const counter = { url: "", requests, mostAtOnce: 0 };
  let atOnce = 0;
  const server = listen(async (request) => {
    counter.mostAtOnce = Math.max(counter.mostAtOnce, ++atOnce);
    const response = await pass(upstream, request);
    const body = new Uint8Array(await response.arrayBuffer());
    const range = request.headers.get("range");
    requests.push({ method: request.method, range, bytes: body.length });
    atOnce--;
    const bodyless = request.method === "HEAD" || response.status === 304;
    return new Response(bodyless ? null : body, response);
  });
  return Object.assign(counter, {
    url: server.url,
    [Symbol.asyncDispose]: server[Symbol.asyncDispose],
  });
}

/** Lets the first request take effect, and answers it with 500. */
function forwardThen500(upstream: string) {
  const counter = { url: "", requests: 0 };
  const server = listen(async (request) => {
    const response = await pass(upstream, request);
    if (++counter.requests > 1) return response;
    await response.body?.cancel();
    const body = JSON.stringify({ __type: "com.amazonaws.dynamodb.v20120810#InternalServerError" });
    return new Response(body, {
      status: 500,
      headers: { "content-type": "application/x-amz-json-1.0" },
    });
  });
  return Object.assign(counter, {
    url: server.url,
    [Symbol.asyncDispose]: server[Symbol.asyncDispose],
  });
}

function listen(handler: (request: Request) => Promise<Response>) {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, handler);
  const close = () => server.shutdown();
  return { url: `http://127.0.0.1:${server.addr.port}`, [Symbol.asyncDispose]: close };
}

async function pass(upstream: string, request: Request): Promise<Response> {
  const { pathname, search } = new URL(request.url);
  const body = request.method === "POST" ? await request.arrayBuffer() : undefined;
  return await fetch(upstream + pathname + search, {
    method: request.method,
    headers: request.headers,
    body,
  });
}

async function control(proxy: string, method: string, rules: unknown[]): Promise<void> {
  const response = await fetch(`${proxy}/_microburst/rules`, {
    method,
    body: JSON.stringify(rules),
  });
  const answer = await response.text();
  assert.equal(response.status, 200, answer);
}

/** Requests that the proxy has seen, by service. */
async function counts(proxy: string): Promise<{ s3: number; dynamodb: number }> {
  const { by_service } = await (await fetch(`${proxy}/_microburst/stats`)).json();
  const count = (name: string) =>
    by_service.find(({ service }: { service: string }) => service === name)?.requests ?? 0;
  return { s3: count("s3"), dynamodb: count("dynamodb") };
}

async function answering(url: string): Promise<void> {
  for (const endMs = Date.now() + 30_000; Date.now() < endMs;) {
    try {
      await (await fetch(url)).body?.cancel();
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  throw new Error(`${url} does not answer`);
}

Deno.test({
  name: "every fault of FAULTS.md is named by a test (needs permissions: deno task test)",
  ignore: Deno.permissions.querySync({ name: "read" }).state !== "granted",
  fn: async () => {
    const read = (name: string) => Deno.readTextFile(new URL(`../${name}`, import.meta.url));
    const faults = (await read("docs/FAULTS.md")).matchAll(/^\| (\d+a?) \|/gm).map(([, n]) =>
      `F${n}`
    );
    const files = [
      "handler_test.ts",
      "tests/faults_test.ts",
      "tests/pipeline_test.ts",
      "tests/corpus.ts",
    ];
    const names = (await Promise.all(files.map(read))).join("\n")
      .matchAll(/["`]((?:F\d+a? )+)/g).flatMap(([, numbers]) => numbers.trim().split(" "));
    const tested = new Set(names);
    assert.deepEqual([...faults].filter((fault) => !tested.has(fault)), []);
  },
});
