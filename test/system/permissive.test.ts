/** A migration: callers without a proxy reach a service at its mesh port, until it is STRICT. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { ask, metrics, run, type Sidecar, TestMesh, takePorts, until } from "../harness/mesh.ts";
import { echo } from "../harness/servers.ts";

const cart = echo("cart");
const redis = takePorts(1);
let mesh: TestMesh;
let service: Sidecar;
let client: Sidecar;

const SERVICES = `
apiVersion: weft.dev/v1
kind: Service
metadata: { name: cart }
spec: { ports: [{ port: 80, protocol: http }, { port: 6379, protocol: tcp }] }
`;

const LEGACY = `
apiVersion: weft.dev/v1
kind: PeerAuth
metadata: { name: legacy }
spec: { target: { service: cart }, mtls: { mode: PERMISSIVE } }
`;

beforeAll(async () => {
  mesh = await TestMesh.start();
  mesh.spawn(["redis-server", "--port", String(redis), "--bind", "127.0.0.1", "--save", ""]);
  await mesh.apply(SERVICES);
  service = await mesh.sidecar({
    service: "cart",
    app: [`80=${cart.port}/http`, `6379=${redis}/tcp`],
  });
  client = await mesh.sidecar({ service: "web" });
}, 30_000);

afterAll(async () => {
  cart.stop();
  await mesh?.stop();
});

/** What curl says of a request straight at the mesh port; "000" = not answered. */
async function status(path = "/", host = "cart"): Promise<string> {
  const form = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--path-as-is", "-m", "5"];
  const url = `http://127.0.0.1:${service.meshPort}${path}`;
  return (await run(["curl", ...form, "-H", `Host: ${host}`, url])).stdout;
}

test("STRICT is what nobody has to ask for", async () => {
  expect(await status()).toBe("000");
  expect(await metrics(service)).toMatch(/weft_handshakes_refused_total\{reason="not_tls"\} 1/);
});

test("PERMISSIVE: curl, redis-cli and the mesh are served at once; wrk without a failure", async () => {
  await mesh.apply(LEGACY);
  await until("plaintext is served", async () => (await status()) === "200");
  expect(await status("/", "cart.default.svc.cluster.local")).toBe("200");
  expect(await status("/", "10.0.0.7:17006")).toBe("200");
  expect(await status("/", "[")).toBe("400");
  const cli = ["redis-cli", "-h", "127.0.0.1", "-p", String(service.meshPort)];
  expect((await run([...cli, "SET", "a", "b"])).stdout).toBe("OK\n");
  expect((await run([...cli, "GET", "a"])).stdout).toBe("b\n");
  const through = await run(["curl", "-s", "-H", "Host: cart:80", client.outbound]);
  expect(JSON.parse(through.stdout).name).toBe("cart");
  const load = ["wrk", "-t1", "-c20", "-d1", `http://127.0.0.1:${service.meshPort}/`];
  const loaded = (await run(load)).stdout;
  expect(loaded).toMatch(/Requests\/sec/);
  expect(loaded).not.toMatch(/Socket errors|Non-2xx/);
  expect(await metrics(service)).toMatch(
    /weft_requests_total\{direction="inbound",workload="default\/cart",source="".*tls="none",code="200"/,
  );
}, 20_000);

test("paths that hide something are spelled out before the application sees them", async () => {
  const form = ["-s", "--path-as-is", "-H", "Host: cart"];
  const url = `http://127.0.0.1:${service.meshPort}/a/%2e%2e//secret%2fb`;
  const seen = JSON.parse((await run(["curl", ...form, url])).stdout);
  expect(seen.path).toBe("/secret/b");
  expect(await status("/%00")).toBe("400");
});

test("STRICT again: what is open ends, and nothing of the mesh fails", async () => {
  const subscriber = mesh.spawn([
    ...["redis-cli", "-h", "127.0.0.1", "-p", String(service.meshPort)],
    ...["SUBSCRIBE", "news"],
  ]);
  await until("it listens", () => subscriber.output().includes("subscribe"));
  let failed = 0;
  let sent = 0;
  let over = false;
  const load = (async () => {
    while (!over) {
      const answer = await ask(client.outbound, "cart:80");
      await answer.text();
      sent++;
      if (!answer.ok) failed++;
    }
  })();
  const removed = await mesh.weft("delete", "peerauth/legacy");
  expect(removed).toMatchObject({ code: 0 });
  await until("plaintext is refused", async () => (await status()) === "000");
  await until(
    "the subscriber is cut off",
    () => /closed|Error/i.test(subscriber.log() + subscriber.output()),
    5000,
  );
  over = true;
  await load;
  expect(failed).toBe(0);
  expect(sent).toBeGreaterThan(10);
}, 20_000);
