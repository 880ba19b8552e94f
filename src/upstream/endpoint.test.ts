import { afterAll, expect, test } from "bun:test";
import { Endpoint } from "./endpoint.ts";
import type { HttpClient } from "./http-client.ts";

const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });

afterAll(() => server.stop(true));

function connected(endpoint: Endpoint): Promise<HttpClient> {
  const { promise, resolve, reject } = Promise.withResolvers<HttpClient>();
  endpoint.connect(1000, { onConnected: resolve, onConnectFailed: reject }, 0);
  return promise;
}

test("all endpoints together keep no more unused connections than the process may", async () => {
  const kept = { max: 3, count: 0 };
  const address = { host: "127.0.0.1", port: server.port, weight: 1 };
  const [first, second] = [0, 1].map(() => new Endpoint(address, () => 0, kept)) as [
    Endpoint,
    Endpoint,
  ];
  for (const endpoint of [first, first, second, second]) {
    endpoint.put(await connected(endpoint), 0, 1000);
  }
  expect([first.idle, second.idle, kept.count]).toEqual([2, 1, 3]);
  // Taken, gone or swept: there is room again.
  const taken = first.take(0);
  expect(kept.count).toBe(2);
  first.put(taken!, 0, 1000);
  second.sweep(2000);
  expect([second.idle, kept.count]).toEqual([0, 2]);
  const other = first.take(0)!;
  other.connection.destroy();
  first.put(other, 0, 1000);
  expect(kept.count).toBe(1);
  first.closeIdle();
  expect([first.idle, kept.count]).toEqual([0, 0]);
});
