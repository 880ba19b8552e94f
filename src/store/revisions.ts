/** The current documents and the history that led to them. */
import { and, asc, desc, eq, gt, isNull, lt, lte, max } from "drizzle-orm";
import type { Resource } from "../config/resource.ts";
import { sha256 } from "./hash.ts";
import { revisionHash } from "./integrity.ts";
import type { Change, Revision, StoredResource } from "./rows.ts";
import { resources, revisions } from "./schema.ts";
import type { Store } from "./store.ts";

type ResourceRow = typeof resources.$inferSelect;

function stored(row: ResourceRow): StoredResource {
  const { key, origin, created, revision, t } = row;
  // Written by `putRevision` from a Resource, and proven by its hash at start.
  return { key, resource: JSON.parse(row.body) as Resource, origin, created, revision, t };
}

/**
 * Every document of a store after the revision with that hash: each join and each publication asks
 * for all. The hash stands for the whole history, so what a transaction wrote that was then undone
 * is not taken for what came after it.
 */
const held = new WeakMap<Store, { readonly hash: string; readonly all: StoredResource[] }>();

/** Current documents in order of key. */
export function allResources(store: Store): readonly StoredResource[] {
  const hash = lastHash(store);
  const found = held.get(store);
  if (found?.hash === hash) return found.all;
  const all = listResources(store, "", -1);
  held.set(store, { hash, all });
  return all;
}

/** A page of the current documents in order of key: those after `after`. */
export function listResources(store: Store, after: string, limit: number): StoredResource[] {
  return store.db
    .select()
    .from(resources)
    .where(gt(resources.key, after))
    .orderBy(asc(resources.key))
    .limit(limit)
    .all()
    .map(stored);
}

export function storedResource(store: Store, key: string): StoredResource | undefined {
  const row = store.db.select().from(resources).where(eq(resources.key, key)).get();
  return row === undefined ? undefined : stored(row);
}

export interface ResourceFilter {
  readonly kind: string;
  readonly namespace?: string;
  /** Key after which the page starts. */
  readonly after?: string;
  readonly limit?: number;
}

export function findResources(store: Store, filter: ResourceFilter): StoredResource[] {
  const { kind, namespace, after = "", limit = -1 } = filter;
  const place = namespace === undefined ? undefined : eq(resources.namespace, namespace);
  return store.db
    .select()
    .from(resources)
    .where(and(eq(resources.kind, kind), place, gt(resources.key, after)))
    .orderBy(asc(resources.key))
    .limit(limit)
    .all()
    .map(stored);
}

/** The number of the newest revision; 0 before the first. */
export function lastRevision(store: Store): number {
  const row = store.db
    .select({ number: revisions.number })
    .from(revisions)
    .orderBy(desc(revisions.number))
    .limit(1)
    .get();
  return row?.number ?? 0;
}

function lastHash(store: Store): string {
  const row = store.db
    .select({ hash: revisions.hash })
    .from(revisions)
    .orderBy(desc(revisions.number))
    .limit(1)
    .get();
  return row?.hash ?? "";
}

export function revision(store: Store, number: number): Revision | undefined {
  return store.db.select().from(revisions).where(eq(revisions.number, number)).get();
}

/** A page, the newest first, of revisions below `before`. */
export function listRevisions(
  store: Store,
  before = Number.MAX_SAFE_INTEGER,
  limit = -1,
): Revision[] {
  return store.db
    .select()
    .from(revisions)
    .where(lt(revisions.number, before))
    .orderBy(desc(revisions.number))
    .limit(limit)
    .all();
}

/** Revisions above `number`, the oldest first. */
export function revisionsSince(store: Store, number: number): Revision[] {
  return store.db
    .select()
    .from(revisions)
    .where(gt(revisions.number, number))
    .orderBy(asc(revisions.number))
    .all();
}

export interface NewRevision {
  readonly author: string;
  readonly message: string;
  readonly t: number;
  readonly changes: readonly Change[];
}

/** Commits changes to the documents as the next revision, all or nothing. */
export function putRevision(store: Store, entry: NewRevision): Revision {
  return store.write(() => {
    const last = lastRevision(store);
    const before = last === 0 ? "" : (revision(store, last)?.hash ?? "");
    const row = { number: last + 1, author: entry.author, message: entry.message, t: entry.t };
    const hash = revisionHash(before, row, JSON.stringify(entry.changes));
    const whole = { ...row, hash, changes: entry.changes, busRev: null };
    store.db.insert(revisions).values(whole).run();
    for (const change of entry.changes) writeChange(store, change, row.number, entry.t);
    return whole;
  });
}

function writeChange(store: Store, change: Change, number: number, t: number): void {
  const { key, after } = change;
  if (after === undefined) {
    store.db.delete(resources).where(eq(resources.key, key)).run();
    return;
  }
  const body = JSON.stringify(after);
  const row: ResourceRow = {
    key,
    kind: after.kind,
    namespace: after.metadata.namespace,
    name: after.metadata.name,
    body,
    sha256: sha256(body),
    origin: change.originAfter ?? "document",
    created: number,
    revision: number,
    t,
  };
  const { created: _, ...later } = row;
  store.db
    .insert(resources)
    .values(row)
    .onConflictDoUpdate({ target: resources.key, set: later })
    .run();
}

/** Notes that revision `busRev` of the bus carries every revision up to `number`. */
export function markPublished(store: Store, number: number, busRev: number): void {
  store.write(() =>
    store.db
      .update(revisions)
      .set({ busRev })
      .where(and(lte(revisions.number, number), isNull(revisions.busRev)))
      .run(),
  );
}

/** The newest revision that is carried by revision `busRev` of the bus; 0 for none. */
export function revisionCarriedBy(store: Store, busRev: number): number {
  const row = store.db
    .select({ number: max(revisions.number) })
    .from(revisions)
    .where(lte(revisions.busRev, busRev))
    .get();
  return row?.number ?? 0;
}
