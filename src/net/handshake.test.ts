/** Clients that do everything with a TLS port but use it. */
import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as tls from "node:tls";
import { Admission } from "./admission.ts";
import { callbackErrors } from "./boundary.ts";
import { testAuthority } from "./certificates.fixture.ts";
import type { Connection, ConnectionHandler } from "./connection.ts";
import { dial } from "./dial.ts";
import { type Listener, listen, listenTls, type RefusedWhy } from "./listen.ts";
import { tlsContext } from "./tls.ts";

const authority = testAuthority();
const contextOf = (service: string) =>
  tlsContext({ ...authority.issue(service), ca: [authority.root] });
const SNI = "p80.cart.default.weft.test";
const cart = contextOf("cart");
const shop = contextOf("shop");
const TIMEOUT_MS = 300;
const listeners: (Listener | { stop(all: boolean): void })[] = [];

afterAll(() => {
  for (const one of listeners) "closeAll" in one ? one.closeAll() : one.stop(true);
});

interface Server {
  readonly port: number;
  readonly admission: Admission;
  readonly refused: RefusedWhy[];
  /** What the last connection heard, in order. */
  readonly heard: string[];
}

/** `plaintext`: words of callers without TLS that are served. */
function echo(plaintext: readonly string[] = []): Server {
  const server = {
    port: 0,
    admission: new Admission(2000),
    refused: [] as RefusedWhy[],
    heard: [] as string[],
  };
  const accept = (): ConnectionHandler => ({
    data(c, chunk) {
      server.heard.push(`data ${chunk.length}`);
      c.write(chunk);
    },
    end(c) {
      server.heard.push("end");
      c.close();
    },
    drain() {},
    close: (_, error) => void server.heard.push(error === undefined ? "close" : "error"),
  });
  const listener = listenTls({
    host: "127.0.0.1",
    port: 0,
    accept,
    admission: server.admission,
    context: (name) => (name === SNI ? cart : undefined),
    plaintext(first) {
      const said = Buffer.from(first).toString("latin1");
      if (plaintext.some((word) => said.startsWith(word))) return accept;
      return plaintext.some((word) => word.startsWith(said)) ? "more" : undefined;
    },
    requestCert: "required",
    alpn: ["http/1.1"],
    handshakeTimeoutMs: TIMEOUT_MS,
    refused: (why) => void server.refused.push(why),
  });
  listeners.push(listener);
  server.port = listener.port;
  return server;
}

async function eventually(what: string, holds: () => boolean, ms = 3000): Promise<void> {
  const end = performance.now() + ms;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await Bun.sleep(5);
  }
}

/** An honest client; resolves when its word has come back. */
function honest(port: number): Promise<Connection> {
  return new Promise((resolve, reject) => {
    const tls = { context: shop, serverName: SNI, alpn: "http/1.1" };
    dial(
      { host: "127.0.0.1", port, tls, timeoutMs: 5000 },
      (c) => {
        c.write(Buffer.from("hello"));
        return {
          data: () => resolve(c),
          end: () => c.close(),
          drain() {},
          close: () => reject(new Error("closed")),
        };
      },
      reject,
    );
  });
}

/** The first flight to a server of another name, in latin1. */
async function anotherHello(): Promise<string> {
  return (
    await hello((port) => void tls.connect({ port, servername: "a.example" }).on("error", () => {}))
  ).toString("latin1");
}

/** The first flight of an honest client. */
async function hello(begin = (port: number) => void honest(port).catch(() => undefined)) {
  const first = Promise.withResolvers<Buffer>();
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { data: (_, chunk) => first.resolve(Buffer.from(chunk)) },
  });
  begin(listener.port);
  const bytes = await first.promise;
  listener.stop(true);
  return bytes;
}

function raw(port: number, bytes: Uint8Array): Promise<{ socket: Socket; closed: Promise<void> }> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => {
      if (bytes.length > 0) socket.write(bytes);
      resolve({ socket, closed });
    });
    const closed = new Promise<void>((done) => socket.on("close", () => done()));
    socket.on("error", () => {});
    socket.resume();
  });
}

test("half a handshake, 500 times, ends with its time; others are served meanwhile", async () => {
  const server = echo();
  const whole = await hello();
  const firsts = [whole.subarray(0, 0), whole.subarray(0, 100), whole];
  const clients = await Promise.all(
    Array.from({ length: 500 }, (_, i) => raw(server.port, firsts[i % firsts.length]!)),
  );
  (await honest(server.port)).close();
  await Promise.all(clients.map(({ closed }) => closed));
  await eventually("all have left", () => server.admission.open === 0);
  expect(server.refused.length).toBe(500);
  expect(new Set(server.refused)).toEqual(new Set(["timeout"]));
});

test("a hello that never ends does not buy time", async () => {
  const server = echo();
  const whole = await hello();
  const { socket, closed } = await raw(server.port, whole.subarray(0, 1));
  let at = 1;
  const drip = setInterval(() => void socket.write(whole.subarray(at, ++at)), 20);
  const before = performance.now();
  await closed;
  clearInterval(drip);
  expect(performance.now() - before).toBeLessThan(TIMEOUT_MS * 4);
  expect(server.refused).toEqual(["timeout"]);
});

test("whatever follows a hello, the place is free again and nothing throws", async () => {
  const server = echo();
  const whole = await hello();
  const errors = new Map(callbackErrors());
  const changed = Uint8Array.prototype.slice.call(whole);
  for (let i = 43; i < changed.length; i += 7) changed[i]! ^= 0x55;
  const garbage = Buffer.alloc(5000, 0x17);
  const alert = Buffer.from([21, 3, 3, 0, 2, 2, 40]);
  const firsts = [
    changed,
    Buffer.concat([whole, garbage]),
    Buffer.concat([whole, alert]),
    Buffer.concat([whole, whole]),
    Buffer.concat([whole, Buffer.from([20, 3, 3, 0, 1, 1]), garbage]),
    Buffer.from("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    Buffer.from([0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10]),
    garbage,
    Buffer.from([22, 3, 1, 0xff, 0xff]),
    Buffer.from([22, 3, 1, 0, 0]),
  ];
  for (const bytes of firsts) await (await raw(server.port, bytes)).closed;
  // Gone in the middle: politely, and not.
  for (const bytes of [whole.subarray(0, 50), whole]) {
    (await raw(server.port, bytes)).socket.end();
    (await raw(server.port, bytes)).socket.resetAndDestroy();
  }
  await eventually("all have left", () => server.admission.open === 0);
  expect(server.heard).toEqual([]);
  expect(callbackErrors()).toEqual(errors);
  (await honest(server.port)).close();
});

test("callers without TLS are served where somebody takes them, and leave like others", async () => {
  const server = echo(["hello", "\x16\x03"]);
  const talk = async (...pieces: readonly string[]) => {
    const socket = connect({ port: server.port, host: "127.0.0.1", allowHalfOpen: true });
    let heard = "";
    socket.on("data", (chunk) => {
      heard += chunk.toString("latin1");
    });
    socket.on("error", () => {});
    socket.on("end", () => socket.end());
    const closed = new Promise<void>((done) => socket.on("close", () => done()));
    for (const piece of pieces) {
      socket.write(piece, "latin1");
      await Bun.sleep(10);
    }
    return { socket, closed, heard: () => heard };
  };
  const whole = await talk("hello and more");
  await eventually("it comes back", () => whole.heard() === "hello and more");
  const pieces = await talk("h", "ell", "o", " there");
  await eventually("it comes back", () => pieces.heard() === "hello there");
  pieces.socket.end();
  await pieces.closed;
  whole.socket.resetAndDestroy();
  await eventually("all have left", () => server.admission.open === 0);
  expect(server.refused).toEqual([]);
  // Others: a stranger, one that says too little, and one that leaves in the middle of its word.
  const stranger = await talk("hey");
  const slow = await talk("hell");
  const gone = await talk("hel");
  gone.socket.end();
  await Promise.all([stranger.closed, slow.closed, gone.closed]);
  await eventually("all have left", () => server.admission.open === 0);
  expect([...server.refused].sort()).toEqual(["not_tls", "timeout"]);
  // Our own TLS is still TLS, and that for another name is somebody else's bytes.
  (await honest(server.port)).close();
  const hello = await anotherHello();
  const other = await talk(hello);
  await eventually("it comes back", () => other.heard() === hello);
  other.socket.destroy();
  await eventually("all have left", () => server.admission.open === 0);
});

/** A relay that an honest client goes through; `tamper` gets the server's side once it is in. */
async function tampered(server: Server, tamper: (up: Socket) => void): Promise<void> {
  let up: Socket | undefined;
  const relay = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(client) {
        up = connect({ port: server.port, host: "127.0.0.1", allowHalfOpen: true });
        up.on("data", (chunk) => void client.write(chunk));
        up.on("error", () => {});
        up.on("close", () => client.end());
      },
      data: (_, chunk) => void up?.write(Buffer.from(chunk)),
    },
  });
  listeners.push(relay);
  await honest(relay.port);
  tamper(up!);
  await eventually("the server is rid of it", () => server.admission.open === 0);
}

test("a context that cannot be used costs the connection, not its place", async () => {
  const admission = new Admission(10);
  const refused: RefusedWhy[] = [];
  const broken = {
    get native(): never {
      throw new Error("a bug");
    },
  };
  const listener = listenTls({
    ...{ host: "127.0.0.1", port: 0, admission, requestCert: "required", alpn: [] },
    accept: () => ({ data() {}, end() {}, drain() {}, close() {} }),
    context: () => broken,
    refused: (why) => void refused.push(why),
  });
  listeners.push(listener);
  const before = callbackErrors().get("hello") ?? 0;
  const client = tls.connect({ host: "127.0.0.1", port: listener.port });
  await new Promise((resolve) => client.on("error", () => {}).on("close", resolve));
  await eventually("its place is free", () => admission.open === 0);
  expect(refused).toEqual(["handshake_failed"]);
  expect(callbackErrors().get("hello")).toBe(before + 1);
});

test("garbage after the handshake ends the connection and is no data", async () => {
  for (const bytes of [
    Buffer.alloc(100, 0x17),
    Buffer.from([23, 3, 3, 0, 32, ...Array(32).fill(1)]),
    Buffer.from([22, 3, 3, 0, 4, 0, 0, 0, 0]),
    Buffer.from([23, 3, 3, 0xff, 0xff, ...Array(100).fill(2)]),
  ]) {
    const server = echo();
    await tampered(server, (up) => up.write(bytes));
    expect(server.heard[0]).toBe("data 5");
    expect(server.heard[1]).not.toStartWith("data");
  }
});

test("no session is resumed: each connection proves its identity anew", async () => {
  const server = echo();
  const folder = mkdtempSync(join(tmpdir(), "weft-session-"));
  const identity = join(folder, "identity.pem");
  const session = join(folder, "session.pem");
  const { cert, key } = authority.issue("shop");
  writeFileSync(identity, cert + key);
  const to = ["-connect", `127.0.0.1:${server.port}`, "-servername", SNI, "-alpn", "http/1.1"];
  const keys = ["-cert", identity, "-key", identity];
  const client = async (...more: readonly string[]) => {
    const command = ["openssl", "s_client", ...to, "-ign_eof", ...more];
    const child = Bun.spawn(command, { stdin: "pipe", stdout: "pipe", stderr: "ignore" });
    child.stdin.write("hello\n");
    child.stdin.flush();
    const heard: string[] = [];
    for await (const chunk of child.stdout) {
      heard.push(Buffer.from(chunk).toString());
      if (/hello/.test(heard.join(""))) break;
    }
    child.kill();
    return heard.join("");
  };
  const first = await client(...keys, "-sess_out", session);
  expect(first.endsWith("hello\n")).toBe(true);
  const again = existsSync(session) ? await client(...keys, "-sess_in", session) : "no session";
  expect(again.includes("Reused")).toBe(false);
  rmSync(folder, { recursive: true });
});

// The runtime does not tell a FIN of the peer from one that somebody else forged.
test("cut off without a close_notify is an end", async () => {
  const server = echo();
  await tampered(server, (up) => up.end());
  expect(server.heard).toEqual(["data 5", "end", "close"]);
});

test("a dial past its time fails once, and leaves nothing behind", async () => {
  let open = 0;
  const relay = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    data: undefined as Socket | undefined,
    socket: {
      open: () => void open++,
      // What it asked for comes, but too late.
      async data(client, chunk) {
        await Bun.sleep(150);
        client.data ??= connect(server.port, "127.0.0.1").on(
          "data",
          (back) => void client.write(back),
        );
        client.data.on("error", () => {}).write(Buffer.from(chunk));
      },
      close(client) {
        open--;
        client.data?.destroy();
      },
    },
  });
  listeners.push(relay);
  const server = echo();
  const tls = { context: shop, serverName: SNI, alpn: "http/1.1" };
  const heard: string[] = [];
  const nobody = { data() {}, end() {}, drain() {}, close() {} };
  dial(
    { host: "127.0.0.1", port: relay.port, tls, timeoutMs: 100 },
    () => {
      heard.push("opened");
      return nobody;
    },
    (error) => void heard.push(error.message),
  );
  await eventually("it failed", () => heard.length > 0);
  await eventually("it is closed", () => open === 0);
  await Bun.sleep(200);
  expect(heard).toEqual(["no connection within 100 ms"]);
  await eventually("the server is rid of it", () => server.admission.open === 0);
});

/** Connections of this host at `port` whose kernel keeps a timer for keep-alive probes. */
function probed(port: number): number {
  const hex = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const rows = readFileSync("/proc/net/tcp", "utf8").trim().split("\n").slice(1);
  return rows.filter((row) => {
    const [, local = "", remote = "", state, , timer = ""] = row.trim().split(/\s+/);
    const ours = local.endsWith(hex) || remote.endsWith(hex);
    return ours && state === "01" && timer.startsWith("02:");
  }).length;
}

test("a peer that falls silent is asked whether it is there, from both ends", async () => {
  const server = echo();
  const secure = await honest(server.port);
  await eventually("both ends of TLS are probed", () => probed(server.port) === 2);
  secure.close();
  const nobody = { data() {}, end() {}, drain() {}, close() {} };
  const plain = listen({ host: "127.0.0.1", port: 0, accept: () => nobody });
  listeners.push(plain);
  const opened = Promise.withResolvers<Connection>();
  const opener = (c: Connection) => {
    opened.resolve(c);
    return nobody;
  };
  dial({ host: "127.0.0.1", port: plain.port, timeoutMs: 1000 }, opener, opened.reject);
  await opened.promise;
  await eventually("both ends of TCP are probed", () => probed(plain.port) === 2);
});
