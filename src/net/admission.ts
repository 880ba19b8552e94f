/** How many callers of one kind are let in at a time, and how many of them from one address. */
import type { Door } from "./room.ts";
import { Shares, type Source } from "./shares.ts";

export class Admission implements Door {
  readonly max: number;
  readonly #shares = new Shares();
  #open = 0;
  #refused = 0;

  constructor(max: number) {
    this.max = max;
  }

  /** Callers inside now. */
  get open(): number {
    return this.#open;
  }

  /** Callers turned away so far. */
  get refused(): number {
    return this.#refused;
  }

  enter(name: string): Source | undefined {
    const source = this.#shares.take(name, this.max - this.#open);
    if (source === undefined) this.#refused++;
    else this.#open++;
    return source;
  }

  leave(source: Source): void {
    this.#open--;
    this.#shares.give(source);
  }
}
