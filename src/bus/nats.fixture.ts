/** A real nats-server with the mesh's accounts in a temporary folder, for tests. */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fetchNats } from "../../scripts/fetch-nats.ts";
import {
  type NatsAuthority,
  type NatsCredentials,
  openNatsAuthority,
} from "../identity/nats-auth.ts";
import { createNkey } from "../identity/nkey.ts";
import { type InstanceName, userRights } from "../identity/rights.ts";
import { type Bus, connectBus } from "./bus.ts";
import type { NatsServerEvent, NatsServerOptions } from "./nats-config.ts";
import { type NatsServer, startNatsServer } from "./nats-server.ts";

export interface NatsFixture {
  readonly folder: string;
  readonly server: NatsServer;
  readonly options: NatsServerOptions;
  readonly authority: NatsAuthority;
  readonly events: NatsServerEvent[];
  /** Credentials of the control plane: everything inside the account. */
  control(): NatsCredentials;
  /** Credentials of a workload with rights to its own keys and `keys`. */
  workload(name: InstanceName, keys: readonly string[], ttlMs?: number): NatsCredentials;
  connect(credentials: () => NatsCredentials, prefix?: string): Promise<Bus>;
  close(): Promise<void>;
}

/** A port that was free a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((done, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      const port = typeof address === "object" && address !== null ? address.port : 0;
      server.close(() => done(port));
    });
  });
}

export async function startNats(): Promise<NatsFixture> {
  const folder = mkdtempSync(join(tmpdir(), "weft-nats-"));
  const authority = openNatsAuthority(join(folder, "keys", "nats.seed"));
  const events: NatsServerEvent[] = [];
  const options: NatsServerOptions = {
    dataDir: folder,
    binary: fetchNats(),
    host: "127.0.0.1",
    port: await freePort(),
    auth: authority.trust,
    log: (event) => events.push(event),
  };
  const server = await startNatsServer(options);
  const buses: Bus[] = [];
  return {
    folder,
    server,
    options,
    authority,
    events,
    control() {
      const key = createNkey("user");
      const now = Date.now();
      const user = { name: "control", publicKey: key.publicKey, expiresAt: now + 3_600_000 };
      return { jwt: authority.issueUser(user, now), seed: key.seed };
    },
    workload(name, keys, ttlMs = 3_600_000) {
      const key = createNkey("user");
      const now = Date.now();
      const user = {
        name: name.instance,
        publicKey: key.publicKey,
        rights: userRights(name, keys),
        expiresAt: now + ttlMs,
      };
      return { jwt: authority.issueUser(user, now), seed: key.seed };
    },
    async connect(credentials, prefix = "_INBOX_control") {
      const bus = await connectBus({ servers: [server.url], inboxPrefix: prefix, credentials });
      buses.push(bus);
      return bus;
    },
    async close() {
      for (const bus of buses) await bus.close();
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
