/** The registry's side of what it and workloads say to each other, on a real bus. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import golden from "../../test/fixtures/contracts/presence.json" with { type: "json" };
import type { Bus } from "../bus/bus.ts";
import { type NatsFixture, startNats } from "../bus/nats.fixture.ts";
import { inboxPrefix } from "../identity/rights.ts";
import { openStore, type Store } from "../store/store.ts";
import { putJoined } from "../store/workloads.ts";
import { createLogger } from "../telemetry/log.ts";
import { Registry } from "./registry.ts";

const { workload } = golden;

let nats: NatsFixture;
let folder: string;
let store: Store;
let registry: Registry;
let bus: Bus;

beforeAll(async () => {
  nats = await startNats();
  const credentials = nats.control();
  const control = await nats.connect(() => credentials);
  await control.ensureBucket();
  folder = mkdtempSync(join(tmpdir(), "weft-contracts-"));
  store = openStore(join(folder, "weft.db"));
  registry = new Registry({
    ...{ store, bus: control, ensureService: () => {}, publish: async () => 0 },
    ...{ now: Date.now, clock: () => 0, hostAddresses: () => [] },
    log: createLogger({ format: "json", level: "error", now: Date.now, write: () => {} }),
  });
  registry.start();
  const identity = "spiffe://weft.local/ns/default/sa/web";
  putJoined(store, { ...workload, serviceAccount: "web", identity, tokenId: "t", joinedAt: 1 });
  const own = nats.workload(workload, []);
  bus = await nats.connect(() => own, inboxPrefix(workload));
});

afterAll(async () => {
  registry.close();
  store.close();
  await nats.close();
  rmSync(folder, { recursive: true, force: true });
});

async function say(exchange: { readonly subject: string; readonly request: object }) {
  const answer = await bus.request(exchange.subject, Buffer.from(JSON.stringify(exchange.request)));
  return JSON.parse(Buffer.from(answer).toString()) as unknown;
}

async function told(rev: number): Promise<unknown> {
  await registry.acks.wait(rev, () => [workload.instance], 2_000);
  return registry.acks.get(workload.instance);
}

test("golden: registrations and renewals are understood and answered", async () => {
  expect(await say(golden.register)).toEqual(golden.register.answer);
  const [member] = registry.workloads();
  expect<unknown>(member?.registration).toEqual(golden.register.request);
  expect(await say(golden.renew)).toEqual(golden.renew.answer);
  expect(registry.workloads()[0]).toMatchObject({ state: "failing", inflight: 3 });
  expect(await say(golden.unknown)).toEqual(golden.unknown.answer);
});

test("golden: acknowledgements are understood", async () => {
  for (const { subject, message } of [golden.acknowledged, golden.refused]) {
    bus.publish(subject, Buffer.from(JSON.stringify(message)));
    await bus.kvGet("head");
    expect(await told(message.rev)).toMatchObject(message);
  }
});

test("golden: a workload that leaves is gone when it is answered", async () => {
  expect(await say(golden.deregister)).toEqual(golden.deregister.answer);
  expect(registry.workloads()).toEqual([]);
});
