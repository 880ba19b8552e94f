/**
 * Bytes between two connections, both ways: a slow reader pauses its peer, a half close travels
 * on, a reset resets the other side.
 */
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import type { Slot } from "../telemetry/metrics.ts";

export interface RelayMeter {
  /** From the caller. */
  readonly received: Slot;
  /** To the caller. */
  readonly sent: Slot;
}

export interface Relay {
  /** Resets both sides. */
  destroy(): void;
}

/**
 * Joins `caller` and `server`, taking over both handlers; both should be paused or freshly
 * opened. `done` is called once, when both are closed.
 */
export function relay(
  caller: Connection,
  server: Connection,
  meter: RelayMeter,
  done: (error: Error | undefined) => void,
): Relay {
  const state = { open: 2, error: undefined as Error | undefined, done };
  caller.handler = new Direction(server, meter.received, state);
  server.handler = new Direction(caller, meter.sent, state);
  caller.resume();
  server.resume();
  return {
    destroy() {
      caller.destroy();
      server.destroy();
    },
  };
}

interface RelayState {
  open: number;
  error: Error | undefined;
  readonly done: (error: Error | undefined) => void;
}

/** What arrives at one side goes to the other. */
class Direction implements ConnectionHandler {
  readonly #to: Connection;
  readonly #bytes: Slot;
  readonly #state: RelayState;

  constructor(to: Connection, bytes: Slot, state: RelayState) {
    this.#to = to;
    this.#bytes = bytes;
    this.#state = state;
  }

  data(from: Connection, chunk: Uint8Array): void {
    this.#bytes.value += chunk.length;
    if (!this.#to.write(chunk)) from.pause();
  }

  end(): void {
    this.#to.end();
  }

  drain(): void {
    this.#to.resume();
  }

  close(_from: Connection, error: Error | undefined): void {
    this.#state.open--;
    this.#state.error ??= error;
    if (error !== undefined) this.#to.destroy();
    else this.#to.end();
    if (this.#state.open === 0) this.#state.done(this.#state.error);
  }
}
