/** Where local applications reach the mesh: loopback listeners, each speaking for one workload. */
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import { type Listener, listen } from "../net/listen.ts";
import type { RequestMeter } from "../telemetry/golden.ts";
import { Exchange } from "./exchange.ts";
import { beginOutbound, type Outbound } from "./http.ts";
import type { OutsideHosts } from "./outside.ts";
import type { Side } from "./side.ts";
import type { ProxyState } from "./state.ts";
import { tunnelToService } from "./tcp.ts";
import type { LocalWorkload } from "./workload.ts";

/** Applications keep connections for as long as they like, within reason. */
const IDLE_SECONDS = 3600;

export class OutboundSide implements Side<Exchange>, Outbound {
  readonly direction = "outbound";
  readonly local: LocalWorkload;
  readonly outside: OutsideHosts;
  readonly state: ProxyState;
  readonly workload: string;
  readonly source: string;
  readonly meter: RequestMeter;
  readonly idleSeconds = IDLE_SECONDS;
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

  begin(exchange: Exchange): void {
    beginOutbound(exchange, this);
  }
}

/** The port where an authority in the request names the service. */
export function listenOutbound(side: OutboundSide, host: string, port: number): Listener {
  return listen({ host, port, accept: (c) => acceptHttp(c, side) });
}

/** A port that leads to one service: HTTP where the service speaks it, else opaque TCP. */
export function listenUpstream(
  side: OutboundSide,
  authority: string,
  service: { readonly namespace: string; readonly service: string },
  host: string,
  port: number,
): Listener {
  return listen({ host, port, accept: (c) => acceptUpstream(c, side, authority, service) });
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
    side.state.golden.connections.slot("outbound", side.workload).value++;
    return tunnelToService(c, side.local.upstreams.destination(found.port.target), {
      state: side.state,
      direction: "outbound",
      workload: side.workload,
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
    c.handler = acceptUpstream(c, side, authority, service);
    c.resume();
  });
  return WAITING;
}

const WAITING: ConnectionHandler = { data() {}, end() {}, drain() {}, close() {} };
