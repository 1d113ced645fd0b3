/** S3 as it should never answer, in plain TCP: the key of a request decides the answer. */

/** The size of an object, as two of the answers tell it. */
export const HUGE_BYTES = 5 * 1024 ** 3;

interface OddAnswer {
  status?: string;
  headers?: string[];
  body: string;
  /** After head and body: close, never close, or send the body again and again, each so late. */
  then?: "silence" | { repeatAfterMs: number };
}

const RANGE = ["content-length: 2048", "content-range: bytes 0-2047/9999"];

const ANSWERS: Record<string, OddAnswer> = {
  "large": {
    headers: ["content-length: 2048", `content-range: bytes 0-2047/${HUGE_BYTES}`],
    body: "a".repeat(2048),
  },
  "endless": {
    status: "200 OK",
    headers: [`content-length: ${HUGE_BYTES}`],
    body: "a".repeat(4096),
    then: { repeatAfterMs: 0 },
  },
  "short": { headers: RANGE, body: "a".repeat(1000) },
  "cut-chunked": {
    headers: ["transfer-encoding: chunked", "content-range: bytes 0-2047/9999"],
    body: "3e8\r\n" + "a".repeat(500), // announces 1,000 bytes
  },
  "silent-body": { headers: RANGE, body: "", then: "silence" },
  "drip": { headers: RANGE, body: "a", then: { repeatAfterMs: 100 } },
  "silent": { body: "", then: "silence" },
  "html": {
    status: "502 Bad Gateway",
    headers: ["content-length: 24"],
    body: "<h1>502 Bad Gateway</h1>",
  },
};

const GOOD: OddAnswer = {
  headers: ["content-length: 4", "content-range: bytes 0-3/4"],
  body: "good",
};

const CUT_JSON: OddAnswer = { status: "200 OK", headers: ["content-length: 9"], body: '{"Attri' };

/** Serves one request a connection: a POST, DynamoDB's, gets cut JSON, other keys get "good". */
export class OddServer implements Disposable {
  #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  #open = new Set<Deno.TcpConn>();
  url = `http://127.0.0.1:${this.#listener.addr.port}`;
  /** The heads of the requests to S3. */
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
            // The client has closed it.
          }
        });
      }
    })().catch(() => {});
  }

  async #serve(connection: Deno.TcpConn) {
    const head = await readHead(connection);
    if (head.startsWith("POST")) return await send(connection, CUT_JSON);
    this.heads.push(head);
    const key = head.split(" ")[1].split(/[/?]/)[2];
    await send(connection, ANSWERS[key] ?? GOOD);
  }

  [Symbol.dispose]() {
    this.#listener.close();
    for (const connection of this.#open) connection.close();
  }
}

async function send(connection: Deno.TcpConn, answer: OddAnswer) {
  const { status = "206 Partial Content", headers, body, then } = answer;
  const write = async (text: string) => {
    const bytes = new TextEncoder().encode(text);
    for (let sent = 0; sent < bytes.length;) sent += await connection.write(bytes.subarray(sent));
  };
  if (headers) {
    const usual = ["connection: close", "content-type: text/plain"];
    await write([`HTTP/1.1 ${status}`, ...usual, ...headers, "", ""].join("\r\n"));
  }
  await write(body);
  if (then === "silence") await connection.read(new Uint8Array(1)); // until the client goes
  while (typeof then === "object") { // until the client goes
    await new Promise((resolve) => setTimeout(resolve, then.repeatAfterMs));
    await write(body);
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
