import { afterAll, expect, test } from "bun:test";
import { FirstBytes } from "../http/h1/first-bytes.ts";
import { Connection } from "../net/connection.ts";
import { Destination } from "../upstream/destination.ts";
import { Endpoint } from "../upstream/endpoint.ts";
import { Allowance } from "./allowance.ts";
import { snapshotOf } from "./mesh.fixture.ts";
import { ReplayBuffer } from "./retry.ts";
import { sabotage } from "./sabotage.fixture.ts";
import {
  caller,
  eventually,
  newPlane,
  plainApp,
  rawServer,
  roomLeft,
  stopAll,
  talk,
  targetOf,
} from "./servers.fixture.ts";
import { Verdicts } from "./verdicts.ts";

afterAll(stopAll);

const places: readonly (readonly [method: string, of: object])[] = [
  ["pick", Destination.prototype],
  ["dial", Endpoint.prototype],
  ["retry", Allowance.prototype],
  ["settle", Allowance.prototype],
  ["add", ReplayBuffer.prototype],
  ["chunks", ReplayBuffer.prototype],
  ["clear", ReplayBuffer.prototype],
  ["push", FirstBytes.prototype],
  ["get", Verdicts.prototype],
  ["put", Verdicts.prototype],
  ["write", Connection.prototype],
  ["end", Connection.prototype],
  ["pause", Connection.prototype],
  ["resume", Connection.prototype],
];

test.each(places)(
  "%s throwing costs single tunnels, and nothing of them is left",
  async (method, of) => {
    const near = newPlane({ descriptors: 1000 });
    const far = newPlane({ descriptors: 1000 });
    const app = rawServer({
      open: (socket, i) => void (i % 3 === 0 ? socket.terminate() : socket.write("hi")),
      data: (socket, text) => void socket.write(text),
    });
    far.workload("app", [{ servicePort: 80, host: "127.0.0.1", port: app.port }]);
    const endpoints = [{}, { id: "2" }, { id: "3", meshPort: 1 }].map((more) =>
      far.endpoint("app", more),
    );
    const web = caller(near, [{ service: "app", port: 80, detect: true, endpoints }]);
    const to = { namespace: "default", service: "app" };
    const port = near.plane.listenUpstream(web.local, to, "127.0.0.1", 0);
    const room = web.local.state.rooms.outbound;
    const before = roomLeft(room);
    const one = async (i: number) => {
      const { socket, heard } = talk(port, i % 4 === 0 ? "" : `${i}`.repeat(1 + (i % 50)));
      setTimeout(() => socket.end(), 20 + (i % 30));
      await heard;
    };
    const undo = sabotage(of, method, 5);
    let settled = 0;
    const calls = Array.from({ length: 60 }, (_, i) => one(i).then(() => settled++));
    await Promise.race([Promise.all(calls), Bun.sleep(3000)]);
    undo();
    expect(settled).toBe(60);
    const destination = web.local.upstreams.destination(targetOf(web, "app"));
    const idle = () =>
      near.plane.active + far.plane.active === 0 && app.open === 0 && roomLeft(room) === before;
    await eventually(idle);
    expect([near.plane.active, far.plane.active, app.open]).toEqual([0, 0, 0]);
    expect(near.metrics.render()).not.toMatch(/weft_connections_active\{.*\} [1-9]/);
    expect(roomLeft(room)).toBe(before);
    const counts = [destination.active, destination.budget.active];
    const endpointCounts = destination.endpoints().map(({ active }) => active);
    expect([...counts, ...endpointCounts]).toEqual([0, 0, 0, 0, 0]);
  },
  15_000,
);

test("who waits for a service hears of it although another's exception came first", async () => {
  const plane = newPlane();
  const web = plane.workload("web");
  plane.onAccess = () => {
    setTimeout(() => web.snapshot.set(snapshotOf([plainApp([1])])), 20);
    return true;
  };
  const heard: boolean[] = [];
  web.local.learn("default", "app", () => {
    throw new Error("a bug");
  });
  web.local.learn("default", "app", (known) => void heard.push(known));
  expect(await eventually(() => heard.length > 0)).toBe(true);
  expect(heard).toEqual([true]);
});
