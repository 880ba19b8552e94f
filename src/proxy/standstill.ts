/**
 * How long a connection has stood still, in ticks of a second: idle, dripping a head, or under way
 * without a byte moving.
 */

/** How long a peer may owe bytes, or leave bytes unread, without moving any, seconds. */
const STALLED_SECONDS = 300;

export class Standstill {
  #seconds = 0;
  #moved = 0;

  end(): void {
    this.#seconds = 0;
  }

  /** One more second, whatever moved. Returns how many there were. */
  second(): number {
    return ++this.#seconds;
  }

  /**
   * One more second: `passed` bytes have passed so far, `queued` are waiting. Only while a peer
   * owes bytes or leaves them unread does it count: how long an answer may take is the policy's
   * business. True: it has been too long.
   */
  tooLong(passed: number, queued: number, owed: boolean): boolean {
    // Halves, so that bytes which only went into a queue have moved, too.
    const moved = passed - queued / 2;
    if (moved !== this.#moved || !owed) {
      this.#moved = moved;
      this.#seconds = 0;
      return false;
    }
    return this.second() >= STALLED_SECONDS;
  }
}
