/** Whether a local application accepts connections, or answers its health path. */
import { connect } from "node:net";
import type { AppPort, HealthProbe } from "../options.ts";

export interface AppHealth {
  readonly ok: boolean;
  /** What failed, or how it was found good. */
  readonly detail: string;
}

export interface AppHealthOptions {
  readonly app: readonly AppPort[];
  readonly probe: HealthProbe;
  /** Hears of every change. */
  readonly changed: (health: AppHealth) => void;
  /** Hears once what is wrong when it has not been well for two seconds from the start. */
  readonly late: (detail: string) => void;
}

/** While it is not well, so that a start is noticed at once. */
const SICK_INTERVAL_MS = 200;
const WELL_INTERVAL_MS = 2_000;
const TIMEOUT_MS = 1_000;
/** One slow answer is not an illness. */
const FAILURES_TO_FALL = 2;
const FAILURES_TO_BE_LATE = 10;

export class AppProbe {
  readonly #options: AppHealthOptions;
  #health: AppHealth;
  #failures = 0;
  #wasWell = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;

  constructor(options: AppHealthOptions) {
    this.#options = options;
    const unchecked = options.probe === "none" || options.app.length === 0;
    this.#health = unchecked
      ? { ok: true, detail: "not checked" }
      : { ok: false, detail: "not checked yet" };
    if (!unchecked) void this.#check();
  }

  get value(): AppHealth {
    return this.#health;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  async #check(): Promise<void> {
    const wrong = await this.#probe();
    if (this.#stopped) return;
    this.#failures = wrong === undefined ? 0 : this.#failures + 1;
    const before = this.#health;
    if (wrong === undefined) this.#wasWell = true;
    else if (!this.#wasWell && this.#failures === FAILURES_TO_BE_LATE) this.#options.late(wrong);
    if (wrong === undefined) this.#health = { ok: true, detail: "answers" };
    else if (!before.ok || this.#failures >= FAILURES_TO_FALL) {
      this.#health = { ok: false, detail: wrong };
    }
    if (before.ok !== this.#health.ok) this.#options.changed(this.#health);
    const settled = this.#health.ok && this.#failures === 0;
    const wait = settled ? WELL_INTERVAL_MS : SICK_INTERVAL_MS;
    this.#timer = setTimeout(() => void this.#check(), wait);
  }

  /** What is wrong; undefined when all is well. */
  async #probe(): Promise<string | undefined> {
    const { app, probe } = this.#options;
    if (probe.startsWith("/")) {
      const first = app.find(({ protocol }) => protocol === undefined || protocol === "http");
      return first === undefined ? tcpProbe(app) : httpProbe(first, probe);
    }
    return tcpProbe(app);
  }
}

async function tcpProbe(app: readonly AppPort[]): Promise<string | undefined> {
  const results = await Promise.all(app.map(({ host, port }) => canConnect(host, port)));
  return results.find((wrong) => wrong !== undefined);
}

function canConnect(host: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const finish = (wrong: string | undefined) => {
      socket.destroy();
      resolve(wrong);
    };
    socket.setTimeout(TIMEOUT_MS, () => finish(`${host}:${port} does not answer`));
    socket.once("connect", () => finish(undefined));
    socket.once("error", (error: Error & { readonly code?: string }) =>
      finish(`${host}:${port} ${error.code === "ECONNREFUSED" ? "refuses" : error.message}`),
    );
  });
}

async function httpProbe({ host, port }: AppPort, path: string): Promise<string | undefined> {
  const url = `http://${host.includes(":") ? `[${host}]` : host}:${port}${path}`;
  try {
    const response = await fetch(url, {
      signal: AbortSignal.timeout(TIMEOUT_MS),
      keepalive: false,
      redirect: "manual",
    });
    await response.body?.cancel();
    return response.ok ? undefined : `GET ${url} gives ${response.status}`;
  } catch {
    return `GET ${url} gets no answer`;
  }
}
