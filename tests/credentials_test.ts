import assert from "node:assert/strict";
import { checkCredentials } from "../tasks/credentials.ts";
import { replaceEnvironment } from "./fixtures.ts";

Deno.test("without credentials one sentence says what the metadata service did", async (t) => {
  // Imported here: the SDK reads the environment, which plain `deno test` may not.
  const refused = async (environment: Record<string, string>) => {
    using _environment = replaceEnvironment({ HOME: "/nowhere", ...environment });
    const startMs = performance.now();
    const { message } = await checkCredentials().then(() => assert.fail(), (error) => error);
    assert.ok(performance.now() - startMs < 10_000);
    return message;
  };

  await t.step("it takes the question and never answers: the hop limit", async () => {
    using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const url = `http://127.0.0.1:${silent.addr.port}`;
    assert.match(
      await refused({ AWS_EC2_METADATA_SERVICE_ENDPOINT: url }),
      /^No AWS credentials found: the metadata service http:\S+ takes the question and never .* aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2 --instance-id ID$/,
    );
  });
  await t.step("it has no role", async () => {
    const options = { hostname: "127.0.0.1", port: 0, onListen() {} };
    await using server = Deno.serve(options, () => new Response("no", { status: 404 }));
    const url = `http://127.0.0.1:${server.addr.port}`;
    assert.match(
      await refused({ AWS_EC2_METADATA_SERVICE_ENDPOINT: url }),
      /^No AWS credentials found: the metadata service .* has none: give this instance a role, /,
    );
  });
  await t.step(
    "it refuses, from the first question on or when it is asked for the role",
    async () => {
      for (const refused403 of ["PUT", "GET"]) {
        const options = { hostname: "127.0.0.1", port: 0, onListen() {} };
        await using server = Deno.serve(
          options,
          ({ method }) =>
            method === refused403 ? new Response("no", { status: 403 }) : new Response("token"),
        );
        const url = `http://127.0.0.1:${server.addr.port}`;
        assert.match(
          await refused({ AWS_EC2_METADATA_SERVICE_ENDPOINT: url }),
          /^No AWS credentials found: the metadata service \S+ refuses to answer \(HTTP 403\): .* aws ec2 modify-instance-metadata-options --http-endpoint enabled --instance-id ID$/,
        );
      }
    },
  );
  await t.step("it is not there", async () => {
    assert.match(
      await refused({ AWS_EC2_METADATA_SERVICE_ENDPOINT: "http://127.0.0.1:1" }),
      /^No AWS credentials found: run this on an EC2 instance with a role, or try it without AWS/,
    );
  });
  await t.step("it is switched off", async () => {
    assert.match(
      await refused({ AWS_EC2_METADATA_DISABLED: "true" }),
      /^No AWS credentials found: AWS_EC2_METADATA_DISABLED switches the .* off: unset it, /,
    );
  });
});
