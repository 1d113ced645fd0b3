/** Deploys, records objects of every kind and in any order, operates on what failed, and destroys. */

import { endToEndTest } from "./pipeline.ts";
import { invokeLater, openDeployed, poison, recordCalls } from "./pipeline_context.ts";
import { DEPLOY, SHELL, VERIFY } from "./pipeline_deploy.ts";
import { DESTROY } from "./pipeline_destroy.ts";
import { ONE_ROW } from "./pipeline_one_row.ts";
import { OPERATE } from "./pipeline_operate.ts";
import { CALLS } from "./pipeline_permissions.ts";
import { MANY_ROWS, ROWS } from "./pipeline_rows.ts";

endToEndTest("rows", { env: "deno-task-test-rows" }, async ({ pipeline, enter, steps }) => {
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
