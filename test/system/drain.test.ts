/** Leaving as a contract: instances restart one by one under load, and what is open ends in order. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { load } from "../harness/load.ts";
import {
  ask,
  metrics,
  type Sidecar,
  sumMetric,
  TestMesh,
  takePorts,
  until,
  WEFT,
} from "../harness/mesh.ts";
import { type App, echo } from "../harness/servers.ts";

/** How often each of the two instances is restarted. */
const ROUNDS = Number(process.env["RESTARTS"] ?? 1);
const HEAVY = { concurrency: 8, perSecond: 800 };

let mesh: TestMesh;
let web: Sidecar;
const instances: Sidecar[] = [];
let app: App;
let bytes: Server;
const upstream = takePorts(1);

beforeAll(async () => {
  app = echo("api");
  bytes = createServer((socket) => void socket.on("error", () => {}).pipe(socket));
  await new Promise<void>((resolve) => bytes.listen(0, "127.0.0.1", () => resolve()));
  const { port } = bytes.address() as { port: number };
  mesh = await TestMesh.start();
  const ports = [`80=${app.port}/http`, `9000=${port}/tcp`];
  for (let i = 0; i < 2; i++) instances.push(await mesh.sidecar({ service: "api", app: ports }));
  web = await mesh.sidecar({ service: "web", upstream: [`api/9000:${upstream}`] });
}, 60_000);

afterAll(async () => {
  app?.stop();
  bytes?.close();
  await mesh?.stop();
});

/** Whoever restarts the next one goes by this one's readiness. */
async function restart(i: number): Promise<void> {
  const { args, data, admin } = instances[i]!;
  instances[i] = await mesh.proxy([WEFT, ...args], data, Number(new URL(admin).port) - 20);
  expect(sumMetric(await metrics(instances[i]!), "weft_registered")).toBe(1);
}

test(
  "two instances restart one after the other under load: no request fails",
  async () => {
    const under = load(() => ask(web.outbound, "api:80"), HEAVY);
    await until("the load runs", () => under.ok > 100);
    for (let round = 0; round < ROUNDS; round++) {
      for (const i of [0, 1]) {
        instances[i]!.kill("SIGTERM");
        expect(await instances[i]!.exited).toBe(0);
        await restart(i);
      }
    }
    await Bun.sleep(200);
    await under.stop();
    expect(under.failures).toEqual([]);
    expect(under.ok).toBeGreaterThan(500);
  },
  20_000 * ROUNDS,
);

/** A tunnel through the mesh that is known to work. */
async function tunnel(): Promise<{ socket: Socket; says: (text: string) => Promise<string> }> {
  const socket = connect({ host: "127.0.0.1", port: upstream });
  socket.on("error", () => {});
  const says = (text: string) =>
    new Promise<string>((resolve) => {
      socket.once("data", (chunk) => resolve(chunk.toString()));
      socket.once("close", () => resolve("closed"));
      socket.write(text);
    });
  expect(await says("hello")).toBe("hello");
  return { socket, says };
}

test("a tunnel lives to its end in a drain, which ends with it", async () => {
  const ends = [...instances];
  const { socket, says } = await tunnel();
  for (const one of ends) one.kill("SIGTERM");
  // One of them has the tunnel, the other has nothing under way.
  expect(await Promise.race(ends.map((one) => one.exited))).toBe(0);
  await Bun.sleep(500);
  expect(await says("still there")).toBe("still there");
  socket.end();
  expect(await Promise.all(ends.map((one) => one.exited))).toEqual([0, 0]);
  await Promise.all([restart(0), restart(1)]);
}, 30_000);

test("a second signal does not wait for it", async () => {
  const { socket } = await tunnel();
  const gone = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  for (const one of instances) one.kill("SIGTERM");
  await Promise.race(instances.map((one) => one.exited));
  await Bun.sleep(300);
  const start = performance.now();
  for (const one of instances) one.kill("SIGTERM");
  expect(await Promise.all(instances.map((one) => one.exited))).toEqual([0, 0]);
  await gone;
  expect(performance.now() - start).toBeLessThan(5000);
  await Promise.all([restart(0), restart(1)]);
}, 30_000);

test("a drain asked for at the admin socket is the same", async () => {
  // Both were away at once: the caller has to hear that they are back.
  await until("the caller knows one", async () => (await ask(web.outbound, "api:80")).ok);
  const under = load(() => ask(web.outbound, "api:80"), HEAVY);
  await until("the load runs", () => under.ok > 50);
  const unix = join(instances[0]!.data, "admin.sock");
  const answer = await fetch("http://admin/drain", { unix, method: "POST" });
  expect(answer.ok).toBe(true);
  expect(await instances[0]!.exited).toBe(0);
  await under.stop();
  expect(under.failures).toEqual([]);
}, 20_000);
