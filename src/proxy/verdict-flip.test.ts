/** A service whose application is replaced by one that speaks something else. */
import { afterAll, expect, test } from "bun:test";
import { caller, newPlane, rawServer, stopAll, talk } from "./servers.fixture.ts";

afterAll(stopAll);

const GET = "GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n";
const ANSWER = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
const PING = "*1\r\n$4\r\nPING\r\n";

type Speech = "http" | "redis" | "smtp";

/** An application that speaks what it is told to, and the bytes it heard. */
function changeling() {
  const state = { speech: "http" as Speech, heard: "" };
  const app = rawServer({
    open(socket) {
      if (state.speech === "smtp") socket.write("220 hi\r\n");
    },
    data(socket, text) {
      state.heard += text;
      if (state.speech === "http" && text.includes("\r\n\r\n")) socket.end(ANSWER);
      if (state.speech !== "http") socket.end(`+${text.length}\r\n`);
    },
  });
  let now = 0;
  const near = newPlane({ now: () => performance.now() + now });
  const far = newPlane();
  far.workload("app", [{ servicePort: 80, host: "127.0.0.1", port: app.port }]);
  const endpoints = [far.endpoint("app")];
  const web = caller(near, [{ service: "app", port: 80, detect: true, endpoints }]);
  const to = { namespace: "default", service: "app" };
  const port = near.plane.listenUpstream(web.local, to, "127.0.0.1", 0);
  const requests = () =>
    Number(
      /weft_requests_total\{direction="outbound".*peer="default\/app".*code="200".*\} (\d+)/.exec(
        near.metrics.render(),
      )?.[1] ?? 0,
    );
  const forget = () => {
    now += 61_000;
  };
  return { state, port, requests, forget };
}

test("from HTTP to one where callers speak first: right with the first caller", async () => {
  const { state, port } = changeling();
  expect((await talk(port, GET).heard).text).toEndWith("ok");
  state.speech = "redis";
  state.heard = "";
  expect((await talk(port, PING).heard).text).toBe(`+${PING.length}\r\n`);
  expect(state.heard).toBe(PING);
});

test("from HTTP to one that speaks first: right with the first caller, 20 ms late", async () => {
  const { state, port } = changeling();
  await talk(port, GET).heard;
  state.speech = "smtp";
  const { socket, heard } = talk(port, "");
  socket.once("data", () => socket.write("QUIT\r\n"));
  expect((await heard).text).toBe("220 hi\r\n+6\r\n");
});

test("from one that speaks first to HTTP: whole at once, as requests after a minute", async () => {
  const { state, port, requests, forget } = changeling();
  state.speech = "smtp";
  const { socket, heard } = talk(port, "");
  socket.once("data", () => socket.write("QUIT\r\n"));
  expect((await heard).text).toBe("220 hi\r\n+6\r\n");
  state.speech = "http";
  state.heard = "";
  for (let i = 0; i < 3; i++) expect((await talk(port, GET).heard).text).toBe(ANSWER);
  // In a tunnel not a byte of a request is changed.
  expect([state.heard, requests()]).toEqual([GET.repeat(3), 0]);
  forget();
  expect((await talk(port, GET).heard).text).toEndWith("ok");
  expect(requests()).toBe(1);
});
