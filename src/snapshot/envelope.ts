/**
 * A configuration message as it travels on the bus and rests on disk:
 * 64-byte Ed25519 signature ‖ one JSON header line ‖ body.
 *
 * The signature covers the header line and the body exactly as sent, so there is no canonical form
 * to agree on. Key and operation are signed with the body: a document cannot be replayed under
 * another key, nor can a removal be made up.
 */
import { createHash, createPublicKey, type KeyObject, sign, verify } from "node:crypto";
import { SCHEMA } from "./document.ts";

/** Largest message, signature included; far below the bus's own limit of 1 MiB. */
export const MESSAGE_BYTES_MAX = 256 * 1024;
/** A header line has nine short fields; its key is the longest. */
export const HEADER_BYTES_MAX = 1024;
const SIGNATURE_BYTES = 64;
const NEWLINE = 0x0a;

export type Operation = "put" | "del";

/** What a message says about itself, once its signature is known to be good. */
export interface MessageHeader {
  readonly v: 1;
  /** Names the signing key among the mesh's `configKeys`. */
  readonly kid: string;
  readonly epoch: number;
  /** The global revision that last changed this key. */
  readonly rev: number;
  readonly key: string;
  readonly op: Operation;
  /** When it was signed, unix milliseconds. */
  readonly t: number;
  readonly schema: number;
  /** Bytes of the body. */
  readonly len: number;
}

/** An Ed25519 private key and the name under which proxies know its public half. */
export interface SigningKey {
  readonly kid: string;
  readonly privateKey: KeyObject;
}

/** Keys that may sign configuration, by `kid`. */
export type ConfigKeys = ReadonlyMap<string, KeyObject>;

/** Why a message was not accepted. */
export type RefusalCause =
  | "too_big"
  | "malformed"
  | "unknown_key"
  | "bad_signature"
  | "wrong_subject"
  | "wrong_schema";

export interface Refusal {
  readonly kind: "refused";
  readonly cause: RefusalCause;
  readonly detail: string;
}

export interface Opened {
  readonly kind: "opened";
  readonly header: MessageHeader;
  /** The parsed body; an empty object for a removal. */
  readonly document: object;
  /** SHA-256 of the whole message, hex: what `head` names. */
  readonly sha256: string;
  /** The message itself, for keeping on disk. */
  readonly bytes: Uint8Array;
}

/** Signs a message. `schema` is this version's. */
export function signMessage(
  signer: SigningKey,
  header: Pick<MessageHeader, "epoch" | "rev" | "key" | "op" | "t">,
  body: Uint8Array,
): Uint8Array {
  const { epoch, rev, key, op, t } = header;
  const full = { v: 1, kid: signer.kid, epoch, rev, key, op, t, schema: SCHEMA, len: body.length };
  const line = Buffer.from(`${JSON.stringify(full)}\n`, "utf8");
  const signed = Buffer.concat([line, body]);
  return Buffer.concat([sign(null, signed, signer.privateKey), signed]);
}

/**
 * Checks a message that came on `subjectKey` against the keys in force. Nothing of an unverified
 * message is used except the name of its signing key.
 */
export function openMessage(
  bytes: Uint8Array,
  subjectKey: string,
  keys: ConfigKeys,
): Opened | Refusal {
  if (bytes.length > MESSAGE_BYTES_MAX) return refusal("too_big", `${bytes.length} bytes`);
  const message = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = message.indexOf(NEWLINE, SIGNATURE_BYTES);
  if (end < 0 || end - SIGNATURE_BYTES > HEADER_BYTES_MAX) {
    return refusal("malformed", "no header line");
  }
  const header = parseHeader(message.toString("utf8", SIGNATURE_BYTES, end));
  if (header === undefined) return refusal("malformed", "the header line is not a header");
  const key = keys.get(header.kid);
  if (key === undefined) return refusal("unknown_key", `signed by ${header.kid.slice(0, 64)}`);
  const signature = message.subarray(0, SIGNATURE_BYTES);
  if (!verify(null, message.subarray(SIGNATURE_BYTES), key, signature)) {
    return refusal("bad_signature", `signature of ${header.kid} does not match`);
  }
  if (header.key !== subjectKey) {
    return refusal("wrong_subject", `signed for ${header.key}, came as ${subjectKey}`);
  }
  if (header.schema !== SCHEMA && header.schema !== SCHEMA - 1) {
    return refusal(
      "wrong_schema",
      `schema ${header.schema}, known are ${SCHEMA - 1} and ${SCHEMA}`,
    );
  }
  const body = message.subarray(end + 1);
  if (body.length !== header.len) {
    return refusal("malformed", `body of ${body.length} bytes, header says ${header.len}`);
  }
  const document = header.op === "del" && body.length === 0 ? {} : parseObject(body.toString());
  if (document === undefined) return refusal("malformed", "the body is not a JSON object");
  // A copy: what comes from the wire is a view of a much larger buffer.
  const kept = new Uint8Array(bytes);
  return { kind: "opened", header, document, sha256: sha256Hex(kept), bytes: kept };
}

export function sha256Hex(bytes: Uint8Array | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Order of messages: by epoch, then by revision. Negative when `a` is older. */
export function compareVersions(
  a: { readonly epoch: number; readonly rev: number },
  b: { readonly epoch: number; readonly rev: number },
): number {
  return a.epoch - b.epoch || a.rev - b.rev;
}

const ED25519_SPKI_PREFIX = Buffer.from("302a300506032b6570032100", "hex");

/** The keys of a `configKeys` list; whatever is no Ed25519 key is left out. */
export function configKeysOf(list: unknown): ConfigKeys {
  const keys = new Map<string, KeyObject>();
  for (const entry of Array.isArray(list) ? (list as readonly unknown[]) : []) {
    if (!isRecord(entry)) continue;
    const { kid, key } = entry;
    if (typeof kid !== "string" || typeof key !== "string") continue;
    const raw = Buffer.from(key, "base64url");
    if (raw.length !== 32) continue;
    const der = Buffer.concat([ED25519_SPKI_PREFIX, raw]);
    keys.set(kid, createPublicKey({ key: der, format: "der", type: "spki" }));
  }
  return keys;
}

function refusal(cause: RefusalCause, detail: string): Refusal {
  return { kind: "refused", cause, detail };
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function parseHeader(line: string): MessageHeader | undefined {
  const fields = parseObject(line);
  if (fields === undefined || fields["v"] !== 1) return undefined;
  const { kid, epoch, rev, key, op, t, schema, len } = fields;
  if (typeof kid !== "string" || typeof key !== "string") return undefined;
  if (op !== "put" && op !== "del") return undefined;
  if (!isCount(epoch) || !isCount(rev) || !isCount(t) || !isCount(schema) || !isCount(len)) {
    return undefined;
  }
  return { v: 1, kid, epoch, rev, key, op, t, schema, len };
}
