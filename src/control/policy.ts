/** Traffic policy of a port, field by field: weft's defaults, Mesh, service, port. */

import { durationMs } from "../config/fields.ts";
import { certificateBlocks } from "../config/outside-tls.ts";
import type { TrafficPolicyResource } from "../config/resource.ts";
import type { RetryCondition, TlsDocument, TrafficPolicyDocument } from "../snapshot/document.ts";

type PolicySpec = Omit<TrafficPolicyResource["spec"], "target">;

export const DEFAULT_POLICY: TrafficPolicyDocument = {
  balancer: "least_request",
  connectTimeoutMs: 3000,
  requestTimeoutMs: 0,
  perTryTimeoutMs: 0,
  idleTimeoutMs: 60_000,
  retries: {
    attempts: 2,
    on: ["connect_failure", "refused_stream", "app_unreachable"],
    codes: [],
    backoffMs: 25,
    budgetPercent: 20,
    budgetMinConcurrency: 3,
  },
  maxConnections: 1024,
  maxPending: 1024,
};

/** `policies` are those of the service. */
export function policyOf(
  defaults: PolicySpec | undefined,
  policies: readonly TrafficPolicyResource[],
  port: number,
): TrafficPolicyDocument {
  const layers = [
    defaults,
    policies.find(({ spec }) => spec.target.port === undefined)?.spec,
    policies.find(({ spec }) => spec.target.port === port)?.spec,
  ];
  return layers.reduce(
    (policy: TrafficPolicyDocument, layer) => (layer ? overlay(policy, layer) : policy),
    DEFAULT_POLICY,
  );
}

const BALANCERS = {
  LEAST_REQUEST: "least_request",
  ROUND_ROBIN: "round_robin",
  RANDOM: "random",
} as const;

const CONDITIONS = {
  "connect-failure": "connect_failure",
  "refused-stream": "refused_stream",
  "app-unreachable": "app_unreachable",
  reset: "reset",
} as const satisfies Record<string, RetryCondition>;

const VERSIONS = { V1: "v1", V2: "v2" } as const;

function overlay(under: TrafficPolicyDocument, spec: PolicySpec): TrafficPolicyDocument {
  const { loadBalancer, connectionPool: pool, timeouts, retries, retryBudget } = spec;
  const ms = (text: string | undefined, otherwise: number) =>
    text === undefined ? otherwise : durationMs(text);
  const tls = spec.tls === undefined ? under.tls : tlsOf(spec.tls);
  const proxyProtocol = spec.proxyProtocol
    ? VERSIONS[spec.proxyProtocol.version]
    : under.proxyProtocol;
  return {
    balancer: loadBalancer === undefined ? under.balancer : BALANCERS[loadBalancer.simple],
    connectTimeoutMs: ms(pool?.connectTimeout, under.connectTimeoutMs),
    requestTimeoutMs: ms(timeouts?.request, under.requestTimeoutMs),
    perTryTimeoutMs: ms(timeouts?.backendRequest, under.perTryTimeoutMs),
    idleTimeoutMs: ms(pool?.idleTimeout, under.idleTimeoutMs),
    retries: {
      attempts: retries?.attempts ?? under.retries.attempts,
      on: retries?.on?.map((condition) => CONDITIONS[condition]) ?? under.retries.on,
      codes: retries?.codes ?? under.retries.codes,
      backoffMs: ms(retries?.backoff, under.retries.backoffMs),
      budgetPercent: retryBudget?.percent ?? under.retries.budgetPercent,
      budgetMinConcurrency: retryBudget?.minRetryConcurrency ?? under.retries.budgetMinConcurrency,
    },
    maxConnections: pool?.maxConnections ?? under.maxConnections,
    maxPending: pool?.maxPendingRequests ?? under.maxPending,
    ...(tls === undefined ? {} : { tls }),
    ...(proxyProtocol === undefined ? {} : { proxyProtocol }),
  };
}

function tlsOf(spec: NonNullable<PolicySpec["tls"]>): TlsDocument | undefined {
  if (spec.mode === "DISABLE") return undefined;
  const { sni, caCertificates: ca, clientCertificate: certificate, privateKey: key } = spec;
  const shown = certificate !== undefined && key !== undefined;
  return {
    ...(sni === undefined ? {} : { sni }),
    ...(ca === undefined ? {} : { ca: `${certificateBlocks(ca).join("\n")}\n` }),
    ...(shown ? { client: { certificate, key } } : {}),
    names: spec.subjectAltNames ?? [],
    verify: spec.insecureSkipVerify !== true,
  };
}
