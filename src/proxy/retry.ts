/** When a request may be sent once more, and what of it can be. */
import type { TrafficPolicyDocument } from "../snapshot/document.ts";

/**
 * connect, refused, app_unreachable, draining: the request reached no application. unsent: a
 * kept connection was gone before the first byte. stale: it was closed under the request. reset,
 * timeout, code: it may have been carried out.
 */
export type FailureKind =
  | "connect"
  | "refused"
  | "app_unreachable"
  | "draining"
  | "unsent"
  | "stale"
  | "reset"
  | "timeout"
  | "code"
  | "invalid";

const IDEMPOTENT = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]);

/** RFC 9110 section 9.2.2. */
export function isIdempotent(method: string): boolean {
  return IDEMPOTENT.has(method);
}

/** `attempts` were made already. */
export function mayRetry(
  retries: TrafficPolicyDocument["retries"],
  kind: FailureKind,
  attempts: number,
  method: string,
): boolean {
  if (attempts > retries.attempts) return false;
  switch (kind) {
    case "connect":
      return retries.on.includes("connect_failure");
    case "refused":
      // Closed before any answer: almost surely a refused certificate, but only almost.
      return retries.on.includes("connect_failure") && isIdempotent(method);
    case "app_unreachable":
      return retries.on.includes("app_unreachable");
    case "draining":
      return retries.on.includes("refused_stream");
    case "reset":
    case "timeout":
      return retries.on.includes("reset") && isIdempotent(method);
    case "code":
      return isIdempotent(method);
    case "unsent":
    case "stale":
    case "invalid":
      return false;
  }
}

const BACKOFF_DOUBLINGS_MAX = 6;

/** The first retry goes at once, to another endpoint where there is one; later ones wait. */
export function retryDelayMs(attempts: number, backoffMs: number, random: () => number): number {
  if (attempts <= 1) return 0;
  return random() * backoffMs * 2 ** Math.min(attempts - 2, BACKOFF_DOUBLINGS_MAX);
}

/** Body bytes beyond this are not kept: the request can then be sent only once. */
const REPLAY_BYTES_MAX = 64 * 1024;

/** The body as sent so far. */
export class ReplayBuffer {
  #chunks: Uint8Array[] = [];
  #bytes = 0;
  #complete = true;

  /** Everything sent is still here. */
  get complete(): boolean {
    return this.#complete;
  }

  get length(): number {
    return this.#chunks.length;
  }

  chunks(): readonly Uint8Array[] {
    return this.#chunks;
  }

  add(chunk: Uint8Array): void {
    if (!this.#complete) return;
    this.#bytes += chunk.length;
    if (this.#bytes > REPLAY_BYTES_MAX) {
      this.#complete = false;
      this.#chunks = [];
    } else this.#chunks.push(chunk);
  }

  clear(): void {
    if (this.#bytes === 0) return;
    this.#chunks = [];
    this.#bytes = 0;
    this.#complete = true;
  }
}
