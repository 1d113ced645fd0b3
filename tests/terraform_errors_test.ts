import assert from "node:assert/strict";
import { explainFailure } from "../tasks/terraform_errors.ts";

const INVALID = `
Error: Invalid value for variable

  on local-test.tfvars line 1:
   1: lambda_memory_mb = 64
    ├────────────────
    │ var.lambda_memory_mb is 64

lambda_memory_mb must be a whole number
from 128 to 10240.

This was checked by the validation rule at variables.tf:58,3-13.
`;

/** A lock in a bucket, as Terraform tells of it. */
const LOCKED = `
Error: Error acquiring the state lock

Error message: operation error S3: PutObject, https response error
StatusCode: 412, api error PreconditionFailed: At least one of the
pre-conditions you specified did not hold
Lock Info:
  ID:        0a-1
  Path:      states/env:/a/file-metadata.tfstate
  Who:       me@host
`;

const CASES: [name: string, stderr: string, sentence: string | RegExp][] = [
  [
    "no remedy is known: Terraform's own words, without the place",
    INVALID,
    "terraform plan failed: Invalid value for variable: lambda_memory_mb must be a whole number from 128 to 10240.",
  ],
  [
    "a backend that was added while the state is on this machine",
    "\nError: Can't ask approval for state migration when interactive input is disabled.\n\nPlease\n",
    "terraform plan failed: the state is not where backend.tf wants it; terraform init -migrate-state takes it along",
  ],
  [
    "a backend whose block is not whole",
    'Error: Missing Required Value\n\nThe attribute "bucket" is required by the\nbackend.\n',
    /^terraform plan failed: .*; run terraform init -backend-config=FILE, and then this again$/,
  ],
  [
    "a lock in a bucket that another one holds, or left",
    LOCKED,
    "terraform plan failed: another Terraform works on this state, of me@host; wait for it, or if it was killed run TF_WORKSPACE=a terraform force-unlock 0a-1",
  ],
  [
    "a lock of a file ends with its process",
    LOCKED.replace(/operation[^]*hold/, "resource temporarily unavailable"),
    "terraform plan failed: another Terraform works on this state, of me@host; wait for it",
  ],
  [
    "a runtime that the provider does not know",
    'Error: expected runtime to be one of ["nodejs20.x" "nodejs22.x"],\ngot nodejs24.x\n\n  with aws_lambda_function.metadata,\n',
    /^terraform plan failed: the aws provider here does not know this lambda_runtime; docs\/OPERATE\.md /,
  ],
  [
    "a state that could not be saved: the command carries the workspace",
    "Error: Failed to save state\n\nwrite terraform.tfstate: no space left on device\n\nError: Failed to persist state to backend\n\nThe\n",
    /^terraform plan failed: the state was not saved, .* TF_WORKSPACE=a terraform state push errored\.tfstate$/,
  ],
  [
    "a full disk",
    "Error: Failed to write plan file: write tfplan: no space left on device\n",
    "terraform plan failed: the disk is full; make room, then run it again",
  ],
  [
    "a folder that sudo left behind",
    "Error: Failed to save state: open terraform.tfstate: permission denied\n",
    /^terraform plan failed: that is another user's; .* sudo chown -R /,
  ],
  [
    "an import of what a variable switches off",
    "\nError: Configuration for import target does not\nexist\n\nThe configuration for the given import\n",
    "terraform plan failed: a variable switches off what is to be imported; set batch_backfill = true, run it again, and then switch it off",
  ],
  [
    "two errors",
    `${INVALID}\nError: Second\n\nmore\n`,
    /from 128 to 10240\. \(and 1 more above\)$/,
  ],
  [
    "in colour, with frames, as on a terminal",
    "\u001b[31m╷\u001b[0m\n\u001b[31m│\u001b[0m \u001b[1mError: \u001b[0m\u001b[1mNo luck\u001b[0m\n\u001b[31m│\u001b[0m \n\u001b[31m│\u001b[0m   with a.b,\n\u001b[31m│\u001b[0m \n\u001b[31m│\u001b[0m It rained\n\u001b[31m│\u001b[0m today.\n\u001b[31m╵\u001b[0m\n",
    "terraform plan failed: No luck: It rained today.",
  ],
  [
    "a line of the log is not the cause",
    "2026-11-25T22:00:00.000Z [DEBUG] provider: dial tcp: connection refused\n" +
    '  | {"__type":"AccessDenied"}\n{"@level":"debug","@message":"no such host"}\n' + INVALID +
    "2026-11-25T22:00:00.000Z [DEBUG] ExpiredToken\n",
    /^terraform plan failed: Invalid value for variable: /,
  ],
  [
    "a warning is not the cause",
    "Warning: AccessDenied is nothing to worry about\n\nfine\n" + INVALID +
    "\nWarning: ExpiredToken\n\nfine\n",
    /^terraform plan failed: Invalid value for variable: .*10240\.$/,
  ],
  [
    "a region that the provider does not know may be a new one",
    "Error: invalid AWS Region: eu-nowhere-9\n\n  with provider,\n",
    /knows no such region; correct aws_region .*, or, if AWS has opened it lately, .* docs\/OPERATE\.md says of Node 24$/,
  ],
  [
    "a missing permission",
    "Error: creating X: AccessDenied: User is not authorized to\nperform: s3:PutObject\n",
    /^terraform plan failed: the role of this machine lacks a permission, which is named above; add/,
  ],
  [
    "a notification that S3 refuses once in a while",
    "Error: creating S3 Bucket (x) Notification: operation error S3:\nPutBucketNotificationConfiguration, https response error StatusCode: 400,\napi error InvalidArgument: Unable to validate the following destination\nconfigurations\n",
    "terraform plan failed: S3 could not see the function's new permission yet, as happens once in a while; run it again",
  ],
  ["credentials", "Error: x: ExpiredToken: y\n", /AWS does not accept the credentials/],
  [
    "a proxy",
    "Error: x: proxyconnect tcp: dial tcp: connection refused\n",
    /proxy of HTTPS_PROXY/,
  ],
  ["a proxy's login", "Error: x: Proxy Authentication Required\n", /NAME:PASSWORD@HOST:PORT$/],
  ["a certificate", "Error: x: tls: failed: x509: certificate signed by\n", /AWS_CA_BUNDLE$/],
  [
    "the network",
    "Error: x: dial tcp: lookup y: no such host\n",
    /^terraform plan failed: AWS can't be/,
  ],
  [
    "nothing that is called an error",
    "Killed\n",
    "terraform plan failed with exit code 1, see above",
  ],
];

Deno.test("explainFailure() ends with what is wrong and what to do", () => {
  for (const [name, stderr, sentence] of CASES) {
    const actual = explainFailure("plan", 1, stderr, "a");
    if (typeof sentence === "string") assert.equal(actual, sentence, name);
    else assert.match(actual, sentence, name);
    assert.equal(actual.includes("\n"), false, name);
  }
});
