/** How long connections to a server are kept that says how long it keeps them. */
import { afterAll, expect, test } from "bun:test";
import { snapshotOf } from "./mesh.fixture.ts";
import { newPlane, rawServer, stopAll } from "./servers.fixture.ts";

afterAll(stopAll);

/** Connections that the server saw: after a request, another at once, and one after `pauseMs`. */
async function connections(field: string, pauseMs: number): Promise<readonly number[]> {
  const server = rawServer({
    data: (socket) => void socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 0\r\n${field}\r\n`),
  });
  const plane = newPlane();
  const web = plane.workload("web");
  web.snapshot.set(
    snapshotOf([{ service: "app", port: 80, endpoints: [{ ports: { "80": server.port } }] }]),
  );
  const counts: number[] = [];
  for (const pause of [0, 0, pauseMs]) {
    await Bun.sleep(pause);
    expect((await fetch(web.url, { headers: { host: "app" } })).status).toBe(200);
    counts.push(server.accepted);
  }
  return counts;
}

test.each([
  ["", 700, [1, 1, 1]],
  ["Keep-Alive: timeout=4\r\n", 700, [1, 1, 1]],
  ["Keep-Alive: timeout=1\r\n", 700, [1, 1, 2]],
  ["Keep-Alive: timeout=0\r\n", 0, [1, 2, 3]],
])("%j, asked again after %i ms", async (field, pauseMs, counts) => {
  expect(await connections(field, pauseMs)).toEqual(counts);
});
