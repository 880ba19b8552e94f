/** What SQLite's errors mean to an operator. */
import { dirname } from "node:path";
import { Failure } from "../error.ts";

function codeOf(error: unknown): string | undefined {
  for (let at = error; at instanceof Error; at = at.cause) {
    if ("code" in at && typeof at.code === "string") return at.code;
  }
  return undefined;
}

export function corrupted(path: string, cause?: unknown): Failure {
  return new Failure(
    "store_corrupt",
    `${path} is damaged`,
    "restore the last backup: weft restore BACKUP",
    cause === undefined ? {} : { cause },
  );
}

/** Turns an error of SQLite or of the file system into a Failure; passes every other one on. */
export function storeFailure(error: unknown, path: string): unknown {
  if (error instanceof Failure) return error;
  const code = codeOf(error);
  if (code === undefined) return error;
  if (code === "SQLITE_FULL" || code === "ENOSPC" || code === "EDQUOT") {
    return new Failure(
      "disk_full",
      `no space left for ${path}; nothing was changed`,
      `free space on the disk of ${dirname(path)} and try again`,
      { status: 507, cause: error },
    );
  }
  if (code.startsWith("SQLITE_CORRUPT") || code.startsWith("SQLITE_NOTADB")) {
    return corrupted(path, error);
  }
  if (code.startsWith("SQLITE_BUSY") || code.startsWith("SQLITE_LOCKED")) {
    return new Failure(
      "store_busy",
      `${path} is in use by another process`,
      "stop the other process that has it open",
      { status: 503, cause: error },
    );
  }
  if (/^(SQLITE_(CANTOPEN|READONLY|PERM)|EACCES|EPERM|EROFS|ENOTDIR|EEXIST)/.test(code)) {
    return new Failure(
      "store_unwritable",
      `the data folder ${dirname(path)} cannot be written (${code})`,
      "give this user write access to it, or choose another folder with --data DIR",
      { cause: error },
    );
  }
  if (code.startsWith("SQLITE_IOERR")) {
    return new Failure(
      "store_io",
      `reading or writing ${path} failed (${code}); nothing was changed`,
      "check the disk, then start again; a damaged file is restored by: weft restore BACKUP",
      { status: 503, cause: error },
    );
  }
  return error;
}
