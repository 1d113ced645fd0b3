/** Each way to sign in, by the SDK's own sources of credentials, at endpoints that are played here. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { checkCredentials, clientsOf } from "../tasks/clients.ts";
import { temporaryFolder } from "../tasks/files.ts";
import { replaceEnvironment } from "./fixtures.ts";

const [PAST, FUTURE] = ["2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z"];
const BY_PROXY = { HTTPS_PROXY: "http://127.0.0.1:1", AWS_ENDPOINT_URL: "" };
const NONE =
  /^No AWS cred.* \(.*\): run it on an EC2 .* SSO .* --local\n.*_DISABLED .* --instance-id /;

/** What of AWS_ is set, and whose credentials that gives, or why none. Files are in the home folder. */
const CASES: [name: string, value: string, who: RegExp, more?: Record<string, string>][] = [
  ["PROFILE", "current", /^sso$/],
  ["PROFILE", "renewable", /^sso$/],
  ["PROFILE", "expired", /SSO session has expired, .*; run aws sso login with the same AWS_P/],
  ["PROFILE", "revoked", /SSO session has expired, .*; run aws sso login with the same AWS_P/],
  ["PROFILE", "unknown", /^AWS_PROFILE gives no AWS credentials .*: correct or unset it$/],
  ["PROFILE", "current", /^AWS_PROFILE gives no .* ECONNREFUSED 127.0.0.1:1/, BY_PROXY],
  ["CONTAINER_AUTHORIZATION_TOKEN_FILE", "current", /^container$/],
  ["CONTAINER_AUTHORIZATION_TOKEN_FILE", "revoked", /^AWS_CONTAINER_\w+_FULL_URI gives no /],
  ["WEB_IDENTITY_TOKEN_FILE", "current", /^pipeline$/],
  ["WEB_IDENTITY_TOKEN_FILE", "expired", /: the pipeline's token has expired; .* AWS_WEB_/],
  ["WEB_IDENTITY_TOKEN_FILE", "revoked", /: the role of AWS_ROLE_ARN does not let this pip/],
  ["EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1", NONE],
  ["EC2_METADATA_DISABLED", "true", NONE],
];

Deno.test("tasks sign in by SSO, in a container and in a pipeline", async (t) => {
  await using folder = await temporaryFolder();
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, answer);
  const [HOME, AWS_ENDPOINT_URL] = [folder.path, `http://127.0.0.1:${server.addr.port}`];
  await furnish(HOME, ["current", "renewable", "expired", "revoked"]);
  for (const [name, value, who, more] of CASES) {
    const environment: Record<string, string> = { HOME, AWS_ENDPOINT_URL, [`AWS_${name}`]: value };
    if (name.endsWith("_FILE")) environment[`AWS_${name}`] = `${HOME}/${value}`;
    if (name.startsWith("WEB")) environment.AWS_ROLE_ARN = "arn:aws:iam::123456789012:role/r";
    if (/CON/.test(name)) environment.AWS_CONTAINER_CREDENTIALS_FULL_URI = AWS_ENDPOINT_URL;
    await t.step(`AWS_${name}=${value}: ${who}`, async () => {
      using _environment = replaceEnvironment({ ...environment, ...more });
      const told = await checkCredentials()
        .then(() => clientsOf("eu-central-1").s3.config.credentials())
        .then(({ accessKeyId }) => accessKeyId, ({ message }) => message);
      assert.match(told, who);
    });
  }
});

/** Makes profiles, what `aws sso login` left of their sessions, and tokens, all of these names. */
async function furnish(home: string, names: string[]): Promise<void> {
  const portal = "sso_start_url = https://x.awsapps.com/start\nsso_region = eu-central-1\n";
  const role = "sso_account_id = 123456789012\nsso_role_name = r\n";
  await Deno.mkdir(`${home}/.aws/sso/cache`, { recursive: true });
  for (const name of names) {
    const session = `sso_session = ${name}\n${role}[sso-session ${name}]\n${portal}`;
    const config = `[profile ${name}]\n${session}`;
    await Deno.writeTextFile(`${home}/.aws/config`, config, { append: true });
    const expiresAt = ["renewable", "expired"].includes(name) ? PAST : FUTURE;
    const texts = ["accessToken", "refreshToken", "clientId", "clientSecret"];
    const login = { expiresAt, ...Object.fromEntries(texts.map((text) => [text, name])) };
    const file = `${home}/.aws/sso/cache/${createHash("sha1").update(name).digest("hex")}.json`;
    await Deno.writeTextFile(file, JSON.stringify(login));
    await Deno.writeTextFile(`${home}/${name}`, name);
  }
}

/** Plays a container's endpoint, SSO's token service and its portal, and STS. */
async function answer(request: Request): Promise<Response> {
  const given = [...request.headers.values(), await request.text()].join(" ");
  const status = /\b(current|renewable)\b/.test(given) ? 200 : 401;
  if (given.includes("WithWebIdentity")) {
    const keys = "<AccessKeyId>pipeline</AccessKeyId><SecretAccessKey>x</SecretAccessKey>";
    const [action, isLate] = ["AssumeRoleWithWebIdentity", given.includes("expired")];
    const why = isLate ? "Token expired: current date" : `Not authorized to perform sts:${action}`;
    const xml = `<${action}Result><Credentials>${keys}</Credentials></${action}Result>` +
      `<Error><Code>AccessDenied</Code><Message>${why}</Message></Error>`;
    return new Response(`<x>${xml}</x>`, { status });
  }
  const others = { secretAccessKey: "x", sessionToken: "x", expiration: Date.parse(FUTURE) };
  const roleCredentials = { accessKeyId: "sso", ...others };
  const container = {
    AccessKeyId: "container",
    SecretAccessKey: "x",
    Token: "x",
    Expiration: FUTURE,
  };
  const message = "Session token not found or invalid";
  const token = { accessToken: "current", expiresIn: 900 };
  const headers = { "x-amzn-errortype": "UnauthorizedException" };
  return Response.json({ message, ...token, roleCredentials, ...container }, { status, headers });
}
