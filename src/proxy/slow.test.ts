/** Callers and applications that stand still; a "second" of theirs takes a few milliseconds here. */
import { afterAll, expect, test } from "bun:test";
import { connect, type Socket } from "node:net";
import { type ConnectionHandler, pendingBytes } from "../net/connection.ts";
import { dial } from "../net/dial.ts";
import { tlsContext } from "../net/tls.ts";
import { authority, snapshotOf, type TestPlane, type TestWorkload } from "./mesh.fixture.ts";
import {
  eventually,
  newPlane,
  plainApp,
  rawServer,
  serve,
  stopAll,
  talk,
  targetOf,
} from "./servers.fixture.ts";

const TICK_MS = 4;
const SLOW = 500;

afterAll(stopAll);

/** `web` calls `cart` through both proxies, and `app` directly. */
function slowMesh(port: number): { plane: TestPlane; web: TestWorkload } {
  const plane = newPlane({ tickMs: TICK_MS });
  plane.workload("cart", [{ servicePort: 80, host: "127.0.0.1", port }]);
  const web = plane.workload("web");
  // All of it is one process here: half a thousand at once take a while.
  const policy = { connectTimeoutMs: 10_000 };
  const cart = { service: "cart", port: 80, policy, endpoints: [plane.endpoint("cart")] };
  web.snapshot.set(snapshotOf([cart, plainApp([port], policy)]));
  return { plane, web };
}

interface Slow {
  readonly socket: Socket;
  readonly text: () => string;
  readonly closed: Promise<void>;
}

function slow(port: number, text: string): Slow {
  const { socket, heard } = talk(port, text);
  let said = "";
  socket.on("data", (chunk) => {
    said += chunk.toString("latin1");
  });
  return { socket, text: () => said, closed: heard.then(() => undefined) };
}

test(`${SLOW} that send or read slowly are given up, and cost others nothing`, async () => {
  const chunk = Buffer.alloc(64 * 1024);
  const endless = () => new ReadableStream({ pull: (to) => to.enqueue(chunk) });
  const port = serve(async (request) => {
    if (request.url.endsWith("/big")) return new Response(endless());
    await request.arrayBuffer();
    return new Response("ok");
  });
  const { plane, web } = slowMesh(port);
  let served = 0;
  let failed = 0;
  let loading = true;
  const load = Array.from({ length: 4 }, async () => {
    while (loading) {
      const answer = await fetch(web.url, { headers: { host: "cart" } }).catch(() => undefined);
      if ((await answer?.text().catch(() => "")) === "ok") served++;
      else failed++;
      await Bun.sleep(2);
    }
  });
  const heads: Slow[] = [];
  const bodies: Slow[] = [];
  const readers: Slow[] = [];
  for (let i = 0; i < SLOW; i++) {
    const service = i % 2 === 0 ? "cart" : "app";
    const host = `Host: ${service}\r\n`;
    if (i % 10 < 5) heads.push(slow(web.outbound, `GET / HTTP/1.1\r\n${host}X: `));
    else if (i % 20 !== 19) {
      bodies.push(slow(web.outbound, `POST / HTTP/1.1\r\n${host}Content-Length: 100\r\n\r\nx`));
    } else {
      const reader = slow(web.outbound, `GET /big HTTP/1.1\r\n${host}\r\n`);
      reader.socket.once("data", () => reader.socket.pause());
      readers.push(reader);
    }
  }
  const drip = setInterval(() => {
    for (const { socket } of heads) if (socket.writable) socket.write("x");
  }, 5);
  await Promise.all([...heads, ...bodies].map(({ closed }) => closed));
  clearInterval(drip);
  for (const { text } of [...heads, ...bodies]) expect(text()).toStartWith("HTTP/1.1 408 ");
  loading = false;
  await Promise.all(load);
  // A paused socket hears of its reset when it reads on, and lives as long as it does.
  expect(await eventually(() => plane.plane.active === 0, 10_000)).toBe(true);
  for (const { socket } of readers) socket.resume();
  await Promise.all(readers.map(({ closed }) => closed));
  expect(failed).toBe(0);
  expect(served).toBeGreaterThan(10);
}, 30_000);

test("a body that drips is given up like one that stops, unless it is being answered", async () => {
  const answering = rawServer({
    data: (socket, text) => {
      if (text.startsWith("POST"))
        socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      if (text.endsWith("0\r\n\r\n")) socket.write("4\r\ndone\r\n0\r\n\r\n");
    },
  });
  const silent = rawServer({});
  const { web } = slowMesh(silent.port);
  web.snapshot.set(
    snapshotOf([
      { ...plainApp([answering.port]), service: "answering" },
      { ...plainApp([silent.port]), service: "silent" },
    ]),
  );
  const head = (service: string) =>
    `POST / HTTP/1.1\r\nHost: ${service}\r\nTransfer-Encoding: chunked\r\n\r\n`;
  const talking = slow(web.outbound, head("answering"));
  const given = slow(web.outbound, head("silent"));
  const drip = setInterval(() => {
    for (const { socket } of [talking, given]) if (socket.writable) socket.write("1\r\nx\r\n");
  }, 5 * TICK_MS);
  await given.closed;
  expect(given.text()).toStartWith("HTTP/1.1 408 ");
  await Bun.sleep(400 * TICK_MS);
  clearInterval(drip);
  talking.socket.write("0\r\n\r\n");
  expect(await eventually(() => talking.text().includes("done"))).toBe(true);
  talking.socket.destroy();
}, 15_000);

test("where connections are in demand small bodies take one when they are whole", async () => {
  const heads: string[] = [];
  const app = rawServer({
    data(socket, text) {
      heads.push(text);
      if (/x$|y$/.test(text)) return;
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    },
  });
  const plane = newPlane({ tickMs: 20 });
  const web = plane.workload("web");
  web.snapshot.set(snapshotOf([plainApp([app.port], { maxConnections: 32, maxPending: 1 })]));
  const post = (body: string) =>
    slow(web.outbound, `POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 9\r\n\r\n${body}`);
  // Not yet: what is here goes on.
  const first = [post("x"), post("y")];
  expect(await eventually(() => heads.length === 2)).toBe(true);
  const drips = Array.from({ length: 60 }, () => post("x"));
  const cut = post("ab");
  await Bun.sleep(50);
  expect((await fetch(web.url, { headers: { host: "app" } })).status).toBe(200);
  expect(app.accepted).toBe(3);
  cut.socket.write("cdefghiGET / HTTP/1.1\r\nHost: app\r\n\r\n");
  expect(await eventually(() => cut.text().split("ok").length === 3)).toBe(true);
  expect(heads.filter((text) => text.endsWith("abcdefghi"))).toHaveLength(1);
  cut.socket.destroy();
  // Ten seconds for each, wherever it waits.
  await Promise.all([...first, ...drips].map(({ closed }) => closed));
  for (const { text } of [...first, ...drips]) expect(text()).toStartWith("HTTP/1.1 408 ");
  expect(app.accepted).toBe(3);
});

test("a caller that waits for 100 Continue is not waited for", async () => {
  const app = rawServer({
    data: (socket, text) => {
      const done = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
      socket.write(text.includes("Expect") ? "HTTP/1.1 100 Continue\r\n\r\n" : done);
    },
  });
  const { web } = slowMesh(app.port);
  const expecting =
    "POST / HTTP/1.1\r\nHost: app\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
  const one = slow(web.outbound, expecting);
  expect(await eventually(() => one.text().includes("100 Continue"))).toBe(true);
  one.socket.write("ok");
  expect(await eventually(() => one.text().includes("200 OK"))).toBe(true);
  one.socket.destroy();
});

test("while others wait for a connection, whoever holds one and hardly moves is given up", async () => {
  const port = serve(async (request) => new Response(await request.text()));
  const plane = newPlane({ tickMs: 20 });
  const web = plane.workload("web");
  web.snapshot.set(snapshotOf([plainApp([port], { maxConnections: 4 })]));
  const chunked = "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
  const holders = Array.from({ length: 4 }, () => slow(web.outbound, chunked));
  await eventually(() => web.local.upstreams.destination(targetOf(web, "app")).active === 4);
  await Bun.sleep(15 * 20);
  expect(holders.map(({ text }) => text())).toEqual(["", "", "", ""]);
  const answer = await fetch(web.url, {
    headers: { host: "app" },
    signal: AbortSignal.timeout(3000),
  });
  expect(answer.status).toBe(200);
  // As many as are in the way, and no more.
  await eventually(() => holders.some(({ text }) => text() !== ""));
  const told = holders.map(({ text }) => text()).filter((text) => text !== "");
  expect(told).toHaveLength(1);
  expect(told[0]).toStartWith("HTTP/1.1 408 ");
  for (const { socket } of holders) socket.destroy();
});

test("slow readers make way when too much waits for them, now and then", async () => {
  const chunk = Buffer.alloc(64 * 1024);
  const port = serve((request) =>
    request.url.endsWith("/big")
      ? new Response(new ReadableStream({ pull: (to) => to.enqueue(chunk) }))
      : new Response("ok"),
  );
  let clock = 1000;
  const plane = newPlane({ pendingMax: 100_000, now: () => clock, tickMs: 60_000 });
  const web = plane.workload("web");
  const opaque = { service: "opaque", port: 81, protocol: "tcp" as const };
  const ports = { "81": port };
  web.snapshot.set(snapshotOf([plainApp([port]), { ...opaque, endpoints: [{ ports }] }]));
  const tcp = plane.plane.listenUpstream(
    web.local,
    { namespace: "default", service: "opaque" },
    "127.0.0.1",
    0,
  );
  const get = () => fetch(web.url, { headers: { host: "app" } });
  expect((await get()).status).toBe(200);
  const read = () =>
    Array.from({ length: 4 }, () => {
      const reader = slow(web.outbound, "GET /big HTTP/1.1\r\nHost: app\r\n\r\n");
      reader.socket.once("data", () => reader.socket.pause());
      return reader;
    });
  const readers = read();
  expect(await eventually(() => pendingBytes() > 100_000)).toBe(true);
  expect((await get()).status).toBe(200);
  expect(pendingBytes()).toBeLessThanOrEqual(100_000);
  const more = read();
  expect(await eventually(() => pendingBytes() > 100_000)).toBe(true);
  const refused = await get();
  expect([refused.status, await refused.text()]).toEqual([
    503,
    "overflow: this proxy holds too much for slow receivers\n",
  ]);
  expect((await talk(tcp, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").heard).text).toBe("");
  clock += 100;
  expect((await get()).status).toBe(200);
  for (const { socket } of [...readers, ...more]) socket.destroy();
  expect(await eventually(() => pendingBytes() === 0)).toBe(true);
  expect((await get()).status).toBe(200);
});

test("connections for which most is held go first when it is too much", async () => {
  const chunk = Buffer.alloc(64 * 1024);
  const port = serve((request) =>
    request.url.endsWith("/big")
      ? new Response(new ReadableStream({ pull: (to) => to.enqueue(chunk) }))
      : new Response("ok"),
  );
  const plane = newPlane({ tickMs: 20, pendingMax: 2_000_000 });
  const web = plane.workload("web");
  web.snapshot.set(snapshotOf([plainApp([port])]));
  const kept = slow(web.outbound, "GET / HTTP/1.1\r\nHost: app\r\n\r\n");
  const readers = Array.from({ length: 30 }, () => {
    const reader = slow(web.outbound, "GET /big HTTP/1.1\r\nHost: app\r\n\r\n");
    reader.socket.once("data", () => reader.socket.pause());
    return reader;
  });
  const shed = () => Number(/^weft_connections_shed_total (.+)/m.exec(plane.metrics.render())?.[1]);
  expect(await eventually(() => shed() > 0)).toBe(true);
  expect(await eventually(() => pendingBytes() <= 2_000_000)).toBe(true);
  expect(kept.socket.closed).toBe(false);
  const answer = await fetch(web.url, { headers: { host: "app" } });
  expect(answer.status).toBe(200);
  for (const { socket } of [kept, ...readers]) socket.destroy();
});

test("an application that takes no body is a timeout, and one that is slow to answer is not", async () => {
  const deaf = rawServer({ open: (socket) => void socket.pause() });
  const late = rawServer({
    data: async (socket, text) => {
      if (!text.startsWith("GET")) return;
      await Bun.sleep(400 * TICK_MS);
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    },
  });
  const { web } = slowMesh(late.port);
  web.snapshot.set(
    snapshotOf([
      { ...plainApp([deaf.port]), service: "deaf" },
      { ...plainApp([late.port]), service: "late" },
    ]),
  );
  const size = 64 * 1024 * 1024;
  const sender = connect(web.outbound, "127.0.0.1");
  let heard = "";
  sender.on("data", (chunk) => {
    heard += chunk.toString("latin1");
  });
  sender.on("error", () => {});
  const closed = new Promise((resolve) => sender.on("close", resolve));
  sender.write(`POST / HTTP/1.1\r\nHost: deaf\r\nContent-Length: ${size}\r\n\r\n`);
  sender.write(Buffer.alloc(size));
  const answer = await fetch(web.url, { headers: { host: "late" } });
  expect(await answer.text()).toBe("late");
  await closed;
  expect(heard).toStartWith("HTTP/1.1 504 ");
  expect(heard).toContain("timeout: hardly anything moved for too long");
  expect(await eventually(() => deaf.open === 0)).toBe(true);
}, 15_000);

test("an idle caller of the mesh is closed, an idle application of our own is not", async () => {
  const { plane, web } = slowMesh(1);
  const context = tlsContext({ ...authority.issue("web"), ca: [authority.root] });
  const tls = { context, serverName: "p80.cart.default.weft.test", alpn: "http/1.1" };
  const own = talk(web.outbound, "");
  const closed = new Promise<string>((resolve, reject) => {
    const handler: ConnectionHandler = {
      data() {},
      end: (c) => c.close(),
      drain() {},
      close: () => resolve("closed"),
    };
    dial({ host: "127.0.0.1", port: plane.meshPort, tls, timeoutMs: 3000 }, () => handler, reject);
  });
  expect(await closed).toBe("closed");
  expect(plane.metrics.render()).toMatch(/connections_ended_total\{.*cart",reason="idle"\} 1\n/);
  expect(own.socket.closed).toBe(false);
  own.socket.destroy();
});
