/**
 * Resources and live endpoints to the documents proxies read: a pure function with a fixed order,
 * so that equal input gives equal bytes. Defaults are filled and references resolved here.
 */
import {
  type HttpRouteResource,
  type MeshResource,
  type Resource,
  resourceKey,
  type ServiceResource,
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
  type Protocol,
} from "../snapshot/document.ts";
import { policyOf } from "./policy.ts";
import { routesOf, routeTable } from "./routes.ts";

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

/** Resources sorted into what compilation looks up. */
export interface Catalogue {
  readonly mesh: MeshResource | undefined;
  /** By `<namespace>/<name>`. */
  readonly services: ReadonlyMap<string, ServiceResource>;
  readonly routes: readonly HttpRouteResource[];
  readonly policies: readonly Extract<Resource, { kind: "TrafficPolicy" }>[];
  readonly workloads: readonly WorkloadResource[];
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
  };
  const desired: Desired[] = [{ key: "mesh", body }];
  const liveByService = Map.groupBy(live, (endpoint) => nameOf(endpoint));
  const staticByService = Map.groupBy(
    catalogue.workloads,
    (workload) => `${workload.metadata.namespace}/${workload.spec.service}`,
  );
  for (const [name, service] of catalogue.services) {
    const shards = shardsOf(
      service,
      liveByService.get(name) ?? [],
      staticByService.get(name) ?? [],
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
  const resource = catalogue.services.get(nameOf(service));
  const routes = resource === undefined ? [] : routesOf(catalogue, resource);
  for (const route of routes) {
    for (const rule of route.spec.rules) {
      for (const backend of rule.backendRefs ?? []) {
        const name = backend.kind === "Subset" ? backend.name.split(".")[0] : backend.name;
        const namespace = backend.namespace ?? route.metadata.namespace;
        if (name !== undefined && catalogue.services.has(`${namespace}/${name}`)) {
          add(namespace, name);
        }
      }
    }
  }
  return [...keys].sort(compareText);
}

function nameOf(of: { readonly namespace: string; readonly service: string }): string {
  return `${of.namespace}/${of.service}`;
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

export function catalogueOf(
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
  return {
    mesh: sorted.find((resource) => resource.kind === "Mesh"),
    services,
    routes: sorted.filter((resource) => resource.kind === "HTTPRoute"),
    policies: sorted.filter((resource) => resource.kind === "TrafficPolicy"),
    workloads: sorted.filter((resource) => resource.kind === "Workload"),
  };
}

function serviceDocuments(
  catalogue: Catalogue,
  service: ServiceResource,
  shards: readonly (readonly EndpointDocument[])[],
): Desired[] {
  const { name, namespace } = service.metadata;
  const ports = service.spec.ports.map((port): OutPort => {
    const routes = routeTable(catalogue, service, port.port);
    return {
      port: port.port,
      protocol: protocolOf(catalogue, service, port.port),
      policy: policyOf(catalogue, service, port.port),
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
  const inbound: InDocument = {
    namespace,
    service: name,
    ports: ports.map(({ port, protocol }) => ({ port, protocol })),
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

/** Declared, or HTTP where a route says so, or opaque. */
function protocolOf(catalogue: Catalogue, service: ServiceResource, number: number): Protocol {
  const declared = service.spec.ports.find((port) => port.port === number)?.protocol;
  if (declared !== undefined) return declared;
  if (routeTable(catalogue, service, number) !== undefined) return "http";
  const { name, namespace } = service.metadata;
  const routed = catalogue.routes.some((route) =>
    route.spec.rules.some((rule) =>
      rule.backendRefs?.some(
        (backend) =>
          backend.port === number &&
          (backend.namespace ?? route.metadata.namespace) === namespace &&
          (backend.kind === "Subset" ? backend.name.split(".")[0] : backend.name) === name,
      ),
    ),
  );
  return routed ? "http" : "tcp";
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
