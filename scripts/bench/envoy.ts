/**
 * Envoy as a peer, one worker, configured as the nearest to what our proxies do: TLS 1.3 with both
 * certificates verified by name, RBAC on the inner hop, retries within a budget, outlier detection,
 * request ids, statistics, normalised paths. No access log and no tracing.
 */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PROXY_CORE } from "./load.ts";
import { BENCH_ID, type Child, type Ports, spawn } from "./peers.ts";

export interface EnvoyProcesses {
  readonly front: Child;
  readonly mesh: Child;
}

const ROOT = join(import.meta.dir, "../..");
/** Where scripts/bench.sh puts it. */
export const ENVOY = join(ROOT, "build/peers/envoy/_bin/envoy");

const EXTENSIONS = "type.googleapis.com/envoy.extensions";

function typed(type: string, fields: object): object {
  return { "@type": `${EXTENSIONS}.${type}`, ...fields };
}

interface ClusterSpec {
  readonly name: string;
  readonly port: number;
  readonly tls?: "http/1.1" | "tcp";
  readonly folder: string;
  readonly full: boolean;
}

/** Unlike servers, Envoy's TLS clients stop at 1.2 unless told otherwise. */
function tlsContext(folder: string, alpn: "http/1.1" | "tcp"): object {
  return {
    tls_certificates: [
      {
        certificate_chain: { filename: `${folder}/leaf.pem` },
        private_key: { filename: `${folder}/leaf.key` },
      },
    ],
    validation_context: {
      trusted_ca: { filename: `${folder}/root.pem` },
      match_typed_subject_alt_names: [{ san_type: "URI", matcher: { exact: BENCH_ID } }],
    },
    tls_params: {
      tls_minimum_protocol_version: "TLSv1_3",
      tls_maximum_protocol_version: "TLSv1_3",
    },
    ...(alpn === "tcp" ? {} : { alpn_protocols: [alpn] }),
  };
}

function cluster({ name, port, tls, folder, full }: ClusterSpec): object {
  const limits = { max_connections: 100_000, max_pending_requests: 100_000, max_requests: 100_000 };
  const budget = { retry_budget: { budget_percent: { value: 20 }, min_retry_concurrency: 3 } };
  const address = { socket_address: { address: "127.0.0.1", port_value: port } };
  return {
    name,
    type: "STATIC",
    connect_timeout: "3s",
    lb_policy: "LEAST_REQUEST",
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address } }] }],
    },
    circuit_breakers: { thresholds: [full ? { ...limits, ...budget } : limits] },
    ...(full ? { outlier_detection: { consecutive_5xx: 5, base_ejection_time: "30s" } } : {}),
    ...(tls === undefined
      ? {}
      : {
          transport_socket: {
            name: "tls",
            typed_config: typed("transport_sockets.tls.v3.UpstreamTlsContext", {
              sni: "leaf.bench",
              common_tls_context: tlsContext(folder, tls),
            }),
          },
        }),
  };
}

function listener(port: number, filter: object, tlsFolder?: string, alpn?: "http/1.1" | "tcp") {
  const transport =
    tlsFolder === undefined || alpn === undefined
      ? {}
      : {
          transport_socket: {
            name: "tls",
            typed_config: typed("transport_sockets.tls.v3.DownstreamTlsContext", {
              require_client_certificate: true,
              common_tls_context: tlsContext(tlsFolder, alpn),
            }),
          },
        };
  return {
    name: `on-${port}`,
    address: { socket_address: { address: "127.0.0.1", port_value: port } },
    filter_chains: [{ filters: [filter], ...transport }],
  };
}

function tcp(to: string): object {
  const fields = { stat_prefix: "tcp", cluster: to };
  return { name: "tcp", typed_config: typed("filters.network.tcp_proxy.v3.TcpProxy", fields) };
}

const RBAC = {
  name: "rbac",
  typed_config: typed("filters.http.rbac.v3.RBAC", {
    rules: {
      action: "ALLOW",
      policies: {
        callers: {
          permissions: [{ header: { name: ":method", string_match: { exact: "GET" } } }],
          principals: [{ authenticated: { principal_name: { exact: BENCH_ID } } }],
        },
      },
    },
  }),
};

type Duty = "plain" | "outbound" | "inbound";

function http(to: string, duty: Duty): object {
  const retry = { retry_on: "connect-failure,refused-stream,unavailable", num_retries: 2 };
  const route = {
    match: { prefix: "/" },
    route: { cluster: to, timeout: "15s", ...(duty === "outbound" ? { retry_policy: retry } : {}) },
  };
  const router = { name: "router", typed_config: typed("filters.http.router.v3.Router", {}) };
  const fields = {
    stat_prefix: "http",
    codec_type: "HTTP1",
    generate_request_id: true,
    normalize_path: true,
    merge_slashes: true,
    route_config: { name: "r", virtual_hosts: [{ name: "v", domains: ["*"], routes: [route] }] },
    http_filters: duty === "inbound" ? [RBAC, router] : [router],
  };
  const type = "filters.network.http_connection_manager.v3.HttpConnectionManager";
  return { name: "http", typed_config: typed(type, fields) };
}

function start(folder: string, name: string, listeners: object[], clusters: object[]): Child {
  const file = join(folder, `${name}.json`);
  writeFileSync(file, JSON.stringify({ static_resources: { listeners, clusters } }));
  const options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"];
  return spawn([ENVOY, "-c", file, ...options], PROXY_CORE);
}

/** Undefined where Envoy is not installed. */
export function startEnvoy(folder: string, ports: Ports): EnvoyProcesses | undefined {
  if (!existsSync(ENVOY)) return undefined;
  const to = (name: string, port: number, full: boolean, tls?: "http/1.1" | "tcp") =>
    cluster({ name, port, folder, full, ...(tls === undefined ? {} : { tls }) });
  return {
    front: start(
      folder,
      "envoy-front",
      [
        listener(ports.envoyPlain, http("backend", "plain")),
        listener(ports.envoyFront, http("mesh", "outbound")),
        listener(ports.envoyTcpPlain, tcp("bytes")),
        listener(ports.envoyTcpFront, tcp("tcp-mesh")),
      ],
      [
        to("backend", ports.backend, false),
        to("mesh", ports.envoyMesh, true, "http/1.1"),
        to("bytes", ports.iperf, false),
        to("tcp-mesh", ports.envoyTcpMesh, false, "tcp"),
      ],
    ),
    mesh: start(
      folder,
      "envoy-mesh",
      [
        listener(ports.envoyMesh, http("backend", "inbound"), folder, "http/1.1"),
        listener(ports.envoyTcpMesh, tcp("bytes"), folder, "tcp"),
      ],
      [to("backend", ports.backend, true), to("bytes", ports.iperf, false)],
    ),
  };
}
