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
  [new UserError("as it is"), {}, /^as it is$/],
];

Deno.test("toSentence() tells who refused: the network, a proxy, or AWS itself", () => {
  for (const [error, environment, sentence] of CASES) {
    const actual = toSentence(error, environment);
    assert.match(actual ?? "none", sentence);
    assert.doesNotMatch(actual!, /secret/);
  }
});

Deno.test("toSentence() has none for a fault of the task's own", () => {
  assert.equal(toSentence(new TypeError("x is undefined"), {}), undefined);
  assert.equal(toSentence("text", {}), undefined);
  assert.equal(toSentence(sdkError("something else"), {}), undefined);
});
