/** Who did what: append-only, each entry hashed over the one before. */
import { asc, desc, gt } from "drizzle-orm";
import { sha256 } from "./hash.ts";
import type { AuditEntry } from "./rows.ts";
import { audit } from "./schema.ts";
import type { Store } from "./store.ts";

export interface Deed {
  readonly t: number;
  readonly actor: string;
  readonly action: string;
  readonly subject: string;
  readonly detail?: object;
}

export function appendAudit(store: Store, deed: Deed): void {
  store.write(() => {
    const last = store.db.select().from(audit).orderBy(desc(audit.seq)).limit(1).get();
    const entry = {
      seq: (last?.seq ?? 0) + 1,
      t: deed.t,
      actor: deed.actor,
      action: deed.action,
      subject: deed.subject,
      detail: JSON.stringify(deed.detail ?? {}),
    };
    store.db
      .insert(audit)
      .values({ ...entry, hash: entryHash(last?.hash ?? "", entry) })
      .run();
  });
}

function entryHash(before: string, entry: Omit<AuditEntry, "hash">): string {
  const { seq, t, actor, action, subject, detail } = entry;
  return sha256([before, seq, t, actor, action, subject, detail].join("\n"));
}

/** A page in order, after `after`. */
export function listAudit(store: Store, after = 0, limit = -1): AuditEntry[] {
  return store.db
    .select()
    .from(audit)
    .where(gt(audit.seq, after))
    .orderBy(asc(audit.seq))
    .limit(limit)
    .all();
}

/** @returns the sequence number of the first entry whose hash is wrong; undefined when whole. */
export function brokenAudit(store: Store): number | undefined {
  let before = "";
  for (const entry of listAudit(store)) {
    if (entryHash(before, entry) !== entry.hash) return entry.seq;
    before = entry.hash;
  }
  return undefined;
}
