/**
 * Every setting, once: its flag, its `WEFT_*` variable and its key in a `--config` file.
 *
 * Flags win over variables, variables over the file. `settle` turns the three into one typed
 * record; a bad value is an error that names where it was written.
 */
import { readFileSync } from "node:fs";
import type { LogLevel } from "../src/telemetry/log.ts";
import type { Environment } from "./environment.ts";
import {
  readAddress,
  readAppPorts,
  readDuration,
  readLabels,
  readLifetime,
  readLocality,
  readName,
  readOneOf,
  readPort,
  readRanges,
  readUpstreams,
  readWorkload,
  usage,
} from "./grammar.ts";
import type { HealthProbe, LogFormat } from "./options.ts";

/** How a flag is written: with a value, with values (repeatable), or alone. */
type Shape = "one" | "many" | "toggle";

export interface Flag<T> {
  readonly shape: Shape;
  /** Placeholder of the value in help. */
  readonly hint: string;
  readonly help: string;
  /** Separates values inside a variable. */
  readonly split: RegExp;
  readonly short?: string;
  readonly read: (texts: readonly string[], where: string) => T;
}

type ReadOne<T> = (text: string, where: string) => T;

function one<T>(hint: string, help: string, read: ReadOne<T>, short?: string): Flag<T> {
  const last = (texts: readonly string[], where: string) => read(texts.at(-1) ?? "", where);
  const base = { shape: "one" as const, hint, help, split: /$^/, read: last };
  return short === undefined ? base : { ...base, short };
}

function many<T>(hint: string, help: string, split: RegExp, read: Flag<T>["read"]): Flag<T> {
  return { shape: "many", hint, help, split, read };
}

function toggle(help: string): Flag<boolean> {
  const read = (texts: readonly string[], where: string) =>
    readOneOf(["true", "false", "1", "0"])(texts.at(-1) ?? "true", where).match(/true|1/) !== null;
  return { shape: "toggle", hint: "", help, split: /$^/, read };
}

const COMMAS = /[\s,]+/;
const SPACES = /\s+/;

function text(value: string, where: string): string {
  if (value === "") throw usage(`${where}: the value is empty`, "give one, or leave it out");
  return value;
}

function url(schemes: readonly string[], example: string): ReadOne<string> {
  return (value, where) => {
    for (const part of value.split(",")) {
      const parsed = URL.parse(part);
      if (parsed === null || !schemes.includes(parsed.protocol)) {
        throw usage(
          `${where}: "${value}" is not a URL of the right kind`,
          `for example ${example}`,
        );
      }
    }
    return value;
  };
}

function portBase(value: string, where: string): number {
  const base = readPort(value, where);
  if (base > 65535 - 222) throw usage(`${where}: ${base} is too high`, "use at most 65313");
  return base;
}

function trustDomain(value: string, where: string): string {
  if (value.length <= 118 && /^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$/.test(value)) return value;
  throw usage(`${where}: "${value}" is not a trust domain`, "for example weft.local");
}

function health(value: string, where: string): HealthProbe {
  if (value === "tcp" || value === "none") return value;
  if (/^\/[\x21-\x7e]*$/.test(value)) return `/${value.slice(1)}`;
  throw usage(
    `${where}: "${value}" is not a health check`,
    "tcp, none, or a path such as /healthz",
  );
}

function weight(value: string, where: string): number {
  const number = /^\d{1,4}$/.test(value) ? Number(value) : 0;
  if (number >= 1 && number <= 1000) return number;
  throw usage(`${where}: "${value}" is not a weight`, "give a number from 1 to 1000");
}

export const FLAGS = {
  config: one("FILE", "settings as YAML or JSON; keys are the long flag names", text),
  mode: one(
    "MODE",
    "controlplane, sidecar or node",
    readOneOf(["controlplane", "sidecar", "node"]),
  ),
  data: one("DIR", "folder for state (0700), one per process", text),
  bind: one(
    "ADDRESS",
    "address to listen on (control plane 127.0.0.1, mesh port 0.0.0.0)",
    readAddress,
  ),
  "port-base": one("PORT", "first of the ports weft uses (17000)", portBase),
  "trust-domain": one("NAME", "trust domain of all identities (weft.local)", trustDomain),
  "nats-url": one(
    "URL[,URL…]",
    "use this NATS instead of the built-in server",
    url(["nats:", "tls:"], "nats://10.0.0.2:4222"),
  ),
  "nats-ca": one("FILE", "CA of the certificates of --nats-url (public CAs)", text),
  "nats-creds": one("FILE", "credentials file for --nats-url", text),
  "nats-server": one("FILE", "run this nats-server instead of the built-in one", text),
  restored: toggle("the data folder comes from a backup: start a new epoch"),
  "svid-ttl": one("DURATION", "lifetime of workload certificates (24h)", readLifetime),
  drain: one("DURATION", "longest wait for open requests when stopping (30s)", readDuration),
  log: one<LogFormat>("FORMAT", "json or text (text on a terminal)", readOneOf(["json", "text"])),
  "log-level": one<LogLevel>(
    "LEVEL",
    "debug, info, warn or error (info)",
    readOneOf(["debug", "info", "warn", "error"]),
  ),
  service: one("NAME", "service this proxy stands beside", readName),
  namespace: one("NAME", "namespace (default)", readName, "n"),
  "service-account": one("NAME", "identity to run under (the service's name)", readName),
  app: many(
    "[SERVICEPORT=][HOST:]PORT[/PROTOCOL]",
    "where the application listens",
    COMMAS,
    readAppPorts,
  ),
  upstream: many(
    "SERVICE[.NS][/PORT]:LOCALPORT",
    "local port that leads to a service",
    COMMAS,
    readUpstreams,
  ),
  label: many("KEY=VALUE", "label of this instance, such as version=v2", COMMAS, readLabels),
  locality: one("REGION/ZONE", "where this instance runs", readLocality),
  weight: one("N", "share of traffic among equals, 1 to 1000 (100)", weight),
  workload: many(
    "SERVICE=[HOST:]PORT[/PROTOCOL][,…]",
    "a workload of this host",
    SPACES,
    (texts, where) => texts.map((item) => readWorkload(item, where)),
  ),
  workloads: one("FILE", "workloads of this host as a YAML list", text),
  controlplane: one(
    "URL",
    "control plane, such as https://10.0.0.1:17010",
    url(["https:"], "https://10.0.0.1:17010"),
  ),
  "token-file": one("FILE", "file with the token, or - for stdin", text),
  token: one("TOKEN", "a join token that ends within the hour (others can read it here)", text),
  advertise: one(
    "ADDRESS",
    "address other proxies dial (the one it reaches the control plane from)",
    readAddress,
  ),
  "metrics-bind": one("ADDRESS", "address of /metrics, /healthz, /readyz (127.0.0.1)", readAddress),
  health: one("CHECK", "tcp, none, or a path: when the application is ready (tcp)", health),
  "accept-proxy-protocol": many(
    "ADDRESS[/BITS][,…]",
    "callers on this host that begin with a PROXY header, as a load balancer does (none)",
    COMMAS,
    readRanges,
  ),
  "access-log": one(
    "on|off",
    "one JSON line per request on stdout (off)",
    readOneOf(["on", "off"]),
  ),
} as const satisfies Readonly<Record<string, Flag<unknown>>>;

export type FlagName = keyof typeof FLAGS;

export type Settings = {
  readonly [K in FlagName]?: ReturnType<(typeof FLAGS)[K]["read"]> | undefined;
};

const SHARED = ["config", "data", "bind", "port-base", "drain", "log", "log-level"] as const;

const PROXY = [
  ...SHARED,
  "controlplane",
  "token-file",
  "token",
  "namespace",
  "advertise",
  "metrics-bind",
  "health",
  "access-log",
  "accept-proxy-protocol",
  "locality",
] as const;

/** What each mode takes; anything else is an error there. */
export const MODE_FLAGS = {
  controlplane: [
    ...SHARED,
    "trust-domain",
    "nats-url",
    "nats-ca",
    "nats-creds",
    "nats-server",
    "restored",
    "svid-ttl",
  ],
  sidecar: ["service", "app", "upstream", ...PROXY, "service-account", "label", "weight"],
  node: ["workload", "workloads", ...PROXY],
} as const satisfies Readonly<Record<string, readonly FlagName[]>>;

export type Mode = keyof typeof MODE_FLAGS;

/** `port-base` -> `WEFT_PORT_BASE`. */
export function variableOf(name: string): string {
  return `WEFT_${name.replaceAll("-", "_").toUpperCase()}`;
}

/** What the operator wrote on the command line, by flag name. */
export type Written = Readonly<Record<string, string | boolean | readonly string[] | undefined>>;

/** Merges flags, variables and file for the settings `names`. */
export function settle(
  names: readonly FlagName[],
  written: Written,
  env: Environment,
  file: ConfigFile | undefined = undefined,
): Settings {
  if (file !== undefined) refuseUnknownKeys(file, names);
  const settled: Record<string, unknown> = {};
  for (const name of names) {
    const flag: Flag<unknown> = FLAGS[name];
    const found =
      fromCommandLine(name, written) ?? fromVariable(name, flag, env) ?? fromFile(name, flag, file);
    if (found !== undefined) settled[name] = flag.read(found.texts, found.where);
  }
  return settled as Settings;
}

interface Found {
  readonly texts: readonly string[];
  readonly where: string;
}

function fromCommandLine(name: string, written: Written): Found | undefined {
  const value = written[name];
  if (value === undefined) return undefined;
  const texts = Array.isArray(value) ? value : [String(value)];
  return { texts, where: `--${name}` };
}

function fromVariable(name: string, flag: Flag<unknown>, env: Environment): Found | undefined {
  const value = env[variableOf(name)];
  // An empty variable is how container files say "not set".
  if (value === undefined || value === "") return undefined;
  const texts = flag.shape === "many" ? value.split(flag.split).filter((t) => t !== "") : [value];
  return { texts, where: variableOf(name) };
}

function fromFile(name: string, flag: Flag<unknown>, file?: ConfigFile): Found | undefined {
  const value = file?.values[name];
  if (value === undefined || value === null) return undefined;
  const where = `${name} in ${file?.path}`;
  const items: readonly unknown[] = Array.isArray(value) ? value : [value];
  if (items.length > 1 && flag.shape !== "many") {
    throw usage(`${where}: a list, where one value is expected`, "keep one value");
  }
  const texts = items.map((item) => {
    if (typeof item === "string") return item;
    if (typeof item === "number" || typeof item === "boolean") return String(item);
    throw usage(`${where}: not a plain value`, "write text, a number, or true/false");
  });
  return { texts: name === "access-log" ? texts.map(onOff) : texts, where };
}

function onOff(value: string): string {
  if (value === "true") return "on";
  return value === "false" ? "off" : value;
}

export interface ConfigFile {
  readonly path: string;
  readonly values: Readonly<Record<string, unknown>>;
}

/** Reads a `--config` file: one YAML or JSON mapping. */
export function readConfigFile(path: string, where: string): ConfigFile {
  const values = readYaml(path, where);
  if (typeof values !== "object" || values === null || Array.isArray(values)) {
    throw usage(
      `${where}: ${path} is not a mapping of settings`,
      "write lines such as port-base: 17000",
    );
  }
  return { path, values: { ...values } };
}

export function readYaml(path: string, where: string): unknown {
  let source: string;
  try {
    source = readFileSync(path, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unreadable";
    throw usage(`${where}: cannot read ${path} (${code})`, "check the path and its permissions");
  }
  try {
    return Bun.YAML.parse(source);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw usage(`${where}: ${path}: ${message}`, "fix the YAML, or write JSON");
  }
}

function refuseUnknownKeys(file: ConfigFile, names: readonly FlagName[]): void {
  const known: readonly string[] = [...names, "mode"];
  for (const key of Object.keys(file.values)) {
    if (known.includes(key)) continue;
    const dashed = key.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`).replaceAll("_", "-");
    const fix = known.includes(dashed)
      ? `write ${dashed}`
      : `remove it; known here: ${known.join(", ")}`;
    throw usage(`${file.path}: unknown setting "${key}"`, fix);
  }
}
