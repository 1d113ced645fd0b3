/** What verify takes of the files and folders that it is given. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { temporaryFolder } from "../tasks/files.ts";
import { readSamples } from "../tasks/samples.ts";
import { run } from "../tasks/shell.ts";

Deno.test("readSamples() takes links to files, and names all that it leaves out", async () => {
  await using parent = await temporaryFolder();
  const folder = join(parent.path, "data");
  const [inner, denied] = [join(folder, "inner"), join(folder, "denied")];
  await Deno.mkdir(inner, { recursive: true });
  await Deno.writeTextFile(join(parent.path, "elsewhere"), "text");
  await Deno.writeTextFile(join(inner, "file.txt"), "inside");
  await Deno.symlink(join(parent.path, "elsewhere"), join(folder, "link.csv"));
  await Deno.symlink("..", join(inner, "up"));
  await Deno.symlink("nowhere", join(inner, "dangling"));
  await Deno.symlink("loop", join(inner, "loop"));
  await run("mkfifo", [join(inner, "pipe")]);
  await Deno.mkdir(denied, { mode: 0 });
  // APFS has no such names, and to root nothing is denied.
  const isOdd = Deno.build.os !== "darwin";
  const isRoot = Deno.uid() === 0;
  if (isOdd) await run("sh", ["-c", `: > "$0/$(printf 'caf\\351')"`, inner]);

  const { samples, leftOut } = await readSamples([folder]);

  assert.deepEqual(
    samples.map(({ file, size, type, preview }) => [file, size, type, preview]).sort(),
    [
      ["data/inner/file.txt", 6, "text/plain", "inside"],
      ["data/link.csv", 4, "text/csv", "text"],
    ],
  );
  assert.deepEqual(
    leftOut.sort(),
    [
      ...isRoot ? [] : [`"data/denied" was left out: it may not be read`],
      ...isOdd ? [`"data/inner/caf\ufffd" was left out: its name is not UTF-8`] : [],
      `"data/inner/dangling" was left out: it is gone, or a link to nothing`,
      `"data/inner/loop" was left out: it is gone, or a link to nothing`,
      `"data/inner/pipe" was left out: it is neither a file nor a folder`,
      `"data/inner/up" was left out: it is a link to a folder, and may lead back to where it is`,
    ],
  );
  await assert.rejects(
    readSamples([join(inner, "pipe")]),
    /There is no file in what you named\n"pipe" was left out: it is neither/,
  );
  await assert.rejects(readSamples([join(folder, "none")]), /there is no such file/);
});
