/** One port of a local application, as callers of the mesh port reach it. */
import { H1_LIMITS, peerLimits } from "../http/h1/limits.ts";
import type { InPort } from "../snapshot/document.ts";
import type { Edge, RequestMeter, TcpMeter } from "../telemetry/golden.ts";
import type { Exchange } from "./exchange.ts";
import type { Forward } from "./forward.ts";
import { beginInbound, NO_REQUESTS } from "./http.ts";
import type { Side } from "./side.ts";
import { FLOODED, type ProxyState } from "./state.ts";
import type { LocalWorkload } from "./workload.ts";

const PEER_LIMITS = peerLimits(H1_LIMITS);
/** Callers keep connections for 30 s: they must be the ones who close first. */
const IDLE_SECONDS = 60;

export function inboundIdleSeconds(state: ProxyState): number {
  return state.rooms.inbound.idleSeconds(IDLE_SECONDS);
}

/** One service port of one local workload. */
export interface InboundPort {
  readonly local: LocalWorkload;
  readonly servicePort: number;
  readonly forward: Forward;
}

/** What is configured for its callers; undefined: nothing yet. */
export function ruleOf({ local, servicePort }: InboundPort): InPort | undefined {
  return local.view?.snapshot.inbound?.ports.find(({ port }) => port === servicePort);
}

/** What happens to requests for it; `source` is "" for callers in plaintext, whom nobody knows. */
export class InboundSide implements Side<Exchange> {
  readonly direction = "inbound";
  readonly state: ProxyState;
  readonly workload: string;
  readonly source: string;
  readonly meter: RequestMeter;
  readonly tcpMeter: TcpMeter;
  readonly limits = PEER_LIMITS;
  readonly #port: InboundPort;

  constructor(port: InboundPort, source: string) {
    const { local } = port;
    this.#port = port;
    this.state = local.state;
    this.workload = local.name;
    this.source = source;
    const edge: Edge = {
      direction: "inbound",
      workload: local.name,
      source,
      peer: local.name,
      port: String(port.servicePort),
      subset: "",
      tls: source === "" ? "none" : "mtls",
    };
    this.meter = local.state.golden.meter(edge);
    this.tcpMeter = local.state.golden.tcpMeter(edge);
  }

  get idleSeconds(): number {
    return inboundIdleSeconds(this.state);
  }

  get permitted(): boolean {
    return this.source !== "" || ruleOf(this.#port)?.permissive === true;
  }

  begin(exchange: Exchange): void {
    const { local, servicePort, forward } = this.#port;
    if (ruleOf(this.#port)?.proxyProtocol !== undefined) {
      exchange.answer("bad_request", `${this.workload}:${servicePort} ${NO_REQUESTS}`);
      return;
    }
    if (this.state.flooded()) exchange.answer("overflow", FLOODED);
    else if (!exchange.downstream.destroyed) {
      beginInbound(exchange, forward, local.view?.snapshot.mesh.pathNormalization);
    }
  }
}
