/** References of HTTPRoutes, and matches that an earlier one keeps from ever being reached. */
import { type Finding, noPort, noService, notHttp, type Report, reporter } from "./findings.ts";
import { attachedRoutes, carriesHttp, routedMatches, signature } from "./precedence.ts";
import {
  type HttpRouteResource,
  type Path,
  type Resource,
  resourceKey,
  type ServiceResource,
} from "./resource.ts";
import { closest } from "./suggest.ts";

type Services = ReadonlyMap<string, ServiceResource>;

export function routeFindings(set: readonly Resource[], services: Services): Finding[] {
  const findings: Finding[] = [];
  const routes = set.filter((resource) => resource.kind === "HTTPRoute");
  for (const route of routes) {
    const report = reporter(route, findings);
    checkParents(route, services, report);
    route.spec.rules.forEach((rule, i) => {
      checkRule(route, rule, ["spec", "rules", i], services, report);
    });
  }
  findShadowed(routes, services, (route) => reporter(route, findings));
  return findings;
}

function checkParents(route: HttpRouteResource, services: Services, report: Report): void {
  const { namespace } = route.metadata;
  const seen = new Set<string>();
  route.spec.parentRefs.forEach((parent, i) => {
    const path = ["spec", "parentRefs", i];
    const target = `${parent.name}:${parent.port ?? "*"}`;
    if (seen.has(target)) {
      const reason = "this parent is already in the list";
      report([...path, "name"], parent.name, "duplicate_name", reason, "keep one of the two");
    }
    seen.add(target);
    const service = services.get(`${namespace}/${parent.name}`);
    if (service === undefined) {
      noService([...path, "name"], parent.name, namespace, services, report);
    } else if (parent.port === undefined) {
      if (service.spec.ports.some(({ port }) => carriesHttp(service, port))) return;
      const reason = `no port of Service ${parent.name} carries HTTP`;
      const fix = "declare one of its ports http, http2 or grpc";
      report([...path, "name"], parent.name, "wrong_protocol", reason, fix);
    } else if (!service.spec.ports.some(({ port }) => port === parent.port)) {
      noPort([...path, "port"], parent.port, service, report);
    } else notHttp([...path, "port"], parent.port, service, report);
  });
}

type Rule = HttpRouteResource["spec"]["rules"][number];

function checkRule(
  route: HttpRouteResource,
  rule: Rule,
  path: Path,
  services: Services,
  report: Report,
): void {
  const backends = rule.backendRefs ?? [];
  const redirects = rule.filters?.some((filter) => filter.type === "RequestRedirect") === true;
  if (backends.length === 0 && !redirects) {
    const reason = "the rule leads nowhere: it has neither backendRefs nor a RequestRedirect";
    report(path, "", "no_backend", reason, "add backendRefs", true);
  }
  if (backends.length > 0 && backends.every((backend) => backend.weight === 0)) {
    const at = [...path, "backendRefs", 0, "weight"];
    const reason = "every weight of this rule is 0, so nothing would receive its traffic";
    report(at, 0, "no_weight", reason, "give one backend a weight above 0", true);
  }
  backends.forEach((backend, i) => {
    checkBackend(route, backend, [...path, "backendRefs", i], services, report);
  });
}

function checkBackend(
  route: HttpRouteResource,
  backend: NonNullable<Rule["backendRefs"]>[number],
  path: Path,
  services: Services,
  report: Report,
): void {
  const namespace = backend.namespace ?? route.metadata.namespace;
  const [name = "", subset] = backend.kind === "Subset" ? backend.name.split(".") : [backend.name];
  const service = services.get(`${namespace}/${name}`);
  if (service === undefined) {
    noService([...path, "name"], name, namespace, services, report);
    return;
  }
  const { visibility } = service.spec;
  const foreign = namespace !== route.metadata.namespace;
  if (
    foreign &&
    visibility &&
    !visibility.some((ns) => ns === "*" || ns === route.metadata.namespace)
  ) {
    const reason = `Service ${name} is not visible to namespace ${route.metadata.namespace}`;
    const fix = `add ${route.metadata.namespace} to spec.visibility of the Service`;
    report([...path, "namespace"], namespace, "not_visible", reason, fix, true);
  }
  const { port } = backend;
  if (port !== undefined) {
    if (!service.spec.ports.some((known) => known.port === port)) {
      noPort([...path, "port"], port, service, report);
    } else notHttp([...path, "port"], port, service, report);
  }
  const subsets = service.spec.subsets?.map((known) => known.name) ?? [];
  if (subset === undefined || subsets.includes(subset)) return;
  const guess = closest(subset, subsets);
  const fix =
    guess !== undefined
      ? `did you mean ${name}.${guess}?`
      : subsets.length > 0
        ? `use one of ${subsets.map((known) => `${name}.${known}`).join(", ")}`
        : `add the subset to spec.subsets of Service ${name}`;
  const reason = `Service ${name} has no subset ${subset}`;
  report([...path, "name"], backend.name, "unknown_subset", reason, fix, true);
}

/** How often a match is tried over ports and host names, and how often an equal one was first. */
interface Reach {
  readonly route: HttpRouteResource;
  readonly path: Path;
  tried: number;
  shadowed: number;
  by: string;
}

function findShadowed(
  routes: readonly HttpRouteResource[],
  services: Services,
  reportTo: (route: HttpRouteResource) => Report,
): void {
  const byService = new Map<ServiceResource, HttpRouteResource[]>();
  const parents = new Map<string, HttpRouteResource[]>();
  for (const route of routes) {
    for (const name of new Set(route.spec.parentRefs.map((parent) => parent.name))) {
      const key = `${route.metadata.namespace}/${name}`;
      parents.set(key, [...(parents.get(key) ?? []), route]);
    }
  }
  for (const [key, attached] of parents) {
    const service = services.get(key);
    if (service !== undefined) byService.set(service, attached);
  }
  const reaches = new Map<string, Reach>();
  for (const [service, attached] of byService) {
    for (const { port } of service.spec.ports) {
      countReach(attachedRoutes(attached, service, port), reaches);
    }
  }
  for (const reach of reaches.values()) {
    if (reach.shadowed < reach.tried) continue;
    const reason = `can never match: ${reach.by} matches the same requests and comes first`;
    const fix = "remove it, or make one of the two more specific";
    reportTo(reach.route)(reach.path, "", "shadowed", reason, fix, true);
  }
}

function countReach(routes: readonly HttpRouteResource[], reaches: Map<string, Reach>): void {
  const first = new Map<string, string>();
  for (const routed of routedMatches(routes)) {
    const { route, ruleIndex, matchIndex } = routed;
    const rule: Path = ["spec", "rules", ruleIndex];
    const path = matchIndex < 0 ? rule : [...rule, "matches", matchIndex];
    const name = `${resourceKey(route)} rule ${ruleIndex}`;
    const key = `${resourceKey(route)} ${path.join(".")}`;
    const reach = reaches.get(key) ?? { route, path, tried: 0, shadowed: 0, by: "" };
    reaches.set(key, reach);
    reach.tried += 1;
    const signed = signature(routed);
    const by = first.get(signed);
    if (by === undefined) first.set(signed, name);
    else {
      reach.shadowed += 1;
      reach.by = by;
    }
  }
}
