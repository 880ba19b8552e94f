import { afterAll, beforeAll, expect, test } from "bun:test";
import { createServer, connect as netConnect, type Server } from "node:net";
import { snapshotOf, TestPlane, type TestWorkload } from "./mesh.fixture.ts";

const plane = new TestPlane();
let web: TestWorkload;
let server: Server;
let upstream = 0;
let gone = 0;

/** On the caller's FIN: the number of bytes that came, and as many back. */
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
  server = counting();
  const port: number = await new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve((server.address() as { port: number }).port));
  });
  plane.workload("bytes", [{ servicePort: 9000, host: "127.0.0.1", port, protocol: "tcp" }]);
  plane.workload("gone", [{ servicePort: 9000, host: "127.0.0.1", port: 1, protocol: "tcp" }]);
  web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([
      { service: "bytes", port: 9000, protocol: "tcp", endpoints: [plane.endpoint("bytes")] },
      { service: "gone", port: 9000, protocol: "tcp", endpoints: [plane.endpoint("gone")] },
    ]),
  );
  const to = (service: string) =>
    plane.plane.listenUpstream(web.local, { namespace: "default", service }, "127.0.0.1", 0);
  upstream = to("bytes");
  gone = to("gone");
});

afterAll(() => {
  plane.plane.stop();
  server.close();
});

test("bulk bytes go there and back, the caller's FIN first", async () => {
  const size = 32 * 1024 * 1024;
  const chunk = Buffer.alloc(65_536, "x");
  const socket = netConnect({ host: "127.0.0.1", port: upstream, allowHalfOpen: true });
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
});

test("an application that is away resets the caller before any byte", async () => {
  const seen = await new Promise<{ bytes: number; error: string }>((resolve) => {
    const socket = netConnect({ host: "127.0.0.1", port: gone });
    let bytes = 0;
    let error = "";
    socket.on("data", (data) => {
      bytes += data.length;
    });
    socket.on("error", (cause: Error & { code?: string }) => {
      error = cause.code ?? "";
    });
    socket.on("close", () => resolve({ bytes, error }));
  });
  expect(seen).toEqual({ bytes: 0, error: "ECONNRESET" });
});

test("CONNECT carries early bytes only after the answer", async () => {
  const answer = await new Promise<string>((resolve) => {
    const socket = netConnect({ host: "127.0.0.1", port: web.outbound, allowHalfOpen: true });
    let text = "";
    socket.on("data", (data) => {
      text += data.toString("latin1");
    });
    socket.on("end", () => resolve(text));
    socket.end("CONNECT bytes:9000 HTTP/1.1\r\nHost: bytes:9000\r\n\r\nearly");
  });
  expect(answer).toBe("HTTP/1.1 200 Connection Established\r\n\r\n5\nyyyyy");
});

test("a service the proxy must still ask for waits for it", async () => {
  const lazy = plane.workload("lazy");
  plane.onAccess = () => {
    setTimeout(() => lazy.snapshot.set(web.snapshot.value), 20);
    return true;
  };
  const service = { namespace: "default", service: "bytes" };
  const port = plane.plane.listenUpstream(lazy.local, service, "127.0.0.1", 0);
  const answer = await new Promise<string>((resolve) => {
    const socket = netConnect({ host: "127.0.0.1", port, allowHalfOpen: true });
    let text = "";
    socket.on("data", (data) => {
      text += data.toString("latin1");
    });
    socket.on("end", () => resolve(text));
    socket.end("abc");
  });
  expect(answer).toBe("3\nyyy");
  expect(plane.asked).toContain("default/bytes");
});

test("tunnels are counted by edge", () => {
  const text = plane.metrics.render();
  expect(text).toMatch(
    /weft_tcp_connections_total\{direction="outbound",workload="default\/web",.*peer="default\/bytes".*reason=""\} [1-9]/,
  );
  expect(text).toMatch(/weft_tcp_bytes_total\{direction="inbound".*way="received"\} 3355\d+/);
});
