/** From settings to the options of a mode: defaults, cross-checks, token. */
import { closeSync, openSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseToken } from "../src/identity/token.ts";
import { type Environment, stateFolder } from "./environment.ts";
import type { Settings } from "./flags.ts";
import { usage, type WorkloadText } from "./grammar.ts";
import {
  type AppPort,
  type ControlplaneOptions,
  type LogFormat,
  nodeAddress,
  type ProxyOptions,
  type UpstreamSpec,
  type WorkloadSpec,
} from "./options.ts";
import { readWorkloadsFile } from "./workloads-file.ts";

/** What options depend on besides settings. */
export interface Surroundings {
  readonly env: Environment;
  readonly uid: number;
  readonly version: string;
  /** Whether the log is read by a person. */
  readonly terminal: boolean;
}

export const DEFAULTS = {
  portBase: 17000,
  trustDomain: "weft.local",
  namespace: "default",
  svidTtlMs: 24 * 3_600_000,
  drainMs: 30_000,
  locality: "",
  weight: 100,
} as const;

/** Offsets from the port base that weft itself may listen on. */
const OWN_OFFSETS = [1, 6, 10, 20, 53, 222] as const;

export function controlplaneOptions(set: Settings, around: Surroundings): ControlplaneOptions {
  if (set["nats-creds"] !== undefined && set["nats-url"] === undefined) {
    throw usage("--nats-creds without --nats-url", "say which NATS the credentials are for");
  }
  if (set["nats-ca"] !== undefined && set["nats-url"] === undefined) {
    throw usage("--nats-ca without --nats-url", "say which NATS the CA is for");
  }
  if (set["nats-server"] !== undefined && set["nats-url"] !== undefined) {
    throw usage("--nats-server together with --nats-url", "keep one: run a server, or use one");
  }
  return {
    data: resolve(set.data ?? join(stateFolder(around.env, around.uid), "controlplane")),
    bind: set.bind ?? "127.0.0.1",
    portBase: set["port-base"] ?? DEFAULTS.portBase,
    trustDomain: set["trust-domain"] ?? DEFAULTS.trustDomain,
    restored: set.restored ?? false,
    svidTtlMs: set["svid-ttl"] ?? DEFAULTS.svidTtlMs,
    drainMs: set.drain ?? DEFAULTS.drainMs,
    ...logging(set, around),
    version: around.version,
    ...present("natsUrl", set["nats-url"]),
    ...present("natsServer", set["nats-server"]),
    ...present("natsCa", set["nats-ca"]),
    ...present("natsCreds", set["nats-creds"]),
  };
}

export function sidecarOptions(set: Settings, around: Surroundings): ProxyOptions {
  if (set.service === undefined) {
    throw usage("--service is missing", "name it: weft sidecar --service cart --app 8080");
  }
  const namespace = set.namespace ?? DEFAULTS.namespace;
  const workload: WorkloadSpec = {
    service: set.service,
    namespace,
    serviceAccount: set["service-account"] ?? set.service,
    app: set.app ?? [],
    upstream: set.upstream ?? [],
    labels: set.label ?? {},
    locality: set.locality ?? DEFAULTS.locality,
    weight: set.weight ?? DEFAULTS.weight,
  };
  const folder = join("sidecar", `${namespace}.${set.service}`);
  return proxyOptions("sidecar", [workload], folder, set, around);
}

export function nodeOptions(set: Settings, around: Surroundings): ProxyOptions {
  const defaults = { namespace: set.namespace ?? DEFAULTS.namespace, locality: set.locality ?? "" };
  const declared = (set.workload ?? []).map((item) => fromText(item, defaults));
  const listed =
    set.workloads === undefined ? [] : readWorkloadsFile(set.workloads, "--workloads", defaults);
  const all = [...declared, ...listed];
  if (all.length === 0) {
    throw usage("no workloads", "name them: weft node --workload cart=8080 --workload db=5432/tcp");
  }
  const portBase = set["port-base"] ?? DEFAULTS.portBase;
  const workloads = all.map((workload, index) => ({
    ...workload,
    out: workload.out ?? { host: nodeAddress(index), port: portBase + 1 },
  }));
  refuseTwins(workloads);
  return proxyOptions("node", workloads, "node", set, around);
}

function fromText(
  text: WorkloadText,
  defaults: { readonly namespace: string; readonly locality: string },
): WorkloadSpec {
  return {
    service: text.service,
    namespace: text.namespace ?? defaults.namespace,
    serviceAccount: text.service,
    app: text.app,
    upstream: [],
    labels: {},
    locality: defaults.locality,
    weight: DEFAULTS.weight,
  };
}

/** On one mesh port SNI selects the workload, so two of the same service cannot share it. */
function refuseTwins(workloads: readonly WorkloadSpec[]): void {
  const names = new Set<string>();
  const ways = new Map<string, string>();
  for (const { service, namespace, out } of workloads) {
    const name = `${namespace}/${service}`;
    if (names.has(name)) {
      throw usage(`workload ${name} is declared twice`, "run its second instance beside a sidecar");
    }
    names.add(name);
    const way = `${out?.host}:${out?.port}`;
    const other = ways.get(way);
    if (other !== undefined) {
      throw usage(`${other} and ${name} both reach the mesh by ${way}`, "give each its own out:");
    }
    ways.set(way, name);
  }
}

function proxyOptions(
  mode: "sidecar" | "node",
  workloads: readonly WorkloadSpec[],
  folder: string,
  set: Settings,
  around: Surroundings,
): ProxyOptions {
  const portBase = set["port-base"] ?? DEFAULTS.portBase;
  for (const { app, upstream } of workloads) refuseOwnPorts(portBase, app, upstream);
  return {
    mode,
    workloads,
    data: resolve(set.data ?? join(stateFolder(around.env, around.uid), folder)),
    bind: set.bind ?? "0.0.0.0",
    portBase,
    metricsBind: set["metrics-bind"] ?? "127.0.0.1",
    drainMs: set.drain ?? DEFAULTS.drainMs,
    health: set.health ?? "tcp",
    accessLog: (set["access-log"] ?? "off") === "on",
    ...logging(set, around),
    version: around.version,
    ...present("controlplane", set.controlplane),
    ...present("relays", set["accept-proxy-protocol"]),
    ...present("advertise", set.advertise),
    ...present("token", tokenOf(set)),
  };
}

function refuseOwnPorts(
  portBase: number,
  app: readonly AppPort[],
  upstream: readonly UpstreamSpec[],
): void {
  const own: readonly number[] = OWN_OFFSETS.map((offset) => portBase + offset);
  for (const { host, port } of app) {
    if (own.includes(port) && (host.startsWith("127.") || host === "::1" || host === "localhost")) {
      throw usage(`--app: port ${port} is weft's own`, "give the application another port");
    }
  }
  for (const { service, listenPort } of upstream) {
    if (own.includes(listenPort)) {
      throw usage(`--upstream ${service}: port ${listenPort} is weft's own`, "use another port");
    }
  }
}

function logging(set: Settings, around: Surroundings) {
  const log: LogFormat = set.log ?? (around.terminal ? "text" : "json");
  return { log, logLevel: set["log-level"] ?? "info" } as const;
}

/** The token from `--token`, `--token-file FILE` or `--token-file -`; absent if none is named. */
export function tokenOf(set: Settings): string | undefined {
  if (set.token !== undefined) return shortLived(set.token.trim());
  const path = set["token-file"];
  if (path === undefined) return undefined;
  const token = readToken(path).trim();
  if (token === "") throw usage(`--token-file: ${path} is empty`, "create one: weft token create");
  return token;
}

/** Every user of the host can read a command line, so what stands there must not be worth much. */
const COMMAND_LINE_TTL_MS_MAX = 3_600_000;

function shortLived(text: string): string {
  const token = parseToken(text);
  if (token === undefined) {
    throw usage("--token: the token is damaged", "copy it again, or create one: weft token create");
  }
  if (token.exp !== 0 && token.exp <= Date.now() + COMMAND_LINE_TTL_MS_MAX) return text;
  throw usage(
    "--token: this token is good for more than an hour, and others can read a command line",
    "use --token-file FILE, or a short one: weft token create --once --ttl 1h",
  );
}

function readToken(path: string): string {
  try {
    if (path !== "-") return readFileSync(path, "utf8");
    const stdin = openSync("/dev/stdin", "r");
    try {
      return readFileSync(stdin, "utf8");
    } finally {
      closeSync(stdin);
    }
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unreadable";
    throw usage(`--token-file: cannot read ${path} (${code})`, "check the path and permissions");
  }
}

function present<K extends string, V>(key: K, value: V | undefined): { readonly [P in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { readonly [P in K]?: V });
}
