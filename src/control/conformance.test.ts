/**
 * The Gateway API's own conformance cases as an oracle: their manifests, with the Gateway replaced
 * by a Service as parent, go through parsing, compilation and routing, and every request must end
 * where the suite says. `WEFT_CORPORA` names another folder of corpora.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseAllDocuments, stringify } from "yaml";
import { parseSources } from "../config/parse.ts";
import { validateSet } from "../config/validate.ts";
import { redirectLocation } from "../route/redirect.ts";
import { splitCounters, stepSplit } from "../route/split.ts";
import { editPath } from "../route/target.ts";
import { compileSnapshot } from "../snapshot/compile.ts";
import { type Route, routeRequest, type UpstreamPort } from "../snapshot/snapshot.ts";
import { compileDocuments } from "./documents.ts";

const ROOT = join(import.meta.dir, "../..");
const CORPUS = join(
  process.env["WEFT_CORPORA"] ?? join(ROOT, "../shared/corpora"),
  "gateway-api-conformance",
);
const PARENT = "front";

/** Tests about listeners, several gateways, backend protocols, or filters weft does not have. */
const ELSEWHERE = new Set([
  "HTTPRouteBackendProtocolH2C",
  "HTTPRouteBackendRequestRedirect",
  "HTTPRouteCORS",
  "HTTPRouteHTTPSListenerDetectMisdirectedRequests",
  "HTTPRouteInvalidBackendRefUnknownKind",
  "HTTPRouteInvalidReferenceGrant",
  "HTTPRouteListenerHostnameMatching",
  "HTTPRouteListenerPortMatching",
  "HTTPRouteMultipleGateways",
  "HTTPRoutePartiallyInvalidViaInvalidReferenceGrant",
  "HTTPRouteRequestMirror",
  "HTTPRouteRequestPercentageMirror",
]);

interface Case {
  readonly Request: {
    readonly Host?: string;
    readonly Method?: string;
    readonly Path: string;
    readonly Headers?: Record<string, string>;
  };
  readonly ExpectedRequest?: {
    readonly Request?: { readonly Path?: string; readonly Headers?: Record<string, string> };
    readonly AbsentHeaders?: readonly string[];
  };
  readonly Response?: { readonly StatusCode?: number; readonly StatusCodes?: readonly number[] };
  readonly RedirectRequest?: { Scheme?: string; Host?: string; Port?: string; Path?: string };
  readonly Backend?: string;
}

interface ConformanceTest {
  readonly shortName: string;
  readonly manifests: readonly string[];
  readonly cases: readonly { readonly case: Case }[];
}

interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly spec: Record<string, unknown>;
}

const NAMESPACE = "gateway-conformance-infra";

function service(name: string): string {
  const metadata = { name, namespace: NAMESPACE };
  const ports = [
    { port: 80, protocol: "http" },
    { port: 8080, protocol: "http" },
  ];
  return stringify({ apiVersion: "weft.dev/v1", kind: "Service", metadata, spec: { ports } });
}

/** The manifests with the Service as parent; other kinds belong to the suite's infrastructure. */
function translated(manifests: readonly string[]): string {
  const texts = [PARENT, "infra-backend-v1", "infra-backend-v2", "infra-backend-v3"].map(service);
  for (const path of manifests) {
    for (const parsed of parseAllDocuments(readFileSync(join(CORPUS, "manifests", path), "utf8"))) {
      const manifest = parsed.toJS() as Manifest;
      if (manifest?.kind !== "HTTPRoute") continue;
      const parentRefs = [{ group: "", kind: "Service", name: PARENT, port: 80 }];
      texts.push(stringify({ ...manifest, spec: { ...manifest.spec, parentRefs } }));
    }
  }
  return texts.join("---\n");
}

function compiled(manifests: readonly string[]): UpstreamPort {
  const { resources, issues } = parseSources([{ name: "m.yaml", text: translated(manifests) }]);
  expect(issues).toEqual([]);
  const set = resources.map((parsed) => parsed.resource);
  expect(validateSet(set, resources, { lenient: true })).toEqual([]);
  const mesh = { trustDomain: "weft.local", bundle: [], configKeys: [] };
  const documents = compileDocuments(set, [], mesh);
  const map = new Map(documents.map(({ key, body }) => [key, body]));
  const snapshot = compileSnapshot(map, { namespace: NAMESPACE, service: "client" });
  return snapshot.services.get(`${NAMESPACE}/${PARENT}`)?.ports.get(80) as UpstreamPort;
}

function facts({ Request }: Case) {
  const headers = new Map(
    Object.entries(Request.Headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]),
  );
  return {
    method: Request.Method || "GET",
    target: Request.Path,
    authority: (Request.Host ?? "front").toLowerCase(),
    field: (name: string) => headers.get(name),
  };
}

function checkRedirect(wanted: NonNullable<Case["RedirectRequest"]>, route: Route, given: Case) {
  const redirect = route.rule.redirect;
  expect(redirect).toBeDefined();
  if (redirect === undefined) return;
  expect(redirect.status).toBe(given.Response?.StatusCode ?? 302);
  const host = given.Request.Host ?? "front";
  const request = { scheme: "http", host, port: 80, target: given.Request.Path } as const;
  const location = new URL(redirectLocation(redirect, { ...request, prefix: route.prefix }));
  expect(location.protocol).toBe(`${wanted.Scheme ?? "http"}:`);
  if (wanted.Host !== undefined) expect(location.hostname).toBe(wanted.Host);
  if (wanted.Path !== undefined) expect(location.pathname).toBe(wanted.Path);
}

function checkForward(given: Case, route: Route): void {
  const status = given.Response?.StatusCode ?? 200;
  const backend = route.rule.only;
  if (status === 500) expect(backend?.target).toBeUndefined();
  if (given.Backend === undefined) return;
  expect(backend?.target?.service).toBe(given.Backend);
  const wanted = given.ExpectedRequest?.Request;
  const edited = route.rule.path
    ? editPath(given.Request.Path, route.rule.path, route.prefix)
    : given.Request.Path;
  if (wanted?.Path !== undefined) expect(edited).toBe(wanted.Path);
  for (const [name, value] of Object.entries(wanted?.Headers ?? {})) {
    const sent = Object.entries(given.Request.Headers ?? {})
      .filter(([sentName]) => sentName.toLowerCase() === name.toLowerCase())
      .filter(() => !backend?.requestHeaders?.drops.includes(name.toLowerCase()))
      .map(([, sentValue]) => sentValue);
    const added = (backend?.requestHeaders?.lines ?? "")
      .split("\r\n")
      .filter((line) => line.toLowerCase().startsWith(`${name.toLowerCase()}: `))
      .map((line) => line.slice(name.length + 2));
    expect([...sent, ...added].join(",")).toBe(value);
  }
  for (const name of given.ExpectedRequest?.AbsentHeaders ?? []) {
    if (facts(given).field(name.toLowerCase()) === undefined) continue;
    expect(backend?.requestHeaders?.drops).toContain(name.toLowerCase());
  }
}

function check(port: UpstreamPort, given: Case): void {
  const route = routeRequest(port, facts(given));
  expect(route === undefined).toBe(given.Response?.StatusCode === 404);
  if (route === undefined) return;
  if (given.RedirectRequest !== undefined) checkRedirect(given.RedirectRequest, route, given);
  else checkForward(given, route);
}

const present = existsSync(join(CORPUS, "cases.json"));
if (!present) console.warn(`no conformance cases in ${CORPUS}: these tests are skipped`);

describe.skipIf(!present)("Gateway API conformance", () => {
  const all = present
    ? (JSON.parse(readFileSync(join(CORPUS, "cases.json"), "utf8")) as ConformanceTest[])
    : [];
  const chosen = all.filter(
    ({ shortName, cases }) =>
      shortName.startsWith("HTTPRoute") && cases.length > 0 && !ELSEWHERE.has(shortName),
  );
  for (const { shortName, manifests, cases } of chosen) {
    test(`${shortName}: ${cases.length} cases`, () => {
      // Several manifests are alternatives under one name, each fulfilling all cases.
      for (const manifest of manifests) {
        const port = compiled([manifest]);
        for (const { case: given } of cases) check(port, given);
      }
    });
  }

  test("there are cases", () => {
    expect(chosen.length).toBeGreaterThan(10);
  });

  test("weights of 70, 30 and 0 are exact", () => {
    const port = compiled(["tests/httproute-weight.yaml"]);
    const rule = routeRequest(port, facts({ Request: { Path: "/" } }))?.rule;
    const weights = rule?.weights ?? [];
    const counters = splitCounters(weights);
    const picks = Array.from({ length: 100 }, () => stepSplit(weights, counters));
    expect([0, 1, 2].map((i) => picks.filter((pick) => pick === i).length)).toEqual([70, 30, 0]);
  });
});
