/** What callers may do to the listening side of a proxy and of the control plane. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import {
  ask,
  metrics,
  natsServersOf,
  type Running,
  type Sidecar,
  sumMetric,
  TestMesh,
  takePorts,
  until,
  WEFT,
} from "../harness/mesh.ts";
import { type App, echo } from "../harness/servers.ts";

const DESCRIPTORS = 256;
const CLIENTS = 1000;
/** A caller and the connection of its request, in half of what is left of the descriptors. */
const PAIRS = Math.floor((DESCRIPTORS - 68) / 2 / 2) - 8;

let mesh: TestMesh;
let app: App;
let cart: Sidecar;
let web: Sidecar;

/** The executable, allowed to open few files. */
const NARROW = ["sh", "-c", `ulimit -n ${DESCRIPTORS}; exec "$@"`, "sh", WEFT];

async function narrow(service: string, ...args: readonly string[]): Promise<Sidecar> {
  const base = takePorts(60);
  const data = join(mesh.folder, service);
  const command = [...NARROW, "--mode=sidecar", `--service=${service}`];
  const token = `--token-file=${await mesh.token()}`;
  const rest = [`--controlplane=${mesh.api}`, token, `--data=${data}`, `--port-base=${base}`];
  return mesh.proxy([...command, ...rest, ...args], data, base);
}

beforeAll(async () => {
  mesh = await TestMesh.start();
  app = echo("cart");
  cart = await narrow("cart", `--app=${app.port}`);
  web = await narrow("web");
  await until("cart is known", async () => (await get(web.outboundPort)) === "200");
});

afterAll(async () => {
  app?.stop();
  await mesh?.stop();
});

interface Caller {
  /** Status of its answer; "reset" or "closed" without one; "" so far. */
  outcome: string;
  readonly socket: Promise<Bun.Socket | undefined>;
}

const GET = "GET / HTTP/1.1\r\nHost: cart\r\n\r\n";

/** Proxies, applications and probes are on 127.0.0.1. */
const ELSEWHERE = "127.0.0.2";

function caller(port: number, text: string, localAddress = "127.0.0.1"): Caller {
  const state: Caller = {
    outcome: "",
    socket: Bun.connect({
      ...{ hostname: "127.0.0.1", port, localAddress },
      socket: {
        open(socket) {
          socket.write(text);
        },
        data(_socket, chunk) {
          if (state.outcome === "") state.outcome = chunk.toString().slice(9, 12);
        },
        close(_socket, error) {
          if (state.outcome === "") state.outcome = error === undefined ? "closed" : "reset";
        },
        error() {},
      },
    }).catch(() => {
      state.outcome = "reset";
      return undefined;
    }),
  };
  return state;
}

async function get(port: number): Promise<string> {
  const one = caller(port, GET);
  await until("an answer", () => one.outcome !== "", 5000);
  (await one.socket)?.end();
  return one.outcome;
}

function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

function counts(callers: readonly Caller[]): Record<string, number> {
  const result: Record<string, number> = {};
  for (const { outcome } of callers) result[outcome] = (result[outcome] ?? 0) + 1;
  return result;
}

async function leave(callers: readonly Caller[]): Promise<void> {
  for (const { socket } of callers) (await socket)?.end();
}

/** What a process does when more come than it lets in. */
async function exhaust(name: string, victim: Running, port: number, text: string, from?: string) {
  const callers = Array.from({ length: CLIENTS }, () => caller(port, text, from));
  await Promise.all(callers.map(({ socket }) => socket));
  await Bun.sleep(300);
  const before = cpuSeconds(victim.pid);
  await Bun.sleep(600);
  const outcomes = counts(callers);
  console.log(`${name}: ${JSON.stringify(outcomes)}`);
  // A listener without a descriptor left spins: as much CPU as time.
  expect(cpuSeconds(victim.pid) - before).toBeLessThan(0.3);
  return { callers, outcomes };
}

test("outbound: callers let in are served, others are told, and the door opens again", async () => {
  const { callers, outcomes } = await exhaust("outbound", web, web.outboundPort, GET);
  const { "200": served = 0, "503": told = 0 } = outcomes;
  expect(served + told).toBe(CLIENTS);
  // One descriptor each while they rest, and a second one for those whose request is under way.
  expect(served).toBeGreaterThanOrEqual(PAIRS);
  expect(sumMetric(await metrics(web), "weft_connections_refused_total")).toBeGreaterThan(900);
  await leave(callers);
  await until("the door is open again", async () => (await get(web.outboundPort)) === "200", 1000);
  const lines = web.log().match(/turned away/g) ?? [];
  expect(lines.length).toBeGreaterThan(0);
  expect(lines.length).toBeLessThan(8);
});

test("outbound: all who rest wake at once, and each of them is answered", async () => {
  const callers = Array.from({ length: 80 }, () => caller(web.outboundPort, ""));
  const sockets = await Promise.all(callers.map(({ socket }) => socket));
  await Bun.sleep(100);
  expect(counts(callers)).toEqual({ "": 80 });
  for (const socket of sockets) socket?.write(GET);
  await until("all are answered", () => counts(callers)[""] === undefined);
  expect(counts(callers)).toEqual({ "200": 80 });
  await leave(callers);
});

test("outbound: requests that take long are served in as far as there is room", async () => {
  const stuck = Promise.withResolvers<void>();
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request) {
      if (request.url.endsWith("/late")) await stuck.promise;
      return new Response("at last");
    },
  });
  await mesh.sidecar({ service: "late", app: [`80=${server.port}`] });
  await until("it is known", async () => (await ask(web.outbound, "late")).ok);
  const callers = Array.from({ length: 200 }, () =>
    caller(web.outboundPort, "GET /late HTTP/1.1\r\nHost: late\r\n\r\n"),
  );
  await Promise.all(callers.map(({ socket }) => socket));
  // Whoever waits in vain makes room for another one.
  await Bun.sleep(2500);
  stuck.resolve();
  await until("all are answered", () => counts(callers)[""] === undefined);
  console.log(`long requests: ${JSON.stringify(counts(callers))}`);
  expect(counts(callers)["200"]).toBeGreaterThanOrEqual(PAIRS - 8);
  await leave(callers);
  server.stop(true);
}, 15_000);

test("mesh port: connections per source: one address in a crowd leaves room for others", async () => {
  expect(await get(web.outboundPort)).toBe("200");
  const { callers, outcomes } = await exhaust("mesh port", cart, cart.meshPort, "", ELSEWHERE);
  expect(outcomes["reset"]).toBeGreaterThan(900);
  expect(await get(web.outboundPort)).toBe("200");
  const fresh = await narrow("other");
  await until("others get in", async () => (await get(fresh.outboundPort)) === "200", 3000);
  expect(callers.filter(({ outcome }) => outcome === "").length).toBeGreaterThan(50);
  await leave(callers);
  await until("the door is open again", async () => {
    const again = caller(cart.meshPort, "x", ELSEWHERE);
    return until("it is heard", () => again.outcome === "closed");
  });
});

test("metrics port: connections per source: scrapes get through, and traffic all the while", async () => {
  const port = Number(new URL(web.admin).port);
  const probe = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
  const { callers, outcomes } = await exhaust("metrics port", web, port, probe, ELSEWHERE);
  expect(outcomes["200"]).toBeGreaterThan(10);
  expect(outcomes["200"]).toBeLessThanOrEqual(14);
  const refused = sumMetric(await metrics(web), "weft_metrics_connections_refused_total");
  expect(refused).toBeGreaterThanOrEqual(CLIENTS - 14);
  expect(await get(web.outboundPort)).toBe("200");
  await leave(callers);
  await until("the address is let in again", async () => {
    const again = caller(port, probe, ELSEWHERE);
    await until("an answer", () => again.outcome !== "");
    await leave([again]);
    return again.outcome === "200";
  });
});

test("API: connections per source: the control plane answers others beside a crowd", async () => {
  const base = takePorts(240);
  const data = join(mesh.folder, "narrow-controlplane");
  const flags = ["--mode=controlplane", `--data=${data}`, `--port-base=${base}`];
  const controlplane = mesh.spawn([...NARROW, ...flags]);
  const url = `https://127.0.0.1:${base + 10}/readyz`;
  const ready = async () => (await fetch(url, { tls: { rejectUnauthorized: false } })).ok;
  await until("it is ready", ready);
  const { callers, outcomes } = await exhaust("API", controlplane, base + 10, "", ELSEWHERE);
  // Seven of eight are for one address.
  expect(outcomes["reset"]).toBeGreaterThanOrEqual(CLIENTS - (7 * (DESCRIPTORS - 64)) / 8);
  expect(await ready()).toBe(true);
  await leave(callers);
  expect(natsServersOf(data)).toHaveLength(1);
  const crowd = Array.from({ length: CLIENTS }, () => caller(base + 10, ""));
  await Promise.all(crowd.map(({ socket }) => socket));
  controlplane.kill("SIGTERM");
  expect(await controlplane.exited).toBe(0);
  expect(natsServersOf(data)).toEqual([]);
});

/** Resident memory, MB. */
function rssMb(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
}

test("answers nobody reads and bodies nobody takes cost little memory", async () => {
  const chunk = Buffer.alloc(64 * 1024);
  const forever = new Promise<never>(() => {});
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: (request) =>
      request.method === "GET"
        ? new Response(new ReadableStream({ pull: (to) => to.enqueue(chunk) }))
        : forever,
  });
  const back = await mesh.sidecar({ service: "endless", app: [`80=${server.port}`] });
  const front = await mesh.sidecar({ service: "front" });
  const probe = caller(front.outboundPort, "GET / HTTP/1.1\r\nHost: endless\r\n\r\n");
  await until("the service is known", () => probe.outcome === "200");
  (await probe.socket)?.end();
  const before = [front, back].map(({ pid }) => rssMb(pid));
  const clients = Array.from({ length: 100 }, (_, i) => {
    const socket = connect(front.outboundPort, "127.0.0.1").on("error", () => {});
    if (i % 2 === 0) socket.once("data", () => socket.pause());
    const get = "GET / HTTP/1.1\r\nHost: endless\r\n\r\n";
    const post = "POST / HTTP/1.1\r\nHost: endless\r\nContent-Length: 33554432\r\n\r\n";
    socket.write(i % 2 === 0 ? get : post);
    if (i % 2 === 1) for (let n = 0; n < 512; n++) socket.write(chunk);
    return socket;
  });
  await Bun.sleep(1500);
  const grown = [front, back].map(({ pid }, i) => rssMb(pid) - before[i]!);
  console.log(`memory of 50 slow readers and 50 bodies: +${grown.map(Math.round).join(", +")} MB`);
  for (const socket of clients) socket.destroy();
  server.stop(true);
  for (const megabytes of grown) expect(megabytes).toBeLessThan(100);
}, 20_000);
