/**
 * Resources and live endpoints to the documents proxies read: a pure function with a fixed order,
 * so that equal input gives equal bytes. Defaults are filled and references resolved here.
 */
import { type PortMtlsOf, portMtls } from "../config/port-mtls.ts";
import {
  type HttpRouteResource,
  type MeshResource,
  type Resource,
  resourceKey,
  type ServiceResource,
  type TrafficPolicyResource,
  type WorkloadResource,
} from "../config/resource.ts";
import {
  ENDPOINTS_PER_SHARD,
  type EndpointDocument,
  type EndpointsDocument,
  type InDocument,
  type Labels,
  type MeshDocument,
  type OutDocument,
  type OutPort,
} from "../snapshot/document.ts";
import { policyOf } from "./policy.ts";
import { backendService, routeTable } from "./routes.ts";

/** A document as it should be on the bus. */
export interface Desired {
  /** `mesh`, `out.<ns>.<svc>`, `in.<ns>.<svc>`, `eps.<ns>.<svc>.<shard>`. */
  readonly key: string;
  readonly body: object;
}

/** An endpoint that registered itself. */
export interface LiveEndpoint extends EndpointDocument {
  readonly namespace: string;
  readonly service: string;
  /** Given once and kept, so that one coming or going touches one document. */
  readonly shard: number;
}

export type MeshFacts = Pick<MeshDocument, "trustDomain" | "bundle" | "configKeys">;

/** Resources sorted into what compilation looks up; services are `<namespace>/<name>`. */
interface Catalogue {
  readonly mesh: MeshResource | undefined;
  readonly services: ReadonlyMap<string, ServiceResource>;
  /** By the service they name as parent, oldest first. */
  readonly routes: ReadonlyMap<string, readonly HttpRouteResource[]>;
  /** Ports that any route leads to, as `<namespace>/<name>:<port>`. */
  readonly routedPorts: ReadonlySet<string>;
  readonly policies: ReadonlyMap<string, readonly TrafficPolicyResource[]>;
  readonly workloads: ReadonlyMap<string, readonly WorkloadResource[]>;
  readonly mtls: PortMtlsOf;
}

/**
 * `created` gives the order in which resources came into being (any rising number by resource
 * key): between routes of equal precedence the oldest wins, then the first by namespace and name.
 */
export function compileDocuments(
  resources: readonly Resource[],
  live: readonly LiveEndpoint[],
  mesh: MeshFacts,
  created: ReadonlyMap<string, number> = new Map(),
): Desired[] {
  const catalogue = catalogueOf(resources, created);
  const body: MeshDocument = {
    trustDomain: mesh.trustDomain,
    bundle: mesh.bundle,
    configKeys: mesh.configKeys,
    outbound: catalogue.mesh?.spec.outbound ?? "REGISTRY_ONLY",
    pathNormalization: catalogue.mesh?.spec.pathNormalization ?? "DECODE_AND_MERGE_SLASHES",
    ...hostsOf(catalogue.services),
  };
  const desired: Desired[] = [{ key: "mesh", body }];
  const liveByService = Map.groupBy(live, (endpoint) => nameOf(endpoint));
  for (const [name, service] of catalogue.services) {
    const shards = shardsOf(
      service,
      liveByService.get(name) ?? [],
      catalogue.workloads.get(name) ?? [],
    );
    desired.push(...serviceDocuments(catalogue, service, shards));
  }
  return desired.sort((a, b) => compareText(a.key, b.key));
}

/**
 * Keys a caller of `service` must read: its own and those of every backend its routes name.
 * `eps.<ns>.<svc>.*` stands for all shards.
 */
export function grantsOf(
  resources: readonly Resource[],
  service: { readonly namespace: string; readonly service: string },
): string[] {
  const catalogue = catalogueOf(resources, new Map());
  const keys = new Set<string>();
  const add = (namespace: string, name: string) => {
    keys.add(`out.${namespace}.${name}`);
    keys.add(`eps.${namespace}.${name}.*`);
  };
  add(service.namespace, service.service);
  for (const route of catalogue.routes.get(nameOf(service)) ?? []) {
    for (const rule of route.spec.rules) {
      for (const backend of rule.backendRefs ?? []) {
        const to = backendService(backend, route.metadata.namespace);
        if (catalogue.services.has(nameOf(to))) add(to.namespace, to.service);
      }
    }
  }
  return [...keys].sort(compareText);
}

/** Nothing where no service has hosts: the bytes of most meshes do not change. */
function hostsOf(services: ReadonlyMap<string, ServiceResource>): Pick<MeshDocument, "hosts"> {
  const hosts = [...services].flatMap(([name, { spec }]) =>
    (spec.hosts ?? []).map((host) => [host, name] as const),
  );
  if (hosts.length === 0) return {};
  return { hosts: Object.fromEntries(hosts.sort(([a], [b]) => compareText(a, b))) };
}

function nameOf(of: { readonly namespace: string; readonly service: string }): string {
  return `${of.namespace}/${of.service}`;
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function catalogueOf(
  resources: readonly Resource[],
  created: ReadonlyMap<string, number>,
): Catalogue {
  const age = (resource: Resource) => created.get(resourceKey(resource)) ?? 0;
  const sorted = resources.toSorted(
    (a, b) => age(a) - age(b) || compareText(resourceKey(a), resourceKey(b)),
  );
  const services = new Map<string, ServiceResource>();
  for (const resource of sorted) {
    if (resource.kind !== "Service") continue;
    services.set(`${resource.metadata.namespace}/${resource.metadata.name}`, resource);
  }
  const routes = sorted.filter((resource) => resource.kind === "HTTPRoute");
  return {
    mesh: sorted.find((resource) => resource.kind === "Mesh"),
    services,
    routes: routesByParent(routes),
    routedPorts: routedPorts(routes),
    policies: Map.groupBy(
      sorted.filter((resource) => resource.kind === "TrafficPolicy"),
      ({ metadata, spec }) => `${metadata.namespace}/${spec.target.service}`,
    ),
    workloads: Map.groupBy(
      sorted.filter((resource) => resource.kind === "Workload"),
      ({ metadata, spec }) => `${metadata.namespace}/${spec.service}`,
    ),
    mtls: portMtls(sorted),
  };
}

function routesByParent(routes: readonly HttpRouteResource[]) {
  const byParent = new Map<string, HttpRouteResource[]>();
  for (const route of routes) {
    for (const name of new Set(route.spec.parentRefs.map((parent) => parent.name))) {
      const key = `${route.metadata.namespace}/${name}`;
      const known = byParent.get(key);
      if (known === undefined) byParent.set(key, [route]);
      else known.push(route);
    }
  }
  return byParent;
}

function routedPorts(routes: readonly HttpRouteResource[]): Set<string> {
  const ports = new Set<string>();
  for (const route of routes) {
    for (const rule of route.spec.rules) {
      for (const backend of rule.backendRefs ?? []) {
        const { namespace, service } = backendService(backend, route.metadata.namespace);
        ports.add(`${namespace}/${service}:${backend.port}`);
      }
    }
  }
  return ports;
}

function serviceDocuments(
  catalogue: Catalogue,
  service: ServiceResource,
  shards: readonly (readonly EndpointDocument[])[],
): Desired[] {
  const { name, namespace } = service.metadata;
  const key = `${namespace}/${name}`;
  const context = { services: catalogue.services, routes: catalogue.routes.get(key) ?? [] };
  const policies = catalogue.policies.get(key) ?? [];
  const ports = service.spec.ports.map((declared): OutPort => {
    const { port } = declared;
    const routes = routeTable(context, service, port);
    // An undeclared port is HTTP where a route says so; otherwise callers find out.
    const http = routes !== undefined || catalogue.routedPorts.has(`${key}:${port}`);
    const opaque = declared.protocol !== undefined && declared.protocol !== "http";
    const { proxyProtocol, ...policy } = policyOf(catalogue.mesh?.spec.defaults, policies, port);
    return {
      port,
      protocol: declared.protocol ?? (http ? "http" : "tcp"),
      ...(declared.protocol === undefined && !http ? { detect: true as const } : {}),
      policy: { ...policy, ...(opaque && proxyProtocol ? { proxyProtocol } : {}) },
      ...(routes === undefined ? {} : { routes }),
    };
  });
  const out: OutDocument = {
    namespace,
    service: name,
    ports,
    subsets: (service.spec.subsets ?? []).map((subset) => ({
      name: subset.name,
      labels: subset.labels,
    })),
    shards: shards.length,
  };
  const permissive = (port: number) => catalogue.mtls(namespace, name, port).mode === "PERMISSIVE";
  const inbound: InDocument = {
    namespace,
    service: name,
    ports: ports.map(({ port, protocol, detect, policy: { proxyProtocol } }) => ({
      ...{ port, protocol },
      ...(detect === undefined ? {} : { detect }),
      ...(proxyProtocol === undefined ? {} : { proxyProtocol }),
      ...(permissive(port) ? { permissive: true as const } : {}),
    })),
  };
  return [
    { key: `out.${namespace}.${name}`, body: out },
    { key: `in.${namespace}.${name}`, body: inbound },
    ...shards.map((endpoints, shard) => {
      const body: EndpointsDocument = { namespace, service: name, shard, endpoints };
      return { key: `eps.${namespace}.${name}.${shard}`, body };
    }),
  ];
}

/** Documented workloads come first in shards of their own: they change only with a revision. */
function shardsOf(
  service: ServiceResource,
  live: readonly LiveEndpoint[],
  workloads: readonly WorkloadResource[],
): EndpointDocument[][] {
  const shards: EndpointDocument[][] = [];
  for (let start = 0; start < workloads.length; start += ENDPOINTS_PER_SHARD) {
    const chunk = workloads.slice(start, start + ENDPOINTS_PER_SHARD);
    shards.push(chunk.map((workload) => workloadEndpoint(service, workload)));
  }
  const first = shards.length;
  for (const endpoint of live.toSorted((a, b) => compareText(a.id, b.id))) {
    if (!selects(service, endpoint.labels)) continue;
    const at = first + endpoint.shard;
    while (shards.length <= at) shards.push([]);
    shards[at]?.push(endpointBody(endpoint));
  }
  return shards.length === 0 ? [[]] : shards;
}

function selects(service: ServiceResource, labels: Labels): boolean {
  const wanted = service.spec.selector?.labels ?? {};
  return Object.entries(wanted).every(([name, value]) => labels[name] === value);
}

/** Only the fields of the document, in its order: others must not change its bytes. */
function endpointBody(live: LiveEndpoint): EndpointDocument {
  return {
    id: live.id,
    address: live.address,
    ...(live.meshPort === undefined ? {} : { meshPort: live.meshPort }),
    ...(live.identity === undefined ? {} : { identity: live.identity }),
    ports: live.ports,
    labels: live.labels,
    locality: live.locality,
    weight: live.weight,
    ...(live.suspect === true ? { suspect: true as const } : {}),
  };
}

function workloadEndpoint(service: ServiceResource, workload: WorkloadResource): EndpointDocument {
  const { spec, metadata } = workload;
  const same = Object.fromEntries(service.spec.ports.map(({ port }) => [String(port), port]));
  return {
    id: metadata.name,
    address: spec.address,
    ...(spec.meshPort === undefined ? {} : { meshPort: spec.meshPort }),
    ...(spec.identity === undefined ? {} : { identity: spec.identity }),
    ports: spec.ports ?? same,
    labels: metadata.labels,
    locality: spec.locality ?? "",
    weight: spec.weight ?? 1,
  };
}
