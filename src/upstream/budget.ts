/**
 * Retries as a share of what is under way, so that a failing service is not buried by its callers.
 */
export class RetryBudget {
  #retries = 0;

  get active(): number {
    return this.#retries;
  }

  /** Whether one more retry may run now; if so it counts until `release`. */
  take(activeRequests: number, percent: number, minConcurrency: number): boolean {
    const allowed = Math.max(minConcurrency, Math.floor((activeRequests * percent) / 100));
    if (this.#retries >= allowed) return false;
    this.#retries++;
    return true;
  }

  release(): void {
    this.#retries--;
  }
}
