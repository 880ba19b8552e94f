import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { inboxPrefix } from "../identity/rights.ts";
import type { Bus } from "./bus.ts";
import { BusError } from "./bus-error.ts";
import { type NatsFixture, startNats } from "./nats.fixture.ts";

const reviews = { namespace: "default", service: "reviews", instance: "abcdefghij" };
const text = (value: string) => new TextEncoder().encode(value);
const untext = (value: Uint8Array | undefined) =>
  value === undefined ? undefined : new TextDecoder().decode(value);

async function until(condition: () => boolean, ms = 5_000): Promise<void> {
  const deadline = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error("condition not met in time");
    await Bun.sleep(5);
  }
}

let nats: NatsFixture;
let control: Bus;

beforeAll(async () => {
  nats = await startNats();
  const credentials = nats.control();
  control = await nats.connect(() => credentials);
});
afterAll(() => nats.close());

describe("documents", () => {
  test("the bucket is created once", async () => {
    expect(await control.ensureBucket()).toEqual({ created: true });
    expect(await control.ensureBucket()).toEqual({ created: false });
  });

  test("a put is read by direct get and heard by subscribers", async () => {
    const heard: string[] = [];
    const stop = control.kvSubscribe("out.default.*", (key, value) => {
      heard.push(`${key}=${untext(value)}`);
    });
    expect(await control.kvGet("out.default.cart")).toBeUndefined();
    const first = await control.kvPut("out.default.cart", text("one"));
    expect(await control.kvPut("out.default.cart", text("two"))).toBeGreaterThan(first);
    expect(untext(await control.kvGet("out.default.cart"))).toBe("two");
    await until(() => heard.length === 2);
    expect(heard).toEqual(["out.default.cart=one", "out.default.cart=two"]);
    stop();
  });

  test("requests are answered, and an unanswered subject is told apart", async () => {
    const stop = control.reply("weft.rpc.renew.>", (subject, data) =>
      text(`${subject} ${untext(data)}`),
    );
    const answer = await control.request("weft.rpc.renew.a.b.c", text("hello"));
    expect(untext(answer)).toBe("weft.rpc.renew.a.b.c hello");
    stop();
    const error = await control.request("weft.rpc.renew.a.b.c", text("x")).catch((e) => e);
    expect(error).toBeInstanceOf(BusError);
    expect(error.code).toBe("no_responder");
  });
});

describe("life of the server", () => {
  test("killed: back within a second, nothing lost, subscriptions kept", async () => {
    await control.kvPut("mesh", text("kept"));
    const heard: string[] = [];
    control.kvSubscribe("mesh", (_, value) => heard.push(untext(value) ?? ""));
    const before = nats.server.pid;
    const started = performance.now();
    process.kill(before, "SIGKILL");
    await until(() => control.status.value === "down");
    await until(() => control.status.value === "up");
    expect(performance.now() - started).toBeLessThan(2_000);
    expect(nats.server.pid).not.toBe(before);
    expect(nats.server.restarts).toBe(1);
    expect(await control.ensureBucket()).toEqual({ created: false });
    expect(untext(await control.kvGet("mesh"))).toBe("kept");
    await control.kvPut("mesh", text("after"));
    await until(() => heard.includes("after"));
  });

  test("down: publishing is dropped and requests fail at once", async () => {
    process.kill(nats.server.pid, "SIGKILL");
    await until(() => control.status.value === "down");
    const error = await control.kvGet("mesh").catch((e) => e);
    expect(error.code).toBe("down");
    expect(control.publish("weft.ack.a.b.c", text("x"))).toBe(false);
    await control.ready(5_000);
  });
});

describe("credentials of a workload", () => {
  test("expiry: reconnects with the renewed JWT, no message lost afterwards", async () => {
    let credentials = nats.workload(reviews, [], 2_000);
    const bus = await nats.connect(() => credentials, inboxPrefix(reviews));
    const heard: string[] = [];
    bus.kvSubscribe("head", (_, value) => heard.push(untext(value) ?? ""));
    credentials = nats.workload(reviews, []);
    await bus.reconnect();
    await Bun.sleep(2_500);
    expect(bus.status.value).toBe("up");
    await control.kvPut("head", text("1"));
    await until(() => heard.includes("1"));
  });

  test("renewed too late: comes back as soon as the credentials are good", async () => {
    let credentials = nats.workload(reviews, [], 1_500);
    const bus = await nats.connect(() => credentials, inboxPrefix(reviews));
    await until(() => bus.status.value === "down");
    await Bun.sleep(1_500);
    expect(bus.status.value).toBe("down");
    credentials = nats.workload(reviews, []);
    await bus.ready(6_000);
    expect(await bus.kvGet("head")).toBeDefined();
  }, 20_000);

  test("a refused subscription works after new rights and a reconnect", async () => {
    let credentials = nats.workload(reviews, []);
    const bus = await nats.connect(() => credentials, inboxPrefix(reviews));
    const refusals: string[] = [];
    const heard: string[] = [];
    bus.kvSubscribe("eps.default.cart.*", (key) => heard.push(key), {
      refused: (error) => refusals.push(error.message),
    });
    await until(() => refusals.length === 1);
    credentials = nats.workload(reviews, ["eps.default.cart.*"]);
    await bus.reconnect();
    await bus.kvGet("head");
    await control.kvPut("eps.default.cart.0", text("x"));
    await until(() => heard.length === 1);
  });

  test("a JWT with 2,000 services connects", async () => {
    const keys = Array.from({ length: 2_000 }, (_, n) => [
      `out.default.service-with-a-long-name-${n}`,
      `eps.default.service-with-a-long-name-${n}.*`,
    ]).flat();
    const credentials = nats.workload(reviews, keys);
    const bus = await nats.connect(() => credentials, inboxPrefix(reviews));
    expect(await bus.kvGet("out.default.service-with-a-long-name-1999")).toBeUndefined();
  });
});
