/** So many requests per sender and stretch of time: one workload must not keep the registry busy. */

export class Allowance {
  readonly #max: number;
  readonly #perMs: number;
  #since = Number.NEGATIVE_INFINITY;
  #used = new Map<string, number>();

  constructor(max: number, perMs: number) {
    this.#max = max;
    this.#perMs = perMs;
  }

  /** Whether `sender` may ask once more at `now`, on a clock that never jumps. */
  take(sender: string, now: number): boolean {
    if (now - this.#since >= this.#perMs) {
      this.#since = now;
      this.#used = new Map();
    }
    const used = (this.#used.get(sender) ?? 0) + 1;
    this.#used.set(sender, used);
    return used <= this.#max;
  }
}
