/** Connections that begin with a PROXY header, from us and to us; HAProxy at the other end. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseRange } from "../std/address-range.ts";
import { testAuthority } from "./certificates.fixture.ts";
import type { Connection } from "./connection.ts";
import { type DialTls, dial } from "./dial.ts";
import { listen } from "./listen.ts";
import { outsideContext } from "./outside-tls.ts";
import { type Ends, writeProxyHeader } from "./proxy-protocol.ts";
import { Relays } from "./relays.ts";

const stops: (() => void)[] = [];
afterAll(() => {
  for (const stop of stops.reverse()) stop();
});

const ENDS: Ends = {
  source: { address: "203.0.113.7", port: 4711 },
  destination: { address: "198.51.100.1", port: 443 },
};

const textOf = ({ source, destination }: Ends) =>
  `${source.address}:${source.port} ${destination.address}:${destination.port}`;

/** Answers a line with who called, and the line. */
function echo(ranges: readonly string[], refused: string[] = [], timeoutMs = 5000): number {
  const relays = new Relays(ranges, (why) => void refused.push(why), timeoutMs);
  const accept = (accepted: Connection) => {
    const who = accepted.announced === undefined ? "nobody" : textOf(accepted.announced);
    let line = "";
    return {
      data(c: Connection, chunk: Uint8Array) {
        line += Buffer.from(chunk).toString("latin1");
        if (!line.endsWith("\n")) return;
        c.write(Buffer.from(`${who} ${line}`));
        c.end();
      },
      end: (c: Connection) => c.close(),
      drain() {},
      close() {},
    };
  };
  const listener = listen({ host: "127.0.0.1", port: 0, relays, accept });
  stops.push(() => listener.closeAll());
  return listener.port;
}

/** Sends the pieces one by one; resolves with what comes until the connection is over. */
function tell(port: number, ...pieces: readonly Uint8Array[]): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const socket = connect({ port, host: "127.0.0.1", noDelay: true }, async () => {
      for (const piece of pieces) {
        socket.write(piece);
        if (pieces.length > 1) await Bun.sleep(1);
      }
    });
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
    });
    socket.on("error", () => {});
    socket.on("close", () => resolve(text));
  });
}

const HELLO = Buffer.from("hello\n");

describe("a listener with relays", () => {
  test("believes them, however the header is cut, and keeps what follows", async () => {
    const port = echo(["127.0.0.0/8"]);
    for (const version of ["v1", "v2"] as const) {
      const bytes = Buffer.concat([writeProxyHeader(version, ENDS), HELLO]);
      expect(await tell(port, bytes)).toBe(`${textOf(ENDS)} hello\n`);
      const pieces = Array.from(bytes, (byte) => Uint8Array.of(byte));
      expect(await tell(port, ...pieces)).toBe(`${textOf(ENDS)} hello\n`);
    }
    const nobody = Buffer.concat([writeProxyHeader("v2", undefined), HELLO]);
    expect(await tell(port, nobody)).toBe("nobody hello\n");
  });

  test("resets those that send none, or too slowly; lets a health check go", async () => {
    const refused: string[] = [];
    const port = echo(["127.0.0.1"], refused, 30);
    const none = Buffer.from("GET / HTTP/1.1\r\n\r\n");
    expect(await tell(echo(["127.0.0.1"], refused), none)).toBe("");
    expect(await tell(port, Buffer.from("PROXY TCP4 "))).toBe("");
    expect(refused).toEqual(["malformed", "timeout"]);
    await new Promise<void>((resolve) => {
      const socket = connect(port, "127.0.0.1", () => socket.end());
      socket.on("close", () => resolve());
      socket.resume();
    });
    await Bun.sleep(40);
    expect(refused).toHaveLength(2);
  });

  test("takes a header of anybody else for what it is: bytes", async () => {
    const header = writeProxyHeader("v1", ENDS);
    const answer = await tell(echo(["10.0.0.0/8", "::1/128"]), header);
    expect(answer).toBe(`nobody ${Buffer.from(header).toString()}`);
  });
});

test("ranges", () => {
  expect(parseRange("10.0.0.0/8")).toEqual({ address: "10.0.0.0", bits: 8, family: "ipv4" });
  expect(parseRange("::1")).toEqual({ address: "::1", bits: 128, family: "ipv6" });
  for (const bad of ["", "10.0.0.0/33", "10.0.0.0/08", "10.0.0/8", "::/129", "lo", "::1/1/1"]) {
    expect(parseRange(bad)).toBeUndefined();
  }
  const relays = new Relays(["10.0.0.0/8", "2001:db8::/32"], () => {});
  for (const inside of ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8:1::1"]) {
    expect([inside, relays.includes(inside)]).toEqual([inside, true]);
  }
  for (const outside of ["11.0.0.1", "::ffff:11.0.0.1", "2001:db9::1", ""]) {
    expect([outside, relays.includes(outside)]).toEqual([outside, false]);
  }
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const haproxy = Bun.which("haproxy", { PATH: `${process.env["PATH"]}:/usr/sbin` });
const ca = testAuthority("weft.test");
const NAME = "api.default.weft.test";

/** HAProxy with these sections; resolves when it answers on `port`. */
async function startHaproxy(port: number, sections: (folder: string) => string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "weft-haproxy-"));
  const { cert, key } = ca.issue("api");
  writeFileSync(join(folder, "api.pem"), cert + key);
  const times = "defaults\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n";
  writeFileSync(join(folder, "haproxy.cfg"), times + sections(folder));
  const child = Bun.spawn([haproxy!, "-q", "-db", "-f", join(folder, "haproxy.cfg")], {
    ...{ stdin: "ignore", stdout: "ignore", stderr: "ignore" },
  });
  stops.push(() => {
    child.kill();
    rmSync(folder, { recursive: true, force: true });
  });
  for (let i = 0; i < 100; i++) {
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1", () => resolve(true));
      socket.on("error", () => resolve(false));
      socket.on("connect", () => socket.destroy());
    });
    if (open) return;
    await Bun.sleep(20);
  }
  throw new Error("haproxy does not start");
}

describe.skipIf(haproxy === null)("with HAProxy", () => {
  test("what it sends is understood", async () => {
    const ours = echo(["127.0.0.1"]);
    const [v1, v2] = [await freePort(), await freePort()];
    const relay = (port: number, how: string) =>
      `listen l${port}\n mode tcp\n bind 127.0.0.1:${port}\n server s 127.0.0.1:${ours} ${how}\n`;
    const extended = "send-proxy-v2 proxy-v2-options crc32c,unique-id";
    await startHaproxy(v2, () => relay(v1, "send-proxy") + relay(v2, extended));
    for (const port of [v1, v2]) {
      expect(await tell(port, HELLO)).toMatch(
        new RegExp(`^127\\.0\\.0\\.1:\\d+ 127\\.0\\.0\\.1:${port} hello\n$`),
      );
    }
  });

  test("what we send is understood, also before TLS", async () => {
    const [plain, secure] = [await freePort(), await freePort()];
    const say = '"%[src]:%[src_port] %[dst]:%[dst_port]"';
    const answer = (port: number, how: string) =>
      `frontend f${port}\n mode http\n bind 127.0.0.1:${port} accept-proxy ${how}\n` +
      ` http-request return status 200 content-type text/plain lf-string ${say}\n`;
    await startHaproxy(
      secure,
      (folder) => answer(plain, "") + answer(secure, `ssl crt ${folder}/api.pem`),
    );
    const tls: DialTls = {
      context: outsideContext({ ca: ca.root }, 0),
      ...{ serverName: NAME, alpn: "", outside: { verify: true, names: [NAME] } },
    };
    for (const port of [plain, secure]) {
      for (const version of ["v1", "v2"] as const) {
        const preface = writeProxyHeader(version, ENDS);
        const way = port === secure ? { port, tls, preface } : { port, preface };
        freed = 0;
        expect(await get(way)).toEndWith(textOf(ENDS));
        expect(freed).toBe(1);
      }
    }
    expect(await get({ port: secure, tls })).toStartWith("refused: ");
    const wrong = { ...tls, outside: { verify: true, names: ["else.test"] } };
    const preface = writeProxyHeader("v2", ENDS);
    freed = 0;
    expect(await get({ port: secure, tls: wrong, preface })).toContain("not for else.test");
    while (freed === 0) await Bun.sleep(1);
    expect(freed).toBe(1);
  });
});

/** Descriptors that came back since a test set it to 0. */
let freed = 0;

function get(way: { port: number; tls?: DialTls; preface?: Uint8Array }): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    dial(
      { host: "127.0.0.1", timeoutMs: 3000, freed: () => freed++, ...way },
      (c) => {
        if (freed !== 0) resolve("freed while it was open");
        c.write(Buffer.from("GET / HTTP/1.0\r\n\r\n"));
        return {
          data: (_c, chunk) => {
            if (freed !== 0) resolve("freed while it was open");
            text += Buffer.from(chunk).toString();
          },
          end: (ended) => ended.close(),
          drain() {},
          close: () => resolve(text),
        };
      },
      (error) => resolve(`refused: ${error.message}`),
    );
  });
}

test("a server that hangs up on the preface is a failure, not a wait", async () => {
  const server = createServer((socket) => socket.once("data", () => socket.destroy()));
  stops.push(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const tls: DialTls = {
    context: outsideContext({ ca: ca.root }, 0),
    ...{ serverName: NAME, alpn: "", outside: { verify: true, names: [NAME] } },
  };
  freed = 0;
  const answer = await get({ port, tls, preface: writeProxyHeader("v2", ENDS) });
  expect(answer).toStartWith("refused: ");
  expect(answer).not.toContain("no connection within");
  while (freed === 0) await Bun.sleep(1);
  expect(freed).toBe(1);
});
