import { expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startNats } from "./nats.fixture.ts";
import { startNatsServer } from "./nats-server.ts";
import { tendNatsServer } from "./tend.ts";

async function until(condition: () => boolean, ms: number): Promise<void> {
  const deadline = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error("condition not met in time");
    await Bun.sleep(10);
  }
}

test("a server that hangs is started again", async () => {
  const nats = await startNats();
  const own = nats.control();
  const bus = await nats.connect(() => own);
  await bus.ensureBucket();
  await bus.kvPut("mesh", Buffer.from("kept"));
  const stop = tendNatsServer(bus, nats.server, { patienceMs: 300, pauseMs: 10_000 });
  process.kill(nats.server.pid, "SIGSTOP");
  void bus.reconnect().catch(() => {});
  await until(() => nats.server.restarts === 1, 10_000);
  await bus.ready(10_000);
  expect(Buffer.from((await bus.kvGet("mesh")) ?? []).toString()).toBe("kept");
  stop();
  await nats.close();
}, 30_000);

test("writes that fail for long: started again, and wiped if nothing can be read", async () => {
  const nats = await startNats();
  const own = nats.control();
  const bus = await nats.connect(() => own);
  await bus.ensureBucket();
  await bus.kvPut("head", Buffer.from("1"));
  // Without its stream the server answers neither puts nor gets.
  await bus.request("$JS.API.STREAM.DELETE.KV_weft-config", new Uint8Array(0));
  const stop = tendNatsServer(bus, nats.server, { patienceMs: 200, pauseMs: 500 });
  const seen = () => nats.events.map(({ event }) => event);
  const writing = setInterval(() => void bus.kvPut("head", Buffer.from("2")).catch(() => {}), 50);
  await until(() => seen().includes("nats_wiped"), 15_000);
  clearInterval(writing);
  stop();
  await bus.ready(5_000);
  expect(seen().filter((event) => event === "nats_restart").length).toBe(2);
  expect(await bus.ensureBucket()).toEqual({ created: true });
  expect(await bus.kvPut("head", Buffer.from("3"))).toBe(1);
  expect(bus.stuckSince).toBeUndefined();
  await nats.close();
}, 30_000);

test("a store that keeps the server from starting is dropped", async () => {
  const nats = await startNats();
  const own = nats.control();
  const bus = await nats.connect(() => own);
  await bus.ensureBucket();
  for (let n = 0; n < 50; n++) await bus.kvPut(`k${n}`, Buffer.from(`value${n}`));
  await nats.server.stop();
  const store = join(nats.folder, "nats", "store");
  for (const name of readdirSync(store, { recursive: true }).map(String)) {
    if (!name.endsWith(".blk")) continue;
    const bytes = readFileSync(join(store, name));
    const middle = bytes.length >> 1;
    bytes[middle] = (bytes[middle] ?? 0) ^ 1;
    writeFileSync(join(store, name), bytes);
  }
  const again = await startNatsServer(nats.options);
  await bus.ready(5_000);
  await bus.ensureBucket();
  await bus.kvPut("head", Buffer.from("1"));
  expect(Buffer.from((await bus.kvGet("head")) ?? []).toString()).toBe("1");
  await again.stop();
  await nats.close();
}, 30_000);
