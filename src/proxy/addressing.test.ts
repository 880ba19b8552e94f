import { afterAll, expect, test } from "bun:test";
import { type ServiceSpec, snapshotOf } from "./mesh.fixture.ts";
import { newPlane, serve, stopAll, talk } from "./servers.fixture.ts";

afterAll(stopAll);

/** Addresses of names, as a resolver that means harm would give them. */
const NAMES: Record<string, readonly string[]> = {
  "loop.example": ["127.0.0.1"],
  "metadata.example": ["169.254.169.254"],
  "mapped.example": ["::ffff:127.0.0.1", "::1"],
  localhost: ["127.0.0.1", "::1"],
  "2130706433": ["127.0.0.1"],
};

const port = serve((request) => {
  const { pathname, search } = new URL(request.url);
  return new Response(`${request.headers.get("host")} ${pathname}${search}`);
});
const plane = newPlane({ lookup: async (host) => NAMES[host] ?? [] });
const services: ServiceSpec[] = [
  { service: "cart", port: 80, endpoints: [{ ports: { "80": port } }] },
];
const web = plane.workload("web");
const open = plane.workload("open");
web.snapshot.set(snapshotOf(services));
open.snapshot.set(snapshotOf(services, { outbound: "ALLOW_ANY" }));

async function answer(outbound: number, line: string, host: string): Promise<string> {
  const { heard } = talk(
    outbound,
    `${line} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`,
  );
  const { text } = await heard;
  return `${text.slice(9, 12)} ${text.split("\r\n\r\n")[1]?.trim()}`;
}

test.each([
  ["GET /x?y=1", "cart", "200 cart /x?y=1"],
  ["GET /x", "CART", "200 CART /x"],
  ["GET /x", "cart.", "200 cart. /x"],
  ["GET /x", "cart:80", "200 cart:80 /x"],
  ["GET /x", "cart:", "400 bad_request"],
  ["GET /x", "Cart.Default.Mesh.", "200 Cart.Default.Mesh. /x"],
  ["GET /x", "cart.default.svc.cluster.local:80", "200 cart.default.svc.cluster.local:80 /x"],
  ["GET http://cart/x?y=1", "cart", "200 cart /x?y=1"],
  ["GET HTTP://CART.:80/x", "CART.:80", "200 CART.:80 /x"],
  ["GET http://cart", "cart", "200 cart /"],
  ["GET http://cart/x", "other", "400 bad_request"],
  ["GET /x", "cart:81", "404 no_route"],
  ["GET /x", "cart:99999", "400 bad_request"],
  ["GET /x", "ca rt", "400 bad_request"],
  ["GET /x", "nobody.default.mesh", "404 no_route"],
  ["GET /x", "www.example.com", "404 no_route"],
  ["GET /x", "[::1]:80", "404 no_route"],
  ["GET /x", "169.254.169.254", "404 no_route"],
  ["CONNECT cart:81", "cart:81", "404 no_route"],
  ["CONNECT [::1]:22", "[::1]:22", "404 no_route"],
])("%s to %s: %s", async (line, host, says) => {
  expect(await answer(web.outbound, line, host)).toStartWith(says);
});

test.each([
  "127.0.0.1:22",
  "loop.example",
  "metadata.example:80",
  "169.254.169.254",
  "mapped.example",
  "localhost:8080",
  "2130706433",
  "[::1]:22",
  "[::ffff:7f00:1]",
  "[fe80::1]",
  "0.0.0.0",
  "nowhere.example",
])("ALLOW_ANY does not lead to %s", async (host) => {
  expect(await answer(open.outbound, "GET /", host)).toStartWith("404 no_route");
  const authority = /:\d+$/.test(host) ? host : `${host}:80`;
  const connect = await answer(open.outbound, `CONNECT ${authority}`, authority);
  expect(connect).toStartWith("404 no_route");
});

test("a proxy's own ports are no hosts outside, by whatever address", async () => {
  for (const own of [open.outbound, plane.meshPort]) {
    expect(await answer(open.outbound, "GET /", `127.0.0.1:${own}`)).toStartWith("404 no_route");
  }
});
