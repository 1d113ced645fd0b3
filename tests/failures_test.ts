/** The sentence with which a failed task ends: of an error, and of what Terraform wrote. */

import assert from "node:assert/strict";
import { explainFailure, toSentence } from "../tasks/failures.ts";
import { UserError } from "../tasks/terminal.ts";

/** An error of the SDK, which gives $metadata to every one of them. */
function sdkError(fields: object, message = "x"): Error {
  return Object.assign(new Error(message), { $metadata: { attempts: 3 } }, fields);
}

/** An answer of AWS's that is a refusal. */
function refusal(name: string, message: string, httpStatusCode = 403): Error {
  return sdkError({ name, $metadata: { httpStatusCode } }, message);
}

/** An error of Deno's or Node's with the system's code. */
function systemError(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}

const REFUSED: [Error, RegExp][] = [
  [
    refusal("NoSuchBucket", "so it is\u001b[31m", 404),
    /^AWS refused: NoSuchBucket: so it is\\u\{1b\}\[31m$/,
  ],
  [
    refusal("ExpiredToken", "no", 400),
    /^AWS refused: ExpiredToken: no\nAWS does not accept the credentials \(any more\); get new/,
  ],
  [
    refusal("AccessDeniedException", "x is not authorized to perform y"),
    /\nThe role that this runs as lacks a permission, which is named above; /,
  ],
  [refusal("Unknown", "UnknownError"), /^AWS refused: HTTP 403, without a reason$/],
  [refusal("E", "x509: connection refused"), /^AWS refused: E: x509: connection refused$/],
  [
    systemError("ENOSPC", "No space left on device (os error 28): writefile '/a/b'"),
    /^This machine refused: No space left on device: writefile '\/a\/b'\nThe disk is full; make room/,
  ],
  [
    systemError("EACCES", "Permission denied (os error 13): open '/a/b'"),
    /'\/a\/b'\nThat is another user's; .* sudo here, sudo chown -R "\$\(id -un\)" \S+$/,
  ],
  [systemError("EPERM", "Operation not permitted (os error 1): chmod 'x'"), /another user's/],
  [systemError("EROFS", "Read-only file system (os error 30): mkdir 'x'"), /read-only; use a/],
  [systemError("EMFILE", "EMFILE: too many open files, open 'x'"), /\nA limit .* ulimit -n/],
  [
    systemError("ENOENT", "No such file or directory (os error 2): readfile 'main\u001b.tf'"),
    /^This machine refused: No such file or directory: readfile 'main\\u\{1b\}.tf'$/,
  ],
  [
    new Error("outer", { cause: systemError("ENOSPC", "ENOSPC: no space left on device, write") }),
    /^This machine refused: ENOSPC: no space left on device, write\nThe disk is full/,
  ],
  [new UserError("as it is"), /^as it is$/],
];

/** Codes of Node's, or the error's name, with what is written beside it; and what they mean. */
const NETWORK: [codes: string[], message: string, remedy: RegExp][] = [
  [
    ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT", "ERR_SOCKET_CONNECTION_TIMEOUT"],
    "connect 10.0.0.7:443\u001b",
    /^AWS can't be reached; check the network, the region, HTTPS_PROXY and NO_PROXY$/,
  ],
  [["EHOSTUNREACH", "ENETUNREACH", "ECONNRESET", "EPIPE", "TimeoutError"], "x", /^AWS can't be/],
  [
    ["CERT_HAS_EXPIRED", "UNABLE_TO_VERIFY_LEAF_SIGNATURE", "ERR_TLS_CERT_ALTNAME_INVALID"],
    "x",
    /^A certificate is not trusted; .* name its certificate in AWS_CA_BUNDLE$/,
  ],
  [["DEPTH_ZERO_SELF_SIGNED_CERT"], "x", /^A certificate/],
  [[""], "self-signed certificate", /^A certificate/],
  [
    ["ERR_PROXY_TUNNEL"],
    "Failed to establish tunnel to a.b:443 over http://proxy.corp:3128: HTTP/1.1 407 No",
    /^The proxy can't be reached, or refused; .*NAME:PASSWORD@HOST:PORT, .* \*\.amazonaws\.com$/,
  ],
];

Deno.test("toSentence() tells what is between here and AWS, and what to do", () => {
  for (const [codes, message, remedy] of NETWORK) {
    for (const code of codes) {
      const error = sdkError(code === "TimeoutError" ? { name: code } : { code }, message);
      for (const outer of [error, new Error("x", { cause: error }), new AggregateError([error])]) {
        const [first, second] = toSentence(outer, {})!.split("\n");
        assert.equal(first, `The connection failed: ${message.replace("\u001b", "\\u{1b}")}`);
        assert.match(second, remedy);
      }
    }
  }
});

Deno.test("toSentence() tells who refused: AWS itself, or this machine", () => {
  for (const [error, sentence] of REFUSED) assert.match(toSentence(error, {}) ?? "none", sentence);
});

Deno.test("toSentence() has none for a fault of the task's own", () => {
  const type = systemError("ERR_INVALID_ARG_TYPE", "no string");
  for (const fault of [new TypeError("x is undefined"), "text", type, sdkError({}, "something")]) {
    assert.equal(toSentence(fault, {}), undefined);
  }
});

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
const TOO_SMALL =
  "Invalid value for variable: lambda_memory_mb must be a whole number from 128 to 10240.";

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
const WAIT = "another Terraform works on this state, of me@host; wait for it";

/** As on a terminal. */
const IN_COLOUR = [
  "\u001b[31m╷",
  "│ \u001b[1mError: \u001b[0m\u001b[1mNo luck",
  "│ ",
  "│   with a.b,",
]
  .concat("│ ", "│ It rained", "│ today.", "╵").join("\u001b[0m\n\u001b[31m");

/** What Terraform writes after its first "Error: ", and the rest of the sentence after "failed". */
const WRITTEN: [name: string, stderr: string, sentence: string | RegExp][] = [
  ["no remedy is known: Terraform's own words, without the place", INVALID, `: ${TOO_SMALL}`],
  ["two errors", `${INVALID}\nError: Second\n\nmore\n`, `: ${TOO_SMALL} (and 1 more above)`],
  ["in colour, with frames", IN_COLOUR, ": No luck: It rained today."],
  [
    "a warning is not the cause",
    `Warning: AccessDenied\n\nfine\n${INVALID}\nWarning: ExpiredToken\n\nfine\n`,
    `: ${TOO_SMALL}`,
  ],
  [
    "an error of a provider, whose address is not the cause",
    'Error: No luck\n\n  with provider["registry.terraform.io/hashicorp/aws"],\n\nIt rained.\n',
    ": No luck: It rained.",
  ],
  ["nothing that is called an error", "Killed\n", " with exit code 1, see above"],
  [
    "a lock in a bucket that another one holds, or left",
    LOCKED,
    `: ${WAIT}, or if it was killed run TF_WORKSPACE=a terraform force-unlock 0a-1`,
  ],
  [
    "a lock of a file ends with its process",
    LOCKED.replace(/operation[^]*hold/, "resource temporarily unavailable"),
    `: ${WAIT}`,
  ],
  [
    "a state that could not be saved: the command carries the workspace",
    "Error: Failed to save state\n\nno space left on device\n\nError: Failed to persist state to backend\n",
    /^: the state was not saved, .* TF_WORKSPACE=a terraform state push errored\.tfstate$/,
  ],
];

/** What Terraform writes, and what to do about it. */
const REMEDIES: [stderr: string, remedy: RegExp][] = [
  ["Can't ask approval for state migration when", /^the state is not where backend.tf wants it; /],
  [
    "couldn't find resource\n\n  with data.aws_s3_bucket.existing",
    /names a bucket that does not exist; correct that, .* make it again, or run destroy$/,
  ],
  [
    "empty result\n\n  with data.aws_s3_bucket.existing[0]",
    /^existing_bucket is in another region/,
  ],
  ["Configuration for import target does not\nexist", /set batch_backfill = true, run it again/],
  ["Unable to validate the following destination\nconfigurations", /^S3 could not see .* again$/],
  [
    "No valid credential sources found",
    /^no AWS credentials were found; run it on an EC2 instance with a role, or by an SSO profile/,
  ],
  ["refresh cached SSO token failed", /^the SSO session .* aws sso login with the same AWS_P/],
  ["the SSO session has expired or\nis invalid", /^the SSO session has expired, or there is none;/],
  ["cached SSO token failed, error SSO OIDC: request send failed, no such host", /^AWS can't be/],
  ["api error ExpiredTokenException: Token expired: current\ndate/time", /^the pipeline's token/],
  ["AccessDenied: Not authorized to\nperform sts:AssumeRoleWithWebIdentity", /^the role of AWS_R/],
  ["AccessDenied: User is not authorized to\nperform: s3:X", /^the role that this runs as lacks/],
  ["open terraform.tfstate: permission denied", /^that is another user's; .* sudo chown -R /],
  ['"bucket" is required by the\nbackend.', /; run terraform init -backend-config=FILE, and then/],
  [
    "expected runtime to be one\nof",
    /^the aws provider here does not know this lambda_runtime; doc/,
  ],
  ["invalid AWS Region: eu-nowhere-9", /correct aws_region .* docs\/OPERATE\.md says of Node 24$/],
  ["x: proxyconnect tcp: dial tcp: connection refused", /^the proxy can't be reached, or refused/],
  ["x: Proxy Authentication Required", /NAME:PASSWORD@HOST:PORT, or/],
  ["x: tls: failed: x509: certificate signed by", /AWS_CA_BUNDLE$/],
  ["Failed to query available provider packages: no such host", /^it got no aws provider; is the/],
  ["x: dial tcp: lookup y: no such host", /^AWS can't be/],
];

Deno.test("explainFailure() ends with what is wrong and what to do", () => {
  const start = "terraform plan failed";
  for (const [name, stderr, sentence] of WRITTEN) {
    const actual = explainFailure("plan", 1, stderr, "a");
    assert.ok(actual.startsWith(start), name);
    if (typeof sentence === "string") assert.equal(actual, start + sentence, name);
    else assert.match(actual.slice(start.length), sentence, name);
    assert.equal(actual.includes("\n"), false, name);
  }
  for (const [stderr, remedy] of REMEDIES) {
    const actual = explainFailure("plan", 1, `Error: X: ${stderr}\n\n  with y,\n`, "a");
    assert.ok(actual.startsWith(`${start}: `), stderr);
    assert.match(actual.slice(start.length + 2), remedy, stderr);
  }
});
