/**
 * Bytes through two proxies, both ways at once, exact to the last: readers that pause as they like,
 * the end of one direction before the other. WEFT_LONG=1: 1 GB each way, otherwise 48 MB.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { type Sidecar, TestMesh, takePorts } from "../harness/mesh.ts";

const SIZE = process.env["WEFT_LONG"] === "1" ? 1024 ** 3 : 48 * 1024 ** 2;
const CHUNK = 64 * 1024;
/** What a proxy may hold on to for a slow reader, beside what it needs anyway. */
const HELD_MAX_MB = 48;

let mesh: TestMesh;
let web: Sidecar;
let app: Server;
const upstream = takePorts(1);
/** What the application's side of the connection at hand does. */
let serve: (socket: Socket) => void = () => {};

/** Every chunk differs, so that bytes lost, doubled or out of place show. */
function chunkAt(seed: number, index: number): Buffer {
  const chunk = Buffer.alloc(CHUNK, (seed + index) & 255);
  for (let at = 0; at < CHUNK; at += 4096)
    chunk.writeUInt32LE((seed ^ (index * 31 + at)) >>> 0, at);
  return chunk;
}

async function send(socket: Socket, seed: number): Promise<void> {
  for (let index = 0; index < SIZE / CHUNK; index++) {
    if (socket.write(chunkAt(seed, index))) continue;
    await new Promise((resolve) => socket.once("drain", resolve));
  }
  socket.end();
}

/** Reads to the peer's FIN, with a pause now and then. The number of bytes that were right. */
function receive(socket: Socket, seed: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  let right = 0;
  let expected = chunkAt(seed, 0);
  socket.on("data", (data: Buffer) => {
    for (let at = 0; at < data.length; ) {
      const within = right % CHUNK;
      if (within === 0) expected = chunkAt(seed, right / CHUNK);
      const length = Math.min(CHUNK - within, data.length - at);
      if (expected.compare(data, at, at + length, within, within + length) !== 0) {
        reject(new Error(`wrong bytes after ${right}`));
        socket.destroy();
        return;
      }
      right += length;
      at += length;
    }
    if (Math.random() < 0.01) {
      socket.pause();
      setTimeout(() => socket.resume(), Math.random() * 20);
    }
  });
  socket.on("end", () => resolve(right));
  socket.on("error", reject);
  return promise;
}

function peakMegabytes({ pid }: { readonly pid: number }): number {
  return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
}

beforeAll(async () => {
  mesh = await TestMesh.start();
  app = createServer({ allowHalfOpen: true }, (socket) => serve(socket));
  const port: number = await new Promise((resolve) => {
    app.listen(0, "127.0.0.1", () => resolve((app.address() as { port: number }).port));
  });
  // A health check would be a connection like any other to this application.
  const args = ["--health=none"];
  await mesh.sidecar({ service: "bytes", app: [`9000=${port}/tcp`], args });
  web = await mesh.sidecar({ service: "web", upstream: [`bytes:${upstream}`] });
}, 60_000);

afterAll(async () => {
  app?.close();
  await mesh?.stop();
});

function dial(): Socket {
  return connect({ host: "127.0.0.1", port: upstream, allowHalfOpen: true });
}

test("both directions at once, byte for byte", async () => {
  const before = peakMegabytes(web);
  const server = Promise.withResolvers<number>();
  serve = (socket) => {
    receive(socket, 7).then(server.resolve, server.reject);
    send(socket, 11);
  };
  const socket = dial();
  const client = receive(socket, 11);
  const started = performance.now();
  await send(socket, 7);
  expect(await server.promise).toBe(SIZE);
  expect(await client).toBe(SIZE);
  const seconds = (performance.now() - started) / 1000;
  const held = peakMegabytes(web) - before;
  console.log(
    `${(SIZE / 1e6).toFixed(0)} MB each way in ${seconds.toFixed(1)} s, ` +
      `the caller's proxy at most ${held.toFixed(0)} MB above its start`,
  );
  expect(held).toBeLessThan(HELD_MAX_MB);
}, 180_000);

test("the caller ends first, the application answers afterwards", async () => {
  serve = (socket) => {
    receive(socket, 3).then(
      () => send(socket, 5),
      () => socket.destroy(),
    );
  };
  const socket = dial();
  const client = receive(socket, 5);
  await send(socket, 3);
  expect(await client).toBe(SIZE);
}, 180_000);

test("the application ends first, the caller goes on", async () => {
  const server = Promise.withResolvers<number>();
  serve = (socket) => {
    receive(socket, 3).then(server.resolve, server.reject);
    send(socket, 5);
  };
  const socket = dial();
  expect(await receive(socket, 5)).toBe(SIZE);
  await send(socket, 3);
  expect(await server.promise).toBe(SIZE);
}, 180_000);
