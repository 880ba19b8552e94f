/** Names and addresses of this host. */
import { isIP } from "node:net";
import { hostname, networkInterfaces } from "node:os";

/** Every address of every interface. */
export function hostAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .map(({ address }) => address);
}

export function isLoopback(bind: string): boolean {
  return bind.startsWith("127.") || bind === "::1" || bind === "localhost";
}

function isUnspecified(bind: string): boolean {
  return bind === "0.0.0.0" || bind === "::";
}

/** Names the control plane's certificate is good for besides the constant ones. */
export function namesOf(bind: string): {
  readonly hostnames: readonly string[];
  readonly addresses: readonly string[];
} {
  const hostnames = [hostname(), ...(isIP(bind) === 0 ? [bind] : [])];
  if (isLoopback(bind)) return { hostnames, addresses: isIP(bind) === 0 ? [] : [bind] };
  if (isUnspecified(bind)) return { hostnames, addresses: hostAddresses().filter(isPlain) };
  return { hostnames, addresses: isIP(bind) === 0 ? [] : [bind] };
}

/** Link-local addresses carry a zone, which no certificate can name. */
function isPlain(address: string): boolean {
  return !address.includes("%") && !/^fe[89ab]/i.test(address);
}

/** The host others dial, as a URL writes it. */
export function urlHost(bind: string): string {
  if (!isUnspecified(bind)) return bracketed(bind);
  const outside = Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .find(({ internal, family }) => !internal && family === "IPv4");
  return bracketed(outside?.address ?? "127.0.0.1");
}

/** The host this process itself dials to reach what it bound. */
export function ownHost(bind: string): string {
  if (bind === "0.0.0.0") return "127.0.0.1";
  return bind === "::" ? "[::1]" : bracketed(bind);
}

function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}
