/** So many requests per sender and stretch of time: one workload must not keep the control plane busy. */

export class Allowance {
  readonly #max: number;
  readonly #perMs: number;
  #since = Number.NEGATIVE_INFINITY;
  #used = new Map<string, number>();

  constructor(max: number, perMs: number) {
    this.#max = max;
    this.#perMs = perMs;
  }

  /** Whether `sender` may ask once more at `now`, in milliseconds. */
  take(sender: string, now: number): boolean {
    const passed = now - this.#since;
    // A clock that was set back begins anew.
    if (passed >= this.#perMs || passed < 0) {
      this.#since = now;
      this.#used = new Map();
    }
    const used = (this.#used.get(sender) ?? 0) + 1;
    this.#used.set(sender, used);
    return used <= this.#max;
  }
}
