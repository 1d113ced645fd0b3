/** Programs that run side by side: what they print can be told apart. */

import assert from "node:assert/strict";
import { run } from "../tasks/shell.ts";
import { redirectProgress } from "../tasks/terminal.ts";

Deno.test("run() puts a label before each whole line, and into the failure", async () => {
  const program = `const write = (text) => Deno.stdout.writeSync(new TextEncoder().encode(text));
write("fir"); await new Promise((resolve) => setTimeout(resolve, 100)); write("st\\n\\nlast");
Deno.exit(3);`;
  const chunks: string[] = [];
  {
    using _progress = redirectProgress((bytes) => chunks.push(new TextDecoder().decode(bytes)));
    const running = run(Deno.execPath(), ["eval", program], { label: "rows" });
    await assert.rejects(running, {
      message: "deno eval of rows failed with exit code 3, see above",
    });
  }
  const [echo, ...shown] = chunks.join("").split(/(?<=\n)/);
  assert.match(echo, /^\$ deno eval /);
  assert.deepEqual(shown.slice(-3), ["rows: first\n", "rows: \n", "rows: last\n"]);
});
