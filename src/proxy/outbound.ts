/** Where local applications reach the mesh: loopback listeners, each speaking for one workload. */
import { REASONS } from "../error.ts";
import { H1_LIMITS } from "../http/h1/limits.ts";
import { guarded } from "../net/boundary.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import { type Listener, type ListenPlainOptions, listen } from "../net/listen.ts";
import type { RequestMeter } from "../telemetry/golden.ts";
import { acceptUndeclared } from "./detect.ts";
import { Exchange } from "./exchange.ts";
import { ownAnswer } from "./heads.ts";
import { beginOutbound, type Outbound } from "./http.ts";
import type { OutsideHosts } from "./outside.ts";
import type { Side } from "./side.ts";
import { ByFirstByte } from "./sni.ts";
import { FLOODED, type ProxyState } from "./state.ts";
import { tunnelToService } from "./tcp.ts";
import type { LocalWorkload } from "./workload.ts";

/** Applications keep connections for as long as they like, within reason. */
const IDLE_SECONDS = 3600;

/** For callers that there is no room for. */
const FULL = ownAnswer(
  REASONS.overflow.status,
  "",
  "overflow: too many connections to this proxy\n",
  { close: true, headOnly: false },
);

export class OutboundSide implements Side<Exchange>, Outbound {
  readonly direction = "outbound";
  readonly local: LocalWorkload;
  readonly outside: OutsideHosts;
  readonly state: ProxyState;
  readonly workload: string;
  readonly source: string;
  readonly meter: RequestMeter;
  readonly limits = H1_LIMITS;
  readonly permitted = true;
  /** Set where the listener and not the request says which service is meant. */
  readonly authority: string | undefined;

  constructor(local: LocalWorkload, outside: OutsideHosts, authority: string | undefined) {
    this.local = local;
    this.outside = outside;
    this.state = local.state;
    this.workload = local.name;
    this.source = local.name;
    this.meter = local.unrouted;
    this.authority = authority;
  }

  get idleSeconds(): number {
    return this.state.rooms.outbound.idleSeconds(IDLE_SECONDS);
  }

  begin(exchange: Exchange): void {
    if (this.state.flooded()) exchange.answer("overflow", FLOODED);
    else if (!exchange.downstream.destroyed) beginOutbound(exchange, this);
  }
}

/** The port where the authority of a request, or the server name of TLS, names the service. */
export function listenOutbound(side: OutboundSide, host: string, port: number): Listener {
  const admission = side.state.rooms.outbound;
  const accept = (c: Connection) => new ByFirstByte(acceptHttp(c, side), side);
  const { workload: source } = side;
  return listen({ host, port, admission, source, full: FULL, accept, ...relaysOf(side) });
}

/** A port that leads to one service: HTTP where the service speaks it, opaque TCP, or found out. */
export function listenUpstream(
  side: OutboundSide,
  authority: string,
  service: { readonly namespace: string; readonly service: string },
  host: string,
  port: number,
): Listener {
  const admission = side.state.rooms.outbound;
  const accept = (c: Connection) => acceptUpstream(c, side, authority, service);
  const { workload: source } = side;
  return listen({ host, port, admission, source, accept, ...relaysOf(side) });
}

function relaysOf({ state: { relays } }: OutboundSide): Pick<ListenPlainOptions, "relays"> {
  return relays === undefined ? {} : { relays };
}

function acceptHttp(c: Connection, side: OutboundSide): ConnectionHandler {
  const { golden } = side.state;
  golden.connections.slot("outbound", side.workload).value++;
  return new Exchange(c, side);
}

function acceptUpstream(
  c: Connection,
  side: OutboundSide,
  authority: string,
  service: { readonly namespace: string; readonly service: string },
): ConnectionHandler {
  const found = side.local.view?.authorities.resolve(authority);
  if (found?.kind === "service") {
    if (found.port.protocol === "http") return acceptHttp(c, side);
    const { state, workload, local } = side;
    state.golden.connections.slot("outbound", workload).value++;
    const destination = local.upstreams.destination(found.port.target);
    if (found.port.detect) {
      const http = () => new Exchange(c, side);
      const { verdicts } = local;
      return acceptUndeclared(c, destination, { state, workload, verdicts, http });
    }
    return tunnelToService(c, destination, {
      state,
      direction: "outbound",
      workload,
      opened: () => undefined,
      failed: () => c.destroy(),
    });
  }
  if (found !== undefined && found.kind !== "unknown") {
    c.destroy();
    return WAITING;
  }
  c.pause();
  side.local.learn(service.namespace, service.service, (known) => {
    if (c.closed) return;
    if (!known) {
      c.destroy();
      return;
    }
    guarded("decision", c, () => {
      c.handler = acceptUpstream(c, side, authority, service);
      c.resume();
    });
  });
  return WAITING;
}

const WAITING: ConnectionHandler = { data() {}, end() {}, drain() {}, close() {} };
