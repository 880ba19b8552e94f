/** A NATS that an operator runs: what `weft nats config` prints is enough, the rest is explained. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fetchNats } from "../../scripts/fetch-nats.ts";
import { type NatsAuthority, type NatsTrust, openNatsAuthority } from "../identity/nats-auth.ts";
import { createNkey } from "../identity/nkey.ts";
import { type Bus, openBus } from "./bus.ts";
import { freePort } from "./nats.fixture.ts";
import { externalNatsConfig } from "./nats-config.ts";

const folder = mkdtempSync(join(tmpdir(), "weft-external-"));
const buses: Bus[] = [];
const servers: Bun.Subprocess[] = [];
let mesh: NatsAuthority;
let other: NatsAuthority;

beforeAll(() => {
  mesh = openNatsAuthority(join(folder, "mesh.seed"));
  other = openNatsAuthority(join(folder, "other.seed"));
  const subject = "-subj /CN=nats -addext subjectAltName=DNS:localhost,IP:127.0.0.1";
  const kind = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
  Bun.spawnSync(`openssl req -x509 ${kind} -keyout tls.key -out tls.pem ${subject}`.split(" "), {
    cwd: folder,
    stderr: "ignore",
  });
});
afterAll(async () => {
  for (const bus of buses) await bus.close();
  for (const server of servers) server.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

/** A nats-server of the operator's; gives its port. */
async function run(config: string, port?: number): Promise<number> {
  const at = port ?? (await freePort());
  const file = join(folder, `${at}.conf`);
  writeFileSync(file, `host: 127.0.0.1\nport: ${at}\n${config}`);
  servers.push(Bun.spawn([fetchNats(), "-c", file], { stdio: ["ignore", "ignore", "ignore"] }));
  for (let turn = 0; turn < 100; turn++) {
    try {
      (await Bun.connect({ hostname: "127.0.0.1", port: at, socket: { data() {} } })).end();
      return at;
    } catch {
      await Bun.sleep(20);
    }
  }
  throw new Error(`nats-server does not start with ${file}`);
}

function printed(trust: NatsTrust): string {
  const store = mkdtempSync(join(folder, "store-"));
  return externalNatsConfig(trust).replace("/var/lib/nats", store);
}

const tlsLines = () => `tls { cert_file: "${folder}/tls.pem", key_file: "${folder}/tls.key" }\n`;

function connect(urls: readonly string[], tls?: { ca?: readonly string[] }): Bus {
  const { publicKey, seed } = createNkey("user");
  const now = Date.now();
  const user = { name: "controlplane", publicKey, expiresAt: now + 3_600_000 };
  const jwt = mesh.issueUser(user, now);
  const bus = openBus({
    servers: urls,
    inboxPrefix: "_INBOX_controlplane",
    credentials: () => ({ jwt, seed }),
    external: true,
    checkAccount: true,
    ...(tls === undefined ? {} : { tls }),
  });
  buses.push(bus);
  return bus;
}

const at = (port: number, host = "127.0.0.1") => `nats://${host}:${port}`;

/** Why the bus stays down. */
async function reason(bus: Bus): Promise<string> {
  expect(await bus.ready(250).catch(() => "down")).toBe("down");
  return `${bus.problem?.code}: ${bus.problem?.message} -> ${bus.problem?.fix}`;
}

test("the printed configuration is all a nats-server needs", async () => {
  const port = await run(printed(mesh.trust));
  const bus = connect([at(port)]);
  await bus.ready(5_000);
  expect(bus.problem).toBeUndefined();
  expect(await bus.ensureBucket()).toEqual({ created: true });
  await bus.kvPut("head", Buffer.from("x"));
  expect(String(await bus.kvGet("head"))).toBe("x");
});

test("a server of another operator takes the mesh in beside its own accounts", async () => {
  const { trust } = mesh;
  const both = printed(other.trust)
    .replace(/^operator: (\S+)$/m, `operator: [$1, ${trust.operatorJwt}]`)
    .replace(
      /^}$(?![\s\S]*^}$)/m,
      `  ${trust.account}: ${trust.accountJwt}\n  ${trust.workloads}: ${trust.workloadsJwt}\n}`,
    );
  const bus = connect([at(await run(both))]);
  await bus.ready(5_000);
  expect(await bus.ensureBucket()).toEqual({ created: true });
});

test("several URLs: one that answers is enough", async () => {
  const port = await run(printed(mesh.trust));
  const bus = connect([at(1), at(port)]);
  await bus.ready(5_000);
  expect(bus.problem).toBeUndefined();
});

test("a cluster: the bucket is on three servers, and outlives any one of them", async () => {
  const ports = await Promise.all([freePort(), freePort(), freePort()]);
  const listen = await Promise.all([freePort(), freePort(), freePort()]);
  const routes = listen.map((port) => at(port)).join(", ");
  const first = servers.length;
  for (const [i, port] of ports.entries()) {
    const cluster = `cluster { name: c, listen: "127.0.0.1:${listen[i]}", routes: [${routes}] }`;
    await run(`server_name: n${i}\n${cluster}\n${printed(mesh.trust)}`, port);
  }
  const bus = connect(ports.map((port) => at(port)));
  await bus.ready(5_000);
  const patiently = async <T>(work: () => Promise<T>): Promise<T> => {
    for (let turn = 0; ; turn++) {
      try {
        return await work();
      } catch (error) {
        // The cluster elects a leader meanwhile.
        if (turn === 60) throw error;
        await Bun.sleep(200);
      }
    }
  };
  await patiently(() => bus.ensureBucket());
  await bus.kvPut("head", Buffer.from("one"));
  const info = await bus.request("$JS.API.STREAM.INFO.KV_weft-config", new Uint8Array(0));
  expect(JSON.parse(String(info))).toMatchObject({ config: { num_replicas: 3 } });
  servers[first]?.kill("SIGKILL");
  await patiently(() => bus.kvPut("head", Buffer.from("two")));
  await patiently(async () => expect(String(await bus.kvGet("head"))).toBe("two"));
}, 30_000);

test("each wrong server is told apart, with a next step", async () => {
  const configure = "configure it with what `weft nats config` prints";
  const plain = await run("");
  expect(await reason(connect([at(plain)]))).toBe(
    `bus_open: NATS at ${at(plain)} lets everybody in: workloads could speak for each other there -> ${configure}`,
  );
  const foreign = await run(printed(other.trust));
  expect(await reason(connect([at(foreign)]))).toBe(
    `bus_denied: NATS at ${at(foreign)} does not accept this mesh's credentials -> ${configure}`,
  );
  const password = await run("authorization { user: a, password: b }");
  expect(await reason(connect([at(password)]))).toContain("bus_denied");
  expect(await reason(connect([at(1)]))).toBe(
    `bus_away: nothing listens at ${at(1)} -> start NATS there, or correct --nats-url`,
  );
});

test("TLS: demanded by the server, not offered, unknown CA, another name", async () => {
  const port = await run(printed(mesh.trust) + tlsLines());
  const ca = [await Bun.file(join(folder, "tls.pem")).text()];
  await connect([at(port)], { ca }).ready(5_000);
  await connect([at(port, "localhost")], { ca }).ready(5_000);
  for (const tls of [undefined, {}]) {
    expect(await reason(connect([at(port)], tls))).toMatch(/^bus_untrusted: .*--nats-ca FILE$/);
  }
  const named = connect([at(port, "127.0.0.2")], { ca });
  expect(await reason(named)).toMatch(/^bus_away|^bus_name/);
  const bare = await run(printed(mesh.trust));
  expect(await reason(connect([at(bare)], { ca }))).toMatch(/^bus_plain: .* does not offer TLS/);
});

test("without JetStream it is connected, and says why nothing is stored", async () => {
  const config = printed(mesh.trust).replace(/^jetstream \{[^}]*\}/m, "");
  const bus = connect([at(await run(config))]);
  await bus.ready(5_000);
  const deadline = performance.now() + 6_000;
  while (bus.problem === undefined && performance.now() < deadline) {
    await bus.ensureBucket().catch(() => undefined);
    await Bun.sleep(100);
  }
  expect(bus.problem).toMatchObject({ code: "bus_no_jetstream" });
  expect(bus.status.value).toBe("up");
});

test("a server that is replaced by an open one is left again, and taken back when right", async () => {
  const config = printed(mesh.trust);
  const port = await run(config);
  const bus = connect([at(port)]);
  await bus.ready(5_000);
  const end = async () => {
    const last = servers.at(-1);
    last?.kill("SIGKILL");
    await last?.exited;
  };
  await end();
  await run("", port);
  const deadline = performance.now() + 6_000;
  while (bus.problem?.code !== "bus_open" && performance.now() < deadline) await Bun.sleep(20);
  expect(bus.problem?.code).toBe("bus_open");
  expect(bus.status.value).toBe("down");
  await end();
  await run(config, port);
  await bus.ready(6_000);
  expect(bus.problem).toBeUndefined();
});
