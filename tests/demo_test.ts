/** The demo's lines: few, narrow, and plain where there is no terminal. */

import assert from "node:assert/strict";
import { filesToText } from "../tasks/demo.ts";
import { temporaryFolder } from "../tasks/files.ts";
import { SAMPLES } from "../tasks/samples.ts";
import type { FileReport } from "../tasks/verify.ts";

Deno.test("the demo shows each file on a narrow line, and one row whole", () => {
  const files = SAMPLES.map((sample): FileReport => ({
    file: sample.file,
    key: sample.file,
    rowAfterMs: 12_345,
    row: {
      file_key: sample.file,
      file_size: sample.size,
      ...(sample.type && { content_type: sample.type }),
      ...(sample.preview && { content_preview: sample.preview }),
    },
    problems: [],
  }));
  const failureQueue = { before: 0, after: 0 };
  const report = { ok: true, bucket: "uploads", files, failureQueue, problems: [] };
  const lines = filesToText(report).split("\n");
  assert.deepEqual(lines.filter((line) => line.length > 80), []);
  assert.equal(lines.length, 1 + SAMPLES.length + 1 + 4);
  assert.match(lines[1], /^ {2}plain\.txt .* 22 .*text\/plain .*12345 ms .*A line\./);
  assert.match(lines[6], /^ {2}empty\.txt .* 0 .* -$/);
  assert.ok(
    lines.includes("  content_preview  A line.\\nAnother line.\\n"),
    lines.join("\n"),
  );
});

Deno.test("the demo has a line a step, and sends other output to its file", async () => {
  await using folder = await temporaryFolder();
  const script = `
    import { openScreen } from "${import.meta.resolve("../tasks/demo.ts")}";
    import { say } from "${import.meta.resolve("../tasks/terminal.ts")}";
    {
      using screen = openScreen("${folder.path}/log");
      await screen.step("First", async () => { say("unseen"); return 7; }, (n) => n + " things");
      await screen.step("Second", () => Promise.reject(new Error("x"))).catch(() => {});
    }
    say("seen");`;
  const args = ["eval", "--ext=ts", script];
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  const lines = new TextDecoder().decode(stdout).split("\n");
  assert.match(lines[0], /^✓ First: 7 things +0\.\d s$/);
  assert.match(lines[1], /^✗ Second +0\.\d s$/);
  assert.deepEqual(lines.slice(2), [""]);
  assert.ok(lines.every((line) => line.length <= 80));
  assert.equal(new TextDecoder().decode(stderr), "seen\n");
  assert.equal(await Deno.readTextFile(`${folder.path}/log`), "unseen\n");
});
