/** Lists in pages: the cursor is the key of the last item, base64url. */
import type { Page } from "./answers.ts";
import { refusal } from "./problem.ts";
import type { Call } from "./route.ts";

const LIMIT = 100;
const LIMIT_MAX = 1000;

export interface PageRequest {
  /** "" on the first page. */
  readonly after: string;
  readonly limit: number;
}

/** @throws Failure 400. */
export function pageRequest(call: Call): PageRequest {
  const cursor = call.query("cursor");
  const limit = wholeNumber(call, "limit") ?? LIMIT;
  if (limit < 1 || limit > LIMIT_MAX) {
    throw refusal(400, "invalid_query", `limit is ${limit}`, `give 1 to ${LIMIT_MAX}`);
  }
  const after = cursor === undefined ? "" : Buffer.from(cursor, "base64url").toString("utf8");
  return { after, limit };
}

/** @throws Failure 400. */
export function wholeNumber(call: Call, name: string): number | undefined {
  const text = call.query(name);
  if (text === undefined) return undefined;
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw refusal(400, "invalid_query", `${name}=${text} is not a number`, `give ${name} a number`);
}

/** `found` holds up to one item more than the page: whether there is a next one. */
export function pageOf<Row, Item>(
  found: readonly Row[],
  limit: number,
  keyOf: (row: Row) => string,
  toItem: (row: Row) => Item,
): Page<Item> {
  const items = found.slice(0, limit);
  const last = items.at(-1);
  if (found.length <= limit || last === undefined) return { items: items.map(toItem) };
  return { items: items.map(toItem), next: Buffer.from(keyOf(last)).toString("base64url") };
}
