import { describe, expect, test } from "bun:test";
import type { ProxyAnswer, ResourceAnswer, StatusAnswer } from "../../src/api/answers.ts";
import type { PortMtlsOf } from "../../src/config/port-mtls.ts";
import type { Resource } from "../../src/config/resource.ts";
import { controlplaneChecks, type Findings, proxyChecks, serviceChecks } from "./check.ts";

const NOW = 1_800_000_000_000;
const DAY = 86_400_000;

const proxy: ProxyAnswer = {
  instance: "abcdefghij",
  namespace: "default",
  service: "cart",
  identity: "spiffe://weft.local/ns/default/sa/cart",
  state: "up",
  health: "healthy",
  revision: 3,
  ackedRev: 9,
  ackedEpoch: 1,
  refused: [],
  leaseAgeMs: 100,
  certificateIssued: NOW,
  certificateExpires: NOW + DAY,
  address: "10.0.0.1",
  meshPort: 17_006,
  version: "1.0.0",
  locality: "",
  labels: {},
};

const status: StatusAnswer = {
  version: "1.0.0",
  trustDomain: "weft.local",
  startedAt: NOW - DAY,
  revision: 3,
  publishedRevision: 3,
  bus: { rev: 9, epoch: 1, status: "up", url: "tls://127.0.0.1:17222" },
  store: { present: true },
  conditions: [],
  proxies: [proxy],
};

const cart: ResourceAnswer = {
  key: "Service/default/cart",
  origin: "registration",
  revision: 1,
  t: NOW,
  resource: {
    apiVersion: "weft.dev/v1",
    kind: "Service",
    metadata: { name: "cart", namespace: "default", labels: {} },
    spec: { ports: [{ port: 80 }] },
  },
};

const well: Findings = {
  status,
  services: [cart],
  declared: new Set(),
  mtls: () => ({ mode: "STRICT", by: undefined }),
  roots: [NOW + 365 * DAY],
  now: NOW,
  version: "1.0.0",
};

function wrong(findings: Findings): Record<string, string> {
  const checks = [
    ...controlplaneChecks(findings),
    ...serviceChecks(findings),
    ...proxyChecks(findings),
  ];
  const bad = checks.filter(({ result }) => result !== "success");
  for (const { error, hint } of bad) {
    expect(error).toBeString();
    expect(hint).toBeString();
  }
  return Object.fromEntries(bad.map(({ id, result }) => [id, result]));
}

const withStatus = (change: Partial<StatusAnswer>) => ({
  ...well,
  status: { ...status, ...change },
});
const withProxy = (change: Partial<ProxyAnswer>) =>
  withStatus({ proxies: [{ ...proxy, ...change }] });

describe("check", () => {
  test("a healthy mesh has nothing to say", () => {
    expect(wrong(well)).toEqual({});
  });

  test.each([
    ["another version", withStatus({ version: "0.9.0" }), { version: "warning" }],
    ["bus down", withStatus({ bus: { ...status.bus, status: "down" } }), { bus: "error" }],
    ["unpublished", withStatus({ publishedRevision: 2 }), { published: "error" }],
    ["root ends", { ...well, roots: [NOW + DAY] }, { root: "warning" }],
    ["no services", { ...well, services: [] }, { exist: "warning" }],
    ["no proxies", withStatus({ proxies: [] }), { endpoints: "warning", joined: "warning" }],
    ["down", withProxy({ state: "down" }), { endpoints: "warning", registered: "warning" }],
    ["behind", withProxy({ revision: 2 }), { current: "warning" }],
    ["unhealthy", withProxy({ health: "unhealthy" }), { endpoints: "warning", healthy: "error" }],
    ["refused", withProxy({ refused: [{ key: "mesh", reason: "x" }] }), { accepted: "error" }],
    ["expired", withProxy({ certificateExpires: NOW }), { certificates: "error" }],
    [
      "overdue for renewal",
      withProxy({ certificateIssued: NOW - DAY, certificateExpires: NOW + 3_600_000 }),
      { renewal: "warning" },
    ],
    ["short-lived", withProxy({ certificateExpires: NOW + 6_000 }), {}],
    ["old proxy", withProxy({ version: "0.9.0" }), { versions: "warning" }],
  ] as const)("%s", (_, findings, want) => {
    expect(wrong(findings)).toEqual(want);
  });

  test("each port that takes plaintext is named, with the document that lets it", () => {
    const services = [80, 81, 82].map((port) => ({
      ...cart,
      resource: { ...cart.resource, spec: { ports: [{ port }] } } as Resource,
    }));
    const mtls: PortMtlsOf = (_namespace, _service, port) => {
      if (port === 81) return { mode: "STRICT", by: undefined };
      return { mode: "PERMISSIVE", by: port === 80 ? "PeerAuth/default/cart" : "Mesh/mesh" };
    };
    const open = { ...well, services, mtls };
    expect(wrong(open)).toEqual({ "mutual-tls": "warning" });
    expect(serviceChecks(open).find(({ id }) => id === "mutual-tls")?.error).toBe(
      "plaintext too: default/cart:80 by PeerAuth/default/cart; default/cart:82 by Mesh/mesh",
    );
  });

  test("an endpoint by document counts", () => {
    const declared = new Set(["default/cart"]);
    expect(wrong({ ...withStatus({ proxies: [] }), declared })).toEqual({ joined: "warning" });
  });
});
