import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Bus } from "../bus/bus.ts";
import { type NatsFixture, startNats } from "../bus/nats.fixture.ts";
import { Failure } from "../error.ts";
import { createConfigKey } from "../identity/config-key.ts";
import { Assembler } from "../snapshot/assemble.ts";
import { configKeysOf, type Opened, openMessage, signMessage } from "../snapshot/envelope.ts";
import { openStore, type Store } from "../store/store.ts";
import { createLogger } from "../telemetry/log.ts";
import { Publisher } from "./publish.ts";

const key = createConfigKey();
const keys = configKeysOf([{ kid: key.kid, key: key.publicKey }]);
const log = createLogger({ format: "json", level: "error", now: Date.now, write: () => {} });
const STREAM = "$JS.API.STREAM.DELETE.KV_weft-config";

let nats: NatsFixture;
let bus: Bus;
let folder: string;
let store: Store;
let publisher: Publisher | undefined;

beforeAll(async () => {
  nats = await startNats();
  const credentials = nats.control();
  bus = await nats.connect(() => credentials);
});

beforeEach(async () => {
  await bus.request(STREAM, new Uint8Array(0));
  folder = mkdtempSync(join(tmpdir(), "weft-publish-"));
  store = openStore(join(folder, "weft.db"));
});

afterEach(() => {
  publisher?.close();
  publisher = undefined;
  store.close();
  rmSync(folder, { recursive: true, force: true });
});

afterAll(() => nats.close());

async function start(restored = false, now: () => number = Date.now): Promise<Publisher> {
  publisher?.close();
  publisher = await Publisher.start({ store, bus, key, restored, now, log });
  return publisher;
}

async function open(name: string): Promise<Opened> {
  const bytes = await bus.kvGet(name);
  const opened = openMessage(bytes ?? new Uint8Array(0), name, keys);
  if (opened.kind === "refused") throw new Error(`${name}: ${opened.cause} ${opened.detail}`);
  return opened;
}

async function eventually(check: () => Promise<boolean>, ms = 5_000): Promise<number> {
  const started = performance.now();
  while (!(await check().catch(() => false))) {
    if (performance.now() - started > ms) throw new Error("not in time");
    await Bun.sleep(20);
  }
  return performance.now() - started;
}

const doc = (name: string, body: object = {}) => ({ key: name, body });

test("puts what differs, removes what is gone, and the head says so", async () => {
  const it = await start();
  expect(it.publish([doc("mesh"), doc("out.a.b", { n: 1 })])).toBe(1);
  expect(await it.flushed(1, 2000)).toBe(true);
  expect((await open("out.a.b")).document).toEqual({ n: 1 });
  expect(it.publish([doc("mesh"), doc("out.a.b", { n: 1 })])).toBe(1);
  expect(it.publish([doc("mesh"), doc("out.a.c")])).toBe(2);
  await it.flushed(2, 2000);
  const head = (await open("head")).document as { prev: number; changed: [string, string][] };
  expect(head.prev).toBe(1);
  expect(head.changed.map(([name]) => name)).toEqual(["out.a.b", "out.a.c"]);
  const removal = await open("out.a.b");
  expect(removal.header.op).toBe("del");
  expect(head.changed[0]?.[1]).toBe(removal.sha256);
  expect((await open("mesh")).header.rev).toBe(1);
});

test("a restart goes on where it was, in the same epoch", async () => {
  const first = await start();
  first.publish([doc("mesh")]);
  await first.flushed(1, 2000);
  const second = await start();
  expect(second.position).toEqual(first.position);
  expect(second.current).toBe(true);
  second.publish([doc("mesh", { v: 2 })]);
  await second.flushed(2, 2000);
  expect(((await open("head")).document as { prev: number }).prev).toBe(1);
});

const headTime = async () => (await open("head")).header.t;

test("the first publication after a start is heard, also when it changes nothing", async () => {
  const it = await start();
  it.publish([doc("mesh")]);
  await it.flushed(1, 2000);
  const before = await headTime();
  const again = await start();
  // Proxies answer a fresh head: that is how a new control plane learns what they run.
  expect(again.publish([doc("mesh")])).toBe(1);
  await eventually(async () => (await headTime()) > before, 1_000);
});

test("a clock that is set back does not make heads look old", async () => {
  let t = Date.now();
  const it = await start(false, () => t);
  it.publish([doc("mesh")]);
  await it.flushed(1, 2000);
  const before = await headTime();
  t -= 3_600_000;
  it.publish([doc("mesh", { n: 1 })]);
  await it.flushed(2, 2000);
  const later = await headTime();
  expect(later).toBeGreaterThan(before);
  const again = await start(false, () => t);
  again.publish([doc("mesh", { n: 1 })]);
  await eventually(async () => (await headTime()) > later, 1_000);
});

test("changes while the bus is away are one head, live when it returns", async () => {
  const it = await start();
  it.publish([doc("mesh")]);
  await it.flushed(1, 2000);
  process.kill(nats.server.pid, "SIGKILL");
  await eventually(async () => bus.status.value === "down");
  for (let v = 2; v <= 50; v++) it.publish([doc("mesh", { v }), doc(`out.a.s${v}`)]);
  await bus.ready(5_000);
  const back = performance.now();
  expect(await it.flushed(50, 3_000)).toBe(true);
  expect(performance.now() - back).toBeLessThan(3_000);
  expect((await open("mesh")).document).toEqual({ v: 50 });
  expect(((await open("head")).document as { prev: number }).prev).toBe(1);
}, 20_000);

test("a wiped bus is written again, under a new epoch, within seconds", async () => {
  const it = await start();
  const many = Array.from({ length: 300 }, (_, n) => doc(`out.a.s${n}`, { n }));
  it.publish([doc("mesh"), ...many]);
  await it.flushed(1, 5_000);
  const { epoch } = it.position;
  await bus.request(STREAM, new Uint8Array(0));
  const ms = await eventually(async () => (await open("head")).header.epoch === epoch + 1);
  expect(ms).toBeLessThan(5_000);
  expect((await open("out.a.s299")).header).toMatchObject({ epoch: epoch + 1, rev: 1 });
}, 20_000);

test("an altered or missing document is put right", async () => {
  const it = await start();
  it.publish([doc("mesh", { good: true })]);
  await it.flushed(1, 2000);
  await bus.kvPut("mesh", Buffer.from("forged"));
  await bus.kvPut("head", Buffer.from("forged"));
  await eventually(async () => (await open("head")).header.rev === 1);
  await eventually(async () => (await open("mesh")).header.rev === 1);
  expect(it.repaired).toBe(2);
  expect(it.position.epoch).toBe((await open("head")).header.epoch);
}, 15_000);

test("a bus that is ahead or foreign is not overwritten, except when told so", async () => {
  const it = await start();
  it.publish([doc("mesh")]);
  await it.flushed(1, 2000);
  it.close();
  const ahead = { epoch: 7, rev: 70, key: "head", op: "put", t: Date.now() } as const;
  const body = { epoch: 7, rev: 70, prev: 0, t: 0, changed: [] };
  await bus.kvPut("head", signMessage(key, ahead, Buffer.from(JSON.stringify(body))));
  const refused = await start().catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(Failure);
  expect((refused as Failure).code).toBe("bus_ahead");
  const restored = await start(true);
  await eventually(async () => (await open("head")).header.epoch === 8);
  restored.close();
  await bus.kvPut("head", signMessage(createConfigKey(), ahead, Buffer.from("{}")));
  const foreign = await start().catch((error: unknown) => error);
  expect((foreign as Failure).code).toBe("bus_foreign");
});

test("a document that fits no message is refused and nothing is written", async () => {
  const it = await start();
  it.publish([doc("mesh")]);
  const big = doc("out.a.b", { text: "x".repeat(262_000) });
  expect(() => it.publish([doc("mesh"), big])).toThrow("the limit is");
  expect(it.position.rev).toBe(1);
});

test("a proxy follows 200 changes, some in bursts, to the last", async () => {
  const it = await start();
  const assembler = new Assembler(keys, ["mesh", "out.a.b"]);
  for (const name of ["head", "mesh", "out.a.b"]) {
    bus.kvSubscribe(name, (on, bytes) => assembler.offer(on, bytes));
  }
  for (let n = 1; n <= 200; n++) {
    it.publish([doc("mesh", { n }), doc("out.a.b", { n })]);
    if (n % 7 === 0) await Bun.sleep(1);
    assembler.commit(() => []);
    const documents = assembler.set?.documents;
    expect(documents?.get("mesh")).toEqual(documents?.get("out.a.b"));
  }
  await it.flushed(200, 5_000);
  await eventually(async () => {
    for (const name of assembler.take()) assembler.answered(name, await bus.kvGet(name));
    assembler.commit(() => []);
    return assembler.set?.rev === 200;
  });
  expect(assembler.set?.documents.get("mesh")).toEqual({ n: 200 });
}, 15_000);
