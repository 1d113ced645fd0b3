/** Where the state is kept, by the text of the configuration. */

import assert from "node:assert/strict";
import { permittedTest, read } from "./fixtures.ts";

permittedTest("hasBackend() finds a backend that keeps the state elsewhere", async () => {
  const { hasBackend } = await import("../tasks/backend.ts");
  const has = (text: string, name = "backend.tf") => hasBackend(new Map([[name, text]]));
  assert.equal(has('terraform {\n  backend "s3" {\n  }\n}\n'), true);
  assert.equal(has('terraform {\r\n\tbackend  "azurerm"{}\r\n}\r\n'), true);
  assert.equal(has("terraform {\n  cloud {\n  }\n}\n"), true);
  assert.equal(has('terraform {\n  backend "local" {\n  }\n}\n'), false);
  assert.equal(has('# backend "s3" {\n'), false);
  assert.equal(has('  backend "s3" {\n', "notes.tfvars"), false);
  assert.equal(has(await read("main.tf")), false);
});
