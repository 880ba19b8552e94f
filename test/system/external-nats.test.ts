/** A NATS that the operator runs: configured by what weft prints, wrong, gone, wiped and back. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fetchNats } from "../../scripts/fetch-nats.ts";
import type { StatusAnswer } from "../../src/api/answers.ts";
import {
  ask,
  type Running,
  run,
  type Sidecar,
  TestMesh,
  takePorts,
  until,
  WEFT,
} from "../harness/mesh.ts";
import { type App, echo } from "../harness/servers.ts";

const port = takePorts(1);
const url = `tls://127.0.0.1:${port}`;
/** A cluster's second server that is not there. */
const absent = `tls://127.0.0.1:${takePorts(1)}`;
/** The server's certificate and key. */
const own = mkdtempSync(join(tmpdir(), "weft-own-"));

let mesh: TestMesh;
let nats: Running;
let app: App;
let web: Sidecar;
let printed = "";

/** What an operator's own CA would have signed. */
async function certificate(folder: string): Promise<void> {
  const subject = ["-subj", "/CN=nats", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  const kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const files = ["-keyout", join(folder, "own.key"), "-out", join(folder, "own.pem")];
  expect((await run(["openssl", "req", "-x509", ...kind, ...files, ...subject])).code).toBe(0);
}

async function startNats(config: string): Promise<void> {
  const file = join(mesh.folder, "own-nats.conf");
  const tls = `tls { cert_file: "${own}/own.pem", key_file: "${own}/own.key" }`;
  writeFileSync(file, `host: 127.0.0.1\nport: ${port}\n${tls}\n${config}`);
  nats = mesh.spawn([fetchNats(), "-c", file]);
  await until("NATS listens", async () => {
    (await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } })).end();
    return true;
  });
}

async function endNats(): Promise<void> {
  nats.kill("SIGKILL");
  await nats.exited;
}

beforeAll(async () => {
  app = echo("cart");
  await certificate(own);
  const ca = join(own, "own.pem");
  mesh = await TestMesh.start([`--nats-url=${absent},${url}`, `--nats-ca=${ca}`], async (made) => {
    mesh = made;
    const config = await run([WEFT, "nats", "config", `--data=${made.data}`]);
    expect(config.stderr).toBe("");
    const store = join(made.folder, "own-store");
    mkdirSync(store);
    printed = config.stdout.replace("/var/lib/nats", store);
    await startNats(printed);
  });
  [, web] = await Promise.all([
    mesh.sidecar({ service: "cart", app: [`8080=${app.port}`] }),
    mesh.sidecar({ service: "web", upstream: [`cart:${takePorts(1)}`] }),
  ]);
}, 60_000);

afterAll(async () => {
  await mesh?.stop();
  rmSync(own, { recursive: true, force: true });
  app?.stop();
});

async function status(): Promise<StatusAnswer> {
  return JSON.parse((await mesh.weft("status", "-o", "json")).stdout) as StatusAnswer;
}

function service(n: number): string {
  return `apiVersion: weft.dev/v1
kind: Service
metadata: { name: later }
spec: { ports: [{ port: ${n}, protocol: http }] }
`;
}

/** Every proxy runs the newest revision, within the 3 s after an outage. */
async function everywhere(): Promise<void> {
  await until("the newest revision is everywhere", async () => {
    const { revision, proxies } = await status();
    return proxies.length === 2 && proxies.every((proxy) => proxy.revision === revision);
  });
}

async function works(): Promise<void> {
  expect((await ask(web.outbound, "cart")).status).toBe(200);
}

test("traffic and changes over the operator's NATS, and no other one runs", async () => {
  await works();
  await mesh.apply(service(8001), "--wait", "--timeout=9s");
  expect((await mesh.weft("check")).stdout + (await mesh.weft("check")).stderr).not.toMatch(/NATS/);
  expect(mesh.natsPid()).toBe(0);
});

test("the settings stay the same, and a key that is missing is not made anew", async () => {
  const config = () => run([WEFT, "nats", "config", `--data=${mesh.data}`]);
  const [operator] = /^operator: .*$/m.exec(printed) ?? [];
  expect((await config()).stdout).toContain(operator ?? "no operator");
  const seed = join(mesh.data, "keys", "nats.seed");
  renameSync(seed, `${seed}.away`);
  const { code, stderr } = await config();
  renameSync(`${seed}.away`, seed);
  expect([code, stderr]).toEqual([1, expect.stringContaining("nats.seed is missing")]);
});

test("killed and wiped: traffic goes on, changes are kept, and all of it is back", async () => {
  await endNats();
  await until("it is noticed", async () => (await status()).bus.status === "down");
  await works();
  await mesh.apply(service(8002));
  const check = await mesh.weft("check", "-o", "short");
  expect(check.code).toBe(1);
  expect(check.stdout).toContain(`NATS at ${absent},${url} does not answer`);
  rmSync(join(mesh.folder, "own-store"), { recursive: true });
  await startNats(printed);
  await everywhere();
  const { bus } = await status();
  expect(bus.epoch).toBe(2);
  expect(bus.problem).toBeUndefined();
  await endNats();
  await startNats(printed);
  await mesh.apply(service(8003), "--wait", "--timeout=9s");
  expect((await status()).bus.epoch).toBe(2);
});

test("a server that lets everybody in is not used, and the API says so and serves on", async () => {
  await endNats();
  await startNats("");
  await until("it is noticed", async () => (await status()).bus.problem?.code === "bus_open");
  await works();
  await mesh.apply(service(8004));
  const check = await mesh.weft("check", "-o", "short");
  expect(check.code).toBe(1);
  expect(check.stdout).toContain("weft nats config");
  const ready = await fetch(`${mesh.api}/readyz`, { tls: { rejectUnauthorized: false } });
  expect([ready.status, await ready.text()]).toEqual([503, expect.stringContaining("bus: NATS")]);
  await endNats();
  await startNats(printed);
  await everywhere();
  await works();
});
