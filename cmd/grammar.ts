/**
 * The small languages of the command line: ports, upstreams, workloads, labels, durations.
 *
 * Each reader takes the text and `where` it was written (`--app`, `WEFT_APP`, `app in weft.yaml`)
 * and throws a `Failure` that names both and shows a right one.
 */
import { isIP } from "node:net";
import { EXIT, Failure } from "../src/error.ts";
import { parseRange } from "../src/std/address-range.ts";
import { LOCALITY } from "../src/std/locality.ts";
import type { AppPort, OutboundAddress, Protocol, UpstreamSpec } from "./options.ts";

const PROTOCOLS: readonly Protocol[] = ["http", "http2", "grpc", "tcp", "tls"];

/** RFC 1123 label. */
const LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

const NAMES_ARE = "use lower-case letters, digits and dashes, at most 63";

export function usage(message: string, fix: string): Failure {
  return new Failure("usage", message, fix, { exit: EXIT.usage, status: 400 });
}

export function readName(text: string, where: string): string {
  if (!LABEL.test(text)) throw usage(`${where}: "${text}" is not a name`, NAMES_ARE);
  return text;
}

export function readAddress(text: string, where: string): string {
  if (isIP(text) === 0) {
    throw usage(`${where}: "${text}" is not an IP address`, "for example 10.0.0.5 or ::1");
  }
  return text;
}

export function readLocality(text: string, where: string): string {
  if (!LOCALITY.test(text)) {
    throw usage(`${where}: "${text}" is not a locality`, "for example eu-1 or eu-1/zone-a");
  }
  return text;
}

export function readPort(text: string, where: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65535) {
    throw usage(`${where}: "${text}" is not a port`, "give a number from 1 to 65535");
  }
  return port;
}

/** `[SERVICEPORT=][HOST:]PORT[/PROTOCOL]`; the host is 127.0.0.1 unless given. */
export function readAppPort(text: string, where: string): AppPort {
  const match = /^(?:([^=/]*)=)?(?:(\[[^\]]*\]|[^:/=]*):)?([^:/=]*)(?:\/(.*))?$/.exec(text);
  if (match === null) {
    throw usage(
      `${where}: "${text}" is not [SERVICEPORT=][HOST:]PORT[/PROTOCOL]`,
      `for example ${where} 8080, or ${where} 80=127.0.0.1:8080/http`,
    );
  }
  const [, service, host, portText, protocol] = match;
  const port = readPort(portText ?? "", where);
  const servicePort = service === undefined ? port : readPort(service, where);
  const base = { servicePort, host: readHost(host, where), port };
  return protocol === undefined ? base : { ...base, protocol: readProtocol(protocol, where) };
}

function readHost(text: string | undefined, where: string): string {
  if (text === undefined) return "127.0.0.1";
  const host = text.startsWith("[") ? text.slice(1, -1) : text;
  if (!/^[A-Za-z0-9.:_-]+$/.test(host)) {
    throw usage(`${where}: "${text}" is not a host`, "give an address or name before the colon");
  }
  return host;
}

function readProtocol(text: string, where: string): Protocol {
  const found = PROTOCOLS.find((known) => known === text);
  if (found !== undefined) return found;
  throw usage(`${where}: protocol "${text}" is unknown`, `one of ${PROTOCOLS.join(", ")}`);
}

/** All ports of one workload: no service port twice; a lone one without protocol speaks HTTP. */
export function readAppPorts(texts: readonly string[], where: string): readonly AppPort[] {
  const ports = texts.map((text) => readAppPort(text, where));
  const only = ports[0];
  if (ports.length === 1 && only !== undefined && only.protocol === undefined) {
    return [{ ...only, protocol: "http" }];
  }
  const seen = new Set<number>();
  for (const { servicePort } of ports) {
    if (seen.has(servicePort)) {
      throw usage(
        `${where}: service port ${servicePort} is declared twice`,
        `give one of them another number: ${where} NUMBER=PORT`,
      );
    }
    seen.add(servicePort);
  }
  return ports;
}

/** `SERVICE[.NAMESPACE][/PORT]:LOCALPORT`. */
export function readUpstream(text: string, where: string): UpstreamSpec {
  const match = /^([^.:/]+)(?:\.([^.:/]+))?(?:\/([^:/]+))?:([^:/]+)$/.exec(text);
  if (match === null) {
    throw usage(
      `${where}: "${text}" is not SERVICE[.NAMESPACE][/PORT]:LOCALPORT`,
      `for example ${where} db:9191, or ${where} db.shop/5432:9191`,
    );
  }
  const [, service, namespace, port, local] = match;
  return {
    service: readName(service ?? "", where),
    listenPort: readPort(local ?? "", where),
    ...(namespace === undefined ? {} : { namespace: readName(namespace, where) }),
    ...(port === undefined ? {} : { servicePort: readPort(port, where) }),
  };
}

export function readUpstreams(texts: readonly string[], where: string): readonly UpstreamSpec[] {
  const upstreams = texts.map((text) => readUpstream(text, where));
  const seen = new Map<number, string>();
  for (const { listenPort, service } of upstreams) {
    const other = seen.get(listenPort);
    if (other !== undefined) {
      throw usage(
        `${where}: local port ${listenPort} leads to ${other} and to ${service}`,
        "give one of them another local port",
      );
    }
    seen.set(listenPort, service);
  }
  return upstreams;
}

export interface WorkloadText {
  readonly service: string;
  readonly namespace?: string;
  readonly app: readonly AppPort[];
}

/** `SERVICE[.NAMESPACE]=PORT[,PORT…]`, each port as `[HOST:]PORT[/PROTOCOL]`. */
export function readWorkload(text: string, where: string): WorkloadText {
  const match = /^([^=.]+)(?:\.([^=.]+))?=(.+)$/.exec(text);
  if (match === null) {
    throw usage(
      `${where}: "${text}" is not SERVICE=[HOST:]PORT[/PROTOCOL][,…]`,
      `for example ${where} cart=8080, or ${where} db=10.0.0.5:5432/tcp`,
    );
  }
  const [, service, namespace, ports] = match;
  return {
    service: readName(service ?? "", where),
    app: readAppPorts((ports ?? "").split(","), where),
    ...(namespace === undefined ? {} : { namespace: readName(namespace, where) }),
  };
}

/** `KEY=VALUE` pairs; a key given twice is an error. */
export function readLabels(
  texts: readonly string[],
  where: string,
): Readonly<Record<string, string>> {
  const labels: Record<string, string> = {};
  for (const text of texts) {
    const match = /^([A-Za-z0-9][A-Za-z0-9._/-]{0,252})=([A-Za-z0-9._-]{0,63})$/.exec(text);
    if (match === null) {
      throw usage(`${where}: "${text}" is not KEY=VALUE`, `for example ${where} version=v2`);
    }
    const [, key, value] = match;
    if (Object.hasOwn(labels, key!)) {
      throw usage(`${where}: label "${key}" is given twice`, "keep one of them");
    }
    labels[key!] = value!;
  }
  return labels;
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Gateway API durations (GEP-2257): `1h30m`, `30s`, `250ms`. Gives milliseconds. */
export function readDuration(text: string, where: string): number {
  const parts = [...text.matchAll(/(\d{1,9})(ms|s|m|h)/g)];
  const whole = parts.map((part) => part[0]).join("");
  if (parts.length === 0 || whole !== text) {
    throw usage(`${where}: "${text}" is not a duration`, "for example 30s, 250ms or 1h30m");
  }
  return parts.reduce((sum, [, count, unit]) => sum + Number(count) * UNIT_MS[unit!]!, 0);
}

/** Shorter ones would be renewed without pause, longer ones outlive their issuer. */
export function readLifetime(text: string, where: string): number {
  const ms = readDuration(text, where);
  if (ms >= 1000 && ms <= 365 * 24 * UNIT_MS["h"]!) return ms;
  throw usage(`${where}: "${text}" is no lifetime`, "use 1s to 8760h; 24h is good");
}

/** `HOST:PORT`, as `out:` in a workloads file names it. */
export function readOutboundAddress(text: string, where: string): OutboundAddress {
  const colon = text.lastIndexOf(":");
  if (colon <= 0) {
    throw usage(`${where}: "${text}" is not HOST:PORT`, "for example 127.0.17.1:17001");
  }
  const host = readHost(text.slice(0, colon), where);
  if (!host.startsWith("127.") && host !== "::1") {
    throw usage(
      `${where}: ${host} is not a loopback address`,
      "an application's way into the mesh must not be reachable from other hosts: use 127.0.17.N",
    );
  }
  return { host, port: readPort(text.slice(colon + 1), where) };
}

/** `ADDRESS` or `ADDRESS/BITS`, such as `127.0.0.2` or `10.0.0.0/8`. */
export function readRanges(texts: readonly string[], where: string): readonly string[] {
  for (const text of texts) {
    if (parseRange(text) !== undefined) continue;
    throw usage(`${where}: "${text}" is no range of addresses`, "for example 127.0.0.2 or ::1/128");
  }
  return texts;
}

export function readOneOf<T extends string>(choices: readonly T[]) {
  return (text: string, where: string): T => {
    const found = choices.find((choice) => choice === text);
    if (found !== undefined) return found;
    throw usage(`${where}: "${text}" is not known`, `one of ${choices.join(", ")}`);
  };
}
