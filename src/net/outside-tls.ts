/** TLS towards servers outside of the mesh: whom to trust, and what is wrong with who answers. */
import { X509Certificate } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { isIP } from "node:net";
import { createSecureContext, getCACertificates } from "node:tls";
import type { BunTlsSocket } from "./bun-socket.ts";
import type { TlsContext } from "./tls.ts";

/** What is asked of a server that is no proxy of the mesh. */
export interface OutsideCheck {
  /** False: whoever answers is taken for the server. */
  readonly verify: boolean;
  /** Its certificate must carry one of these host names or IP addresses. */
  readonly names: readonly string[];
}

/** Who to trust, and who to be. */
export interface OutsideTrust {
  /** Certificates, PEM; absent = what the host trusts. */
  readonly ca?: string;
  /** Files on this host with our own chain and its key, PEM; absent = we show nothing. */
  readonly client?: { readonly certificate: string; readonly key: string };
}

interface Known {
  readonly context: TlsContext;
  /** Of the files it was made from. */
  readonly stamp: string;
  /** When they were last looked at, monotonic milliseconds. */
  lookedAt: number;
}

const CONTEXTS_MAX = 256;
/** How soon replaced files are noticed. */
const LOOK_MS = 1000;
const contexts = new Map<string, Known>();

/**
 * TLS 1.2 is enough: servers outside are not ours to choose. Kept, as the host's roots take 20 ms
 * to read; made anew when the client's files change, and while new ones do not fit together the
 * old ones stay in use.
 * @throws Error when `ca` holds no certificates, or the files were never usable.
 */
export function outsideContext(trust: OutsideTrust, now: number): TlsContext {
  const { ca, client } = trust;
  const key = client === undefined ? `${ca}` : `${ca}\n${client.certificate}\n${client.key}`;
  const known = contexts.get(key);
  if (known !== undefined && (client === undefined || now - known.lookedAt < LOOK_MS)) {
    return known.context;
  }
  try {
    if (known !== undefined) known.lookedAt = now;
    const stamp =
      client === undefined ? "" : `${stampOf(client.certificate)} ${stampOf(client.key)}`;
    if (known?.stamp === stamp) return known.context;
    const native = nativeContext(trust);
    if (contexts.size >= CONTEXTS_MAX) contexts.clear();
    contexts.set(key, { context: { native }, stamp, lookedAt: now });
    return { native };
  } catch (error) {
    if (known === undefined) throw error;
    return known.context;
  }
}

function nativeContext({ ca, client }: OutsideTrust): TlsContext["native"] {
  const trusted = { ca: ca ?? hostRoots(), minVersion: "TLSv1.2" } as const;
  if (client === undefined) return createSecureContext(trusted).context;
  const files = { cert: readFileSync(client.certificate), key: readFileSync(client.key) };
  try {
    return createSecureContext({ ...trusted, ...files }).context;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const why = message.includes("KEY_VALUES_MISMATCH") ? "they do not belong together" : message;
    throw new Error(`${client.certificate} with ${client.key}: ${why}`, { cause: error });
  }
}

function stampOf(file: string): string {
  const { ino, mtimeMs, size } = statSync(file);
  return `${ino}/${mtimeMs}/${size}`;
}

/** The host's store, which its owner keeps; without one the roots this program was built with. */
function hostRoots(): string[] {
  const roots = getCACertificates("system");
  return roots.length > 0 ? roots : getCACertificates("bundled");
}

const NAME_MISMATCH = "ERR_TLS_CERT_ALTNAME_INVALID";
const UNTRUSTED = "its certificate is not signed by an authority that is trusted here";
const SAYINGS: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: "its certificate has expired",
  CERT_NOT_YET_VALID: "its certificate is not valid yet",
  DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is self-signed",
  SELF_SIGNED_CERT_IN_CHAIN: UNTRUSTED,
  UNABLE_TO_GET_ISSUER_CERT: UNTRUSTED,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNTRUSTED,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNTRUSTED,
  INVALID_PURPOSE: "its certificate is not one for servers",
};

/**
 * What is wrong with a server after the handshake; undefined = nothing. `ok` and `error` are those
 * of the handshake. The chain is judged by TLS, which says that the name does not fit only when
 * the chain is good; the names are judged here, because they need not be the one that was sent.
 */
export function objectionTo<Data>(
  socket: BunTlsSocket<Data>,
  ok: boolean,
  error: Error | null,
  check: OutsideCheck,
): string | undefined {
  const code = error !== null && "code" in error ? String(error.code) : "";
  const raw = socket.getPeerCertificate()?.raw;
  if (raw === undefined) return saying(code, error);
  if (!check.verify) return undefined;
  const chained = (ok && socket.authorized) || code === NAME_MISMATCH;
  if (!chained) return saying(code, error);
  const certificate = new X509Certificate(raw);
  if (check.names.some((name) => carries(certificate, name))) return undefined;
  const names = certificate.subjectAltName?.replaceAll("DNS:", "") ?? "nobody";
  return `its certificate is for ${names.slice(0, 200)}, not for ${check.names.join(" or ")}`;
}

function saying(code: string, error: Error | null): string {
  if (/WRONG_VERSION_NUMBER|HTTP_REQUEST/.test(error?.message ?? ""))
    return "it does not speak TLS";
  const why = error?.message.replace(/^error:[0-9a-f]+:.*:/i, "") ?? "no certificate";
  return SAYINGS[code] ?? `the TLS handshake failed: ${why}`;
}

/** RFC 6125: subject alternative names alone; the common name says nothing. */
function carries(certificate: X509Certificate, name: string): boolean {
  if (isIP(name) !== 0) return certificate.checkIP(name) !== undefined;
  const how = { subject: "never", partialWildcards: false } as const;
  return certificate.checkHost(name, how) !== undefined;
}
