/** What proxies tell each other of a request, in both directions. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { connect } from "node:tls";
import reasons from "../../test/fixtures/contracts/reasons.json" with { type: "json" };
import { type Listener, listenTls } from "../net/listen.ts";
import { tlsContext } from "../net/tls.ts";
import { authority, type TestPlane, type TestWorkload, TRUST_DOMAIN } from "./mesh.fixture.ts";
import { caller, newPlane, stopAll } from "./servers.fixture.ts";

/** Answers with what was last set, as a peer's inbound side would. */
let peer: Listener;
let answer = "";
let plane: TestPlane;
let web: TestWorkload;

beforeAll(() => {
  const { cert, key, uri } = authority.issue("app");
  const context = tlsContext({ cert, key, ca: [authority.root] });
  const nothing = () => {};
  peer = listenTls({
    ...{ host: "127.0.0.1", port: 0, requestCert: "required", alpn: ["http/1.1"] },
    context: () => context,
    accept: () => ({
      data: (connection) => void connection.write(Buffer.from(answer)),
      ...{ end: nothing, drain: nothing, close: nothing },
    }),
  });
  plane = newPlane();
  const endpoint = { meshPort: peer.port, identity: uri };
  const policy = { retries: { ...NO_RETRIES } };
  web = caller(plane, [{ service: "app", port: 80, policy, endpoints: [endpoint] }]);
});

afterAll(() => {
  peer.closeAll();
  stopAll();
});

const NO_RETRIES = {
  ...{ attempts: 0, on: [], codes: [], backoffMs: 1 },
  ...{ budgetPercent: 20, budgetMinConcurrency: 3 },
};

async function ask(status: number, reason: string): Promise<Response> {
  answer = `HTTP/1.1 ${status} X\r\nweft-reason: ${reason}\r\nContent-Length: 0\r\n\r\n`;
  return fetch(web.url, { headers: { host: "app" } });
}

test.each(Object.entries(reasons))("golden: %s is understood of a peer", async (code, row) => {
  const response = await ask(row.status, code);
  expect([response.status, response.headers.get("weft-reason")]).toEqual([row.status, null]);
  const line = new RegExp(`weft_requests_total\\{.*code="${row.status}",reason="${code}"\\} 1`);
  expect(plane.metrics.render()).toMatch(line);
});

test("a reason nobody knows is not counted under its name, whatever its length", async () => {
  expect((await ask(503, "x".repeat(10_000))).status).toBe(503);
  expect(plane.metrics.render()).not.toContain("xxx");
});

test("golden: a peer is told the reason", async () => {
  const other = newPlane();
  other.workload("dead", [{ servicePort: 80, host: "127.0.0.1", port: 1, protocol: "http" }]);
  const { cert, key } = authority.issue("web");
  const servername = `p80.dead.default.${TRUST_DOMAIN}`;
  const heard = await new Promise<string>((done, failed) => {
    let text = "";
    const options = { host: "127.0.0.1", port: other.meshPort, servername, cert, key };
    const socket = connect({ ...options, ca: authority.root, ALPNProtocols: ["http/1.1"] });
    socket.write("GET / HTTP/1.1\r\nHost: dead\r\nConnection: close\r\n\r\n");
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
    });
    socket.on("close", () => done(text));
    socket.on("error", failed);
  });
  expect(heard).toStartWith(`HTTP/1.1 ${reasons.app_unreachable.status} `);
  expect(heard).toContain("\r\nweft-reason: app_unreachable\r\n");
});
