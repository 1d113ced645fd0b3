/** The function's code as Lambda takes it: a bundle in a zip, the same bytes everywhere. */

import { createHash } from "node:crypto";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";
import { type ZipOptions, zipSync } from "fflate";
import { replaceFile } from "./files.ts";
import { UserError, visible } from "./terminal.ts";

/** Where main.tf looks for the zip. */
export const ZIP_URL = new URL("../build/lambda.zip", import.meta.url);

/**
 * The module that Lambda loads. It is an ES module, since only these can wait in init. It requires
 * the bundle, which is CommonJS: at a cold start an import of Node's modules costs 25 ms more than
 * their `require`, and an import of the bundle 20.
 * https://aws.amazon.com/blogs/compute/using-node-js-es-modules-and-top-level-await-in-aws-lambda/
 */
export const ENTRY = `import { createRequire } from "node:module";
const { handler, ready } = createRequire(import.meta.url)("./bundle.cjs");
await ready;
export { handler };
`;

/** Modules of the SDK, and their new source: the function needs less of them, or nothing. */
const TRIMS: [file: RegExp, write: (source: string) => string][] = [
  // In Lambda the role's credentials are in the environment: no other source is needed.
  [
    /credential-provider-node\/dist-es\/index\.js$/,
    () => `export { fromEnv as defaultProvider } from "@aws-sdk/credential-provider-env";`,
  ],
  // The settings and the region are there too: Lambda has no configuration file.
  [
    /shared-ini-file-loader\/loadSharedConfigFiles\.js$/,
    () => `
      export { CONFIG_PREFIX_SEPARATOR } from "./constants";
      export const loadSharedConfigFiles = async () => ({ configFile: {}, credentialsFile: {} });`,
  ],
  [
    /regionConfig\/getInstanceMetadataRegion\.js$/,
    () => `export const getInstanceMetadataRegion = async () => undefined;`,
  ],
  // The tables of all operations' shapes.
  [/client-(s3|dynamodb)\/dist-es\/schemas\/schemas_0\.js$/, usedShapesAlone],
  // A client uses only the version of its package.json.
  [
    /client-(s3|dynamodb)\/package\.json$/,
    (source) => JSON.stringify({ version: JSON.parse(source).version }),
  ],
  // Only SelectObjectContent answers with a stream of events.
  [
    /@smithy\/core\/dist-es\/submodules\/event-streams\/index\.js$/,
    () => `
      export class EventStreamSerde {}
      export const eventStreamSerdeProvider = () => undefined;
      export const resolveEventStreamSerdeConfig = (config) => config;`,
  ],
  // PutItem needs no endpoint discovery.
  [/@aws-sdk\/endpoint-cache\/dist-es\/index\.js$/, () => `export class EndpointCache {}`],
  // Only multi-region access points need signatures for many regions; uploads come by a bucket.
  [
    /signature-v4-multi-region\/dist-es\/SignatureV4MultiRegion\.js$/,
    () => `
      import { SignatureV4SignWithCredentials } from "./SignatureV4SignWithCredentials";
      export class SignatureV4MultiRegion extends SignatureV4SignWithCredentials {
        static sigv4aDependency() { return "none"; }
      }`,
  ],
  // Node has these hashes built in.
  [/\/(Sha256|Sha1|Md5)Js\.js$/, () => `export let Sha256Js, Sha1Js, Md5Js;`],
];

/**
 * The tables spell their literals' keys as `[_K]`, which esbuild takes for code with effects and
 * keeps, for all operations. Written as plain keys, the unused ones go. An error needs no class of
 * its own: without it, it still has its name, status and message.
 */
function usedShapesAlone(source: string): string {
  const names = new Map(
    source.matchAll(/^const (_\w+) = ("[^"\\]*");$/gm).map(([, name, text]) => [name, text]),
  );
  return source
    .replace(/^n0_registry\.registerError\(.*\);$/gm, "")
    .replace(/\[(_\w+)\]:/g, (key, name) => names.has(name) ? `${names.get(name)}:` : key);
}

const trimming: esbuild.Plugin = {
  name: "trimming",
  setup(build) {
    for (const [file, write] of TRIMS) {
      // On Windows paths have backslashes.
      const filter = new RegExp(file.source.replaceAll("\\/", "[\\\\/]"));
      build.onLoad({ filter }, async ({ path }) => ({
        contents: write(await Deno.readTextFile(path)),
        loader: path.endsWith(".json") ? "json" : "js",
        resolveDir: dirname(path),
      }));
    }
  },
};

/** The bundle of lambda.ts. */
export const BUNDLE_OPTIONS = {
  absWorkingDir: fileURLToPath(new URL("..", import.meta.url)),
  entryPoints: ["function/lambda.ts"],
  bundle: true,
  platform: "node",
  target: "node22",
  format: "cjs",
  mainFields: ["module", "main"], // by default the packages' CJS, which can't be tree-shaken
  minify: true,
  legalComments: "none",
  charset: "utf8",
  plugins: [trimming],
  outfile: "build/bundle.cjs",
  metafile: true,
  write: false,
  logLevel: "silent", // failures are thrown, with all their messages
} satisfies esbuild.BuildOptions;

const ZIP_OPTIONS: ZipOptions = {
  level: 9,
  // fflate writes local time: a local date has the same bytes in every time zone.
  mtime: new Date(1980, 0, 2, 12),
  os: 3, // unix, for the mode:
  attrs: 0o644 << 16, // readable by the user that Lambda runs as
};

interface Built {
  /** The bundle's JavaScript. */
  code: Uint8Array;
  zip: Uint8Array;
  sha256: string;
  metafile: esbuild.Metafile;
}

/** A zip's hash, as Lambda spells it (base64). */
export function sha256Of(zip: Uint8Array): string {
  return createHash("sha256").update(zip).digest("base64");
}

/** The zip of a bundle. */
export function zipOf(code: Uint8Array): Uint8Array<ArrayBuffer> {
  return zipSync({
    "lambda.mjs": [new TextEncoder().encode(ENTRY), ZIP_OPTIONS],
    "bundle.cjs": [code, ZIP_OPTIONS],
  });
}

/** Bundles and zips in memory. @throws {UserError} the code does not build, or esbuild does not run */
export async function build(): Promise<Built> {
  try {
    const { outputFiles: [{ contents: code }], metafile } = await esbuild.build(BUNDLE_OPTIONS);
    const zip = zipOf(code);
    return { code, zip, sha256: sha256Of(zip), metafile };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const sentence = "errors" in error ? error.message : visible(error.message) +
      "\nesbuild does not run here; remove node_modules, then run this again";
    throw new UserError(sentence, { cause: error });
  } finally {
    await esbuild.stop();
  }
}

/** Builds the zip where main.tf looks for it, whole or not at all, whoever reads it meanwhile. */
export async function writeZip(): Promise<Built> {
  const built = await build();
  await replaceFile(fileURLToPath(ZIP_URL), built.zip);
  return built;
}
