/** In a clone of its own: tools half made and killed, interrupted deploys, and a backend of the user's own. */

import { stopStandIn } from "../tasks/stand_in.ts";
import { endToEndTest } from "./pipeline.ts";
import { rootClients } from "./pipeline_context.ts";
import { INTERRUPTED, lateProxy } from "./pipeline_interrupted.ts";
import { endKilled, TOOLS } from "./pipeline_tools.ts";

endToEndTest("clone", { env: "deno-task-test-clone" }, async ({ pipeline, enter, steps }) => {
  await using held = new AsyncDisposableStack();
  held.defer(() => endKilled(pipeline));
  await steps(TOOLS, pipeline);
  const ca = await enter();
  const late = held.use(lateProxy(Number(new URL(Deno.env.get("AWS_ENDPOINT_URL")!).port)));
  await steps(INTERRUPTED, { ...pipeline, root: rootClients(ca), late, left: [] });
  await stopStandIn(pipeline.target.workspace); // no task of the clone's knows it
});
