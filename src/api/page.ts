/** Lists in pages: the cursor is the key of the last item, base64url. */
import type { Page } from "./answers.ts";
import { invalid } from "./query.ts";
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
  const limit = call.count("limit") ?? LIMIT;
  if (limit < 1 || limit > LIMIT_MAX) {
    throw invalid(`limit is ${limit}`, `give 1 to ${LIMIT_MAX}`);
  }
  const after = cursor === undefined ? "" : Buffer.from(cursor, "base64url").toString("utf8");
  if (cursor === undefined || cursorOf(after) === cursor) return { after, limit };
  throw notACursor();
}

/** Of a list whose keys are numbers; undefined on the first page. @throws Failure 400. */
export function numberedPage(call: Call): { readonly after?: number; readonly limit: number } {
  const { after, limit } = pageRequest(call);
  if (after === "") return { limit };
  if (/^\d{1,15}$/.test(after)) return { after: Number(after), limit };
  throw notACursor();
}

function cursorOf(key: string): string {
  return Buffer.from(key).toString("base64url");
}

function notACursor() {
  return invalid("the cursor is none of this list", "use next of the page before, unchanged");
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
  return { items: items.map(toItem), next: cursorOf(keyOf(last)) };
}
