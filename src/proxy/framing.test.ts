/** Malformed and strange requests on the wire: at the outbound port, and at the mesh port. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { RequestDecoder } from "../http/h1/decode.ts";
import { H1_LIMITS, peerLimits } from "../http/h1/limits.ts";
import { ACCEPTED, REFUSED } from "../http/h1/request.cases.ts";
import type { Connection } from "../net/connection.ts";
import { type DialTls, dial } from "../net/dial.ts";
import { type TlsContext, tlsContext } from "../net/tls.ts";
import { authority, snapshotOf, type TestWorkload } from "./mesh.fixture.ts";
import { newPlane, plainApp, type RawServer, rawServer, stopAll } from "./servers.fixture.ts";

/** Two messages, the first of them complete. */
const CLOSES = "something after Connection: close";
const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/** What one connection brought to the application. */
interface Brought {
  readonly decoder: RequestDecoder;
  text: string;
  requests: number;
  invalid: boolean;
}

let app: RawServer;
let web: TestWorkload;
let context: TlsContext;
let meshPort = 0;
let answer = OK;
let brought: Brought[] = [];

function record(socket: Bun.Socket, text: string, connection: number): void {
  brought[connection] ??= {
    decoder: new RequestDecoder(peerLimits(H1_LIMITS)),
    text: "",
    requests: 0,
    invalid: false,
  };
  const one = brought[connection];
  one.text += text;
  one.decoder.push(Buffer.from(text, "latin1"));
  for (;;) {
    const event = one.decoder.next();
    if (event === "error") one.invalid = true;
    if (event === "error" || event === "more") return;
    if (event !== "end") continue;
    one.requests++;
    socket.write(answer);
  }
}

beforeAll(() => {
  app = rawServer({ data: record });
  const plane = newPlane();
  meshPort = plane.meshPort;
  plane.workload("a", [{ servicePort: 80, host: "127.0.0.1", port: app.port }]);
  web = plane.workload("web");
  plane.workload("b", [{ servicePort: 80, host: "127.0.0.1", port: app.port }]);
  web.snapshot.set(
    snapshotOf([
      { ...plainApp([app.port]), service: "a" },
      { service: "b", port: 80, endpoints: [plane.endpoint("b")] },
    ]),
  );
  context = tlsContext({ ...authority.issue("web"), ca: [authority.root] });
});

afterAll(stopAll);

/** What comes back until the peer closes, or falls silent. */
function talk(text: string, port: number, tls?: DialTls): Promise<string> {
  return new Promise((resolve, reject) => {
    let heard = "";
    const opened = (c: Connection) => {
      c.write(Buffer.from(text, "latin1"));
      let timer = setTimeout(() => c.destroy(), 2000);
      return {
        data(_: Connection, chunk: Uint8Array) {
          heard += Buffer.from(chunk).toString("latin1");
          clearTimeout(timer);
          timer = setTimeout(() => c.destroy(), 100);
        },
        end: () => c.close(),
        drain() {},
        close() {
          clearTimeout(timer);
          resolve(heard);
        },
      };
    };
    const way = tls === undefined ? {} : { tls };
    dial({ host: "127.0.0.1", port, timeoutMs: 3000, ...way }, opened, reject);
  });
}

const outbound = (text: string) => talk(text, web.outbound);

function mesh(text: string): Promise<string> {
  return talk(text, meshPort, {
    context,
    serverName: "p80.a.default.weft.test",
    alpn: "http/1.1",
  });
}

const statuses = (text: string) => [...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, code]) => code);
const requests = () => brought.reduce((sum, one) => sum + (one?.requests ?? 0), 0);

const SIDES: readonly (readonly [string, (text: string) => Promise<string>])[] = [
  ["outbound", outbound],
  ["mesh port", mesh],
];

describe.each(SIDES)("%s", (side, talk) => {
  // The mesh port lets in a little more than the outbound port lets out.
  const greedy = ["101 fields", "endless head", "endless target"];
  const refused = REFUSED.filter(([name]) => side === "outbound" || !greedy.includes(name));
  test.each(refused)("%s is refused", async (name, status, bytes) => {
    brought = [];
    answer = OK;
    const seen = app.accepted;
    const heard = statuses(await talk(bytes));
    const wanted = name === CLOSES ? "200" : String(status);
    expect(`${heard.filter((code) => code !== "100")}`).toBe(wanted);
    expect(requests()).toBe(name === CLOSES ? 1 : 0);
    // Whatever part of it went on arrived in our own framing, on a connection that is over.
    expect(brought.some((one) => one?.invalid)).toBe(false);
    if (name !== CLOSES && app.accepted > seen) {
      for (let i = 0; i < 100 && app.open > 0; i++) await Bun.sleep(5);
    }
  });

  // From other proxies no request comes without Host, or in HTTP/1.0.
  const accepted = ACCEPTED.filter(([name]) => side === "outbound" || !name.includes("HTTP/1.0"));
  test.each(accepted)("%s reaches the application in one reading", async (_name, bytes) => {
    brought = [];
    answer = OK;
    const heard = statuses(await talk(bytes));
    expect(brought.some((one) => one?.invalid)).toBe(false);
    expect(requests()).toBe(heard.filter((code) => code === "200").length);
  });

  test("trailers go on without those that mean something in a head", async () => {
    brought = [];
    const fields = "Host: b\r\nContent-Length: 9\r\nAuthorization: x\r\nCookie: a\r\nX-Sum: 1\r\n";
    const head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    await talk(`${head}2\r\nhi\r\n0\r\n${fields}\r\n`);
    const text = brought.find((one) => one !== undefined)?.text ?? "";
    expect(text).toEndWith("2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n");
  });

  test("what Connection nominates goes, what we set stays, h2c is not offered", async () => {
    brought = [];
    const nominated = "x-request-id, traceparent, X-A, Upgrade, HTTP2-Settings";
    await talk(
      `GET / HTTP/1.1\r\nHost: a\r\nConnection: ${nominated}\r\nX-A: 1\r\nX-Request-Id: mine\r\n` +
        "Upgrade: h2c\r\nHTTP2-Settings: AAA\r\nWeft-Reason: denied\r\n\r\n",
    );
    const text = (brought.find((one) => one !== undefined)?.text ?? "").toLowerCase();
    expect(text.match(/x-request-id: /g)).toHaveLength(1);
    expect(text.match(/traceparent: /g)).toHaveLength(1);
    for (const gone of ["x-a:", "h2c", "http2-settings", "weft-reason"]) {
      expect(text).not.toContain(gone);
    }
  });

  const BAD: readonly (readonly [string, string])[] = [
    ["two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"],
    ["CL and TE", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok"],
    ["a bare LF", "HTTP/1.1 200 OK\r\nA: b\nContent-Length: 0\r\n\r\n"],
    ["a NUL", "HTTP/1.1 200 OK\r\nA: b\0\r\nContent-Length: 0\r\n\r\n"],
    ["obs-fold", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n"],
    ["no status", "HTTP/1.1 OK\r\n\r\n"],
    ["a switch nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"],
    ["endless interim answers", "HTTP/1.1 100 Continue\r\n\r\n".repeat(12)],
    ["another protocol", "SSH-2.0-OpenSSH_9.2\r\n"],
  ];

  test.each(BAD)("an answer with %s is 502, and its connection is over", async (_name, bytes) => {
    brought = [];
    answer = bytes;
    const heard = statuses(await talk("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    expect(heard.filter((code) => code !== "100")).toEqual(["502"]);
    for (let i = 0; i < 100 && app.open > 0; i++) await Bun.sleep(5);
    expect(app.open).toBe(0);
  });

  test("a second answer to one request is nobody's", async () => {
    brought = [];
    answer = `${OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`;
    const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const heard = await talk(get + get + get);
    expect(heard).not.toContain("evil");
    expect(statuses(heard)).toEqual(["200", "200", "200"]);
    answer = OK;
  });
});

test("a head at the limits passes the second proxy too, with what the first one adds", async () => {
  const start = "GET / HTTP/1.1\r\nHost: b\r\n";
  const fields = "A: b\r\n".repeat(98);
  const room = H1_LIMITS.headBytesMax - start.length - fields.length - "X: \r\n\r\n".length;
  const head = `${start}${fields}X: ${"x".repeat(room)}\r\n\r\n`;
  answer = OK;
  brought = [];
  expect(statuses(await outbound(head))).toEqual(["200"]);
});
