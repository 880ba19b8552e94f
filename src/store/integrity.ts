/**
 * The check at start. SQLite finds damage to its own structure; damage inside a text it cannot
 * see, so every document and every revision carries a hash that is recomputed here.
 */
import type { Database } from "bun:sqlite";
import { sql } from "drizzle-orm";
import type { BunSQLiteDatabase } from "drizzle-orm/bun-sqlite";
import { sha256 } from "./hash.ts";
import { corrupted } from "./sqlite-error.ts";

export function checkStructure(client: Database, path: string): void {
  const found = client.query("PRAGMA integrity_check(1)").get() as { integrity_check: string };
  if (found.integrity_check !== "ok") throw corrupted(path, new Error(found.integrity_check));
}

/** Hash of a revision: chained, so that none can be changed or taken out. */
export function revisionHash(
  before: string,
  row: {
    readonly number: number;
    readonly author: string;
    readonly message: string;
    readonly t: number;
  },
  changes: string,
): string {
  return sha256([before, row.number, row.author, row.message, row.t, changes].join("\n"));
}

interface RevisionText {
  readonly number: number;
  readonly hash: string;
  readonly author: string;
  readonly message: string;
  readonly t: number;
  readonly changes: string;
}

export function checkContent(db: BunSQLiteDatabase, path: string): void {
  for (const table of ["resources", "documents"]) {
    const rows = db.all<{ key: string; body: string; sha256: string }>(
      sql`SELECT key, body, sha256 FROM ${sql.raw(table)}`,
    );
    for (const row of rows) {
      if (sha256(row.body) !== row.sha256) {
        throw corrupted(path, new Error(`${table}: ${row.key} does not match its hash`));
      }
    }
  }
  let before = "";
  const all = sql`SELECT number, hash, author, message, t, changes FROM revisions ORDER BY number`;
  for (const row of db.all<RevisionText>(all)) {
    if (revisionHash(before, row, row.changes) !== row.hash) {
      throw corrupted(path, new Error(`revision ${row.number} does not match its hash`));
    }
    before = row.hash;
  }
}
