/** What --env and --local mean. */

import assert from "node:assert/strict";
import { targetOf } from "../tasks/target.ts";

Deno.test("targetOf() refuses what cannot be an environment's name", () => {
  const refused = /^--env must be 1 to 32 lower-case letters, digits and inner hyphens, not "/;
  const cases: [env: string, local: boolean, sentence: RegExp][] = [
    ...["Prod", "a_b", "-a", "a-", "", "a".repeat(33), "a\u001b[31m", "../x"].map(
      (env): [string, boolean, RegExp] => [env, false, refused],
    ),
    ["a\u001b[31m", true, /not "a\\u\{1b\}\[31m"$/],
    ["default", false, /^'default' is already the default: leave --env out$/],
    ["local", false, /^--env local names a stand-in's environment: add --local,/],
    ["local-x", false, /^--env local-x names a stand-in's environment: add --local,/],
  ];
  for (const [env, local, message] of cases) {
    assert.throws(() => targetOf({ env, local }), { name: "UserError", message }, env);
  }
});

Deno.test("targetOf() names the workspace, the place and the flags", () => {
  const cases = [
    [{ local: false }, "default", "on AWS in the default workspace", ""],
    [{ local: true }, "local", "on the stand-in", " --local"],
    [{ env: "prod", local: false }, "prod", "on AWS in environment prod", " --env prod"],
    [
      { env: "a".repeat(32), local: true },
      `local-${"a".repeat(32)}`,
      `on the stand-in in environment ${"a".repeat(32)}`,
      ` --local --env ${"a".repeat(32)}`,
    ],
  ] as const;
  for (const [where, workspace, place, flags] of cases) {
    const target = targetOf(where);
    assert.deepEqual([target.workspace, target.place, target.flags], [workspace, place, flags]);
  }
});
