/**
 * What only the whole set can say: references, ports, conflicts, routes that can never match.
 * References mean documents, never current workloads.
 */
import { type Finding, noPort, noService, type Report, reporter } from "./findings.ts";
import {
  type Issue,
  type ParsedResource,
  pathText,
  type Resource,
  resourceKey,
  type ServiceResource,
  targetName,
} from "./resource.ts";
import { HOSTS_MAX } from "./service-host.ts";
import { checkProxyProtocol } from "./validate-proxy-protocol.ts";
import { routeFindings } from "./validate-routes.ts";
import { checkOutsideTls } from "./validate-tls.ts";

export interface ValidateOptions {
  /** Accept what the Gateway API accepts at run time: dangling references, shadowed matches. */
  readonly lenient: boolean;
  /** Trust domain of the control plane; undefined = nothing to compare with. */
  readonly trustDomain?: string;
  /**
   * The set before the change. What was already wrong there (accepted by `lenient`) does not
   * stand in the way of other changes.
   */
  readonly before?: readonly Resource[];
}

/** Nobody reads further than this. */
const ISSUES_MAX = 200;

/**
 * Judges the set as it would be. Issues of documents among `changed` carry their place; those of
 * others name the document instead (`source` is its key, line 0), as when a deletion leaves a
 * reference dangling.
 */
export function validateSet(
  next: readonly Resource[],
  changed: readonly ParsedResource[],
  options: ValidateOptions,
): Issue[] {
  const places = new Map(changed.map((parsed) => [resourceKey(parsed.resource), parsed]));
  const tolerated = new Set(
    (options.before ? findingsOf(options.before, options) : []).map(nameOf),
  );
  const issues: Issue[] = [];
  for (const finding of findingsOf(next, options)) {
    if (issues.length === ISSUES_MAX) break;
    if (options.lenient && finding.tolerable) continue;
    const key = resourceKey(finding.resource);
    const place = places.get(key);
    if (place === undefined && tolerated.has(nameOf(finding))) continue;
    issues.push({
      source: place?.source ?? key,
      ...(place?.at(finding.path) ?? { line: 0, column: 0 }),
      path: pathText(finding.path),
      value: finding.value,
      reason: finding.reason,
      fix: finding.fix,
      code: finding.code,
    });
  }
  return issues;
}

function nameOf(finding: Finding): string {
  return `${resourceKey(finding.resource)} ${pathText(finding.path)} ${finding.code}`;
}

/** Everything wrong in a set, tolerable or not. */
export function findingsOf(set: readonly Resource[], options: ValidateOptions): Finding[] {
  const services = new Map<string, ServiceResource>();
  for (const resource of set) {
    if (resource.kind !== "Service") continue;
    services.set(`${resource.metadata.namespace}/${resource.metadata.name}`, resource);
  }
  const findings: Finding[] = [];
  const targets = new Map<string, Resource>();
  const hosts = new Map<string, string>();
  for (const resource of set) {
    const report = reporter(resource, findings);
    if (resource.kind === "Mesh") checkMesh(resource, report, options.trustDomain);
    else if (resource.kind === "Service") {
      checkService(resource, report);
      checkHosts(resource, services, hosts, report);
    } else if (resource.kind === "Workload") {
      checkWorkload(resource, services, report, options.trustDomain);
    } else if (resource.kind === "TrafficPolicy") {
      const service = checkTarget(resource, services, report);
      checkOutsideTls(resource, service, report);
      checkProxyProtocol(resource, service, report);
      checkTwice(resource, "put both into one TrafficPolicy", targets, report);
    } else if (resource.kind === "PeerAuth") {
      checkTarget(resource, services, report);
      checkTwice(resource, "keep one of the two", targets, report);
    }
  }
  findings.push(...routeFindings(set, services));
  return findings;
}

type Of<Kind extends Resource["kind"]> = Extract<Resource, { kind: Kind }>;

function checkMesh(mesh: Of<"Mesh">, report: Report, trustDomain: string | undefined): void {
  const given = mesh.spec.trustDomain;
  if (given === undefined || trustDomain === undefined || given === trustDomain) return;
  const reason = `the control plane was started with trust domain ${trustDomain}`;
  const fix = `write ${trustDomain}, or leave it out`;
  report(["spec", "trustDomain"], given, "trust_domain_mismatch", reason, fix);
}

function checkService({ spec }: ServiceResource, report: Report): void {
  const ports = new Set<number>();
  const names = new Set<string>();
  spec.ports.forEach((port, i) => {
    if (ports.has(port.port)) {
      const reason = `port ${port.port} is already in this list`;
      const at = ["spec", "ports", i, "port"];
      report(at, port.port, "duplicate_port", reason, "keep one of the two");
    }
    ports.add(port.port);
    if (port.name === undefined) return;
    if (names.has(port.name)) {
      const fix = "give each port a name of its own";
      const at = ["spec", "ports", i, "name"];
      report(at, port.name, "duplicate_name", `a port is already named ${port.name}`, fix);
    }
    names.add(port.name);
  });
  const subsets = new Set<string>();
  spec.subsets?.forEach((subset, i) => {
    if (subsets.has(subset.name)) {
      const reason = `there is already a subset ${subset.name}`;
      const fix = "give each subset a name of its own";
      report(["spec", "subsets", i, "name"], subset.name, "duplicate_name", reason, fix);
    }
    subsets.add(subset.name);
  });
}

/** `taken`: the hosts of services before this one, each with its service. */
function checkHosts(
  { spec, metadata }: ServiceResource,
  services: ReadonlyMap<string, ServiceResource>,
  taken: Map<string, string>,
  report: Report,
): void {
  spec.hosts?.forEach((host, i) => {
    const at = ["spec", "hosts", i];
    const [name, namespace, ...more] = host.split(".");
    const other = taken.get(host);
    if (other !== undefined) {
      report(at, host, "conflict", `${other} already answers to it`, "keep one of the two");
    } else if (more.length === 0 && services.has(`${namespace}/${name}`)) {
      const reason = `Service ${name} of namespace ${namespace} is called so`;
      report(at, host, "conflict", reason, "remove it");
    } else if (taken.size >= HOSTS_MAX) {
      const reason = `the mesh has more than ${HOSTS_MAX} hosts`;
      report(at, host, "too_many", reason, "remove hosts that nobody calls");
    }
    taken.set(host, `Service/${metadata.namespace}/${metadata.name}`);
  });
}

function checkWorkload(
  workload: Of<"Workload">,
  services: ReadonlyMap<string, ServiceResource>,
  report: Report,
  trustDomain: string | undefined,
): void {
  const { spec, metadata } = workload;
  const service = services.get(`${metadata.namespace}/${spec.service}`);
  if (service === undefined) {
    noService(["spec", "service"], spec.service, metadata.namespace, services, report);
  } else {
    for (const port of Object.keys(spec.ports ?? {})) {
      if (service.spec.ports.some((known) => String(known.port) === port)) continue;
      noPort(["spec", "ports", port], Number(port), service, report);
    }
  }
  if ((spec.meshPort === undefined) !== (spec.identity === undefined)) {
    const missing = spec.meshPort === undefined ? "meshPort" : "identity";
    const reason = "meshPort and identity belong together: a proxy is dialled by its identity";
    report(["spec"], missing, "missing_field", reason, `add ${missing}, or remove the other`);
  }
  if (spec.meshPort === undefined && /(?:^|\.)localhost$/.test(spec.address)) {
    const reason = "a name that leads a proxy to its own host is never dialled";
    const fix = "write 127.0.0.1 if each proxy's own host is meant";
    report(["spec", "address"], spec.address, "invalid_address", reason, fix);
  }
  const prefix = `spiffe://${trustDomain}/`;
  if (trustDomain !== undefined && spec.identity?.startsWith(prefix) === false) {
    const reason = `the identity is not of trust domain ${trustDomain}`;
    const fix = `start it with ${prefix}`;
    report(["spec", "identity"], spec.identity, "trust_domain_mismatch", reason, fix);
  }
}

/** The service that a document is about; undefined where it names none, or one that is not there. */
function checkTarget(
  { metadata: { namespace }, spec: { target } }: Of<"TrafficPolicy" | "PeerAuth">,
  services: ReadonlyMap<string, ServiceResource>,
  report: Report,
): ServiceResource | undefined {
  if (target === undefined) return undefined;
  const { service: name, port } = target;
  const service = services.get(`${namespace}/${name}`);
  const path = ["spec", "target"];
  if (service === undefined) noService([...path, "service"], name, namespace, services, report);
  else if (port !== undefined && !service.spec.ports.some((known) => known.port === port)) {
    noPort([...path, "port"], port, service, report);
  }
  return service;
}

/** `taken`: targets of documents before this one, by kind and target. */
function checkTwice(
  resource: Of<"TrafficPolicy" | "PeerAuth">,
  fix: string,
  taken: Map<string, Resource>,
  report: Report,
): void {
  const target = `${resource.kind} ${targetName(resource)}`;
  const other = taken.get(target);
  if (other === undefined) {
    taken.set(target, resource);
    return;
  }
  const service = resource.spec.target?.service;
  const path = ["spec", ...(service === undefined ? [] : ["target", "service"])];
  report(path, service ?? "", "conflict", `${resourceKey(other)} already has this target`, fix);
}
