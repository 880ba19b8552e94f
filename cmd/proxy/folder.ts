/** The proxy's data folder: one process at a time, and a note of the ports it chose. */
import { accessSync, chmodSync, constants, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EXIT, Failure } from "../../src/error.ts";
import { type FolderLock, lockFolder } from "../../src/store/lock.ts";

/**
 * Creates the folder and takes it.
 *
 * @throws Failure when it cannot be written or another process has it.
 */
export function takeFolder(folder: string): FolderLock {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    chmodSync(folder, 0o700);
    accessSync(folder, constants.W_OK | constants.X_OK);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unknown";
    throw new Failure(
      "data_unwritable",
      `cannot write the data folder ${folder} (${code})`,
      "choose another with --data DIR, or give this user the right to write there",
      { exit: EXIT.failed },
    );
  }
  try {
    return lockFolder(folder);
  } catch (error) {
    if (!(error instanceof Failure) || error.code !== "data_in_use") throw error;
    throw new Failure(
      "data_in_use",
      `another proxy already uses the data folder ${folder}`,
      "stop it, or choose another folder with --data DIR",
    );
  }
}

/** Written beside and renamed, so that readers never see half of it. */
export function writeRunFile(folder: string, content: object): void {
  const path = join(folder, "run.json");
  writeFileSync(`${path}.new`, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}
