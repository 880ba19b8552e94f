/**
 * How long a connection has stood still, in ticks of a second: idle, dripping a head, or under way
 * with hardly a byte moving.
 */

/** How long a peer that owes bytes, or leaves bytes unread, may take to move some, seconds. */
const STALLED_SECONDS = 300;
/** The same for a caller that others wait for, or that could have sent all of it at once. */
const HURRY_SECONDS = 10;
/** How many: less is a drip, which holds as much as a standstill does. */
const MOVED_MIN = 512;

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
   * business. In a `talk`, where each side may wait for the other, a single byte is enough. `hurry`:
   * ten seconds must do. True: it has been too long.
   */
  tooLong(passed: number, queued: number, owed: boolean, talk: boolean, hurry: boolean): boolean {
    // Halves, so that bytes which only went into a queue have moved, too.
    const moved = passed - queued / 2;
    const by = Math.abs(moved - this.#moved);
    if (by >= MOVED_MIN || (talk && by > 0) || !owed) {
      this.#moved = moved;
      this.#seconds = 0;
      return false;
    }
    return this.second() >= (hurry ? HURRY_SECONDS : STALLED_SECONDS);
  }
}
