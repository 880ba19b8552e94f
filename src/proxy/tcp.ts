/** Opaque TCP: joining a caller with an endpoint, whatever they speak. */
import type { Reason } from "../error.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import type { TcpMeter } from "../telemetry/golden.ts";
import type { Destination } from "../upstream/destination.ts";
import type { Endpoint } from "../upstream/endpoint.ts";
import { type Relay, relay } from "./relay.ts";
import type { ProxyState, Ticking } from "./state.ts";

/** ALPN name of opaque TCP between proxies. */
export const TCP_ALPN = "weft-tcp";

/** What becomes of a tunnel that cannot be opened. */
export interface TunnelOptions {
  readonly state: ProxyState;
  readonly direction: "inbound" | "outbound";
  readonly workload: string;
  /** Called when the endpoint is there, before bytes flow; returns bytes that go to it first. */
  opened(): Uint8Array | undefined;
  /** Nothing could be reached. */
  failed(reason: Reason, message: string): void;
}

/** To the application behind an inbound port. */
export function tunnelToApp(
  caller: Connection,
  endpoint: Endpoint,
  connectTimeoutMs: number,
  meter: TcpMeter,
  options: TunnelOptions,
): ConnectionHandler {
  const tunnel = new Tunnel(caller, meter, options);
  endpoint.dial(
    "",
    connectTimeoutMs,
    (server) => tunnel.join(server, endpoint),
    (error) => tunnel.fail("app_unreachable", error.message),
  );
  return tunnel;
}

/** To an instance of a service: tries further ones as its retry policy says. */
export function tunnelToService(
  caller: Connection,
  destination: Destination,
  options: TunnelOptions,
): ConnectionHandler {
  const { policy } = destination.target;
  const { now, random } = options.state;
  const tried: Endpoint[] = [];
  let attempts = 0;
  const tunnel = new Tunnel(caller, undefined, options);
  if (destination.active >= policy.maxConnections) {
    tunnel.meter = destination.meters.tcp(false);
    queueMicrotask(() => tunnel.fail("overflow", "too many connections to this service"));
    return tunnel;
  }
  destination.active++;
  tunnel.onOver = () => destination.leave();
  const attempt = () => {
    const endpoint = destination.pick(now(), random, tried);
    if (endpoint === undefined) {
      tunnel.meter ??= destination.meters.tcp(false);
      queueMicrotask(() => tunnel.fail("no_endpoint", "the service has no instance"));
      return;
    }
    tried.push(endpoint);
    attempts++;
    tunnel.meter = destination.meters.tcp(endpoint.mesh !== undefined);
    endpoint.dial(
      TCP_ALPN,
      policy.connectTimeoutMs,
      (server) => tunnel.join(server, endpoint),
      (error) => {
        if (attempts <= policy.retries.attempts && !tunnel.over) attempt();
        else tunnel.fail("connect_failed", `cannot reach ${endpoint.name}: ${error.message}`);
      },
    );
  };
  attempt();
  return tunnel;
}

const IGNORE: ConnectionHandler = { data() {}, end() {}, drain() {}, close() {} };

/** A caller whose endpoint is being dialled; afterwards the pair of them. */
class Tunnel implements ConnectionHandler, Ticking {
  meter: TcpMeter | undefined;
  /** Called once when it is over. */
  onOver: (() => void) | undefined;
  readonly #caller: Connection;
  readonly #options: TunnelOptions;
  #relay: Relay | undefined;
  #over = false;
  #held: Uint8Array[] = [];
  #ended = false;

  constructor(caller: Connection, meter: TcpMeter | undefined, options: TunnelOptions) {
    this.#caller = caller;
    this.meter = meter;
    this.#options = options;
    options.state.open.add(this);
    caller.pause();
  }

  get over(): boolean {
    return this.#over;
  }

  join(server: Connection, endpoint: Endpoint): ConnectionHandler {
    if (this.#over || this.meter === undefined || this.#caller.closed) {
      server.destroy();
      this.#finish("");
      return IGNORE;
    }
    const { meter } = this;
    const first = this.#options.opened();
    if (first !== undefined && first.length > 0) this.#forward(server, first);
    for (const chunk of this.#held.splice(0)) this.#forward(server, chunk);
    endpoint.active++;
    this.#relay = relay(this.#caller, server, meter, (error) => {
      endpoint.active--;
      this.#finish(error === undefined ? "" : "upstream_reset");
    });
    if (this.#ended) server.end();
    return server.handler;
  }

  #forward(server: Connection, bytes: Uint8Array): void {
    if (this.meter !== undefined) this.meter.received.value += bytes.length;
    server.write(bytes);
  }

  fail(reason: Reason, message: string): void {
    if (this.#over) return;
    this.#finish(reason);
    this.#options.failed(reason, message);
  }

  #finish(reason: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#options.state.open.delete(this);
    this.meter?.record(reason);
    this.onOver?.();
  }

  data(_c: Connection, chunk: Uint8Array): void {
    this.#held.push(chunk);
  }

  end(): void {
    this.#ended = true;
  }

  drain(): void {}

  close(): void {
    this.#finish("");
  }

  get direction(): "inbound" | "outbound" {
    return this.#options.direction;
  }

  get workload(): string {
    return this.#options.workload;
  }

  tick(): void {}

  /** A tunnel has no end of its own: it lasts until the drain's limit. */
  get idle(): boolean {
    return false;
  }

  shut(force: boolean): void {
    if (!force) return;
    this.#relay?.destroy();
    this.#caller.destroy();
  }
}
