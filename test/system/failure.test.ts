/**
 * What happens when the control plane, the bus, or a proxy dies. With WEFT_LONG=1 every outage
 * lasts a minute, as in the campaign; otherwise a few seconds.
 */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Load, load } from "../harness/load.ts";
import { ask, type Sidecar, TestMesh, until } from "../harness/mesh.ts";
import { type App, echo } from "../harness/servers.ts";

const outageMs = process.env["WEFT_LONG"] === "1" ? 60_000 : 4_000;
/** A copy that can be taken away, so that no restart succeeds while NATS is meant to be down. */
const NATS = join(import.meta.dir, "../../build/nats-server");
const natsServer = join(mkdtempSync(join(tmpdir(), "weft-nats-")), "nats-server");
const limitMs = outageMs * 2 + 90_000;

let mesh: TestMesh;
let app: App;
let web: Sidecar;
let traffic: Load | undefined;

beforeAll(async () => {
  copyFileSync(NATS, natsServer);
  chmodSync(natsServer, 0o755);
  mesh = await TestMesh.start([`--nats-server=${natsServer}`]);
  app = echo("cart");
  await mesh.sidecar({ service: "cart", app: [`8080=${app.port}`] });
  web = await mesh.sidecar({ service: "web" });
  await until("cart answers", async () => (await ask(web.outbound, "cart")).ok);
}, 60_000);

afterEach(async () => {
  await traffic?.stop();
  traffic = undefined;
});

afterAll(async () => {
  app?.stop();
  await mesh?.stop();
});

const route = (header: string) => `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: cart }
spec:
  parentRefs: [{ kind: Service, group: "", name: cart }]
  rules:
    - filters:
        - type: ResponseHeaderModifier
          responseHeaderModifier: { set: [{ name: x-mark, value: ${header} }] }
      backendRefs: [{ name: cart, port: 8080 }]
`;

async function mark(): Promise<string | null> {
  const response = await ask(web.outbound, "cart");
  await response.text();
  return response.headers.get("x-mark");
}

test(
  "kill -9 of the control plane under load: no request fails, no endpoint vanishes",
  async () => {
    traffic = load(() => ask(web.outbound, "cart"));
    await Bun.sleep(500);
    await mesh.killControlplane();
    await Bun.sleep(outageMs);
    await mesh.startControlplane();
    await Bun.sleep(2_000);
    await traffic.stop();
    console.log(`control plane down ${outageMs} ms: ${traffic.sent} sent`);
    expect(traffic.failures).toEqual([]);
    expect(traffic.sent).toBeGreaterThan(100);
    await mesh.apply(route("after-restart"), "--wait");
    expect(await mark()).toBe("after-restart");
  },
  limitMs,
);

test(
  "kill -9 of nats-server under load: no request fails; it is restarted",
  async () => {
    traffic = load(() => ask(web.outbound, "cart"));
    const first = mesh.natsPid();
    process.kill(first, "SIGKILL");
    await until(
      "nats-server runs again",
      () => mesh.natsPid() > 0 && mesh.natsPid() !== first,
      15_000,
    );
    await Bun.sleep(1_000);
    await mesh.apply(route("after-nats"), "--wait");
    await traffic.stop();
    expect(traffic.failures).toEqual([]);
    expect(await mark()).toBe("after-nats");
  },
  limitMs,
);

test(
  "NATS away under load: a change made meanwhile is live within 3 s of its return",
  async () => {
    traffic = load(() => ask(web.outbound, "cart"));
    renameSync(natsServer, `${natsServer}.away`);
    process.kill(mesh.natsPid(), "SIGKILL");
    await Bun.sleep(outageMs);
    expect(mesh.natsPid()).toBe(0);
    await mesh.apply(route("while-away"));
    renameSync(`${natsServer}.away`, natsServer);
    await until("NATS runs again", () => mesh.natsPid() > 0, 15_000);
    const back = performance.now();
    await until("the change is live", async () => (await mark()) === "while-away", 9_000);
    const ms = Math.round(performance.now() - back);
    await traffic.stop();
    console.log(
      `NATS down ${outageMs} ms: ${traffic.sent} sent; change live ${ms} ms after return`,
    );
    expect(traffic.failures).toEqual([]);
  },
  limitMs,
);

async function restart(
  sidecar: Sidecar,
  serves = true,
): Promise<{ readonly ms: number; readonly next: Sidecar }> {
  sidecar.kill("SIGKILL");
  await sidecar.exited;
  const started = performance.now();
  const base = sidecar.outboundPort - 1;
  const next = await mesh.proxy([sidecarCommand, ...sidecar.args], sidecar.data, base, true);
  await until(
    "the restarted proxy serves",
    async () => (await ask(next.outbound, "cart")).ok || !serves,
    6_000,
  );
  return { ms: performance.now() - started, next };
}

const sidecarCommand = process.env["WEFT"] ?? join(import.meta.dir, "../../dist/weft");

function sets(folder: string): string[] {
  return readdirSync(folder, { recursive: true })
    .map((name) => join(folder, String(name)))
    .filter((path) => /\.set$/.test(path) && statSync(path).isFile());
}

test(
  "a sidecar restarted while control plane and NATS are down serves from its verified set",
  async () => {
    await mesh.apply(route("one"), "--wait");
    await mesh.apply(route("two"), "--wait");
    await Bun.sleep(500);
    const nats = mesh.natsPid();
    await mesh.killControlplane();
    process.kill(nats, "SIGKILL");

    const healthy = await restart(web);
    console.log(`restart to serving with everything down: ${Math.round(healthy.ms)} ms`);
    web = healthy.next;
    expect(await mark()).toBe("two");

    const current = sets(web.data).find((path) => !path.includes("prev"));
    const previous = sets(web.data).find((path) => path.includes("prev"));
    expect(current).toBeDefined();
    expect(previous).toBeDefined();
    const intact = readFileSync(current as string);
    const flipped = Buffer.from(intact);
    flipped[flipped.length >> 1] = (flipped[flipped.length >> 1] as number) ^ 1;
    writeFileSync(current as string, flipped);
    const damaged = await restart(web);
    web = damaged.next;
    expect(web.log()).toMatch(/refused|damaged|corrupt/i);

    expect(await mark()).toBe("one");

    // The set before the newest is genuine, and still not taken once a newer one was in force.
    copyFileSync(previous as string, current as string);
    const stale = await restart(web, false);
    web = stale.next;
    await until("the old set is refused", () => /was in force here before/.test(web.log()), 6_000);
    expect((await ask(web.outbound, "cart")).ok).toBe(false);

    await mesh.startControlplane();
    await until("the link is back", async () => (await mark()) === "two", 20_000);
  },
  limitMs,
);
