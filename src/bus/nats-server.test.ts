import { afterEach, describe, expect, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fetchNats } from "../../scripts/fetch-nats.ts";
import { openAuthority } from "../identity/ca.ts";
import { openNatsAuthority } from "../identity/nats-auth.ts";
import { createNkey } from "../identity/nkey.ts";
import { createSvidRequest } from "../identity/svid.ts";
import { connectBus } from "./bus.ts";
import { findNatsServer } from "./find-nats-server.ts";
import { freePort, startNats } from "./nats.fixture.ts";
import { type NatsServerOptions, natsConfig } from "./nats-config.ts";
import { findRunning } from "./nats-process.ts";
import { isAtLeast } from "./nats-release.ts";
import { startNatsServer } from "./nats-server.ts";

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function options(): Promise<NatsServerOptions> {
  // As people name their folders.
  const folder = mkdtempSync(join(tmpdir(), "weft-nats wéb-"));
  cleanups.push(() => rmSync(folder, { recursive: true, force: true }));
  return {
    dataDir: folder,
    binary: fetchNats(),
    host: "127.0.0.1",
    port: await freePort(),
    auth: openNatsAuthority(join(folder, "keys", "nats.seed")).trust,
  };
}

async function start(o: NatsServerOptions) {
  const server = await startNatsServer(o);
  cleanups.push(() => server.stop());
  return server;
}

async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
    return "none";
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : String(error);
  }
}

describe("start and stop", () => {
  test("files are private, the server is reachable, and stop leaves no process", async () => {
    const o = await options();
    const server = await start(o);
    const config = join(o.dataDir, "nats", "nats.conf");
    expect(statSync(config).mode & 0o777).toBe(0o600);
    expect(statSync(join(o.dataDir, "nats")).mode & 0o777).toBe(0o700);
    expect(findRunning(config).map((found) => found.pid)).toEqual([server.pid]);
    await server.stop();
    expect(findRunning(config)).toEqual([]);
    expect(server.pid).toBe(0);
    expect(server.restarts).toBe(0);
  });

  test("stopping at any moment of a restart leaves no process", async () => {
    for (let delay = 60; delay <= 160; delay += 8) {
      const o = await options();
      const server = await startNatsServer(o);
      process.kill(server.pid, "SIGKILL");
      await Bun.sleep(delay);
      await server.stop();
      await Bun.sleep(50);
      expect(findRunning(join(o.dataDir, "nats", "nats.conf"))).toEqual([]);
    }
  }, 30_000);

  test("the configuration syncs every write and opens nothing else", async () => {
    const text = natsConfig(await options());
    expect(text).toContain("sync_interval: always");
    expect(text).not.toMatch(/http|monitor|no_auth_user|leaf|gateway|websocket/);
  });

  test("a port in use is named", async () => {
    const o = await options();
    const other = createServer().listen(o.port, "127.0.0.1");
    await new Promise((done) => other.on("listening", done));
    expect(await codeOf(() => startNatsServer(o))).toBe("port_in_use");
    other.close();
  });

  test("a server that dies at once is reported with its own words", async () => {
    const o = await options();
    const auth = { ...o.auth, operatorJwt: "nonsense" };
    const error = await startNatsServer({ ...o, auth }).catch((caught) => caught);
    expect(error.code).toBe("nats_failed");
    expect(error.message).toMatch(/operator|JWT|jwt|no such file/i);
  });

  test("beyond loopback only with TLS", async () => {
    const o = await options();
    expect(await codeOf(() => startNatsServer({ ...o, host: "0.0.0.0" }))).toBe("nats_needs_tls");
  });
});

describe("a control plane that was killed", () => {
  test("its server is adopted when nothing changed, and watched like a child", async () => {
    const nats = await startNats();
    cleanups.push(() => nats.close());
    const events: string[] = [];
    const next = await start({ ...nats.options, log: ({ event }) => events.push(event) });
    expect(next.pid).toBe(nats.server.pid);
    expect(events).toEqual(["nats_adopted"]);
    // The first one must not restart it as well: its supervisor would be gone in earnest.
    void nats.server.stop();
    const deadline = performance.now() + 2_000;
    while (next.restarts === 0 || next.pid === 0) {
      if (performance.now() > deadline) throw new Error("not restarted");
      await Bun.sleep(10);
    }
    expect(findRunning(join(nats.folder, "nats", "nats.conf")).length).toBe(1);
  });

  test("it is replaced when the configuration changed", async () => {
    const o = await options();
    const script = join(o.dataDir, "first.ts");
    writeFileSync(
      script,
      `import { startNatsServer } from ${JSON.stringify(join(import.meta.dir, "nats-server.ts"))};
       const server = await startNatsServer(${JSON.stringify(o)});
       console.log(server.pid);
       process.kill(process.pid, "SIGKILL");`,
    );
    const first = Bun.spawnSync([process.execPath, script]);
    const orphan = Number(first.stdout.toString().trim());
    const config = join(o.dataDir, "nats", "nats.conf");
    expect(findRunning(config).map((found) => found.pid)).toEqual([orphan]);
    const events: string[] = [];
    const port = await freePort();
    const server = await start({ ...o, port, log: ({ event }) => events.push(event) });
    expect(events).toEqual(["nats_replaced", "nats_started"]);
    expect(findRunning(config).map((found) => found.pid)).toEqual([server.pid]);
  });
});

describe("TLS", () => {
  test("the bus verifies the name and the root", async () => {
    const o = await options();
    const now = Date.now;
    const authority = await openAuthority(o.dataDir, "weft.local", now);
    const nats = openNatsAuthority(join(o.dataDir, "keys", "nats.seed"));
    const certificate = async () => {
      const { csrPem, keyPem } = createSvidRequest();
      const leaf = await authority.issue({
        csrPem,
        spiffeId: "spiffe://weft.local/ns/weft-system/sa/controlplane",
        dnsNames: ["controlplane.weft"],
        ttlMs: 3_600_000,
      });
      return { cert: leaf.chainPem, key: keyPem };
    };
    const server = await start({ ...o, tls: await certificate() });
    expect(server.url).toBe(`tls://127.0.0.1:${o.port}`);
    const key = createNkey("user");
    const user = { name: "x", publicKey: key.publicKey, expiresAt: now() + 60_000 };
    const credentials = { jwt: nats.issueUser(user, now()), seed: key.seed };
    const dial = (ca: readonly string[], serverName: string) =>
      connectBus(
        {
          servers: [server.url],
          inboxPrefix: "_INBOX_x",
          credentials: () => credentials,
          tls: { ca, serverName },
        },
        1_500,
      );
    const bus = await dial(authority.bundle, "controlplane.weft");
    expect(await bus.ensureBucket()).toEqual({ created: true });
    server.renewTls(await certificate());
    await Bun.sleep(100);
    await bus.reconnect();
    expect(await bus.kvGet("mesh")).toBeUndefined();
    await bus.close();
    expect(await codeOf(() => dial(authority.bundle, "other.weft"))).toBe("down");
    const stranger = mkdtempSync(join(tmpdir(), "weft-ca-"));
    const other = await openAuthority(stranger, "weft.local", now);
    rmSync(stranger, { recursive: true });
    expect(await codeOf(() => dial(other.bundle, "controlplane.weft"))).toBe("down");
  });
});

describe("the executable", () => {
  test("the carried one is copied out once and repaired when damaged", async () => {
    const { dataDir } = await options();
    const embedded = fetchNats();
    const path = findNatsServer({ dataDir, embedded });
    expect(path.startsWith(dataDir)).toBe(true);
    const { ino } = statSync(path);
    expect(findNatsServer({ dataDir, embedded })).toBe(path);
    expect(statSync(path).ino).toBe(ino);
    writeFileSync(path, "broken");
    findNatsServer({ dataDir, embedded });
    expect(readFileSync(path).equals(readFileSync(embedded))).toBe(true);
    const damaged = join(dataDir, "damaged");
    writeFileSync(damaged, "x");
    rmSync(path);
    expect(await codeOf(() => findNatsServer({ dataDir, embedded: damaged }))).toBe("nats_damaged");
  });

  test("a file in the place of its folder is an error with a next step", async () => {
    const o = await options();
    writeFileSync(join(o.dataDir, "nats"), "");
    expect(await codeOf(() => startNatsServer(o))).toBe("nats_folder");
    const embedded = fetchNats();
    expect(await codeOf(() => findNatsServer({ dataDir: o.dataDir, embedded }))).toBe(
      "nats_folder",
    );
  });

  test("a given one must be a nats-server that is not too old", async () => {
    const { dataDir } = await options();
    const find = (path?: string) =>
      codeOf(() => findNatsServer({ dataDir, ...(path && { path }) }));
    expect(await find()).toBe("nats_missing");
    expect(await find("/nowhere")).toBe("nats_invalid");
    expect(await find("/bin/true")).toBe("nats_invalid");
    const old = join(dataDir, "old");
    writeFileSync(old, "#!/bin/sh\necho 'nats-server: v2.9.10'\n", { mode: 0o755 });
    expect(await find(old)).toBe("nats_too_old");
    const copy = join(dataDir, "copy");
    copyFileSync(fetchNats(), copy);
    expect(await find(copy)).toBe("none");
    expect(existsSync(copy)).toBe(true);
  });

  test("versions are compared as numbers", () => {
    expect(isAtLeast("2.10.27", "2.10.27")).toBe(true);
    expect(isAtLeast("v2.15.1", "2.10.27")).toBe(true);
    expect(isAtLeast("2.11.0-RC.1", "2.10.27")).toBe(true);
    expect(isAtLeast("2.9.30", "2.10.27")).toBe(false);
    expect(isAtLeast("dev", "2.10.27")).toBe(false);
  });
});
