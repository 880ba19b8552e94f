/**
 * What each mode is started with, after flags, variables and the configuration file are merged.
 *
 * Optional fields are absent when the operator said nothing; defaults are already filled in.
 */

import type { LogLevel } from "../src/telemetry/log.ts";

/** What a declared port speaks. Absent on the only port of a bare `--app` means `http`. */
export type Protocol = "http" | "http2" | "grpc" | "tcp" | "tls";

export type LogFormat = "json" | "text";

/** How the proxy finds out that its application is ready: `/path` is an HTTP GET that gives 2xx. */
export type HealthProbe = "tcp" | "none" | `/${string}`;

/** One port of a service and where the application behind it listens. */
export interface AppPort {
  readonly servicePort: number;
  readonly host: string;
  readonly port: number;
  readonly protocol?: Protocol;
}

/** A local port that leads to a service. */
export interface UpstreamSpec {
  /** Absent: the workload's own namespace. */
  readonly namespace?: string;
  readonly service: string;
  /** Absent: the service's only port. */
  readonly servicePort?: number;
  readonly listenPort: number;
}

/** A loopback address on which one workload of a node reaches the mesh. */
export interface OutboundAddress {
  readonly host: string;
  readonly port: number;
}

/** One application instance behind a proxy, with its own identity. */
export interface WorkloadSpec {
  readonly service: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly app: readonly AppPort[];
  readonly upstream: readonly UpstreamSpec[];
  readonly labels: Readonly<Record<string, string>>;
  /** Where this workload dials the mesh; absent: the proxy chooses by mode and position. */
  readonly out?: OutboundAddress;
  readonly locality: string;
  readonly weight: number;
}

export interface ControlplaneOptions {
  /** The control plane's own folder, `…/controlplane`. */
  readonly data: string;
  /** Address of the API and, beyond loopback, of the bus. */
  readonly bind: string;
  readonly portBase: number;
  readonly trustDomain: string;
  /** An external NATS, one URL or several with commas; absent: a supervised nats-server. */
  readonly natsUrl?: string;
  /** A nats-server to run; absent: the one carried in this executable. */
  readonly natsServer?: string;
  /** The carried nats-server as a readable file; absent when the build had none. */
  readonly natsEmbedded?: string;
  /** File with the roots of an external NATS; absent: public ones. */
  readonly natsCa?: string;
  /** Credentials file for an external NATS. */
  readonly natsCreds?: string;
  /** State came from a backup: start a new epoch although the bus is ahead. */
  readonly restored: boolean;
  readonly svidTtlMs: number;
  readonly drainMs: number;
  readonly log: LogFormat;
  readonly logLevel: LogLevel;
  readonly version: string;
}

export interface ProxyOptions {
  readonly mode: "sidecar" | "node";
  readonly workloads: readonly WorkloadSpec[];
  /** `https://host:port`; absent: the control plane of this host, or none. */
  readonly controlplane?: string;
  /** The token itself, already read from file, stdin or environment. */
  readonly token?: string;
  /** The proxy's own folder, `…/sidecar/<ns>.<svc>[.<n>]` or `…/node`. */
  readonly data: string;
  /** Address of the mesh port. */
  readonly bind: string;
  /** Address other proxies dial; absent: the source address towards the control plane. */
  readonly advertise?: string;
  readonly portBase: number;
  readonly metricsBind: string;
  readonly drainMs: number;
  readonly health: HealthProbe;
  readonly accessLog: boolean;
  /** Ranges of addresses, as `127.0.0.2/32`; absent: nobody sends a PROXY header. */
  readonly relays?: readonly string[];
  readonly log: LogFormat;
  readonly logLevel: LogLevel;
  readonly version: string;
}

/** Loopback address of workload `index` (0-based) of a node: `127.0.17.1`, `127.0.17.2`, …. */
export function nodeAddress(index: number): string {
  return `127.0.17.${index + 1}`;
}
