/**
 * How many callers are let in at a time. Each descriptor that a process may open is spoken for: a
 * caller let in must find one for the connection that its request needs, and a process without any
 * left can neither accept nor dial, and spins.
 */
const CROWDED = 0.9;

export class Admission {
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

  /** Hardly any room is left: who uses theirs for nothing should go. */
  get crowded(): boolean {
    return this.#open >= this.max * CROWDED;
  }

  /** False: there is no room. Otherwise `leave` is owed. */
  enter(): boolean {
    if (this.#open >= this.max) {
      this.#refused++;
      return false;
    }
    this.#open++;
    return true;
  }

  leave(): void {
    this.#open--;
  }
}
