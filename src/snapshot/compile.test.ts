import { describe, expect, test } from "bun:test";
import addressing from "../../test/fixtures/contracts/addressing.json" with { type: "json" };
import golden from "../../test/fixtures/contracts/documents.json" with { type: "json" };
import { Failure } from "../error.ts";
import type { RouteFacts } from "../route/match.ts";
import { Authorities, resolveAuthority } from "./authority.ts";
import { compileSnapshot } from "./compile.ts";
import type { OutDocument, OutPort, TrafficPolicyDocument } from "./document.ts";
import { routeRequest, type Snapshot } from "./snapshot.ts";

const POLICY: TrafficPolicyDocument = {
  ...{ balancer: "least_request", connectTimeoutMs: 3000, requestTimeoutMs: 7000 },
  ...{ perTryTimeoutMs: 1000, idleTimeoutMs: 60_000, maxConnections: 10, maxPending: 10 },
  retries: {
    ...{ attempts: 2, on: [], codes: [], backoffMs: 25, budgetPercent: 20 },
    budgetMinConcurrency: 3,
  },
};
const MESH = { trustDomain: "td", bundle: [], configKeys: [], outbound: "REGISTRY_ONLY" };
const SELF = { namespace: "default", service: "web" };

function port(number: number, more: Partial<OutPort> = {}): OutPort {
  return { port: number, protocol: "http", policy: POLICY, ...more };
}

function out(service: string, ports: readonly OutPort[], more: Partial<OutDocument> = {}) {
  return { namespace: "default", service, ports, subsets: [], shards: 1, ...more };
}

function endpoint(id: string, ports: Record<string, number>, labels: object = {}) {
  return { id, address: "10.0.0.1", ports, labels, locality: "", weight: 1 };
}

function snapshotOf(...documents: readonly (readonly [string, object])[]): Snapshot {
  return compileSnapshot(new Map([["mesh", MESH], ...documents]), SELF, { epoch: 1, rev: 2 });
}

const GET: RouteFacts = { method: "GET", target: "/", authority: "cart", field: () => undefined };

test("without routes everything goes to the service itself", () => {
  const snapshot = snapshotOf(
    ["out.default.cart", out("cart", [port(80), port(81, { protocol: "tcp" })], { shards: 2 })],
    ["eps.default.cart.0", { endpoints: [endpoint("a", { "80": 1 })] }],
    ["eps.default.cart.1", { endpoints: [endpoint("b", { "80": 1, "81": 2 })] }],
    ["eps.default.cart.2", { endpoints: [endpoint("stale", { "80": 1 })] }],
  );
  const cart = snapshot.services.get("default/cart");
  const web = cart?.ports.get(80);
  const route = web && routeRequest(web, GET);
  expect(route).toBe(web?.direct);
  expect(route?.rule.requestTimeoutMs).toBe(7000);
  expect(route?.rule.only?.perTryTimeoutMs).toBe(1000);
  expect(web?.target.key).toBe("default/cart:80");
  expect(web?.target.sni).toBe("p80.cart.default.td");
  expect(web?.target.endpoints.map(({ id }) => id)).toEqual(["a", "b"]);
  expect(cart?.ports.get(81)?.target.endpoints.map(({ id }) => id)).toEqual(["b"]);
  expect([snapshot.epoch, snapshot.rev]).toEqual([1, 2]);
});

describe("routes", () => {
  const cart = { namespace: "default", service: "cart", port: 80, weight: 1 };
  const any = { hostnames: [], headers: [], query: [], rule: 0 };
  const prefix = (value: string) => ({ type: "prefix" as const, value });
  const routed = (backends: readonly object[], more: object = {}) =>
    snapshotOf(
      [
        "out.default.cart",
        out(
          "cart",
          [
            port(80, {
              routes: {
                matches: [{ ...any, path: prefix("/api") }],
                rules: [{ name: "default/r#0", backends: backends as never, ...more }],
              },
            }),
          ],
          { subsets: [{ name: "v2", labels: { version: "v2" } }] },
        ),
      ],
      [
        "eps.default.cart.0",
        { endpoints: [endpoint("1", { "80": 1 }), endpoint("2", { "80": 1 }, { version: "v2" })] },
      ],
    )
      .services.get("default/cart")
      ?.ports.get(80);

  const ruleOf = (backends: readonly object[], more: object = {}) => {
    const governed = routed(backends, more);
    return governed && routeRequest(governed, { ...GET, target: "/api/x" })?.rule;
  };

  test("nothing matches: no route, never the service itself", () => {
    const governed = routed([cart]);
    expect(governed && routeRequest(governed, GET)).toBeUndefined();
  });

  test("subsets, weights and the name of the split", () => {
    const rule = ruleOf([
      { ...cart, weight: 90 },
      { ...cart, subset: "v2", weight: 10 },
    ]);
    expect(rule?.weights).toEqual([9, 1]);
    expect(rule?.only).toBeUndefined();
    expect(rule?.splitKey).toBe("default/r#0=default/cart:80/*9,default/cart:80/v2*1");
    expect(rule?.backends[1]?.target?.endpoints.map(({ id }) => id)).toEqual(["2"]);
    expect(rule?.backends[1]?.target?.key).toBe("default/cart:80/v2");
  });

  test("a single backend needs no split, a dangling one has no target", () => {
    expect(ruleOf([{ ...cart, weight: 0 }, cart])?.only?.target?.key).toBe("default/cart:80");
    for (const dangling of [
      { ...cart, service: "gone" },
      { ...cart, port: 9 },
      { ...cart, subset: "v9" },
      { ...cart, invalid: true },
    ]) {
      const rule = ruleOf([dangling]);
      expect(rule?.only).toBeDefined();
      expect(rule?.only?.target).toBeUndefined();
    }
    expect(ruleOf([])?.only).toBeUndefined();
  });

  test("timeouts of the rule win over those of the policy, 0 switches off", () => {
    const rule = ruleOf([cart], { requestTimeoutMs: 0, backendRequestTimeoutMs: 5 });
    expect(rule?.requestTimeoutMs).toBe(0);
    expect(rule?.only?.perTryTimeoutMs).toBe(5);
  });
});

test("a document of another shape is refused", () => {
  expect(() => compileSnapshot(new Map(), SELF)).toThrow(Failure);
  expect(() => snapshotOf(["out.default.cart", { ports: 3 }])).toThrow(/ports is not a list/);
});

describe("authorities", () => {
  const snapshot = snapshotOf(
    ["out.default.cart", out("cart", [port(8080)])],
    ["out.default.web", out("web", [port(80), port(81)])],
    ["out.default.many", out("many", [port(1), port(2)])],
    ["out.shop.cart", out("cart", [port(9)], { namespace: "shop" })],
  );
  const show = (authority: string, namespace = "default") => {
    const found = resolveAuthority(snapshot, authority, namespace);
    switch (found.kind) {
      case "service":
        return `${found.port.namespace}/${found.port.service}:${found.port.port}`;
      case "no_port":
        return `no_port ${found.port}`;
      case "unknown":
        return `unknown ${found.namespace}/${found.service} ${found.certain}`;
      case "outside":
        return `outside ${found.host} ${found.port}`;
      default:
        return found.kind;
    }
  };
  test.each([
    ["cart", "default/cart:8080"],
    ["CART", "default/cart:8080"],
    ["cart.", "default/cart:8080"],
    ["cart:8080", "default/cart:8080"],
    ["cart:", "default/cart:8080"],
    ["cart.default", "default/cart:8080"],
    ["cart.default.mesh", "default/cart:8080"],
    ["cart.default.mesh.", "default/cart:8080"],
    ["Cart.Default.svc.cluster.local:8080", "default/cart:8080"],
    ["cart.shop", "shop/cart:9"],
    ["cart:81", "no_port 81"],
    ["web", "default/web:80"],
    ["web:81", "default/web:81"],
    ["many", "ambiguous_port"],
    ["many:2", "default/many:2"],
    ["nobody", "unknown default/nobody false"],
    ["example.com:443", "unknown com/example false"],
    ["nobody.shop.mesh", "unknown shop/nobody true"],
    ["a.b.mesh:80", "unknown b/a true"],
    ["www.example.com:443", "outside www.example.com 443"],
    ["cart.mesh", "unknown mesh/cart false"],
    ["10.0.0.1:80", "outside 10.0.0.1 80"],
    ["[::1]:80", "outside [::1] 80"],
    ["[::1]", "outside [::1] undefined"],
    ["", "malformed"],
    [":80", "malformed"],
    ["cart:0", "malformed"],
    ["cart:65536", "malformed"],
    ["cart:8o", "malformed"],
    ["cart:80:80", "malformed"],
    ["user@cart", "malformed"],
    ["cart/x", "malformed"],
    ["::1", "malformed"],
  ])("%s", (authority, expected) => {
    expect(show(authority)).toBe(expected);
  });

  test("short names live in the caller's namespace", () => {
    expect(show("cart", "shop")).toBe("shop/cart:9");
  });

  test("resolutions are remembered, within bounds", () => {
    const authorities = new Authorities(snapshot, "default");
    const first = authorities.resolve("cart");
    expect(authorities.resolve("cart")).toBe(first);
    for (let i = 0; i < 5000; i++) authorities.resolve(`x${i}`);
    expect(authorities.resolve("cart")).toEqual(first);
  });
});

test("golden: bodies of schema 1 mean this", () => {
  const documents = new Map<string, object>(Object.entries(golden.documents));
  const snapshot = compileSnapshot(documents, SELF, { epoch: 1, rev: 1 });
  const http = snapshot.services.get("default/cart")?.ports.get(80);
  const route = http && routeRequest(http, { ...GET, target: "/api/x" });
  expect(route?.rule).toMatchObject({ name: "default/cart#0", requestTimeoutMs: 5000 });
  expect(route?.rule.backends.map(({ target }) => target?.key)).toEqual([
    "default/cart:80",
    "default/cart:80/v1",
  ]);
  expect(route?.rule.weights).toEqual([9, 1]);
  expect(http && routeRequest(http, { ...GET, method: "POST" })).toBeUndefined();
  expect(http?.target).toMatchObject({ sni: "p80.cart.default.weft.local" });
  expect(http?.target.endpoints).toEqual(golden.documents["eps.default.cart.0"].endpoints);
  const ports = [...(snapshot.services.get("default/cart")?.ports.values() ?? [])];
  expect(ports.map(({ port, protocol, detect }) => [port, protocol, detect])).toEqual([
    [80, "http", false],
    [81, "tcp", false],
    [82, "tcp", true],
  ]);
  const outside = resolveAuthority(snapshot, "API.example.com", "default");
  expect(outside.kind === "service" && outside.port.target.key).toBe("default/api:443");
  const own = compileSnapshot(documents, { ...SELF, service: "cart" }, { epoch: 1, rev: 1 });
  expect<unknown>(own.inbound).toEqual(golden.documents["in.default.cart"]);
});

test("golden: every spelling of a service means the same, and nothing else does", () => {
  const { caller, service, same, outside } = addressing.authorities;
  const snapshot = snapshotOf(["out.default.cart", out("cart", [port(80)])]);
  for (const authority of same) {
    const found = resolveAuthority(snapshot, authority, caller);
    const target = found.kind === "service" ? found.port.target.key : found.kind;
    expect([authority, target]).toEqual([authority, service]);
  }
  for (const authority of outside) {
    const { kind } = resolveAuthority(snapshot, authority, caller);
    expect([authority, kind]).toEqual([authority, "outside"]);
  }
});
