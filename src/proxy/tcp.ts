/** Opaque TCP: joining a caller with an endpoint, whatever they speak. */
import { MeshError, type Reason } from "../error.ts";
import { guarded } from "../net/boundary.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import { type Ends, type ProxyVersion, writeProxyHeader } from "../net/proxy-protocol.ts";
import type { Room } from "../net/room.ts";
import type { Source } from "../net/shares.ts";
import type { TcpMeter } from "../telemetry/golden.ts";
import type { Destination } from "../upstream/destination.ts";
import type { Endpoint } from "../upstream/endpoint.ts";
import { Allowance } from "./allowance.ts";
import { type Relay, relay, type Trial } from "./relay.ts";
import { type FailureKind, ReplayBuffer } from "./retry.ts";
import { FLOODED, GREEDY, type ProxyState, type Ticking } from "./state.ts";

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
  /** False: it may not go on. Absent: it always may. */
  permitted?(): boolean;
  /** Set where it is not known yet whether the caller wants a tunnel. */
  readonly hold?: Hold;
}

/** Has the caller to itself until it is known that its bytes are for the tunnel. */
export interface Hold {
  readonly holding: boolean;
  /** An endpoint is there; `join` gives it the caller. The handler is the endpoint's till then. */
  park(server: Connection, trial: Trial | undefined, join: () => void): ConnectionHandler;
}

/** A tunnel on its way. It takes over the caller once an endpoint is there. */
export interface OpeningTunnel extends ConnectionHandler {
  fail(reason: Reason, message: string): void;
  /** It was not wanted: nothing is counted, and nothing happens to the caller. */
  drop(): void;
}

/** To the application behind an inbound port, which may expect a PROXY header. */
export function tunnelToApp(
  caller: Connection,
  endpoint: Endpoint,
  header: ProxyVersion | undefined,
  connectTimeoutMs: number,
  meter: TcpMeter,
  options: TunnelOptions,
): ConnectionHandler {
  const tunnel = new Tunnel(caller, meter, options);
  if (options.state.flooded() || tunnel.greedy) {
    tunnel.failSoon("overflow", tunnel.greedy ? GREEDY : FLOODED);
    return tunnel;
  }
  const opened = (server: Connection) => tunnel.join(server, endpoint, new AppTrial());
  const failed = (error: Error) => {
    const reason = error instanceof MeshError ? error.reason : "app_unreachable";
    tunnel.guarded(() => tunnel.fail(reason, error.message));
  };
  tunnel.guarded(() => {
    const preface = header && writeProxyHeader(header, caller.ends);
    endpoint.dial("", connectTimeoutMs, opened, failed, preface);
  });
  return tunnel;
}

/**
 * A reset before any byte tells the caller's proxy that the application saw nothing. One that did
 * see something and resets is therefore passed on as a close.
 */
class AppTrial implements Trial {
  #touched = false;

  sent(): void {
    this.#touched = true;
  }

  ended(): void {}

  passed(): void {}

  failed(): "reset" | "close" {
    return this.#touched ? "close" : "reset";
  }
}

/** To an instance of a service: tries further ones as its retry policy says. */
export function tunnelToService(
  caller: Connection,
  destination: Destination,
  options: TunnelOptions,
): OpeningTunnel {
  const tunnel = new Tunnel(caller, undefined, options);
  if (options.state.flooded() || tunnel.greedy) {
    tunnel.meter = destination.meters.tcp("none");
    tunnel.failSoon("overflow", tunnel.greedy ? GREEDY : FLOODED);
  } else if (destination.active >= destination.target.policy.maxConnections) {
    tunnel.meter = destination.meters.tcp("none");
    tunnel.failSoon("overflow", "too many connections to this service");
  } else tunnel.guarded(() => new ServiceTrial(tunnel, destination, options).attempt());
  return tunnel;
}

const NO_METHOD = "";

/** The attempts of one tunnel to reach an instance that serves it. */
class ServiceTrial implements Trial {
  readonly #tunnel: Tunnel;
  readonly #destination: Destination;
  readonly #options: TunnelOptions;
  readonly #allowance = new Allowance();
  readonly #tried: Endpoint[] = [];
  readonly #replay = new ReplayBuffer();

  constructor(tunnel: Tunnel, destination: Destination, options: TunnelOptions) {
    this.#tunnel = tunnel;
    this.#destination = destination;
    this.#options = options;
    this.#allowance.enter(destination, this);
    tunnel.onOver = () => this.#allowance.release(this);
  }

  /** There is no waiting for a turn: whoever waited would hold a caller that cannot know. */
  onTurn(): void {}

  attempt(): void {
    const { now, random } = this.#options.state;
    const tunnel = this.#tunnel;
    const destination = this.#destination;
    const endpoint = destination.pick(now(), random, this.#tried);
    if (endpoint === undefined) {
      tunnel.meter ??= destination.meters.tcp("none");
      tunnel.failSoon("no_endpoint", "no instance of the service is up and healthy");
      return;
    }
    this.#tried.push(endpoint);
    tunnel.meter = destination.meters.tcp(endpoint.security);
    endpoint.dial(
      TCP_ALPN,
      destination.target.policy.connectTimeoutMs,
      (server) => {
        const joined = tunnel.join(server, endpoint, endpoint.mesh && this, this.#replay);
        if (endpoint.mesh === undefined) this.passed();
        return joined;
      },
      (error) =>
        tunnel.guarded(() => {
          if (error instanceof MeshError) tunnel.fail(error.reason, error.message);
          else if (!tunnel.over && this.#takeRetry("connect")) this.attempt();
          else tunnel.fail("connect_failed", `cannot reach ${endpoint.name}: ${error.message}`);
        }),
      this.#preface,
    );
  }

  /** Of a server without a proxy, which may expect a PROXY header; others do not get it. */
  get #preface(): Uint8Array | undefined {
    const { proxyProtocol } = this.#destination.target.policy;
    return proxyProtocol && writeProxyHeader(proxyProtocol, this.#tunnel.ends);
  }

  #takeRetry(kind: FailureKind): boolean {
    const count = { golden: this.#options.state.golden, workload: this.#options.workload };
    return this.#allowance.retry(kind, this.#tried.length, NO_METHOD, count);
  }

  sent(chunk: Uint8Array): void {
    this.#replay.add(chunk);
  }

  ended(): void {
    this.#tunnel.end();
  }

  passed(): void {
    this.#tried.at(-1)?.worked();
    this.#replay.clear();
    this.#allowance.settle();
  }

  failed(): "again" | "reset" {
    this.#tried.at(-1)?.avoid();
    this.#tunnel.refused = "app_unreachable";
    if (!this.#replay.complete || !this.#takeRetry("app_unreachable")) return "reset";
    this.#tunnel.takeBack();
    this.#tunnel.guarded(() => this.attempt());
    return "again";
  }
}

const IGNORE: ConnectionHandler = { data() {}, end() {}, drain() {}, close() {} };

/** A caller whose endpoint is being dialled; afterwards the pair of them. */
class Tunnel implements OpeningTunnel, Ticking {
  meter: TcpMeter | undefined;
  /** Called once when it is over. */
  onOver: (() => void) | undefined;
  /** Why the endpoint refused, where a reset says more than that it happened. */
  refused: Reason | undefined;
  readonly #caller: Connection;
  readonly #options: TunnelOptions;
  /** Set while it is counted as this source's. */
  #source: Source | undefined;
  #endpoint: Endpoint | undefined;
  #relay: Relay | undefined;
  #opened = false;
  #over = false;
  #held: Uint8Array[] = [];
  #ended = false;

  constructor(caller: Connection, meter: TcpMeter | undefined, options: TunnelOptions) {
    this.#caller = caller;
    this.meter = meter;
    this.#options = options;
    const { source } = caller;
    if (source !== undefined && this.#room.begin(source)) this.#source = source;
    if (!this.#holding) caller.pause();
    options.state.open.add(this);
  }

  get ends(): Ends {
    return this.#caller.ends;
  }

  get #room(): Room {
    return this.#options.state.rooms[this.#options.direction];
  }

  /** Its source has too much already. */
  get greedy(): boolean {
    return this.#caller.source !== this.#source;
  }

  get #holding(): boolean {
    return this.#options.hold?.holding === true;
  }

  get over(): boolean {
    return this.#over;
  }

  /** `replay`: what an earlier endpoint got and did nothing with. */
  join(
    server: Connection,
    endpoint: Endpoint,
    trial: Trial | undefined,
    replay?: ReplayBuffer,
  ): ConnectionHandler {
    server.handler = IGNORE;
    this.guarded(() => this.#join(server, endpoint, trial, replay));
    if (this.#caller.closed) server.destroy();
    return server.handler;
  }

  #join(
    server: Connection,
    endpoint: Endpoint,
    trial: Trial | undefined,
    replay: ReplayBuffer | undefined,
  ): void {
    if (this.#over || this.meter === undefined || this.#caller.closed) {
      server.destroy();
      this.#finish("");
      return;
    }
    if (this.#holding) {
      const join = () => void this.join(server, endpoint, trial, replay);
      server.handler = this.#options.hold!.park(server, trial, join);
      return;
    }
    const { meter } = this;
    for (const chunk of replay?.chunks() ?? []) server.write(chunk);
    const first = this.#opened ? undefined : this.#options.opened();
    this.#opened = true;
    if (first !== undefined && first.length > 0) this.#held.unshift(first);
    for (const chunk of this.#held.splice(0)) {
      trial?.sent(chunk);
      meter.received.value += chunk.length;
      server.write(chunk);
    }
    this.#endpoint = endpoint;
    endpoint.active++;
    this.refused = undefined;
    const done = (error: Error | undefined) => {
      this.#leave();
      if (error instanceof MeshError) this.#finish(error.reason);
      else this.#finish(error === undefined ? "" : (this.refused ?? "upstream_reset"));
    };
    this.#relay = relay(this.#caller, server, meter, done, trial);
    if (this.#ended) server.end();
  }

  /** An exception costs this tunnel. */
  guarded(run: () => void): void {
    guarded("tunnel", this, run);
  }

  destroy(): void {
    this.#relay?.destroy();
    this.#caller.destroy();
    this.#finish("");
  }

  failSoon(reason: Reason, message: string): void {
    queueMicrotask(() => this.guarded(() => this.fail(reason, message)));
  }

  /** The endpoint is gone and saw nothing: the caller waits for another. */
  takeBack(): void {
    this.#leave();
    this.#relay = undefined;
    if (this.#holding) return;
    this.#caller.handler = this;
    this.#caller.pause();
  }

  #leave(): void {
    if (this.#endpoint !== undefined) this.#endpoint.active--;
    this.#endpoint = undefined;
  }

  fail(reason: Reason, message: string): void {
    if (this.#over) return;
    this.#finish(reason);
    this.#options.failed(reason, message);
  }

  drop(): void {
    this.meter = undefined;
    this.#finish("");
  }

  #finish(reason: string): void {
    if (this.#over) return;
    this.#over = true;
    if (this.#source !== undefined) this.#room.end(this.#source);
    this.#options.state.open.delete(this);
    this.meter?.record(reason);
    this.onOver?.();
  }

  data(c: Connection, chunk: Uint8Array): void {
    this.#held.push(chunk);
    c.pause();
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

  tick(): void {
    if (this.#options.permitted?.() === false) this.shut(true);
    else this.#relay?.tick();
  }

  get pendingBytes(): number {
    return this.#relay?.pendingBytes ?? this.#caller.pendingBytes;
  }

  /** A tunnel has no end of its own: it lasts until the drain's limit, unless nobody spoke yet. */
  get idle(): boolean {
    return this.#holding;
  }

  shut(force: boolean): void {
    if (!force) {
      if (this.#holding) this.#caller.close();
      return;
    }
    this.destroy();
  }
}
