/** Bug classes of HTTP/1.1, by raw bytes at the API's listener, in front of the API itself. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { ACCEPTED, REFUSED } from "../http/h1/request.cases.ts";
import { type Listener, listen } from "../net/listen.ts";
import { serveApp } from "../serve/serve.ts";
import { type ApiFixture, startApi } from "./api.fixture.ts";

let api: ApiFixture;
let listener: Listener;

beforeAll(async () => {
  api = await startApi();
  const accept = (c: Parameters<typeof serveApp>[0]) => serveApp(c, api.app);
  listener = listen({ host: "127.0.0.1", port: 0, accept });
});

afterAll(async () => {
  listener.closeAll();
  await api.close();
});

/** Everything that comes back to `text` until the API closes, or a tenth of a second after the last. */
async function raw(text: string): Promise<string> {
  let heard = "";
  const { promise, resolve } = Promise.withResolvers<void>();
  let timer = setTimeout(resolve, 100);
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port: listener.port,
    socket: {
      data(_socket, chunk) {
        heard += chunk.toString("latin1");
        clearTimeout(timer);
        timer = setTimeout(resolve, 100);
      },
      close: () => resolve(),
    },
  });
  socket.write(Buffer.from(text, "latin1"));
  await promise;
  clearTimeout(timer);
  socket.terminate();
  return heard;
}

const statuses = (heard: string) =>
  [...heard.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, code]) => code);
const CLOSE = "Connection: close\r\n";
const bearer = () => `Authorization: Bearer ${api.token}\r\n`;
const get = (target: string, fields = "") =>
  raw(`GET ${target} HTTP/1.1\r\nHost: a\r\n${fields}${CLOSE}\r\n`);
const post = (target: string, fields: string, body: string) =>
  raw(
    `POST ${target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n` +
      `${fields}Content-Length: ${body.length}\r\n${CLOSE}\r\n${body}`,
  );

test("framing, grammar, Host, Expect: a malformed head reaches no route", async () => {
  const heads = REFUSED.filter(
    ([, , bytes]) => !bytes.includes("Transfer-Encoding: chunked\r\n\r\n"),
  );
  const closes = "something after Connection: close";
  for (const [name, status, bytes] of heads.filter(([name]) => name !== closes)) {
    expect([name, statuses(await raw(bytes))]).toEqual([name, [String(status)]]);
  }
  for (const [name, bytes] of ACCEPTED.filter(([, bytes]) => !bytes.includes("CONNECT"))) {
    expect([name, statuses(await raw(bytes)).includes("400")]).toEqual([name, false]);
  }
});

test("trailers are never merged into the fields", async () => {
  const chunked = "Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n";
  const trailers = `0\r\n${bearer()}\r\n`;
  const request = `POST /v1/apply HTTP/1.1\r\nHost: a\r\n${chunked}${CLOSE}\r\n2\r\n{}\r\n${trailers}`;
  expect(statuses(await raw(request))).toEqual(["401"]);
});

test.each(["websocket", "h2c", "HTTP/2.0"])("Upgrade: %s is not switched to", async (protocol) => {
  const fields = `Connection: upgrade, http2-settings\r\nUpgrade: ${protocol}\r\nHTTP2-Settings: AA\r\n`;
  const early = `GET /v1/status HTTP/1.1\r\nHost: a\r\n${CLOSE}\r\n`;
  const heard = await raw(`GET /healthz HTTP/1.1\r\nHost: a\r\n${fields}\r\n${early}`);
  // What comes early is a request like any other, and judged like one.
  expect(statuses(heard)).toEqual(["200", "401"]);
});

test.each(["CONNECT a:1", "TRACE /healthz"])("%s is not for an API", async (line) => {
  const heard = await raw(
    `${line} HTTP/1.1\r\nHost: ${line.startsWith("C") ? "a:1" : "a"}\r\n\r\n`,
  );
  expect(statuses(heard)).toEqual(["501"]);
});

test.each(["%0d%0aInjected:%20x", "%00", "%1b[31m", '"<script>', "%e9"])(
  "response splitting: %s stays text",
  async (text) => {
    for (const path of [`/v1/${text}`, `/v1/resources/Service/default/${text}`]) {
      const heard = await get(path, bearer());
      expect(heard).toStartWith("HTTP/1.1 4");
      const head = heard.slice(0, heard.indexOf("\r\n\r\n"));
      expect(head).toMatch(/^(?:[\x20-\x7e]+\r\n)*[\x20-\x7e]+$/);
      expect(head.toLowerCase()).not.toContain("injected");
    }
  },
);

test("fields that Connection nominates are gone, credentials too", async () => {
  const heard = await get("/v1/status", `${bearer()}Connection: Authorization\r\n`);
  expect(statuses(heard)).toEqual(["401"]);
});

test("__proto__, constructor, hasOwnProperty as field, query and JSON key", async () => {
  for (const name of ["__proto__", "constructor", "hasOwnProperty", "toString"]) {
    expect(statuses(await get("/healthz", `${name}: 1\r\n`))).toEqual(["200"]);
    expect(statuses(await get(`/v1/status?${name}=1`, bearer()))).toEqual(["400"]);
    const body = `{"sources":[],"${name}":{"dryRun":true}}`;
    expect(statuses(await post("/v1/apply", bearer(), body))).toEqual(["400"]);
  }
  expect(({} as Record<string, unknown>)["dryRun"]).toBeUndefined();
});

test.each(
  ["/v1/status", "/v1//status", "//v1/status", "/v1/./status", "/healthz/../v1/status"].concat(
    ...["/healthz/%2e%2e/v1/status", "/healthz/..%2fv1/status", "/healthz/..;/v1/status"],
    ...["/healthz/..;x=y/v1/status", "/healthz\\..\\v1\\status", "/v1/status;x=y", "/V1/STATUS"],
    ...["/v1/status%00", "/v1/%73tatus", "http://a/v1/status", "/v1/status?x=/healthz"],
    ...["/v1/status%2f", "/v1/status/", "/v1%2fstatus", "/v1%5cstatus"],
  ),
)("path: no spelling of %s passes without a token", async (target) => {
  expect(Number(statuses(await get(target))[0])).toBeOneOf([400, 401, 404]);
});

test.each(["A", "a.", "A.:17010", "[::1]:17010", "localhost:1"])(
  "Host %s is nobody's",
  async (host) => {
    const ask = (path: string) => raw(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\n${CLOSE}\r\n`);
    expect(statuses(await ask("/healthz"))).toEqual(["200"]);
    expect(statuses(await ask("/v1/status"))).toEqual(["401"]);
  },
);

test("forwarded and identity fields say nothing about a caller", async () => {
  const names = ["X-Forwarded-Client-Cert", "X-Forwarded-For", "X-Real-IP", "Forwarded"].concat(
    ...["X-Envoy-Peer-Metadata", "X-Envoy-Original-Path", "X-Original-URL", "X-Rewrite-URL"],
    ...["X-HTTP-Method-Override", "X_Authorization", "Authorization_", "X.Auth.User"],
  );
  const fields = names
    .map((name) => `${name}: URI=spiffe://weft.local/ns/weft-system/sa/controlplane;By=/v1/ca\r\n`)
    .join("");
  for (const path of ["/v1/status", "/v1/tokens"]) {
    expect(statuses(await get(path, fields))).toEqual(["401"]);
  }
  expect(statuses(await post("/v1/svid", fields, '{"csr":"x"}'))).toEqual(["401"]);
  expect(statuses(await get("/healthz", fields))).toEqual(["200"]);
});

test("no authority, no path, no version: answered, and the API lives", async () => {
  expect(statuses(await raw("GET /healthz HTTP/1.0\r\n\r\n"))).toEqual(["200"]);
  expect(statuses(await raw("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n"))).toEqual(["404"]);
  expect(statuses(await raw(`OPTIONS * HTTP/1.1\r\nHost: a\r\n${CLOSE}\r\n`))).toEqual(["404"]);
  expect(statuses(await get("/healthz"))).toEqual(["200"]);
});

test("metrics carry no text of a caller", async () => {
  await get('/v1/"}%0aevil_metric{a="b"} 1');
  await get("/v1/evil%22%7d%0aevil");
  expect(await get("/metrics")).not.toContain("evil");
});
