import assert from "node:assert/strict";
import { toSentence } from "../tasks/failures.ts";
import { UserError } from "../tasks/terminal.ts";

const PROXY = { HTTPS_PROXY: "http://someone:secret@proxy.corp:3128" };

/** An error of the SDK, which gives $metadata to every one of them. */
function sdkError(message: string, fields: object = {}): Error {
  return Object.assign(new Error(message), { $metadata: { attempts: 3 } }, fields);
}

const refused = { code: "ECONNREFUSED", address: "10.0.0.7", port: 443 };
const unknown = { code: "ENOTFOUND", hostname: "s3.eu-nowhere-1.amazonaws.com" };
const CASES: [Error, Record<string, string>, RegExp][] = [
  [
    sdkError("x", refused),
    {},
    /^Cannot reach 10.0.0.7:443: nothing listens there \(ECONNREFUSED\); /,
  ],
  [
    sdkError("x", unknown),
    {},
    /^Cannot reach s3.eu-nowhere-1.amazonaws.com: the name is not known/,
  ],
  [sdkError("x", unknown), PROXY, /, and NO_PROXY$/],
  [
    sdkError("x", { code: "ETIMEDOUT" }),
    {},
    /^Cannot reach AWS: no answer in time \(ETIMEDOUT\)/,
  ],
  [
    sdkError("x", { name: "TimeoutError" }),
    {},
    /^Cannot reach AWS: no answer in time \(TimeoutErr/,
  ],
  [sdkError("x", { code: "ECONNRESET" }), {}, /set HTTPS_PROXY if a proxy is the way out$/],
  [sdkError("x", { code: "EHOSTUNREACH" }), {}, /no route to it/],
  [
    sdkError("x", { code: "ENOTFOUND", hostname: "proxy.corp" }),
    PROXY,
    /^Cannot reach AWS through the proxy proxy.corp:3128: the name is not known \(ENOTFOUND\); check HTTPS_PROXY/,
  ],
  [
    sdkError("x", { code: "ECONNREFUSED", address: "proxy.corp", port: 3128 }),
    PROXY,
    /^Cannot reach AWS through the proxy proxy.corp:3128: nothing listens there/,
  ],
  [
    sdkError("Bad response: 407"),
    PROXY,
    /^The proxy proxy.corp:3128 .* 407; it asks for a name and/,
  ],
  [sdkError("Bad response: 403"), PROXY, /^The proxy proxy.corp:3128 .* 403; it does not let/],
  [
    sdkError("Bad response: 502"),
    PROXY,
    /^The proxy proxy.corp:3128 .* 502; ask those who run it/,
  ],
  [
    sdkError("self-signed certificate", { code: "DEPTH_ZERO_SELF_SIGNED_CERT" }),
    {},
    /^The certificate of AWS is not trusted: self-signed certificate; .*AWS_CA_BUNDLE$/,
  ],
  [
    sdkError("no", { code: "ERR_TLS_CERT_ALTNAME_INVALID", host: "a.b" }),
    {},
    /^The certificate of a.b/,
  ],
  [new AggregateError([sdkError("x", refused)]), {}, /^Cannot reach 10.0.0.7:443/],
  [new Error("outer", { cause: sdkError("x", refused) }), {}, /^Cannot reach 10.0.0.7:443/],
  [
    sdkError("so it is\u001b[31m", { name: "NoSuchBucket", $metadata: { httpStatusCode: 404 } }),
    {},
    /^AWS refused: NoSuchBucket: so it is\\u\{1b\}\[31m$/,
  ],
  [
    sdkError("no", { name: "ExpiredToken", $metadata: { httpStatusCode: 400 } }),
    {},
    /^AWS refused: ExpiredToken: no\nAWS does not accept the credentials \(any more\); get new/,
  ],
  [
    sdkError("x is not authorized to perform y", {
      name: "AccessDeniedException",
      $metadata: { httpStatusCode: 403 },
    }),
    {},
    /\nThe role of this machine lacks a permission, which is named above; /,
  ],
  [
    sdkError("UnknownError", { name: "Unknown", $metadata: { httpStatusCode: 403 } }),
    {},
    /^AWS refused: HTTP 403, without a reason$/,
  ],
  [
    systemError("ENOSPC", "No space left on device (os error 28): writefile '/a/b'"),
    {},
    /^This machine refused: No space left on device: writefile '\/a\/b'\nThe disk is full; make room/,
  ],
  [
    systemError("EACCES", "Permission denied (os error 13): open '/a/b'"),
    {},
    /'\/a\/b'\nThat is another user's; .* sudo here, sudo chown -R "\$\(id -un\)" \S+$/,
  ],
  [systemError("EPERM", "Operation not permitted (os error 1): chmod 'x'"), {}, /another user's/],
  [systemError("EROFS", "Read-only file system (os error 30): mkdir 'x'"), {}, /read-only; use a/],
  [systemError("EMFILE", "EMFILE: too many open files, open 'x'"), {}, /\nA limit .* ulimit -n/],
  [
    systemError("ENOENT", "No such file or directory (os error 2): readfile 'main\u001b.tf'"),
    {},
    /^This machine refused: No such file or directory: readfile 'main\\u\{1b\}.tf'$/,
  ],
  [
    new Error("outer", { cause: systemError("ENOSPC", "ENOSPC: no space left on device, write") }),
    {},
    /^This machine refused: ENOSPC: no space left on device, write\nThe disk is full/,
  ],
  [new UserError("as it is"), {}, /^as it is$/],
];

/** An error of Deno's or Node's with the system's code. */
function systemError(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}

Deno.test("toSentence() tells who refused: the network, a proxy, AWS itself, or this machine", () => {
  for (const [error, environment, sentence] of CASES) {
    const actual = toSentence(error, environment);
    assert.match(actual ?? "none", sentence);
    assert.doesNotMatch(actual!, /secret/);
  }
});

Deno.test("toSentence() has none for a fault of the task's own", () => {
  assert.equal(toSentence(new TypeError("x is undefined"), {}), undefined);
  assert.equal(toSentence("text", {}), undefined);
  assert.equal(toSentence(systemError("ERR_INVALID_ARG_TYPE", "no string"), {}), undefined);
  assert.equal(toSentence(sdkError("something else"), {}), undefined);
});
