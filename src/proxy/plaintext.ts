/**
 * Callers of the mesh port without mutual TLS, where the configuration permits them (PERMISSIVE):
 * programs that have no proxy yet. No server name has chosen a port, so a request's Host does, and
 * opaque bytes go to the only port that takes them. Nobody knows who these callers are.
 */
import type { Reason } from "../error.ts";
import { FirstBytes } from "../http/h1/first-bytes.ts";
import { H1_LIMITS } from "../http/h1/limits.ts";
import { splitAuthority } from "../snapshot/authority.ts";
import type { RequestMeter } from "../telemetry/golden.ts";
import type { Exchange } from "./exchange.ts";
import { type InboundPort, inboundIdleSeconds, ruleOf } from "./inbound-port.ts";
import type { Side } from "./side.ts";
import type { ProxyState } from "./state.ts";

/**
 * What takes a caller, by all it has sent so far: requests each find their port; opaque bytes all
 * go to one, of which these are the instances on this host. []: nothing takes it. "more": it cannot
 * be told yet.
 */
export function servedInPlaintext(
  ports: readonly InboundPort[],
  first: Uint8Array,
): "http" | "more" | readonly InboundPort[] {
  const open = ports.filter(isPermissive);
  if (open.some(takesRequests)) {
    const verdict = new FirstBytes().push(first);
    if (verdict !== "other") return verdict;
  }
  const opaque = open.filter((port) => ruleOf(port)?.protocol !== "http");
  return areOne(opaque) ? opaque : [];
}

interface Refusal {
  readonly reason: Reason;
  readonly message: string;
}

/**
 * The port that a request means, as its instances on this host. A port in the authority that the
 * service does not have is the one the caller dialled, and says nothing; so does the name of
 * another host.
 */
export function portMeant(
  ports: readonly InboundPort[],
  authority: string,
): readonly InboundPort[] | Refusal {
  const split = splitAuthority(authority);
  if (split === undefined) {
    return { reason: "bad_request", message: "the request names no valid authority" };
  }
  const named = ports.filter(({ local }) => local.answersTo(split.host));
  const exact = named.filter(({ servicePort }) => servicePort === split.port);
  const meant = exact.length > 0 ? exact : named.length > 0 ? named : ports;
  const open = meant.filter((port) => isPermissive(port) && takesRequests(port));
  if (open.length === 0) {
    return { reason: "denied", message: `${authority} takes no requests without mutual TLS` };
  }
  if (areOne(open)) return open;
  const implied = named.length > 0 ? open.filter(({ servicePort }) => servicePort === 80) : [];
  if (implied.length > 0 && areOne(implied)) return implied;
  const names = [...new Set(open.map(nameOf))].join(", ");
  return { reason: "ambiguous_port", message: `${authority} names none of ${names}: name one` };
}

function isPermissive(port: InboundPort): boolean {
  return ruleOf(port)?.permissive === true;
}

function takesRequests(port: InboundPort): boolean {
  const rule = ruleOf(port);
  return rule?.protocol === "http" || rule?.detect === true;
}

function nameOf({ local, servicePort }: InboundPort): string {
  return `${local.name}:${servicePort}`;
}

/** Instances of one port, at least one. */
function areOne(ports: readonly InboundPort[]): boolean {
  return new Set(ports.map(nameOf)).size === 1;
}

export interface PlaintextOptions {
  readonly state: ProxyState;
  /** All that could be meant, permitted or not. */
  readonly ports: readonly InboundPort[];
  /** What happens to requests for one of `meant`, in turn. */
  sideOf(meant: readonly InboundPort[]): Side<Exchange>;
}

/** Of one caller: each request may mean another port. */
export class PlaintextSide implements Side<Exchange> {
  readonly direction = "inbound";
  readonly source = "";
  readonly limits = H1_LIMITS;
  readonly state: ProxyState;
  readonly #options: PlaintextOptions;
  readonly #unnamed: RequestMeter;
  #side: Side<Exchange> | undefined;

  constructor(options: PlaintextOptions) {
    this.state = options.state;
    this.#options = options;
    this.#unnamed = options.state.golden.meter({
      ...{ direction: "inbound", workload: this.workload, source: "", peer: "", port: "" },
      ...{ subset: "", tls: "none" },
    });
  }

  /** Until a request has named one, the first. */
  get workload(): string {
    return this.#side?.workload ?? this.#options.ports[0]?.local.name ?? "";
  }

  get meter(): RequestMeter {
    return this.#side?.meter ?? this.#unnamed;
  }

  get idleSeconds(): number {
    return inboundIdleSeconds(this.state);
  }

  get permitted(): boolean {
    return this.#side?.permitted !== false;
  }

  begin(exchange: Exchange): void {
    const meant = portMeant(this.#options.ports, exchange.head.authority);
    if ("reason" in meant) {
      this.#side = undefined;
      exchange.answer(meant.reason, meant.message);
      return;
    }
    this.#side = this.#options.sideOf(meant);
    this.#side.begin(exchange);
  }
}
