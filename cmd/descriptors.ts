/**
 * What a process may open, from the limit of its open files (RLIMIT_NOFILE). The runtime has raised
 * the soft limit to the hard one before any code of ours runs.
 */
import { openFilesMax } from "../src/std/open-files.ts";
import type { Logger } from "../src/telemetry/log.ts";

/** Log, store, bus, health checks, metrics, name resolution. */
const OWN = 64;
const OWN_PER_WORKLOAD = 4;
const CALLERS_MIN = 8;
const ROOM_MIN = 2 * CALLERS_MIN;
const DIRECTIONS = 2;

/** Scrapes and probes, which must get through when callers do not. Part of the reserve. */
export const METRICS_CALLERS_MAX = 16;

/** Descriptors of a proxy for callers, and for what their requests need, in each direction. */
export function proxyRoom(workloads: number, limit = openFilesMax()): number {
  const free = limit - OWN - OWN_PER_WORKLOAD * workloads;
  return Math.max(ROOM_MIN, Math.floor(free / DIRECTIONS));
}

/** Callers of the API, which need nothing else. */
export function apiCallersMax(limit = openFilesMax()): number {
  return Math.max(CALLERS_MIN, limit - OWN);
}

const TELL_MS = 1000;

/** Logs, at most once a second, that callers were turned away. Returns how to stop. */
export function tellTurnedAway(turnedAway: () => number, limit: number, log: Logger): () => void {
  let told = 0;
  const timer = setInterval(() => {
    const count = turnedAway();
    if (count === told) return;
    log.warn("callers were turned away: too many at a time", {
      ...{ callers: count - told, limit },
      fix: "raise the limit of open files (ulimit -Hn, LimitNOFILE=)",
    });
    told = count;
  }, TELL_MS);
  timer.unref();
  return () => clearInterval(timer);
}
