/** What changes a stack, or must not: deploys, edits, plans, permissions, and a destroy that is refused. */

import { endToEndTest } from "./pipeline.ts";
import { openDeployed } from "./pipeline_context.ts";
import { BUILT, DEPLOY, DEPLOY_TWICE, deployTwin, REFUSED } from "./pipeline_deploy.ts";
import { PROOF } from "./pipeline_destroy.ts";
import { DEV } from "./pipeline_dev.ts";
import { DRIFT, MENDED } from "./pipeline_drift.ts";
import { LOSSES } from "./pipeline_losses.ts";
import { FAIL } from "./pipeline_operate.ts";
import { PERMISSIONS } from "./pipeline_permissions.ts";
import { PLAN } from "./pipeline_plan.ts";

/** With `-local-deno-task-test-` 53 characters, the most that are allowed. */
const LONGEST_PROJECT = "file-metadata-with-longest-name";

const OPTIONS = { env: "deno-task-test", project: LONGEST_PROJECT };

endToEndTest("changes", OPTIONS, async ({ pipeline, enter, steps }) => {
  await steps(REFUSED, pipeline);
  const ca = await enter();
  await steps(BUILT, pipeline);
  await steps(DEPLOY, pipeline);
  const deployed = deployTwin(await openDeployed(pipeline, ca));
  await steps(DEV, deployed);
  await steps(PLAN, deployed);
  await steps(FAIL, deployed); // after dev, whose queue is empty
  await steps(DRIFT, deployed);
  await steps(DEPLOY_TWICE, deployed);
  await steps(MENDED, deployed);
  await steps(LOSSES, deployed);
  await steps(PERMISSIONS, deployed);
  await steps(PROOF, deployed);
});
