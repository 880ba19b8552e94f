/** Which revision each workload says it runs, and waiting for all of them. */
import type { Acknowledgement } from "./registration.ts";

export interface AckState extends Acknowledgement {
  /** Unix milliseconds. */
  readonly at: number;
}

/** Outcome of waiting for a revision. */
export interface AckWait {
  readonly acked: readonly string[];
  /** Workloads that refused documents of it, with the first reason. */
  readonly refused: readonly {
    readonly instance: string;
    readonly key: string;
    readonly reason: string;
  }[];
  /** Workloads that have not answered in time. */
  readonly waiting: readonly string[];
}

export class Acks {
  readonly #states = new Map<string, AckState>();
  readonly #listeners = new Set<() => void>();

  get(instance: string): AckState | undefined {
    return this.#states.get(instance);
  }

  /** Older acknowledgements than the last are dropped: the bus may reorder. */
  record(instance: string, ack: Acknowledgement, at: number): void {
    const last = this.#states.get(instance);
    if (last !== undefined && (ack.epoch - last.epoch || ack.rev - last.rev) < 0) return;
    this.#states.set(instance, { ...ack, at });
    for (const listener of [...this.#listeners]) listener();
  }

  forget(instance: string): void {
    if (this.#states.delete(instance)) for (const listener of [...this.#listeners]) listener();
  }

  /**
   * Resolves when every instance of `expected()` has acknowledged `rev` or a later one, or after
   * `timeoutMs`. Revisions rise across epochs, so the epoch does not matter.
   */
  wait(rev: number, expected: () => readonly string[], timeoutMs: number): Promise<AckWait> {
    const now = this.#sort(rev, expected());
    if (now.waiting.length === 0 || timeoutMs <= 0) return Promise.resolve(now);
    return new Promise((resolve) => {
      const finish = () => {
        clearTimeout(timer);
        this.#listeners.delete(look);
        resolve(this.#sort(rev, expected()));
      };
      const look = () => {
        if (this.#sort(rev, expected()).waiting.length === 0) finish();
      };
      const timer = setTimeout(finish, timeoutMs);
      this.#listeners.add(look);
    });
  }

  #sort(rev: number, expected: readonly string[]): AckWait {
    const acked: string[] = [];
    const waiting: string[] = [];
    const refused: { instance: string; key: string; reason: string }[] = [];
    for (const instance of expected) {
      const state = this.#states.get(instance);
      if (state === undefined || state.rev < rev) waiting.push(instance);
      else if (state.refused[0] !== undefined) refused.push({ instance, ...state.refused[0] });
      else acked.push(instance);
    }
    return { acked, refused, waiting };
  }
}
