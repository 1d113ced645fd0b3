/** Bounded concurrency over a list or a stream. */

/**
 * Runs `work` for each item, at most `limit` at the same time. After a failure it starts no more
 * work, waits for what runs, and then throws the first failure.
 */
export async function forEachParallel<T>(
  items: Iterable<T> | AsyncIterable<T>,
  limit: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const running = new Set<Promise<void>>();
  const failures: unknown[] = [];
  try {
    for await (const item of items) {
      const run: Promise<void> = work(item)
        .catch((error) => void failures.push(error))
        .finally(() => running.delete(run));
      running.add(run);
      while (running.size >= limit) await Promise.race(running);
      if (failures.length > 0) break;
    }
  } finally {
    await Promise.all(running);
  }
  if (failures.length > 0) throw failures[0];
}
