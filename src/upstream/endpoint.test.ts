import { afterAll, expect, test } from "bun:test";
import { MeshError } from "../error.ts";
import { Room } from "../net/room.ts";
import { Endpoint } from "./endpoint.ts";
import type { HttpClient } from "./http-client.ts";

const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
const address = { host: "127.0.0.1", port: server.port, weight: 1 };

afterAll(() => server.stop(true));

function connected(endpoint: Endpoint): Promise<HttpClient> {
  const { promise, resolve, reject } = Promise.withResolvers<HttpClient>();
  endpoint.connect(1000, { onConnected: resolve, onConnectFailed: reject }, 0);
  return promise;
}

function endpoints(room: Room): readonly [Endpoint, Endpoint] {
  return [new Endpoint(address, () => 0, room), new Endpoint(address, () => 0, room)];
}

test("unused connections are counted, whatever becomes of them", async () => {
  const room = new Room(100);
  const [first, second] = endpoints(room);
  for (const endpoint of [first, first, second]) {
    endpoint.put(await connected(endpoint), 0, 1000);
  }
  expect([first.idle, second.idle, room.kept]).toEqual([2, 1, 3]);
  const taken = first.take(0)!;
  expect(room.kept).toBe(2);
  first.put(taken, 0, 1000);
  second.sweep(2000);
  expect([second.idle, room.kept]).toEqual([0, 2]);
  const other = first.take(0)!;
  other.connection.destroy();
  first.put(other, 0, 1000);
  expect(room.kept).toBe(1);
  first.retire();
  expect([first.idle, room.kept]).toEqual([0, 0]);
  const late = await connected(first);
  first.put(late, 0, 1000);
  expect(first.idle).toBe(0);
});

test("a connection that is needed takes the place of the longest unused one", async () => {
  const room = new Room(4);
  const [first, second] = endpoints(room);
  const clients = [await connected(first), await connected(first), await connected(second)];
  second.put(clients[2]!, 5, 1000);
  first.put(clients[1]!, 3, 1000);
  first.put(clients[0]!, 7, 1000);
  await connected(second);
  expect([first.idle, second.idle]).toEqual([2, 1]);
  await connected(second);
  expect(clients.map(({ connection }) => connection.closed)).toEqual([false, true, false]);
  await connected(second);
  await connected(second);
  expect([first.idle, second.idle, room.kept]).toEqual([0, 0, 0]);
});

test("without any unused one it waits for one that fits, then for its place, then not", async () => {
  const room = new Room(2);
  const [first, second] = endpoints(room);
  const clients = [await connected(first), await connected(first)];
  const fits = connected(first);
  const differs = connected(second);
  const tired = connected(second);
  first.put(clients[0]!, 0, 1000);
  expect(await fits).toBe(clients[0]!);
  clients[1]!.connection.destroy();
  expect((await differs).endpoint).toBe(second);
  const error = await tired.catch((cause: unknown) => cause);
  expect(error).toBeInstanceOf(MeshError);
  expect(error).toMatchObject({ reason: "overflow" });
  expect([room.refused, room.crowded]).toEqual([1, true]);
  // A connect that fails gives its place back.
  clients[0]!.connection.destroy();
  const nobody = new Endpoint({ ...address, port: 1 }, () => 0, room);
  for (let turn = 0; turn < 3; turn++) await expect(connected(nobody)).rejects.toThrow();
  expect(await connected(first)).toBeDefined();
});
