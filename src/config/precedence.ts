/**
 * The order in which HTTPRoute matches are tried (Gateway API): most specific host name, exact
 * path, longest prefix, method, most headers, most query parameters; then the oldest route, then
 * namespace and name, then the order of rules and matches.
 */
import type { HttpRouteResource, ServiceResource } from "./resource.ts";

type Rule = HttpRouteResource["spec"]["rules"][number];
type Match = NonNullable<Rule["matches"]>[number];

/** One match of one rule under one host name. */
export interface RoutedMatch {
  readonly route: HttpRouteResource;
  readonly rule: Rule;
  readonly ruleIndex: number;
  readonly match: Match;
  /** -1: the rule has no matches and takes everything. */
  readonly matchIndex: number;
  readonly hostname: string | undefined;
  readonly path: { readonly type: "exact" | "prefix"; readonly value: string };
}

/** Routes that name the service as parent, for one port or (undefined) any; order is kept. */
export function attachedRoutes(
  routes: readonly HttpRouteResource[],
  service: ServiceResource,
  port: number | undefined,
): readonly HttpRouteResource[] {
  const { name, namespace } = service.metadata;
  return routes.filter(
    (route) =>
      route.metadata.namespace === namespace &&
      route.spec.parentRefs.some(
        (parent) =>
          parent.name === name &&
          (port === undefined
            ? true
            : parent.port === undefined
              ? carriesHttp(service, port)
              : parent.port === port),
      ),
  );
}

/** A port that is not declared to be something else can be governed by a route. */
export function carriesHttp(service: ServiceResource, port: number): boolean {
  const protocol = service.spec.ports.find((candidate) => candidate.port === port)?.protocol;
  return protocol !== "tcp" && protocol !== "tls";
}

/** All matches of `routes` (oldest first) in the order they are tried. */
export function routedMatches(routes: readonly HttpRouteResource[]): RoutedMatch[] {
  const all: RoutedMatch[] = [];
  for (const route of routes) {
    const hostnames = route.spec.hostnames?.length ? route.spec.hostnames : [undefined];
    route.spec.rules.forEach((rule, ruleIndex) => {
      const matches = rule.matches?.length ? rule.matches : [undefined];
      matches.forEach((match, i) => {
        const path = pathOf(match);
        const matchIndex = match === undefined ? -1 : i;
        for (const hostname of hostnames) {
          all.push({ route, rule, ruleIndex, match: match ?? {}, matchIndex, hostname, path });
        }
      });
    });
  }
  // The sort is stable: equal precedence keeps route, rule and match order.
  return all.sort(compare);
}

function pathOf(match: Match | undefined): RoutedMatch["path"] {
  const value = match?.path?.value ?? "/";
  return { type: match?.path?.type === "Exact" ? "exact" : "prefix", value };
}

function compare(a: RoutedMatch, b: RoutedMatch): number {
  return (
    hostRank(b) - hostRank(a) ||
    Number(b.path.type === "exact") - Number(a.path.type === "exact") ||
    pathLength(b) - pathLength(a) ||
    Number(b.match.method !== undefined) - Number(a.match.method !== undefined) ||
    (b.match.headers?.length ?? 0) - (a.match.headers?.length ?? 0) ||
    (b.match.queryParams?.length ?? 0) - (a.match.queryParams?.length ?? 0)
  );
}

/** Full names before wildcards, longer before shorter, none last. */
function hostRank({ hostname }: RoutedMatch): number {
  if (hostname === undefined) return 0;
  return hostname.startsWith("*.") ? hostname.length : 1000 + hostname.length;
}

/** A trailing slash of a prefix means nothing, so it must not decide. */
function pathLength({ path }: RoutedMatch): number {
  return path.type === "prefix" && path.value.endsWith("/")
    ? path.value.length - 1
    : path.value.length;
}

/** Equal for two matches exactly when they accept the same requests. */
export function signature({ hostname, path, match }: RoutedMatch): string {
  const value = path.type === "prefix" ? path.value.replace(/\/$/, "") : path.value;
  const pairs = (list: readonly { name: string; value: string }[] | undefined, lower: boolean) =>
    (list ?? [])
      .map(({ name, value: wanted }) => [lower ? name.toLowerCase() : name, wanted])
      .sort(([a = "", b = ""], [c = "", d = ""]) => (a < c || (a === c && b < d) ? -1 : 1));
  return JSON.stringify([
    hostname ?? "",
    path.type,
    value,
    match.method ?? "",
    pairs(match.headers, true),
    pairs(match.queryParams, false),
  ]);
}
