/** One child process that is kept running: prefixed output, restarts with back-off, a clean stop. */
import { constants } from "node:os";

export interface ChildSpec {
  readonly name: string;
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
}

export interface ChildEvents {
  /** One line of output, without its newline. */
  readonly line: (name: string, text: string) => void;
  /** It ended by itself; `againInMs` is absent when it will not be started again. */
  readonly ended: (name: string, how: string, againInMs: number | undefined) => void;
  /** The set of living processes changed. */
  readonly changed: () => void;
}

const BACKOFF_MS_MIN = 250;
const BACKOFF_MS_MAX = 5_000;
/** A process that lived this long starts its back-off anew. */
const STEADY_MS = 10_000;
/** A line without an end is cut here, so that a silent newline cannot fill memory. */
const LINE_LENGTH_MAX = 16_384;

type Running = Bun.Subprocess<"ignore", "pipe", "pipe">;

export class Child {
  readonly name: string;
  readonly #spec: ChildSpec;
  readonly #events: ChildEvents;
  readonly #now: () => number;
  #running: Running | undefined;
  #failures = 0;
  #stopping = false;
  #settled = false;
  #finished = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #exitedEarly: ((how: string) => void) | undefined;
  /** Settles with how it ended if it ends before `settle()`. */
  readonly early: Promise<string>;

  constructor(spec: ChildSpec, events: ChildEvents, now: () => number) {
    this.name = spec.name;
    this.#spec = spec;
    this.#events = events;
    this.#now = now;
    this.early = new Promise((resolve) => {
      this.#exitedEarly = resolve;
    });
  }

  get pid(): number | undefined {
    return this.#running?.pid;
  }

  /** It ended well and will not be started again. */
  get finished(): boolean {
    return this.#finished;
  }

  start(): void {
    const startedAt = this.#now();
    let child: Running;
    try {
      child = Bun.spawn([...this.#spec.command], {
        cwd: this.#spec.cwd,
        env: { ...this.#spec.env },
        stdin: "ignore",
        stdout: "pipe",
        stderr: "pipe",
        // A session of its own: Ctrl-C reaches us alone, and we stop the rest in order.
        detached: true,
      });
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      this.#exited(`could not be started: ${message}`, 127, startedAt);
      return;
    }
    this.#running = child;
    this.#events.changed();
    void this.#relay(child.stdout);
    void this.#relay(child.stderr);
    void child.exited.then((code) => {
      this.#running = undefined;
      this.#events.changed();
      const signal = child.signalCode;
      this.#exited(signal === null ? `exit ${code}` : `${signal}`, code, startedAt);
    });
  }

  /** From now on an end is repaired by a restart instead of being fatal. */
  settle(): void {
    this.#settled = true;
  }

  #exited(how: string, code: number, startedAt: number): void {
    if (this.#stopping) return;
    if (!this.#settled && code !== 0) {
      this.#events.ended(this.name, how, undefined);
      this.#exitedEarly?.(how);
      return;
    }
    // A program that ends well has done its work.
    if (code === 0) {
      this.#finished = true;
      this.#events.ended(this.name, how, undefined);
      return;
    }
    this.#failures = this.#now() - startedAt >= STEADY_MS ? 0 : this.#failures + 1;
    const delayMs = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.max(0, this.#failures - 1));
    this.#events.ended(this.name, how, delayMs);
    this.#timer = setTimeout(() => this.start(), delayMs);
  }

  /** SIGTERM, then SIGKILL when `graceMs` have passed. Settles when it is gone. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#timer);
    const child = this.#running;
    if (child === undefined) return;
    child.kill("SIGTERM");
    const timer = setTimeout(() => this.kill(), graceMs);
    await child.exited;
    clearTimeout(timer);
  }

  /** SIGKILL to it and to what it has started. */
  kill(): void {
    this.#stopping = true;
    clearTimeout(this.#timer);
    const pid = this.#running?.pid;
    if (pid === undefined) return;
    try {
      process.kill(-pid, constants.signals.SIGKILL);
    } catch {
      this.#running?.kill("SIGKILL");
    }
  }

  async #relay(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of stream) {
      rest += decoder.decode(chunk, { stream: true });
      const lines = rest.split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#events.line(this.name, line);
      if (rest.length > LINE_LENGTH_MAX) {
        this.#events.line(this.name, rest);
        rest = "";
      }
    }
    if (rest !== "") this.#events.line(this.name, rest);
  }
}
