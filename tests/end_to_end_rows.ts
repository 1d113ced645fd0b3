/** Deploys, records objects of every kind and in any order, operates on what failed, and destroys. */

import { endToEndTest } from "./pipeline.ts";

endToEndTest("rows", { env: "deno-task-test-rows" }, async ({ pipeline, enter, steps }) => {
  const { invokeLater, openDeployed, poison, recordCalls } = await import("./pipeline_context.ts");
  const { DEPLOY, SHELL, VERIFY } = await import("./pipeline_deploy.ts");
  const { ROWS, MANY_ROWS } = await import("./pipeline_rows.ts");
  const { CALLS } = await import("./pipeline_permissions.ts");
  const { ONE_ROW } = await import("./pipeline_one_row.ts");
  const { OPERATE } = await import("./pipeline_operate.ts");
  const { DESTROY } = await import("./pipeline_destroy.ts");

  const ca = await enter();
  await steps(DEPLOY, pipeline);
  await steps(VERIFY, pipeline);
  const deployed = await openDeployed(pipeline, ca);
  await steps(SHELL, deployed);
  await recordCalls(ca);
  await invokeLater(deployed, poison(deployed));
  await steps(ROWS, deployed);
  await steps(ONE_ROW, deployed);
  await steps(CALLS, deployed);
  const recorded = { ...deployed, loaded: [] };
  await steps(MANY_ROWS, recorded);
  await steps(OPERATE, recorded);
  await steps(DESTROY, recorded);
});
