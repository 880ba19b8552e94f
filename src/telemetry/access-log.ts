/** One JSON line for each request, written in batches. */
import { jsonText } from "./log.ts";

export interface AccessRecord {
  readonly direction: "inbound" | "outbound";
  readonly workload: string;
  readonly source: string;
  readonly peer: string;
  readonly method: string;
  readonly authority: string;
  readonly path: string;
  readonly status: number;
  readonly reason: string;
  readonly durationMs: number;
  readonly endpoint: string;
  readonly attempts: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
  readonly requestId: string;
  readonly trace: string;
  readonly route: string;
  /**
   * `ADDRESS:PORT` of the caller's own caller, where a relay has announced it, and of a caller in
   * plaintext at the mesh port.
   */
  readonly client?: string;
}

/** Lines are written once this many characters wait, and at least twice a second. */
const BATCH_CHARS = 16 * 1024;
const FLUSH_MS = 500;

export class AccessLog {
  readonly #write: (text: string) => void;
  /** Wall clock, Unix milliseconds. */
  readonly #now: () => number;
  readonly #timer: ReturnType<typeof setInterval>;
  #waiting = "";

  constructor(write: (text: string) => void, now: () => number) {
    this.#write = write;
    this.#now = now;
    this.#timer = setInterval(() => this.flush(), FLUSH_MS);
    this.#timer.unref();
  }

  record(record: AccessRecord): void {
    const time = new Date(this.#now()).toISOString();
    this.#waiting += `${jsonText({ time, log: "access", ...record })}\n`;
    if (this.#waiting.length >= BATCH_CHARS) this.flush();
  }

  flush(): void {
    if (this.#waiting === "") return;
    const text = this.#waiting;
    this.#waiting = "";
    this.#write(text);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.flush();
  }
}
