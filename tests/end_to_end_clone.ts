/**
 * In clones of their own: deploys killed and interrupted, the state in a backend of the user's own, and a
 * bucket that exists.
 */

import { cloneAsOnWindows, endToEndTest, rootClients, shareProvider } from "./pipeline.ts";
import {
  asOnAws,
  attachExisting,
  EXISTING,
  GOES_ON,
  INTERRUPTED,
  lateProxy,
} from "./pipeline_interrupted.ts";
import { serveMetadata } from "./stub.ts";

endToEndTest("clone", { env: "deno-task-test-clone" }, async ({ pipeline, enter, steps }) => {
  await enter();
  const root = rootClients();
  using late = await lateProxy(Number(new URL(Deno.env.get("AWS_ENDPOINT_URL")!).port));
  const names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
  await using metadata = serveMetadata(names.map((name) => Deno.env.get(name)!));
  const remote = { ...pipeline, root, late, metadata, left: [] };
  await steps(INTERRUPTED, remote); // to which its provider belongs
  await using held = new AsyncDisposableStack();
  const another = { ...remote, shell: { ...pipeline.shell }, clone: await cloneAsOnWindows(held) };
  const attached = attachExisting(another); // which mostly waits, too
  attached.catch(() => {}); // its own step tells of it; here it would end the test
  held.use(await shareProvider(pipeline, asOnAws(remote)));
  await steps(GOES_ON, remote);
  await steps(EXISTING, { attached });
});
