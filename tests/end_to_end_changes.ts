/** What changes a stack, or must not: deploys, edits, plans, permissions, and a destroy that is refused. */

import { endToEndTest } from "./pipeline.ts";

/** With `-local-deno-task-test-` 53 characters, the most that are allowed. */
const LONGEST_PROJECT = "file-metadata-with-longest-name";

const OPTIONS = { env: "deno-task-test", project: LONGEST_PROJECT };

endToEndTest("changes", OPTIONS, async ({ pipeline, enter, steps }) => {
  const { openDeployed } = await import("./pipeline_context.ts");
  const { BUILT, DEPLOY, DEPLOY_TWICE, deployTwin, REFUSED } = await import("./pipeline_deploy.ts");
  const { DEV } = await import("./pipeline_dev.ts");
  const { DRIFT, MENDED } = await import("./pipeline_drift.ts");
  const { PLAN } = await import("./pipeline_plan.ts");
  const { FAIL } = await import("./pipeline_operate.ts");
  const { LOSSES } = await import("./pipeline_losses.ts");
  const { PERMISSIONS } = await import("./pipeline_permissions.ts");
  const { PROOF } = await import("./pipeline_destroy.ts");

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
