/** What ports without a declared protocol turned out to speak, as one workload has seen it. */

/** server_first: the service speaks before its callers do. */
export type Verdict = "http" | "server_first";

/** Applications are replaced by others: what is known is checked again after this long. */
const FORGET_MS = 60_000;
const VERDICTS_MAX = 4096;

export class Verdicts {
  readonly #now: () => number;
  readonly #known = new Map<string, { readonly verdict: Verdict; readonly until: number }>();

  /** `now`: monotonic milliseconds. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** `key`: that of the port's target. */
  get(key: string): Verdict | undefined {
    const known = this.#known.get(key);
    return known !== undefined && this.#now() < known.until ? known.verdict : undefined;
  }

  put(key: string, verdict: Verdict): void {
    if (this.#known.size >= VERDICTS_MAX && !this.#known.has(key)) this.#known.clear();
    this.#known.set(key, { verdict, until: this.#now() + FORGET_MS });
  }
}
