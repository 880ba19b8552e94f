import { afterAll, expect, test } from "bun:test";
import { callbackErrors } from "../net/boundary.ts";
import { Attempts } from "./attempts.ts";
import { Exchange } from "./exchange.ts";
import { sabotage } from "./sabotage.fixture.ts";
import {
  caller,
  eventually,
  newPlane,
  plainApp,
  rawServer,
  serve,
  stopAll,
  talk,
  targetOf,
} from "./servers.fixture.ts";

/** Of 60 requests each. */
const ROUNDS = process.env["WEFT_LONG"] === "1" ? 10 : 1;

afterAll(stopAll);

const thrown = () => [...callbackErrors().values()].reduce((a, b) => a + b, 0);

const places: readonly (readonly [method: string, of: object])[] = [
  ["data", Exchange.prototype],
  ["drain", Exchange.prototype],
  ["close", Exchange.prototype],
  ["tick", Exchange.prototype],
  ["forward", Exchange.prototype],
  ["onAnswer", Exchange.prototype],
  ["onGivenUp", Exchange.prototype],
  ["proceed", Exchange.prototype],
  ["onConnected", Attempts.prototype],
  ["onConnectFailed", Attempts.prototype],
  ["onClientEnd", Attempts.prototype],
  ["onClientClosed", Attempts.prototype],
  ["fail", Attempts.prototype],
];

test.each(places)(
  "%s throwing costs single requests and is counted",
  async (method, of) => {
    const plane = newPlane();
    const port = serve(async (request) => {
      const body = await request.text();
      if (new URL(request.url).pathname === "/slow") await Bun.sleep(150);
      return new Response(body);
    });
    plane.workload("app", [{ servicePort: 80, host: "127.0.0.1", port }]);
    const policy = { maxConnections: 8, requestTimeoutMs: 100, balancer: "round_robin" } as const;
    const endpoints = [plane.endpoint("app"), { ...plane.endpoint("app"), meshPort: 1 }];
    const web = caller(plane, [{ service: "app", port: 80, policy, endpoints }]);
    const before = thrown();
    const undo = sabotage(of, method, 5);
    let settled = 0;
    const ask = (path: string) =>
      fetch(`${web.url}${path}`, {
        ...{ method: "POST", headers: { host: "app" }, body: "x".repeat(3000), keepalive: false },
        signal: AbortSignal.timeout(2500),
      }).then((answer) => answer.text());
    for (let round = 0; round < ROUNDS; round++) {
      const calls = Array.from({ length: 60 }, (_, i) =>
        ask(i % 4 === 0 ? "/slow" : "/").then(
          () => settled++,
          (error: Error) => {
            if (error.name !== "TimeoutError") settled++;
          },
        ),
      );
      await Promise.all(calls);
    }
    undo();
    expect(settled).toBe(ROUNDS * 60);
    const { upstreams } = web.local;
    const destination = upstreams.destination(targetOf(web, "app"));
    await eventually(() => plane.plane.active === 0 && destination.active === 0);
    const counts = [plane.plane.active, destination.active, destination.budget.active];
    expect([...counts, ...destination.endpoints().map(({ active }) => active)]).toEqual([
      ...[0, 0, 0, 0, 0],
    ]);
    expect(await ask("/")).toBe("x".repeat(3000));
    const walkedOften = ["data", "forward", "onAnswer", "proceed", "onConnected"];
    if (walkedOften.includes(method)) expect(thrown()).toBeGreaterThan(before);
  },
  ROUNDS * 15_000,
);

test("an answer that lasts until its end is not whole when an exception has ended it", async () => {
  const app = rawServer({
    async data(socket) {
      socket.write("HTTP/1.1 200 OK\r\n\r\none");
      await Bun.sleep(50);
      socket.write("two");
    },
  });
  const web = caller(newPlane(), [plainApp([app.port])]);
  const undo = sabotage(Exchange.prototype, "onAnswer", 2);
  const { text, error } = await talk(web.outbound, "GET / HTTP/1.1\r\nHost: app\r\n\r\n").heard;
  undo();
  expect(text).toContain("\r\n3\r\none\r\n");
  expect([text.includes("\r\n0\r\n"), error]).toEqual([false, "ECONNRESET"]);
});
