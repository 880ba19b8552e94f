/** One caller of the mesh takes what it can: there is room for the others all the same. */
import { afterAll, expect, test } from "bun:test";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import { dial } from "../net/dial.ts";
import { tlsContext } from "../net/tls.ts";
import { authority, snapshotOf, type TestPlane, type TestWorkload } from "./mesh.fixture.ts";
import { eventually, newPlane, rawServer, stopAll, talk } from "./servers.fixture.ts";

afterAll(stopAll);

const DESCRIPTORS = 94;
/** Seven of eight, rounded up. */
const SHARE = 83;

const greedy = tlsContext({ ...authority.issue("greedy"), ca: [authority.root] });

interface Caller {
  text: string;
  closed: boolean;
  connection: Connection | undefined;
}

/** A caller that the mesh knows as `greedy`, or as whose `context` it is. */
function call(port: number, service: string, alpn: string, text: string, context = greedy): Caller {
  const state: Caller = { text: "", closed: false, connection: undefined };
  const handler: ConnectionHandler = {
    data: (_, chunk) => {
      state.text += Buffer.from(chunk).toString("latin1");
    },
    end: (c) => c.close(),
    drain() {},
    close: () => {
      state.closed = true;
    },
  };
  const tls = { context, serverName: `p80.${service}.default.weft.test`, alpn };
  dial(
    { host: "127.0.0.1", port, tls, timeoutMs: 5000 },
    (c) => {
      state.connection = c;
      c.write(Buffer.from(text));
      return handler;
    },
    () => {
      state.closed = true;
    },
  );
  return state;
}

function close(callers: readonly Caller[]): void {
  for (const { connection } of callers) connection?.destroy();
}

const handshakes = (plane: TestPlane) =>
  Number(/refused_total\{reason="source"\} (.+)/.exec(plane.metrics.render())?.[1] ?? 0);

/** `cart` behind a small proxy, and `web`, who calls it from a proxy of its own. */
function mesh(app: number): { readonly far: TestPlane; readonly web: TestWorkload } {
  const far = newPlane({ descriptors: DESCRIPTORS });
  far.workload("cart", [{ servicePort: 80, host: "127.0.0.1", port: app }]);
  const near = newPlane();
  const web = near.workload("web");
  web.snapshot.set(snapshotOf([{ service: "cart", port: 80, endpoints: [far.endpoint("cart")] }]));
  return { far, web };
}

const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET = "GET / HTTP/1.1\r\nHost: cart\r\n\r\n";

test("connections per source: one identity cannot take all of the mesh port's", async () => {
  const app = rawServer({ data: (socket) => void socket.write(OK) });
  const { far, web } = mesh(app.port);
  const callers: Caller[] = [];
  for (let batch = 0; batch < 6; batch++) {
    for (let n = 0; n < 20; n++) callers.push(call(far.meshPort, "cart", "http/1.1", ""));
    const known = () => callers.every((one) => one.closed || one.connection !== undefined);
    expect(await eventually(known)).toBe(true);
  }
  const open = () => callers.filter((one) => !one.closed).length;
  expect(await eventually(() => open() <= SHARE)).toBe(true);
  expect(open()).toBeGreaterThan(70);
  expect(handshakes(far)).toBeGreaterThan(0);
  for (let n = 0; n < 3; n++) {
    const answer = await fetch(web.url, { headers: { host: "cart" } });
    expect([answer.status, await answer.text()]).toEqual([200, "ok"]);
  }
  close(callers);
});

test("connections per source: whoever has too many at one instance is served by another", async () => {
  const app = rawServer({ data: (socket) => void socket.write(OK) });
  const { far } = mesh(app.port);
  const { far: second } = mesh(app.port);
  const web = newPlane().workload("web");
  const endpoints = [far.endpoint("cart"), second.endpoint("cart")];
  // One connection each, so that every request finds its own instance.
  const policy = { idleTimeoutMs: 1 };
  web.snapshot.set(snapshotOf([{ service: "cart", port: 80, policy, endpoints }]));
  const context = tlsContext({ ...authority.issue("web"), ca: [authority.root] });
  const held: Caller[] = [];
  while (held.every((one) => !one.closed)) {
    const one = call(far.meshPort, "cart", "http/1.1", "", context);
    held.push(one);
    expect(await eventually(() => one.closed || one.connection !== undefined)).toBe(true);
    if (held.length >= SHARE) await Bun.sleep(20);
  }
  expect(held).toHaveLength(SHARE + 1);
  const before = handshakes(far);
  for (let n = 0; n < 200 && handshakes(far) === before; n++) {
    await Bun.sleep(10);
    const answer = await fetch(web.url, { method: "POST", body: "a", headers: { host: "cart" } });
    expect([answer.status, await answer.text()]).toEqual([200, "ok"]);
  }
  expect(handshakes(far)).toBeGreaterThan(before);
  close(held);
});

test("connections per source: half a handshake counts as its address's", async () => {
  const app = rawServer({ data: (socket) => void socket.write(OK) });
  const { far, web } = mesh(app.port);
  const silent = Array.from({ length: 120 }, () => talk(far.meshPort, "\x16", "127.0.0.2"));
  expect(
    await eventually(() => silent.filter(({ socket }) => !socket.closed).length === SHARE),
  ).toBe(true);
  const answer = await fetch(web.url, { headers: { host: "cart" } });
  expect([answer.status, await answer.text()]).toEqual([200, "ok"]);
  expect(far.metrics.render()).toContain(
    `weft_connections_refused_total{direction="inbound"} ${120 - SHARE}\n`,
  );
  for (const { socket } of silent) socket.destroy();
});

test("requests per source: with all its connections busy others are served", async () => {
  const app = rawServer({
    data: (socket, text) => {
      if (!text.includes("/late")) socket.write(OK);
    },
  });
  const { far, web } = mesh(app.port);
  const late = GET.replace("/", "/late");
  const idle = Array.from({ length: 70 }, () => call(far.meshPort, "cart", "http/1.1", ""));
  expect(await eventually(() => idle.every((one) => one.connection !== undefined), 8000)).toBe(
    true,
  );
  for (const { connection } of idle) connection?.write(Buffer.from(late));
  expect(await eventually(() => idle.some((one) => one.text !== "" && one.closed))).toBe(true);
  await Bun.sleep(50);
  const refused = idle.filter((one) => one.text !== "");
  for (const { text } of refused) {
    expect(text).toStartWith("HTTP/1.1 503 ");
    expect(text).toContain("\r\nweft-reason: overflow\r\n");
  }
  expect(await eventually(() => refused.every((one) => one.closed))).toBe(true);
  // A connection and the application's for each that is left.
  expect(2 * (idle.length - refused.length)).toBeLessThanOrEqual(SHARE);
  expect(far.metrics.render()).toMatch(/requests_total\{.*source="default\/greedy".*"overflow"/);
  const answer = await fetch(web.url, { headers: { host: "cart" } });
  expect(answer.status).toBe(200);
  close(idle);
  expect(await eventually(() => far.plane.active === 0)).toBe(true);
  const again = call(far.meshPort, "cart", "http/1.1", GET);
  expect(await eventually(() => again.text.endsWith("ok"))).toBe(true);
  close([again]);
});

test("connections per source: opaque ones count as requests do, and are reset", async () => {
  const app = rawServer({ data: (socket) => void socket.write("hi") });
  const { far } = mesh(app.port);
  const callers = Array.from({ length: 80 }, () => call(far.meshPort, "cart", "weft-tcp", "hi"));
  const done = () => callers.every((one) => one.closed || one.text === "hi");
  expect(await eventually(done, 8000)).toBe(true);
  const served = callers.filter((one) => one.text === "hi");
  expect(served.length).toBeGreaterThan(30);
  expect(2 * served.length).toBeLessThanOrEqual(SHARE);
  close(callers);
  expect(await eventually(() => far.plane.active === 0)).toBe(true);
});

test("connections per source: callers in plaintext count as their address", async () => {
  const app = rawServer({ data: (socket) => void socket.write(OK) });
  const far = newPlane({ descriptors: DESCRIPTORS });
  const apps = [{ servicePort: 80, host: "127.0.0.1", port: app.port }];
  const ports = [{ port: 80, protocol: "http" as const, permissive: true as const }];
  const inbound = { namespace: "default", service: "cart", ports };
  far.workload("cart", apps, { ...snapshotOf([], {}, "cart"), inbound });
  const crowd = Array.from({ length: 120 }, () => talk(far.meshPort, GET, "127.0.0.2"));
  let answered = 0;
  for (const { socket } of crowd) socket.once("data", () => answered++);
  expect(await eventually(() => answered > 0)).toBe(true);
  const open = () => crowd.filter(({ socket }) => !socket.closed).length;
  expect(await eventually(() => open() <= SHARE)).toBe(true);
  const other = talk(far.meshPort, GET, "127.0.0.3");
  const text = new Promise<string>((resolve) =>
    other.socket.once("data", (chunk) => resolve(chunk.toString("latin1"))),
  );
  expect(await text).toBe(OK);
  for (const { socket } of [...crowd, other]) socket.destroy();
});

test("connections per source: workloads of a node leave room for each other, one alone has all", async () => {
  const app = rawServer({ data: (socket) => void socket.write(OK) });
  const plane = newPlane({ descriptors: DESCRIPTORS });
  const endpoints = [{ ports: { "80": app.port } }];
  const cart = snapshotOf([{ service: "cart", port: 80, endpoints }]);
  const greedy = plane.workload("greedy", [], cart);
  const crowded = async (places: number) => {
    const crowd = Array.from({ length: 120 }, () => talk(greedy.outbound, ""));
    const inside = () => crowd.filter(({ socket }) => !socket.closed).length;
    expect(await eventually(() => inside() === places)).toBe(true);
    return async () => {
      for (const { socket } of crowd) socket.destroy();
      const empty = () => !plane.metrics.render().includes("weft_connections_active{");
      expect(await eventually(empty)).toBe(true);
    };
  };
  await (await crowded(86))();
  const web = plane.workload("web", [], cart);
  const leaveNode = await crowded(SHARE);
  const answer = await fetch(web.url, { headers: { host: "cart" } });
  expect([answer.status, await answer.text()]).toEqual([200, "ok"]);
  await leaveNode();
});
