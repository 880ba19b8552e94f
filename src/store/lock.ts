/**
 * Keeps a second process off a data folder. The lock is one that the kernel drops with the
 * process, however it dies: an exclusive transaction on a file of its own.
 */
import { Database } from "bun:sqlite";
import { chmodSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../error.ts";
import { storeFailure } from "./sqlite-error.ts";

/** Keep it referenced: a collected lock is a released one. */
export interface FolderLock {
  release(): void;
}

/** @throws Failure `data_in_use`, or `store_unwritable`. */
export function lockFolder(folder: string): FolderLock {
  const path = join(folder, "lock.db");
  let client: Database | undefined;
  try {
    client = new Database(path, { create: true });
    client.run("PRAGMA busy_timeout = 0");
    // Nothing is ever written here, and a full disk must not keep the lock from being taken.
    client.run("PRAGMA journal_mode = MEMORY");
    client.run("BEGIN EXCLUSIVE");
    chmodSync(path, 0o600);
  } catch (error) {
    client?.close(false);
    const failure = storeFailure(error, path);
    if (failure instanceof Failure && failure.code === "store_corrupt") {
      const fix = `nothing is kept in it: rm ${path}`;
      throw new Failure("lock_damaged", `${path} is damaged`, fix, { cause: error });
    }
    if (!(failure instanceof Failure) || failure.code !== "store_busy") throw failure;
    throw new Failure(
      "data_in_use",
      `another process already uses the data folder ${folder}`,
      "stop that control plane, or choose another folder with --data DIR",
    );
  }
  const held = client;
  return { release: () => held.close(false) };
}
