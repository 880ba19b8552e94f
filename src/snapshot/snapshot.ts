/**
 * What a proxy decides with: the documents of one configuration, compiled. Deeply immutable;
 * swapped as a whole, never changed. Counters and pools live elsewhere, under the stable `key`s
 * found here.
 */
import type { CompiledEdit } from "../route/headers.ts";
import { firstMatch, type RouteFacts, type RouteMatch } from "../route/match.ts";
import type {
  EndpointDocument,
  InDocument,
  MeshDocument,
  PathEdit,
  Protocol,
  RedirectDocument,
  TrafficPolicyDocument,
} from "./document.ts";

export interface Snapshot {
  readonly epoch: number;
  readonly rev: number;
  readonly mesh: MeshDocument;
  /** By `<namespace>/<service>`; hosts are resolved by `resolveAuthority`. */
  readonly services: ReadonlyMap<string, UpstreamService>;
  /** Further hosts of services, each to `<namespace>/<service>`. */
  readonly hosts: ReadonlyMap<string, string>;
  /** What the service itself enforces; undefined until its `in` document is there. */
  readonly inbound: InDocument | undefined;
}

export interface UpstreamService {
  readonly namespace: string;
  readonly service: string;
  readonly ports: ReadonlyMap<number, UpstreamPort>;
  /** All endpoints, whatever their port and labels. */
  readonly endpoints: readonly EndpointDocument[];
}

export interface UpstreamPort {
  readonly namespace: string;
  readonly service: string;
  readonly port: number;
  readonly protocol: Protocol;
  /** No protocol is declared: what callers speak is found out. */
  readonly detect: boolean;
  readonly policy: TrafficPolicyDocument;
  /** The service itself, without any route: what opaque TCP uses. */
  readonly target: Target;
  /** In order of precedence; undefined = no route governs this port. */
  readonly matches: readonly Route[] | undefined;
  /** The decision where no route governs: everything goes to `target`. */
  readonly direct: Route;
}

/** A matched rule and the prefix it matched. */
export type Route = RouteMatch<CompiledRule>;

export interface CompiledRule {
  /** `<ns>/<route>#<rule>`; "" where no route governs the port. */
  readonly name: string;
  /** Answer this instead of forwarding; build the location with `redirectLocation`. */
  readonly redirect: RedirectDocument | undefined;
  /** Empty, or all of weight 0 (`stepSplit` gives -1): answer `invalid_backend`. */
  readonly backends: readonly CompiledBackend[];
  /** Set when all traffic goes to one backend: no split to keep. */
  readonly only: CompiledBackend | undefined;
  /** Weights of `backends`, reduced; for `stepSplit`. */
  readonly weights: readonly number[];
  /** Stable name of this split; changes when backends or weights change. */
  readonly splitKey: string;
  /** Replaces the Host field. */
  readonly hostname: string | undefined;
  /** Apply with `editPath(target, path, route.prefix)`. */
  readonly path: PathEdit | undefined;
  /** Edits of a redirect answer; a forwarded request uses those of its backend. */
  readonly responseHeaders: CompiledEdit | undefined;
  /** Whole request, retries included; 0 = none. */
  readonly requestTimeoutMs: number;
}

export interface CompiledBackend {
  /** Undefined: the reference cannot be resolved; answer `invalid_backend`. */
  readonly target: Target | undefined;
  /** Edits of the rule, then of the backend. */
  readonly requestHeaders: CompiledEdit | undefined;
  readonly responseHeaders: CompiledEdit | undefined;
  /** One attempt; 0 = none. */
  readonly perTryTimeoutMs: number;
}

/** Endpoints that can serve one service port, or one subset of it. */
export interface Target {
  /** `<ns>/<service>:<port>` or `<ns>/<service>:<port>/<subset>`: stable across snapshots. */
  readonly key: string;
  readonly namespace: string;
  readonly service: string;
  readonly port: number;
  readonly subset: string | undefined;
  readonly protocol: Protocol;
  /** Server name towards the endpoint's proxy. */
  readonly sni: string;
  /** Only those that serve the port and carry the subset's labels. */
  readonly endpoints: readonly EndpointDocument[];
  readonly policy: TrafficPolicyDocument;
}

/** The route a request takes at a service port; undefined = `no_route`. */
export function routeRequest(port: UpstreamPort, facts: RouteFacts): Route | undefined {
  return port.matches === undefined ? port.direct : firstMatch(port.matches, facts);
}
