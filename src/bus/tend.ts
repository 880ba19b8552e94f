/**
 * Looks after our own nats-server from the outside: a process that lives is not yet a server that
 * works. After a full disk its stream refuses every write until it is started again, and a damaged
 * stream may never answer.
 */
import type { Bus } from "./bus.ts";
import type { NatsServer } from "./nats-server.ts";

export interface TendOptions {
  /** How long writes must fail, or the link be down, before anything is done. */
  readonly patienceMs?: number;
  /** Pause after a restart before the next one. */
  readonly pauseMs?: number;
}

const LOOK_MS = 1_000;
const PATIENCE_MS = 8_000;
const PAUSE_MS = 30_000;

/** Begins to look after `server` through `bus`; returns the way to stop. */
export function tendNatsServer(
  bus: Bus,
  server: NatsServer,
  options: TendOptions = {},
): () => void {
  const { patienceMs = PATIENCE_MS, pauseMs = PAUSE_MS } = options;
  let downSince: number | undefined;
  let actedAt = Number.NEGATIVE_INFINITY;
  let unreadable = 0;
  let busy = false;

  const look = async (): Promise<void> => {
    const now = performance.now();
    downSince = bus.status.value === "up" ? undefined : (downSince ?? now);
    if (now - actedAt < pauseMs) return;
    if (downSince !== undefined && now - downSince > patienceMs) {
      if (await server.answers()) return;
      actedAt = now;
      await server.restart("it runs but does not answer");
      return;
    }
    const stuckSince = bus.stuckSince;
    if (stuckSince === undefined || now - stuckSince < patienceMs) {
      if (stuckSince === undefined) unreadable = 0;
      return;
    }
    actedAt = now;
    // While documents can still be read, as on a full disk, the store is worth keeping.
    const readable = await bus.kvGet("head").then(
      () => true,
      () => false,
    );
    unreadable = readable ? 0 : unreadable + 1;
    await server.restart(
      readable ? "it refuses to write" : "it neither reads nor writes",
      unreadable > 1,
    );
  };

  const timer = setInterval(
    () => {
      if (busy) return;
      busy = true;
      void look().finally(() => {
        busy = false;
      });
    },
    Math.min(LOOK_MS, patienceMs),
  );
  return () => clearInterval(timer);
}
