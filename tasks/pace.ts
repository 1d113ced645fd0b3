/** How much at once AWS takes: more and more until it throttles, then half. */

/** Calls of one service that may be on their way at the same time. */
export const MOST_CALLS = 100;

/** What runs at the same time in the beginning. */
const START = 8;

export interface Pace {
  /** How much may run at the same time now. */
  limit(): number;
  /** Some work has ended: when all that runs has, one more may. */
  ended(): void;
  /** A call was throttled that began at this time of {@link performance}: half may run. */
  throttled(beganMs: number): void;
}

/** A pace from 8 at the same time up to `most`. */
export function makePace(most: number, nowMs = () => performance.now()): Pace {
  let limit = Math.min(START, most);
  let halvedMs = -Infinity;
  return {
    limit: () => Math.floor(limit),
    ended: () => void (limit = Math.min(most, limit + 1 / limit)),
    throttled(beganMs) {
      if (beganMs <= halvedMs) return; // as more was running
      limit = Math.max(1, limit / 2);
      halvedMs = nowMs();
    },
  };
}
