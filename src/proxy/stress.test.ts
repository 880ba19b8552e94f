import { afterAll, expect, test } from "bun:test";
import { callbackErrors } from "../net/boundary.ts";
import { snapshotOf, TestPlane } from "./mesh.fixture.ts";

const plane = new TestPlane();
const app = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  async fetch(request) {
    const url = new URL(request.url);
    const size = Number(url.searchParams.get("size") ?? "0");
    if (url.pathname === "/slow") await Bun.sleep(20);
    const body = await request.bytes();
    return new Response(size > 0 ? Buffer.alloc(size, "z") : body);
  },
});

/** Breaks off in the middle of its answers, and sometimes before. */
const breaker = Bun.listen({
  hostname: "127.0.0.1",
  port: 0,
  socket: {
    data(socket, chunk) {
      if (chunk.length % 3 === 0) socket.terminate();
      else socket.end("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
    },
  },
});

afterAll(() => {
  breaker.stop(true);
  plane.plane.stop();
  app.stop(true);
});

/** A small generator with a seed, so that a failure can be seen again. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1664525 + 1013904223) >>> 0;
    return state / 0x100000000;
  };
}

test("whatever callers and applications do, nothing stays counted as under way", async () => {
  plane.workload("cart", [{ servicePort: 80, host: "127.0.0.1", port: app.port ?? 0 }]);
  plane.workload("broken", [{ servicePort: 80, host: "127.0.0.1", port: breaker.port }]);
  const web = plane.workload("web");
  const snapshot = snapshotOf([
    {
      service: "cart",
      port: 80,
      policy: { maxConnections: 16, maxPending: 64, requestTimeoutMs: 500 },
      endpoints: [plane.endpoint("cart"), { ...plane.endpoint("cart"), meshPort: 1 }],
    },
    { service: "broken", port: 80, endpoints: [plane.endpoint("broken")] },
  ]);
  web.snapshot.set(snapshot);
  const errorsBefore = [...callbackErrors().values()].reduce((a, b) => a + b, 0);
  const random = seeded(7);
  const statuses = new Map<string, number>();
  const one = async (i: number) => {
    const kind = Math.floor(random() * 6);
    const aborting = random() < 0.3;
    const size = Math.floor(random() * 300_000);
    const body = `${i} `.repeat(Math.floor(random() * 20_000));
    const init: RequestInit = { headers: { host: kind === 5 ? "broken" : "cart" } };
    if (aborting) init.signal = AbortSignal.timeout(1 + Math.floor(random() * 20));
    if (kind >= 3) {
      init.method = "POST";
      init.body = kind === 3 ? body : (new Response(body).body as ReadableStream);
    }
    const path = ["/", `/?size=${size}`, "/slow", "/", "/", "/"][kind];
    try {
      const answer = await fetch(`${web.url}${path}`, init);
      const text = await answer.text();
      if (answer.status === 200 && (kind === 3 || kind === 4)) expect(text === body).toBe(true);
      if (answer.status === 200 && kind === 1) expect(text.length).toBe(size);
      statuses.set(String(answer.status), (statuses.get(String(answer.status)) ?? 0) + 1);
    } catch (error) {
      if (error instanceof Error && error.name === "ExpectationFailed") throw error;
      statuses.set("failed", (statuses.get("failed") ?? 0) + 1);
    }
  };
  let next = 0;
  const caller = async () => {
    while (next < 1500) await one(next++);
  };
  await Promise.all(Array.from({ length: 40 }, caller));
  await Bun.sleep(700);
  expect(statuses.get("200") ?? 0).toBeGreaterThan(700);
  expect(plane.plane.active).toBe(0);
  const target = snapshot.services.get("default/cart")?.ports.get(80)?.target;
  const destination = web.local.upstreams.destination(target!);
  expect(destination.active).toBe(0);
  expect(destination.budget.active).toBe(0);
  for (const endpoint of destination.endpoints()) expect(endpoint.active).toBe(0);
  for (const local of web.local.apps.values()) expect(local.endpoint.active).toBe(0);
  const errorsAfter = [...callbackErrors().values()].reduce((a, b) => a + b, 0);
  expect(errorsAfter).toBe(errorsBefore);
  expect((await fetch(web.url, { headers: { host: "cart" } })).status).toBe(200);
}, 30_000);
