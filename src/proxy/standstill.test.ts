/** Slow read of opaque connections: bytes that nobody takes end them; silence does not. */
import { afterAll, expect, test } from "bun:test";
import { connect } from "node:net";
import { pendingBytes } from "../net/connection.ts";
import {
  caller,
  eventually,
  newPlane,
  plainApp,
  type RawHandlers,
  rawServer,
  stopAll,
  talk,
} from "./servers.fixture.ts";
import { Standstill } from "./standstill.ts";

afterAll(stopAll);

/** Three hundred of them are five minutes. */
const TICK_MS = 4;
const MANY = Buffer.alloc(24 * 1024 * 1024);

/** Sends as fast as it is taken. */
function flood(socket: Bun.Socket): void {
  const more = setInterval(() => {
    if (socket.write(MANY) < 0) clearInterval(more);
  }, 5);
}

/** A proxy with an opaque port that leads to `app`, at a clock that runs fast. */
function opaque(handlers: RawHandlers) {
  const plane = newPlane({ tickMs: TICK_MS });
  const app = rawServer(handlers);
  const endpoints = [{ ports: { "80": app.port } }];
  const web = caller(plane, [{ service: "app", port: 80, protocol: "tcp", endpoints }]);
  const service = { namespace: "default", service: "app" };
  const port = plane.plane.listenUpstream(web.local, service, "127.0.0.1", 0);
  const ended = () =>
    Number(/tcp_connections_total\{.*reason="timeout".* (\d+)/.exec(plane.metrics.render())?.[1]);
  return { plane, app, port, ended };
}

test("slow read: an application that takes nothing resets its caller, a quiet one is left alone", async () => {
  const { plane, app, port, ended } = opaque({
    data: (socket, text) => void (text === "quiet" ? socket.write("yes") : socket.pause()),
  });
  const quiet = talk(port, "quiet");
  const socket = connect({ host: "127.0.0.1", port, allowHalfOpen: true });
  let error = "";
  socket.on("error", (cause: Error & { code?: string }) => {
    error = cause.code ?? "error";
  });
  socket.write(MANY);
  socket.end();
  expect(await eventually(() => ended() === 1, 5000)).toBe(true);
  expect(await eventually(() => error !== "")).toBe(true);
  expect(await eventually(() => app.open === 1)).toBe(true);
  await Bun.sleep(320 * TICK_MS);
  expect([plane.plane.active, quiet.socket.closed, ended()]).toEqual([1, false, 1]);
  quiet.socket.destroy();
});

test("slow read: a caller that takes nothing is reset, whatever it sends meanwhile", async () => {
  const { plane, app, port, ended } = opaque({ open: flood });
  const { socket } = talk(port, "");
  socket.once("data", () => socket.pause());
  const chatter = setInterval(() => socket.writable && socket.write("x".repeat(1000)), 20);
  expect(await eventually(() => ended() === 1, 5000)).toBe(true);
  expect(await eventually(() => app.open === 0)).toBe(true);
  expect([plane.plane.active, pendingBytes()]).toEqual([0, 0]);
  clearInterval(chatter);
  socket.destroy();
});

test("slow read: a switched connection of which the caller takes nothing is reset", async () => {
  const plane = newPlane({ tickMs: TICK_MS });
  const upgrade = "Connection: upgrade\r\nUpgrade: echo\r\n\r\n";
  const app = rawServer({
    data(socket) {
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${upgrade}`);
      flood(socket);
    },
  });
  const web = caller(plane, [plainApp([app.port])]);
  const { socket } = talk(web.outbound, `GET / HTTP/1.1\r\nHost: app\r\n${upgrade}`);
  socket.once("data", () => socket.pause());
  expect(await eventually(() => app.open === 1)).toBe(true);
  expect(await eventually(() => app.open === 0, 5000)).toBe(true);
  expect(plane.metrics.render()).toMatch(/requests_total\{.*code="101",reason="timeout"\} 1/);
  expect(await eventually(() => plane.plane.active === 0)).toBe(true);
  socket.destroy();
});

test("bytes that wait are no standstill while half a kilobyte moves in five minutes", () => {
  const still = new Standstill();
  let passed = 100_000;
  for (let second = 0; second < 3000; second++) {
    if (second % 290 === 0) passed += 512;
    expect(still.tooLong(passed, 50_000, true, false, false)).toBe(false);
  }
  for (let second = 0; second < 299 - (3000 % 290); second++) {
    expect(still.tooLong(passed, 50_000, true, false, false)).toBe(false);
  }
  for (let second = 0; second < 300; second++) still.tooLong(passed, 50_000, true, false, false);
  expect(still.tooLong(passed, 50_000, true, false, false)).toBe(true);
});
