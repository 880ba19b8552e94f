/** The bus: our own nats-server, looked after, or one that the operator names. */
import { readFileSync } from "node:fs";
import { type Bus, type BusOptions, openBus } from "../../src/bus/bus.ts";
import { findNatsServer } from "../../src/bus/find-nats-server.ts";
import { type NatsServer, startNatsServer } from "../../src/bus/nats-server.ts";
import { tendNatsServer } from "../../src/bus/tend.ts";
import { CONTROL_INBOX_PREFIX, ownBusCredentials } from "../../src/control/own-identity.ts";
import { watchWorkloadWay } from "../../src/control/workload-way.ts";
import { EXIT, Failure } from "../../src/error.ts";
import type { Authority } from "../../src/identity/ca.ts";
import { pemCertificates } from "../../src/identity/certificate.ts";
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
  /** What workloads dial; its host may be unspecified. Several URLs are separated by commas. */
  readonly url: string;
  /** Roots of an external NATS (none: public ones); absent for our own, which the mesh vouches for. */
  readonly ca?: readonly string[];
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
    const ca = externalRoots(parts);
    // A CA is given to be used: without TLS nothing would be verified.
    const url = ca.length === 0 ? natsUrl : natsUrl.replaceAll("nats://", "tls://");
    const credentials = externalCredentials(parts);
    const tls = url.startsWith("tls:") ? { tls: ca.length === 0 ? {} : { ca } } : {};
    let doubt: Failure | undefined;
    const dialled = { url, credentials, external: true, doubt: () => doubt, ...tls };
    const bus = await connected(parts, dialled, opened);
    const way = watchWorkloadWay({
      ...{ bus, dial: { servers: url.split(","), ...tls }, nats: parts.held.nats, now: parts.now },
      found: (problem) => {
        doubt = problem;
      },
    });
    opened.adopt(way, (stop) => stop());
    return { bus, url, ca };
  }
  const server = await ownServer(parts, opened);
  const own = server.url.replace(/(\/\/).*(:\d+)$/, `$1${ownHost(parts.options.bind)}$2`);
  const credentials = ownBusCredentials(parts.held.nats, parts.now);
  const tls = { ca: parts.held.authority.bundle, serverName: CONTROL_SERVER_NAME };
  const dialled = { url: own, credentials, ...(own.startsWith("tls:") ? { tls } : {}) };
  const bus = await connected(parts, dialled, opened);
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

function externalRoots({ options }: LinkParts): readonly string[] {
  const path = options.natsCa;
  if (path === undefined) return [];
  const roots = pemCertificates(readGiven(path, "--nats-ca"));
  if (roots.length > 0) return roots;
  throw new Failure(
    "nats_ca_invalid",
    `${path} holds no certificate`,
    "give --nats-ca the PEM file of the CA that signed the certificate of NATS",
    { exit: EXIT.usage },
  );
}

function readGiven(path: string, flag: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new Failure(
      "nats_file_unreadable",
      `cannot read ${path}`,
      `check ${flag} and the file's permissions`,
      { exit: EXIT.usage, cause },
    );
  }
}

function externalCredentials({ options, held, now }: LinkParts): () => NatsCredentials {
  const path = options.natsCreds;
  if (path === undefined) return ownBusCredentials(held.nats, now);
  const read = () => parseNatsCredentials(readGiven(path, "--nats-creds"));
  let last = read();
  return () => {
    try {
      last = read();
    } catch {
      // Being replaced just now: those of before may still do.
    }
    return last;
  };
}

type Dialled = Pick<BusOptions, "credentials" | "doubt" | "external" | "tls"> & {
  readonly url: string;
};

async function connected(
  { log }: LinkParts,
  { url, ...options }: Dialled,
  opened: AsyncDisposableStack,
): Promise<Bus> {
  const bus = openBus({
    ...options,
    servers: url.split(","),
    inboxPrefix: CONTROL_INBOX_PREFIX,
    name: "controlplane",
    checkAccount: true,
    failed: (where, error) => log.warn("the bus reported an error", { where, error }),
  });
  opened.defer(() => bus.close());
  try {
    await bus.ready(READY_MS);
  } catch {
    // What is wrong is told below, and whenever it changes.
  }
  opened.adopt(tellProblems(bus, log), (stop) => stop());
  return bus;
}

const TELL_MS = 2_000;

/** Logs what is wrong with the bus once, however often it is tried, and that it is well again. */
function tellProblems(bus: Bus, log: Logger): () => void {
  let told: Failure | undefined;
  const look = () => {
    const { problem } = bus;
    if (problem?.message === told?.message) return;
    if (problem === undefined) log.info("the bus is well again");
    else {
      const message = `${problem.message}; changes are kept and published when it is well`;
      log.warn(message, { fix: problem.fix });
    }
    told = problem;
  };
  look();
  const timer = setInterval(look, TELL_MS);
  return () => clearInterval(timer);
}
