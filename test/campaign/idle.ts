/**
 * Thousands of callers at rest, plain and with mutual TLS: what each costs, and that nobody beside
 * them notices. As many as the open files of this machine allow, up to 10,000.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import type { ClientTask } from "../../scripts/bench/client.ts";
import { holding } from "../../scripts/bench/load.ts";
import { memoryOf } from "../../scripts/bench/process.ts";
import { IDLE, MTLS_KB, meshTls, PLAIN_KB } from "../../scripts/bench/scenarios.ts";
import { load } from "../harness/load.ts";
import { ask, type Sidecar, TestMesh, until } from "../harness/mesh.ts";
import { type App, echo } from "../harness/servers.ts";

let mesh: TestMesh;
let app: App;
let web: Sidecar;
let cart: Sidecar;

beforeAll(async () => {
  mesh = await TestMesh.start();
  app = echo("cart");
  cart = await mesh.sidecar({ service: "cart", app: [`80=${app.port}`] });
  web = await mesh.sidecar({ service: "web" });
  await until("cart is known", async () => (await ask(web.outbound, "cart")).ok);
}, 60_000);

afterAll(async () => {
  app?.stop();
  await mesh?.stop();
});

const plain = () => [web, { port: web.outboundPort }] as const;
const mtls = () => {
  const tls = meshTls(web, "p80.cart.default.weft.local");
  return [cart, { port: cart.meshPort, tls }] as const;
};

test.each([
  ["plain", PLAIN_KB, plain],
  ["mutual TLS", MTLS_KB, mtls],
] as const)(
  "%s: at most %p KB each",
  async (name, budget, of) => {
    const [victim, task]: readonly [Sidecar, Omit<ClientTask, "kind">] = of();
    const others = load(() => ask(web.outbound, "cart"));
    await Bun.sleep(5000); // What load costs is not what rest costs.
    const before = memoryOf(victim.pid).rss;
    const kilobytes = await holding(task, IDLE, async (open) => {
      expect(open).toBe(IDLE);
      await Bun.sleep(5000);
      return ((memoryOf(victim.pid).rss - before) * 1024) / open;
    });
    await others.stop();
    console.log(
      `${name}: ${IDLE} callers at rest, ${kilobytes.toFixed(1)} KB each; beside them ` +
        `${others.sent} requests, ${others.failures.length} failed`,
    );
    expect(others.failures).toEqual([]);
    expect(kilobytes).toBeLessThanOrEqual(budget);
  },
  120_000,
);
