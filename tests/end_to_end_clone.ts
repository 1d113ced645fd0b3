/** In a clone of its own: tools half made and killed, interrupted deploys, and a backend of the user's own. */

import { endToEndTest } from "./pipeline.ts";

endToEndTest("clone", { env: "deno-task-test-clone" }, async ({ pipeline, enter, steps }) => {
  const { stopStandIn } = await import("../tasks/stand_in.ts");
  const { rootClients } = await import("./pipeline_context.ts");
  const { endKilled, TOOLS } = await import("./pipeline_tools.ts");
  const { INTERRUPTED, lateProxy } = await import("./pipeline_interrupted.ts");

  await using held = new AsyncDisposableStack();
  held.defer(() => endKilled(pipeline));
  await steps(TOOLS, pipeline);
  const ca = await enter();
  const late = held.use(lateProxy(Number(new URL(Deno.env.get("AWS_ENDPOINT_URL")!).port)));
  await steps(INTERRUPTED, { ...pipeline, root: rootClients(ca), late, left: [] });
  await stopStandIn(pipeline.target.workspace); // no task of the clone's knows it
});
