/**
 * What the caller of a port without a declared protocol speaks, found out without anybody waiting:
 * a tunnel to the service is opened at once, and whoever speaks first decides. Bytes of the
 * service mean that the tunnel is wanted, and so do bytes of the caller that cannot be HTTP. With
 * the beginning of an HTTP request the unused tunnel is dropped, and the request takes the way of
 * requests.
 */
import { FirstBytes } from "../http/h1/first-bytes.ts";
import { guarded } from "../net/boundary.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import type { Destination } from "../upstream/destination.ts";
import type { Trial } from "./relay.ts";
import type { ProxyState } from "./state.ts";
import { type Hold, type OpeningTunnel, tunnelToService } from "./tcp.ts";
import type { Verdicts } from "./verdicts.ts";

export interface DetectOptions {
  readonly state: ProxyState;
  readonly workload: string;
  readonly verdicts: Verdicts;
  /** Makes the handler that serves the caller's requests. */
  http(): ConnectionHandler;
}

/**
 * Where the last caller spoke HTTP, a tunnel is opened only for one that has not spoken for this
 * long, milliseconds: it costs the service a connection. Also how long a service that speaks first
 * is late when it comes in the place of one that spoke HTTP.
 */
const LATE_MS = 20;
/** A caller that stops within what could be a request line is not held any longer, milliseconds. */
const QUIET_MS = 1000;
/** No instance can be reached: a caller that is about to send a request still gets an answer. */
const FAILED_MS = 30;

/**
 * silent: closed before anybody spoke. remembered: a service known to speak first; not looked at.
 */
type Outcome = "http" | "not_http" | "server_first" | "silent" | "remembered";

/** The handler of a caller of whom it is not known what it speaks. */
export function acceptUndeclared(
  caller: Connection,
  destination: Destination,
  options: DetectOptions,
): ConnectionHandler {
  const known = options.verdicts.get(destination.target.key);
  if (known !== "server_first") {
    return new Detection(caller, destination, options, known === "http");
  }
  count(destination, options, "remembered");
  const { state, workload } = options;
  return tunnelToService(caller, destination, {
    ...{ state, direction: "outbound", workload, opened: () => undefined },
    failed: () => caller.destroy(),
  });
}

function count(destination: Destination, options: DetectOptions, outcome: Outcome): void {
  const { namespace, service, port } = destination.target;
  const { detections } = options.state.golden;
  detections.slot(options.workload, `${namespace}/${service}`, String(port), outcome).value++;
}

/** An endpoint that waits for the caller's protocol to be known. */
interface Parked {
  readonly server: Connection;
  readonly trial: Trial | undefined;
  readonly join: () => void;
}

class Detection implements ConnectionHandler, Hold {
  readonly #caller: Connection;
  readonly #destination: Destination;
  readonly #options: DetectOptions;
  readonly #first = new FirstBytes();
  #holding = true;
  #held: Uint8Array[] = [];
  #ended = false;
  #tunnel: OpeningTunnel | undefined;
  #parked: Parked | undefined;
  /** No instance could be reached. */
  #failed = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `late`: the caller most likely speaks HTTP. */
  constructor(caller: Connection, destination: Destination, options: DetectOptions, late: boolean) {
    this.#caller = caller;
    this.#destination = destination;
    this.#options = options;
    if (late) this.#timer = this.#after(LATE_MS, () => this.#open());
    else this.#open();
  }

  get holding(): boolean {
    return this.#holding;
  }

  // ---- the caller --------------------------------------------------------------------------

  data(_c: Connection, chunk: Uint8Array): void {
    this.#held.push(chunk);
    switch (this.#first.push(chunk)) {
      case "http":
        this.#toHttp();
        return;
      case "other":
        this.#toTunnel("not_http");
        return;
      case "more":
        if (this.#failed) return;
        clearTimeout(this.#timer);
        this.#timer = this.#after(QUIET_MS, () => this.#toTunnel("not_http"));
        this.#open();
    }
  }

  end(): void {
    this.#ended = true;
    this.#toTunnel(this.#held.length === 0 ? "silent" : "not_http");
  }

  drain(): void {}

  close(c: Connection, error: Error | undefined): void {
    if (!this.#holding) return;
    const parked = this.#parked;
    this.#decided("silent");
    this.#tunnel?.close(c, error);
    parked?.server.destroy();
  }

  // ---- the service -------------------------------------------------------------------------

  park(server: Connection, trial: Trial | undefined, join: () => void): ConnectionHandler {
    this.#parked = { server, trial, join };
    return {
      data: (c, chunk) => {
        if (!this.#holding) return;
        if (!isAnswer(chunk)) this.#remember("server_first");
        this.#toTunnel("server_first");
        c.handler.data(c, chunk);
      },
      end: (c) => {
        if (!this.#holding) return;
        this.#toTunnel("silent");
        c.handler.end(c);
      },
      drain() {},
      close: () => guarded("detect", this.#caller, () => this.#lost(trial)),
    };
  }

  /** The endpoint went away before anybody spoke. */
  #lost(trial: Trial | undefined): void {
    if (!this.#holding) return;
    this.#parked = undefined;
    if (trial?.failed() === "again") return;
    const reason = trial === undefined ? "upstream_reset" : "app_unreachable";
    this.#tunnel?.fail(reason, "the service reset the connection");
  }

  #open(): void {
    if (this.#tunnel !== undefined || this.#caller.closed) return;
    const { state, workload } = this.#options;
    this.#tunnel = tunnelToService(this.#caller, this.#destination, {
      ...{ state, direction: "outbound", workload, opened: () => undefined },
      failed: () => this.#onFailed(),
      hold: this,
    });
  }

  #onFailed(): void {
    this.#failed = true;
    clearTimeout(this.#timer);
    if (!this.#holding || this.#ended) this.#caller.destroy();
    else this.#timer = this.#after(FAILED_MS, () => this.#caller.destroy());
  }

  #after(ms: number, run: () => void): ReturnType<typeof setTimeout> {
    return setTimeout(() => guarded("detect", this.#caller, run), ms);
  }

  // ---- verdicts ----------------------------------------------------------------------------

  #decided(outcome: Outcome): void {
    this.#holding = false;
    this.#parked = undefined;
    clearTimeout(this.#timer);
    count(this.#destination, this.#options, outcome);
  }

  #remember(verdict: "http" | "server_first"): void {
    this.#options.verdicts.put(this.#destination.target.key, verdict);
  }

  #toHttp(): void {
    const parked = this.#parked;
    this.#decided("http");
    this.#remember("http");
    this.#tunnel?.drop();
    parked?.server.close();
    const handler = this.#options.http();
    this.#caller.handler = handler;
    handler.data(
      this.#caller,
      this.#held.length === 1 ? this.#held[0]! : Buffer.concat(this.#held),
    );
    this.#held = [];
  }

  #toTunnel(outcome: Outcome): void {
    const parked = this.#parked;
    const caller = this.#caller;
    this.#decided(outcome);
    if (this.#failed) {
      caller.destroy();
      return;
    }
    this.#open();
    const tunnel = this.#tunnel!;
    caller.handler = tunnel;
    for (const chunk of this.#held.splice(0)) tunnel.data(caller, chunk);
    if (this.#ended) tunnel.end(caller);
    if (parked === undefined) caller.pause();
    else parked.join();
  }
}

/** An HTTP server that was tired of waiting (408) does not speak first. */
function isAnswer(chunk: Uint8Array): boolean {
  return "HTTP/".startsWith(Buffer.from(chunk.subarray(0, 5)).toString("latin1"));
}
