/** What one client of a served application may take up. */
export interface ServeLimits {
  /** A longer request body is answered 413 without being read any further. */
  readonly bodyBytesMax: number;
  /** From the first byte of a request (or from accept) to the end of its head. */
  readonly headTimeoutMs: number;
  /**
   * A body that the application waits for may fall behind this rate by so many seconds: then it is
   * answered 408.
   */
  readonly bodyBytesPerSecondMin: number;
  readonly bodyBehindSecondsMax: number;
  /** How long such a second is. */
  readonly tickMs: number;
  /** Between requests, and for a client that does not read. */
  readonly idleTimeoutMs: number;
  /** Received and not yet wanted by the application; beyond it the connection is paused. */
  readonly bufferedBytesMax: number;
}

export const SERVE_LIMITS: ServeLimits = {
  bodyBytesMax: 5 * 1024 * 1024,
  headTimeoutMs: 10_000,
  bodyBytesPerSecondMin: 512,
  bodyBehindSecondsMax: 20,
  tickMs: 1000,
  idleTimeoutMs: 60_000,
  bufferedBytesMax: 64 * 1024,
};
