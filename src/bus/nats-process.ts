/** Finds a nats-server by the configuration file it was started with (Linux: /proc). */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

export interface RunningServer {
  readonly pid: number;
  /** What it runs; ends in ` (deleted)` when the file was replaced since. */
  readonly executable: string;
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function argumentsOf(pid: number): string[] {
  return readText(`/proc/${pid}/cmdline`).split("\0");
}

/** Whether process `pid` is a nats-server with that configuration, and not a zombie. */
export function isRunning(pid: number, config: string): boolean {
  const [, flag, path] = argumentsOf(pid);
  return flag === "-c" && path === config;
}

/** All nats-servers that were started with that configuration file. */
export function findRunning(config: string): RunningServer[] {
  const found: RunningServer[] = [];
  let names: string[];
  try {
    names = readdirSync("/proc");
  } catch {
    return found;
  }
  for (const name of names) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || !isRunning(pid, config)) continue;
    try {
      found.push({ pid, executable: readlinkSync(`/proc/${pid}/exe`) });
    } catch {
      // Ended meanwhile.
    }
  }
  return found;
}
