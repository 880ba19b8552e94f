/** What separates two sets of documents, and how a set is rebuilt from the history. */
import type { Resource } from "../config/resource.ts";
import { EXIT, Failure } from "../error.ts";
import { allResources, lastRevision, revisionsSince } from "../store/revisions.ts";
import type { Change, Origin } from "../store/rows.ts";
import type { Store } from "../store/store.ts";

export interface Held {
  readonly resource: Resource;
  readonly origin: Origin;
}

/** Documents by key. */
export type DocumentSet = ReadonlyMap<string, Held>;

export function currentSet(store: Store): Map<string, Held> {
  return new Map(
    allResources(store).map(({ key, resource, origin }) => [key, { resource, origin }]),
  );
}

/**
 * The documents as they were after revision `number`; 0 is the empty beginning.
 *
 * @throws Failure `unknown_revision` (404).
 */
export function setAt(store: Store, number: number): Map<string, Held> {
  requireRevision(store, number);
  const set = currentSet(store);
  for (const revision of revisionsSince(store, number).reverse()) {
    for (const change of revision.changes) {
      if (change.before === undefined) set.delete(change.key);
      else {
        const origin = change.originBefore ?? "document";
        set.set(change.key, { resource: change.before, origin });
      }
    }
  }
  return set;
}

export function requireRevision(store: Store, number: number): void {
  const last = lastRevision(store);
  if (Number.isSafeInteger(number) && number >= 0 && number <= last) return;
  throw new Failure(
    "unknown_revision",
    `there is no revision ${number}; the newest is ${last}`,
    "list them: weft history",
    { status: 404, exit: EXIT.refused },
  );
}

/** In order of key. */
export function changesBetween(before: DocumentSet, after: DocumentSet): Change[] {
  const keys = [...new Set([...before.keys(), ...after.keys()])].sort();
  return keys.flatMap((key) => changeOf(key, before.get(key), after.get(key)));
}

function changeOf(key: string, before: Held | undefined, after: Held | undefined): Change[] {
  if (before !== undefined && after !== undefined) {
    const same = before.origin === after.origin && sameDocument(before.resource, after.resource);
    if (same) return [];
  }
  const op = before === undefined ? "create" : after === undefined ? "delete" : "update";
  return [
    {
      key,
      op,
      ...(before === undefined ? {} : { before: before.resource, originBefore: before.origin }),
      ...(after === undefined ? {} : { after: after.resource, originAfter: after.origin }),
    },
  ];
}

/** Equal whatever the order in which fields were written. */
export function sameDocument(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Array.isArray(a) || Array.isArray(b)) {
    if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false;
    return a.every((item, index) => sameDocument(item, b[index]));
  }
  const [left, right] = [Object.entries(a), new Map(Object.entries(b))];
  return (
    left.length === right.size &&
    left.every(([key, value]) => right.has(key) && sameDocument(value, right.get(key)))
  );
}
