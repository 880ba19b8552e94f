/** What an HTTPRoute must fulfil beyond the shape of its fields, judged on the document alone. */
import { durationMs } from "./fields.ts";
import type { HttpRouteResource, Path } from "./resource.ts";

export interface RouteIssue {
  readonly path: Path;
  readonly code: string;
  readonly reason: string;
  readonly fix: string;
}

type Rule = HttpRouteResource["spec"]["rules"][number];
type Report = (path: Path, code: string, reason: string, fix: string) => void;

export function checkRoute(route: HttpRouteResource): RouteIssue[] {
  const issues: RouteIssue[] = [];
  const report: Report = (path, code, reason, fix) => issues.push({ path, code, reason, fix });
  route.spec.parentRefs.forEach((parent, i) => {
    const path = ["spec", "parentRefs", i];
    if ((parent.kind ?? "Gateway") !== "Service") {
      const fix = 'write {group: "", kind: Service, name: …}';
      const reason = "weft attaches routes to Services, not to Gateways";
      report(parent.kind === undefined ? path : [...path, "kind"], "unsupported", reason, fix);
    }
    if (parent.namespace !== undefined && parent.namespace !== route.metadata.namespace) {
      const reason = "a route can only govern services of its own namespace";
      const fix = `put the route into namespace ${parent.namespace}`;
      report([...path, "namespace"], "unsupported", reason, fix);
    }
    if (parent.sectionName !== undefined) {
      const fix = "use port";
      report([...path, "sectionName"], "unsupported", "weft selects parents by port", fix);
    }
  });
  route.spec.rules.forEach((rule, i) => {
    checkRule(rule, ["spec", "rules", i], report);
  });
  return issues;
}

function checkRule(rule: Rule, path: Path, report: Report): void {
  checkFilters(rule, path, report);
  checkBackends(rule, path, report);
  checkTimeouts(rule, path, report);
  rule.matches?.forEach((match, i) => {
    const at = [...path, "matches", i];
    noTwice(match.headers, [...at, "headers"], report, (name) => name.toLowerCase());
    noTwice(match.queryParams, [...at, "queryParams"], report, (name) => name);
  });
}

function noTwice(
  list: readonly { readonly name: string }[] | undefined,
  path: Path,
  report: Report,
  fold: (name: string) => string,
): void {
  const seen = new Set<string>();
  list?.forEach(({ name }, i) => {
    if (seen.has(fold(name))) {
      const reason = "is named twice; one of the two would decide nothing";
      report([...path, i, "name"], "duplicate_name", reason, "keep one of the two");
    }
    seen.add(fold(name));
  });
}

function checkFilters(rule: Rule, path: Path, report: Report): void {
  const seen = new Set<string>();
  const filters = rule.filters ?? [];
  filters.forEach((filter, i) => {
    const at = [...path, "filters", i];
    if (seen.has(filter.type)) {
      const fix = "put everything into one filter of that type";
      report([...at, "type"], "duplicate_filter", `there is already a ${filter.type}`, fix);
    }
    seen.add(filter.type);
    checkModifier(filter, at, report);
    const edit =
      filter.type === "URLRewrite"
        ? filter.urlRewrite.path
        : filter.type === "RequestRedirect"
          ? filter.requestRedirect.path
          : undefined;
    if (edit?.type === "ReplacePrefixMatch" && !onlyPrefixes(rule)) {
      const fix = "match by PathPrefix only, or use ReplaceFullPath";
      report(at, "invalid_filter", "ReplacePrefixMatch needs matches by PathPrefix", fix);
    }
  });
  if (seen.has("URLRewrite") && seen.has("RequestRedirect")) {
    const reason = "URLRewrite and RequestRedirect exclude each other";
    report([...path, "filters"], "invalid_filter", reason, "keep one of the two");
  }
  if (seen.has("RequestRedirect") && (rule.backendRefs?.length ?? 0) > 0) {
    const reason = "a rule that redirects never reaches its backends";
    report([...path, "backendRefs"], "unreachable", reason, "remove backendRefs");
  }
}

function onlyPrefixes(rule: Rule): boolean {
  return (rule.matches ?? []).every((match) => (match.path?.type ?? "PathPrefix") === "PathPrefix");
}

type Filter =
  | NonNullable<Rule["filters"]>[number]
  | NonNullable<NonNullable<Rule["backendRefs"]>[number]["filters"]>[number];

function checkModifier(filter: Filter, path: Path, report: Report): void {
  const [field, modifier] =
    filter.type === "RequestHeaderModifier"
      ? (["requestHeaderModifier", filter.requestHeaderModifier] as const)
      : filter.type === "ResponseHeaderModifier"
        ? (["responseHeaderModifier", filter.responseHeaderModifier] as const)
        : [undefined, undefined];
  if (field === undefined || modifier === undefined) return;
  const lower = (name: string) => name.toLowerCase();
  noTwice(modifier.set, [...path, field, "set"], report, lower);
  noTwice(modifier.add, [...path, field, "add"], report, lower);
  noTwice(
    modifier.remove?.map((name) => ({ name })),
    [...path, field, "remove"],
    report,
    lower,
  );
}

function checkBackends(rule: Rule, path: Path, report: Report): void {
  const backends = rule.backendRefs ?? [];
  backends.forEach((backend, i) => {
    const at = [...path, "backendRefs", i];
    const seen = new Set<string>();
    backend.filters?.forEach((filter, j) => {
      checkModifier(filter, [...at, "filters", j], report);
      if (seen.has(filter.type)) {
        const fix = "put everything into one filter of that type";
        const reason = `there is already a ${filter.type}`;
        report([...at, "filters", j, "type"], "duplicate_filter", reason, fix);
      }
      seen.add(filter.type);
    });
    if (backend.port === undefined) {
      report([...at, "port"], "missing_field", "port is required", "add the port of the service");
    }
    if ((backend.kind ?? "Service") !== "Subset") return;
    if (backend.group !== "weft.dev") {
      const fix = "add group: weft.dev";
      report([...at, "group"], "invalid_value", "Subset belongs to group weft.dev", fix);
    }
    if (!/^[a-z0-9-]+\.[a-z0-9-]+$/.test(backend.name)) {
      const fix = "write it as <service>.<subset>";
      report([...at, "name"], "invalid_name", "does not name a subset", fix);
    }
  });
}

function checkTimeouts(rule: Rule, path: Path, report: Report): void {
  const { request, backendRequest } = rule.timeouts ?? {};
  if (request === undefined || backendRequest === undefined) return;
  const whole = durationMs(request);
  if (whole > 0 && durationMs(backendRequest) > whole) {
    const reason = "one attempt may not take longer than the whole request";
    const fix = `use at most ${request}, or raise timeouts.request`;
    report([...path, "timeouts", "backendRequest"], "invalid_value", reason, fix);
  }
}
