import { expect, test } from "bun:test";
import { faultsOf, statusesOf } from "./conditions.ts";
import { parseSources } from "./parse.ts";

const CART = `
apiVersion: weft.dev/v1
kind: Service
metadata: { name: cart }
spec: { ports: [{ port: 80, protocol: http }], subsets: [{ name: v1, labels: { version: v1 } }] }
---
`;

function route(backend: string, parent = "cart"): string {
  return `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: r }
spec:
  parentRefs: [{ group: "", kind: Service, name: ${parent} }]
  rules: [{ backendRefs: [${backend}] }]
---
`;
}

function faults(text: string) {
  const { resources, issues } = parseSources([{ name: "x.yaml", text }]);
  expect(issues).toEqual([]);
  const set = resources.map(({ resource }) => resource);
  return Object.fromEntries(
    [...statusesOf(set, "weft.local")].map(([key, status]) => [
      key,
      faultsOf(status).map(({ type, reason }) => `${type}: ${reason}`),
    ]),
  );
}

test("a document with which all is well has no status", () => {
  expect(faults(CART + route("{ name: cart, port: 80 }"))).toEqual({});
});

test("each fault has the type and reason of the Gateway API", () => {
  const r = (backend: string, parent?: string) =>
    faults(CART + route(backend, parent))["HTTPRoute/default/r"];
  const notFound = ["ResolvedRefs: BackendNotFound"];
  expect(r("{ name: nobody, port: 80 }")).toEqual(notFound);
  expect(r("{ name: cart, port: 81 }")).toEqual(notFound);
  expect(r("{ group: weft.dev, kind: Subset, name: cart.v2, port: 80 }")).toEqual(notFound);
  expect(r("{ name: cart, port: 80 }", "nobody")).toEqual(["Accepted: NoMatchingParent"]);
  expect(r("{ name: cart, port: 80, weight: 0 }")).toEqual(["PartiallyInvalid: NoBackend"]);
  const policy = `
apiVersion: weft.dev/v1
kind: TrafficPolicy
metadata: { name: p }
spec: { target: { service: nobody } }
`;
  const missing = ["Accepted: TargetNotFound"];
  expect(faults(policy)).toEqual({ "TrafficPolicy/default/p": missing });
  const port = CART + policy.replace("nobody", "cart, port: 9");
  expect(faults(port)).toEqual({ "TrafficPolicy/default/p": missing });
  const auth = port
    .replace("TrafficPolicy", "PeerAuth")
    .replace("{ target", "{ mtls: { mode: STRICT }, target");
  expect(faults(auth)).toEqual({ "PeerAuth/default/p": missing });
});

test("the message has place, reason and next step; what is well is said beside it", () => {
  const { resources } = parseSources([
    { name: "x.yaml", text: CART + route("{ name: carts, port: 80 }") },
  ]);
  const set = resources.map(({ resource }) => resource);
  const status = statusesOf(set, "weft.local").get("HTTPRoute/default/r");
  expect(status?.parents?.[0]).toMatchObject({
    parentRef: { name: "cart" },
    controllerName: "weft.dev/controlplane",
    conditions: [
      { type: "Accepted", status: "True", reason: "Accepted", message: "" },
      {
        type: "ResolvedRefs",
        status: "False",
        reason: "BackendNotFound",
        message:
          "spec.rules[0].backendRefs[0].name: there is no Service carts in namespace default — did you mean cart?",
      },
    ],
  });
});

test("a status that is applied again is read over, as the Kubernetes API does", () => {
  const text = `${CART.replace("---\n", "")}status: { conditions: [{ type: Accepted }] }\n`;
  const { resources, issues } = parseSources([{ name: "x.yaml", text }]);
  expect(issues).toEqual([]);
  expect(resources[0]?.resource).not.toHaveProperty("status");
});
