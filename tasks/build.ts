/** The function's code as Lambda takes it: a bundle in a zip, the same bytes everywhere. */

import { createHash } from "node:crypto";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";
import { type ZipOptions, zipSync } from "fflate";

/** Where main.tf looks for the zip. */
export const ZIP_URL = new URL("../build/lambda.zip", import.meta.url);

/**
 * What Lambda loads, of ES modules because these alone can wait in init. The bundle is CommonJS, as
 * `import` of Node's modules costs 25 ms at a cold start, and required, as importing it costs 20.
 * https://aws.amazon.com/blogs/compute/using-node-js-es-modules-and-top-level-await-in-aws-lambda/
 */
export const ENTRY = `import { createRequire } from "node:module";
const { handler, ready } = createRequire(import.meta.url)("./bundle.cjs");
await ready;
export { handler };
`;

/** What of the SDK the function has no use for: modules by the end of their path, written anew. */
export const TRIMS: Trim[] = [
  // In Lambda the role's credentials are in the environment: every other source is dead weight.
  {
    file: /credential-provider-node\/dist-es\/index\.js$/,
    write: () => `export { fromEnv as defaultProvider } from "@aws-sdk/credential-provider-env";`,
  },
  // So is every setting: there is no file of settings in Lambda to look for.
  {
    file: /shared-ini-file-loader\/loadSharedConfigFiles\.js$/,
    write: () => `
      export { CONFIG_PREFIX_SEPARATOR } from "./constants";
      export const loadSharedConfigFiles = async () => ({ configFile: {}, credentialsFile: {} });`,
  },
  // And the region: there is no instance's metadata service to ask.
  {
    file: /regionConfig\/getInstanceMetadataRegion\.js$/,
    write: () => `export const getInstanceMetadataRegion = async () => undefined;`,
  },
  // The clients' tables of shapes: see below.
  {
    file: /client-s3\/dist-es\/schemas\/schemas_0\.js$/,
    write: (source) => plainKeys(withoutErrorClasses(source)),
  },
  {
    file: /client-dynamodb\/dist-es\/schemas\/schemas_0\.js$/,
    write: (source) => plainKeys(withoutErrorClasses(source)),
  },
  // Of its own package.json a client uses the version alone.
  { file: /client-s3\/package\.json$/, write: versionAlone },
  { file: /client-dynamodb\/package\.json$/, write: versionAlone },
  // Streams of events are what SelectObjectContent answers with.
  {
    file: /@smithy\/core\/dist-es\/submodules\/event-streams\/index\.js$/,
    write: () => `
      export class EventStreamSerde {}
      export const eventStreamSerdeProvider = () => undefined;
      export const resolveEventStreamSerdeConfig = (config) => config;`,
  },
  // No operation of DynamoDB's used here has its endpoint discovered.
  {
    file: /@aws-sdk\/endpoint-cache\/dist-es\/index\.js$/,
    write: () => `export class EndpointCache {}`,
  },
  // Only a multi-region access point's name, which is no bucket's, is signed for many regions.
  {
    file: /signature-v4-multi-region\/dist-es\/SignatureV4MultiRegion\.js$/,
    write: () => `
      import { SignatureV4SignWithCredentials } from "./SignatureV4SignWithCredentials";
      export class SignatureV4MultiRegion extends SignatureV4SignWithCredentials {
        static sigv4aDependency() { return "none"; }
      }`,
  },
  // Node has these hashes built in.
  { file: /sha256\/Sha256Js\.js$/, write: () => `export const Sha256Js = undefined;` },
  { file: /sha1\/Sha1Js\.js$/, write: () => `export const Sha1Js = undefined;` },
  { file: /md5\/Md5Js\.js$/, write: () => `export const Md5Js = undefined;` },
];

export interface Trim {
  file: RegExp;
  /** The module's new source; undefined where what it should change is not in it. */
  write(source: string): string | undefined;
}

/**
 * The tables spell their literals' keys as `[_K]`, which esbuild takes for code with effects and
 * keeps, for all operations. Written as plain keys, the unused ones go.
 */
function plainKeys(source: string | undefined): string | undefined {
  const names = new Map(
    source?.matchAll(/^const (_\w+) = ("[^"\\]*");$/gm).map(([, name, text]) => [name, text]),
  );
  const written = source?.replace(
    /\[(_\w+)\]:/g,
    (key, name) => names.has(name) ? `${names.get(name)}:` : key,
  );
  return written === source ? undefined : written;
}

/** Without a class of its own an error has the same name, status and message, which is all we read. */
function withoutErrorClasses(source: string): string | undefined {
  const written = source.replace(/^n0_registry\.registerError\(.*\);$/gm, "");
  return written === source ? undefined : written;
}

function versionAlone(source: string): string | undefined {
  const { version, ...rest } = JSON.parse(source);
  return version && Object.keys(rest).length > 0 ? JSON.stringify({ version }) : undefined;
}

/** Fails the build where a trim finds nothing to do: the SDK has changed, and so must the list. */
export function trimming(trims: Trim[]): esbuild.Plugin {
  return {
    name: "trimming",
    setup(build) {
      const idle = new Set(trims);
      for (const trim of trims) {
        // On Windows paths have backslashes.
        const filter = new RegExp(trim.file.source.replaceAll("\\/", "[\\\\/]"));
        build.onLoad({ filter }, async ({ path }) => {
          const contents = trim.write(await Deno.readTextFile(path));
          if (contents !== undefined) idle.delete(trim);
          const loader = path.endsWith(".json") ? "json" : "js";
          return { contents, loader, resolveDir: dirname(path) };
        });
      }
      build.onEnd(() => ({
        errors: [...idle].map(({ file }) => ({ text: `Nothing to trim in ${file}` })),
      }));
    },
  };
}

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
  plugins: [trimming(TRIMS)],
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

export interface Built {
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

/** Bundles and zips in memory. @throws {Error} esbuild's messages, where the code does not build */
export async function build(): Promise<Built> {
  try {
    const { outputFiles: [{ contents: code }], metafile } = await esbuild.build(BUNDLE_OPTIONS);
    const zip = zipSync({
      "lambda.mjs": [new TextEncoder().encode(ENTRY), ZIP_OPTIONS],
      "bundle.cjs": [code, ZIP_OPTIONS],
    });
    return { code, zip, sha256: sha256Of(zip), metafile };
  } finally {
    await esbuild.stop();
  }
}
