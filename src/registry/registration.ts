/** What workloads send to the registry, read strictly: it comes from outside. */
import { isIP } from "node:net";
import type { Labels, Protocol } from "../snapshot/document.ts";
import { inRange } from "../std/address-range.ts";

export interface Registration {
  /** New at every start of the proxy. */
  readonly boot: string;
  /** IP address other proxies dial. */
  readonly addr: string;
  readonly meshPort: number;
  readonly ports: Readonly<Record<string, RegisteredPort>>;
  readonly labels: Labels;
  readonly locality: string;
  readonly weight: number;
  readonly version: string;
  readonly schema: number;
  /** Where its metrics are served, `host:port`. */
  readonly metrics?: string;
  /** As kept in the store while the application is not well; workloads tell it when renewing. */
  readonly health?: "failing";
}

export interface RegisteredPort {
  /** Port of the application. */
  readonly app: number;
  readonly protocol: Protocol;
  /** None was declared: `protocol` is for control planes that do not know of this field. */
  readonly detect?: true;
}

export interface Renewal {
  readonly boot: string;
  readonly health: "ok" | "failing";
  readonly inflight: number;
}

export interface Acknowledgement {
  readonly epoch: number;
  readonly rev: number;
  readonly refused: readonly { readonly key: string; readonly reason: string }[];
}

/** Control and format characters. */
const UNSEEN = /[\p{Cc}\p{Cf}]/u;
const EVERY_UNSEEN = new RegExp(UNSEEN, "gu");
const PORTS_MAX = 64;
const LABELS_MAX = 64;
const TEXT_MAX = 253;
const REFUSED_MAX = 20;
const PROTOCOLS: readonly string[] = ["http", "http2", "grpc", "tcp", "tls"];

/** The registration, or what is wrong with it. */
export function readRegistration(data: Uint8Array): Registration | { readonly wrong: string } {
  const body = readObject(data);
  if (body === undefined) return { wrong: "the registration is not a JSON object" };
  const { boot, addr, meshPort, labels, locality, weight, version, schema, metrics } = body;
  if (!isText(boot) || boot === "") return { wrong: "boot is missing" };
  if (!isText(addr) || isIP(addr) === 0) return { wrong: "addr is not an IP address" };
  if (!isPort(meshPort)) return { wrong: "meshPort is not a port" };
  const ports = readPorts(body["ports"]);
  if (ports === undefined) return { wrong: `ports is not a map of at most ${PORTS_MAX} ports` };
  if (!isLabels(labels)) return { wrong: `labels is not a map of at most ${LABELS_MAX} texts` };
  if (!isText(locality)) return { wrong: "locality is not a text" };
  if (!isCount(weight) || weight > 10_000) return { wrong: "weight is not within 0 to 10000" };
  if (!isText(version)) return { wrong: "version is not a text" };
  if (!isCount(schema)) return { wrong: "schema is not a number" };
  if (metrics !== undefined && !isText(metrics)) return { wrong: "metrics is not a text" };
  return {
    ...{ boot, addr, meshPort, ports, labels, locality, weight, version, schema },
    ...(metrics === undefined ? {} : { metrics }),
    ...(body["health"] === "failing" ? { health: "failing" as const } : {}),
  };
}

/** The IP address in `address:port`; undefined when it is none. */
export function metricsHost(metrics: string): string | undefined {
  const [, text = "", port] = /^(.+):(\d{1,5})$/.exec(metrics) ?? [];
  const host = text === "localhost" ? "127.0.0.1" : text.replace(/^\[(.+)\]$/, "$1");
  return isIP(host) !== 0 && isPort(Number(port)) ? host : undefined;
}

export function readRenewal(data: Uint8Array): Renewal | undefined {
  const body = readObject(data);
  const boot = body?.["boot"];
  if (body === undefined || !isText(boot)) return undefined;
  const { health, inflight } = body;
  return {
    boot,
    health: health === "failing" ? "failing" : "ok",
    inflight: isCount(inflight) ? inflight : 0,
  };
}

export function readAcknowledgement(data: Uint8Array): Acknowledgement | undefined {
  const body = readObject(data);
  if (body === undefined) return undefined;
  const { epoch, rev, refused } = body;
  if (!isCount(epoch) || !isCount(rev)) return undefined;
  const list: { readonly key: string; readonly reason: string }[] = [];
  for (const item of Array.isArray(refused) ? (refused as readonly unknown[]) : []) {
    if (!isRecord(item) || list.length >= REFUSED_MAX) continue;
    const { key, reason } = item;
    if (!isText(key) || typeof reason !== "string") continue;
    list.push({ key, reason: reason.slice(0, 500).replace(EVERY_UNSEEN, "?") });
  }
  return { epoch, rev, refused: list };
}

/** `<namespace>.<service>.<instance>` at the end of a subject that was matched by `prefix>`. */
export function senderOf(
  subject: string,
  prefix: string,
): { readonly namespace: string; readonly service: string; readonly instance: string } | undefined {
  if (!subject.startsWith(prefix)) return undefined;
  const [namespace = "", service = "", instance = "", ...more] = subject
    .slice(prefix.length)
    .split(".");
  if (more.length > 0 || [namespace, service, instance].includes("")) return undefined;
  return { namespace, service, instance };
}

/** What is known about where a workload may say it is. */
export interface AddressFacts {
  /** Where the API last saw it come from. */
  readonly source: string | undefined;
  /** Address of its last accepted registration. */
  readonly last: string | undefined;
  /** From its join token. */
  readonly cidr: string | undefined;
  /** Addresses of the control plane's own host. */
  readonly host: readonly string[];
}

/**
 * Whether a workload may register `addr`. The bus hides the source of a request, so the address
 * the API saw stands in for it. From the control plane's own host every address of that host is as
 * good as loopback; loopback itself leads nowhere but to the dialler's own host.
 */
export function mayRegister(addr: string, facts: AddressFacts): boolean {
  if (facts.cidr !== undefined) return inRange(addr, facts.cidr);
  if (isLoopback(addr) || addr === facts.last) return true;
  if (facts.source === undefined) return false;
  const source = plainAddress(facts.source);
  const asked = plainAddress(addr);
  return asked === source || (isLocal(source, facts.host) && facts.host.includes(asked));
}

/** An address as it is usually written: a listener on `::` sees 192.0.2.1 as ::ffff:192.0.2.1. */
function plainAddress(address: string): string {
  const [, mapped] = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address) ?? [];
  if (mapped !== undefined || isIP(address) !== 6) return mapped ?? address;
  return new URL(`http://[${address.replace(/%.*$/, "")}]/`).hostname.slice(1, -1);
}

function isLocal(source: string, host: readonly string[]): boolean {
  return isLoopback(source) || host.includes(source);
}

export function isLoopback(addr: string): boolean {
  return addr.startsWith("127.") || addr === "::1";
}

function readObject(data: Uint8Array): Record<string, unknown> | undefined {
  if (data.length > 64 * 1024) return undefined;
  try {
    const value: unknown = JSON.parse(Buffer.from(data).toString("utf8"));
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function readPorts(value: unknown): Record<string, RegisteredPort> | undefined {
  if (!isRecord(value) || Object.keys(value).length > PORTS_MAX) return undefined;
  const ports: Record<string, RegisteredPort> = {};
  for (const [port, entry] of Object.entries(value)) {
    if (!/^[1-9][0-9]{0,4}$/.test(port) || !isPort(Number(port)) || !isRecord(entry)) {
      return undefined;
    }
    const { app, protocol } = entry;
    if (!isPort(app) || typeof protocol !== "string" || !PROTOCOLS.includes(protocol)) {
      return undefined;
    }
    const known = { app, protocol: protocol as Protocol };
    ports[port] = entry["detect"] === true ? { ...known, detect: true } : known;
  }
  return ports;
}

function isLabels(value: unknown): value is Labels {
  if (!isRecord(value)) return false;
  const entries = Object.entries(value);
  return (
    entries.length <= LABELS_MAX && entries.every(([name, text]) => isText(name) && isText(text))
  );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Short, and nothing in it moves a terminal's cursor or turns what is written beside it. */
function isText(value: unknown): value is string {
  return typeof value === "string" && value.length <= TEXT_MAX && value.search(UNSEEN) < 0;
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isPort(value: unknown): value is number {
  return isCount(value) && value > 0 && value <= 65_535;
}
