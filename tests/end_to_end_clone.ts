/** In a clone of its own: deploys killed and interrupted, and the state in a backend of the user's own. */

import { endToEndTest, rootClients } from "./pipeline.ts";
import { EXISTING } from "./pipeline_existing.ts";
import { INTERRUPTED, lateProxy } from "./pipeline_interrupted.ts";
import { serveMetadata } from "./tls.ts";

endToEndTest("clone", { env: "deno-task-test-clone" }, async ({ pipeline, enter, steps }) => {
  const root = rootClients(await enter());
  using late = await lateProxy(Number(new URL(Deno.env.get("AWS_ENDPOINT_URL")!).port));
  const names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
  await using metadata = serveMetadata(names.map((name) => Deno.env.get(name)!));
  const remote = { ...pipeline, root, late, metadata, left: [] };
  await steps(INTERRUPTED, remote);
  await steps(EXISTING, remote);
});
