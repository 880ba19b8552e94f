/** What a nats-server of ours is started with, and its configuration file. */
import { join, resolve } from "node:path";
import type { NatsTrust } from "../identity/nats-auth.ts";

export interface NatsServerOptions {
  /** Control plane's data folder; the server lives in `<dataDir>/nats`. */
  readonly dataDir: string;
  /** Path of the executable, from `findNatsServer`. */
  readonly binary: string;
  readonly host: string;
  readonly port: number;
  /** Required beyond loopback. PEM texts. */
  readonly tls?: { readonly cert: string; readonly key: string };
  readonly auth: NatsTrust;
  /** Hears of every unexpected end and of every restart. */
  readonly log?: (event: NatsServerEvent) => void;
}

export type NatsServerEventName =
  | "nats_started"
  | "nats_adopted"
  | "nats_replaced"
  | "nats_ended"
  | "nats_restart"
  | "nats_wiped";

export interface NatsServerEvent {
  readonly event: NatsServerEventName;
  readonly pid: number;
  readonly detail: string;
}

/** Whether `host` is reached from this machine only. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\./.test(host);
}

function quote(text: string): string {
  return JSON.stringify(text);
}

function trustLines(auth: NatsTrust): string[] {
  return [
    `operator: ${auth.operatorJwt}`,
    `system_account: ${auth.systemAccount}`,
    "resolver: MEMORY",
    "resolver_preload: {",
    `  ${auth.systemAccount}: ${auth.systemJwt}`,
    `  ${auth.account}: ${auth.accountJwt}`,
    `  ${auth.workloads}: ${auth.workloadsJwt}`,
    "}",
  ];
}

/**
 * For a nats-server that an operator runs: whom to let in, and what else the mesh depends on.
 * Holds no secret, and nothing about addresses, TLS or clusters, which are the operator's.
 */
export function externalNatsConfig(auth: NatsTrust): string {
  const lines = [
    "# What weft needs of a nats-server: put it into its configuration file, or include it there.",
    "# It lets in this mesh's control plane and workloads, and holds no secret.",
    "",
    "# Documents are stored in JetStream; each is synced before it counts.",
    "jetstream {",
    '  store_dir: "/var/lib/nats"',
    "  sync_interval: always",
    "}",
    "# A workload's rights travel in one line.",
    "max_control_line: 1MB",
    "",
    "# Where other operators and accounts are in use: list this operator beside yours,",
    "# keep your system_account and resolver, and add the last two accounts to what you preload.",
    ...trustLines(auth),
    "",
    "# Beyond loopback, with a certificate that proxies can verify (weft: --nats-ca FILE):",
    "# tls {",
    '#   cert_file: "/etc/nats/server.pem"',
    '#   key_file: "/etc/nats/server.key"',
    "# }",
  ];
  return `${lines.join("\n")}\n`;
}

/** The configuration file; a pure function of the options. */
export function natsConfig(o: NatsServerOptions): string {
  const folder = join(resolve(o.dataDir), "nats");
  const lines = [
    `server_name: ${quote("weft")}`,
    `host: ${quote(o.host)}`,
    `port: ${o.port}`,
    `log_file: ${quote(join(folder, "nats.log"))}`,
    "logfile_size_limit: 4MB",
    "logfile_max_num: 2",
    "max_payload: 1MB",
    // A user JWT grants key by key and travels in one line.
    "max_control_line: 1MB",
    'ping_interval: "10s"',
    "ping_max: 2",
    'write_deadline: "10s"',
    "jetstream {",
    `  store_dir: ${quote(join(folder, "store"))}`,
    "  sync_interval: always",
    "  max_memory_store: 0",
    "}",
    ...trustLines(o.auth),
  ];
  if (o.tls !== undefined) {
    lines.push("tls {", `  cert_file: ${quote(join(folder, "tls.pem"))}`);
    lines.push(`  key_file: ${quote(join(folder, "tls.key"))}`);
    lines.push('  min_version: "1.3"', "  timeout: 5", "}");
  }
  return `${lines.join("\n")}\n`;
}
