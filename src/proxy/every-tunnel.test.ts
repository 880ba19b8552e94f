/** Every way to a tunnel: each byte arrives whoever ends first, and afterwards nothing is left. */
import { afterAll, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { createServer as createTls } from "node:tls";
import { callbackErrors } from "../net/boundary.ts";
import { testAuthority } from "../net/certificates.fixture.ts";
import { pendingBytes } from "../net/connection.ts";
import { caller, eventually, newPlane, roomLeft, stopAll, targetOf } from "./servers.fixture.ts";

const servers: Server[] = [];
afterAll(() => {
  stopAll();
  for (const server of servers) server.close();
});

/** Short connections in the last tests, each, and how many at once. */
const SHORT = Number(process.env["SHORT_CONNECTIONS"] ?? 60);
const AT_ONCE = 30;

function started(server: Server): Promise<number> {
  servers.push(server);
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", 4096, () => resolve((server.address() as { port: number }).port));
  });
}

/** A small generator with a seed, so that a failure can be seen again. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** The ways of a caller to a tunnel. */
const WAYS = ["opaque", "detected", "CONNECT", "server name", "origination"] as const;
type Way = (typeof WAYS)[number];

const ca = testAuthority("outside");
const own = ca.flawed("app", { names: "DNS:app.outside" });

/** A ClientHello that names `shop`; to the application behind it these are bytes like all others. */
function hello(): Buffer {
  const u16 = (n: number) => [n >> 8, n & 255];
  const name = Buffer.from("shop");
  const list = [...u16(name.length + 3), 0, ...u16(name.length), ...name];
  const extensions = [0, 0, ...u16(list.length), ...list];
  const head = [3, 3, ...Array(32).fill(7), 0, 0, 2, 0x13, 1, 1, 0];
  const body = [...head, ...u16(extensions.length), ...extensions];
  const message = [1, 0, ...u16(body.length), ...body];
  return Buffer.from([22, 3, 1, ...u16(message.length), ...message]);
}

const CONNECT = Buffer.from("CONNECT raw:80 HTTP/1.1\r\nHost: raw:80\r\n\r\n");
const ESTABLISHED = "HTTP/1.1 200 Connection Established\r\n\r\n";
const HELLO = hello();

/** Two proxies, and behind them the same application in four dresses. */
async function reach(manner: (socket: Socket) => void) {
  const port = await started(createServer({ allowHalfOpen: true }, manner));
  const keys = { cert: own.cert, key: own.key, allowHalfOpen: true };
  const secure = createTls(keys, manner).on("tlsClientError", () => {});
  const securePort = await started(secure);
  const near = newPlane({ descriptors: 20_000 });
  const far = newPlane({ descriptors: 20_000 });
  const app = { servicePort: 80, host: "127.0.0.1", port };
  const apps = [
    far.workload("raw", [{ ...app, protocol: "tcp" }]).local,
    far.workload("shop", [{ ...app, protocol: "tls" }]).local,
    far.workload("any", [app]).local,
  ];
  const states = [near.workload("idle").local.state, apps[0]!.state];
  const tls = { sni: "app.outside", ca: ca.root, names: [], verify: true };
  const behind = (service: string) => ({ service, port: 80, endpoints: [far.endpoint(service)] });
  const web = caller(near, [
    { ...behind("raw"), protocol: "tcp" },
    { ...behind("shop"), protocol: "tls" },
    { ...behind("any"), detect: true },
    {
      ...behind("out"),
      protocol: "tcp",
      policy: { tls },
      endpoints: [{ ports: { "80": securePort } }],
    },
  ]);
  const upstream = (service: string) =>
    near.plane.listenUpstream(web.local, { namespace: "default", service }, "127.0.0.1", 0);
  const ports: Record<Way, number> = {
    opaque: upstream("raw"),
    detected: upstream("any"),
    CONNECT: web.outbound,
    "server name": web.outbound,
    origination: upstream("out"),
  };
  const open = (way: Way) => {
    const socket = connect({ host: "127.0.0.1", port: ports[way], allowHalfOpen: true });
    if (way === "CONNECT") socket.write(CONNECT);
    if (way === "server name") socket.write(HELLO);
    return socket;
  };
  /** What would be left of tunnels that are over. */
  const left = () => {
    const destinations = ["raw", "shop", "any", "out"].map((service) =>
      web.local.upstreams.destination(targetOf(web, service)),
    );
    const behind = apps.flatMap((local) => [...local.apps.values()].map((it) => it.endpoint));
    const dialled = destinations.flatMap((it) => it.endpoints());
    const all = [...behind, ...dialled, ...destinations];
    return {
      active: all.reduce((sum, { active }) => sum + active, 0),
      budget: destinations.reduce((sum, { budget }) => sum + budget.active, 0),
      open: states.map(({ open }) => open.size),
      room: states.flatMap(({ rooms }) => Object.values(rooms).map(roomLeft)),
      pending: pendingBytes(),
      errors: [...callbackErrors().values()].reduce((a, b) => a + b, 0),
    };
  };
  return { near, far, open, left, appPort: port };
}

/** Reads to the end, pausing now and then. */
function readAll(socket: Socket, random: () => number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  return new Promise((resolve, reject) => {
    socket.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      if (random() > 0.2) return;
      socket.pause();
      setTimeout(() => socket.resume(), 3 * random());
    });
    socket.on("end", () => resolve(Buffer.concat(chunks)));
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("closed before its end")));
  });
}

/** As large pieces and small ones. */
async function writeAll(socket: Socket, bytes: Buffer, random: () => number): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + Math.floor(random() * random() * 300_000);
    const piece = bytes.subarray(at, at + size);
    at += size;
    if (!socket.write(piece)) await new Promise((resolve) => socket.once("drain", resolve));
  }
  socket.end();
}

/** Bytes that no HTTP request begins with. */
function noise(size: number, seed: number): Buffer {
  const bytes = Buffer.alloc(size);
  const random = seeded(seed);
  for (let at = 0; at < Math.min(size, 65_536); at++) bytes[at] = random() * 256;
  for (let at = 65_536; at < size; at *= 2) bytes.copyWithin(at, 0, at);
  if (size > 0) bytes[0] = 0xff;
  if (size > 70_000) bytes[size - 1] = 0x42;
  return bytes;
}

const KB = 1024;
const SIZES = [0, 1, 16 * KB - 1, 16 * KB, 16 * KB + 1, 64 * KB - 1, 64 * KB + 1, 1500 * KB];
const ORDERS = ["caller", "application"] as const;

async function exchange(
  way: Way,
  first: (typeof ORDERS)[number],
  forth: Buffer,
  back: Buffer,
  open: (way: Way) => Socket,
  seed: number,
): Promise<string> {
  const random = seeded(seed);
  const socket = open(way);
  const reading = readAll(socket, random);
  reading.catch(() => {});
  if (first === "application") await reading;
  await writeAll(socket, forth, random);
  const heard = await reading;
  const expected = way === "CONNECT" ? Buffer.concat([Buffer.from(ESTABLISHED), back]) : back;
  return heard.equals(expected) ? "right" : `${heard.length} instead of ${expected.length}`;
}

test.each(WAYS.flatMap((way) => ORDERS.map((first) => [way, first] as const)))(
  "%s, the %s ends first: every byte both ways",
  async (way, first) => {
    const back = SIZES.map((size, i) => noise(size, 100 + i));
    const forth = SIZES.map((size, i) => noise(size, 200 + i));
    const got: Promise<Buffer>[] = [];
    let serving = 0;
    const { near, far, open } = await reach((socket) => {
      const i = serving;
      const random = seeded(i);
      const reading = readAll(socket, random);
      got.push(reading);
      if (first === "application") void writeAll(socket, back[i]!, random);
      else reading.then(() => writeAll(socket, back[i]!, random)).catch(() => {});
    });
    const told: string[] = [];
    const prefix = way === "server name" ? HELLO : Buffer.alloc(0);
    for (; serving < SIZES.length; serving++) {
      told.push(await exchange(way, first, forth[serving]!, back[serving]!, open, serving));
      const received = await got[serving]!;
      told.push(received.equals(Buffer.concat([prefix, forth[serving]!])) ? "right" : "wrong");
    }
    expect(told).toEqual(Array(2 * SIZES.length).fill("right"));
    expect(await eventually(() => near.plane.active + far.plane.active === 0)).toBe(true);
  },
  30_000,
);

test("200 tunnels at once, of every kind: each gets its own bytes", async () => {
  const { near, far, open } = await reach((socket) => void socket.pipe(socket));
  const one = async (i: number) => {
    const way = WAYS[i % WAYS.length]!;
    const bytes = noise(1000 + 500 * i, i);
    const echoed = way === "server name" ? Buffer.concat([HELLO, bytes]) : bytes;
    return exchange(way, "caller", bytes, echoed, open, i);
  };
  const told = await Promise.all(Array.from({ length: 200 }, (_, i) => one(i)));
  expect(told.filter((it) => it !== "right")).toEqual([]);
  expect(await eventually(() => near.plane.active + far.plane.active === 0)).toBe(true);
}, 20_000);

/** How the application treats a connection. */
const MANNERS: Readonly<Record<string, (socket: Socket) => void>> = {
  echoes: (socket) => socket.pipe(socket),
  greets: (socket) => void socket.write("220 hello\r\n", () => socket.pipe(socket)),
  resets: (socket) => socket.resetAndDestroy(),
  "resets after bytes": (socket) => socket.once("data", () => socket.resetAndDestroy()),
  ends: (socket) => void socket.end(),
  "reads nothing": (socket) => void setTimeout(() => socket.destroy(), 20),
};

/** How a caller leaves, some of them while its endpoint is dialled. */
const LEAVINGS: readonly ((socket: Socket) => void)[] = [
  (socket) => socket.end(),
  (socket) => socket.destroy(),
  (socket) => socket.resetAndDestroy(),
  (socket) => socket.write("hello", () => socket.end()),
  (socket) => socket.write("hello", () => socket.resetAndDestroy()),
  (socket) => setTimeout(() => socket.resetAndDestroy(), 2),
  (socket) => socket.once("data", () => socket.end()).write("hello"),
  (socket) => socket.once("data", () => socket.resetAndDestroy()).write("G"),
  (socket) => socket.write(Buffer.alloc(200_000), () => socket.end()),
];

const descriptors = () => readdirSync("/proc/self/fd").length;

test.each(Object.keys(MANNERS))(
  "an application that %s: nothing is left of any tunnel, however its caller leaves",
  async (manner) => {
    const { open, left } = await reach((socket) => {
      socket.on("error", () => {});
      socket.on("end", () => socket.end());
      if (manner !== "reads nothing") socket.resume();
      MANNERS[manner]!(socket);
    });
    const one = (i: number) =>
      new Promise<void>((resolve) => {
        const socket = open(WAYS[i % WAYS.length]!);
        const patience = setTimeout(() => socket.destroy(), 300);
        socket.on("error", () => {});
        socket.on("close", () => {
          clearTimeout(patience);
          resolve();
        });
        socket.on("data", () => {});
        socket.on("end", () => socket.end());
        socket.on("connect", () => LEAVINGS[i % LEAVINGS.length]!(socket));
      });
    await one(0);
    await Bun.sleep(50);
    const [before, descriptorsBefore] = [left(), descriptors()];
    let next = 1;
    const caller = async () => {
      while (next <= SHORT) await one(next++);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, caller));
    await eventually(() => Bun.deepEquals(left(), before) && descriptors() <= descriptorsBefore);
    expect(left()).toEqual(before);
    expect(descriptors()).toBeLessThanOrEqual(descriptorsBefore);
  },
  120_000,
);
