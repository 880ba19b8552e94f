/**
 * A backup is one SQLite file: a consistent copy of the store, and on request the secret files
 * beside it in a table of their own. It is restored into a folder that has no store yet.
 */
import { Database } from "bun:sqlite";
import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { EXIT, Failure } from "../error.ts";
import { checkStructure } from "./integrity.ts";
import { lockFolder } from "./lock.ts";
import { putSetting } from "./settings.ts";
import { storeFailure } from "./sqlite-error.ts";
import { openStore, type Store } from "./store.ts";

/** The store's file inside a control plane's data folder. */
export const STORE_FILE = "weft.db";
/** What a backup with keys also carries, relative to the data folder. */
const SECRETS = ["keys", "ca", "admin.token"] as const;
/** What tells one mesh from another. */
const ROOT = "ca/root.pem";

/**
 * Writes a backup to `target`, which must not exist.
 *
 * @param secretsOf data folder whose keys go along: whoever has the file can then be the mesh.
 */
export function writeBackup(store: Store, target: string, secretsOf?: string): void {
  try {
    // Also claims the name: only what was made here may be removed below.
    writeFileSync(target, "", { mode: 0o600, flag: "wx" });
  } catch (error) {
    throw storeFailure(error, target);
  }
  try {
    store.copyTo(target);
    const copy = new Database(target, { strict: true });
    try {
      copy.run("PRAGMA journal_mode = DELETE");
      if (secretsOf !== undefined) putFiles(copy, secretsOf);
    } finally {
      copy.close(false);
    }
  } catch (error) {
    rmSync(target, { force: true });
    throw storeFailure(error, target);
  }
}

function putFiles(copy: Database, folder: string): void {
  copy.run(
    "CREATE TABLE files (path TEXT PRIMARY KEY NOT NULL, mode INTEGER NOT NULL, " +
      "body BLOB NOT NULL) STRICT",
  );
  const insert = copy.query("INSERT INTO files VALUES (?, ?, ?)");
  for (const path of SECRETS.flatMap((name) => filesAt(folder, name))) {
    const whole = join(folder, path);
    insert.run(path, statSync(whole).mode & 0o777, readFileSync(whole));
  }
}

/** Regular files under `path`, relative to `folder`. */
function filesAt(folder: string, path: string): string[] {
  const found = statSync(join(folder, path), { throwIfNoEntry: false });
  if (found === undefined) return [];
  if (found.isFile()) return [path];
  return readdirSync(join(folder, path)).flatMap((name) => filesAt(folder, join(path, name)));
}

interface StoredFile {
  readonly path: string;
  readonly mode: number;
  readonly body: Uint8Array;
}

export interface Restored {
  /** The newest revision is in the store; the keys may have to come from elsewhere. */
  readonly withKeys: boolean;
}

/**
 * Puts a backup into a data folder. The next start raises the epoch, so that proxies accept
 * documents that are older than those they have.
 *
 * @throws Failure `data_in_use` while a control plane runs there, `store_exists` when there is a
 *   store already, `backup_unreadable`, `backup_invalid`.
 */
export function restoreBackup(file: string, folder: string): Restored {
  const bytes = readBackup(file);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw storeFailure(error, join(folder, STORE_FILE));
  }
  const lock = lockFolder(folder);
  try {
    const target = join(folder, STORE_FILE);
    if (existsSync(target)) {
      throw new Failure(
        "store_exists",
        `${target} exists; a backup is not restored over it`,
        `move it away first: mv ${target} ${target}.old (with ${STORE_FILE}-wal, if there is one)`,
        { exit: EXIT.refused },
      );
    }
    // A log left by a deleted store would be replayed into the restored one.
    for (const suffix of ["-wal", "-shm"]) rmSync(target + suffix, { force: true });
    return place(file, bytes, folder, target);
  } finally {
    lock.release();
  }
}

function readBackup(file: string): Uint8Array {
  try {
    return readFileSync(file);
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "unreadable";
    throw new Failure("backup_unreadable", `cannot read ${file} (${code})`, "check the path", {
      cause,
    });
  }
}

function place(file: string, bytes: Uint8Array, folder: string, target: string): Restored {
  const fresh = `${target}.new`;
  // The log of a restore that was killed would be replayed into this copy.
  dropStore(fresh);
  try {
    writeFileSync(fresh, bytes, { mode: 0o600 });
    const files = takeFiles(fresh, file);
    refuseForeign(files, folder);
    const store = openStore(fresh);
    putSetting(store, "restored", 1);
    store.close();
    for (const suffix of ["-wal", "-shm"]) rmSync(fresh + suffix, { force: true });
    for (const { path, mode, body } of files) writePrivate(join(folder, path), mode, body);
    renameSync(fresh, target);
    syncFolder(folder);
    return { withKeys: files.length > 0 };
  } catch (error) {
    dropStore(fresh);
    if (error instanceof Failure && error.code === "store_corrupt") throw invalid(file, error);
    throw storeFailure(error, target);
  }
}

function dropStore(path: string): void {
  for (const suffix of ["", "-wal", "-shm", "-journal"]) rmSync(path + suffix, { force: true });
}

/**
 * Keys are never replaced by those of another mesh: nobody could give them back.
 *
 * @throws Failure `keys_exist`.
 */
function refuseForeign(files: readonly StoredFile[], folder: string): void {
  const path = join(folder, ROOT);
  const root = files.find((file) => file.path === ROOT);
  if (root === undefined || !existsSync(path)) return;
  if (readFileSync(path).equals(root.body)) return;
  throw new Failure(
    "keys_exist",
    `${folder} holds the keys of another mesh than the backup`,
    `restore into an empty folder, or move them away: mv ${folder}/keys ${folder}/ca elsewhere`,
    { exit: EXIT.refused },
  );
}

/**
 * Brings a folder back in order after whatever was killed there; call it under the lock.
 *
 * @throws Failure `restore_unfinished`.
 */
export function tidyFolder(folder: string): void {
  for (const name of readdirSync(folder)) {
    // A copy that was on its way to somebody, keys and all.
    if (/^backup-.*\.tmp$/.test(name)) rmSync(join(folder, name), { force: true });
  }
  const target = join(folder, STORE_FILE);
  if (existsSync(target) || !existsSync(`${target}.new`)) return;
  throw new Failure(
    "restore_unfinished",
    `a restore into ${folder} was not finished`,
    `run it again: weft restore BACKUP --data ${folder}; to start without: rm ${target}.new`,
  );
}

function invalid(file: string, cause: unknown): Failure {
  return new Failure("backup_invalid", `${file} is not an intact backup`, "use another backup", {
    exit: EXIT.refused,
    cause,
  });
}

/** Reads the carried files and removes them from the copy. */
function takeFiles(fresh: string, file: string): StoredFile[] {
  const copy = new Database(fresh, { strict: true });
  try {
    const has = copy.query("SELECT 1 FROM sqlite_schema WHERE name = 'settings'").get();
    if (has === null) throw invalid(file, undefined);
    // Before anything is rewritten: a page that is missing would no longer show.
    checkStructure(copy, fresh);
    if (lengthOf(copy) !== statSync(fresh).size) throw invalid(file, undefined);
    const carries = copy.query("SELECT 1 FROM sqlite_schema WHERE name = 'files'").get();
    if (carries === null) return [];
    const files = copy.query("SELECT path, mode, body FROM files").all() as StoredFile[];
    const safe = ({ path }: StoredFile) =>
      SECRETS.some((name) => path === name || path.startsWith(`${name}/`)) && !path.includes("..");
    if (!files.every(safe)) throw invalid(file, undefined);
    copy.run("DROP TABLE files");
    copy.run("VACUUM");
    return files;
  } catch (error) {
    throw error instanceof Failure ? error : invalid(file, error);
  } finally {
    copy.close(false);
  }
}

/** What the file says of its own length, in bytes. */
function lengthOf(copy: Database): number {
  const { size } = copy
    .query("SELECT page_count * page_size AS size FROM pragma_page_count, pragma_page_size")
    .get() as { size: number };
  return size;
}

function writePrivate(path: string, mode: number, body: Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  writeFileSync(path, body, { mode, flush: true });
  chmodSync(path, mode);
  syncFolder(dirname(path));
}

/** A name in a folder is on disk once the folder is. */
function syncFolder(folder: string): void {
  const fd = openSync(folder, "r");
  fsyncSync(fd);
  closeSync(fd);
}
