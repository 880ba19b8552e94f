/**
 * Join and admin tokens: `weft_` and base64url of JSON. A token names the control plane, pins the
 * hash of its root, and carries a secret; the control plane keeps only a hash of that.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";

export interface Token {
  /** `https://host:port` of the control plane. */
  readonly cp: string;
  /** SHA-256 of each acceptable root's DER, hexadecimal. */
  readonly roots: readonly string[];
  /** Names the token in lists and logs; not secret. */
  readonly id: string;
  readonly secret: string;
  /** Unix milliseconds; 0 = never expires. */
  readonly exp: number;
}

const PREFIX = "weft_";
const MAX_LENGTH = 4096;

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

/** A new token with 160 bits of secret. */
export function createToken(cp: string, roots: readonly string[], exp: number): Token {
  return {
    cp,
    roots,
    id: randomBytes(6).toString("hex"),
    secret: randomBytes(20).toString("base64url"),
    exp,
  };
}

export function formatToken(token: Token): string {
  const { cp, roots, id, secret, exp } = token;
  return PREFIX + Buffer.from(JSON.stringify({ cp, roots, id, secret, exp })).toString("base64url");
}

/** The parts of a token; undefined when the text is not one. Surrounding space is ignored. */
export function parseToken(text: string): Token | undefined {
  const trimmed = text.trim();
  if (!trimmed.startsWith(PREFIX) || trimmed.length > MAX_LENGTH) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(trimmed.slice(PREFIX.length), "base64url").toString("utf8"));
  } catch {
    return undefined;
  }
  if (!isRecord(value)) return undefined;
  const { cp, roots, id, secret, exp } = value;
  if (typeof cp !== "string" || typeof id !== "string" || typeof secret !== "string") {
    return undefined;
  }
  if (!Array.isArray(roots) || !roots.every(isRootHash) || roots.length === 0) return undefined;
  if (typeof exp !== "number" || id === "" || secret === "") return undefined;
  return { cp, roots, id, secret, exp };
}

function isRootHash(value: unknown): value is string {
  return typeof value === "string" && /^[0-9a-f]{64}$/.test(value);
}

/** What the store keeps of a token's secret: SHA-256, hexadecimal. The secret is random, so no salt. */
export function secretHash(secret: string): string {
  return createHash("sha256").update(secret, "utf8").digest("hex");
}

/** Compares a presented secret with a stored hash in constant time. */
export function secretMatches(secret: string, storedHash: string): boolean {
  const stored = Buffer.from(storedHash, "hex");
  const presented = createHash("sha256").update(secret, "utf8").digest();
  return stored.length === presented.length && timingSafeEqual(stored, presented);
}
