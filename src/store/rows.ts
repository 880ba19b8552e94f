/** Rows of the store as the rest of the control plane sees them. Times are unix milliseconds. */
import type { Resource } from "../config/resource.ts";

export type Origin = "document" | "registration";

/** A current document. `origin`: a registration made it, until a document adopts it. */
export interface StoredResource {
  readonly key: string;
  readonly resource: Resource;
  readonly origin: Origin;
  /** The revision that brought it into being: age decides between routes of equal precedence. */
  readonly created: number;
  /** The revision that last changed it. */
  readonly revision: number;
  readonly t: number;
}

/** One document in a revision. `before` is absent on creation, `after` on deletion. */
export interface Change {
  readonly key: string;
  readonly op: "create" | "update" | "delete";
  readonly before?: Resource;
  readonly after?: Resource;
  readonly originBefore?: Origin;
  readonly originAfter?: Origin;
}

export interface Revision {
  readonly number: number;
  /** SHA-256 over this revision and the hash of the one before, hex. */
  readonly hash: string;
  readonly author: string;
  readonly message: string;
  readonly t: number;
  readonly changes: readonly Change[];
  /** The revision of the bus that carried it; null until published. */
  readonly busRev: number | null;
}

/** What was last published under a key. `body` is the document without header, "" for `del`. */
export interface PublishedDocument {
  readonly key: string;
  readonly op: "put" | "del";
  readonly epoch: number;
  readonly rev: number;
  readonly t: number;
  /** Of `body`, hex. */
  readonly sha256: string;
  readonly body: string;
}

/** An instance that joined. The nullable fields are filled by its registration. */
export interface WorkloadRow {
  readonly instance: string;
  readonly namespace: string;
  readonly service: string;
  readonly serviceAccount: string;
  /** SPIFFE ID. */
  readonly identity: string;
  readonly tokenId: string;
  readonly joinedAt: number;
  readonly boot: string | null;
  readonly shard: number | null;
  /** The registration as JSON text; null while not registered. */
  readonly registration: string | null;
  readonly registeredAt: number | null;
  readonly lastSeen: number | null;
}

export interface Grant {
  readonly namespace: string;
  readonly service: string;
}

export interface CertificateRow {
  readonly serial: string;
  readonly instance: string;
  readonly identity: string;
  readonly notBefore: number;
  readonly notAfter: number;
  readonly issuedAt: number;
}

/** What a join token may be used for; an absent field does not restrict. */
export interface TokenScope {
  readonly namespace?: string;
  readonly services?: readonly string[];
  /** CIDR that addresses of registrations must lie in. */
  readonly cidr?: string;
}

export interface TokenRow {
  readonly id: string;
  readonly kind: "admin" | "join";
  /** SHA-256 of the secret, hex. */
  readonly secretHash: string;
  readonly scope: TokenScope;
  readonly description: string;
  readonly createdBy: string;
  readonly createdAt: number;
  /** null: never. */
  readonly expiresAt: number | null;
  readonly once: boolean;
  readonly usedAt: number | null;
  readonly revokedAt: number | null;
}

export interface AuditEntry {
  readonly seq: number;
  readonly t: number;
  /** Who: a token (`token:<id>`), an identity, or `controlplane`. */
  readonly actor: string;
  /** What was done: `apply`, `join`, `token.create`, …. */
  readonly action: string;
  readonly subject: string;
  /** JSON text. */
  readonly detail: string;
  /** SHA-256 over this entry and the hash of the one before, hex. */
  readonly hash: string;
}
