/**
 * The mesh port: mutual TLS from other proxies, for all local workloads. The server name selects
 * workload and port, the negotiated protocol says what travels; nothing else is reachable here,
 * but for what is permitted in plaintext.
 */
import { REASONS } from "../error.ts";
import { parseSni, parseWorkloadIdentity } from "../identity/spiffe.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import { type Accept, type Listener, listenTls } from "../net/listen.ts";
import { Exchange } from "./exchange.ts";
import type { Forward } from "./forward.ts";
import { ownAnswer } from "./heads.ts";
import { type InboundPort, InboundSide, ruleOf } from "./inbound-port.ts";
import { PlaintextSide, servedInPlaintext } from "./plaintext.ts";
import type { Side } from "./side.ts";
import type { ProxyState } from "./state.ts";
import { TCP_ALPN, tunnelToApp } from "./tcp.ts";
import type { LocalWorkload } from "./workload.ts";

const APP_CONNECT_TIMEOUT_MS = 3000;
/** Shorter than the 5 s after which common servers close: never send into a closing connection. */
const APP_IDLE_TIMEOUT_MS = 4000;

/** For callers of whom too many are here. */
const ELSEWHERE = ownAnswer(
  REASONS.app_unreachable.status,
  "weft-reason: app_unreachable\r\n",
  "",
  { close: true, headOnly: false },
);

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
      context: (serverName) => this.#instancesOf(serverName)[0]?.local.context,
      requestCert: "required",
      alpn: ["http/1.1", TCP_ALPN],
      plaintext: (first) => this.#plaintext(first),
      refused: (why) => {
        this.#state.golden.handshakesRefused.slot(why).value++;
      },
      accept: (c) => this.#accept(c),
    });
  }

  /** Of the port that a server name means, those that are ready for callers. */
  #instancesOf(serverName: string): readonly InboundPort[] {
    const trustDomain = this.#trustDomain();
    const name = trustDomain === undefined ? undefined : parseSni(serverName, trustDomain);
    if (name === undefined) return [];
    const locals = this.#locals.get(`${name.namespace}/${name.service}`) ?? [];
    const ports = locals.flatMap((local) => this.#ports.get(local)?.get(name.port) ?? []);
    return ports.filter(({ local }) => local.context !== undefined);
  }

  /** Instances on one host take turns. */
  #next(instances: readonly InboundPort[]): InboundPort | undefined {
    this.#turn++;
    return instances[this.#turn % instances.length];
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
    const port = tls === undefined ? undefined : this.#next(this.#instancesOf(tls.serverName));
    const source = tls === undefined ? undefined : this.#callerOf(tls.uris);
    if (tls === undefined || port === undefined || source === undefined) {
      this.#state.golden.handshakesRefused.slot(port === undefined ? "port" : "identity").value++;
      c.destroy();
      return NOBODY;
    }
    if (!this.#state.rooms.inbound.identify(c, source)) {
      this.#state.golden.handshakesRefused.slot("source").value++;
      // Both tell the caller's proxy that the application saw nothing: another instance may serve.
      if (tls.alpn === TCP_ALPN) c.destroy();
      else {
        c.write(ELSEWHERE);
        c.close();
      }
      return NOBODY;
    }
    const side = this.#counted(this.#sideFor(port, source));
    return tls.alpn === TCP_ALPN ? this.#tunnel(c, port, side) : new Exchange(c, side);
  }

  #tunnel(c: Connection, port: InboundPort, side: InboundSide): ConnectionHandler {
    const { endpoint, connectTimeoutMs } = port.forward;
    const header = ruleOf(port)?.proxyProtocol;
    return tunnelToApp(c, endpoint!, header, connectTimeoutMs, side.tcpMeter, {
      state: this.#state,
      direction: "inbound",
      workload: side.workload,
      permitted: () => side.permitted,
      opened: () => undefined,
      // A reset before any byte tells the caller's proxy that the application saw nothing.
      failed: () => c.destroy(),
    });
  }

  /** What serves a caller without TLS of the mesh. */
  #plaintext(first: Uint8Array): Accept | "more" | undefined {
    const state = this.#state;
    const ports = [...this.#ports.values()].flatMap((of) => [...of.values()]);
    const served = servedInPlaintext(ports, first);
    if (served === "more") return served;
    if (served === "http") {
      const sideOf = (meant: readonly InboundPort[]) => this.#sideFor(this.#next(meant)!, "");
      return (c) => new Exchange(c, this.#counted(new PlaintextSide({ state, ports, sideOf })));
    }
    if (served.length === 0) return undefined;
    return (c) => {
      const port = this.#next(served)!;
      return this.#tunnel(c, port, this.#counted(this.#sideFor(port, "")));
    };
  }

  #counted<S extends Side<Exchange>>(side: S): S {
    this.#state.golden.connections.slot("inbound", side.workload).value++;
    return side;
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
