/** What the bus was last given under each key. Written before it is put there. */
import { asc } from "drizzle-orm";
import { sha256 } from "./hash.ts";
import type { PublishedDocument } from "./rows.ts";
import { documents } from "./schema.ts";
import type { Store } from "./store.ts";

export function publishedDocuments(store: Store): PublishedDocument[] {
  return store.db.select().from(documents).orderBy(asc(documents.key)).all();
}

/** Records documents; call it inside `store.write` together with the new `busRev`. */
export function putPublished(
  store: Store,
  rows: readonly Omit<PublishedDocument, "sha256">[],
): void {
  store.write(() => {
    for (const row of rows) {
      const values = { ...row, sha256: sha256(row.body) };
      store.db
        .insert(documents)
        .values(values)
        .onConflictDoUpdate({ target: documents.key, set: values })
        .run();
    }
  });
}
