/**
 * Bytes between two connections, both ways: a slow reader pauses its peer, a half close travels
 * on, a reset resets the other side.
 */

import { MeshError } from "../error.ts";
import { guarded } from "../net/boundary.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import type { Slot } from "../telemetry/metrics.ts";
import { Standstill } from "./standstill.ts";

export interface RelayMeter {
  /** From the caller. */
  readonly received: Slot;
  /** To the caller. */
  readonly sent: Slot;
}

/** What a relay asks about a server that resets before its first byte. */
export interface Trial {
  /** These bytes go to the server. */
  sent(chunk: Uint8Array): void;
  /** The caller sends no more. */
  ended(): void;
  /** The server has sent something: the trial is over. */
  passed(): void;
  /**
   * "again": the relay is over, and the caller has been taken back. "reset": it is passed on.
   * "close": it is passed on as an orderly end.
   */
  failed(): "again" | "reset" | "close";
}

export interface Relay {
  /** Bytes from the caller so far. */
  readonly received: number;
  /** Bytes from the server so far. */
  readonly sent: number;
  /** Bytes held for either side. */
  readonly pendingBytes: number;
  /** One more second. A side that leaves unread what waits for it ends both: `timeout`. */
  tick(): void;
  /** Resets both sides. */
  destroy(): void;
}

/**
 * Joins `caller` and `server`, taking over both handlers; both should be paused or freshly
 * opened. `done` is called once, when both are closed; not at all after a trial's "again". A
 * `MeshError` says why we ended them.
 */
export function relay(
  caller: Connection,
  server: Connection,
  meter: RelayMeter,
  done: (error: Error | undefined) => void,
  trial?: Trial,
): Relay {
  const state: RelayState = { open: 2, error: undefined, trial, done };
  const forth = new Direction(server, meter.received, state, false);
  const back = new Direction(caller, meter.sent, state, true);
  caller.kept = 0;
  caller.handler = forth;
  server.handler = back;
  caller.resume();
  server.resume();
  return {
    get received() {
      return forth.count;
    },
    get sent() {
      return back.count;
    },
    get pendingBytes() {
      return caller.pendingBytes + server.pendingBytes;
    },
    tick() {
      const unread = forth.unread();
      if (!back.unread() && !unread) return;
      state.error ??= new MeshError("timeout", "nobody took what was sent for too long");
      this.destroy();
    },
    destroy() {
      caller.destroy();
      server.destroy();
    },
  };
}

interface RelayState {
  open: number;
  error: Error | undefined;
  trial: Trial | undefined;
  readonly done: (error: Error | undefined) => void;
}

/** What arrives at one side goes to the other. */
class Direction implements ConnectionHandler {
  count = 0;
  readonly #still = new Standstill();
  readonly #to: Connection;
  readonly #bytes: Slot;
  readonly #state: RelayState;
  readonly #fromServer: boolean;

  constructor(to: Connection, bytes: Slot, state: RelayState, fromServer: boolean) {
    this.#to = to;
    this.#bytes = bytes;
    this.#state = state;
    this.#fromServer = fromServer;
  }

  data(from: Connection, chunk: Uint8Array): void {
    if (this.#state.trial !== undefined) this.#early(chunk);
    this.count += chunk.length;
    this.#bytes.value += chunk.length;
    if (!this.#to.write(chunk)) from.pause();
    // As a host would answer bytes for a socket that is gone.
    else if (this.#to.closed) from.destroy();
  }

  /** One more second. True: bytes wait for the other side, and it has taken none for too long. */
  unread(): boolean {
    const { queuedBytes } = this.#to;
    return this.#still.tooLong(this.count, queuedBytes, queuedBytes > 0, false, false);
  }

  #early(chunk: Uint8Array): void {
    if (this.#fromServer) this.#passed();
    else this.#state.trial?.sent(chunk);
  }

  #passed(): void {
    this.#state.trial?.passed();
    this.#state.trial = undefined;
  }

  end(): void {
    if (this.#fromServer) this.#passed();
    else this.#state.trial?.ended();
    this.#to.end();
  }

  drain(): void {
    this.#to.resume();
  }

  close(from: Connection, error: Error | undefined): void {
    // Passing it on may close the other side at once, whose close is the last then.
    const last = --this.#state.open === 0;
    guarded("relay", this.#to, () => this.#pass(from, error));
    if (last) this.#state.done(this.#state.error);
  }

  /** Passes on how one side closed. */
  #pass(from: Connection, error: Error | undefined): void {
    let orderly = error === undefined && !from.destroyed;
    const trial = this.#fromServer && !this.#to.closed ? this.#state.trial : undefined;
    if (error !== undefined && trial !== undefined) {
      const verdict = trial.failed();
      if (verdict === "again") return;
      orderly = verdict === "close";
    }
    this.#state.error ??= error;
    if (!orderly) this.#to.destroy();
    else {
      this.#to.end();
      // Nobody will drain any more: what it still sends must be seen, and be refused.
      this.#to.resume();
    }
  }
}
