/**
 * The mesh port: mutual TLS from other proxies, for all local workloads. The server name selects
 * workload and port, the negotiated protocol says what travels; nothing else is reachable here.
 */
import { H1_LIMITS, peerLimits } from "../http/h1/limits.ts";
import { parseSni, parseWorkloadIdentity } from "../identity/spiffe.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import { type Listener, listenTls } from "../net/listen.ts";
import type { TlsContext } from "../net/tls.ts";
import type { Edge, RequestMeter, TcpMeter } from "../telemetry/golden.ts";
import { Exchange } from "./exchange.ts";
import type { Forward } from "./forward.ts";
import { beginInbound, NO_REQUESTS } from "./http.ts";
import type { Side } from "./side.ts";
import { FLOODED, type ProxyState } from "./state.ts";
import { TCP_ALPN, tunnelToApp } from "./tcp.ts";
import type { LocalWorkload } from "./workload.ts";

const PEER_LIMITS = peerLimits(H1_LIMITS);
/** Callers keep connections for 30 s: they must be the ones who close first. */
const IDLE_SECONDS = 60;
const APP_CONNECT_TIMEOUT_MS = 3000;
/** Shorter than the 5 s after which common servers close: never send into a closing connection. */
const APP_IDLE_TIMEOUT_MS = 4000;

/** One service port of one local workload. */
interface InboundPort {
  readonly local: LocalWorkload;
  readonly servicePort: number;
  readonly forward: Forward;
}

class InboundSide implements Side<Exchange> {
  readonly direction = "inbound";
  readonly state: ProxyState;
  readonly workload: string;
  readonly source: string;
  readonly meter: RequestMeter;
  readonly tcpMeter: TcpMeter;
  readonly limits = PEER_LIMITS;
  readonly #forward: Forward;
  readonly #local: LocalWorkload;
  readonly #servicePort: number;

  constructor(port: InboundPort, source: string) {
    const { local } = port;
    this.state = local.state;
    this.workload = local.name;
    this.source = source;
    this.#forward = port.forward;
    this.#local = local;
    this.#servicePort = port.servicePort;
    const edge: Edge = {
      direction: "inbound",
      workload: local.name,
      source,
      peer: local.name,
      port: String(port.servicePort),
      subset: "",
      tls: "mtls",
    };
    this.meter = local.state.golden.meter(edge);
    this.tcpMeter = local.state.golden.tcpMeter(edge);
  }

  get idleSeconds(): number {
    return this.state.rooms.inbound.idleSeconds(IDLE_SECONDS);
  }

  begin(exchange: Exchange): void {
    if (this.#local.headerOf(this.#servicePort) !== undefined) {
      exchange.answer("bad_request", `${this.workload}:${this.#servicePort} ${NO_REQUESTS}`);
      return;
    }
    if (this.state.flooded()) exchange.answer("overflow", FLOODED);
    else beginInbound(exchange, this.#forward, this.#local.view?.snapshot.mesh.pathNormalization);
  }
}

/** Callers seen per port; beyond this the oldest are forgotten and met anew. */
const SIDES_MAX = 4096;

/** What the mesh port serves. Workloads come and go; connections stay. */
export class Inbound {
  readonly #state: ProxyState;
  /** By `<namespace>/<service>`; several are instances of one service on this node. */
  readonly #locals = new Map<string, LocalWorkload[]>();
  readonly #ports = new Map<LocalWorkload, ReadonlyMap<number, InboundPort>>();
  /** By caller. Instances of one service have ports of their own. */
  readonly #sides = new Map<InboundPort, Map<string, InboundSide>>();
  #turn = 0;

  constructor(state: ProxyState) {
    this.#state = state;
  }

  add(local: LocalWorkload): void {
    const known = this.#locals.get(local.name) ?? [];
    this.#locals.set(local.name, [...known, local]);
    const ports = new Map<number, InboundPort>();
    for (const [servicePort, { endpoint }] of local.apps) {
      const forward: Forward = {
        ...{ destination: undefined, endpoint, rule: undefined, backend: undefined, prefix: "" },
        connectTimeoutMs: APP_CONNECT_TIMEOUT_MS,
        idleTimeoutMs: APP_IDLE_TIMEOUT_MS,
      };
      ports.set(servicePort, { local, servicePort, forward });
    }
    this.#ports.set(local, ports);
  }

  /** @throws Error with `code` EADDRINUSE. */
  listen(host: string, port: number): Listener {
    return listenTls({
      host,
      port,
      admission: this.#state.rooms.inbound,
      context: (serverName) => this.#contextFor(serverName),
      requestCert: "required",
      alpn: ["http/1.1", TCP_ALPN],
      refused: (why) => {
        this.#state.golden.handshakesRefused.slot(why).value++;
      },
      accept: (c) => this.#accept(c),
    });
  }

  #contextFor(serverName: string): TlsContext | undefined {
    return this.#portFor(serverName)?.local.context;
  }

  #portFor(serverName: string): InboundPort | undefined {
    const trustDomain = this.#trustDomain();
    const name = trustDomain === undefined ? undefined : parseSni(serverName, trustDomain);
    if (name === undefined) return undefined;
    const locals = this.#locals.get(`${name.namespace}/${name.service}`);
    if (locals === undefined) return undefined;
    this.#turn = (this.#turn + 1) % locals.length;
    for (let i = 0; i < locals.length; i++) {
      const local = locals[(this.#turn + i) % locals.length]!;
      const port = this.#ports.get(local)?.get(name.port);
      if (port !== undefined && local.context !== undefined) return port;
    }
    return undefined;
  }

  /** All workloads of a proxy belong to one mesh. */
  #trustDomain(): string | undefined {
    for (const local of this.#ports.keys()) {
      const { view } = local;
      if (view !== undefined) return view.snapshot.mesh.trustDomain;
    }
    return undefined;
  }

  #accept(c: Connection): ConnectionHandler {
    const tls = c.tls;
    const port = tls === undefined ? undefined : this.#portFor(tls.serverName);
    const source = tls === undefined ? undefined : this.#callerOf(tls.uris);
    if (tls === undefined || port === undefined || source === undefined) {
      this.#state.golden.handshakesRefused.slot(port === undefined ? "port" : "identity").value++;
      c.destroy();
      return NOBODY;
    }
    const side = this.#sideFor(port, source);
    this.#state.golden.connections.slot("inbound", side.workload).value++;
    if (tls.alpn !== TCP_ALPN) return new Exchange(c, side);
    const { endpoint, connectTimeoutMs } = port.forward;
    const header = port.local.headerOf(port.servicePort);
    return tunnelToApp(c, endpoint!, header, connectTimeoutMs, side.tcpMeter, {
      state: this.#state,
      direction: "inbound",
      workload: side.workload,
      opened: () => undefined,
      // A reset before any byte tells the caller's proxy that the application saw nothing.
      failed: () => c.destroy(),
    });
  }

  /** `<namespace>/<service account>`; undefined unless it is exactly one identity of this mesh. */
  #callerOf(uris: readonly string[]): string | undefined {
    const [uri] = uris;
    if (uri === undefined || uris.length !== 1) return undefined;
    const identity = parseWorkloadIdentity(uri);
    if (identity === undefined || identity.trustDomain !== this.#trustDomain()) return undefined;
    return `${identity.namespace}/${identity.serviceAccount}`;
  }

  #sideFor(port: InboundPort, source: string): InboundSide {
    const known = this.#sides.get(port)?.get(source);
    if (known !== undefined) return known;
    const sides = this.#sides.get(port) ?? new Map<string, InboundSide>();
    if (sides.size >= SIDES_MAX) sides.clear();
    const side = new InboundSide(port, source);
    sides.set(source, side);
    this.#sides.set(port, sides);
    return side;
  }
}

const NOBODY: ConnectionHandler = { data() {}, end() {}, drain() {}, close() {} };
