/**
 * The control plane, wired. What is opened here is closed in reverse order, whether the start
 * fails halfway or the process is asked to end.
 */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createApi } from "../src/api/api.ts";
import { ensureAdminToken } from "../src/control/admin-token.ts";
import { type ControlState, ensureService } from "../src/control/apply.ts";
import { Conditions } from "../src/control/conditions.ts";
import { Distribution, refuseTooBig } from "../src/control/distribute.ts";
import type { MeshFacts } from "../src/control/documents.ts";
import { createIssuer } from "../src/control/issue.ts";
import { Publisher } from "../src/control/publish.ts";
import { EXIT } from "../src/error.ts";
import { type Authority, openAuthority } from "../src/identity/ca.ts";
import { type ConfigKey, openConfigKey } from "../src/identity/config-key.ts";
import { type NatsAuthority, openNatsAuthority } from "../src/identity/nats-auth.ts";
import { writeDurably } from "../src/identity/secret-file.ts";
import { checkRuntime } from "../src/net/self-test.ts";
import { Registry } from "../src/registry/registry.ts";
import { STORE_FILE, tidyFolder } from "../src/store/backup.ts";
import { lockFolder } from "../src/store/lock.ts";
import { storeFailure } from "../src/store/sqlite-error.ts";
import { openStore, type Store } from "../src/store/store.ts";
import { createLogger, type Logger } from "../src/telemetry/log.ts";
import { Metrics } from "../src/telemetry/metrics.ts";
import { writeAll } from "./cli/terminal.ts";
import { hostAddresses, urlHost } from "./controlplane/addresses.ts";
import { type BusLink, openBusLink } from "./controlplane/bus-link.ts";
import { ApiDoor } from "./controlplane/door.ts";
import { keysOf } from "./controlplane/keys.ts";
import { observe } from "./controlplane/metrics.ts";
import { tidyUp } from "./controlplane/upkeep.ts";
import { guard } from "./guard.ts";
import type { ControlplaneOptions } from "./options.ts";

/** Everything that was read from the data folder. */
interface Held {
  readonly store: Store;
  readonly authority: Authority;
  readonly nats: NatsAuthority;
  readonly configKey: ConfigKey;
}

const now = () => Date.now();
const clock = () => performance.now();

/** Runs until SIGTERM or SIGINT; gives the exit code. */
export async function runControlplane(options: ControlplaneOptions): Promise<number> {
  const log = createLogger({
    format: options.log,
    level: options.logLevel,
    now,
    write: (line) => writeAll(2, line),
    colour: process.stderr.isTTY === true && (process.env["NO_COLOR"] ?? "") === "",
  });
  const metrics = new Metrics();
  guard(log, metrics);
  await using opened = new AsyncDisposableStack();
  const ending = new Promise<string>((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.once(signal, () => {
        resolve(signal);
        // A second one does not wait for order.
        process.once(signal, () => process.kill(process.pid, "SIGKILL"));
      });
    }
  });
  const [held] = await Promise.all([openFolder(options, opened), checkRuntime()]);
  const { authority } = held;
  const door = await ApiDoor.open({ options, authority, log, metrics, now }, opened);
  const link = await openBusLink({ options, held, door, log, now }, opened);
  await serve(options, held, door, link, { log, metrics }, opened);
  const signal = await ending;
  log.info("stopping", { signal });
  return EXIT.ok;
}

async function openFolder(
  options: ControlplaneOptions,
  opened: AsyncDisposableStack,
): Promise<Held> {
  const { data } = options;
  try {
    mkdirSync(data, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw storeFailure(error, join(data, STORE_FILE));
  }
  opened.adopt(lockFolder(data), (lock) => lock.release());
  tidyFolder(data);
  const store = opened.adopt(openStore(join(data, STORE_FILE)), (it) => it.close());
  const keys = keysOf(store, data, options.restored);
  const authority = await openAuthority(data, options.trustDomain, now);
  const nats = openNatsAuthority(keys["nats.seed"]);
  const configKey = openConfigKey(keys["config.key"]);
  return { store, authority, nats, configKey };
}

async function serve(
  options: ControlplaneOptions,
  held: Held,
  door: ApiDoor,
  link: BusLink,
  { log, metrics }: { readonly log: Logger; readonly metrics: Metrics },
  opened: AsyncDisposableStack,
): Promise<void> {
  const { store, authority, nats, configKey } = held;
  const { kid, publicKey } = configKey;
  const mesh: MeshFacts = {
    trustDomain: authority.trustDomain,
    bundle: authority.bundle,
    configKeys: [{ kid, key: publicKey }],
  };
  const publisher = await Publisher.start({
    ...{ store, bus: link.bus, key: configKey, restored: options.restored, now, log },
  });
  opened.defer(() => publisher.close());
  const state: ControlState = {
    ...{ store, trustDomain: authority.trustDomain, now },
    check: (resources) => refuseTooBig(resources, mesh),
    committed: () => distribution.schedule(),
  };
  const registry = new Registry({
    ...{ store, bus: link.bus, now, clock, hostAddresses, log },
    ensureService: ({ namespace, service, ports }) =>
      ensureService(state, { namespace, service }, ports),
    publish: () => distribution.publish(),
  });
  const distribution = opened.adopt(
    new Distribution({ store, publisher, endpoints: () => registry.endpoints(), mesh, log }),
    (it) => it.close(),
  );
  distribution.schedule();
  registry.start();
  opened.defer(() => registry.close());
  const url = `https://${urlHost(options.bind)}:${door.port}`;
  const issuer = createIssuer({
    ...{ store, authority, nats, now, svidTtlMs: options.svidTtlMs },
    configKeys: () => mesh.configKeys,
    natsUrl: link.url,
    ...(link.ca === undefined ? {} : { natsCa: link.ca }),
  });
  const { rootHashes, bundle, trustDomain } = authority;
  ensureAdminToken({ store, dataFolder: options.data, url, rootHashes, now });
  const turnedAway = () => door.turnedAway;
  const busStatus = () => link.bus.status.value;
  observe(metrics, { store, publisher, registry, distribution, busStatus, turnedAway, now });
  door.app = createApi({
    ...{ state, store, issuer, registry, publisher, distribution, busStatus, busUrl: link.url },
    ...{ trustDomain, bundle, rootHashes, url, now, log, metrics, dataFolder: options.data },
    ...{ version: options.version, startedAt: now() },
    conditions: new Conditions(store, authority.trustDomain),
  });
  opened.adopt(tidyUp(store, now, log), (stop) => stop());
  writeRunFile(options, { api: url, nats: link.url }, opened);
  log.info("control plane is ready", { api: url, nats: link.url, data: options.data, trustDomain });
}

/** What other commands of this host look up; gone when the control plane is. */
function writeRunFile(
  options: ControlplaneOptions,
  ports: Readonly<Record<string, string>>,
  opened: AsyncDisposableStack,
): void {
  const path = join(options.data, "run.json");
  const run = {
    pid: process.pid,
    version: options.version,

    ...ports,
  };
  writeDurably(path, `${JSON.stringify(run, null, 2)}\n`, 0o600);
  opened.defer(() => rmSync(path, { force: true }));
}
