/** What callers claim in fields: which of it is believed, passed on, and how it is written down. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { AccessLog } from "../telemetry/access-log.ts";
import { rawTalk, snapshotOf, type TestPlane } from "./mesh.fixture.ts";
import { newPlane, plainApp, rawServer, stopAll } from "./servers.fixture.ts";

const lines: string[] = [];
const accessLog = new AccessLog((text) => void lines.push(text), Date.now);
let plane: TestPlane;
let outbound: number;
let read = "";

beforeAll(() => {
  const app = rawServer({
    data(socket, text) {
      read += text;
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nWeft-Reason: draining\r\n\r\n");
    },
  });
  plane = newPlane({ accessLog });
  plane.workload("cart", [{ servicePort: 80, host: "127.0.0.1", port: app.port }]);
  const web = plane.workload("web");
  outbound = web.outbound;
  const cart = { service: "cart", port: 80, endpoints: [plane.endpoint("cart")] };
  web.snapshot.set(snapshotOf([plainApp([app.port]), cart]));
});

afterAll(() => {
  stopAll();
  accessLog.stop();
});

describe.each(["app", "cart"])("to %s", (host) => {
  const ask = (fields: string, target = "/") => {
    read = "";
    const request = `GET ${target} HTTP/1.1\r\nHost: ${host}\r\n${fields}Connection: close\r\n\r\n`;
    return rawTalk(outbound, request);
  };

  test("forwarded and identity fields are between applications: sent on, never added", async () => {
    const names = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Forwarded"].concat(
      ...["X-Forwarded-Client-Cert", "X-Envoy-Original-Path", "X_Auth_User", "Via"],
    );
    const fields = names.map((name) => `${name}: claimed\r\n`).join("");
    expect(await ask(fields)).toStartWith("HTTP/1.1 200 ");
    expect(read).toContain(fields);
    await ask("");
    for (const name of names) expect(read.toLowerCase()).not.toContain(name.toLowerCase());
  });

  test("what proxies tell each other is taken from nobody else", async () => {
    const heard = await ask("Weft-Reason: denied\r\nwEFT-rEASON: app_unreachable\r\n");
    expect(heard).toStartWith("HTTP/1.1 200 ");
    expect(`${read}${heard}`.toLowerCase()).not.toContain("weft-reason");
  });

  test("aliases of what frames a message are refused", async () => {
    for (const name of ["Content_Length", "content.length", "Transfer_Encoding"]) {
      expect(await ask(`${name}: 5\r\n`)).toStartWith("HTTP/1.1 400 ");
      expect(read).toBe("");
    }
  });

  test("log and metric injection: every line is one record without control characters", async () => {
    accessLog.flush();
    lines.length = 0;
    const hostile = '"}\\\t\x80\x9b31m\xff';
    await ask(`X-Request-Id: a${hostile}\r\nTraceparent: b${hostile}\r\n`, "/%1b[31m%0a\"}'<b>");
    accessLog.flush();
    const records = lines.join("").trim().split("\n");
    expect(records.length).toBeGreaterThan(0);
    for (const record of records) {
      expect(record).toMatch(/^\P{Cc}+$/u);
      expect(JSON.parse(record)).toMatchObject({ requestId: `a${hostile}` });
    }
    expect(plane.metrics.render()).not.toMatch(/31m|<b>/);
  });
});

test("no authority where policy asks for one: answered, and the proxy lives", async () => {
  const requests = ["GET / HTTP/1.0\r\n\r\n", "OPTIONS * HTTP/1.0\r\n\r\n"].concat(
    ...["CONNECT :80 HTTP/1.1\r\nHost: :80\r\n\r\n", "GET / HTTP/1.1\r\nHost: .\r\n\r\n"],
    ...["CONNECT cart: HTTP/1.1\r\nHost: cart:\r\n\r\n", "GET http:///x HTTP/1.0\r\n\r\n"],
  );
  for (const request of requests) {
    expect(await rawTalk(outbound, request)).toMatch(/^HTTP\/1\.1 40[04] /);
  }
  expect(await rawTalk(outbound, "GET http://cart/ HTTP/1.0\r\n\r\n")).toStartWith("HTTP/1.1 200 ");
});
