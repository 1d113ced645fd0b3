/** What the trigger's filter means to a task: where to look, and how to say it. */

import type { JobArguments } from "../function/job.ts";
import type { Filter } from "../handler.ts";
import { UserError, visible } from "./terminal.ts";

/**
 * The prefixes of the keys that a filter lets through and that begin with `wanted`; none for all keys.
 *
 * @throws {UserError} there is no such key
 */
export function narrowest(wanted: string, prefixes: string[]): string[] {
  if (prefixes.length === 0) return wanted === "" ? [] : [wanted];
  if (prefixes.some((prefix) => wanted.startsWith(prefix))) return [wanted];
  const below = prefixes.filter((prefix) => prefix.startsWith(wanted));
  if (below.length > 0) return below;
  const recorded = describeKeys({ filter_prefixes: prefixes });
  throw new UserError(
    `No object below "${visible(wanted)}" is recorded: the stack records ${recorded}`,
  );
}

/** The arguments of a job for the keys that a filter lets through. */
export function toArguments({ filter_prefixes, filter_suffixes }: Filter) {
  return { filter: JSON.stringify({ filter_prefixes, filter_suffixes }) } satisfies JobArguments;
}

/** For example `keys that begin with "in/" or "new/" and end with ".csv"`. */
export function describeKeys({ filter_prefixes = [], filter_suffixes = [] }: Filter): string {
  const oneOf = (verb: string, texts: string[]) =>
    texts.length === 0 ? [] : [`${verb} with ${texts.map((text) => `"${text}"`).join(" or ")}`];
  const rules = [...oneOf("begin", filter_prefixes), ...oneOf("end", filter_suffixes)];
  return rules.length === 0 ? "all keys" : `keys that ${rules.join(" and ")}`;
}
