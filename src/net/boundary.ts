/**
 * The error boundary of socket callbacks: a bug costs one connection, never the process. Counts
 * are of the process, because the callbacks are the process's own.
 */
const counts = new Map<string, number>();
let hear: ((site: string, error: unknown) => void) | undefined;

/** Counts an exception that reached a socket callback; `site` names the callback. */
export function countCallbackError(site: string, error: unknown): void {
  counts.set(site, (counts.get(site) ?? 0) + 1);
  try {
    hear?.(site, error);
  } catch {
    // Reporting must not fail what it reports on.
  }
}

/**
 * Runs a callback that no socket called (a timer, an answer that took time): an exception is
 * counted and costs `connection`.
 */
export function guarded(
  site: string,
  connection: { destroy(): void } | undefined,
  run: () => void,
): void {
  try {
    run();
  } catch (error) {
    countCallbackError(site, error);
    connection?.destroy();
  }
}

/** Exceptions caught so far, by site. */
export function callbackErrors(): ReadonlyMap<string, number> {
  return counts;
}

/** Hears each exception, for the process's log. One listener; the last one wins. */
export function onCallbackError(listener: (site: string, error: unknown) => void): void {
  hear = listener;
}
