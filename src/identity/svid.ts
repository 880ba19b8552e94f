/** The workload's half of its identity: the key it keeps, and the request it sends. */
import { generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { DER, derEncode, derOid } from "./der.ts";
import { toPem } from "./pem.ts";

export interface SvidRequest {
  /** PKCS#8 PEM; never leaves the workload. */
  readonly keyPem: string;
  /** PKCS#10 PEM: a P-256 key and no names, because the authority writes its own. */
  readonly csrPem: string;
}

/** A private key with its certificate chain, leaf first. */
export interface Svid {
  readonly keyPem: string;
  readonly chainPem: string;
  readonly spiffeId: string;
  /** Unix milliseconds. */
  readonly notBefore: number;
  readonly notAfter: number;
}

const ECDSA_WITH_SHA256 = derEncode(DER.sequence, derOid("1.2.840.10045.4.3.2"));

/** PKCS#10 request (RFC 2986) for a P-256 key: version 0, no subject, no attributes. */
function requestOf(publicKey: KeyObject, privateKey: KeyObject): Buffer {
  const info = derEncode(
    DER.sequence,
    derEncode(DER.integer, Buffer.from([0])),
    derEncode(DER.sequence),
    publicKey.export({ format: "der", type: "spki" }),
    derEncode(0xa0),
  );
  const signature = sign("sha256", info, privateKey);
  return derEncode(
    DER.sequence,
    info,
    ECDSA_WITH_SHA256,
    derEncode(DER.bitString, Buffer.from([0]), signature),
  );
}

/** A fresh key and the request for its certificate; about 0.2 ms. */
export function createSvidRequest(): SvidRequest {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return {
    keyPem: privateKey.export({ format: "pem", type: "pkcs8" }).toString(),
    csrPem: toPem("CERTIFICATE REQUEST", requestOf(publicKey, privateKey)),
  };
}

/**
 * When to renew: at half of the lifetime, moved by up to 10 % of it. `random` is in [0, 1).
 * Unix milliseconds.
 */
export function renewalTime(notBefore: number, notAfter: number, random: number): number {
  const lifetime = notAfter - notBefore;
  return Math.round(notBefore + lifetime * (0.45 + random * 0.1));
}
