/**
 * Processes of an `up` that was killed before it could stop them.
 *
 * Each is known by pid and start time, so that a pid used again by something else is left alone.
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { records } from "../cli/json.ts";

interface Known {
  readonly pid: number;
  readonly started: string;
}

const FILE = "children.json";

export function noteChildren(data: string, pids: readonly number[]): void {
  const known = pids.flatMap((pid) => {
    const started = startTime(pid);
    return started === undefined ? [] : [{ pid, started }];
  });
  writeFileSync(join(data, FILE), JSON.stringify({ children: known }), { mode: 0o600 });
}

export function forgetChildren(data: string): void {
  rmSync(join(data, FILE), { force: true });
}

/** Kills what an earlier run left behind and gives how many there were. */
export function killLeftovers(data: string): number {
  let count = 0;
  for (const { pid, started } of readKnown(data)) {
    if (startTime(pid) !== started) continue;
    try {
      process.kill(-pid, "SIGKILL");
      count++;
    } catch {
      // It ended in between.
    }
  }
  forgetChildren(data);
  return count;
}

function readKnown(data: string): readonly Known[] {
  try {
    const noted: unknown = JSON.parse(readFileSync(join(data, FILE), "utf8"));
    return records(noted, "children").map((entry) => ({
      pid: Number(entry["pid"]),
      started: String(entry["started"]),
    }));
  } catch {
    return [];
  }
}

/** Field 22 of /proc/PID/stat: clock ticks since boot. */
export function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name in parentheses may contain anything; fields count from behind it.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}
