import { afterAll, expect, test } from "bun:test";
import { connect as netConnect } from "node:net";
import { dial } from "../net/dial.ts";
import { tlsContext } from "../net/tls.ts";
import { authority, rawTalk, snapshotOf, svidOf, TestPlane } from "./mesh.fixture.ts";

const stops: (() => void)[] = [];

afterAll(() => {
  for (const stop of stops) stop();
});

function newPlane(): TestPlane {
  const plane = new TestPlane();
  stops.push(() => plane.plane.stop());
  return plane;
}

function serve(fetch: (request: Request) => Response | Promise<Response>): number {
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch });
  stops.push(() => void server.stop(true));
  return server.port ?? 0;
}

/** A server that treats each connection by hand. */
function rawServer(data: (socket: Bun.Socket, text: string, connection: number) => void): number {
  let connections = 0;
  const numbers = new WeakMap<object, number>();
  const server = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        numbers.set(socket, connections++);
      },
      data(socket, chunk) {
        data(socket as Bun.Socket, chunk.toString("latin1"), numbers.get(socket) ?? -1);
      },
    },
  });
  stops.push(() => server.stop(true));
  return server.port;
}

const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

test("a dead instance is not noticed: body and all go to another", async () => {
  const plane = newPlane();
  const port = serve(async (request) => new Response(await request.text()));
  plane.workload("cart", [{ servicePort: 80, host: "127.0.0.1", port }]);
  const gone = newPlane();
  gone.workload("cart", [{ servicePort: 80, host: "127.0.0.1", port: 1 }]);
  const web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([
      {
        service: "cart",
        port: 80,
        policy: { balancer: "round_robin" },
        endpoints: [
          plane.endpoint("cart"),
          // One whose application is away, and one where nobody listens.
          { ...plane.endpoint("cart"), meshPort: gone.meshPort },
          { ...plane.endpoint("cart"), meshPort: 1 },
        ],
      },
    ]),
  );
  for (let i = 0; i < 12; i++) {
    const answer = await fetch(web.url, {
      method: "POST",
      headers: { host: "cart" },
      body: `body ${i}`,
    });
    expect(`${answer.status} ${await answer.text()}`).toBe(`200 body ${i}`);
  }
  expect(plane.metrics.render()).toContain('reason="app_unreachable"');
});

test("a kept connection that closes under a request is replaced for GET, reported for POST", async () => {
  const plane = newPlane();
  // The first request of each connection is answered, the second meets a closing connection.
  const requests = new Map<number, number>();
  const port = rawServer((socket, _text, connection) => {
    const count = (requests.get(connection) ?? 0) + 1;
    requests.set(connection, count);
    if (count === 1) socket.write(OK);
    else socket.terminate();
  });
  const web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([{ service: "app", port: 80, endpoints: [{ ports: { "80": port } }] }]),
  );
  const ask = (method: string) =>
    fetch(web.url, { method, headers: { host: "app" } }).then(({ status }) => status);
  expect(await ask("GET")).toBe(200);
  expect(await ask("GET")).toBe(200);
  expect(await ask("POST")).toBe(503);
  expect(requests.size).toBe(2);
});

test("bytes nobody asked for end a kept connection and reach nobody", async () => {
  const plane = newPlane();
  let connections = 0;
  const port = rawServer((socket, _text, connection) => {
    connections = connection + 1;
    socket.write(OK);
    if (connection === 0)
      setTimeout(() => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"), 10);
  });
  const web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([{ service: "app", port: 80, endpoints: [{ ports: { "80": port } }] }]),
  );
  const ask = async () => (await fetch(web.url, { headers: { host: "app" } })).text();
  expect(await ask()).toBe("ok");
  await Bun.sleep(40);
  expect(await ask()).toBe("ok");
  expect(connections).toBe(2);
});

test.each([
  ["an invalid head", "HTTP/1.1 2000 OK\r\n\r\n", 502, "upstream_invalid"],
  [
    "two lengths",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    502,
    "upstream_invalid",
  ],
  [
    "a 101 nobody asked for",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    502,
    "upstream_invalid",
  ],
])("%s from an application is %s %d", async (_name, text, status, reason) => {
  const plane = newPlane();
  const port = rawServer((socket) => void socket.write(text));
  const web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([{ service: "app", port: 80, endpoints: [{ ports: { "80": port } }] }]),
  );
  const answer = await fetch(web.url, { headers: { host: "app" } });
  expect(answer.status).toBe(status);
  expect(await answer.text()).toStartWith(reason);
});

test("an answer that breaks off is broken off, not completed", async () => {
  const plane = newPlane();
  const port = rawServer((socket) => {
    socket.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
    setTimeout(() => socket.terminate(), 10);
  });
  const web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([{ service: "app", port: 80, endpoints: [{ ports: { "80": port } }] }]),
  );
  const answer = await fetch(web.url, { headers: { host: "app" } });
  await expect(answer.text()).rejects.toThrow();
});

test("an answer before the whole body is passed on, and the connection closes", async () => {
  const plane = newPlane();
  const port = rawServer((socket, text) => {
    if (text.startsWith("POST"))
      socket.write("HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno");
  });
  const web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([{ service: "app", port: 80, endpoints: [{ ports: { "80": port } }] }]),
  );
  const text = await rawTalk(
    web.outbound,
    "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 1000000\r\n\r\nabc",
    2000,
  );
  expect(text).toStartWith("HTTP/1.1 413 Too Much\r\n");
  expect(text).toEndWith("\r\n\r\nno");
});

test("an upgrade becomes a tunnel; early bytes wait for the 101", async () => {
  const plane = newPlane();
  const heard: string[] = [];
  const port = rawServer((socket, text) => {
    heard.push(text);
    if (text.startsWith("GET")) {
      setTimeout(() => {
        socket.write(
          "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhi",
        );
      }, 20);
    } else socket.write(text.toUpperCase());
  });
  plane.workload("ws", [{ servicePort: 80, host: "127.0.0.1", port }]);
  const web = plane.workload("web");
  web.snapshot.set(snapshotOf([{ service: "ws", port: 80, endpoints: [plane.endpoint("ws")] }]));
  const text = await rawTalk(
    web.outbound,
    "GET / HTTP/1.1\r\nHost: ws\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly",
  );
  expect(text).toStartWith("HTTP/1.1 101 Switching Protocols\r\n");
  expect(text).toEndWith("\r\n\r\nhiEARLY");
  expect(heard[0]).toEndWith("\r\n\r\n");
});

test("a refused upgrade closes: the early bytes are no request", async () => {
  const plane = newPlane();
  let requests = 0;
  const port = serve(() => {
    requests++;
    return new Response("no", { status: 403 });
  });
  const web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([{ service: "app", port: 80, endpoints: [{ ports: { "80": port } }] }]),
  );
  const text = await rawTalk(
    web.outbound,
    "GET / HTTP/1.1\r\nHost: app\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n" +
      "GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n",
  );
  expect(text.match(/HTTP\/1.1 \d+/g)).toEqual(["HTTP/1.1 403"]);
  expect(requests).toBe(1);
});

test("a weighted split is exact, and keeps its place over a new snapshot", async () => {
  const plane = newPlane();
  const ports = ["v1", "v2"].map((name) => serve(() => new Response(name)));
  const web = plane.workload("web");
  const backend = (subset: string, weight: number) => ({
    ...{ namespace: "default", service: "app", port: 80, subset, weight },
  });
  const snapshot = () =>
    snapshotOf([
      {
        service: "app",
        port: 80,
        subsets: ["v1", "v2"].map((name) => ({ name, labels: { version: name } })),
        endpoints: ports.map((port, i) => ({
          ports: { "80": port },
          labels: { version: `v${i + 1}` },
        })),
        routes: {
          matches: [
            {
              ...{ hostnames: [], path: { type: "prefix", value: "/" }, headers: [], query: [] },
              rule: 0,
            },
          ],
          rules: [{ name: "default/r#0", backends: [backend("v1", 90), backend("v2", 10)] }],
        },
      },
    ]);
  const tally: Record<string, number> = {};
  for (let i = 0; i < 100; i++) {
    if (i % 7 === 0) web.snapshot.set(snapshot());
    const name = await (await fetch(web.url, { headers: { host: "app" } })).text();
    tally[name] = (tally[name] ?? 0) + 1;
  }
  expect(tally).toEqual({ v1: 90, v2: 10 });
});

test("a new certificate is used for the next connection; kept ones of the old are not", async () => {
  const plane = newPlane();
  plane.workload("cart", [
    { servicePort: 80, host: "127.0.0.1", port: serve(() => new Response("ok")) },
  ]);
  const web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([{ service: "cart", port: 80, endpoints: [plane.endpoint("cart")] }]),
  );
  const ask = async () => (await fetch(web.url, { headers: { host: "cart" } })).status;
  const connections = () =>
    Number(
      /weft_connections_total\{direction="inbound",workload="default\/cart"\} (\d+)/.exec(
        plane.metrics.render(),
      )?.[1],
    );
  expect([await ask(), await ask()]).toEqual([200, 200]);
  expect(connections()).toBe(1);
  web.identity.set(svidOf(authority.issue("web")));
  expect([await ask(), await ask()]).toEqual([200, 200]);
  expect(connections()).toBe(2);
});

test("a caller of the mesh with a strange name is turned away and counted", async () => {
  const plane = newPlane();
  plane.workload("cart", [{ servicePort: 80, host: "127.0.0.1", port: 1 }]);
  const { cert, key } = authority.issue("web");
  const context = tlsContext({ cert, key, ca: [authority.root] });
  const outcome = await new Promise<string>((resolve) => {
    dial(
      {
        host: "127.0.0.1",
        port: plane.meshPort,
        tls: { context, serverName: "p81.cart.default.weft.test", alpn: "http/1.1" },
        timeoutMs: 1000,
      },
      (c) => {
        resolve("opened");
        return { data() {}, end: () => c.close(), drain() {}, close() {} };
      },
      () => resolve("refused"),
    );
  });
  expect(outcome).toBe("refused");
  expect(plane.metrics.render()).toContain(
    'weft_handshakes_refused_total{reason="unknown_server_name"} 1',
  );
});

test("hosts outside are refused by default, and never lead back to this host", async () => {
  const plane = newPlane();
  const web = plane.workload("web");
  const ask = (host: string) =>
    rawTalk(web.outbound, `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`, 100);
  expect(await ask("a.b.example")).toContain("a.b.example is not a service of the mesh");
  web.snapshot.set(snapshotOf([], { outbound: "ALLOW_ANY" }));
  for (const host of [
    "127.0.0.1:22",
    "[::1]:22",
    "169.254.169.254",
    "0.0.0.0",
    "[::ffff:127.0.0.1]",
  ]) {
    expect(await ask(host)).toContain("is an address of this host");
  }
});

test("draining: answers close, what is under way finishes, new callers are refused", async () => {
  const plane = newPlane();
  const port = serve(async () => {
    await Bun.sleep(150);
    return new Response("done");
  });
  plane.workload("cart", [{ servicePort: 80, host: "127.0.0.1", port }]);
  const caller = newPlane();
  const web = caller.workload("web");
  web.snapshot.set(
    snapshotOf([{ service: "cart", port: 80, endpoints: [plane.endpoint("cart")] }]),
  );
  const ask = () => fetch(web.url, { headers: { host: "cart" } });
  const first = ask();
  await Bun.sleep(50);
  const drained = plane.plane.drain(20, 5000);
  expect(await (await first).text()).toBe("done");
  await drained;
  expect((await ask()).status).toBe(503);
});

test("a slow reader pauses the application", async () => {
  const plane = newPlane();
  let sent = 0;
  const port = serve(
    () =>
      new Response(
        new ReadableStream({
          async pull(controller) {
            sent += 65_536;
            controller.enqueue(Buffer.alloc(65_536));
            await Bun.sleep(0);
            if (sent > 200_000_000) controller.close();
          },
        }),
      ),
  );
  const web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([{ service: "app", port: 80, endpoints: [{ ports: { "80": port } }] }]),
  );
  const socket = netConnect({ host: "127.0.0.1", port: web.outbound });
  socket.write("GET / HTTP/1.1\r\nHost: app\r\n\r\n");
  socket.pause();
  await Bun.sleep(700);
  const before = sent;
  await Bun.sleep(200);
  expect(sent).toBe(before);
  expect(sent).toBeLessThan(60_000_000);
  socket.destroy();
});

test("a connection that waited for a slow reader serves the next request", async () => {
  const plane = newPlane();
  const size = 8_000_000;
  const piece = `3e8\r\n${"x".repeat(1000)}\r\n`;
  const body = Buffer.from(`${piece.repeat(size / 1000)}0\r\n\r\n`);
  let connections = 0;
  const port = rawServer((socket, _text, connection) => {
    connections = connection + 1;
    socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    const feed = (from: number) => {
      const sent = socket.write(body.subarray(from, from + 400_000));
      if (from + sent < body.length) setTimeout(() => feed(from + sent), 0);
    };
    feed(0);
  });
  const web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([{ service: "app", port: 80, endpoints: [{ ports: { "80": port } }] }]),
  );
  const socket = netConnect({ host: "127.0.0.1", port: web.outbound });
  for (let round = 0; round < 3; round++) {
    let received = 0;
    const whole = Promise.withResolvers<void>();
    const listen = (chunk: Buffer) => {
      received += chunk.length;
      socket.pause();
      setTimeout(() => socket.resume(), 1);
      if (received >= size) whole.resolve();
    };
    socket.on("data", listen);
    socket.write("GET / HTTP/1.1\r\nHost: app\r\n\r\n");
    await whole.promise;
    await Bun.sleep(20);
    socket.off("data", listen);
  }
  expect(connections).toBe(1);
  socket.destroy();
}, 20_000);

test("a caller that reads no answers gets no more of its requests served", async () => {
  let served = 0;
  const port = rawServer((socket, text) => {
    const requests = text.split("GET ").length - 1;
    served += requests;
    const body = "x".repeat(4096);
    const answer = `HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n${body}`;
    socket.write(answer.repeat(requests));
  });
  const plane = newPlane();
  const web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([{ service: "cart", port: 80, endpoints: [{ ports: { 80: port } }] }]),
  );
  const socket = netConnect(web.outbound, "127.0.0.1");
  socket.pause();
  const total = 20_000;
  socket.write("GET / HTTP/1.1\r\nHost: cart\r\n\r\n".repeat(total));
  let before = -1;
  while (before !== served) {
    before = served;
    await Bun.sleep(400);
  }
  // 80 MB of answers would be waiting otherwise; the sockets hold a few.
  expect(served).toBeLessThan(total / 2);
  let bytes = 0;
  socket.on("data", (chunk) => {
    bytes += chunk.length;
  });
  socket.resume();
  const deadline = performance.now() + 10_000;
  while (served < total && performance.now() < deadline) await Bun.sleep(20);
  expect(served).toBe(total);
  while (bytes < total * 4096 && performance.now() < deadline) await Bun.sleep(20);
  socket.destroy();
  expect(bytes).toBeGreaterThan(total * 4096);
}, 20_000);

test("a switch of protocols before the request's end is no tunnel", async () => {
  const port = rawServer((socket) => {
    socket.write("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
  });
  const plane = newPlane();
  const web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([{ service: "cart", port: 80, endpoints: [{ ports: { 80: port } }] }]),
  );
  const head = "POST / HTTP/1.1\r\nHost: cart\r\nConnection: upgrade\r\nUpgrade: x\r\n";
  const answer = await rawTalk(web.outbound, `${head}Content-Length: 9\r\n\r\nabc`);
  expect(answer).toStartWith("HTTP/1.1 502 ");
});

test("two instances of one service behind one mesh port both serve", async () => {
  const plane = newPlane();
  for (const name of ["a", "b"]) {
    const port = serve(() => new Response(name));
    plane.workload("cart", [{ servicePort: 80, host: "127.0.0.1", port }]);
  }
  const web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([{ service: "cart", port: 80, endpoints: [plane.endpoint("cart")] }]),
  );
  const seen = await Promise.all(
    Array.from({ length: 8 }, async () =>
      (await fetch(web.url, { headers: { host: "cart" } })).text(),
    ),
  );
  expect([...new Set(seen)].sort()).toEqual(["a", "b"]);
});
