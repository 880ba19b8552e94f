/** When credentials are renewed: at half of their life, and now and then while the bus is away. */
import { renewalTime } from "../identity/svid.ts";

export interface RenewalParts {
  /** Of the credentials in force, unix milliseconds; undefined before the first join. */
  readonly life: () => { readonly issuedAt: number; readonly notAfter: number } | undefined;
  readonly linked: () => boolean;
  /** One attempt; false when it failed. */
  readonly renew: () => Promise<boolean>;
  readonly now: () => number;
  readonly random: () => number;
}

const RETRY_FIRST_MS = 250;
const RETRY_LAST_MS = 10_000;
/** Timers stand still while a machine sleeps, so the clock is looked at this often. */
const LOOK_MS = 30_000;
/** While the bus is away, the control plane is asked where it is: first after this long … */
const SEEK_FIRST_MS = 20_000;
/** … then ever less often. */
const SEEK_LAST_MS = 600_000;

export class Renewal {
  readonly #parts: RenewalParts;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #running: Promise<boolean> | undefined;
  #seekTimer: ReturnType<typeof setTimeout> | undefined;
  #seekMs = SEEK_FIRST_MS;
  #closed = false;

  constructor(parts: RenewalParts) {
    this.#parts = parts;
  }

  /** Plans the next renewal of what is in force now. */
  schedule(): void {
    const life = this.#parts.life();
    if (life === undefined) return;
    // Counted from the issue: certificates are valid from a minute before it.
    this.#wait(renewalTime(life.issuedAt, life.notAfter, this.#parts.random()));
  }

  /** Renews; one attempt at a time, which all callers share. */
  now(): Promise<boolean> {
    this.#running ??= this.#parts.renew().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /**
   * Tell it when the link comes or goes. A bus that stays away may have moved, or not take the
   * credentials any more: a renewal brings its address and new ones.
   */
  linkChanged(): void {
    clearTimeout(this.#seekTimer);
    if (this.#closed) return;
    if (this.#parts.linked()) {
      this.#seekMs = SEEK_FIRST_MS;
      return;
    }
    const wait = this.#seekMs * (0.5 + this.#parts.random() / 2);
    this.#seekMs = Math.min(this.#seekMs * 2, SEEK_LAST_MS);
    this.#seekTimer = setTimeout(() => void this.now().then(() => this.linkChanged()), wait);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#seekTimer);
  }

  #wait(at: number): void {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    const wait = Math.max(0, at - this.#parts.now());
    this.#timer = setTimeout(
      () => {
        if (wait > LOOK_MS) this.#wait(at);
        else void this.#due();
      },
      Math.min(wait, LOOK_MS),
    );
  }

  /** Renews, and tries again until it works. */
  async #due(): Promise<void> {
    if (await this.now()) return;
    const now = this.#parts.now();
    const left = (this.#parts.life()?.notAfter ?? 0) - now;
    this.#wait(now + Math.min(Math.max(left / 10, RETRY_FIRST_MS), RETRY_LAST_MS));
  }
}
