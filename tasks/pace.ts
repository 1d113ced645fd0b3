/** How much at once AWS takes: more and more until it throttles, then half. */

import { pause } from "./signals.ts";
import type { Stack } from "./target.ts";
import { toDuration, UserError, visible } from "./terminal.ts";

/** What runs at the same time in the beginning. */
const START = 8;

/** How long a call that is throttled is tried again, beyond the SDK's own tries. */
const PATIENCE_MS = 120_000;

/** The first pause after a throttled call; each later one is twice as long, up to the longest. */
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 20_000;

/** How Lambda, DynamoDB and S3 say that they throttle. */
const THROTTLED = [
  "TooManyRequestsException",
  "ProvisionedThroughputExceededException",
  "RequestLimitExceeded",
  "ThrottlingException",
  "SlowDown",
];

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

interface Patience {
  patienceMs?: number;
  firstPauseMs?: number;
}

/**
 * A stack whose calls tell the pace that AWS throttles, and are tried again for two minutes.
 *
 * @throws {UserError} by its calls: AWS throttles longer than that
 */
export function paced(stack: Stack, pace: Pace, patience: Patience = {}): Stack {
  const { s3, dynamo, lambda } = stack;
  return {
    ...stack,
    s3: pacedClient(s3, pace, patience),
    dynamo: pacedClient(dynamo, pace, patience),
    lambda: pacedClient(lambda, pace, patience),
  };
}

function pacedClient<Client extends object>(
  client: Client,
  pace: Pace,
  { patienceMs = PATIENCE_MS, firstPauseMs = FIRST_PAUSE_MS }: Patience,
): Client {
  const { send } = client as { send(...args: unknown[]): Promise<Answer> };
  const sendPaced = async (...args: unknown[]) => {
    const endMs = performance.now() + patienceMs;
    for (let pauseMs = firstPauseMs;; pauseMs = Math.min(LONGEST_PAUSE_MS, 2 * pauseMs)) {
      const beganMs = performance.now();
      try {
        const answer = await send.apply(client, args);
        // The SDK was throttled, or had to try again for a reason that is no better.
        if ((answer.$metadata?.attempts ?? 1) > 1) pace.throttled(beganMs);
        return answer;
      } catch (error) {
        const { name, message } = error as Error;
        if (!THROTTLED.includes(name)) throw error;
        pace.throttled(beganMs);
        if (performance.now() + pauseMs > endMs) {
          throw new UserError(
            `AWS throttles for ${toDuration(patienceMs)} now (${name}: ${visible(message)}): ` +
              "run it again when less else is going on, or raise the limit that it names",
          );
        }
        await pause(pauseMs * (0.5 + Math.random() / 2)); // not all again at the same moment
      }
    }
  };
  // Its class stays: the SDK's paginators look at it.
  return Object.assign(Object.create(client), { send: sendPaced });
}

interface Answer {
  $metadata?: { attempts?: number };
}
