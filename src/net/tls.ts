/** Certificates and protocol names as the sockets want them. Inside the mesh TLS 1.3 only. */
import { constants } from "node:crypto";
import { createSecureContext } from "node:tls";
import type { BunTlsSocket, NativeContext } from "./bun-socket.ts";
import type { TlsPeer } from "./connection.ts";

/**
 * A resumed session stands for what a certificate proved up to hours before, whether or not it has
 * expired since: every connection proves it anew.
 */
const NEVER_RESUMED = constants.SSL_OP_NO_TICKET;

/** A key, its chain and the roots it trusts. Making one costs tens of microseconds: keep it. */
export interface TlsContext {
  readonly native: NativeContext;
}

/**
 * `cert` is the chain, leaf first, PEM; `ca` the roots that peers must chain to.
 * @throws Error when key and certificate do not fit or are not PEM.
 */
export function tlsContext(o: {
  readonly cert: string;
  readonly key: string;
  readonly ca: readonly string[];
}): TlsContext {
  const { context } = createSecureContext({
    cert: o.cert,
    key: o.key,
    ca: [...o.ca],
    minVersion: "TLSv1.3",
    secureOptions: NEVER_RESUMED,
  });
  return { native: context };
}

/** A context without a certificate of its own: clients that only verify. */
export function clientContext(ca: readonly string[]): TlsContext {
  return { native: createSecureContext({ ca: [...ca], minVersion: "TLSv1.3" }).context };
}

/** Wire format of ALPN names (RFC 7301). */
export function alpnWire(names: readonly string[]): Uint8Array {
  return Buffer.concat(names.map((name) => Buffer.from([name.length, ...Buffer.from(name)])));
}

export function peerOf<Data>(socket: BunTlsSocket<Data>, serverName: string): TlsPeer {
  const { authorized } = socket;
  const names = authorized ? socket.getPeerCertificate()?.subjectaltname : undefined;
  return {
    serverName,
    alpn: socket.alpnProtocol || "",
    authorized,
    uris: names === undefined ? [] : uriNames(names),
    resumed: socket.isSessionReused(),
  };
}

/**
 * URI names of a subject alternative name in its text form. A quoted entry means a name that
 * holds a separator, which no name of ours does: then nothing is trusted.
 */
export function uriNames(subjectAltName: string): string[] {
  if (subjectAltName.includes('"')) return [];
  const uris: string[] = [];
  for (const entry of subjectAltName.split(", ")) {
    if (entry.startsWith("URI:")) uris.push(entry.slice(4));
  }
  return uris;
}
