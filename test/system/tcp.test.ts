/** Opaque TCP through two proxies: a real redis, bulk bytes, half-close in either order. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { connect, createServer, type Server } from "node:net";
import { metrics, run, type Sidecar, TestMesh, takePorts, until } from "../harness/mesh.ts";
import { echo } from "../harness/servers.ts";

let mesh: TestMesh;
let web: Sidecar;
let sink: Server;
const redisPort = takePorts(1);
const redisUpstream = takePorts(1);
const bytesUpstream = takePorts(1);
let bytesPort = 0;

/** Counts what it gets; on the peer's FIN answers the count and as many bytes back. */
function counting(): Server {
  return createServer({ allowHalfOpen: true }, (socket) => {
    let bytes = 0;
    socket.on("data", (chunk) => {
      bytes += chunk.length;
    });
    socket.on("end", () => socket.end(`${bytes}\n${"y".repeat(bytes)}`));
    socket.on("error", () => socket.destroy());
  });
}

beforeAll(async () => {
  mesh = await TestMesh.start();
  mesh.spawn(["redis-server", "--port", String(redisPort), "--save", "", "--bind", "127.0.0.1"]);
  sink = counting();
  bytesPort = await new Promise((resolve) => {
    sink.listen(0, "127.0.0.1", () => resolve((sink.address() as { port: number }).port));
  });
  await mesh.sidecar({ service: "redis", app: [`6379=${redisPort}/tcp`] });
  await mesh.sidecar({ service: "bytes", app: [`9000=${bytesPort}/tcp`] });
  web = await mesh.sidecar({
    service: "web",
    upstream: [`redis:${redisUpstream}`, `bytes:${bytesUpstream}`],
  });
}, 60_000);

afterAll(async () => {
  sink?.close();
  await mesh?.stop();
});

test("redis-cli works through an upstream port", async () => {
  const redis = (...args: string[]) =>
    run(["redis-cli", "-h", "127.0.0.1", "-p", String(redisUpstream), ...args]);
  await until("redis answers", async () => (await redis("ping")).stdout.includes("PONG"));
  await redis("set", "k", "v".repeat(100_000));
  expect((await redis("strlen", "k")).stdout.trim()).toBe("100000");
});

test("64 MB go there and back, with the caller's FIN first", async () => {
  const size = 64 * 1024 * 1024;
  const chunk = Buffer.alloc(65_536, "x");
  const socket = connect({ host: "127.0.0.1", port: bytesUpstream, allowHalfOpen: true });
  let received = 0;
  let head = "";
  const done = new Promise<void>((resolve, reject) => {
    socket.on("data", (data: Buffer) => {
      received += data.length;
      if (head.length < 20) head += data.toString("latin1", 0, 20);
    });
    socket.on("end", resolve);
    socket.on("error", reject);
  });
  for (let sent = 0; sent < size; sent += chunk.length) {
    if (!socket.write(chunk)) await new Promise((resolve) => socket.once("drain", resolve));
  }
  socket.end();
  await done;
  expect(head.split("\n")[0]).toBe(String(size));
  expect(received).toBe(size + String(size).length + 1);
}, 60_000);

test("an application that is away resets the caller before any byte", async () => {
  const port = takePorts(1);
  const gone = createServer(() => {});
  const appPort: number = await new Promise((resolve) => {
    gone.listen(0, "127.0.0.1", () => resolve((gone.address() as { port: number }).port));
  });
  await mesh.sidecar({ service: "gone", app: [`9000=${appPort}/tcp`] });
  await mesh.sidecar({ service: "asker", upstream: [`gone:${port}`] });
  gone.close();
  const bytes = await new Promise<number>((resolve) => {
    const socket = connect({ host: "127.0.0.1", port });
    let count = 0;
    socket.on("data", (data) => {
      count += data.length;
    });
    socket.on("error", () => {});
    socket.on("close", () => resolve(count));
  });
  expect(bytes).toBe(0);
}, 60_000);

test("ports without a protocol: each is found out", async () => {
  const http = echo("mixed");
  const mail = createServer((socket) => socket.end("220 mx.example ESMTP\r\n"));
  const mailPort: number = await new Promise((resolve) => {
    mail.listen(0, "127.0.0.1", () => resolve((mail.address() as { port: number }).port));
  });
  try {
    const first = takePorts(3);
    const app = [`25=${mailPort}`, `6379=${redisPort}`, `8080=${http.port}`];
    await mesh.sidecar({ service: "mixed", app });
    const upstream = ["mixed/25", "mixed/6379", "mixed/8080"].map((to, i) => `${to}:${first + i}`);
    const asker = await mesh.sidecar({ service: "asker-of-all", upstream });
    const call = (...command: string[]) => run(command);
    const redis = await call("redis-cli", "-h", "127.0.0.1", "-p", String(first + 1), "ping");
    expect(redis.stdout.trim()).toBe("PONG");
    const answer = await call("curl", "-s", `http://127.0.0.1:${first + 2}/path`);
    expect(JSON.parse(answer.stdout)).toMatchObject({ name: "mixed", path: "/path" });
    // curl says nothing before it has heard the server.
    const banner = await call("curl", "-s", "-m", "5", `telnet://127.0.0.1:${first}`);
    expect(banner.stdout).toBe("220 mx.example ESMTP\r\n");
    const told = (await metrics(asker)).matchAll(
      /weft_protocol_detections_total\{.*port="(\d+)",verdict="(\w+)"\} (\d+)/g,
    );
    expect([...told].map(([, ...rest]) => rest.join(" ")).sort()).toEqual([
      "25 server_first 1",
      "6379 not_http 1",
      "8080 http 1",
    ]);
    expect(await metrics(asker)).toMatch(
      /weft_requests_total\{.*peer="default\/mixed",port="8080".*code="200".*\} 1/,
    );
  } finally {
    http.stop();
    mail.close();
  }
}, 60_000);

test("CONNECT carries opaque bytes to a TCP service", async () => {
  const answer = await new Promise<string>((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port: web.outboundPort });
    let text = "";
    socket.on("data", (data) => {
      text += data.toString("latin1");
      if (text.endsWith("\r\n\r\n")) socket.write("PING\r\n");
      if (text.includes("PONG")) {
        socket.destroy();
        resolve(text);
      }
    });
    socket.on("error", reject);
    socket.write("CONNECT redis:6379 HTTP/1.1\r\nHost: redis:6379\r\n\r\n");
  });
  expect(answer).toMatch(/^HTTP\/1\.1 200/);
  expect(answer).toContain("+PONG");
});
