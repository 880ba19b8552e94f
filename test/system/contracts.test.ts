/** What real processes tell of themselves, held against the golden fixtures. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { edgesOf, parse } from "../../scripts/demo/metrics.ts";
import accessLog from "../fixtures/contracts/access-log.json" with { type: "json" };
import golden from "../fixtures/contracts/metrics.json" with { type: "json" };
import known from "../fixtures/contracts/process.json" with { type: "json" };
import { ask, metrics, run, type Sidecar, TestMesh, until, WEFT } from "../harness/mesh.ts";
import { type App, echo } from "../harness/servers.ts";

let mesh: TestMesh;
let app: App;
let web: Sidecar;
let cart: Sidecar;

beforeAll(async () => {
  mesh = await TestMesh.start();
  app = echo("cart");
  cart = await mesh.sidecar({ service: "cart", app: [`8080=${app.port}`, `9090=${app.port}/tcp`] });
  web = await mesh.sidecar({ service: "web", args: ["--access-log=on"] });
  const headers = { "x-request-id": "known", traceparent: accessLog.line.trace };
  expect((await ask(web.outbound, "cart:8080", "/seen?a=b", { headers })).status).toBe(200);
  expect((await ask(web.outbound, "nowhere")).status).toBe(404);
  // An opaque connection, and a caller without a certificate.
  await run(["curl", "-s", "-p", "-x", web.outbound, "http://cart:9090/"]);
  await run(["curl", "-sk", "-m", "2", `https://127.0.0.1:${cart.meshPort}/`]);
}, 60_000);

afterAll(async () => {
  app?.stop();
  await mesh?.stop();
});

interface Family {
  readonly name: string;
  readonly type: string;
  readonly labels: readonly string[];
  readonly quiet?: boolean;
}

/** `name type: labels` of every family in the text, in its order. */
function familiesOf(text: string): string[] {
  const types = new Map(
    [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name = "", type = ""]) => [name, type]),
  );
  const found = new Set<string>();
  for (const { name, labels } of parse(text)) {
    const family = types.has(name) ? name : name.replace(/_(bucket|sum|count)$/, "");
    const names = Object.keys(labels).filter((label) => label !== "le");
    found.add(`${family} ${types.get(family)}: ${names.join(", ")}`);
  }
  return [...found];
}

function expected(families: readonly Family[]): string[] {
  return families.map(({ name, type, labels }) => {
    const names = labels.flatMap((label) => (label === "edge" ? golden.edge : [label]));
    return `${name} ${type}: ${names.join(", ")}`;
  });
}

/** Nothing but what is listed, and all of it that appears in a mesh that is well. */
function expectFamilies(text: string, families: readonly Family[]): void {
  const found = familiesOf(text);
  const quiet = new Set(expected(families.filter(({ quiet }) => quiet === true)));
  const listed = expected(families);
  expect(found.filter((family) => !listed.includes(family))).toEqual([]);
  const needed = listed.filter((family) => !quiet.has(family));
  expect(needed.filter((family) => !found.includes(family))).toEqual([]);
}

test("golden: metrics of proxies have these names, types and labels", async () => {
  const text = await until("all of it is counted", async () => {
    const both = `${await metrics(web)}${await metrics(cart)}`;
    return both.includes("weft_handshakes_refused_total{") && both;
  });
  expectFamilies(text, golden.proxy);
  const edge = edgesOf(parse(await metrics(web))).get("default/web default/cart");
  expect(edge).toMatchObject({ failed: 0, protocol: "http" });
  expect(edge?.requests).toBe(2);
  expect(edge?.encrypted).toBeGreaterThan(0);
});

test("golden: metrics of the control plane have these names, types and labels", async () => {
  const token = readFileSync(join(mesh.data, "admin.token"), "utf8").trim();
  const answer = await fetch(`${mesh.api}/metrics`, {
    headers: { authorization: `Bearer ${token}` },
    tls: { rejectUnauthorized: false },
  });
  expectFamilies(await answer.text(), golden.controlplane);
});

test("golden: a line of the access log has these fields in this order", async () => {
  const line = await until("the line", () =>
    web
      .output()
      .split("\n")
      .find((text) => text.includes('"requestId":"known"')),
  );
  const written = JSON.parse(line) as typeof accessLog.line;
  expect(Object.keys(written)).toEqual(Object.keys(accessLog.line));
  const { time, durationMs, endpoint, bytesSent, authority } = written;
  expect(written).toEqual({ ...accessLog.line, time, durationMs, endpoint, bytesSent, authority });
  expect(new Date(time).toISOString()).toBe(time);
  for (const number of [durationMs, bytesSent]) expect(number).toBeGreaterThan(0);
});

test("golden: health and readiness, of proxies and of the control plane", async () => {
  for (const origin of [web.admin, cart.admin, mesh.api]) {
    for (const [path, { status, body }] of [
      ["/healthz", known.healthz],
      ["/readyz", known.ready],
    ] as const) {
      const answer = await fetch(origin + path, { tls: { rejectUnauthorized: false } });
      expect([origin, answer.status, await answer.text()]).toEqual([origin, status, body]);
    }
  }
  expect((await run([WEFT, "healthcheck", "--ready", `--data=${web.data}`])).code).toBe(0);
});

test("golden: ports are where every part expects them", () => {
  const { outbound, mesh: meshPort, metrics: admin, api } = known.ports;
  const base = web.outboundPort - outbound;
  const note = JSON.parse(readFileSync(join(web.data, "run.json"), "utf8"));
  expect(note).toMatchObject({ mesh: base + meshPort, metrics: `127.0.0.1:${base + admin}` });
  const own = JSON.parse(readFileSync(join(mesh.data, "run.json"), "utf8"));
  expect(own.api).toBe(`https://127.0.0.1:${mesh.base + api}`);
});
