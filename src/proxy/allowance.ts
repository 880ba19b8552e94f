/** What a request holds of its destination: a turn among its peers, and a share of the retries. */
import type { Golden } from "../telemetry/golden.ts";
import type { Destination, Waiter } from "../upstream/destination.ts";
import { type FailureKind, isIdempotent, mayRetry } from "./retry.ts";

export class Allowance {
  #destination: Destination | undefined;
  #holdsTurn = false;
  #holdsBudget = false;
  #staleRetried = false;

  /** "go": the turn is here. "wait": the waiter hears of it. "full": there is none to be had. */
  enter(destination: Destination, waiter: Waiter): "go" | "wait" | "full" {
    this.#destination = destination;
    const entry = destination.enter(waiter);
    this.#holdsTurn = entry === "go";
    return entry;
  }

  /** The waiter's turn has come. */
  arrived(): void {
    this.#holdsTurn = true;
  }

  /** Whether another attempt is allowed; if so it is paid for. `attempts` were made. */
  retry(
    kind: FailureKind,
    attempts: number,
    method: string,
    count: { readonly golden: Golden; readonly workload: string },
  ): boolean {
    if (kind === "stale" || kind === "unsent") {
      // The server closed it while we sent: a race that says nothing about the server.
      if (this.#staleRetried || (kind === "stale" && !isIdempotent(method))) return false;
      this.#staleRetried = true;
      return true;
    }
    const destination = this.#destination;
    if (destination === undefined) return false;
    const { namespace, service, policy } = destination.target;
    const { retries } = policy;
    if (!mayRetry(retries, kind, attempts, method)) return false;
    this.#releaseBudget();
    const { budgetPercent, budgetMinConcurrency } = retries;
    if (!destination.budget.take(destination.active, budgetPercent, budgetMinConcurrency)) {
      return false;
    }
    this.#holdsBudget = true;
    count.golden.retries.slot(count.workload, `${namespace}/${service}`, kind).value++;
    return true;
  }

  /** The last retry has led somewhere: others may try now. */
  settle(): void {
    this.#releaseBudget();
  }

  /** The request is over. */
  release(waiter: Waiter): void {
    this.#staleRetried = false;
    const destination = this.#destination;
    if (destination === undefined) return;
    this.#releaseBudget();
    this.#destination = undefined;
    if (this.#holdsTurn) {
      this.#holdsTurn = false;
      destination.leave();
    } else destination.withdraw(waiter);
  }

  #releaseBudget(): void {
    if (!this.#holdsBudget) return;
    this.#holdsBudget = false;
    this.#destination?.budget.release();
  }
}
