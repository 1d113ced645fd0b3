/** Deploys, records objects of every kind and in any order, and operates on what failed. */

import { endToEndTest, openDeployed, setEnvironment } from "./pipeline.ts";
import { DEPLOY, SHELL, VERIFY } from "./pipeline_deploy.ts";
import { ONE_ROW } from "./pipeline_one_row.ts";
import { FAIL, OPERATE, withFailure } from "./pipeline_operate.ts";
import { ROWS } from "./pipeline_rows.ts";

endToEndTest("rows", { env: "deno-task-test-rows" }, async ({ pipeline, enter, steps }) => {
  await enter();
  await steps(DEPLOY, pipeline);
  await steps(VERIFY, pipeline);
  const deployed = await openDeployed(pipeline);
  // In a stack that is not new an object which is not there is a fact.
  const STACK_CREATED = new Date(Date.now() - 20 * 60_000).toISOString();
  await setEnvironment(deployed, { STACK_CREATED });
  const failing = await withFailure(deployed); // its tries end while other steps run
  await steps(SHELL, deployed);
  await steps(ROWS, deployed);
  await steps(FAIL, failing);
  await steps(ONE_ROW, deployed);
  await steps(OPERATE, deployed);
});
