/** HTTPRoutes to route tables: which govern a service port, and in which order they are tried. */

import { durationMs } from "../config/fields.ts";
import { attachedRoutes, type RoutedMatch, routedMatches } from "../config/precedence.ts";
import type { HttpRouteResource, ServiceResource } from "../config/resource.ts";
import type {
  BackendDocument,
  HeaderEdit,
  PathEdit,
  RedirectDocument,
  RouteMatchDocument,
  RouteRuleDocument,
  RouteTable,
} from "../snapshot/document.ts";

type Rule = HttpRouteResource["spec"]["rules"][number];
type Backend = NonNullable<Rule["backendRefs"]>[number];
type Filter = NonNullable<Rule["filters"]>[number];

export interface RouteContext {
  readonly services: ReadonlyMap<string, ServiceResource>;
  /** Those that name the service as parent: oldest first, then by namespace and name. */
  readonly routes: readonly HttpRouteResource[];
}

/** Undefined: no route governs the port. */
export function routeTable(
  context: RouteContext,
  service: ServiceResource,
  port: number,
): RouteTable | undefined {
  const attached = attachedRoutes(context.routes, service, port);
  if (attached.length === 0) return undefined;
  const rules: RouteRuleDocument[] = [];
  const indexes = new Map<Rule, number>();
  for (const route of attached) {
    route.spec.rules.forEach((rule, i) => {
      indexes.set(rule, rules.length);
      rules.push(ruleDocument(context, route, rule, i));
    });
  }
  const matches = routedMatches(attached).map((routed) =>
    matchDocument(routed, indexes.get(routed.rule) ?? -1),
  );
  return { matches, rules };
}

function matchDocument(routed: RoutedMatch, rule: number): RouteMatchDocument {
  return {
    hostnames: routed.hostname === undefined ? [] : [routed.hostname],
    path: routed.path,
    ...(routed.match.method === undefined ? {} : { method: routed.match.method }),
    headers: (routed.match.headers ?? []).map(({ name, value }) => ({
      name: name.toLowerCase(),
      value,
    })),
    query: (routed.match.queryParams ?? []).map(({ name, value }) => ({ name, value })),
    rule,
  };
}

function ruleDocument(
  context: RouteContext,
  route: HttpRouteResource,
  rule: Rule,
  index: number,
): RouteRuleDocument {
  const { namespace, name } = route.metadata;
  const filters = rule.filters ?? [];
  const rewrite = filters.find((filter) => filter.type === "URLRewrite")?.urlRewrite;
  const redirect = filters.find((filter) => filter.type === "RequestRedirect")?.requestRedirect;
  const { request, backendRequest } = rule.timeouts ?? {};
  return {
    name: `${namespace}/${name}#${index}`,
    backends: (rule.backendRefs ?? []).map((backend) =>
      backendDocument(context, namespace, backend),
    ),
    ...headerEdits(filters),
    ...(rewrite === undefined
      ? {}
      : {
          rewrite: {
            ...(rewrite.hostname === undefined ? {} : { hostname: rewrite.hostname }),
            ...(rewrite.path === undefined ? {} : { path: pathEdit(rewrite.path) }),
          },
        }),
    ...(redirect === undefined ? {} : { redirect: redirectDocument(redirect) }),
    ...(request === undefined ? {} : { requestTimeoutMs: durationMs(request) }),
    ...(backendRequest === undefined
      ? {}
      : { backendRequestTimeoutMs: durationMs(backendRequest) }),
  };
}

function headerEdits(filters: Backend["filters"] | Rule["filters"]) {
  let edits: { requestHeaders?: HeaderEdit; responseHeaders?: HeaderEdit } = {};
  for (const filter of filters ?? []) {
    if (filter.type === "RequestHeaderModifier") {
      edits = { ...edits, requestHeaders: headerEdit(filter.requestHeaderModifier) };
    } else if (filter.type === "ResponseHeaderModifier") {
      edits = { ...edits, responseHeaders: headerEdit(filter.responseHeaderModifier) };
    }
  }
  return edits;
}

type Modifier = Extract<Filter, { type: "RequestHeaderModifier" }>["requestHeaderModifier"];

function headerEdit(modifier: Modifier): HeaderEdit {
  return { set: modifier.set ?? [], add: modifier.add ?? [], remove: modifier.remove ?? [] };
}

type Modification = NonNullable<Extract<Filter, { type: "URLRewrite" }>["urlRewrite"]["path"]>;

function pathEdit(path: Modification): PathEdit {
  return path.type === "ReplaceFullPath"
    ? { type: "replaceFull", value: path.replaceFullPath }
    : { type: "replacePrefix", value: path.replacePrefixMatch };
}

function redirectDocument(
  redirect: Extract<Filter, { type: "RequestRedirect" }>["requestRedirect"],
): RedirectDocument {
  const { scheme, hostname, port, path } = redirect;
  return {
    ...(scheme === undefined ? {} : { scheme }),
    ...(hostname === undefined ? {} : { hostname }),
    ...(port === undefined ? {} : { port }),
    ...(path === undefined ? {} : { path: pathEdit(path) }),
    status: redirect.statusCode ?? 302,
  };
}

/** Whom a backendRef names. */
export function backendService(backend: Backend, routeNamespace: string) {
  const namespace = backend.namespace ?? routeNamespace;
  if (backend.kind !== "Subset") return { namespace, service: backend.name, subset: undefined };
  const [service = "", subset] = backend.name.split(".");
  return { namespace, service, subset };
}

function backendDocument(
  context: RouteContext,
  routeNamespace: string,
  backend: Backend,
): BackendDocument {
  const { namespace, service, subset } = backendService(backend, routeNamespace);
  const resource = context.services.get(`${namespace}/${service}`);
  const known =
    resource?.spec.ports.some((port) => port.port === backend.port) === true &&
    (subset === undefined || resource.spec.subsets?.some(({ name }) => name === subset) === true) &&
    isVisible(resource, routeNamespace);
  return {
    namespace,
    service,
    port: backend.port ?? 0,
    ...(subset === undefined ? {} : { subset }),
    weight: backend.weight ?? 1,
    ...(known ? {} : { invalid: true as const }),
    ...headerEdits(backend.filters),
  };
}

/** Whether a service lets callers and routes of a namespace use it. */
export function isVisible(service: ServiceResource, namespace: string): boolean {
  const { visibility } = service.spec;
  return (
    visibility === undefined ||
    service.metadata.namespace === namespace ||
    visibility.includes("*") ||
    visibility.includes(namespace)
  );
}
