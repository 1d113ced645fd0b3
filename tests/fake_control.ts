/**
 * A fake of S3 Control behind TLS: CreateJob, DescribeJob and UpdateJobStatus in the SDK's own wire format, which is
 * XML, with the account in a header and at the beginning of the host's name.
 */

import type { ServerResponse } from "node:http";
import { Agent } from "node:https";
import { S3ControlClient } from "@aws-sdk/client-s3-control";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import { serveTls, type TlsRequest, type TlsServer } from "./tls.ts";

interface ControlRequest {
  method: string;
  path: string;
  host: string;
  account: string;
  signed: boolean;
  body: string;
}

/**
 * A job of the fake: what is in DescribeJob's `<Job>`, from one call to the next; the last one stays.
 * An empty text is a 404.
 */
export type Job = string[];

export class FakeControl implements AsyncDisposable {
  requests: ControlRequest[] = [];
  /** By their ids. CreateJob makes that of `nextId`. */
  jobs: Record<string, Job> = {};
  nextId = "job-0a-1";
  /** A refusal of every call: its code. */
  refusal?: string;
  client!: S3ControlClient;
  #server!: TlsServer;

  static async start(): Promise<FakeControl> {
    const fake = new FakeControl();
    fake.#server = await serveTls((request, response) => fake.#serve(request, response));
    const httpsAgent = new Agent({
      rejectUnauthorized: false, // the certificate signs for itself
      lookup: (_name, options, answer) =>
        options.all
          ? answer(null, [{ address: "127.0.0.1", family: 4 }])
          : answer(null, "127.0.0.1", 4),
    });
    fake.client = new S3ControlClient({
      region: "eu-central-1",
      endpoint: `https://s3-control.test:${fake.#server.port}`,
      credentials: { accessKeyId: "test", secretAccessKey: "test" },
      requestHandler: new NodeHttpHandler({ httpsAgent }),
      maxAttempts: 1,
    });
    return fake;
  }

  #serve({ method, path, headers, body }: TlsRequest, response: ServerResponse) {
    this.requests.push({
      method,
      path,
      host: headers.host?.replace(/:\d+$/, "") ?? "",
      account: String(headers["x-amz-account-id"]),
      signed: headers.authorization !== undefined,
      body,
    });
    const [status, answer] = this.#answer(method, decodeURIComponent(path));
    response.writeHead(status, { "content-type": "application/xml" });
    response.end(`<?xml version="1.0" encoding="UTF-8"?>\n${answer}`);
  }

  #answer(method: string, path: string): [status: number, xml: string] {
    const refused = (status: number, code: string): [number, string] => [
      status,
      `<ErrorResponse><Error><Code>${code}</Code><Message>no</Message></Error></ErrorResponse>`,
    ];
    if (this.refusal !== undefined) return refused(403, this.refusal);
    if (method === "POST" && path === "/v20180820/jobs") {
      return [200, `<CreateJobResult><JobId>${this.nextId}</JobId></CreateJobResult>`];
    }
    const [, ended] =
      path.match(/^\/v20180820\/jobs\/([^/]+)\/status\?requestedJobStatus=Cancelled$/) ?? [];
    if (method === "POST" && ended !== undefined) {
      this.jobs[ended] = this.jobs[ended].map((job) => job.replace("Active", "Cancelled"));
      return [200, `<UpdateJobStatusResult><JobId>${ended}</JobId></UpdateJobStatusResult>`];
    }
    const [, id] = path.match(/^\/v20180820\/jobs\/([^/]+)$/) ?? [];
    const job = method === "GET" && id !== undefined ? this.jobs[id] : undefined;
    if (job === undefined) return refused(404, "NotFoundException");
    const now = job.length > 1 ? job.shift() : job[0];
    if (now === "") return refused(404, "NoSuchJobException");
    return [200, `<DescribeJobResult><Job><JobId>${id}</JobId>${now}</Job></DescribeJobResult>`];
  }

  async [Symbol.asyncDispose]() {
    this.client.destroy();
    await this.#server[Symbol.asyncDispose]();
  }
}
