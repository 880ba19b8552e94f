/** How many callers of one kind are let in at a time. */
import type { Door } from "./room.ts";

export class Admission implements Door {
  readonly max: number;
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

  enter(): boolean {
    if (this.#open >= this.max) {
      this.#refused++;
      return false;
    }
    this.#open++;
    return true;
  }

  readonly leave = (): void => {
    this.#open--;
  };
}
