/** The bus: our own nats-server, looked after, or one that the operator names. */
import { readFileSync } from "node:fs";
import { type Bus, openBus } from "../../src/bus/bus.ts";
import { findNatsServer } from "../../src/bus/find-nats-server.ts";
import { type NatsServer, startNatsServer } from "../../src/bus/nats-server.ts";
import { tendNatsServer } from "../../src/bus/tend.ts";
import { CONTROL_INBOX_PREFIX, ownBusCredentials } from "../../src/control/own-identity.ts";
import { EXIT, Failure } from "../../src/error.ts";
import type { Authority } from "../../src/identity/ca.ts";
import {
  type NatsAuthority,
  type NatsCredentials,
  parseNatsCredentials,
} from "../../src/identity/nats-auth.ts";
import { CONTROL_SERVER_NAME } from "../../src/identity/spiffe.ts";
import type { Logger } from "../../src/telemetry/log.ts";
import type { ControlplaneOptions } from "../options.ts";
import { isLoopback, ownHost } from "./addresses.ts";
import type { ApiDoor } from "./door.ts";

export interface BusLink {
  readonly bus: Bus;
  /** What workloads dial; its host may be unspecified. */
  readonly url: string;
}

interface LinkParts {
  readonly options: ControlplaneOptions;
  readonly held: { readonly nats: NatsAuthority; readonly authority: Authority };
  readonly door: ApiDoor;
  readonly log: Logger;
  readonly now: () => number;
}

/** How long the start waits for the bus; publishing goes on in the background after that. */
const READY_MS = 5_000;

export async function openBusLink(
  parts: LinkParts,
  opened: AsyncDisposableStack,
): Promise<BusLink> {
  const { natsUrl } = parts.options;
  if (natsUrl !== undefined) {
    const credentials = externalCredentials(parts);
    const bus = await connected(parts, natsUrl, credentials, opened);
    return { bus, url: natsUrl };
  }
  const server = await ownServer(parts, opened);
  const own = server.url.replace(/(\/\/).*(:\d+)$/, `$1${ownHost(parts.options.bind)}$2`);
  const credentials = ownBusCredentials(parts.held.nats, parts.now);
  const bus = await connected(parts, own, credentials, opened);
  opened.adopt(tendNatsServer(bus, server), (stop) => stop());
  return { bus, url: server.url };
}

async function ownServer(parts: LinkParts, opened: AsyncDisposableStack): Promise<NatsServer> {
  const { options, held, door, log } = parts;
  const { data: dataDir, natsServer, natsEmbedded } = options;
  const binary = findNatsServer({
    dataDir,
    ...(natsServer === undefined ? {} : { path: natsServer }),
    ...(natsEmbedded === undefined ? {} : { embedded: natsEmbedded }),
  });
  const tls = { cert: door.svid.chainPem, key: door.svid.keyPem };
  const server = await startNatsServer({
    ...{ dataDir, binary, host: options.bind, port: options.portBase + 222 },
    ...(isLoopback(options.bind) ? {} : { tls }),
    auth: held.nats.trust,
    log: ({ event, pid, detail }) => {
      const level = event === "nats_ended" || event === "nats_wiped" ? "warn" : "info";
      log[level](event.replace("_", " "), { pid, detail });
    },
  });
  opened.defer(() => server.stop());
  if (!isLoopback(options.bind)) {
    door.renewed((svid) => server.renewTls({ cert: svid.chainPem, key: svid.keyPem }));
  }
  return server;
}

function externalCredentials({ options, held, now }: LinkParts): () => NatsCredentials {
  const path = options.natsCreds;
  if (path === undefined) return ownBusCredentials(held.nats, now);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new Failure(
      "nats_creds_unreadable",
      `cannot read ${path}`,
      "check --nats-creds and the file's permissions",
      { exit: EXIT.usage, cause },
    );
  }
  const credentials = parseNatsCredentials(text);
  return () => credentials;
}

async function connected(
  { held, log }: LinkParts,
  url: string,
  credentials: () => NatsCredentials,
  opened: AsyncDisposableStack,
): Promise<Bus> {
  const tls = { ca: held.authority.bundle, serverName: CONTROL_SERVER_NAME };
  const bus = openBus({
    servers: [url],
    inboxPrefix: CONTROL_INBOX_PREFIX,
    credentials,
    name: "controlplane",
    ...(url.startsWith("tls:") ? { tls } : {}),
    failed: (where, error) => log.warn("the bus reported an error", { where, error }),
  });
  opened.defer(() => bus.close());
  try {
    await bus.ready(READY_MS);
  } catch (error) {
    log.warn("the NATS bus does not answer; changes are kept and published when it does", {
      nats: url,
      error,
    });
  }
  return bus;
}
