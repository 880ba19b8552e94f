/**
 * Which service port a caller means by an authority: `cart`, `cart.default`, `cart.default.mesh`,
 * `cart.default.svc.cluster.local`, each with or without port, in any case, with or without a
 * trailing dot. Short names live in the caller's namespace. A service may answer to further hosts.
 */
import type { Snapshot, UpstreamPort, UpstreamService } from "./snapshot.ts";

export type Resolution =
  | { readonly kind: "service"; readonly service: UpstreamService; readonly port: UpstreamPort }
  /** No port was given, and the service has several and none is 80. */
  | { readonly kind: "ambiguous_port"; readonly service: UpstreamService }
  /** The service has no such port. */
  | { readonly kind: "no_port"; readonly service: UpstreamService; readonly port: number }
  /**
   * Reads like a mesh name, but the snapshot does not hold the service: it does not exist, or
   * this proxy has not asked for it yet. `certain`: spelled with a suffix only the mesh has.
   */
  | {
      readonly kind: "unknown";
      readonly namespace: string;
      readonly service: string;
      readonly host: string;
      readonly port: number | undefined;
      readonly certain: boolean;
    }
  | { readonly kind: "outside"; readonly host: string; readonly port: number | undefined }
  | { readonly kind: "malformed" };

const MALFORMED: Resolution = { kind: "malformed" };
const LABEL = /^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$/;
const HOST = /^(?:\[[0-9a-f:.]+\]|[^\s/?#@:[\]\\]+)$/;
const CLUSTER = ".svc.cluster.local";
const MESH = ".mesh";
/** Of any name (RFC 1035, 2.3.4). Callers choose it, and resolutions of it are remembered. */
const HOST_BYTES_MAX = 255;

export function resolveAuthority(
  snapshot: Snapshot,
  authority: string,
  callerNamespace: string,
): Resolution {
  const split = splitAuthority(authority);
  if (split === undefined) return MALFORMED;
  const { host, port } = split;
  const name = serviceNamed(snapshot, host, callerNamespace);
  if (name === undefined) return { kind: "outside", host, port };
  const service = snapshot.services.get(`${name.namespace}/${name.service}`);
  if (service === undefined) return { kind: "unknown", ...name, host, port };
  const chosen = port ?? impliedPort(service);
  if (chosen === undefined) return { kind: "ambiguous_port", service };
  const found = service.ports.get(chosen);
  if (found === undefined) return { kind: "no_port", service, port: chosen };
  return { kind: "service", service, port: found };
}

/** Host (lower case, one trailing dot taken off) and port; undefined = not an authority. */
export function splitAuthority(
  authority: string,
): { readonly host: string; readonly port: number | undefined } | undefined {
  const colon = authority.lastIndexOf(":");
  const hasPort = colon !== -1 && colon > authority.lastIndexOf("]");
  let host = (hasPort ? authority.slice(0, colon) : authority).toLowerCase();
  if (host.length > HOST_BYTES_MAX || !HOST.test(host)) return undefined;
  if (host.length > 1 && host.endsWith(".")) host = host.slice(0, -1);
  const digits = hasPort ? authority.slice(colon + 1) : "";
  // RFC 3986 section 3.2.3: an empty port is the same as none.
  if (digits === "") return { host, port: undefined };
  if (!/^[0-9]{1,5}$/.test(digits)) return undefined;
  const port = Number(digits);
  return port >= 1 && port <= 65535 ? { host, port } : undefined;
}

/** The service that a host (lower case, without port) means, whether it exists or not. */
export function serviceNamed(
  snapshot: Snapshot,
  host: string,
  callerNamespace: string,
): { namespace: string; service: string; certain: boolean } | undefined {
  return hostName(snapshot, host) ?? meshName(host, callerNamespace);
}

/** The service that answers to a host of the world outside. */
function hostName(snapshot: Snapshot, host: string) {
  const name = snapshot.hosts.get(host);
  if (name === undefined) return undefined;
  const slash = name.indexOf("/");
  // A caller that may not see the service goes where it would go without it.
  return { namespace: name.slice(0, slash), service: name.slice(slash + 1), certain: false };
}

function meshName(host: string, callerNamespace: string) {
  let rest = host;
  let certain = false;
  if (rest.endsWith(MESH) && rest.indexOf(".") < rest.length - MESH.length) {
    rest = rest.slice(0, -MESH.length);
    certain = true;
  } else if (rest.endsWith(CLUSTER)) {
    rest = rest.slice(0, -CLUSTER.length);
    certain = true;
  }
  const [service, namespace, ...more] = rest.split(".");
  if (service === undefined || more.length > 0) return undefined;
  if (certain && namespace === undefined) return undefined;
  if (!LABEL.test(service) || (namespace !== undefined && !LABEL.test(namespace))) return undefined;
  return { service, namespace: namespace ?? callerNamespace, certain };
}

/** The only port, else 80. */
function impliedPort(service: UpstreamService): number | undefined {
  if (service.ports.size === 1) return service.ports.keys().next().value;
  return service.ports.has(80) ? 80 : undefined;
}

/** Remembers resolutions for one snapshot and caller; forgets all of them when it is full. */
export class Authorities {
  readonly #snapshot: Snapshot;
  readonly #callerNamespace: string;
  readonly #known = new Map<string, Resolution>();

  constructor(snapshot: Snapshot, callerNamespace: string) {
    this.#snapshot = snapshot;
    this.#callerNamespace = callerNamespace;
  }

  resolve(authority: string): Resolution {
    const known = this.#known.get(authority);
    if (known !== undefined) return known;
    const found = resolveAuthority(this.#snapshot, authority, this.#callerNamespace);
    // Callers choose the text, so it must not be able to fill memory.
    if (this.#known.size >= AUTHORITIES_MAX) this.#known.clear();
    this.#known.set(authority, found);
    return found;
  }
}

const AUTHORITIES_MAX = 1024;
