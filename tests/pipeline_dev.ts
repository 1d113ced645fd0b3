/**
 * Steps of the end-to-end tests: dev's page in a real browser, and what only a browser or a
 * deployed function can show of it. A screenshot as README shows it is taken.
 */

import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { makeBuilder } from "../dev/code.ts";
import { startDev } from "../dev/dev.ts";
import { temporaryFolder } from "../tasks/files.ts";
import { updateCode } from "../tasks/invoke.ts";
import { queryRows } from "../tasks/table.ts";
import type { Stack } from "../tasks/target.ts";
import { launchBrowser, type Page } from "./browser.ts";
import { copyOfCode, pause, progressOf } from "./fixtures.ts";
import { type Deployed, type Steps, upload } from "./pipeline.ts";

/** In a variable, so that only this test fetches it. */
const AXE = "npm:axe-core@4.14.1";

const DEADLINE_MS = 30_000;

/** Two tries wait 2 and 4 s, then the event is in the failure queue. */
const QUEUE_DEADLINE_MS = 60_000;

/** Made-up files, as README shows them. */
const FILES = {
  "orders-2026-11.csv":
    "order,customer,total\n20417,Harbour Books,88.50\n20418,Lund & Sons,1204.00\n",
  "Übersicht März.md": "# Übersicht\n\nFür Åse und Zoë\n",
  "invoice-20417.xml":
    '<?xml version="1.0"?>\n<invoice number="20417"><total>88.50</total></invoice>\n',
  "sensors.json": '{ "station": "pier 4", "celsius": [11.2, 11.4, 11.9] }\n',
};

export const DEV: Steps<Deployed> = {
  "dev in a real browser": async (deployed, t) => {
    const browser = await launchBrowser();
    if (browser === undefined) {
      const name = "no Chrome was found: install one, or name it in CHROME_PATH";
      return void await t.step({ name, ignore: true, fn: () => {} });
    }
    await using held = new AsyncDisposableStack();
    held.defer(() => browser.close());
    const { page, problems } = await openPage(browser);
    const code = held.use(await copyOfCode()).path;
    const files = held.use(await temporaryFolder()).path;
    const { deployer, target } = deployed;
    const sha256 = await codeOf(deployed);
    await t.step("what a killed dev left is named, and the deployed code put back", async () => {
      await putsBack(deployed, code);
      assert.equal(await codeOf(deployed), sha256);
    });
    await t.step("without --code it says how to, and only watches", async () => {
      await onlyWatches(await browser.newPage(), deployed, code);
      assert.equal(await codeOf(deployed), sha256);
    });
    const dev = held.use(await startDev(deployer, target, code, { code: true, port: 0 }));
    await page.setViewport({ width: 1120, height: 820 });
    await page.goto(dev.url);
    await shows(page, "#connection", /^Connected$/);
    await shows(page, "#code", /^this folder's code runs$|^new code runs, \d+\.\d s$/);

    const steps: Record<string, () => void | Promise<void>> = {
      "files are dropped, and their rows are shown": () => drops(page, deployer, files),
      "a folder is uploaded but for what can't be read": () => dropsFolder(page, files),
      "a row of another's upload is shown": async () => {
        await upload(deployed, "others.txt", "by another program");
        await shows(page, "#rows tbody tr:first-child", /^others\.txt/);
      },
      "the whole row opens by the keyboard, and closes": () => opensRow(page),
      "the filter hides what does not match": () => filters(page),
      "a failure is shown and replayed, and axe-core finds no violation": () =>
        replays(page, deployed, files),
      "an edit runs, the next file shows it, and a broken one is told": () =>
        edits(page, deployer, code, files),
      "nothing was refused, thrown or fetched from elsewhere": () => {
        assert.deepEqual(problems, []);
      },
      "without the token it says so": async () => {
        await page.goto(new URL(dev.url).origin);
        await shows(page, "#connection", /^This address has no valid token/);
      },
      "the end of dev is shown, however far down the page is": async () => {
        await page.goto(dev.url);
        await shows(page, "#connection", /^Connected$/);
        await page.evaluate("scrollTo(0, document.body.scrollHeight)");
        await dev[Symbol.asyncDispose]();
        await shows(page, "#connection", /^Disconnected: start dev again/);
        const top = "document.querySelector('#connection').getBoundingClientRect().top";
        assert.ok(await page.evaluate("scrollY") as number > 100);
        assert.ok(await page.evaluate(top) as number >= 0);
        assert.equal(await codeOf(deployed), sha256, "the deployed code does not run again");
      },
    };
    for (const [name, step] of Object.entries(steps)) await t.step(name, step);
  },
};

async function codeOf({ root: { lambda, outputs } }: Deployed): Promise<string | undefined> {
  const FunctionName = outputs.lambda_function_name;
  return (await lambda.getFunctionConfiguration({ FunctionName })).CodeSha256;
}

/** Begins where the function runs this folder's code already, so that the loop changes nothing. */
async function putsBack({ deployer, target }: Deployed, folder: string) {
  await Deno.writeTextFile(join(folder, "handler.ts"), "console.log(1);\n", { append: true });
  const builder = await makeBuilder(folder);
  await updateCode(deployer, (await builder.build()).zip);
  await builder.dispose();
  const said = await progressOf(async () => {
    await using _dev = await startDev(deployer, target, folder, { code: true, port: 0 });
  });
  assert.match(said, /^Note: since .* was not deployed, .*; deno task deploy --local --env /);
  assert.match(said, /^The function runs the deployed code again; deno task deploy --local/m);
}

async function onlyWatches(tab: Page, { deployer, target }: Deployed, folder: string) {
  await using dev = await startDev(deployer, target, folder, { code: false, port: 0 });
  await tab.goto(dev.url);
  await shows(tab, "#code", /^deno task dev --code --local .* makes the function run what you/);
  await Deno.writeTextFile(join(folder, "handler.ts"), "console.log(2);\n", { append: true });
  await pause(1000);
  await tab.close();
}

/** A page, and what it says, throws, or fetches from elsewhere. */
async function openPage(browser: { newPage(): Promise<Page> }) {
  const page = await browser.newPage();
  const problems: string[] = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (line) => problems.push(`${line.type()}: ${line.text()}`));
  page.on("request", (request) => {
    if (!request.url().startsWith("http://127.0.0.1:")) problems.push(`asks ${request.url()}`);
  });
  return { page, problems };
}

async function drops(page: Page, stack: Stack, folder: string) {
  await drop(page, folder, FILES);
  for (const [name, text] of Object.entries(FILES)) {
    await shows(page, "#uploads", new RegExp(`${name}\\s*row after \\d+ ms`));
    const [{ file_size, content_type }] = await queryRows(stack, name);
    const lines = await page.$$eval(
      "#rows tbody tr",
      (lines) => lines.map((line) => [...line.children].map(({ textContent }) => textContent)),
    );
    const [, size, type, age, preview] = lines.find(([key]) => key === name)!;
    assert.match(age!, /^\d+ s$/);
    assert.deepEqual([size, type, preview], [`${file_size}`, content_type ?? "", text]);
  }
  await shows(page, "#latency figcaption", /^Upload to row: \d+ ms, longest \d+ ms$/);
  // Made anew each time; docs/page.png is a copy that somebody looked at.
  await page.evaluate("document.querySelector('#place').textContent = 'on the stand-in'");
  await page.screenshot({ path: join(import.meta.dirname!, "..", ".local", "page.png") });
}

async function dropsFolder(page: Page, folder: string) {
  // Permissions don't keep root from reading it.
  await page.evaluate(`{
    const { webkitGetAsEntry } = DataTransferItem.prototype;
    DataTransferItem.prototype.webkitGetAsEntry = function () {
      const entry = webkitGetAsEntry.call(this);
      const prototype = Object.getPrototypeOf(entry);
      const { createReader } = prototype;
      prototype.createReader = function () {
        if (this.name !== "locked") return createReader.call(this);
        return { readEntries: (_, fail) => fail(new DOMException("no permission")) };
      };
      return entry;
    };
  }`);
  await drop(page, folder, {
    "all/empty.txt": "",
    "all/inner/deep.txt": "deep",
    "all/locked/secret.txt": "secret",
  });
  await shows(page, "#uploads", /all\/locked\s*not uploaded: no permission/);
  await shows(page, "#uploads", /all\/inner\/deep\.txt\s*row after/);
  await shows(page, "#uploads", /all\/empty\.txt\s*row after/);
  const bars = await page.$$eval(
    "#uploads .done progress",
    (all) => all.map((bar) => (bar as unknown as { value: number }).value),
  );
  assert.deepEqual(new Set(bars), new Set([1]), "an upload is done, and its bar is not full");
}

async function opensRow(page: Page) {
  await page.focus("#rows tbody tr button");
  await page.keyboard.press("Enter");
  await shows(page, "#row[open] dl", /sequencer.*content_preview/s);
  await page.keyboard.press("Escape");
  await page.waitForSelector("#row:not([open])");
}

async function filters(page: Page) {
  await page.type("#filter", "HARBOUR");
  const shown = () => page.$$eval("#rows tbody tr:not([hidden])", (lines) => lines.length);
  assert.equal(await shown(), 1);
  await page.type("#filter", " no such");
  await shows(page, "#empty", /^None of the \d+ newest rows matches the filter\.$/);
  await page.click("#filter", { count: 3 });
  await page.keyboard.press("Backspace");
}

/** Takes the function's permission to write, drops a file, gives it back, and replays. */
async function replays(page: Page, { root: { iam, outputs } }: Deployed, folder: string) {
  const policy = { RoleName: outputs.lambda_function_name, PolicyName: "metadata" };
  const { PolicyDocument } = await iam.getRolePolicy(policy);
  const whole = decodeURIComponent(PolicyDocument!);
  const less = whole.replace('"dynamodb:PutItem"', '"dynamodb:DescribeTable"');
  assert.notEqual(less, whole);
  await iam.putRolePolicy({ ...policy, PolicyDocument: less });
  try {
    await drop(page, folder, { "denied.txt": "no permission, no row" });
    await shows(page, "#failures li", /^denied\.txt.*(AccessDenied|HTTP 403).*tries: \d/s);
    await shows(page, "#uploads", /denied\.txt\s*failed: see below/);
    await page.click("#failures li button");
    await shows(page, "#replay-note", /^Nothing to replay is in the failure queue yet/);
    await shows(page, "#cards", /Failure queue\s*1 event/, QUEUE_DEADLINE_MS);
    await isAccessible(page);
  } finally {
    await iam.putRolePolicy({ ...policy, PolicyDocument: whole });
  }
  await page.click("#failures li button");
  await shows(page, "#replay-note", /^1 event replayed, none failed; 0 left in the queue\.$/);
  await shows(page, "#rows tbody tr:first-child", /^denied\.txt/);
  await page.waitForSelector("#failures[hidden]");
}

async function edits(page: Page, stack: Stack, code: string, folder: string) {
  const handler = join(code, "handler.ts");
  const source = await Deno.readTextFile(handler);
  const edited = source.replace("...uploadToAttributes(upload),", '$& event_name: "Edited",');
  assert.notEqual(edited, source);
  await saves(page, handler, edited, /^new code runs, \d+\.\d s/);
  await drop(page, folder, { "edited.txt": "edited" });
  await shows(page, "#rows tbody tr:first-child", /^edited\.txt/);
  const [{ event_name }] = await queryRows(stack, "edited.txt");
  assert.equal(event_name, "Edited");
  const broken = source + '\nthrow new RangeError("at the start");\n';
  await saves(page, handler, broken, /^The new code fails as soon as it starts.*at the start$/s);
}

/** Saves a text, and waits for what the page says of it. */
async function saves(page: Page, file: string, text: string, expected: RegExp) {
  await page.$eval("#code", (element) => element.textContent = ""); // what it says next is new
  await Deno.writeTextFile(file, text);
  await shows(page, "#code", expected);
}

/** With rows, a failure and the dialog, in light and dark, wide and narrow. */
async function isAccessible(page: Page) {
  await import(AXE);
  await page.evaluate(await Deno.readTextFile(new URL(import.meta.resolve(AXE))));
  for (const [scheme, width] of [["light", 1120], ["dark", 360]] as const) {
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await page.setViewport({ width, height: 820 });
    const overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert.equal(await page.evaluate(overflow), 0, `${width} px: it scrolls sideways`);
    for (const isOpen of [false, true]) {
      if (isOpen) await page.click("#rows tbody tr button");
      const { violations } = await page.evaluate("axe.run()") as { violations: { id: string }[] };
      assert.deepEqual(violations.map(({ id }) => id), [], `${scheme}, ${width} px`);
    }
    await page.click("#close");
  }
}

/** Drops files onto the page, as a person does; those of a folder by dropping the folder. */
async function drop(page: Page, folder: string, texts: Record<string, string>) {
  for (const [name, text] of Object.entries(texts)) {
    await Deno.mkdir(dirname(join(folder, name)), { recursive: true });
    await Deno.writeTextFile(join(folder, name), text);
  }
  const tops = new Set(Object.keys(texts).map((name) => name.split("/")[0]));
  const files = [...tops].map((name) => join(folder, name));
  const session = await page.createCDPSession();
  const data = { items: [], files, dragOperationsMask: 1 };
  for (const type of ["dragEnter", "dragOver", "drop"] as const) {
    await session.send("Input.dispatchDragEvent", { type, x: 300, y: 300, data });
  }
  await session.detach();
}

/** Waits until an element's text is as expected; the error has the text that it has instead. */
async function shows(page: Page, selector: string, expected: RegExp, deadlineMs = DEADLINE_MS) {
  const endMs = performance.now() + deadlineMs;
  for (;;) {
    const text = await page.$eval(selector, ({ textContent }) => textContent.trim()).catch(String);
    if (expected.test(text)) return;
    assert.ok(performance.now() < endMs, `${selector} is not ${expected} but: ${text}`);
    await pause(20);
  }
}
