import { afterAll, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { connect as netConnect, type Socket } from "node:net";
import { callbackErrors } from "../net/boundary.ts";
import { type ServiceSpec, snapshotOf, type TestPlane, type TestWorkload } from "./mesh.fixture.ts";
import {
  eventually,
  newPlane,
  type RawHandlers,
  rawServer,
  stopAll,
  targetOf,
} from "./servers.fixture.ts";

afterAll(stopAll);

/** How often each caller or application goes away. */
const TIMES = Number(process.env["WEFT_TEST_ABORTS"] ?? "60");
const IN_FLIGHT = 20;

const descriptors = () => readdirSync("/proc/self/fd").length;
const thrown = () => [...callbackErrors().values()].reduce((a, b) => a + b, 0);

interface Mesh {
  readonly plane: TestPlane;
  readonly web: TestWorkload;
  readonly app: TestWorkload;
}

/** `web` calls `app` over two hops. */
function mesh(app: RawHandlers, policy: ServiceSpec["policy"] = {}, tcp = false): Mesh {
  const plane = newPlane();
  const { port } = rawServer(app);
  const protocol = tcp ? "tcp" : "http";
  const behind = plane.workload("app", [{ servicePort: 80, host: "127.0.0.1", port, protocol }]);
  const web = plane.workload("web");
  const service: ServiceSpec = {
    ...{ service: "app", port: 80, protocol, policy, endpoints: [plane.endpoint("app")] },
  };
  web.snapshot.set(snapshotOf([service]));
  return { plane, web, app: behind };
}

/** Sends `text`, calls `then` after a while, resolves when the connection is closed. */
function visit(port: number, text: string, then: (socket: Socket, i: number) => void, i: number) {
  return new Promise<void>((resolve) => {
    const socket = netConnect({ host: "127.0.0.1", port });
    socket.on("error", () => {});
    socket.on("close", () => resolve());
    socket.resume();
    socket.write(text, () => setTimeout(() => then(socket, i), i % 4));
  });
}

const reset = (socket: Socket) => void socket.resetAndDestroy();
/** Half of them say goodbye, half do not. */
const leave = (socket: Socket, i: number) => (i % 2 === 0 ? reset(socket) : void socket.destroy());
const stay = () => {};

async function many(port: number, text: string, then: (socket: Socket, i: number) => void) {
  let next = 0;
  const one = async () => {
    while (next < TIMES) await visit(port, text, then, next++);
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, one));
}

/** Nothing is counted as under way, kept for nobody, or open any more. */
async function settled({ plane, web, app }: Mesh, before: number): Promise<void> {
  const destination = web.local.upstreams.destination(targetOf(web, "app"));
  const endpoints = () => [
    ...destination.endpoints(),
    ...[...app.local.apps.values()].map(({ endpoint }) => endpoint),
  ];
  const counts = () => ({
    requests: plane.plane.active,
    active: destination.active,
    budget: destination.budget.active,
    endpoints: endpoints().map((endpoint) => endpoint.active),
    sockets: Math.max(0, descriptors() - before),
  });
  await eventually(() => plane.plane.active === 0 && destination.active === 0);
  // A dial given up ends as a kept connection.
  await eventually(() => {
    for (const endpoint of endpoints()) endpoint.closeIdle();
    return descriptors() <= before;
  });
  expect(counts()).toEqual({
    ...{ requests: 0, active: 0, budget: 0, endpoints: endpoints().map(() => 0), sockets: 0 },
  });
}

const GET = "GET / HTTP/1.1\r\nHost: app\r\n\r\n";
const POST = "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 1000000\r\n\r\n";
const CHUNKED = "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3";
const PART = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\npart";
const FULL = { maxConnections: 2, maxPending: 4 };
const RETRIES = {
  ...{ attempts: 3, on: ["reset"] as const, codes: [], backoffMs: 20 },
  ...{ budgetPercent: 100, budgetMinConcurrency: 100 },
};

const silent: RawHandlers = {};
const streams: RawHandlers = {
  data(socket) {
    socket.write(PART);
    const feed = () => {
      if (socket.readyState > 0 && socket.write(Buffer.alloc(65_536)) >= 0) setTimeout(feed, 1);
    };
    feed();
  },
};

test.each<[string, RawHandlers, string, ServiceSpec["policy"]]>([
  ["in its head", silent, GET.slice(0, 20), {}],
  ["in its body", silent, `${POST}part`, {}],
  ["in a chunk", silent, CHUNKED, {}],
  ["in a body that is not read", silent, POST + "x".repeat(500_000), {}],
  ["waiting for an answer", silent, GET, {}],
  ["in an answer", streams, GET, {}],
  ["waiting for its turn", silent, GET, FULL],
  ["between two attempts", { data: (s) => void s.terminate() }, GET, { retries: RETRIES }],
  ["with requests behind it", silent, GET.repeat(20), {}],
])(
  "callers that go away %s leave nothing",
  async (_name, app, text, policy) => {
    const errors = thrown();
    const it = mesh(app, policy);
    const base = descriptors();
    await many(it.web.outbound, text, leave);
    await settled(it, base);
    expect(thrown()).toBe(errors);
  },
  30_000,
);

test.each<[string, RawHandlers, string]>([
  ["at once", { open: (s) => void s.terminate() }, GET],
  ["in a head's answer", { data: (s) => void s.end("HTTP/1.1 200 O") }, GET],
  ["in a body", { data: (s) => void s.terminate() }, `${POST}part`],
  ["before its answer", { data: (s) => void s.end() }, GET],
  [
    "in its answer",
    {
      data(s) {
        s.write(PART);
        setTimeout(() => s.terminate(), 2);
      },
    },
    GET,
  ],
])(
  "applications that go away %s leave nothing",
  async (_name, app, text) => {
    const errors = thrown();
    const it = mesh(app, { retries: RETRIES });
    const base = descriptors();
    await many(it.web.outbound, text, (socket) => void setTimeout(() => socket.destroy(), 50));
    await settled(it, base);
    expect(thrown()).toBe(errors);
  },
  60_000,
);

test.each<[string, RawHandlers, (socket: Socket, i: number) => void]>([
  ["callers", streams, leave],
  ["callers in silence", silent, leave],
  ["applications", { data: (s, _t, i) => void (i % 2 === 0 ? s.terminate() : s.end()) }, stay],
])(
  "tunnels whose %s go away leave nothing",
  async (_name, app, then) => {
    const errors = thrown();
    const it = mesh(app, {}, true);
    const service = { namespace: "default", service: "app" };
    const port = it.plane.plane.listenUpstream(it.web.local, service, "127.0.0.1", 0);
    const base = descriptors();
    await many(port, "hello", then);
    await many(it.web.outbound, "CONNECT app:80 HTTP/1.1\r\nHost: app:80\r\n\r\nhello", then);
    await settled(it, base);
    expect(thrown()).toBe(errors);
  },
  30_000,
);
