/** What applying a plan would lose: the rows, objects and failed events of what it deletes. */

import { GetQueueAttributesCommand } from "@aws-sdk/client-sqs";
import { countVersions } from "./bucket.ts";
import { countRows } from "./table.ts";
import type { Clients } from "./target.ts";
import { plural } from "./terminal.ts";
import type { Plan } from "./terraform.ts";

/** Objects and rows are counted no further than this: enough to know what will be lost. */
export const COUNT_LIMIT = 10_000;

/** A resource that holds data, and what is in it. */
export interface Loss {
  address: string;
  name: string;
  /** For example `3 rows`. */
  contents: string;
}

/** The table, bucket and (unless it is empty) failure queue that a plan deletes or replaces. */
export async function lossesOf({ changes }: Plan, clients: Clients): Promise<Loss[]> {
  const losses: Loss[] = [];
  for (const { address, type, actions, before } of changes) {
    if (!actions.includes("delete")) continue;
    const { id, name } = before;
    if (type === "aws_dynamodb_table") {
      const rows = await count(countRows(clients, String(name), COUNT_LIMIT));
      losses.push({ address, name: String(name), contents: amount(rows, "row") });
    }
    if (type === "aws_s3_bucket") {
      const versions = await count(countVersions(clients.s3, String(id), COUNT_LIMIT));
      losses.push({ address, name: String(id), contents: amount(versions, "object version") });
    }
    if (type === "aws_sqs_queue") {
      const events = await count(countMessages(clients, String(id)));
      if (events === 0) continue;
      losses.push({ address, name: String(name), contents: amount(events, "failed event") });
    }
  }
  return losses;
}

/** A count for people: `1 row`, `2 rows`, `10000 or more rows`. */
export function amount(count: number | undefined, noun: string): string {
  if (count === undefined) return `an unknown number of ${noun}s`;
  return count >= COUNT_LIMIT ? `${COUNT_LIMIT} or more ${noun}s` : plural(count, noun);
}

/** A count that cannot be read is unknown: it hides no loss. */
function count(counting: Promise<number | undefined>): Promise<number | undefined> {
  return counting.catch(() => undefined);
}

/** Messages of a queue: visible, in flight, and delayed. */
async function countMessages({ sqs }: Clients, QueueUrl: string): Promise<number> {
  const { Attributes = {} } = await sqs.send(
    new GetQueueAttributesCommand({
      QueueUrl,
      AttributeNames: [
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesDelayed",
      ],
    }),
  );
  return Object.values(Attributes).reduce((sum, messages) => sum + Number(messages), 0);
}
