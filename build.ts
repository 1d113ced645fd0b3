/** The function's code as Lambda takes it: one bundled file in a zip, the same bytes everywhere. */

import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";
import { zipSync } from "fflate";

/** Where main.tf looks for the zip. */
export const ZIP_URL = new URL("build/lambda.zip", import.meta.url);

/** In Lambda the role's credentials are in the environment: every other source is dead weight. */
const environmentCredentials: esbuild.Plugin = {
  name: "environment-credentials",
  setup(build) {
    build.onResolve({ filter: /^@aws-sdk\/credential-provider-node$/ }, ({ resolveDir }) => ({
      path: "environment-credentials",
      namespace: "shim",
      pluginData: resolveDir,
    }));
    build.onLoad({ filter: /.*/, namespace: "shim" }, ({ pluginData: resolveDir }) => ({
      contents: `export { fromEnv as defaultProvider } from "@aws-sdk/credential-provider-env";`,
      resolveDir,
    }));
  },
};

/**
 * The S3 client's table of shapes spells its literals' keys as `[_K]`, which esbuild takes for code
 * with effects and keeps, for all of S3's operations. Written as plain keys, the unused ones go.
 */
const plainSchemaKeys: esbuild.Plugin = {
  name: "plain-schema-keys",
  setup(build) {
    const filter = /[\\/]@aws-sdk[\\/]client-s3[\\/].*[\\/]schemas_0\.js$/;
    build.onLoad({ filter }, async ({ path }) => {
      const source = await Deno.readTextFile(path);
      const names = new Map(
        [...source.matchAll(/^const (_\w+) = ("[^"\\]*");$/gm)].map((
          [, name, text],
        ) => [name, text]),
      );
      let replaced = 0;
      const contents = source.replace(/\[(_\w+)\]:/g, (key, name) => {
        if (!names.has(name)) return key;
        replaced++;
        return `${names.get(name)}:`;
      });
      if (replaced > 0) return { contents };
      return {
        errors: [{ text: `No computed key in ${path}: does the S3 client still have a table?` }],
      };
    });
  },
};

/** Of its own package.json a client uses the version alone. */
const versionOnly: esbuild.Plugin = {
  name: "version-only",
  setup(build) {
    const filter = /[\\/]@aws-sdk[\\/]client-[^\\/]+[\\/]package\.json$/;
    build.onLoad({ filter }, async ({ path }) => {
      const { version } = JSON.parse(await Deno.readTextFile(path));
      return { contents: JSON.stringify({ version }), loader: "json" };
    });
  },
};

/** The bundle of lambda.ts; CJS, because an ESM one costs 25 ms more at a cold start. */
export const BUNDLE_OPTIONS = {
  absWorkingDir: fileURLToPath(new URL(".", import.meta.url)),
  entryPoints: ["lambda.ts"],
  bundle: true,
  platform: "node",
  target: "node22",
  format: "cjs",
  mainFields: ["module", "main"], // by default the packages' CJS, which can't be tree-shaken
  minify: true,
  legalComments: "none",
  charset: "utf8",
  plugins: [environmentCredentials, plainSchemaKeys, versionOnly],
  outfile: "build/lambda.js",
  metafile: true,
  write: false,
  logLevel: "silent", // failures are thrown, with all their messages
} satisfies esbuild.BuildOptions;

export interface Built {
  /** The bundle's JavaScript. */
  code: Uint8Array;
  zip: Uint8Array;
  /** SHA-256 of the zip, as Lambda spells it (base64). */
  sha256: string;
  metafile: esbuild.Metafile;
}

/** Bundles and zips in memory. @throws {Error} esbuild's messages, where the code does not build */
export async function build(): Promise<Built> {
  try {
    const { outputFiles: [{ contents: code }], metafile } = await esbuild.build(BUNDLE_OPTIONS);
    const zip = zipSync({
      "lambda.js": [code, {
        level: 9,
        // fflate writes local time: a local date has the same bytes in every time zone.
        mtime: new Date(1980, 0, 2, 12),
        os: 3, // unix, for the mode:
        attrs: 0o644 << 16, // readable by the user that Lambda runs as
      }],
    });
    return { code, zip, sha256: createHash("sha256").update(zip).digest("base64"), metafile };
  } finally {
    await esbuild.stop();
  }
}
