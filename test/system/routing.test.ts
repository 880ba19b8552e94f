/** Routes as documents: weights, matches, filters, timeouts and retries, through real proxies. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { ask, type Sidecar, TestMesh } from "../harness/mesh.ts";
import { type App, echo } from "../harness/servers.ts";

let mesh: TestMesh;
let web: Sidecar;
const apps: App[] = [];

const services = `
apiVersion: weft.dev/v1
kind: Service
metadata: { name: reviews }
spec:
  ports: [{ port: 8080, protocol: http }]
  subsets:
    - { name: v1, labels: { version: v1 } }
    - { name: v2, labels: { version: v2 } }
`;

function split(v1: number, v2: number): string {
  return `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: reviews }
spec:
  parentRefs: [{ kind: Service, group: "", name: reviews }]
  rules:
    - matches: [{ path: { type: PathPrefix, value: /old } }]
      filters:
        - type: RequestRedirect
          requestRedirect: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /new } }
    - matches: [{ headers: [{ name: x-tester, value: "yes" }] }]
      filters:
        - type: RequestHeaderModifier
          requestHeaderModifier: { set: [{ name: x-set, value: a }], remove: [x-secret] }
        - type: ResponseHeaderModifier
          responseHeaderModifier: { add: [{ name: x-served, value: v2 }] }
        - type: URLRewrite
          urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /rewritten } }
      backendRefs: [{ group: weft.dev, kind: Subset, name: reviews.v2, port: 8080 }]
    - matches: [{ path: { type: Exact, value: /slow } }]
      timeouts: { request: 200ms }
      backendRefs: [{ group: weft.dev, kind: Subset, name: reviews.v1, port: 8080 }]
    - backendRefs:
        - { group: weft.dev, kind: Subset, name: reviews.v1, port: 8080, weight: ${v1} }
        - { group: weft.dev, kind: Subset, name: reviews.v2, port: 8080, weight: ${v2} }
`;
}

beforeAll(async () => {
  mesh = await TestMesh.start();
  await mesh.apply(services);
  for (const version of ["v1", "v2"]) {
    const app = echo(version);
    apps.push(app);
    await mesh.sidecar({
      service: "reviews",
      app: [`8080=${app.port}/http`],
      args: ["--label", `version=${version}`],
    });
  }
  web = await mesh.sidecar({ service: "web", args: ["--upstream", `reviews:${webUpstream}`] });
}, 60_000);

const webUpstream = 19_900 + Math.floor(Math.random() * 90);

afterAll(async () => {
  for (const app of apps) app.stop();
  await mesh?.stop();
});

async function names(count: number): Promise<Record<string, number>> {
  const tally: Record<string, number> = {};
  for (let i = 0; i < count; i++) {
    const response = await ask(web.outbound, "reviews");
    const { name } = (await response.json()) as { name: string };
    tally[name] = (tally[name] ?? 0) + 1;
  }
  return tally;
}

test("a split is exact to its weights, and a change of it is live once acknowledged", async () => {
  await mesh.apply(split(90, 10), "--wait");
  expect(await names(100)).toEqual({ v1: 90, v2: 10 });
  await mesh.apply(split(1, 2), "--wait");
  expect(await names(60)).toEqual({ v1: 20, v2: 40 });
  await mesh.apply(split(0, 1), "--wait");
  expect(await names(10)).toEqual({ v2: 10 });
});

test("a named upstream port leads to the same routes", async () => {
  const response = await fetch(`http://127.0.0.1:${webUpstream}/`);
  expect(response.status).toBe(200);
});

test("a header match goes first, edits headers both ways and rewrites the path", async () => {
  const response = await ask(web.outbound, "reviews", "/a/b?c=d", {
    headers: { "x-tester": "yes", "x-secret": "s" },
  });
  expect(response.headers.get("x-served")).toBe("v2");
  const body = (await response.json()) as { path: string; headers: Record<string, string> };
  expect(body.path).toBe("/rewritten/a/b?c=d");
  expect(body.headers["x-set"]).toBe("a");
  expect(body.headers["x-secret"]).toBeUndefined();
});

test("a redirect is answered by the caller's proxy", async () => {
  const response = await ask(web.outbound, "reviews", "/old/page", { redirect: "manual" });
  expect(response.status).toBe(302);
  expect(response.headers.get("location")).toMatch(/\/new\/page$/);
});

test("a request timeout is answered 504 timeout", async () => {
  const response = await ask(web.outbound, "reviews", "/slow?ms=2000");
  expect(response.status).toBe(504);
  expect(await response.text()).toContain("timeout");
});

test("an instance that goes away is not noticed by callers", async () => {
  await mesh.apply(split(1, 1), "--wait");
  const extra = echo("v1");
  apps.push(extra);
  const sidecar = await mesh.sidecar({
    service: "reviews",
    app: [`8080=${extra.port}/http`],
    args: ["--label", "version=v1"],
  });
  let failed = 0;
  let running = true;
  const traffic = (async () => {
    while (running) {
      const response = await ask(web.outbound, "reviews");
      await response.text();
      if (!response.ok) failed++;
    }
  })();
  await Bun.sleep(500);
  sidecar.kill("SIGTERM");
  expect(await sidecar.exited).toBe(0);
  await Bun.sleep(500);
  running = false;
  await traffic;
  expect(failed).toBe(0);
}, 60_000);
