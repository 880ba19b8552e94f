/**
 * The state behind one target: its endpoints, who is waiting, and the retry budget. It outlives
 * the snapshots that describe it: `update` swaps the description and keeps the state.
 */
import { splitCounters, stepSplit } from "../route/split.ts";
import type { Target } from "../snapshot/snapshot.ts";
import type { RequestMeter, TcpMeter } from "../telemetry/golden.ts";
import { pickLeastRequest, pickRandom } from "./balance.ts";
import { RetryBudget } from "./budget.ts";
import type { Endpoint, Security } from "./endpoint.ts";

/** A request that waits for its turn. */
export interface Waiter {
  /** A slot is free and taken for this waiter. */
  onTurn(): void;
}

/** Meters by how the connection was protected; made when first needed. */
export interface DestinationMeters {
  http(security: Security): RequestMeter;
  tcp(security: Security): TcpMeter;
}

const NONE: readonly Endpoint[] = [];

export class Destination {
  target: Target;
  readonly meters: DestinationMeters;
  readonly budget = new RetryBudget();
  /** Requests that hold a connection or are about to. */
  active = 0;
  #preferred: Endpoint[] = [];
  /** Kept only because the registry could not be sure: chosen when nothing else is left. */
  #suspects: Endpoint[] = [];
  #weights: readonly number[] = [];
  #counters: number[] = [];
  #waiting: Waiter[] = [];

  constructor(target: Target, meters: DestinationMeters) {
    this.target = target;
    this.meters = meters;
  }

  update(target: Target, preferred: Endpoint[], suspects: Endpoint[]): void {
    this.target = target;
    this.#preferred = preferred;
    this.#suspects = suspects;
    const weights = preferred.map((endpoint) => endpoint.weight);
    if (weights.join() !== this.#weights.join()) {
      this.#weights = weights;
      this.#counters = splitCounters(weights);
    }
  }

  /** The endpoints of the current description. */
  endpoints(): readonly Endpoint[] {
    return [...this.#preferred, ...this.#suspects];
  }

  /** Those in `tried` failed this request already: chosen again only if there is no other. */
  pick(
    now: number,
    random: () => number,
    tried: readonly Endpoint[] | undefined,
  ): Endpoint | undefined {
    const endpoint = this.#choose(now, random, tried);
    endpoint?.chosen(now);
    return endpoint;
  }

  #choose(
    now: number,
    random: () => number,
    tried: readonly Endpoint[] | undefined,
  ): Endpoint | undefined {
    if (tried !== undefined) return this.#pickCarefully(now, random, tried);
    const preferred = this.#preferred;
    for (let i = 0; i < preferred.length; i++) {
      if (preferred[i]!.avoided(now)) return this.#pickCarefully(now, random, NONE);
    }
    return preferred.length === 0
      ? this.#pickCarefully(now, random, NONE)
      : this.#balance(preferred, random);
  }

  #pickCarefully(now: number, random: () => number, tried: readonly Endpoint[]) {
    const untried = (endpoint: Endpoint) => !tried.includes(endpoint);
    const good = (endpoint: Endpoint) => untried(endpoint) && !endpoint.avoided(now);
    const choices = [
      this.#preferred.filter(good),
      this.#suspects.filter(good),
      this.#preferred.filter(untried),
      this.#suspects.filter(untried),
    ];
    for (const choice of choices) {
      if (choice.length > 0) return this.#balance(choice, random);
    }
    return this.#preferred[0] ?? this.#suspects[0];
  }

  #balance(candidates: readonly Endpoint[], random: () => number): Endpoint | undefined {
    switch (this.target.policy.balancer) {
      case "least_request":
        return pickLeastRequest(candidates, random);
      case "random":
        return pickRandom(candidates, random);
      case "round_robin": {
        if (candidates === this.#preferred) {
          return candidates[stepSplit(this.#weights, this.#counters)] ?? candidates[0];
        }
        return pickRandom(candidates, random);
      }
    }
  }

  /** Somebody waits. */
  get crowded(): boolean {
    return this.#waiting.length > 0;
  }

  /** "go": a slot is taken. "wait": `onTurn` comes later. "full": neither is possible. */
  enter(waiter: Waiter): "go" | "wait" | "full" {
    const { maxConnections, maxPending } = this.target.policy;
    if (this.active < maxConnections) {
      this.active++;
      return "go";
    }
    if (this.#waiting.length >= maxPending) return "full";
    this.#waiting.push(waiter);
    return "wait";
  }

  leave(): void {
    this.active--;
    if (this.#waiting.length === 0 || this.active >= this.target.policy.maxConnections) return;
    this.active++;
    this.#waiting.shift()!.onTurn();
  }

  /** The waiter gave up. */
  withdraw(waiter: Waiter): void {
    const at = this.#waiting.indexOf(waiter);
    if (at !== -1) this.#waiting.splice(at, 1);
  }
}
