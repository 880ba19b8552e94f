/**
 * Signs the certificate of a workload (RFC 5280), byte by byte: every proxy asks for one at each
 * renewal, and a general X.509 library takes some thirty times as long (5 ms).
 */
import { createPrivateKey, type KeyObject, sign } from "node:crypto";
import { isIPv4, isIPv6 } from "node:net";
import { DER, derEncode, derInside, derOid, derRead } from "./der.ts";

/** The parts of an issuer that its leaves repeat. */
export interface LeafIssuer {
  readonly key: KeyObject;
  /** DER of its subject. */
  readonly name: Buffer;
  readonly keyIdentifier: Buffer;
}

export interface LeafContent {
  /** Positive, big-endian, without leading zeros. */
  readonly serial: Buffer;
  /** Unix milliseconds, whole seconds. */
  readonly notBefore: number;
  readonly notAfter: number;
  readonly publicKey: KeyObject;
  readonly uri: string;
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly string[];
}

const OID_SUBJECT_KEY_ID = derOid("2.5.29.14");
const ECDSA_WITH_SHA256 = derEncode(DER.sequence, derOid("1.2.840.10045.4.3.2"));
const VERSION_3 = derEncode(0xa0, derEncode(DER.integer, Buffer.from([2])));
const NO_NAME = derEncode(DER.sequence);
const NOT_AUTHORITY = extension("2.5.29.19", true, derEncode(DER.sequence));
const DIGITAL_SIGNATURE = extension(
  "2.5.29.15",
  true,
  derEncode(DER.bitString, Buffer.from([7, 0x80])),
);
const BOTH_SIDES = extension(
  "2.5.29.37",
  false,
  derEncode(DER.sequence, derOid("1.3.6.1.5.5.7.3.1"), derOid("1.3.6.1.5.5.7.3.2")),
);

function extension(oid: string, critical: boolean, value: Buffer): Buffer {
  const flag = critical ? [derEncode(DER.boolean, Buffer.from([0xff]))] : [];
  return derEncode(DER.sequence, derOid(oid), ...flag, derEncode(DER.octetString, value));
}

/** UTCTime until 2049, GeneralizedTime after (RFC 5280, 4.1.2.5). */
function time(ms: number): Buffer {
  const text = new Date(ms).toISOString().replace(/[-:T]|\.\d+/g, "");
  const short = text < "2050";
  const tag = short ? DER.utcTime : DER.generalizedTime;
  return derEncode(tag, Buffer.from(short ? text.slice(2) : text, "latin1"));
}

/** The 4 or 16 bytes of an address; undefined when it is not one. */
export function addressBytes(address: string): Buffer | undefined {
  if (isIPv4(address)) return Buffer.from(address.split(".").map(Number));
  if (!isIPv6(address) || address.includes(".") || address.includes("%")) return undefined;
  const [head = "", tail] = address.split("::");
  const groups = (text: string) => (text === "" ? [] : text.split(":"));
  const first = groups(head);
  const last = groups(tail ?? "");
  const zeros = Array<string>(8 - first.length - last.length).fill("0");
  return Buffer.from(
    [...first, ...zeros, ...last].map((group) => group.padStart(4, "0")).join(""),
    "hex",
  );
}

function alternativeNames(content: LeafContent): Buffer {
  const text = (tag: number, value: string) => derEncode(tag, Buffer.from(value, "latin1"));
  const addresses = content.ipAddresses.flatMap((each) => addressBytes(each) ?? []);
  return extension(
    "2.5.29.17",
    true,
    derEncode(
      DER.sequence,
      text(0x86, content.uri),
      ...content.dnsNames.map((name) => text(0x82, name)),
      ...addresses.map((bytes) => derEncode(0x87, bytes)),
    ),
  );
}

/** Prepares an issuer from the DER of its certificate; undefined when that lacks what is needed. */
export function leafIssuer(certificate: Buffer, keyPem: string): LeafIssuer | undefined {
  const fields = derInside(derInside(derRead(certificate)?.[0], DER.sequence)?.[0], DER.sequence);
  const name = fields?.[5]?.whole;
  const list = derInside(
    fields?.find((field) => field.tag === 0xa3),
    0xa3,
  )?.[0];
  for (const each of derInside(list, DER.sequence) ?? []) {
    const parts = derInside(each, DER.sequence);
    const value = parts?.at(-1);
    if (name === undefined || value === undefined) continue;
    if (parts?.[0]?.whole.equals(OID_SUBJECT_KEY_ID) !== true) continue;
    const [identifier] = derRead(value.body) ?? [];
    if (identifier?.tag !== DER.octetString) continue;
    return { key: createPrivateKey(keyPem), name, keyIdentifier: identifier.body };
  }
  return undefined;
}

/** DER of a certificate with an empty subject and a critical subject alternative name. */
export function signLeaf(issuer: LeafIssuer, content: LeafContent): Buffer {
  const authorityKey = derEncode(DER.sequence, derEncode(0x80, issuer.keyIdentifier));
  const body = derEncode(
    DER.sequence,
    VERSION_3,
    derEncode(DER.integer, content.serial),
    ECDSA_WITH_SHA256,
    issuer.name,
    derEncode(DER.sequence, time(content.notBefore), time(content.notAfter)),
    NO_NAME,
    content.publicKey.export({ format: "der", type: "spki" }),
    derEncode(
      0xa3,
      derEncode(
        DER.sequence,
        NOT_AUTHORITY,
        DIGITAL_SIGNATURE,
        BOTH_SIDES,
        alternativeNames(content),
        extension("2.5.29.35", false, authorityKey),
      ),
    ),
  );
  const signature = sign("sha256", body, issuer.key);
  return derEncode(
    DER.sequence,
    body,
    ECDSA_WITH_SHA256,
    derEncode(DER.bitString, Buffer.from([0]), signature),
  );
}
