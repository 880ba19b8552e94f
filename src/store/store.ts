/**
 * The one SQLite file that is the truth of a control plane.
 *
 * Every acknowledged write is on disk (WAL, synchronous=FULL). Writes are synchronous functions
 * inside one transaction: an async callback would commit before its first await resumes.
 */
import { Database } from "bun:sqlite";
import { chmodSync, existsSync, statSync } from "node:fs";
import { type BunSQLiteDatabase, drizzle } from "drizzle-orm/bun-sqlite";
import { Failure } from "../error.ts";
import { checkContent, checkStructure } from "./integrity.ts";
import { migrate } from "./migrate.ts";
import { corrupted, storeFailure } from "./sqlite-error.ts";

export interface Store {
  readonly path: string;
  readonly db: BunSQLiteDatabase;
  /**
   * Runs `change` in one transaction; a nested call joins the outer one.
   *
   * @throws Failure `disk_full` (507), `store_unwritable`, `store_busy`, `store_corrupt`; whatever
   *   `change` throws. Nothing is written then.
   */
  write<T>(change: () => T): T;
  /** Whether the file is still the one that was opened: deleting it must not go unnoticed. */
  present(): boolean;
  /** Writes a consistent copy; the target must not exist. */
  copyTo(path: string): void;
  close(): void;
}

/** How long a statement waits for a lock that another process holds, in milliseconds. */
const BUSY_TIMEOUT_MS = 5000;

/**
 * Opens or creates the store, checks it, and brings its tables up to date.
 *
 * @throws Failure `store_corrupt` naming the way back, `store_unwritable`, `store_newer`.
 */
export function openStore(path: string): Store {
  const client = open(path);
  try {
    const fresh = client.query("PRAGMA schema_version").get() as { schema_version: number };
    if (fresh.schema_version > 0) checkStructure(client, path);
    migrate(client, path);
    const store = storeOver(client, path);
    checkContent(store.db, path);
    return store;
  } catch (error) {
    client.close(false);
    throw storeFailure(error, path);
  }
}

function open(path: string): Database {
  try {
    const existed = existsSync(path);
    if (existed && statSync(path).size === 0 && existsSync(`${path}-wal`)) throw corrupted(path);
    const client = new Database(path, { create: true, strict: true });
    if (!existed) chmodSync(path, 0o600);
    client.run(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
    client.run("PRAGMA journal_mode = WAL");
    client.run("PRAGMA synchronous = FULL");
    client.run("PRAGMA foreign_keys = ON");
    client.run("PRAGMA trusted_schema = OFF");
    return client;
  } catch (error) {
    throw storeFailure(error, path);
  }
}

function storeOver(client: Database, path: string): Store {
  const opened = statSync(path);
  let depth = 0;
  return {
    path,
    db: drizzle(client),
    write(change) {
      if (depth > 0) return change();
      depth += 1;
      try {
        return transact(client, change);
      } catch (error) {
        throw storeFailure(error, path);
      } finally {
        depth -= 1;
      }
    },
    present() {
      try {
        return statSync(path).ino === opened.ino;
      } catch {
        return false;
      }
    },
    copyTo(target) {
      try {
        client.query("VACUUM INTO ?").run(target);
      } catch (error) {
        throw storeFailure(error, target);
      }
    },
    close() {
      try {
        client.run("PRAGMA wal_checkpoint(TRUNCATE)");
      } catch {
        // A full disk or a deleted file: the log is replayed at the next start.
      }
      client.close(false);
    },
  };
}

function transact<T>(client: Database, change: () => T): T {
  client.run("BEGIN IMMEDIATE");
  try {
    const result = change();
    if (result instanceof Promise) throw new TypeError("a transaction must be synchronous");
    client.run("COMMIT");
    return result;
  } catch (error) {
    // SQLite has already rolled back after some errors, a full disk among them.
    if (client.inTransaction) client.run("ROLLBACK");
    throw error;
  }
}

/** @throws Failure `store_missing` when the file vanished under the running process. */
export function requirePresent(store: Store): void {
  if (store.present()) return;
  throw new Failure(
    "store_missing",
    `${store.path} was deleted or replaced while the control plane runs`,
    "stop the control plane and run: weft restore BACKUP",
    { status: 503 },
  );
}
