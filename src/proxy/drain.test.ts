import { afterAll, expect, test } from "bun:test";
import { connect as netConnect } from "node:net";
import { callbackErrors } from "../net/boundary.ts";
import { Exchange } from "./exchange.ts";
import {
  caller,
  eventually,
  newPlane,
  plainApp,
  rawServer,
  serve,
  stopAll,
  talk,
} from "./servers.fixture.ts";

afterAll(stopAll);

const GET = "GET / HTTP/1.1\r\nHost: app\r\n\r\n";

test("a drain lets a slow reader have the rest of an answer that is complete already", async () => {
  const plane = newPlane();
  const size = 6_000_000;
  const web = caller(plane, [plainApp([serve(() => new Response("x".repeat(size)))])]);
  const socket = netConnect({ host: "127.0.0.1", port: web.outbound });
  let bytes = 0;
  let failed = "";
  let ended = false;
  socket.on("data", (chunk) => {
    bytes += chunk.length;
    socket.pause();
    setTimeout(() => socket.resume(), 1);
  });
  socket.on("end", () => (ended = true));
  socket.on("error", (error: Error & { code?: string }) => {
    failed = error.code ?? "error";
  });
  socket.write(GET);
  await eventually(() => bytes > 500_000);
  await plane.plane.drain(10, 20_000);
  await eventually(() => ended || failed !== "", 10_000);
  expect({ whole: bytes > size, failed }).toEqual({ whole: true, failed: "" });
}, 30_000);

test("a request whose head is still arriving is served by a proxy that drains", async () => {
  const plane = newPlane();
  const web = caller(plane, [plainApp([serve(() => new Response("ok"))])]);
  const { socket, heard } = talk(web.outbound, GET.slice(0, 20));
  await Bun.sleep(20);
  const drained = plane.plane.drain(10, 5000);
  await Bun.sleep(60);
  socket.write(GET.slice(20));
  const { text } = await heard;
  expect(text).toStartWith("HTTP/1.1 200 OK\r\n");
  expect(text.toLowerCase()).toContain("connection: close\r\n");
  expect(text).toEndWith("ok");
  await drained;
});

test("a drain ends at once when nothing is under way, and at its limit otherwise", async () => {
  const idle = newPlane();
  const one = caller(idle, [plainApp([serve(() => new Response("ok"))])]);
  await (await fetch(one.url, { headers: { host: "app" } })).text();
  const started = performance.now();
  await idle.plane.drain(10, 5000);
  expect(performance.now() - started).toBeLessThan(1500);
  const busy = newPlane();
  const other = caller(busy, [plainApp([rawServer({}).port])]);
  const { heard } = talk(other.outbound, GET);
  await Bun.sleep(20);
  await busy.plane.drain(10, 200);
  expect((await heard).error).toBe("ECONNRESET");
});

test("an exception over one connection does not keep the others from their end", async () => {
  const plane = newPlane();
  const web = caller(plane, [plainApp([rawServer({}).port])]);
  const talks = [0, 1, 2].map(() => talk(web.outbound, GET));
  await eventually(() => plane.plane.active === 3);
  const before = callbackErrors().get("shut") ?? 0;
  const { shut } = Exchange.prototype;
  let calls = 0;
  Exchange.prototype.shut = function (force) {
    if (++calls === 1) throw new Error("a bug");
    shut.call(this, force);
  };
  await plane.plane.drain(0, 50);
  Exchange.prototype.shut = shut;
  const heard = await Promise.all(talks.map((one) => one.heard));
  expect(heard.map(({ error }) => error)).toEqual(Array(3).fill("ECONNRESET"));
  expect(callbackErrors().get("shut")).toBe(before + 1);
});
