import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Bus } from "../bus/bus.ts";
import { type NatsFixture, startNats } from "../bus/nats.fixture.ts";
import { Failure } from "../error.ts";
import { inboxPrefix, subjectId } from "../identity/rights.ts";
import { openStore, type Store } from "../store/store.ts";
import { forgetWorkloads, putJoined } from "../store/workloads.ts";
import { createLogger } from "../telemetry/log.ts";
import { LEASE_MS } from "./lease.ts";
import { type RegisteredService, Registry } from "./registry.ts";

const log = createLogger({ format: "json", level: "error", now: Date.now, write: () => {} });

let nats: NatsFixture;
let control: Bus;
let folder: string;
let store: Store;
let registry: Registry;
let clock = 1_000_000;
let published = 0;
/** Of the bus, that the next publication has. */
let rev = 0;
let services: RegisteredService[] = [];

beforeAll(async () => {
  nats = await startNats();
  const credentials = nats.control();
  control = await nats.connect(() => credentials);
  await control.ensureBucket();
});
afterAll(() => nats.close());

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "weft-registry-"));
  store = openStore(join(folder, "weft.db"));
  services = [];
  published = 0;
  rev = 0;
  registry = open();
});

afterEach(() => {
  registry.close();
  store.close();
  rmSync(folder, { recursive: true, force: true });
});

function open(over: Store = store): Registry {
  const opened = new Registry({
    store: over,
    bus: control,
    ensureService: (service) => services.push(service),
    publish: async () => {
      published += 1;
      return rev;
    },
    now: Date.now,
    clock: () => clock,
    hostAddresses: () => ["127.0.0.1", "10.1.2.3"],
    log,
  });
  opened.start();
  return opened;
}

/** Lets time pass as the timer of a running registry would see it. */
async function pass(ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 1_000) {
    clock += Math.min(left, 1_000);
    await registry.probe();
    registry.sweep();
  }
}

const registration = {
  boot: "b1",
  addr: "127.0.0.1",
  meshPort: 17006,
  ports: { "80": { app: 8080, protocol: "http" } },
  labels: { version: "v1" },
  locality: "",
  weight: 100,
  version: "0.1.0",
  schema: 1,
};

/** A workload that has joined, with its own connection and credentials. */
async function member(service: string, instance: string) {
  const name = { namespace: "default", service, instance };
  const identity = `spiffe://weft.local/ns/default/sa/${service}`;
  const rest = { serviceAccount: service, identity, tokenId: "t", joinedAt: 1 };
  putJoined(store, { ...name, ...rest });
  const credentials = nats.workload(name, []);
  const bus = await nats.connect(() => credentials, inboxPrefix(name));
  return {
    bus,
    async call(kind: string, body: object): Promise<Record<string, unknown>> {
      // Answered behind the subscriptions of a registry that was just opened.
      await control.kvGet("head");
      const bytes = Buffer.from(JSON.stringify(body));
      const answer = await bus.request(`weft.rpc.${kind}.${subjectId(name)}`, bytes);
      return JSON.parse(Buffer.from(answer).toString()) as Record<string, unknown>;
    },
  };
}

function codeOf(answer: Record<string, unknown>): unknown {
  return (answer["error"] as { readonly code?: unknown } | undefined)?.code;
}

test("a registration becomes an endpoint under the identity of its join", async () => {
  const cart = await member("cart", "cart000001");
  expect(await cart.call("register", registration)).toEqual({ leaseMs: 12_000, renewMs: 4_000 });
  expect(registry.endpoints()).toEqual([
    {
      namespace: "default",
      service: "cart",
      shard: 0,
      id: "cart000001",
      address: "127.0.0.1",
      meshPort: 17006,
      identity: "spiffe://weft.local/ns/default/sa/cart",
      ports: { "80": 8080 },
      labels: { version: "v1" },
      locality: "",
      weight: 100,
    },
  ]);
  expect(services[0]?.ports).toEqual([{ port: 80, protocol: "http" }]);
});

test("leaving is answered when every other proxy knows of it, or after a second", async () => {
  const cart = await member("cart", "cart000001");
  const slow = await member("web", "web0000001");
  const quick = await member("web", "web0000002");
  for (const { call } of [cart, slow, quick]) await call("register", registration);
  rev = 7;
  const ack = (of: string, at: number) =>
    quick.bus.publish(of, Buffer.from(JSON.stringify({ epoch: 1, rev: at, refused: [] })));
  let left = 0;
  const leaving = cart.call("deregister", { boot: "b1" }).then(() => {
    left = performance.now();
  });
  ack("weft.ack.default.web.web0000002", 7);
  slow.bus.publish(
    "weft.ack.default.web.web0000001",
    Buffer.from(JSON.stringify({ epoch: 1, rev: 6, refused: [] })),
  );
  await Bun.sleep(150);
  expect(registry.endpoints().map(({ id }) => id)).not.toContain("cart000001");
  expect(left).toBe(0);
  slow.bus.publish(
    "weft.ack.default.web.web0000001",
    Buffer.from(JSON.stringify({ epoch: 1, rev: 8, refused: [] })),
  );
  await leaving;
  // Somebody who hangs holds nobody up for long.
  rev = 9;
  await slow.call("deregister", { boot: "b1" });
  expect(registry.listening()).toEqual(["web0000002"]);
});

test("a port registered without a protocol is declared without one", async () => {
  const cart = await member("cart", "cart000001");
  const ports = { "80": { app: 8080, protocol: "tcp", detect: true } };
  await cart.call("register", { ...registration, ports });
  expect(services[0]?.ports).toEqual([{ port: 80 }]);
  expect(registry.endpoints()[0]?.ports).toEqual({ "80": 8080 });
});

test("leaving is answered after the removal is published, and only the same start may leave", async () => {
  const cart = await member("cart", "cart000001");
  await cart.call("register", registration);
  await Bun.sleep(30);
  await cart.call("register", { ...registration, boot: "b2" });
  await cart.call("deregister", { boot: "b1" });
  expect(registry.endpoints().length).toBe(1);
  const before = published;
  expect(await cart.call("deregister", { boot: "b2" })).toEqual({});
  expect(registry.endpoints()).toEqual([]);
  expect(published).toBe(before + 1);
});

test("a health that fails takes the endpoint out until it is good again", async () => {
  const cart = await member("cart", "cart000001");
  await cart.call("register", registration);
  await cart.call("renew", { boot: "b1", health: "failing", inflight: 0 });
  expect(registry.endpoints()).toEqual([]);
  await cart.call("renew", { boot: "b1", health: "ok", inflight: 0 });
  expect(registry.endpoints().length).toBe(1);
});

describe("refused", () => {
  const rows: readonly (readonly [string, object, string])[] = [
    ["an address that is not its own", { addr: "192.0.2.1" }, "address_unknown"],
    ["a name for an address", { addr: "localhost" }, "registration_invalid"],
    [
      "its own mesh port as application",
      { ports: { "80": { app: 17006, protocol: "tcp" } } },
      "port_reserved",
    ],
    [
      "an unknown protocol",
      { ports: { "80": { app: 1, protocol: "smtp" } } },
      "registration_invalid",
    ],
    [
      "a port beyond 65535",
      { ports: { "80": { app: 70000, protocol: "tcp" } } },
      "registration_invalid",
    ],
    ["labels that are no texts", { labels: { a: 1 } }, "registration_invalid"],
  ];
  for (const [name, change, code] of rows) {
    test(name, async () => {
      const cart = await member("cart", "cart000001");
      expect(codeOf(await cart.call("register", { ...registration, ...change }))).toBe(code);
      expect(registry.endpoints()).toEqual([]);
      expect(registry.refusals.get(code)).toBe(1);
    });
  }

  test("an address other than the one the API saw", async () => {
    const cart = await member("cart", "cart000001");
    registry.noteSource("cart000001", "10.9.9.9");
    const there = { ...registration, addr: "10.9.9.8" };
    expect(codeOf(await cart.call("register", there))).toBe("address_refused");
    expect(await cart.call("register", { ...registration, addr: "10.9.9.9" })).toHaveProperty(
      "leaseMs",
    );
  });

  test("somebody else's subject does not even arrive", async () => {
    const cart = await member("cart", "cart000001");
    await member("web", "web0000001");
    const bytes = Buffer.from(JSON.stringify(registration));
    const attempt = cart.bus.request("weft.rpc.register.default.web.web0000001", bytes, 500);
    expect(await attempt.catch(() => "refused")).toBe("refused");
    expect(registry.endpoints()).toEqual([]);
  });
});

describe("leases", () => {
  test("a silent workload is gone within 15 s, and not before 12", async () => {
    const cart = await member("cart", "cart000001");
    await cart.call("register", registration);
    await pass(LEASE_MS - 1_000);
    expect(registry.endpoints().length).toBe(1);
    await pass(2_000);
    expect(registry.endpoints()).toEqual([]);
    expect(registry.lapses).toBe(1);
    expect(codeOf(await cart.call("renew", { boot: "b1" }))).toBe("not_registered");
  });

  test("a new control plane keeps what it finds for one lease", async () => {
    const cart = await member("cart", "cart000001");
    await cart.call("register", registration);
    registry.close();
    clock += 3_600_000;
    registry = open();
    expect(registry.endpoints().length).toBe(1);
    await pass(LEASE_MS - 1_000);
    expect(registry.endpoints().length).toBe(1);
    await pass(2_000);
    expect(registry.endpoints()).toEqual([]);
  });

  test("no lease runs out while the bus is away, nor for one lease after", async () => {
    const cart = await member("cart", "cart000001");
    await cart.call("register", registration);
    process.kill(nats.server.pid, "SIGKILL");
    for (let n = 0; n < 1_000 && control.status.value === "up"; n++) await Bun.sleep(5);
    await pass(60_000);
    expect(registry.endpoints().length).toBe(1);
    await control.ready(5_000);
    await pass(LEASE_MS - 2_000);
    expect(registry.endpoints().length).toBe(1);
    await pass(4_000);
    expect(registry.endpoints()).toEqual([]);
  }, 20_000);

  test("nor while the bus stands still without being gone", async () => {
    const cart = await member("cart", "cart000001");
    await cart.call("register", registration);
    process.kill(nats.server.pid, "SIGSTOP");
    for (let n = 0; n < 20; n++) {
      clock += 1_000;
      void registry.probe();
      registry.sweep();
    }
    process.kill(nats.server.pid, "SIGCONT");
    expect(registry.endpoints().length).toBe(1);
    await Bun.sleep(50);
    await pass(LEASE_MS - 2_000);
    expect(registry.endpoints().length).toBe(1);
    await pass(4_000);
    expect(registry.endpoints()).toEqual([]);
  });

  test("a control plane that stood still does not blame its workloads", async () => {
    const cart = await member("cart", "cart000001");
    await cart.call("register", registration);
    clock += 60_000;
    registry.sweep();
    expect(registry.endpoints().length).toBe(1);
  });

  test("most of a service silent at once: kept as suspect, and forgiven when heard", async () => {
    const one = await member("cart", "cart000001");
    const two = await member("cart", "cart000002");
    await one.call("register", registration);
    await two.call("register", registration);
    await pass(LEASE_MS + 2_000);
    expect(registry.endpoints().map(({ suspect }) => suspect)).toEqual([true, true]);
    await one.call("renew", { boot: "b1", health: "ok", inflight: 1 });
    expect(registry.endpoints().map(({ suspect }) => suspect)).toEqual([undefined, true]);
  });
});

test("the 51st endpoint of a service opens its second shard, and shards are kept", async () => {
  const members = await Promise.all(
    Array.from({ length: 51 }, (_, n) => member("big", `big${String(n).padStart(7, "0")}`)),
  );
  for (const each of members) await each.call("register", registration);
  const shards = registry.endpoints().map(({ shard }) => shard);
  expect(shards.filter((shard) => shard === 0).length).toBe(50);
  expect(shards.filter((shard) => shard === 1).length).toBe(1);
  registry.close();
  registry = open();
  expect(registry.endpoints().map(({ shard }) => shard)).toEqual(shards);
  for (const { bus } of members) await bus.close();
}, 20_000);

test("acknowledgements: waiting ends when the last listener has answered", async () => {
  const one = await member("cart", "cart000001");
  const two = await member("cart", "cart000002");
  await one.call("register", registration);
  await two.call("register", registration);
  const ack = (rev: number, refused: readonly object[] = []) =>
    Buffer.from(JSON.stringify({ epoch: 1, rev, refused }));
  const waiting = registry.acks.wait(5, () => registry.listening(), 2_000);
  one.bus.publish("weft.ack.default.cart.cart000001", ack(6));
  two.bus.publish("weft.ack.default.cart.cart000002", ack(5, [{ key: "mesh", reason: "no" }]));
  const done = await waiting;
  expect(done.acked).toEqual(["cart000001"]);
  expect(done.refused).toEqual([{ instance: "cart000002", key: "mesh", reason: "no" }]);
  const late = await registry.acks.wait(7, () => registry.listening(), 50);
  expect(late.waiting).toEqual(["cart000001", "cart000002"]);
});

test("an application that was ill is still ill to the next control plane", async () => {
  const cart = await member("cart", "cart000011");
  await cart.call("register", registration);
  await cart.call("renew", { boot: "b1", health: "failing", inflight: 0 });
  registry.close();
  registry = open();
  expect(registry.workloads()).toMatchObject([{ instance: "cart000011", state: "failing" }]);
  expect(registry.endpoints()).toEqual([]);
  await cart.call("renew", { boot: "b1", health: "ok", inflight: 0 });
  registry.close();
  registry = open();
  expect(registry.endpoints()).toHaveLength(1);
});

test("a workload that asks without pause is held off, and others are not", async () => {
  const cart = await member("cart", "cart000013");
  const web = await member("web", "web0000013");
  const codes: unknown[] = [];
  for (let i = 0; i < 40; i++) {
    const body = { ...registration, boot: `b${i}`, weight: i };
    codes.push(codeOf(await cart.call("register", body)));
  }
  expect(codes.filter((code) => code === "too_often")).toHaveLength(10);
  expect(registry.endpoints()).toMatchObject([{ weight: 29 }]);
  expect(codeOf(await web.call("register", registration))).toBeUndefined();
  await pass(10_000);
  expect(codeOf(await cart.call("renew", { boot: "b29" }))).toBeUndefined();
});

test("a flood of requests and acknowledgements is neither answered nor read", async () => {
  const cart = await member("cart", "cart000016");
  const body = Buffer.from(JSON.stringify({ boot: "b" }));
  const renew = () => cart.bus.request("weft.rpc.renew.default.cart.cart000016", body, 500);
  const answers = await Promise.all(
    Array.from({ length: 70 }, () => renew().then(String, () => "silence")),
  );
  expect(answers.filter((answer) => answer === "silence")).toHaveLength(10);
  const ack = (rev: number) =>
    cart.bus.publish(
      "weft.ack.default.cart.cart000016",
      Buffer.from(JSON.stringify({ epoch: 1, rev, refused: [] })),
    );
  for (let rev = 1; rev <= 150; rev++) ack(rev);
  await Bun.sleep(100);
  expect(registry.acks.get("cart000016")?.rev).toBe(100);
  await pass(10_000);
  ack(151);
  await Bun.sleep(100);
  expect(registry.acks.get("cart000016")?.rev).toBe(151);
});

test("metrics are listed only where the workload is", async () => {
  const cart = await member("cart", "cart000014");
  const listed = async (metrics: string) => {
    expect(codeOf(await cart.call("register", { ...registration, metrics }))).toBeUndefined();
    return registry.workloads()[0]?.registration.metrics;
  };
  for (const elsewhere of ["169.254.169.254:80", "internal.example:80", "127.0.0.1:99999"]) {
    expect(await listed(elsewhere)).toBeUndefined();
  }
  for (const own of ["127.0.0.1:17020", "[::1]:17020", "localhost:17020"]) {
    expect(await listed(own)).toBe(own);
  }
});

test("a disk that is full neither ends the control plane nor keeps the dead alive", async () => {
  const cart = await member("cart", "cart000015");
  await cart.call("register", registration);
  registry.close();
  const full: Store = {
    ...store,
    write: () => {
      throw new Failure("disk_full", "no space left", "free space", { status: 507 });
    },
  };
  registry = open(full);
  await cart.call("renew", { boot: "b1", health: "failing", inflight: 0 });
  expect(registry.endpoints()).toEqual([]);
  await pass(2 * LEASE_MS + 2_000);
  expect(registry.workloads()).toEqual([]);
});

test("a forgotten instance is no endpoint, and cannot come back without joining", async () => {
  const cart = await member("cart", "cart000016");
  await cart.call("register", registration);
  await Bun.sleep(20);
  published = 0;
  rev = 0;
  forgetWorkloads(store, ["cart000016"]);
  registry.forget("cart000016");
  expect(registry.endpoints()).toEqual([]);
  await Bun.sleep(20);
  expect(published).toBe(1);
  expect(codeOf(await cart.call("renew", { boot: "b1" }))).toBe("not_registered");
  expect(codeOf(await cart.call("register", registration))).toBe("not_joined");
});
