/** Callers of the mesh port without TLS: served where a port permits it, and nowhere else. */
import { afterAll, expect, test } from "bun:test";
import * as tls from "node:tls";
import type { InPort } from "../snapshot/document.ts";
import type { Snapshot } from "../snapshot/snapshot.ts";
import { AccessLog } from "../telemetry/access-log.ts";
import { snapshotOf, type TestPlane, type TestWorkload } from "./mesh.fixture.ts";
import {
  eventually,
  newPlane,
  type RawServer,
  rawServer,
  stopAll,
  talk,
} from "./servers.fixture.ts";

afterAll(stopAll);

type Ports = Record<number, Partial<InPort>>;

function configured(service: string, ports: Ports, hosts?: Record<string, string>): Snapshot {
  const inbound = Object.entries(ports).map(([port, more]) => ({
    ...{ port: Number(port), protocol: "http" as const },
    ...more,
  }));
  return {
    ...snapshotOf([], hosts === undefined ? {} : { hosts }, service),
    inbound: { namespace: "default", service, ports: inbound },
  };
}

/** Answers each request with `name` and what reached it, on connections that are kept. */
function app(name: string): RawServer {
  return rawServer({
    data(socket, text) {
      for (const head of text.split(/(?<=\r\n\r\n)/)) {
        const body = `${name} ${head.split("\r\n")[0]}`;
        socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
      }
    },
  });
}

/** Whole lines come back with `name` before them. */
function lines(name: string): RawServer {
  return rawServer({ data: (socket, text) => void socket.write(`${name} ${text}`) });
}

interface Listening {
  readonly server: RawServer;
  readonly rule: Partial<InPort>;
}

function workload(
  plane: TestPlane,
  service: string,
  ports: Record<number, Listening>,
  hosts?: Record<string, string>,
): TestWorkload {
  const rules = Object.fromEntries(Object.entries(ports).map(([port, { rule }]) => [port, rule]));
  const apps = Object.entries(ports).map(([port, { server }]) => ({
    ...{ servicePort: Number(port), host: "127.0.0.1", port: server.port },
  }));
  return plane.workload(service, apps, configured(service, rules, hosts));
}

const OPEN = { permissive: true } as const;

function get(host: string, more = "connection: close\r\n", path = "/"): string {
  return `GET ${path} HTTP/1.1\r\nhost: ${host}\r\n${more}\r\n`;
}

async function said(plane: TestPlane, text: string): Promise<string> {
  return (await talk(plane.meshPort, text).heard).text;
}

function refused(plane: TestPlane, why: string): number {
  const line = new RegExp(`^weft_handshakes_refused_total\\{reason="${why}"\\} (\\d+)$`, "m");
  return Number(line.exec(plane.metrics.render())?.[1] ?? 0);
}

test("without a word in the configuration no plaintext byte reaches an application", async () => {
  const plane = newPlane();
  const server = app("cart");
  const cart = workload(plane, "cart", { 80: { server, rule: {} } });
  expect(await said(plane, get("cart"))).toBe("");
  expect(refused(plane, "not_tls")).toBe(1);
  // Nor before there is a configuration, nor where it has no document for callers.
  cart.snapshot.set(undefined);
  expect(await said(plane, get("cart"))).toBe("");
  cart.snapshot.set(snapshotOf([], {}, "cart"));
  expect(await said(plane, get("cart"))).toBe("");
  expect(server.accepted).toBe(0);
});

test("the only permitted port takes requests for whatever host, and counts a nobody", async () => {
  const plane = newPlane();
  workload(plane, "cart", { 80: { server: app("cart"), rule: OPEN } });
  for (const host of ["cart", "legacy.example:8080", `10.1.2.3:${plane.meshPort}`, "[::1]:1"]) {
    expect(await said(plane, get(host))).toEndWith("\r\n\r\ncart GET / HTTP/1.1");
  }
  const edge = 'direction="inbound",workload="default/cart",source="",peer="default/cart"';
  expect(plane.metrics.render()).toContain(
    `weft_requests_total{${edge},port="80",subset="",tls="none",code="200",reason=""} 4\n`,
  );
});

const HOSTS: readonly (readonly [host: string, answer: string])[] = [
  ["cart", "cart"],
  ["CART.default.mesh.", "cart"],
  ["cart.default.svc.cluster.local:80", "cart"],
  ["cart:17006", "cart"],
  ["shop:80", "shop"],
  ["shop:8080", "shop-8080"],
  ["shop.example", "shop"],
  ["shop", "shop"],
  ["shop:81", "403 denied"],
  ["lone", "lone"],
  ["db", "403 denied"],
  ["elsewhere.example", "404 ambiguous_port"],
  ["cart.other", "404 ambiguous_port"],
  ["cart:x", "400 bad_request"],
];

/** Four services, some of whose ports take plaintext. */
function several(): TestPlane {
  const plane = newPlane();
  const shop = {
    80: { server: app("shop"), rule: OPEN },
    81: { server: app("shop-81"), rule: {} },
    8080: { server: app("shop-8080"), rule: OPEN },
  };
  workload(plane, "cart", { 80: { server: app("cart"), rule: OPEN } });
  workload(plane, "shop", shop, { "shop.example": "default/shop" });
  workload(plane, "lone", { 7000: { server: app("lone"), rule: OPEN } });
  workload(plane, "db", { 5432: { server: lines("db"), rule: { ...OPEN, protocol: "tcp" } } });
  return plane;
}

let hosts: TestPlane | undefined;

test.each(HOSTS)("of several ports the host %s chooses: %s", async (host, answer) => {
  hosts ??= several();
  const heard = await said(hosts, get(host));
  const [, status, body] = /^HTTP\/1\.1 (\d+)[\s\S]*\r\n\r\n([\w-]+)/.exec(heard) ?? [];
  expect(status === "200" ? body : `${status} ${body}`).toBe(answer);
  expect(heard).not.toMatch(/weft-reason/i);
});

test("each request of a connection finds its own port, pipelined ones too", async () => {
  const plane = newPlane();
  workload(plane, "cart", { 80: { server: app("cart"), rule: OPEN } });
  workload(plane, "shop", { 80: { server: app("shop"), rule: OPEN } });
  const names = ["cart", "shop", "nobody", "cart"];
  const requests = names.map((name, i) => get(name, i === 3 ? "connection: close\r\n" : ""));
  const heard = await said(plane, requests.join(""));
  expect(heard.match(/(?<=\r\n\r\n)\w+/g)).toEqual(["cart", "shop", "ambiguous_port", "cart"]);
});

test("paths get their one spelling here, and CONNECT leads nowhere", async () => {
  const plane = newPlane();
  workload(plane, "cart", { 80: { server: app("cart"), rule: OPEN } });
  expect(await said(plane, get("cart", "connection: close\r\n", "/a//b/%2e%2e/c%2fd"))).toEndWith(
    "cart GET /a/c/d HTTP/1.1",
  );
  expect(await said(plane, get("cart", "connection: close\r\n", "/a%00"))).toStartWith(
    "HTTP/1.1 400",
  );
  const connect = await said(plane, "CONNECT cart:80 HTTP/1.1\r\nhost: cart:80\r\n\r\n");
  expect(connect).not.toContain("200");
});

test("bytes arrive one by one", async () => {
  const plane = newPlane();
  workload(plane, "cart", { 80: { server: app("cart"), rule: OPEN } });
  const { socket, heard } = talk(plane.meshPort, "");
  for (const byte of get("cart")) {
    socket.write(byte);
    await Bun.sleep(1);
  }
  expect((await heard).text).toEndWith("cart GET / HTTP/1.1");
});

test.each([
  ["declared opaque", { ...OPEN, protocol: "tcp" }],
  ["undeclared", { ...OPEN, protocol: "tcp", detect: true }],
] as const)("opaque bytes go to the only port that takes them: %s", async (_what, rule) => {
  const plane = newPlane();
  workload(plane, "db", { 5432: { server: lines("db"), rule } });
  workload(plane, "cart", { 80: { server: app("cart"), rule: OPEN } });
  const { socket, heard } = talk(plane.meshPort, "hello\n");
  socket.once("data", () => socket.end("bye\n"));
  expect((await heard).text).toBe("db hello\ndb bye\n");
  // TLS that is not of the mesh is opaque too.
  const server = { port: plane.meshPort, servername: "db.example", rejectUnauthorized: false };
  const failed = await new Promise<Error>((resolve) => tls.connect(server).on("error", resolve));
  // It hears its own hello, with a word before it.
  expect(failed.message).toMatch(/wrong.version.number/i);
});

test("opaque bytes that two ports take, or only ports for requests, reach nobody", async () => {
  const plane = newPlane();
  const server = lines("db");
  const tcp = { ...OPEN, protocol: "tcp" } as const;
  workload(plane, "cart", { 80: { server: app("cart"), rule: OPEN } });
  expect(await said(plane, "hello\n")).toBe("");
  workload(plane, "db", { 5432: { server, rule: tcp }, 5433: { server, rule: tcp } });
  expect(await said(plane, "hello\n")).toBe("");
  expect(refused(plane, "not_tls")).toBe(2);
  expect(server.accepted).toBe(0);
});

test("what is no longer permitted ends: the next request, and tunnels within a tick", async () => {
  const plane = newPlane({ tickMs: 20 });
  const echo = rawServer({
    data(socket, text) {
      if (text.startsWith("GET")) {
        const switching = "HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\n";
        socket.write(`${switching}connection: upgrade\r\n\r\n`);
      } else socket.write(text);
    },
  });
  const tcp = { ...OPEN, protocol: "tcp" } as const;
  const db = workload(plane, "db", { 5432: { server: lines("db"), rule: tcp } });
  const cart = workload(plane, "cart", { 80: { server: app("cart"), rule: OPEN } });
  const chat = workload(plane, "chat", { 80: { server: echo, rule: OPEN } });
  const heard: string[] = [];
  const begin = async (first: string, expected: string) => {
    const { socket } = talk(plane.meshPort, first);
    const at = heard.push("") - 1;
    let closed = false;
    socket.on("data", (chunk) => {
      heard[at] += chunk.toString("latin1");
    });
    socket.on("close", () => {
      closed = true;
    });
    expect(await eventually(() => heard[at]!.includes(expected))).toBe(true);
    return { socket, at, closed: () => closed };
  };
  const opaque = await begin("hello\n", "db hello");
  const kept = await begin(get("cart", ""), "cart GET");
  const upgraded = await begin(get("chat", "connection: upgrade\r\nupgrade: echo\r\n"), "101");
  upgraded.socket.write("through");
  expect(await eventually(() => heard[upgraded.at]!.endsWith("through"))).toBe(true);
  db.snapshot.set(configured("db", { 5432: { protocol: "tcp" } }));
  chat.snapshot.set(configured("chat", { 80: {} }));
  cart.snapshot.set(configured("cart", { 80: {} }));
  expect(await eventually(() => opaque.closed() && upgraded.closed())).toBe(true);
  kept.socket.write(get("cart", ""));
  expect(await eventually(() => heard[kept.at]!.includes("HTTP/1.1 403"))).toBe(true);
  expect(heard[kept.at]).toContain("denied: cart takes no requests without mutual TLS");
  kept.socket.destroy();
});

test("callers with mutual TLS are served as ever beside them, and room is given back", async () => {
  const plane = newPlane();
  const cart = workload(plane, "cart", { 80: { server: app("cart"), rule: OPEN } });
  const web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([{ service: "cart", port: 80, endpoints: [plane.endpoint("cart")] }]),
  );
  const both = Array.from({ length: 50 }, async (_, i) => {
    if (i % 2 === 0) return (await fetch(`${web.url}/`, { headers: { host: "cart" } })).text();
    return said(plane, get("cart"));
  });
  for (const heard of await Promise.all(both)) expect(heard).toEndWith("cart GET / HTTP/1.1");
  expect(cart.local.name).toBe("default/cart");
  const active = /^weft_connections_active\{direction="inbound",workload="default\/cart"\} (\d+)$/m;
  const open = () => Number(active.exec(plane.metrics.render())?.[1] ?? 0);
  // Those of the caller's proxy are kept.
  expect(await eventually(() => open() <= 25)).toBe(true);
});

test("instances of one service on this host take turns", async () => {
  const plane = newPlane();
  workload(plane, "cart", { 80: { server: app("one"), rule: OPEN } });
  workload(plane, "cart", { 80: { server: app("two"), rule: OPEN } });
  const seen = new Set<string>();
  for (let i = 0; i < 4; i++) seen.add(/\w+(?= GET)/.exec(await said(plane, get("cart")))![0]);
  expect([...seen].sort()).toEqual(["one", "two"]);
});

test("who is still there without a proxy stands in the access log", async () => {
  const written: string[] = [];
  const accessLog = new AccessLog((text) => written.push(...text.trim().split("\n")), Date.now);
  const plane = newPlane({ accessLog });
  workload(plane, "cart", { 80: { server: app("cart"), rule: OPEN } });
  expect(await said(plane, get("cart"))).toContain("cart GET / ");
  expect(await said(plane, get("[", ""))).toContain(" 400 ");
  accessLog.stop();
  const records = written.map((line) => JSON.parse(line));
  expect(records.map(({ status, source }) => [status, source])).toEqual([
    [200, ""],
    [400, ""],
  ]);
  for (const { client } of records) expect(client).toMatch(/^127\.0\.0\.1:\d+$/);
});
