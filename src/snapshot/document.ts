/**
 * The normalised form in which configuration travels on the bus: defaults filled, references
 * resolved, rules in evaluation order. The control plane writes these, every proxy compiles them.
 * A change of meaning is a new `SCHEMA`; a proxy accepts SCHEMA and SCHEMA - 1.
 */

import type { PathNormalization } from "../route/normalize.ts";

export const SCHEMA = 1;

export type Protocol = "http" | "http2" | "grpc" | "tcp" | "tls";

/** `mesh`: what every proxy knows. */
export interface MeshDocument {
  readonly trustDomain: string;
  /** Root certificates, PEM, each accepted for peers. */
  readonly bundle: readonly string[];
  /** Keys that may sign configuration. `key` is the raw Ed25519 public key, base64url. */
  readonly configKeys: readonly { readonly kid: string; readonly key: string }[];
  readonly outbound: "REGISTRY_ONLY" | "ALLOW_ANY";
  /** Absent in documents of older control planes: the default. */
  readonly pathNormalization?: PathNormalization;
  /** Hosts that services answer to besides their names in the mesh, as `<namespace>/<service>`. */
  readonly hosts?: Readonly<Record<string, string>>;
}

/** `out.<ns>.<svc>`: what a caller needs to reach a service. */
export interface OutDocument {
  readonly namespace: string;
  readonly service: string;
  readonly ports: readonly OutPort[];
  /** Subsets of the endpoints, by label. */
  readonly subsets: readonly { readonly name: string; readonly labels: Labels }[];
  /** Number of endpoint documents `eps.<ns>.<svc>.0 … n-1`; at least 1. */
  readonly shards: number;
}

export interface OutPort {
  readonly port: number;
  readonly protocol: Protocol;
  /**
   * Nobody has declared a protocol: a caller's first bytes, or the service's, tell. `protocol` is
   * what callers go by that cannot find out.
   */
  readonly detect?: true;
  readonly policy: TrafficPolicyDocument;
  /** Set on HTTP ports that a route governs; absent = everything goes to the service itself. */
  readonly routes?: RouteTable;
}

export interface TrafficPolicyDocument {
  readonly balancer: "least_request" | "round_robin" | "random";
  readonly connectTimeoutMs: number;
  /** Whole request including retries; 0 = none. */
  readonly requestTimeoutMs: number;
  /** One attempt; 0 = none. */
  readonly perTryTimeoutMs: number;
  /** Upstream keep-alive idle time. */
  readonly idleTimeoutMs: number;
  readonly retries: {
    /** Further attempts after the first; 0 switches retries off. */
    readonly attempts: number;
    readonly on: readonly RetryCondition[];
    /** Response codes that are retried, only for idempotent methods. */
    readonly codes: readonly number[];
    readonly backoffMs: number;
    /** Retries allowed as a share of active requests (percent), and a floor. */
    readonly budgetPercent: number;
    readonly budgetMinConcurrency: number;
  };
  readonly maxConnections: number;
  readonly maxPending: number;
  /** Begun towards endpoints without a proxy, which are dialled in plaintext where it is absent. */
  readonly tls?: TlsDocument;
  /** Version of the PROXY header that endpoints without a proxy expect; not on ports of HTTP. */
  readonly proxyProtocol?: ProxyProtocolVersion;
}

export type ProxyProtocolVersion = "v1" | "v2";

export interface TlsDocument {
  /** Server name sent; absent = the endpoint's address where that is a host name. */
  readonly sni?: string;
  /** Certificates to trust, PEM; absent = those the proxy's host trusts. */
  readonly ca?: string;
  /** Files on the proxy's host with the certificate and key to show; absent = none is shown. */
  readonly client?: { readonly certificate: string; readonly key: string };
  /** Host names or addresses, one of which the certificate must carry; [] = the server name. */
  readonly names: readonly string[];
  /** False: anybody may answer. */
  readonly verify: boolean;
}

export type RetryCondition = "connect_failure" | "refused_stream" | "app_unreachable" | "reset";

/** Routes of one service port: `matches` in order of precedence, each naming a rule. */
export interface RouteTable {
  readonly matches: readonly RouteMatchDocument[];
  readonly rules: readonly RouteRuleDocument[];
}

export interface RouteMatchDocument {
  /** Hostnames of the route, lower case, `*.` wildcard allowed; empty = any. */
  readonly hostnames: readonly string[];
  readonly path: { readonly type: "exact" | "prefix"; readonly value: string };
  readonly method?: string;
  readonly headers: readonly { readonly name: string; readonly value: string }[];
  readonly query: readonly { readonly name: string; readonly value: string }[];
  /** Index into `rules`. */
  readonly rule: number;
}

export interface RouteRuleDocument {
  /** `<ns>/<route>#<rule index>`: shown in logs, metrics and explanations. */
  readonly name: string;
  readonly backends: readonly BackendDocument[];
  readonly requestHeaders?: HeaderEdit;
  readonly responseHeaders?: HeaderEdit;
  readonly rewrite?: { readonly hostname?: string; readonly path?: PathEdit };
  readonly redirect?: RedirectDocument;
  /** Whole request; absent = the traffic policy's. 0 = none. */
  readonly requestTimeoutMs?: number;
  readonly backendRequestTimeoutMs?: number;
}

export interface BackendDocument {
  readonly namespace: string;
  readonly service: string;
  readonly port: number;
  readonly subset?: string;
  readonly weight: number;
  /** The reference could not be resolved: this share of traffic gets `invalid_backend`. */
  readonly invalid?: true;
  readonly requestHeaders?: HeaderEdit;
  readonly responseHeaders?: HeaderEdit;
}

export interface HeaderEdit {
  readonly set: readonly { readonly name: string; readonly value: string }[];
  readonly add: readonly { readonly name: string; readonly value: string }[];
  readonly remove: readonly string[];
}

export type PathEdit =
  | { readonly type: "replaceFull"; readonly value: string }
  | { readonly type: "replacePrefix"; readonly value: string };

export interface RedirectDocument {
  readonly scheme?: string;
  readonly hostname?: string;
  readonly port?: number;
  readonly path?: PathEdit;
  readonly status: number;
}

/** `in.<ns>.<svc>`: what the service itself enforces. */
export interface InDocument {
  readonly namespace: string;
  readonly service: string;
  readonly ports: readonly InPort[];
}

export interface InPort {
  readonly port: number;
  readonly protocol: Protocol;
  /** As in `OutPort`: callers may come with any protocol. */
  readonly detect?: true;
  /** Version of the PROXY header that the application expects; it then takes no requests. */
  readonly proxyProtocol?: ProxyProtocolVersion;
  /** The mesh port takes this port's traffic in plaintext too. Absent: mutual TLS only. */
  readonly permissive?: true;
}

/** `eps.<ns>.<svc>.<shard>`: at most 50 endpoints. */
export interface EndpointsDocument {
  readonly namespace: string;
  readonly service: string;
  readonly shard: number;
  readonly endpoints: readonly EndpointDocument[];
}

export interface EndpointDocument {
  /** Instance id, or the name of a `Workload` document. */
  readonly id: string;
  readonly address: string;
  /**
   * Mesh port of the endpoint's proxy: dialled with mutual TLS, SNI `p<port>.<svc>.<ns>.<td>`.
   * Absent: the endpoint has no proxy and is dialled in plaintext on `ports`.
   */
  readonly meshPort?: number;
  /** Identity the peer must present; required with `meshPort`. */
  readonly identity?: string;
  /** Service ports this endpoint serves; the value is the port to dial without a proxy. */
  readonly ports: Readonly<Record<string, number>>;
  readonly labels: Labels;
  readonly locality: string;
  readonly weight: number;
  /** Lease lapsed while the registry could not be sure: kept, but chosen last. */
  readonly suspect?: true;
}

export type Labels = Readonly<Record<string, string>>;

/** `head`: written last; makes a set of changes atomic inside each proxy. */
export interface HeadDocument {
  readonly epoch: number;
  readonly rev: number;
  /** The head before this one in the same epoch; 0 for the first. */
  readonly prev: number;
  readonly t: number;
  /** Keys changed by `rev` with the SHA-256 (hex) of their whole message. */
  readonly changed: readonly (readonly [key: string, sha256: string])[];
}

export const ENDPOINTS_PER_SHARD = 50;
