import { CLASS, CR, LF, VALUE } from "./chars.ts";
import { Malformed } from "./malformed.ts";

const EMPTY = Buffer.alloc(0);
const HEAD_END = Buffer.from("\r\n\r\n");

function asBuffer(chunk: Uint8Array): Buffer {
  if (Buffer.isBuffer(chunk)) return chunk;
  return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
}

/**
 * Bytes received and not yet consumed. A chunk that arrives when nothing is left over is used
 * where it lies; otherwise bytes are appended to a buffer of our own. Bytes once handed out are
 * never overwritten, so a view stays good for as long as somebody holds it.
 */
export class Intake {
  bytes: Buffer = EMPTY;
  start = 0;
  end = 0;
  /** Up to here no end of a head was found; spares a slow sender's bytes a second search. */
  #searched = 0;
  #owned = false;

  get length(): number {
    return this.end - this.start;
  }

  push(chunk: Uint8Array): void {
    if (this.start !== this.end) {
      this.#append(chunk);
      return;
    }
    this.bytes = asBuffer(chunk);
    this.start = 0;
    this.end = chunk.length;
    this.#searched = 0;
    this.#owned = false;
  }

  #append(chunk: Uint8Array): void {
    if (!this.#owned || this.bytes.length - this.end < chunk.length) {
      const kept = this.end - this.start;
      const bytes = Buffer.allocUnsafeSlow(Math.max(1024, 2 * (kept + chunk.length)));
      this.bytes.copy(bytes, 0, this.start, this.end);
      this.#searched = Math.max(0, this.#searched - this.start);
      this.bytes = bytes;
      this.start = 0;
      this.end = kept;
      this.#owned = true;
    }
    this.bytes.set(chunk, this.end);
    this.end += chunk.length;
  }

  /** Consumes up to `max` bytes; a whole chunk is passed on as it came. */
  take(max: number): Uint8Array {
    const { bytes, start } = this;
    const count = Math.min(max, this.end - start);
    this.start = start + count;
    if (this.start === this.end) this.#release();
    if (start === 0 && count === bytes.length) return bytes;
    return bytes.subarray(start, start + count);
  }

  /** All is consumed: an idle connection keeps no chunk alive. */
  #release(): void {
    this.bytes = EMPTY;
    this.start = this.end = this.#searched = 0;
    this.#owned = false;
  }

  /** Whether the bytes here are the beginning of `text`, or begin with it. */
  mayStartWith(text: Buffer): boolean {
    const end = Math.min(this.end, this.start + text.length);
    return this.bytes.compare(text, 0, end - this.start, this.start, end) === 0;
  }

  /**
   * Consumes the text up to and including the next empty line; undefined while it is incomplete.
   * Bytes that can be part of no head are refused before it is complete, and before its size is.
   */
  takeHead(bytesMax: number): string | undefined {
    const { bytes, start } = this;
    const from = Math.max(start, this.#searched);
    const at = bytes.indexOf(HEAD_END, from);
    const complete = at >= 0 && at + 4 <= this.end;
    const length = complete ? at + 4 - start : this.end - start;
    if (!complete || length > bytesMax) {
      refuseStray(bytes, from, Math.min(this.end, start + bytesMax), start);
      if (length > bytesMax) throw new Malformed(`head is longer than ${bytesMax} bytes`, 431);
      this.#searched = Math.max(start, this.end - 3);
      return undefined;
    }
    this.start = this.#searched = at + 4;
    if (this.start === this.end) this.#release();
    return bytes.toString("latin1", start, at + 4);
  }
}

/**
 * Throws on a control byte, or a CR or LF that is not half of a CRLF, from `from` (at least
 * `start`, where a message starts) to `to`. A CR at the very end may still get its LF.
 */
export function refuseStray(bytes: Uint8Array, from: number, to: number, start = 0): void {
  for (let i = from; i < to; i++) {
    const code = bytes[i]!;
    if ((CLASS[code]! & VALUE) !== 0) continue;
    if (code === CR && (i + 1 === to || bytes[i + 1] === LF)) continue;
    if (code === LF && i > start && bytes[i - 1] === CR) continue;
    throw new Malformed("head has a control byte or a bare CR or LF");
  }
}
