/** PROXY headers: to servers without a proxy, to the application beside one, from relays. */
import { afterAll, expect, test } from "bun:test";
import { type Ends, readProxyHeader, writeProxyHeader } from "../net/proxy-protocol.ts";
import type { Snapshot } from "../snapshot/snapshot.ts";
import { AccessLog } from "../telemetry/access-log.ts";
import { type ServiceSpec, snapshotOf, type TestPlane, type TestWorkload } from "./mesh.fixture.ts";
import { eventually, newPlane, rawServer, serve, stopAll, talk } from "./servers.fixture.ts";

afterAll(stopAll);

/** Answers a line with who calls, in the header's words, and the line. */
function told(): { readonly port: number; readonly accepted: number } {
  const texts = new Map<number, string>();
  return rawServer({
    data(socket, chunk, connection) {
      const text = (texts.get(connection) ?? "") + chunk;
      texts.set(connection, text);
      const header = readProxyHeader(Buffer.from(text, "latin1"));
      if (header.kind === "malformed") socket.end(`no header: ${text}`);
      if (header.kind !== "header" || !text.endsWith("\n", text.length)) return;
      const rest = text.slice(header.length);
      if (rest === "") return;
      const who = header.ends?.source;
      const to = header.ends?.destination;
      socket.end(`${who?.address}:${who?.port} ${to?.address}:${to?.port} ${rest}`);
    },
  });
}

const dead = 1;

function db(ports: readonly number[], policy: NonNullable<ServiceSpec["policy"]>): ServiceSpec {
  const endpoints = ports.map((port) => ({ ports: { "80": port } }));
  return { service: "db", port: 80, protocol: "tcp", policy, endpoints };
}

function upstream(plane: TestPlane, web: TestWorkload): number {
  const service = { namespace: "default", service: "db" };
  return plane.plane.listenUpstream(web.local, service, "127.0.0.1", 0);
}

async function say(port: number, text: string, localAddress?: string) {
  const { socket, heard } = talk(port, text, localAddress);
  await new Promise((resolve) => socket.once("connect", resolve));
  const from = socket.localPort ?? 0;
  return { heard: (await heard).text, from };
}

test("a server without a proxy is told who calls, each on a connection of its own", async () => {
  const plane = newPlane();
  const web = plane.workload("web");
  const server = told();
  const port = upstream(plane, web);
  for (const proxyProtocol of ["v1", "v2"] as const) {
    web.snapshot.set(snapshotOf([db([server.port], { proxyProtocol })]));
    for (let i = 0; i < 3; i++) {
      const { heard, from } = await say(port, `hello ${i}\n`);
      expect(heard).toBe(`127.0.0.1:${from} 127.0.0.1:${port} hello ${i}\n`);
    }
  }
  expect(server.accepted).toBe(6);
  // A further attempt says it again.
  web.snapshot.set(snapshotOf([db([dead, server.port], { proxyProtocol: "v2" })]));
  for (let i = 0; i < 4; i++) expect((await say(port, "hello\n")).heard).toEndWith("hello\n");
  expect(plane.metrics.render()).toMatch(/weft_retries_total\{.*reason="connect"/);
});

test("CONNECT is such a connection too, and what is sent early comes after the header", async () => {
  const plane = newPlane();
  const web = plane.workload("web");
  web.snapshot.set(snapshotOf([db([told().port], { proxyProtocol: "v1" })]));
  const { heard, from } = await say(web.outbound, "CONNECT db:80 HTTP/1.1\r\nHost: db\r\n\r\nhi\n");
  expect(heard).toEndWith(`\r\n\r\n127.0.0.1:${from} 127.0.0.1:${web.outbound} hi\n`);
});

test("the header comes before TLS", async () => {
  const plane = newPlane();
  const web = plane.workload("web");
  let seen = "";
  const server = rawServer({
    data(socket, text) {
      seen += text;
      if (/\r\n./s.test(seen)) socket.end();
    },
  });
  const tls = { names: [], verify: false };
  web.snapshot.set(snapshotOf([db([server.port], { proxyProtocol: "v1", tls })]));
  await say(upstream(plane, web), "hello\n");
  expect(await eventually(() => seen.includes("\r\n\u0016\u0003"))).toBe(true);
  expect(seen).toMatch(/^PROXY TCP4 \S+ \S+ \d+ \d+\r\n/);
});

/** `db` behind a proxy, whose application expects a header of version 2. */
function behindProxy(plane: TestPlane, app: number): TestWorkload {
  const port = { port: 80, protocol: "tcp", proxyProtocol: "v2" } as const;
  const snapshot: Snapshot = {
    ...snapshotOf([], {}, "db"),
    inbound: { namespace: "default", service: "db", ports: [port] },
  };
  const there = { servicePort: 80, host: "127.0.0.1", port: app, protocol: "tcp" } as const;
  plane.workload("db", [there], snapshot);
  const web = plane.workload("web");
  return web;
}

test("an application beside its proxy hears of the proxy that calls, once", async () => {
  const plane = newPlane();
  const web = behindProxy(plane, told().port);
  const spec = { ...db([], { proxyProtocol: "v2" as const }), endpoints: [plane.endpoint("db")] };
  web.snapshot.set(snapshotOf([spec]));
  const port = upstream(plane, web);
  const { heard, from } = await say(port, "hello\n");
  expect(heard).toMatch(
    new RegExp(`^127\\.0\\.0\\.1:[1-9]\\d+ 127\\.0\\.0\\.1:${plane.meshPort} hello\n`),
  );
  expect(heard).not.toContain(`:${from} `);
});

test("requests that would share such connections are refused on both sides", async () => {
  const plane = newPlane();
  const server = told();
  const web = behindProxy(plane, server.port);
  const spec = { ...db([], { proxyProtocol: "v2" as const }), endpoints: [plane.endpoint("db")] };
  web.snapshot.set(snapshotOf([spec]));
  const ask = () => fetch(web.url, { headers: { host: "db" } });
  const ours = await ask();
  expect(ours.status).toBe(400);
  expect(await ours.text()).toContain("default/db:80 takes connections with a PROXY header");
  // A caller whose configuration is another.
  web.snapshot.set(snapshotOf([{ ...spec, policy: {} }]));
  const theirs = await ask();
  expect(theirs.status).toBe(400);
  expect(await theirs.text()).toContain("default/db:80 takes connections with a PROXY header");
  expect(server.accepted).toBe(0);
});

const ENDS: Ends = {
  source: { address: "203.0.113.7", port: 4711 },
  destination: { address: "198.51.100.1", port: 443 },
};

test("what a relay announces goes on to the server; without a header it gets nowhere", async () => {
  const plane = newPlane({ relays: ["127.0.0.0/8"] });
  const web = plane.workload("web");
  const server = told();
  web.snapshot.set(snapshotOf([db([server.port], { proxyProtocol: "v2" })]));
  const port = upstream(plane, web);
  for (const version of ["v1", "v2"] as const) {
    const header = Buffer.from(writeProxyHeader(version, ENDS)).toString("latin1");
    const { heard } = await say(port, `${header}hello\n`);
    expect(heard).toBe("203.0.113.7:4711 198.51.100.1:443 hello\n");
    const connect = "CONNECT db:80 HTTP/1.1\r\nHost: db\r\n\r\n";
    const { heard: tunnel } = await say(web.outbound, `${header}${connect}hi\n`);
    expect(tunnel).toEndWith("203.0.113.7:4711 198.51.100.1:443 hi\n");
  }
  expect((await say(port, "hello\n")).heard).toBe("");
  expect(server.accepted).toBe(4);
  expect(plane.metrics.render()).toContain(
    'weft_proxy_headers_refused_total{reason="malformed"} 1',
  );
});

test("what came with a header is kept while its destination is being learnt", async () => {
  const plane = newPlane({ relays: ["127.0.0.1"] });
  const web = plane.workload("web");
  const server = told();
  plane.onAccess = () => {
    setTimeout(
      () => web.snapshot.set(snapshotOf([db([server.port], { proxyProtocol: "v1" })])),
      20,
    );
    return true;
  };
  const header = Buffer.from(writeProxyHeader("v1", ENDS)).toString();
  const { heard } = await say(upstream(plane, web), `${header}hello\n`);
  expect(heard).toBe("203.0.113.7:4711 198.51.100.1:443 hello\n");
});

test("the access log names whom a relay announces", async () => {
  const lines: string[] = [];
  const accessLog = new AccessLog((text) => lines.push(...text.trim().split("\n")), Date.now);
  const plane = newPlane({ relays: ["127.0.0.2"], accessLog });
  const web = plane.workload("web");
  const port = serve(() => new Response("hello"));
  web.snapshot.set(
    snapshotOf([{ service: "db", port: 80, endpoints: [{ ports: { "80": port } }] }]),
  );
  const request = "GET / HTTP/1.1\r\nHost: db\r\nConnection: close\r\n\r\n";
  const ends = { ...ENDS, source: { address: "2001:db8::7", port: 4711 } };
  for (const announced of [ENDS, ends, undefined]) {
    const header = Buffer.from(writeProxyHeader("v2", announced)).toString("latin1");
    expect((await say(web.outbound, header + request, "127.0.0.2")).heard).toStartWith(
      "HTTP/1.1 200",
    );
  }
  // Anybody else's header is a request that makes no sense.
  const header = Buffer.from(writeProxyHeader("v1", ENDS)).toString();
  expect((await say(web.outbound, header + request)).heard).toStartWith("HTTP/1.1 400");
  expect((await say(web.outbound, request)).heard).toStartWith("HTTP/1.1 200");
  accessLog.stop();
  const clients = lines.map((line) => (JSON.parse(line) as { client?: string }).client);
  expect(clients).toEqual([
    "203.0.113.7:4711",
    "[2001:db8::7]:4711",
    ...[undefined, undefined, undefined],
  ]);
});
