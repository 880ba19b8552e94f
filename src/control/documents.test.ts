import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { parseSources } from "../config/parse.ts";
import type { Resource } from "../config/resource.ts";
import { compileSnapshot } from "../snapshot/compile.ts";
import type {
  EndpointsDocument,
  InDocument,
  MeshDocument,
  OutDocument,
  RouteTable,
} from "../snapshot/document.ts";
import { compileDocuments, type Desired, grantsOf, type LiveEndpoint } from "./documents.ts";
import { DEFAULT_POLICY } from "./policy.ts";

const MESH = { trustDomain: "weft.local", bundle: ["root"], configKeys: [{ kid: "1", key: "k" }] };

function resourcesOf(text: string): Resource[] {
  const { resources, issues } = parseSources([{ name: "f", text }]);
  expect(issues).toEqual([]);
  return resources.map((parsed) => parsed.resource);
}

const weft = (kind: string, name: string, spec: string) =>
  `apiVersion: weft.dev/v1\nkind: ${kind}\nmetadata: { name: ${name} }\nspec: ${spec}\n---\n`;

const route = (name: string, rules: string, more = "") =>
  `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: ${name} }
spec:
  parentRefs: [{ kind: Service, name: cart }]
  ${more}
  rules: ${rules}
---
`;

const CART = weft(
  "Service",
  "cart",
  "{ ports: [{ port: 80 }, { port: 81, protocol: tcp }], " +
    "subsets: [{ name: v1, labels: { version: v1 } }] }",
);
const DIRECT = "[{ backendRefs: [{ name: cart, port: 80 }] }]";

function live(id: string, more: Partial<LiveEndpoint> = {}): LiveEndpoint {
  return {
    ...{ id, namespace: "default", service: "cart", shard: 0, address: "10.0.0.1" },
    ...{ meshPort: 17006, identity: "spiffe://weft.local/ns/default/sa/cart" },
    ...{ ports: { "80": 8080 }, labels: {}, locality: "", weight: 1 },
    ...more,
  };
}

function body<T>(desired: readonly Desired[], key: string): T {
  return desired.find((document) => document.key === key)?.body as T;
}

function table(text: string, created?: ReadonlyMap<string, number>): RouteTable {
  const desired = compileDocuments(resourcesOf(text), [], MESH, created);
  return body<OutDocument>(desired, "out.default.cart").ports[0]?.routes as RouteTable;
}

test("a service has three kinds of documents, and the mesh one", () => {
  const desired = compileDocuments(resourcesOf(CART), [live("a")], MESH);
  expect(desired.map(({ key }) => key)).toEqual([
    "eps.default.cart.0",
    "in.default.cart",
    "mesh",
    "out.default.cart",
  ]);
  expect(body<MeshDocument>(desired, "mesh")).toEqual({
    ...MESH,
    outbound: "REGISTRY_ONLY",
    pathNormalization: "DECODE_AND_MERGE_SLASHES",
  });
  const out = body<OutDocument>(desired, "out.default.cart");
  expect(out.ports.map(({ port, protocol, detect }) => [port, protocol, detect])).toEqual([
    [80, "tcp", true],
    [81, "tcp", undefined],
  ]);
  expect(out.ports[0]?.policy).toEqual(DEFAULT_POLICY);
  expect(body<InDocument>(desired, "in.default.cart").ports).toHaveLength(2);
});

test("an undeclared port that a route governs or leads to carries HTTP", () => {
  const text = CART + weft("Service", "other", "{ ports: [{ port: 9 }] }");
  const rules = "[{ backendRefs: [{ name: other, port: 9 }] }]";
  const desired = compileDocuments(resourcesOf(text + route("r", rules)), [], MESH);
  const cart = body<OutDocument>(desired, "out.default.cart");
  expect(cart.ports.map((p) => [p.protocol, p.routes !== undefined, p.detect])).toEqual([
    ["http", true, undefined],
    ["tcp", false, undefined],
  ]);
  expect(body<OutDocument>(desired, "out.default.other").ports[0]?.protocol).toBe("http");
});

describe("endpoints", () => {
  test("documented workloads come first, live ones keep their shard", () => {
    const workload = "{ service: cart, address: db.example, ports: { 80: 8080 } }";
    const text = CART + weft("Workload", "old", workload);
    const endpoints = [live("b"), live("a"), live("c", { shard: 2, suspect: true })];
    const desired = compileDocuments(resourcesOf(text), endpoints, MESH);
    const shards = [0, 1, 2, 3].map(
      (shard) => body<EndpointsDocument>(desired, `eps.default.cart.${shard}`).endpoints,
    );
    expect(shards.map((list) => list.map(({ id }) => id))).toEqual([
      ["old"],
      ["a", "b"],
      [],
      ["c"],
    ]);
    expect(shards[0]?.[0]).toEqual({
      ...{ id: "old", address: "db.example", ports: { "80": 8080 } },
      ...{ labels: {}, locality: "", weight: 1 },
    });
    expect(shards[3]?.[0]?.suspect).toBe(true);
    expect(body<OutDocument>(desired, "out.default.cart").shards).toBe(4);
  });

  test("a workload without ports serves those of its service", () => {
    const text = CART + weft("Workload", "old", "{ service: cart, address: 10.0.0.9 }");
    const desired = compileDocuments(resourcesOf(text), [], MESH);
    const { endpoints } = body<EndpointsDocument>(desired, "eps.default.cart.0");
    expect(endpoints[0]?.ports).toEqual({ "80": 80, "81": 81 });
  });

  test("a selector takes only endpoints with its labels", () => {
    const text = CART.replace("{ ports", "{ selector: { labels: { tier: a } }, ports");
    const endpoints = [live("a", { labels: { tier: "a", x: "y" } }), live("b")];
    const desired = compileDocuments(resourcesOf(text), endpoints, MESH);
    const { endpoints: kept } = body<EndpointsDocument>(desired, "eps.default.cart.0");
    expect(kept.map(({ id }) => id)).toEqual(["a"]);
  });
});

describe("precedence", () => {
  const order = (text: string, created?: ReadonlyMap<string, number>) => {
    const { matches, rules } = table(text, created);
    return matches.map((match) => rules[match.rule]?.name);
  };
  const match = (text: string) => `{ matches: [${text}], backendRefs: [{ name: cart, port: 80 }] }`;

  test("exact, longest prefix, method, headers, query, then order of rules", () => {
    const list = [
      "{}",
      "{ queryParams: [{ name: a, value: b }] }",
      "{ headers: [{ name: a, value: b }] }",
      "{ headers: [{ name: a, value: b }, { name: c, value: d }] }",
      "{ method: GET }",
      "{ path: { value: /a } }",
      "{ path: { value: /a/b } }",
      "{ path: { type: Exact, value: /a } }",
    ];
    const names = order(CART + route("r", `[${list.map(match).join(", ")}]`));
    expect(names).toEqual([7, 6, 5, 4, 3, 2, 1, 0].map((i) => `default/r#${i}`));
  });

  test("between routes the oldest wins, then the first by name", () => {
    const rules = (name: string) => `[${match(`{ headers: [{ name: ${name}, value: b }] }`)}]`;
    const text = CART + route("b", rules("x")) + route("a", rules("y"));
    expect(order(text)).toEqual(["default/a#0", "default/b#0"]);
    const created = new Map([
      ["HTTPRoute/default/b", 1],
      ["HTTPRoute/default/a", 2],
    ]);
    expect(order(text, created)).toEqual(["default/b#0", "default/a#0"]);
  });

  test("host names go before paths, full ones before wildcards", () => {
    const text =
      CART +
      route("any", `[${match("{ path: { type: Exact, value: /a } }")}]`) +
      route("wild", DIRECT, 'hostnames: ["*.example"]') +
      route("full", DIRECT, "hostnames: [a.example]");
    expect(order(text)).toEqual(["default/full#0", "default/wild#0", "default/any#0"]);
  });
});

test("filters, timeouts and weights arrive in the rule", () => {
  const rules = `
    - filters:
        - { type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: A, value: b }] } }
        - { type: ResponseHeaderModifier, responseHeaderModifier: { remove: [c] } }
        - type: URLRewrite
          urlRewrite: { hostname: x, path: { type: ReplacePrefixMatch, replacePrefixMatch: /n } }
      backendRefs:
        - { group: weft.dev, kind: Subset, name: cart.v1, port: 80, weight: 9 }
        - { name: gone, port: 80 }
        - { group: weft.dev, kind: Subset, name: cart.v9, port: 80, weight: 0 }
      timeouts: { request: 1m30s, backendRequest: 500ms }
    - matches: [{ path: { value: /r } }]
      filters: [{ type: RequestRedirect, requestRedirect: { port: 8443, scheme: https } }]`;
  const [first, second] = table(CART + route("r", rules)).rules;
  const cart = { namespace: "default", service: "cart", port: 80 };
  expect(first).toEqual({
    name: "default/r#0",
    backends: [
      { ...cart, subset: "v1", weight: 9 },
      { ...cart, service: "gone", weight: 1, invalid: true },
      { ...cart, subset: "v9", weight: 0, invalid: true },
    ],
    requestHeaders: { set: [{ name: "A", value: "b" }], add: [], remove: [] },
    responseHeaders: { set: [], add: [], remove: ["c"] },
    rewrite: { hostname: "x", path: { type: "replacePrefix", value: "/n" } },
    requestTimeoutMs: 90_000,
    backendRequestTimeoutMs: 500,
  });
  expect(second?.redirect).toEqual({ port: 8443, scheme: "https", status: 302 });
});

test("policy is layered field by field: weft, Mesh, service, port", () => {
  const text =
    CART +
    weft("Mesh", "mesh", "{ defaults: { timeouts: { request: 9s }, retries: { attempts: 0 } } }") +
    weft("TrafficPolicy", "a", "{ target: { service: cart }, retries: { on: [reset] } }") +
    weft(
      "TrafficPolicy",
      "b",
      "{ target: { service: cart, port: 80 }, loadBalancer: { simple: RANDOM }, " +
        "connectionPool: { connectTimeout: 1s }, retries: { on: [], backoff: 1s } }",
    );
  const desired = compileDocuments(resourcesOf(text), [], MESH);
  const [web, raw] = body<OutDocument>(desired, "out.default.cart").ports;
  expect(raw?.policy).toEqual({
    ...DEFAULT_POLICY,
    requestTimeoutMs: 9000,
    retries: { ...DEFAULT_POLICY.retries, attempts: 0, on: ["reset"] },
  });
  expect(web?.policy).toEqual({
    ...DEFAULT_POLICY,
    balancer: "random",
    connectTimeoutMs: 1000,
    requestTimeoutMs: 9000,
    retries: { ...DEFAULT_POLICY.retries, attempts: 0, on: [], backoffMs: 1000 },
  });
});

test("hosts of services are told to everybody, in order; without any nothing is", () => {
  const text =
    weft("Service", "b", "{ ports: [{ port: 1 }], hosts: [z.example, a.example] }") +
    weft("Service", "a", "{ ports: [{ port: 1 }], hosts: [m.example] }");
  const mesh = body<MeshDocument>(compileDocuments(resourcesOf(text), [], MESH), "mesh");
  expect(Object.entries(mesh.hosts ?? {})).toEqual([
    ["a.example", "default/b"],
    ["m.example", "default/a"],
    ["z.example", "default/b"],
  ]);
  expect(body(compileDocuments(resourcesOf(CART), [], MESH), "mesh")).not.toHaveProperty("hosts");
});

test("a PROXY header is for ports of opaque bytes, beside the caller and beside the service", () => {
  const policy = "{ target: { service: cart }, proxyProtocol: { version: V1 } }";
  const resources = resourcesOf(CART + weft("TrafficPolicy", "a", policy));
  const desired = compileDocuments(resources, [], MESH);
  const out = body<OutDocument>(desired, "out.default.cart");
  const inbound = body<InDocument>(desired, "in.default.cart");
  expect(out.ports.map((port) => port.policy.proxyProtocol)).toEqual([undefined, "v1"]);
  expect(inbound.ports.map((port) => port.proxyProtocol)).toEqual([undefined, "v1"]);
});

test("only ports that take plaintext say so: the narrowest of Mesh and PeerAuth decides", () => {
  const permissive = (text: string) =>
    body<InDocument>(compileDocuments(resourcesOf(text), [], MESH), "in.default.cart").ports.map(
      (port) => port.permissive,
    );
  const auth = (name: string, target: string, mode: string) =>
    weft("PeerAuth", name, `{ ${target}mtls: { mode: ${mode} } }`);
  const whole = "target: { service: cart }, ";
  const raw = "target: { service: cart, port: 81 }, ";
  const mesh = weft("Mesh", "mesh", "{ mtls: { mode: PERMISSIVE } }");
  expect(permissive(CART)).toEqual([undefined, undefined]);
  expect(permissive(CART + mesh)).toEqual([true, true]);
  expect(permissive(CART + mesh + auth("a", "", "STRICT"))).toEqual([undefined, undefined]);
  const service = CART + mesh + auth("a", "", "STRICT") + auth("b", whole, "PERMISSIVE");
  expect(permissive(service)).toEqual([true, true]);
  expect(permissive(service + auth("c", raw, "STRICT"))).toEqual([true, undefined]);
  const strict = compileDocuments(resourcesOf(CART), [], MESH);
  const said = compileDocuments(resourcesOf(CART + auth("a", whole, "STRICT")), [], MESH);
  expect(said).toEqual(strict);
});

test("TLS to servers outside is laid over as a whole, and off where a port says so", () => {
  const tls = (mode: string) => `tls: { mode: SIMPLE, sni: a.example${mode} }`;
  const text =
    CART +
    weft("TrafficPolicy", "a", `{ target: { service: cart }, ${tls(", subjectAltNames: [x]")} }`) +
    weft("TrafficPolicy", "b", "{ target: { service: cart, port: 81 }, tls: { mode: DISABLE } }");
  const [web, raw] = body<OutDocument>(
    compileDocuments(resourcesOf(text), [], MESH),
    "out.default.cart",
  ).ports;
  expect(web?.policy.tls).toEqual({ sni: "a.example", names: ["x"], verify: true });
  expect(raw?.policy).toEqual(DEFAULT_POLICY);
  const files = "clientCertificate: /c.pem, privateKey: /k.pem";
  const mutual = `{ target: { service: cart }, tls: { mode: MUTUAL, ${files} } }`;
  const [shown] = body<OutDocument>(
    compileDocuments(resourcesOf(CART + weft("TrafficPolicy", "a", mutual)), [], MESH),
    "out.default.cart",
  ).ports;
  const client = { certificate: "/c.pem", key: "/k.pem" };
  expect(shown?.policy.tls).toEqual({ client, names: [], verify: true });
});

test("a caller may read what the routes of the service lead to", () => {
  const rules =
    "[{ backendRefs: [{ name: other, port: 9 }, " +
    "{ group: weft.dev, kind: Subset, name: cart.v1, port: 80 }, { name: gone, port: 1 }] }]";
  const text = CART + weft("Service", "other", "{ ports: [{ port: 9 }] }") + route("r", rules);
  const cart = { namespace: "default", service: "cart" };
  const keys = ["eps.default.cart.*", "out.default.cart"];
  expect(grantsOf(resourcesOf(CART), cart)).toEqual(keys);
  expect(grantsOf(resourcesOf(text), cart)).toEqual([
    "eps.default.cart.*",
    "eps.default.other.*",
    "out.default.cart",
    "out.default.other",
  ]);
  const unknown = { namespace: "default", service: "new" };
  expect(grantsOf([], unknown)).toEqual(["eps.default.new.*", "out.default.new"]);
});

test("the order of the input changes nothing, and the result compiles", () => {
  const text =
    CART + route("r", DIRECT) + weft("Workload", "old", "{ service: cart, address: 10.0.0.9 }");
  const resources = resourcesOf(text);
  const endpoints = [live("a"), live("b"), live("c", { shard: 1 })];
  const expected = JSON.stringify(compileDocuments(resources, endpoints, MESH));
  fc.assert(
    fc.property(
      fc.shuffledSubarray(resources, { minLength: resources.length }),
      fc.shuffledSubarray(endpoints, { minLength: endpoints.length }),
      (some, ends) => {
        expect(JSON.stringify(compileDocuments(some, ends, MESH))).toBe(expected);
      },
    ),
  );
  const documents = new Map(
    compileDocuments(resources, endpoints, MESH).map((document) => [document.key, document.body]),
  );
  const snapshot = compileSnapshot(documents, { namespace: "default", service: "cart" });
  expect(snapshot.services.get("default/cart")?.endpoints).toHaveLength(4);
  expect(snapshot.inbound?.ports).toHaveLength(2);
});
