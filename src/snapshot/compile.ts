/** Documents to snapshot: a pure function. What can be resolved ahead is resolved here. */
import { Failure } from "../error.ts";
import { compileEdits } from "../route/headers.ts";
import { compileMatches } from "../route/match.ts";
import { DEFAULT_LEVEL, normalizeTarget } from "../route/normalize.ts";
import { reduceWeights } from "../route/split.ts";
import type {
  BackendDocument,
  EndpointDocument,
  EndpointsDocument,
  InDocument,
  Labels,
  MeshDocument,
  OutDocument,
  OutPort,
  RouteRuleDocument,
} from "./document.ts";
import type {
  CompiledBackend,
  CompiledRule,
  Route,
  Snapshot,
  Target,
  UpstreamPort,
  UpstreamService,
} from "./snapshot.ts";

export interface Version {
  readonly epoch: number;
  readonly rev: number;
}

/**
 * Compiles the documents a proxy holds for one local service. Keys are those of the bus; documents
 * of unknown kinds are left alone.
 * @throws Failure `bad_document` when `mesh` is missing or a document has not the shape its key
 *   promises; the caller keeps its last snapshot.
 */
export function compileSnapshot(
  documents: ReadonlyMap<string, object>,
  self: { readonly namespace: string; readonly service: string },
  version: Version = { epoch: 0, rev: 0 },
): Snapshot {
  const mesh = documents.get("mesh");
  if (mesh === undefined) throw badDocument("mesh", "it is missing");
  requireArrays("mesh", mesh, ["bundle", "configKeys"]);
  const sources = new Map<string, Source>();
  for (const [key, body] of documents) {
    if (!key.startsWith("out.")) continue;
    requireArrays(key, body, ["ports", "subsets"]);
    const out = body as OutDocument;
    const endpoints = endpointsOf(out, documents);
    sources.set(`${out.namespace}/${out.service}`, { out, endpoints, targets: new Map() });
  }
  const inKey = `in.${self.namespace}.${self.service}`;
  const inbound = documents.get(inKey);
  if (inbound !== undefined) requireArrays(inKey, inbound, ["ports"]);
  const context: Context = { mesh: mesh as MeshDocument, sources };
  const services = new Map<string, UpstreamService>();
  for (const [name, source] of sources) services.set(name, compileService(context, source));
  return {
    epoch: version.epoch,
    rev: version.rev,
    mesh: context.mesh,
    services,
    hosts: new Map(Object.entries(context.mesh.hosts ?? {})),
    inbound: inbound as InDocument | undefined,
  };
}

interface Source {
  readonly out: OutDocument;
  readonly endpoints: readonly EndpointDocument[];
  /** Targets already built: one object per key and snapshot. */
  readonly targets: Map<string, Target>;
}

interface Context {
  readonly mesh: MeshDocument;
  readonly sources: ReadonlyMap<string, Source>;
}

function badDocument(key: string, why: string): Failure {
  return new Failure(
    "bad_document",
    `Cannot use configuration document ${key}: ${why}`,
    "run the same version of weft as control plane and as proxies",
  );
}

function requireArrays(key: string, body: object, names: readonly string[]): void {
  const record = body as Record<string, unknown>;
  for (const name of names) {
    if (!Array.isArray(record[name])) throw badDocument(key, `${name} is not a list`);
  }
}

function endpointsOf(out: OutDocument, documents: ReadonlyMap<string, object>) {
  const endpoints: EndpointDocument[] = [];
  for (let shard = 0; shard < out.shards; shard++) {
    const key = `eps.${out.namespace}.${out.service}.${shard}`;
    const body = documents.get(key);
    if (body === undefined) continue;
    requireArrays(key, body, ["endpoints"]);
    endpoints.push(...(body as EndpointsDocument).endpoints);
  }
  return endpoints;
}

function compileService(context: Context, source: Source): UpstreamService {
  const { namespace, service } = source.out;
  const ports = new Map<number, UpstreamPort>();
  for (const port of source.out.ports) ports.set(port.port, compilePort(context, source, port));
  return { namespace, service, ports, endpoints: source.endpoints };
}

function compilePort(context: Context, source: Source, port: OutPort): UpstreamPort {
  const target = targetOf(context, source, port, undefined);
  const backend: CompiledBackend = {
    target,
    requestHeaders: undefined,
    responseHeaders: undefined,
    perTryTimeoutMs: port.policy.perTryTimeoutMs,
  };
  const rules = port.routes?.rules.map((rule) => compileRule(context, port, rule)) ?? [];
  const matches = port.routes?.matches.map((match) => ({
    ...match,
    path: { ...match.path, value: spelt(context, match.path.value) },
  }));
  return {
    namespace: source.out.namespace,
    service: source.out.service,
    port: port.port,
    protocol: port.protocol,
    detect: port.detect === true,
    policy: port.policy,
    target,
    matches: matches === undefined ? undefined : compileMatches(matches, rules),
    direct: directRoute(target.key, backend, port.policy.requestTimeoutMs),
  };
}

/** A path of the configuration in the spelling that requests have when they are compared. */
function spelt({ mesh }: Context, path: string): string {
  const { pathNormalization: level = DEFAULT_LEVEL } = mesh;
  return level === "REPORT_ONLY" ? path : (normalizeTarget(path, level) ?? path);
}

function directRoute(key: string, backend: CompiledBackend, requestTimeoutMs: number): Route {
  const rule: CompiledRule = {
    name: "",
    redirect: undefined,
    backends: [backend],
    only: backend,
    weights: [1],
    splitKey: key,
    hostname: undefined,
    path: undefined,
    responseHeaders: undefined,
    requestTimeoutMs,
  };
  const any = { exact: false, method: undefined, headers: [], query: [], hosts: [] } as const;
  return { rule, prefix: "", ...any };
}

function compileRule(context: Context, port: OutPort, rule: RouteRuleDocument): CompiledRule {
  const backends = rule.backends.map((backend) => compileBackend(context, rule, backend));
  const chosen = backends.filter((_, i) => rule.backends[i]!.weight > 0);
  const split = rule.backends.map((b) => `${b.namespace}/${b.service}:${b.port}/${b.subset ?? ""}`);
  const weights = reduceWeights(rule.backends.map((backend) => backend.weight));
  const path = rule.rewrite?.path;
  return {
    name: rule.name,
    redirect: rule.redirect,
    backends,
    only: chosen.length === 1 ? chosen[0] : undefined,
    weights,
    splitKey: `${rule.name}=${split.map((name, i) => `${name}*${weights[i]}`).join(",")}`,
    hostname: rule.rewrite?.hostname,
    path: path === undefined ? undefined : { ...path, value: spelt(context, path.value) },
    responseHeaders: compileEdits(rule.responseHeaders),
    requestTimeoutMs: rule.requestTimeoutMs ?? port.policy.requestTimeoutMs,
  };
}

function compileBackend(
  context: Context,
  rule: RouteRuleDocument,
  backend: BackendDocument,
): CompiledBackend {
  const target = backend.invalid === true ? undefined : findTarget(context, backend);
  return {
    target,
    requestHeaders: compileEdits(rule.requestHeaders, backend.requestHeaders),
    responseHeaders: compileEdits(backend.responseHeaders, rule.responseHeaders),
    perTryTimeoutMs: rule.backendRequestTimeoutMs ?? target?.policy.perTryTimeoutMs ?? 0,
  };
}

function findTarget(context: Context, backend: BackendDocument): Target | undefined {
  const source = context.sources.get(`${backend.namespace}/${backend.service}`);
  const port = source?.out.ports.find((candidate) => candidate.port === backend.port);
  if (source === undefined || port === undefined) return undefined;
  if (backend.subset === undefined) return targetOf(context, source, port, undefined);
  const subset = source.out.subsets.find((candidate) => candidate.name === backend.subset);
  return subset && targetOf(context, source, port, subset);
}

function targetOf(
  context: Context,
  source: Source,
  port: OutPort,
  subset: { readonly name: string; readonly labels: Labels } | undefined,
): Target {
  const { namespace, service } = source.out;
  const key = `${namespace}/${service}:${port.port}${subset ? `/${subset.name}` : ""}`;
  const known = source.targets.get(key);
  if (known !== undefined) return known;
  const name = String(port.port);
  const target: Target = {
    key,
    namespace,
    service,
    port: port.port,
    subset: subset?.name,
    protocol: port.protocol,
    sni: `p${port.port}.${service}.${namespace}.${context.mesh.trustDomain}`,
    endpoints: source.endpoints.filter(
      (endpoint) =>
        endpoint.ports[name] !== undefined &&
        (subset === undefined || hasLabels(endpoint.labels, subset.labels)),
    ),
    policy: port.policy,
  };
  source.targets.set(key, target);
  return target;
}

/** Whether `labels` carry every one of `wanted`. */
function hasLabels(labels: Labels, wanted: Labels): boolean {
  return Object.entries(wanted).every(([name, value]) => labels[name] === value);
}
