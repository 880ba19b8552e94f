/**
 * Regular expression denial of service: texts that make a backtracking engine go over them again
 * and again. One that takes seconds holds up everybody: these tests end in time, or fail.
 */
import { afterAll, expect, test } from "bun:test";
import { snapshotOf } from "./mesh.fixture.ts";
import { newPlane, rawServer, stopAll, talk } from "./servers.fixture.ts";

afterAll(stopAll);

/** As long as a head may be, nearly. */
const LENGTH = 59 * 1024;
const PIECES = ["a", ".", "a.", ".mesh", " ", "\t", ",", ";", "=", "a=", '"', "\\"].concat(
  ...["/", "/..", "/.", "%2f", "%", ":", ":1", "-", "0", "(", "(a+)+$", "timeout="],
);
const texts = PIECES.map((piece) => `${piece.repeat(LENGTH / piece.length)}x`);

const FIELDS = ["Connection", "Keep-Alive", "TE", "Transfer-Encoding", "Content-Length"].concat(
  ...["Expect", "Upgrade", "Cookie", "Max-Forwards", "Traceparent", "X-Request-Id"],
  ...["Forwarded", "Proxy-Authorization", "Content-Type", "Weft-Reason", "Trailer"],
);

const requests = texts.flatMap((text) => [
  `GET / HTTP/1.1\r\nHost: ${text.trim()}\r\n\r\n`,
  `GET / HTTP/1.1\r\nHost: ${text.slice(0, -1).trim()}\r\n\r\n`,
  `GET /${text} HTTP/1.1\r\nHost: cart\r\n\r\n`,
  `GET /?${text} HTTP/1.1\r\nHost: cart\r\n\r\n`,
  `GET http://${text}/ HTTP/1.1\r\nHost: cart\r\n\r\n`,
  `CONNECT ${text}:80 HTTP/1.1\r\nHost: cart\r\n\r\n`,
  ...FIELDS.map((name) => `OPTIONS / HTTP/1.1\r\nHost: cart\r\n${name}: ${text}\r\n\r\n`),
]);

function statusOf(text: string): string {
  return text.slice("HTTP/1.1 ".length, "HTTP/1.1 ".length + 3);
}

test(`${requests.length} requests with hostile texts are answered`, async () => {
  const app = rawServer({
    data: (socket) => void socket.write("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
  });
  const plane = newPlane();
  plane.workload("cart", [{ servicePort: 80, host: "127.0.0.1", port: app.port }]);
  const web = plane.workload("web");
  const cart = { service: "cart", port: 80, endpoints: [plane.endpoint("cart")] };
  web.snapshot.set(snapshotOf([cart], { outbound: "ALLOW_ANY" }));
  const seen = new Set<string>();
  for (let at = 0; at < requests.length; at += 20) {
    const answers = requests.slice(at, at + 20).map(async (request) => {
      const { socket, heard } = talk(web.outbound, request);
      socket.once("data", () => socket.end());
      return statusOf((await heard).text);
    });
    for (const status of await Promise.all(answers)) seen.add(status);
  }
  expect([...seen].sort()).toEqual(["204", "400", "404", "417"]);
});

test("answers with hostile texts are passed on or refused", async () => {
  const fields = ["Connection", "Keep-Alive", "Content-Length", "Transfer-Encoding"].concat(
    ...["Weft-Reason", "Trailer", "Upgrade", "Set-Cookie"],
  );
  const answers = texts.flatMap((text) =>
    fields.map((name) => `HTTP/1.1 200 OK\r\n${name}: ${text}\r\nConnection: close\r\n\r\n`),
  );
  let next = 0;
  const app = rawServer({
    data: (socket) => {
      socket.write(answers[next++ % answers.length]!);
      socket.end();
    },
  });
  const plane = newPlane();
  const web = plane.workload("web");
  const endpoints = [{ ports: { "80": app.port } }];
  web.snapshot.set(snapshotOf([{ service: "app", port: 80, endpoints }]));
  const seen = new Set<string>();
  for (let at = 0; at < answers.length; at++) {
    const { socket, heard } = talk(web.outbound, "GET / HTTP/1.1\r\nHost: app\r\n\r\n");
    socket.once("data", () => socket.end());
    seen.add(statusOf((await heard).text));
  }
  expect([...seen].sort()).toEqual(["200", "502"]);
});
