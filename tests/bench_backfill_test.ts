/** The task backfill in a process of its own, against services behind TLS: what it calls. */

import assert from "node:assert/strict";
import { permittedTest } from "./fixtures.ts";

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
  const { counts } = await measure({ objects: 5000, recorded: false, takes: 9, eventMs: 100 });
  const { events, mostEvents, throttled, statements } = counts;
  assert.equal(mostEvents, 9); // it begins with 8
  assert.ok(throttled > 0 && throttled < events / 2, `${throttled} of ${events} throttled`);
  assert.ok(events <= 5000 / 32 + 5, `${events} events`);
  assert.ok(statements <= 2 * (5000 / 8 + 5), `${statements} statements`);
});
