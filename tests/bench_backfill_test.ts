/** The task backfill in a process of its own, against services behind TLS: what it calls. */

import assert from "node:assert/strict";
import { permittedTest, read } from "./fixtures.ts";

permittedTest("a backfill lists a bucket once, and asks once for eight objects", async () => {
  const { measure } = await import("./bench_backfill.ts");
  const { taken, counts } = await measure({ objects: 2500, recorded: true });
  assert.equal(taken.objects, 2500);
  // Of the last page, and of each page's last event, less than eight are left.
  const { listings, statements, others, events } = counts;
  assert.deepEqual({ listings, others, events }, { listings: 3, others: 1, events: 0 }); // S3's time
  assert.ok(statements <= 2500 / 8 + 3, `${statements} statements`);
});

permittedTest("a backfill sends as much at once as Lambda takes, over TLS", async () => {
  const { measure } = await import("./bench_backfill.ts");
  const { counts } = await measure({ objects: 5000, recorded: false, takes: 9, eventMs: 400 });
  const { events, mostEvents, throttled, statements } = counts;
  assert.equal(mostEvents, 9); // it begins with 8
  assert.ok(throttled > 0 && throttled < events / 2, `${throttled} of ${events} throttled`);
  assert.ok(events <= 5000 / 32 + 5, `${events} events`);
  assert.ok(statements <= 2 * (5000 / 8 + 5), `${statements} statements`);
});

permittedTest("README's minutes for a million objects follow from its own figures", async () => {
  const { OPTIONS } = await import("../tasks/options.ts");
  const readme = (await read("README.md")).replace(/\s+/g, " ");
  const told = readme.match(
    /`backfill` ([\d.]+) ms of .* one that is sent ([\d.]+) ms: a million take a core (\d+) and (\d+) minutes, .* if Lambda takes (\d+) events at once\. Each takes about ([\d.]+) s at \d+ MB: with (\d+) at once, .* take (\d+) minutes\./,
  );
  const [recordedMs, sentMs, recorded, sent, most, eventSeconds, few, slowly] = told!.slice(1)
    .map(Number);
  assert.equal(recorded, Math.round(recordedMs * 1e6 / 60_000));
  assert.equal(sent, Math.round(sentMs * 1e6 / 60_000));
  assert.equal(most, OPTIONS.concurrency.read(undefined));
  assert.equal(slowly, Math.round(1e6 / 32 * eventSeconds / few / 60));
  // The core is the limit only if Lambda is faster.
  assert.ok(1e6 / 32 * eventSeconds / most / 60 <= sent);
});
