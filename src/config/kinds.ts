/** The kinds of `weft.dev/v1`. Optional fields stay absent: defaults belong to compilation. */
import * as v from "valibot";
import { LOCALITY } from "../std/locality.ts";
import {
  anyPort,
  documentName,
  duration,
  fields,
  filled,
  integer,
  label,
  labels,
  list,
  oneOf,
  port,
  protocol,
  selectingLabels,
  spiffeId,
  told,
} from "./fields.ts";
import { outsideTls } from "./outside-tls.ts";
import { serviceHost } from "./service-host.ts";

export const BALANCERS = ["LEAST_REQUEST", "ROUND_ROBIN", "RANDOM"] as const;
export const RETRY_CONDITIONS = [
  "connect-failure",
  "refused-stream",
  "app-unreachable",
  "reset",
] as const;

const text = v.pipe(
  v.string(),
  v.maxLength(4096, told("invalid_value", "is longer than 4096 characters", "shorten it")),
);

/** What a TrafficPolicy can say, and what Mesh can give as defaults. */
const policyEntries = {
  loadBalancer: v.exactOptional(fields({ simple: oneOf(BALANCERS) })),
  connectionPool: v.exactOptional(
    fields({
      maxConnections: v.exactOptional(integer(1, 1_000_000, "a number of connections")),
      maxPendingRequests: v.exactOptional(integer(0, 1_000_000, "a number of requests")),
      connectTimeout: v.exactOptional(duration),
      idleTimeout: v.exactOptional(duration),
    }),
  ),
  timeouts: v.exactOptional(
    fields({ request: v.exactOptional(duration), backendRequest: v.exactOptional(duration) }),
  ),
  retries: v.exactOptional(
    fields({
      attempts: v.exactOptional(integer(0, 10, "a number of further attempts")),
      on: v.exactOptional(list(oneOf(RETRY_CONDITIONS), 16)),
      codes: v.exactOptional(list(integer(400, 599, "response codes"), 64)),
      backoff: v.exactOptional(duration),
    }),
  ),
  retryBudget: v.exactOptional(
    fields({
      percent: v.exactOptional(integer(0, 100, "a percentage")),
      minRetryConcurrency: v.exactOptional(integer(0, 10_000, "a number of retries")),
    }),
  ),
} as const;

/** Modes of Istio that weft refuses. */
const FOREIGN_MODES = new Map([
  [
    "DISABLE",
    told(
      "unsupported",
      "DISABLE would switch mutual TLS off, which callers inside the mesh always use",
      "write PERMISSIVE to take plaintext beside it",
    ),
  ],
  [
    "UNSET",
    told(
      "unsupported",
      "UNSET would inherit, which needs no words",
      "remove this PeerAuth, or mtls of Mesh",
    ),
  ],
]);

const mtls = fields({ mode: oneOf(["STRICT", "PERMISSIVE"], FOREIGN_MODES) });

export const meshSpec = fields({
  trustDomain: v.exactOptional(
    v.pipe(
      v.string(),
      v.regex(
        /^[a-z0-9](?:[a-z0-9.-]{0,116}[a-z0-9])?$/,
        told(
          "invalid_name",
          "is not a trust domain",
          "use at most 118 lower-case letters, digits, dots and dashes",
        ),
      ),
    ),
  ),
  outbound: v.exactOptional(oneOf(["REGISTRY_ONLY", "ALLOW_ANY"])),
  pathNormalization: v.exactOptional(
    oneOf(["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES", "REPORT_ONLY"]),
  ),
  mtls: v.exactOptional(mtls),
  defaults: v.exactOptional(fields(policyEntries)),
});

export const serviceSpec = fields({
  ports: filled(
    fields({ port, protocol: v.exactOptional(protocol), name: v.exactOptional(label) }),
    64,
    "port",
  ),
  selector: v.exactOptional(fields({ labels: selectingLabels })),
  subsets: v.exactOptional(list(fields({ name: label, labels: selectingLabels }), 64)),
  hosts: v.exactOptional(filled(serviceHost, 64, "host")),
  visibility: v.exactOptional(
    filled(
      v.pipe(
        v.string(),
        v.check(
          (value) => value === "*" || v.is(label, value),
          told("invalid_name", "is neither a namespace nor *", "name a namespace, or * for all"),
        ),
      ),
      256,
      "namespace",
    ),
  ),
});

export const workloadSpec = fields({
  service: label,
  address: v.pipe(
    v.string(),
    v.check(
      isAddress,
      told("invalid_address", "is neither an IP address nor a host name", "write it without port"),
    ),
  ),
  ports: v.exactOptional(
    v.record(
      v.pipe(
        v.string(),
        v.check(
          (value) => /^[1-9]\d{0,4}$/.test(value) && Number(value) <= 65535,
          told("invalid_value", "is not a service port", "write SERVICEPORT: PORT"),
        ),
      ),
      port,
    ),
  ),
  meshPort: v.exactOptional(anyPort),
  identity: v.exactOptional(spiffeId),
  locality: v.exactOptional(
    v.pipe(
      v.string(),
      v.regex(
        LOCALITY,
        told(
          "invalid_value",
          "is not a locality",
          "write it as region, region/zone or with a subzone",
        ),
      ),
    ),
  ),
  weight: v.exactOptional(integer(1, 1_000_000, "a weight")),
});

function isAddress(value: string): boolean {
  if (/^[0-9.]+$/.test(value)) {
    const parts = value.split(".");
    return (
      parts.length === 4 && parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && +part < 256)
    );
  }
  if (value.includes(":")) return isIpv6(value);
  return value.length <= 253 && v.is(documentName, value);
}

function isIpv6(value: string): boolean {
  const halves = value.split("::");
  if (halves.length > 2) return false;
  const groups = halves.flatMap((half) => (half === "" ? [] : half.split(":")));
  if (!groups.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group))) return false;
  return halves.length === 2 ? groups.length < 8 : groups.length === 8;
}

const target = fields({ service: label, port: v.exactOptional(anyPort) });

export const trafficPolicySpec = fields({
  target,
  ...policyEntries,
  tls: v.exactOptional(outsideTls),
  proxyProtocol: v.exactOptional(fields({ version: oneOf(["V1", "V2"]) })),
});

export const peerAuthSpec = fields({
  target: v.exactOptional(target),
  mtls,
});

/** `[SERVICEPORT=][HOST:]PORT[/PROTOCOL]`, the grammar of `--app`. */
export const APP = /^(?:(\d{1,5})=)?(?:(\[[0-9a-f:]+\]|[A-Za-z0-9.-]+):)?(\d{1,5})(?:\/(\w+))?$/;
/** `SERVICE[.NAMESPACE][/SERVICEPORT]:PORT`, the grammar of `--upstream`. */
export const UPSTREAM = /^([a-z0-9-]{1,63})(?:\.([a-z0-9-]{1,63}))?(?:\/(\d{1,5}))?:(\d{1,5})$/;

function portsIn(value: string, pattern: RegExp, groups: readonly number[]): boolean {
  const found = pattern.exec(value);
  return (
    found !== null &&
    groups.every((group) => found[group] === undefined || v.is(port, Number(found[group])))
  );
}

export const processSpec = fields({
  command: filled(text, 1024, "word"),
  env: v.exactOptional(
    v.record(
      v.pipe(
        v.string(),
        v.regex(
          /^[A-Za-z_][A-Za-z0-9_]*$/,
          told("invalid_name", "is not a variable name", "use letters, digits and underscores"),
        ),
      ),
      text,
    ),
  ),
  service: label,
  serviceAccount: v.exactOptional(label),
  /** Processes of one name share a node proxy; absent = a sidecar of its own. */
  node: v.exactOptional(label),
  app: v.exactOptional(
    v.array(
      v.pipe(
        v.string(),
        v.check(
          (value) =>
            portsIn(value, APP, [1, 3]) && v.is(v.optional(protocol), APP.exec(value)?.[4]),
          told(
            "invalid_value",
            "does not say where the application listens",
            "write it as [SERVICEPORT=][HOST:]PORT[/PROTOCOL], with ports weft does not use",
          ),
        ),
      ),
    ),
  ),
  upstreams: v.exactOptional(
    v.array(
      v.pipe(
        v.string(),
        v.check(
          (value) => portsIn(value, UPSTREAM, [3, 4]),
          told(
            "invalid_value",
            "does not say which service to offer on which port",
            "write it as SERVICE[.NAMESPACE][/SERVICEPORT]:PORT",
          ),
        ),
      ),
    ),
  ),
  labels: v.exactOptional(labels),
  replicas: v.exactOptional(integer(0, 100, "a number of replicas")),
  readiness: v.exactOptional(
    v.pipe(
      v.string(),
      v.regex(
        /^(?:tcp|none|\/[\x21-\x7e]*)$/,
        told("invalid_value", "is not a readiness check", "use tcp, none, or a path like /healthz"),
      ),
    ),
  ),
});
