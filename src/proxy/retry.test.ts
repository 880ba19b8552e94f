import { afterAll, expect, test } from "bun:test";
import { connect as netConnect } from "node:net";
import {
  caller,
  eventually,
  newPlane,
  plainApp,
  type RawServer,
  rawServer,
  serve,
  stopAll,
  targetOf,
} from "./servers.fixture.ts";

afterAll(stopAll);

const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const RESETS = { retries: { ...retries(), on: ["connect_failure", "reset"] as const } };

function retries() {
  return {
    ...{ attempts: 2, on: ["connect_failure", "refused_stream", "app_unreachable"] as const },
    ...{ codes: [], backoffMs: 1, budgetPercent: 20, budgetMinConcurrency: 3 },
  };
}

/** Resets when the request is there. */
const resetAfterRequest = () => rawServer({ data: (socket) => void socket.terminate() });
/** Resets in the middle of its answer. */
const resetInAnswer = () =>
  rawServer({
    data(socket) {
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
      setTimeout(() => socket.terminate(), 5);
    },
  });
const closeAfterRequest = () => rawServer({ data: (socket) => void socket.end() });
/** Never answers. */
const silent = () => rawServer({});

async function outcome(url: string, method: string, body?: string): Promise<string> {
  try {
    const init = { method, headers: { host: "app" }, ...(body === undefined ? {} : { body }) };
    const answer = await fetch(url, init);
    return `${answer.status} ${(await answer.text()).split(":")[0]?.slice(0, 20)}`;
  } catch {
    return "broken off";
  }
}

const rows: readonly (readonly [name: string, server: () => RawServer, says: string])[] = [
  ["a reset after the request", resetAfterRequest, "503 upstream_reset"],
  ["a reset in the answer", resetInAnswer, "broken off"],
  ["a close after the request", closeAfterRequest, "503 upstream_reset"],
];

for (const [name, server, says] of rows) {
  test(`${name}: not retried by default`, async () => {
    const plane = newPlane();
    const bad = server();
    const web = caller(plane, [plainApp([bad.port])]);
    expect(await outcome(web.url, "GET")).toBe(says);
    expect(await outcome(web.url, "POST", "x")).toBe(says);
    expect(bad.accepted).toBe(2);
    const text = plane.metrics.render();
    expect(text).toMatch(/weft_requests_total\{.*reason="upstream_reset".*\} 2/);
    expect(text).not.toMatch(/weft_retries_total\{.*\} [1-9]/);
  });

  test(`${name}: with \`reset\` retried for GET, never for POST`, async () => {
    const plane = newPlane();
    const bad = server();
    const web = caller(plane, [plainApp([bad.port], RESETS)]);
    expect(await outcome(web.url, "POST", "x")).toBe(says);
    expect(bad.accepted).toBe(1);
    expect(await outcome(web.url, "GET")).toBe(says);
    expect(bad.accepted).toBe(says === "broken off" ? 2 : 4);
  });
}

test("a full backlog is given up after the connect timeout, and another instance serves", async () => {
  // A listener that accepts nothing: one queued connection, further SYNs are dropped.
  const code =
    "import socket,time;s=socket.socket();s.bind(('127.0.0.1',0));s.listen(0);p=s.getsockname()[1];" +
    "c=[socket.socket() for _ in range(3)];[x.setblocking(0) or x.connect_ex(('127.0.0.1',p)) for x in c];" +
    "print(p,flush=True);time.sleep(20)";
  const child = Bun.spawn(["python3", "-c", code], { stdout: "pipe" });
  try {
    const { value } = await child.stdout.getReader().read();
    const hole = Number(Buffer.from(value ?? []).toString());
    const plane = newPlane();
    const good = serve(async (request) => new Response(await request.text()));
    const policy = { balancer: "round_robin", connectTimeoutMs: 100 } as const;
    const web = caller(plane, [plainApp([hole, good], policy)]);
    for (let i = 0; i < 4; i++) expect(await outcome(web.url, "POST", "body")).toBe("200 body");
    const only = caller(plane, [plainApp([hole], policy)]);
    expect(await outcome(only.url, "GET")).toBe("503 connect_failed");
  } finally {
    child.kill();
  }
});

test("a body is sent again within 64 KiB, and not beyond", async () => {
  const plane = newPlane();
  const bodies: number[] = [];
  const good = serve(async (request) => {
    bodies.push((await request.bytes()).length);
    return new Response("ok");
  });
  const web = caller(plane, [plainApp([1, good], { balancer: "round_robin" })]);
  // Refused before anything was sent: whatever its size, nothing is lost yet.
  for (const size of [1, 65_536, 65_537, 3_000_000]) {
    for (let i = 0; i < 2; i++) {
      expect(await outcome(web.url, "PUT", "x".repeat(size))).toBe("200 ok");
    }
    expect(bodies.splice(0)).toEqual([size, size]);
  }
  const bad = rawServer({
    data(socket, text) {
      if (text.includes("end")) socket.terminate();
    },
  });
  const other = caller(plane, [plainApp([bad.port], RESETS)]);
  expect(await outcome(other.url, "PUT", `${"x".repeat(60_000)}end`)).toBe("503 upstream_reset");
  expect(bad.accepted).toBe(3);
  expect(await outcome(other.url, "PUT", `${"x".repeat(70_000)}end`)).toBe("503 upstream_reset");
  expect(bad.accepted).toBe(4);
});

test.each([100, 20])("%i callers in an outage: attempts stay within the budget", async (count) => {
  const plane = newPlane();
  const bad = rawServer({ data: (socket) => void setTimeout(() => socket.terminate(), 3) });
  const web = caller(plane, [plainApp([bad.port], RESETS)]);
  let requests = 0;
  const end = performance.now() + 400;
  const one = async () => {
    while (performance.now() < end) {
      requests++;
      expect(await outcome(web.url, "GET")).toBe("503 upstream_reset");
    }
  };
  await Promise.all(Array.from({ length: count }, one));
  expect(bad.accepted / requests).toBeLessThan(1.21);
});

test("per-try timeout: one attempt each, another only where the policy says so", async () => {
  const plane = newPlane();
  const bad = silent();
  const once = caller(plane, [plainApp([bad.port], { perTryTimeoutMs: 30 })]);
  expect(await outcome(once.url, "GET")).toBe("504 timeout");
  expect(bad.accepted).toBe(1);
  const twice = caller(plane, [plainApp([bad.port], { ...RESETS, perTryTimeoutMs: 30 })]);
  expect(await outcome(twice.url, "POST", "x")).toBe("504 timeout");
  expect(bad.accepted).toBe(2);
  expect(await outcome(twice.url, "GET")).toBe("504 timeout");
  expect(bad.accepted).toBe(5);
  // The whole request's time ends it between two attempts, too.
  const whole = caller(plane, [
    plainApp([bad.port], { ...RESETS, perTryTimeoutMs: 40, requestTimeoutMs: 60 }),
  ]);
  const started = performance.now();
  expect(await outcome(whole.url, "GET")).toBe("504 timeout");
  expect(performance.now() - started).toBeGreaterThan(55);
  expect(bad.accepted).toBe(7);
  expect(await eventually(() => bad.open === 0)).toBe(true);
});

test("kept connections that all die at once cost a GET nothing", async () => {
  const plane = newPlane();
  let deadly = false;
  const app = rawServer({
    data(socket) {
      if (deadly && kept.has(socket)) socket.terminate();
      else {
        kept.add(socket);
        setTimeout(() => socket.write(OK), 5);
      }
    },
  });
  const kept = new Set<Bun.Socket>();
  const web = caller(plane, [plainApp([app.port])]);
  await Promise.all(Array.from({ length: 8 }, () => outcome(web.url, "GET")));
  expect(app.accepted).toBe(8);
  deadly = true;
  expect(await outcome(web.url, "GET")).toBe("200 ok");
});

test("what a dead connection never took is sent elsewhere, whatever the method", async () => {
  const plane = newPlane();
  const kept: Bun.Socket[] = [];
  const app = rawServer({
    data(socket) {
      kept.push(socket);
      socket.write(OK);
    },
  });
  const web = caller(plane, [plainApp([app.port])]);
  const socket = netConnect({ host: "127.0.0.1", port: web.outbound });
  let heard = "";
  socket.on("data", (chunk) => {
    heard += chunk.toString("latin1");
  });
  const post = "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 4\r\n\r\n";
  socket.write(`${post}body`);
  await eventually(() => heard.endsWith("ok"));
  heard = "";
  // The head is here, so the connection is taken; it dies while the proxy cannot notice.
  const { local } = web;
  const [endpoint] = local.upstreams.destination(targetOf(web, "app")).endpoints();
  expect(endpoint?.idle).toBe(1);
  const client = endpoint!.take(performance.now())!;
  endpoint!.put(client, performance.now(), 10_000);
  const { connection } = client;
  const original = connection.writeFramed.bind(connection);
  connection.writeFramed = (...args) => {
    kept[0]!.terminate();
    return original(...args);
  };
  socket.write(`${post}body`);
  expect(await eventually(() => heard.endsWith("ok"))).toBe(true);
  expect(app.accepted).toBe(2);
  socket.destroy();
});
