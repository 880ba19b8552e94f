/**
 * Retries as a share of the first attempts under way, so that a failing service is not buried by
 * its callers: with 20 %, attempts stay below 1.2 times the requests.
 */
export class RetryBudget {
  #retries = 0;

  get active(): number {
    return this.#retries;
  }

  /** Whether one more retry may run now; if so it counts until `release`. */
  take(activeRequests: number, percent: number, minConcurrency: number): boolean {
    const firstAttempts = activeRequests - this.#retries;
    const allowed = Math.max(minConcurrency, Math.floor((firstAttempts * percent) / 100));
    if (this.#retries >= allowed) return false;
    this.#retries++;
    return true;
  }

  release(): void {
    this.#retries--;
  }
}
