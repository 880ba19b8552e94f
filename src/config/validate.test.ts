import { describe, expect, test } from "bun:test";
import { parseSources } from "./parse.ts";
import type { Issue, Resource } from "./resource.ts";
import { type ValidateOptions, validateSet } from "./validate.ts";

const STRICT: ValidateOptions = { lenient: false, trustDomain: "weft.local" };

function check(text: string, options: ValidateOptions = STRICT): Issue[] {
  const { resources, issues } = parseSources([{ name: "f.yaml", text }]);
  expect(issues).toEqual([]);
  return validateSet(
    resources.map((parsed) => parsed.resource),
    resources,
    options,
  );
}

function resourcesOf(text: string): Resource[] {
  return parseSources([{ name: "f", text }]).resources.map((parsed) => parsed.resource);
}

function spot({ line, column, path, code, value, fix }: Issue): string {
  return `${line}:${column} ${path} ${code} (${value}) ${fix}`;
}

const CART = `apiVersion: weft.dev/v1
kind: Service
metadata: { name: cart }
spec:
  ports: [{ port: 80 }, { port: 81, protocol: tcp }]
  subsets: [{ name: v1, labels: { version: v1 } }]
---
`;

const route = (rest: string, name = "r") => `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: ${name} }
spec:
  parentRefs: [{ kind: Service, name: cart }]
  rules:
    - ${rest}
---
`;

const weft = (kind: string, spec: string, name = "x") => `apiVersion: weft.dev/v1
kind: ${kind}
metadata: { name: ${name} }
spec: ${spec}
---
`;

const policy = (tls: string) => weft("TrafficPolicy", `{ target: { service: cart }, tls: ${tls} }`);

describe("the set is refused at the place that is wrong", () => {
  test.each([
    [
      CART + route("backendRefs: [{ name: crat, port: 80 }]"),
      "14:29 spec.rules[0].backendRefs[0].name unknown_service (crat) did you mean cart?",
    ],
    [
      CART + route("backendRefs: [{ name: nobody, port: 80 }]"),
      "14:29 spec.rules[0].backendRefs[0].name unknown_service (nobody) " +
        "apply a Service named nobody in namespace default first, or with it",
    ],
    [
      CART + route("backendRefs: [{ name: cart, port: 82 }]"),
      "14:41 spec.rules[0].backendRefs[0].port unknown_port (82) " +
        "use 80 or 81, or add the port to the Service",
    ],
    [
      CART + route("backendRefs: [{ name: cart, port: 81 }]"),
      "14:41 spec.rules[0].backendRefs[0].port wrong_protocol (81) " +
        "declare the port http, http2 or grpc, or use another one",
    ],
    [
      CART + route("backendRefs: [{ group: weft.dev, kind: Subset, name: cart.v2, port: 80 }]"),
      "14:60 spec.rules[0].backendRefs[0].name unknown_subset (cart.v2) did you mean cart.v1?",
    ],
    [
      CART + route("backendRefs: [{ name: cart, port: 80, weight: 0 }]"),
      "14:53 spec.rules[0].backendRefs[0].weight no_weight (0) give one backend a weight above 0",
    ],
    [CART + route("matches: []"), "14:7 spec.rules[0] no_backend () add backendRefs"],
    [
      route("backendRefs: [{ name: cart, port: 80 }]"),
      "5:39 spec.parentRefs[0].name unknown_service (cart) " +
        "apply a Service named cart in namespace default first, or with it",
    ],
    [
      weft("Service", "{ ports: [{ port: 1 }, { port: 1 }] }"),
      "4:38 spec.ports[1].port duplicate_port (1) keep one of the two",
    ],
    [
      weft("Service", "{ ports: [{ port: 1, name: a }, { port: 2, name: a }] }"),
      "4:56 spec.ports[1].name duplicate_name (a) give each port a name of its own",
    ],
    [
      weft("Mesh", "{ trustDomain: other }", "mesh"),
      "4:22 spec.trustDomain trust_domain_mismatch (other) write weft.local, or leave it out",
    ],
    [
      CART + weft("TrafficPolicy", "{ target: { service: cart, port: 9 } }"),
      "11:40 spec.target.port unknown_port (9) use 80 or 81, or add the port to the Service",
    ],
    [
      CART +
        weft("TrafficPolicy", "{ target: { service: cart } }", "a") +
        weft("TrafficPolicy", "{ target: { service: cart } }", "b"),
      "16:28 spec.target.service conflict (cart) put both into one TrafficPolicy",
    ],
    [
      CART + weft("PeerAuth", "{ target: { service: crat }, mtls: { mode: STRICT } }"),
      "11:28 spec.target.service unknown_service (crat) did you mean cart?",
    ],
    [
      CART + weft("PeerAuth", "{ target: { service: cart, port: 9 }, mtls: { mode: STRICT } }"),
      "11:40 spec.target.port unknown_port (9) use 80 or 81, or add the port to the Service",
    ],
    [
      CART +
        weft("PeerAuth", "{ target: { service: cart, port: 80 }, mtls: { mode: STRICT } }", "a") +
        weft("PeerAuth", "{ target: { service: cart, port: 80 }, mtls: { mode: STRICT } }", "b"),
      "16:28 spec.target.service conflict (cart) keep one of the two",
    ],
    [
      weft("PeerAuth", "{ mtls: { mode: STRICT } }", "a") +
        weft("PeerAuth", "{ mtls: { mode: PERMISSIVE } }", "b"),
      "9:7 spec conflict () keep one of the two",
    ],
    [
      weft("Service", "{ ports: [{ port: 1 }], hosts: [a.example, b.example] }", "a") +
        weft("Service", "{ ports: [{ port: 1 }], hosts: [b.example] }", "b"),
      "9:39 spec.hosts[0] conflict (b.example) keep one of the two",
    ],
    [
      CART + weft("Service", "{ ports: [{ port: 1 }], hosts: [cart.default] }", "a"),
      "11:39 spec.hosts[0] conflict (cart.default) remove it",
    ],
    [
      CART + policy("{ mode: DISABLE, sni: a.example }"),
      "11:63 spec.tls.sni conflict () remove it, or write mode: SIMPLE",
    ],
    [
      CART + policy("{ mode: SIMPLE, privateKey: /etc/key.pem }"),
      "11:69 spec.tls.privateKey conflict () remove it, or write mode: MUTUAL",
    ],
    [
      CART + policy("{ mode: MUTUAL, clientCertificate: /etc/cert.pem }"),
      "11:41 spec.tls missing_field (privateKey) add privateKey, or write mode: SIMPLE",
    ],
    [
      CART + policy("{ mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a.example] }"),
      "11:100 spec.tls.subjectAltNames conflict () remove insecureSkipVerify",
    ],
    [
      CART.replace("tcp", "tls") + policy("{ mode: SIMPLE }"),
      "11:49 spec.tls.mode wrong_protocol (SIMPLE) " +
        "declare port 81 http or tcp, or give the policy the port it is for",
    ],
    [
      CART + weft("Workload", "{ service: cart, address: 10.0.0.1, ports: { 90: 8080 } }"),
      '11:56 spec.ports["90"] unknown_port (90) use 80 or 81, or add the port to the Service',
    ],
    [
      CART + weft("Workload", "{ service: cart, address: localhost }"),
      "11:33 spec.address invalid_address (localhost) " +
        "write 127.0.0.1 if each proxy's own host is meant",
    ],
    [
      CART + weft("Workload", "{ service: cart, address: 10.0.0.1, meshPort: 17006 }"),
      "11:7 spec missing_field (identity) add identity, or remove the other",
    ],
  ])("%#", (text, expected) => {
    expect(check(text).map(spot)).toContain(expected);
  });
});

const BACKEND = "backendRefs: [{ name: cart, port: 80 }]";

test("an equal match that comes later can never match", () => {
  const same = `matches: [{ path: { value: /a/ } }]\n      ${BACKEND}`;
  const other = `matches: [{ path: { value: /a } }, { path: { value: /b } }]\n      ${BACKEND}`;
  const issues = check(CART + route(same, "a") + route(other, "b"));
  expect(issues.map(spot)).toEqual([
    "23:17 spec.rules[0].matches[0] shadowed () remove it, or make one of the two more specific",
  ]);
  expect(issues[0]?.reason).toContain("HTTPRoute/default/a rule 0");
  expect(check(CART + route(same, "a") + route(other, "b"), { lenient: true })).toEqual([]);
});

test("equal matches under other host names, ports or conditions are no shadows", () => {
  const on = (hosts: string, name: string) =>
    route(BACKEND, name).replace("  rules:", `  hostnames: [${hosts}]\n  rules:`);
  expect(check(CART + on("a.example", "a") + on("b.example", "b"))).toEqual([]);
  const headers = `matches: [{ headers: [{ name: a, value: b }] }]\n      ${BACKEND}`;
  expect(check(CART + route(BACKEND, "a") + route(headers, "b"))).toEqual([]);
});

test("lenient accepts what the Gateway API answers at run time, and nothing else", () => {
  const text = CART + route("backendRefs: [{ name: nobody, port: 80 }]");
  expect(check(text, { lenient: true })).toEqual([]);
  const twice = weft("Service", "{ ports: [{ port: 1 }, { port: 1 }] }");
  expect(check(twice, { lenient: true })).toHaveLength(1);
});

test("a reference left dangling by a deletion names the document", () => {
  const text = CART + route(BACKEND);
  const before = resourcesOf(text);
  const after = before.filter((resource) => resource.kind !== "Service");
  const issues = validateSet(after, [], { ...STRICT, before });
  expect(issues.map(({ source, line, path }) => `${source} ${line} ${path}`)).toEqual([
    "HTTPRoute/default/r 0 spec.parentRefs[0].name",
    "HTTPRoute/default/r 0 spec.rules[0].backendRefs[0].name",
  ]);
});

test("what was tolerated before does not stand in the way of other changes", () => {
  const before = resourcesOf(CART + route("backendRefs: [{ name: nobody, port: 80 }]"));
  const added = parseSources([{ name: "f", text: weft("Service", "{ ports: [{ port: 1 }] }") }]);
  const next = [...before, ...added.resources.map((parsed) => parsed.resource)];
  expect(validateSet(next, added.resources, { ...STRICT, before })).toEqual([]);
  expect(validateSet(next, added.resources, STRICT)).toHaveLength(1);
});

test("visibility decides which namespaces may send traffic there", () => {
  const secret = CART.replace("metadata: { name: cart }", "metadata: { name: a, namespace: b }");
  const hidden = secret.replace("  subsets:", "  visibility: [c]\n  subsets:");
  const used = route("backendRefs: [{ name: a, namespace: b, port: 80 }]");
  expect(check(CART + secret + used)).toEqual([]);
  expect(check(CART + hidden + used).map(({ code }) => code)).toEqual(["not_visible"]);
});

test("a PeerAuth for each level, beside a TrafficPolicy of the same target, is no conflict", () => {
  const auth = (target: string, name: string) =>
    weft("PeerAuth", `{ ${target}mtls: { mode: PERMISSIVE } }`, name);
  const text =
    CART +
    weft("Mesh", "{ mtls: { mode: STRICT } }", "mesh") +
    weft("TrafficPolicy", "{ target: { service: cart } }") +
    auth("", "a") +
    auth("target: { service: cart }, ", "b") +
    auth("target: { service: cart, port: 80 }, ", "c") +
    auth("target: { service: cart, port: 81 }, ", "d") +
    auth("", "a").replace("name: a", "name: a, namespace: b");
  expect(check(text)).toEqual([]);
});
