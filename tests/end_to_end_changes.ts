/** What changes a stack, or must not: edits, changes by hand, permissions, and a refused destroy. */

import { endToEndTest, openDeployed, shareProvider } from "./pipeline.ts";
import { BUILT, DEPLOY, TAGS } from "./pipeline_deploy.ts";
import { DESTROY, LEFT } from "./pipeline_destroy.ts";
import { DEV } from "./pipeline_dev.ts";
import { DRIFT } from "./pipeline_drift.ts";
import { PERMISSIONS } from "./pipeline_permissions.ts";

/** With `-local-deno-task-test-` 53 characters, the most that are allowed. */
const LONGEST_PROJECT = "file-metadata-with-longest-name";

const OPTIONS = { env: "deno-task-test", project: LONGEST_PROJECT };

endToEndTest("changes", OPTIONS, async ({ pipeline, enter, steps }) => {
  await steps(BUILT, pipeline);
  await enter();
  await steps(DEPLOY, pipeline);
  await using _ = await shareProvider(pipeline, Deno.env.toObject());
  const deployed = await openDeployed(pipeline);
  await steps(TAGS, deployed);
  await steps(DEV, deployed);
  await steps(DRIFT, deployed);
  await steps(PERMISSIONS, deployed);
  await steps(DESTROY, deployed);
  await steps(LEFT, pipeline);
});
