/** What RFC 9110 and RFC 9112 ask of a proxy, section by section, over two hops. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { snapshotOf } from "./mesh.fixture.ts";
import {
  eventually,
  newPlane,
  plainApp,
  type RawServer,
  rawServer,
  stopAll,
  talk,
} from "./servers.fixture.ts";

const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

let app: RawServer;
let answer: string;
let read: string;
let outbound: number;
let upstream: number;

beforeAll(() => {
  app = rawServer({
    data(socket, text) {
      read += text;
      if (text.includes("\r\n\r\n")) socket.write(Buffer.from(answer, "latin1"));
    },
  });
  const plane = newPlane();
  plane.workload("cart", [{ servicePort: 80, host: "127.0.0.1", port: app.port }]);
  const web = plane.workload("web");
  const endpoints = [plane.endpoint("cart")];
  web.snapshot.set(snapshotOf([plainApp([app.port]), { service: "cart", port: 80, endpoints }]));
  outbound = web.outbound;
  const service = { namespace: "default", service: "cart", port: 80 };
  upstream = plane.plane.listenUpstream(web.local, service, "127.0.0.1", 0);
});

beforeEach(() => {
  answer = OK;
  read = "";
});

afterAll(stopAll);

/** What the application reads, without the ids that each hop adds or changes. */
const seen = () => read.replace(/^(?:x-request-id|traceparent): .*\r\n/gim, "");

/** What comes back until it `ends` so, or for a second. */
async function ask(port: number, text: string, ends: string): Promise<string> {
  const { socket, heard } = talk(port, text);
  let answer = "";
  socket.on("data", (chunk) => {
    answer += chunk.toString("latin1");
  });
  await eventually(() => answer.endsWith(ends) || socket.destroyed, 1000);
  socket.destroy();
  return (await heard).text;
}

/** The status lines of what comes back. */
const lines = (text: string) => text.match(/HTTP\/1\.1 \d+/g)?.map((line) => line.slice(9));

const HOSTS = [["one hop", "app"] as const, ["two hops", "cart"] as const];

describe.each(HOSTS)("%s: requests", (_hops, host) => {
  const FORWARDED: readonly (readonly [string, string, string])[] = [
    [
      "RFC 9112, 3.2.2: absolute form becomes origin form",
      "GET http://HOST/x?y HTTP/1.1\r\nHost: HOST\r\n\r\n",
      "GET /x?y HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ],
    [
      "RFC 9112, 3.2.2: absolute form without a path",
      "GET http://HOST?y HTTP/1.1\r\nHost: HOST\r\n\r\n",
      "GET /?y HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ],
    [
      "RFC 9112, 3.2.4: OPTIONS of a whole server by absolute form",
      "OPTIONS http://HOST HTTP/1.1\r\nHost: HOST\r\n\r\n",
      "OPTIONS * HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ],
    [
      "RFC 9112, 3.2.4: OPTIONS with a path or a query is not of the whole server",
      "OPTIONS http://HOST?q HTTP/1.1\r\nHost: HOST\r\n\r\n",
      "OPTIONS /?q HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ],
    [
      "RFC 9112, 3.2.4: asterisk form",
      "OPTIONS * HTTP/1.1\r\nHost: HOST\r\n\r\n",
      "OPTIONS * HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ],
    [
      "RFC 9112, 2.3: HTTP/1.0 goes on as HTTP/1.1",
      "GET / HTTP/1.0\r\nHost: HOST\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ],
    [
      "RFC 9110, 5.5: obs-text goes on byte for byte",
      "GET / HTTP/1.1\r\nHost: HOST\r\nX: \x80\xe9\xff\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: HOST\r\nX: \x80\xe9\xff\r\n\r\n",
    ],
    [
      "RFC 9110, 5.3: repeated fields keep their order and number",
      "GET / HTTP/1.1\r\nHost: HOST\r\nX: 1\r\nY: 2\r\nx: 3\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: HOST\r\nX: 1\r\nY: 2\r\nx: 3\r\n\r\n",
    ],
    [
      "RFC 9110, 9.1: an unknown method, in its case",
      "Purge-x / HTTP/1.1\r\nHost: HOST\r\n\r\n",
      "Purge-x / HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ],
    [
      "RFC 9110, 7.6.1: nominated and hop-by-hop fields stay behind",
      "GET / HTTP/1.1\r\nHost: HOST\r\nconnection: X-A\r\nX-a: 1\r\nConnection: te, keep-alive\r\n" +
        "Keep-Alive: timeout=9\r\nTE: trailers\r\nProxy-Connection: close\r\nX-B: 2\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: HOST\r\nX-B: 2\r\n\r\n",
    ],
    [
      "RFC 9110, 10.1.1: the expectation of HTTP/1.0 is ignored",
      "POST / HTTP/1.0\r\nHost: HOST\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
      "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1\r\n\r\nx",
    ],
    [
      "RFC 9110, 10.1.1: the expectation of HTTP/1.1 goes on",
      "POST / HTTP/1.1\r\nHost: HOST\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
      "POST / HTTP/1.1\r\nHost: HOST\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
    ],
    [
      "RFC 9110, 7.6.2: Max-Forwards is for TRACE and OPTIONS only",
      "GET / HTTP/1.1\r\nHost: HOST\r\nMax-Forwards: 0\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: HOST\r\nMax-Forwards: 0\r\n\r\n",
    ],
    [
      "RFC 9110, 11.7.1: credentials for another proxy go on",
      "GET / HTTP/1.1\r\nHost: HOST\r\nProxy-Authorization: Basic eA==\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: HOST\r\nProxy-Authorization: Basic eA==\r\n\r\n",
    ],
  ];

  test.each(FORWARDED)("%s", async (_name, sent, expected) => {
    expect(lines(await ask(outbound, sent.replaceAll("HOST", host), "ok"))).toEqual(["200"]);
    expect(seen()).toBe(expected.replaceAll("HOST", host));
  });

  test.each(["OPTIONS", "TRACE"])("RFC 9110, 7.6.2: %s counts its hops", async (method) => {
    const hops = host === "app" ? 1 : 2;
    const trace = (max: string | number, ends: string) => {
      const fields = `Host: ${host}\r\nMax-Forwards: ${max}\r\n`;
      return ask(outbound, `${method} /x HTTP/1.1\r\n${fields}\r\n`, ends);
    };
    expect(lines(await trace(hops, "ok"))).toEqual(["200"]);
    expect(seen()).toBe(`${method} /x HTTP/1.1\r\nHost: ${host}\r\nmax-forwards: 0\r\n\r\n`);
    read = "";
    const last = await trace(hops - 1, "\n");
    expect(lines(last)).toEqual([method === "TRACE" ? "501" : "200"]);
    expect(last).not.toContain("ok");
    expect(read).toBe("");
    await trace("9".repeat(30), "ok");
    expect(Number(/max-forwards: (\d+)\r\n/.exec(seen())?.[1])).toBeGreaterThan(100);
  });
});

describe.each(HOSTS)("%s: answers", (_hops, host) => {
  const GET = `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
  const OLD = `GET / HTTP/1.0\r\nHost: ${host}\r\n\r\n`;
  const ANSWERED: readonly (readonly [string, string, string, string])[] = [
    [
      "RFC 9110, 8.6: no Content-Length in 204",
      GET,
      "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nX: 1\r\n\r\n",
      "HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n",
    ],
    [
      "RFC 9110, 8.6: no Content-Length in 1xx",
      GET,
      `HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\nLink: x\r\n\r\n${OK}`,
      `HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n${OK}`,
    ],
    [
      "RFC 9110, 8.6: Content-Length of 304 and of HEAD is kept",
      GET,
      "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
      "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    ],
    [
      "RFC 9110, 8.6: Content-Length of HEAD is kept",
      `HEAD / HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
      "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    ],
    [
      "RFC 9110, 15.3.6: 205 has no content",
      GET,
      "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
      "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
    ],
    [
      "RFC 9110, 15.2: interim answers go on as they come",
      GET,
      `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n${OK}`,
      `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n${OK}`,
    ],
    [
      "RFC 9110, 15.2: HTTP/1.0 gets no interim answer",
      OLD,
      `HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n${OK}`,
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\nok",
    ],
    [
      "RFC 9112, 4: a status line has its second blank, phrase or not",
      GET,
      "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
      "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
    ],
    [
      "RFC 9112, 4: every phrase and every class of status goes on",
      GET,
      "HTTP/1.1 799 Fa\xe7on\t!\r\nContent-Length: 0\r\n\r\n",
      "HTTP/1.1 799 Fa\xe7on\t!\r\nContent-Length: 0\r\n\r\n",
    ],
    [
      "RFC 9112, 6.1: no chunks for HTTP/1.0",
      OLD,
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX: 1\r\n\r\n",
      "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok",
    ],
    [
      "RFC 9112, 7.1: extensions end here, trailers go on",
      GET,
      "HTTP/1.1 200 OK\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n" +
        '2;a="b\\"";c\r\nok\r\n000\r\nX: 1\r\nSet-Cookie: a\r\n\r\n',
      "HTTP/1.1 200 OK\r\nTrailer: X\r\ntransfer-encoding: chunked\r\n\r\n" +
        "2\r\nok\r\n0\r\nX: 1\r\n\r\n",
    ],
    [
      "RFC 9110, 7.6.1: nominated and hop-by-hop fields stay behind",
      GET,
      "HTTP/1.1 200 OK\r\nConnection: X-A, keep-alive\r\nX-A: 1\r\nKeep-Alive: timeout=5\r\n" +
        "Upgrade: h2c\r\nProxy-Connection: close\r\nContent-Length: 2\r\n\r\nok",
      OK,
    ],
  ];

  test.each(ANSWERED)("%s", async (_name, request, sent, expected) => {
    answer = sent;
    expect(await ask(outbound, request, expected)).toBe(expected);
  });
});

test("RFC 9112, 3.2: HTTP/1.0 without Host gets the name of the service that the port means", async () => {
  expect(lines(await ask(upstream, "GET /x HTTP/1.0\r\nX: 1\r\n\r\n", "ok"))).toEqual(["200"]);
  expect(seen()).toBe("GET /x HTTP/1.1\r\nhost: cart.default.mesh\r\nX: 1\r\n\r\n");
});

test("RFC 9112, 9.3: HTTP/1.0 is not left waiting behind an answer of ours", async () => {
  const old = "GET / HTTP/1.0\r\nHost: nobody.default.mesh\r\nConnection: keep-alive\r\n\r\n";
  const heard = await ask(outbound, old, "\n");
  expect(heard).toStartWith("HTTP/1.1 404 ");
  expect(heard).toContain("\r\nconnection: close\r\n");
});

test("RFC 9112, 9.3.2: answers keep the order of requests, a malformed one ends them", async () => {
  const to = (target: string, host: string) => `GET ${target} HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
  const post = "POST /2 HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n";
  const heard = await ask(
    outbound,
    `${to("/1", "app")}${post}1\r\nx\r\n0\r\n\r\n${to("/3", "nobody.default.mesh")}` +
      `${to("/4", "cart")}GET /5 HTTP/1.1\r\nHost : cart\r\n\r\n${to("/6", "app")}`,
    "colon\n",
  );
  expect(lines(heard)).toEqual(["200", "200", "404", "200", "400"]);
  expect(read.match(/\/\d HTTP/g)).toEqual(["/1 HTTP", "/2 HTTP", "/4 HTTP"]);
});

test("RFC 9112, 9.6: an error that comes before the request's end says that it closes", async () => {
  answer = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno";
  const chunked = "Host: cart\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
  const heard = await ask(outbound, `POST / HTTP/1.1\r\n${chunked}`, "no");
  expect(heard).toBe(answer.replace("no", "").replace(/\r\n$/, "connection: close\r\n\r\nno"));
});
