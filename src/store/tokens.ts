/** Tokens: only the hash of a secret is stored. */
import { and, asc, eq, gt, isNull } from "drizzle-orm";
import type { TokenRow } from "./rows.ts";
import { tokens } from "./schema.ts";
import type { Store } from "./store.ts";

export function putToken(store: Store, row: TokenRow): void {
  store.write(() => store.db.insert(tokens).values(row).run());
}

export function token(store: Store, id: string): TokenRow | undefined {
  return store.db.select().from(tokens).where(eq(tokens.id, id)).get();
}

/** A page in order of id, after `after`. */
export function listTokens(store: Store, after = "", limit = -1): TokenRow[] {
  return store.db
    .select()
    .from(tokens)
    .where(gt(tokens.id, after))
    .orderBy(asc(tokens.id))
    .limit(limit)
    .all();
}

/**
 * Notes a use. For a one-time token only the first call succeeds, whoever else races.
 *
 * @returns whether the token may be used.
 */
export function useToken(store: Store, id: string, t: number): boolean {
  return store.write(() => {
    const row = token(store, id);
    if (row === undefined || row.revokedAt !== null) return false;
    if (row.once && row.usedAt !== null) return false;
    store.db.update(tokens).set({ usedAt: t }).where(eq(tokens.id, id)).run();
    return true;
  });
}

/** @returns false when there is no such token, or it was revoked before. */
export function revokeToken(store: Store, id: string, t: number): boolean {
  return store.write(
    () =>
      store.db
        .update(tokens)
        .set({ revokedAt: t })
        .where(and(eq(tokens.id, id), isNull(tokens.revokedAt)))
        .returning({ id: tokens.id })
        .all().length > 0,
  );
}
