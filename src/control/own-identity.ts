/** The control plane's own certificate, and its own credentials on the bus. */
import type { Authority } from "../identity/ca.ts";
import type { NatsAuthority, NatsCredentials } from "../identity/nats-auth.ts";
import { createNkey } from "../identity/nkey.ts";
import {
  CONTROL_ACCOUNT,
  CONTROL_NAMESPACE,
  CONTROL_SERVER_NAME,
  spiffeIdOf,
} from "../identity/spiffe.ts";
import { createSvidRequest, type Svid } from "../identity/svid.ts";

export interface OwnNames {
  /** Host name of this machine, and other names operators use. */
  readonly hostnames: readonly string[];
  /** Addresses the API listens on besides loopback. */
  readonly addresses: readonly string[];
}

/** Start of the control plane's reply subjects. */
export const CONTROL_INBOX_PREFIX = "_INBOX_controlplane";

/** A fresh key and certificate for the API and the bus; the key is never stored. */
export async function issueOwnSvid(
  authority: Authority,
  names: OwnNames,
  ttlMs: number,
): Promise<Svid> {
  const spiffeId = spiffeIdOf(authority.trustDomain, CONTROL_NAMESPACE, CONTROL_ACCOUNT);
  const { keyPem, csrPem } = createSvidRequest();
  const hostnames = names.hostnames.map((name) => name.toLowerCase()).filter(isDnsName);
  const leaf = await authority.issue({
    csrPem,
    spiffeId,
    dnsNames: [...new Set([CONTROL_SERVER_NAME, "localhost", ...hostnames])],
    ipAddresses: [...new Set(["127.0.0.1", "::1", ...names.addresses])],
    ttlMs,
  });
  return {
    keyPem,
    chainPem: leaf.chainPem,
    spiffeId,
    notBefore: leaf.notBefore,
    notAfter: leaf.notAfter,
  };
}

function isDnsName(name: string): boolean {
  return name.length <= 253 && /^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_-]+)*$/.test(name);
}

/** A year: the seed lives in memory only, and the client asks again at each connection. */
const BUS_TTL_MS = 365 * 86_400_000;

/** Credentials good for everything inside the mesh's account; a new JWT at each call. */
export function ownBusCredentials(nats: NatsAuthority, now: () => number): () => NatsCredentials {
  const { publicKey, seed } = createNkey("user");
  return () => {
    const t = now();
    const user = { name: "controlplane", publicKey, expiresAt: t + BUS_TTL_MS };
    return { jwt: nats.issueUser(user, t), seed };
  };
}
