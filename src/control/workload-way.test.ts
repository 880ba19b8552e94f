import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fetchNats } from "../../scripts/fetch-nats.ts";
import { connectBus } from "../bus/bus.ts";
import { freePort } from "../bus/nats.fixture.ts";
import { externalNatsConfig } from "../bus/nats-config.ts";
import type { Failure } from "../error.ts";
import { openNatsAuthority } from "../identity/nats-auth.ts";
import { ownBusCredentials } from "./own-identity.ts";
import { watchWorkloadWay } from "./workload-way.ts";

test.each([
  ["as printed", undefined],
  ["without the workloads' account", "bus_workloads"],
])("a server configured %s", async (how, code) => {
  const folder = mkdtempSync(join(tmpdir(), "weft-way-"));
  const nats = openNatsAuthority(join(folder, "nats.seed"));
  const port = await freePort();
  const printed = externalNatsConfig(nats.trust).replace("/var/lib/nats", folder);
  const lines = printed.split("\n").filter((line) => {
    return how === "as printed" || !line.includes(nats.trust.workloads);
  });
  const file = join(folder, "nats.conf");
  writeFileSync(file, `host: 127.0.0.1\nport: ${port}\n${lines.join("\n")}`);
  const server = Bun.spawn([fetchNats(), "-c", file], { stdio: ["ignore", "ignore", "ignore"] });
  const dial = { servers: [`nats://127.0.0.1:${port}`] };
  const credentials = ownBusCredentials(nats, Date.now);
  const bus = await connectBus({ ...dial, credentials, inboxPrefix: "_INBOX_test" });
  await bus.ensureBucket();
  const { promise, resolve } = Promise.withResolvers<Failure | undefined>();
  const stop = watchWorkloadWay({ bus, dial, nats, now: Date.now, found: resolve });
  expect((await promise)?.code).toBe(code);
  stop();
  await bus.close();
  server.kill("SIGKILL");
  await server.exited;
  rmSync(folder, { recursive: true, force: true });
});
