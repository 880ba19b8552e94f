/** How many files and sockets this process may have open (RLIMIT_NOFILE). */
import { readFileSync } from "node:fs";

/** The soft limit, which Bun has raised to the hard one; Infinity where there is none. */
export function openFilesMax(): number {
  const line = /^Max open files +(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"));
  return line === null ? Number.POSITIVE_INFINITY : Number(line[1]);
}
