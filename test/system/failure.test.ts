/**
 * What happens when the control plane, the bus, or a proxy dies. With WEFT_LONG=1 every outage
 * lasts a minute, as in the campaign; otherwise a few seconds.
 */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { type Load, load } from "../harness/load.ts";
import { ask, type Sidecar, TestMesh, until } from "../harness/mesh.ts";
import { type App, echo } from "../harness/servers.ts";

const outageMs = process.env["WEFT_LONG"] === "1" ? 60_000 : 4_000;
const limitMs = outageMs * 2 + 90_000;

let mesh: TestMesh;
let app: App;
let web: Sidecar;
let cart: Sidecar;
let traffic: Load | undefined;

beforeAll(async () => {
  mesh = await TestMesh.start();
  app = echo("cart");
  cart = await mesh.sidecar({ service: "cart", app: [`8080=${app.port}`] });
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
  "nats-server frozen under load: a change made meanwhile is live 3 s after its return",
  async () => {
    traffic = load(() => ask(web.outbound, "cart"));
    const nats = mesh.natsPid();
    process.kill(nats, "SIGSTOP");
    await Bun.sleep(outageMs);
    await mesh.apply(route("while-away"));
    const back = performance.now();
    process.kill(nats, "SIGCONT");
    await until("the change is live", async () => (await mark()) === "while-away", 9_000);
    console.log(
      `change made while NATS was away: live ${Math.round(performance.now() - back)} ms after`,
    );
    await traffic.stop();
    expect(traffic.failures).toEqual([]);
  },
  limitMs,
);

async function restart(sidecar: Sidecar): Promise<{ readonly ms: number; readonly next: Sidecar }> {
  sidecar.kill("SIGKILL");
  await sidecar.exited;
  const started = performance.now();
  const base = sidecar.outboundPort - 1;
  const next = await mesh.proxy([sidecarCommand, ...sidecar.args], sidecar.data, base, true);
  await until(
    "the restarted proxy serves",
    async () => (await ask(next.outbound, "cart")).ok,
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
    expect(["one", "two"]).toContain((await mark()) as string);

    writeFileSync(current as string, intact);
    await mesh.startControlplane();
    await until("the link is back", async () => (await mark()) === "two", 20_000);
    if (existsSync(previous as string)) copyFileSync(previous as string, current as string);
    expect(readFileSync(join(mesh.data, "admin.token"), "utf8")).toStartWith("weft_");
    cart.kill("SIGCONT");
  },
  limitMs,
);
