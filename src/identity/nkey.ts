/**
 * NATS "nkeys": Ed25519 keys in base32 with a type letter and a checksum, and signing with them.
 *
 * Layout: type byte, 32 bytes of public key, CRC-16/XMODEM little-endian. A seed carries `S` and
 * the type in its first two bytes.
 */
import { createPrivateKey, createPublicKey, type KeyObject, randomBytes, sign } from "node:crypto";

export type NkeyType = "operator" | "account" | "user";

const PREFIX: Readonly<Record<NkeyType, number>> = {
  operator: 14 << 3,
  account: 0,
  user: 20 << 3,
};
const SEED_PREFIX = 18 << 3;
const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/** PKCS#8 header of a raw Ed25519 seed (RFC 8410). */
const PKCS8_ED25519 = Buffer.from("302e020100300506032b657004220420", "hex");

/** An nkey whose private half is known. */
export interface Nkey {
  readonly type: NkeyType;
  /** Public key as NATS writes it: `O…`, `A…` or `U…`. */
  readonly publicKey: string;
  /** Private key as NATS writes it: `SO…`, `SA…` or `SU…`. A secret. */
  readonly seed: string;
  sign(bytes: Uint8Array): Buffer;
}

/** RFC 4648 base32, upper case, without padding. */
export function base32(bytes: Uint8Array): string {
  let text = "";
  let bits = 0;
  let value = 0;
  for (const byte of bytes) {
    value = (value << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += ALPHABET[(value >>> bits) & 31];
    }
    value &= (1 << bits) - 1;
  }
  return bits === 0 ? text : text + ALPHABET[(value << (5 - bits)) & 31];
}

/** Undefined for foreign letters, and for spare bits that are not zero (RFC 4648, 3.5). */
function unbase32(text: string): Buffer | undefined {
  const bytes = Buffer.alloc((text.length * 5) >> 3);
  let at = 0;
  let bits = 0;
  let value = 0;
  for (const letter of text) {
    const digit = ALPHABET.indexOf(letter);
    if (digit < 0) return undefined;
    value = (value << 5) | digit;
    bits += 5;
    if (bits < 8) continue;
    bits -= 8;
    bytes[at++] = value >>> bits;
    value &= (1 << bits) - 1;
  }
  return value === 0 ? bytes : undefined;
}

function crc16(bytes: Uint8Array): number {
  let crc = 0;
  for (const byte of bytes) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) {
      crc = (crc & 0x8000) === 0 ? (crc << 1) & 0xffff : ((crc << 1) ^ 0x1021) & 0xffff;
    }
  }
  return crc;
}

function encode(bytes: Buffer): string {
  const checksum = Buffer.alloc(2);
  checksum.writeUInt16LE(crc16(bytes));
  return base32(Buffer.concat([bytes, checksum]));
}

/** The bytes before the checksum; undefined when the text or its checksum is wrong. */
function decode(text: string): Buffer | undefined {
  const bytes = unbase32(text);
  if (bytes === undefined || bytes.length < 3) return undefined;
  const body = bytes.subarray(0, -2);
  return crc16(body) === bytes.readUInt16LE(bytes.length - 2) ? body : undefined;
}

function fromRaw(type: NkeyType, raw: Buffer): Nkey {
  const key = createPrivateKey({
    key: Buffer.concat([PKCS8_ED25519, raw]),
    format: "der",
    type: "pkcs8",
  });
  const prefix = PREFIX[type];
  return {
    type,
    publicKey: encode(Buffer.concat([Buffer.from([prefix]), rawPublicKey(key)])),
    seed: encode(
      Buffer.concat([Buffer.from([SEED_PREFIX | (prefix >> 5), (prefix & 31) << 3]), raw]),
    ),
    sign: (bytes) => sign(null, bytes, key),
  };
}

function rawPublicKey(key: KeyObject): Buffer {
  return createPublicKey(key).export({ format: "der", type: "spki" }).subarray(-32);
}

export function createNkey(type: NkeyType): Nkey {
  return fromRaw(type, randomBytes(32));
}

/** The key of a seed such as `SUAB…`; undefined when it is not one of that type. */
export function nkeyFromSeed(type: NkeyType, seed: string): Nkey | undefined {
  const bytes = decode(seed.trim());
  if (bytes?.length !== 34) return undefined;
  const first = bytes[0] ?? 0;
  const second = bytes[1] ?? 0;
  if ((first & 0xf8) !== SEED_PREFIX) return undefined;
  if ((((first & 7) << 5) | (second >> 3)) !== PREFIX[type]) return undefined;
  return fromRaw(type, bytes.subarray(2));
}

/** Whether `text` is a well-formed public key of that type. */
export function isNkeyPublic(type: NkeyType, text: string): boolean {
  const bytes = decode(text);
  return bytes?.length === 33 && bytes[0] === PREFIX[type];
}
