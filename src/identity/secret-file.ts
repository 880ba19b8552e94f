/** Secrets on disk: written aside and renamed, mode 0600, refused when others can read them. */
import {
  chmodSync,
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname } from "node:path";
import { Failure } from "../error.ts";

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

function fail(path: string, action: string, cause: unknown): Failure {
  if (["ENOSPC", "EDQUOT"].includes(codeOf(cause))) {
    const fix = `free space on the disk of ${dirname(path)} and try again`;
    return new Failure("disk_full", `no space left for ${path}`, fix, { status: 507, cause });
  }
  return new Failure(
    "secret_unreadable",
    `cannot ${action} ${path}: ${codeOf(cause) || String(cause)}`,
    "make the data folder belong to the user that runs weft",
    { cause },
  );
}

/**
 * The text of a secret; undefined when there is no such file. Throws a `Failure` when it cannot
 * be read, is empty, or is open to group or others.
 */
export function readSecret(path: string): string | undefined {
  let text: string;
  let mode: number;
  try {
    mode = statSync(path).mode;
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw fail(path, "read", error);
  }
  if ((mode & 0o077) !== 0) {
    const seen = (mode & 0o777).toString(8).padStart(3, "0");
    throw new Failure(
      "secret_exposed",
      `${path} has mode 0${seen}: others on this machine can read the key`,
      `chmod 600 ${path}, and replace the key if anyone else may have read it`,
    );
  }
  if (text.trim() === "") {
    throw new Failure("secret_empty", `${path} is empty`, "restore the file from a backup");
  }
  return text;
}

/** Writes a file with `mode` so that readers see the old or the new one, also after power loss. */
export function writeDurably(path: string, text: string, mode: number): void {
  const aside = `${path}.new`;
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    rmSync(aside, { force: true });
    const file = openSync(aside, "wx", mode);
    try {
      // Not `writeSync`: on a disk that fills up it writes less than it was given.
      writeFileSync(file, text);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    chmodSync(aside, mode);
    renameSync(aside, path);
    const folder = openSync(dirname(path), "r");
    fsyncSync(folder);
    closeSync(folder);
  } catch (error) {
    rmSync(aside, { force: true });
    throw fail(path, "write", error);
  }
}

/** Writes a secret: mode 0600, durable before this returns. */
export function writeSecret(path: string, text: string): void {
  writeDurably(path, text, 0o600);
}
