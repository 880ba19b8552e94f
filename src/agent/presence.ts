/** A workload's place in the registry: registered once its application is well, renewed, left. */
import type { Logger } from "../telemetry/log.ts";
import type { Link } from "./link.ts";

/** What a registration says; the registry adds who it is. */
export interface PresenceFacts {
  readonly boot: string;
  readonly addr: string;
  readonly meshPort: number;
  readonly ports: Readonly<Record<string, PresentPort>>;
  readonly labels: Readonly<Record<string, string>>;
  readonly locality: string;
  readonly weight: number;
  readonly version: string;
  readonly schema: number;
  readonly metrics?: string;
}

export interface PresentPort {
  /** Port of the application. */
  readonly app: number;
  readonly protocol: string;
  /** None was declared: `protocol` is for control planes that do not know of this field. */
  readonly detect?: boolean;
}

const RENEW_MS = 4_000;
const RETRY_MS = 500;
/** A refusal does not go away by itself. */
const REFUSED_MS = 2_000;

export class Presence {
  readonly #log: Logger;
  readonly #link: () => Link | undefined;
  /** Makes the control plane see this workload, and where it connects from. */
  readonly #showSource: () => Promise<void>;
  #facts: PresenceFacts | undefined;
  #registered = false;
  #leaving = false;
  #busy = false;
  #again = false;
  #ok = true;
  #inflight = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lastRefusal = "";

  constructor(
    options: { readonly log: Logger },
    link: () => Link | undefined,
    showSource: () => Promise<void>,
  ) {
    this.#log = options.log;
    this.#link = link;
    this.#showSource = showSource;
  }

  get registered(): boolean {
    return this.#registered;
  }

  register(facts: PresenceFacts): void {
    this.#facts = facts;
    this.#registered = false;
    this.wake();
  }

  /** Registers anew, under another instance. */
  again(): void {
    this.#registered = false;
    this.wake();
  }

  health(ok: boolean, inflight: number): void {
    const changed = ok !== this.#ok;
    this.#ok = ok;
    this.#inflight = inflight;
    if (changed) this.wake();
  }

  /** Renews now: the link is back, or something changed. */
  wake(): void {
    if (this.#facts === undefined || this.#leaving) return;
    if (this.#busy) {
      this.#again = true;
      return;
    }
    clearTimeout(this.#timer);
    this.#busy = true;
    this.#step()
      .catch((error: unknown) => {
        this.#log.error("the registry could not be asked", { error });
        return RETRY_MS;
      })
      .then((wait) => {
        this.#busy = false;
        if (this.#leaving) return;
        this.#timer = setTimeout(() => this.wake(), this.#again ? 0 : wait);
        this.#again = false;
      });
  }

  async leave(timeoutMs: number): Promise<void> {
    this.#leaving = true;
    clearTimeout(this.#timer);
    const link = this.#link();
    if (this.#facts === undefined || !this.#registered || link?.connected !== true) return;
    this.#registered = false;
    const { boot } = this.#facts;
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, timeoutMs);
    await Promise.race([link.rpc("deregister", { boot }), late.promise]);
    clearTimeout(timer);
  }

  close(): void {
    this.#leaving = true;
    clearTimeout(this.#timer);
  }

  /** One exchange with the registry; the time to the next, in milliseconds. */
  async #step(): Promise<number> {
    const link = this.#link();
    const facts = this.#facts;
    if (link === undefined || facts === undefined || !link.connected) return RETRY_MS;
    const health = this.#ok ? "ok" : "failing";
    const answer = this.#registered
      ? await link.rpc("renew", { boot: facts.boot, health, inflight: this.#inflight })
      : await link.rpc("register", facts);
    if (answer.kind === "ok") {
      if (!this.#registered && facts === this.#facts) {
        this.#registered = true;
        this.#lastRefusal = "";
        this.#log.info("registered", { address: `${facts.addr}:${facts.meshPort}` });
        // Health is told by renewals only.
        if (!this.#ok) return 0;
      }
      return RENEW_MS;
    }
    if (answer.kind === "unreachable") return RETRY_MS;
    this.#registered = false;
    if (answer.code === "not_registered") return 0;
    if (this.#lastRefusal !== answer.code) {
      this.#log.error(`the registry refused: ${answer.message}`, { code: answer.code });
    }
    this.#lastRefusal = answer.code;
    if (answer.code !== "address_unknown" && answer.code !== "not_joined") return REFUSED_MS;
    await this.#showSource();
    return answer.code === "not_joined" ? REFUSED_MS : RETRY_MS;
  }
}
