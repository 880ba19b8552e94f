import { afterAll, expect, test } from "bun:test";
import { connect as connectRaw } from "node:net";
import { testAuthority } from "./certificates.fixture.ts";
import type { Connection, ConnectionHandler } from "./connection.ts";
import { type DialTls, dial } from "./dial.ts";
import { type Listener, listenTls, type RefusedWhy } from "./listen.ts";
import { clientContext, type TlsContext, tlsContext, uriNames } from "./tls.ts";

const authority = testAuthority();
const stranger = testAuthority("other.test");
const cart = authority.issue("cart");
const shop = authority.issue("shop");
const intruder = stranger.issue("shop");
const contextOf = (id: { cert: string; key: string }) =>
  tlsContext({ ...id, ca: [authority.root] });
const listeners: Listener[] = [];
const SNI = "p80.cart.default.weft.test";

afterAll(() => {
  for (const listener of listeners) listener.closeAll();
});

interface Served {
  readonly port: number;
  readonly refused: [RefusedWhy, string | undefined][];
  readonly peers: string[];
  bytes: number;
  context: TlsContext;
}

function echo(requestCert: "required" | "optional" = "required"): Served {
  const served: { -readonly [K in keyof Served]: Served[K] } = {
    port: 0,
    refused: [],
    peers: [],
    bytes: 0,
    context: contextOf(cart),
  };
  const listener = listenTls({
    host: "127.0.0.1",
    port: 0,
    context: (name) => (name === SNI ? served.context : undefined),
    requestCert,
    alpn: ["h2", "http/1.1", "weft-tcp"],
    refused: (why, name) => served.refused.push([why, name]),
    accept(c) {
      served.peers.push(`${c.tls?.uris[0]} ${c.tls?.alpn} ${c.tls?.authorized}`);
      return {
        data(_, chunk) {
          served.bytes += chunk.length;
          c.write(chunk);
        },
        end: () => c.end(),
        drain() {},
        close() {},
      };
    },
  });
  listeners.push(listener);
  served.port = listener.port;
  return served;
}

/** What came back until the peer closed: "" where it refused us. */
function talk(port: number, tls: DialTls, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const handler: ConnectionHandler = {
      data(c, chunk) {
        answer += chunk.toString();
        if (answer.length >= text.length) c.end();
      },
      end(c) {
        c.close();
      },
      drain() {},
      close: () => resolve(answer),
    };
    const opened = (c: Connection) => {
      c.write(Buffer.from(text));
      return handler;
    };
    dial({ host: "127.0.0.1", port, tls, timeoutMs: 2000 }, opened, reject);
  });
}

const good = { context: contextOf(shop), serverName: SNI, alpn: "http/1.1" };

test("both sides know each other", async () => {
  const served = echo();
  expect(await talk(served.port, good, "hello")).toBe("hello");
  expect(served.peers).toEqual([`${shop.uri} http/1.1 true`]);
  expect(served.refused).toEqual([]);
});

test("a name nobody serves is a TLS alert and a counter", async () => {
  const served = echo();
  const tls = { ...good, serverName: "p81.cart.default.weft.test" };
  await expect(talk(served.port, tls, "x")).rejects.toThrow();
  expect(served.refused).toEqual([["unknown_server_name", "p81.cart.default.weft.test"]]);
});

test("no protocol, or one we do not speak, is refused", async () => {
  const served = echo();
  await expect(talk(served.port, { ...good, alpn: "" }, "x")).rejects.toThrow();
  await expect(talk(served.port, { ...good, alpn: "spdy/1" }, "x")).rejects.toThrow();
  expect(served.refused.map(([why]) => why)).toEqual(["no_protocol", "no_protocol"]);
});

test("a client of another authority gets no byte through", async () => {
  const served = echo();
  const context = tlsContext({ ...intruder, ca: [authority.root] });
  expect(await talk(served.port, { ...good, context }, "x").catch(() => "")).toBe("");
  const none = clientContext([authority.root]);
  expect(await talk(served.port, { ...good, context: none }, "x").catch(() => "")).toBe("");
  expect(served.bytes).toBe(0);
  expect(served.peers).toEqual([]);
  expect(served.refused).toHaveLength(2);
});

test("a client without a certificate is welcome where it is optional, but nobody", async () => {
  const served = echo("optional");
  const context = clientContext([authority.root]);
  expect(await talk(served.port, { ...good, context }, "hello")).toBe("hello");
  expect(served.peers).toEqual(["undefined http/1.1 false"]);
});

test("the dialler refuses a server of another authority, or of another name", async () => {
  const served = echo();
  const context = tlsContext({ ...shop, ca: [stranger.root] });
  await expect(talk(served.port, { ...good, context }, "x")).rejects.toThrow();
  served.context = contextOf(shop);
  await expect(talk(served.port, good, "x")).rejects.toThrow();
});

test("a new certificate serves the next connection", async () => {
  const served = echo();
  await talk(served.port, good, "one");
  served.context = contextOf(authority.issue("cart"));
  expect(await talk(served.port, good, "two")).toBe("two");
});

test("plaintext and garbage are turned away", async () => {
  const served = echo();
  for (const text of ["GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"]) {
    await new Promise<void>((resolve) => {
      const socket = connectRaw(served.port, "127.0.0.1", () => socket.write(text, "latin1"));
      socket.resume();
      socket.on("error", () => {});
      socket.on("close", () => resolve());
    });
  }
  expect(served.refused.map(([why]) => why)).toEqual(["not_tls", "malformed_hello"]);
});

test("TLS 1.2 is refused", async () => {
  const served = echo();
  const to = ["-connect", `127.0.0.1:${served.port}`, "-servername", SNI, "-alpn", "http/1.1"];
  const command = ["openssl", "s_client", ...to, "-tls1_2"];
  const client = Bun.spawn(command, { stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  expect(await client.exited).not.toBe(0);
  expect(await new Response(client.stderr).text()).toContain("alert protocol version");
});

test("a hello in many pieces is one hello", async () => {
  const served = echo();
  const relay = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    data: undefined as { up: Promise<Bun.Socket> } | undefined,
    socket: {
      open(client) {
        const up = Bun.connect({
          hostname: "127.0.0.1",
          port: served.port,
          socket: { data: (_, back) => void client.write(back), close: () => void client.end() },
        });
        client.data = { up };
      },
      async data(client, chunk) {
        const up = await client.data?.up;
        for (const byte of chunk.subarray(0, 80)) {
          up?.write(Uint8Array.of(byte));
          await Bun.sleep(0);
        }
        up?.write(chunk.subarray(80));
      },
    },
  });
  expect(await talk(relay.port, good, "hello")).toBe("hello");
  relay.stop(true);
});

test("URI names are read only where nothing is quoted", () => {
  expect(uriNames("URI:spiffe://a/b, DNS:x")).toEqual(["spiffe://a/b"]);
  expect(uriNames('URI:"spiffe://a/b, URI:spiffe://c", DNS:x')).toEqual([]);
});
