/** What the API answers: the shapes the command line and other clients may rely on. */
import type { Condition, ResourceStatus } from "../config/conditions.ts";
import type { Issue, Resource } from "../config/resource.ts";
import type { Change, Origin, TokenScope } from "../store/rows.ts";

/** Of every list. `next` is absent on the last page; it goes into `?cursor=`. */
export interface Page<Item> {
  readonly items: readonly Item[];
  readonly next?: string;
}

/** `application/problem+json` (RFC 9457) with weft's stable `code` and a next step. */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: string;
  readonly fix: string;
  /** Only with code `invalid`. */
  readonly issues?: readonly Issue[];
}

/** `before` and `after` are YAML, "" where the document does not exist. */
export interface ChangeAnswer {
  readonly key: string;
  readonly op: Change["op"];
  readonly before: string;
  readonly after: string;
}

/** Of apply, delete and rollback. */
export interface ApplyAnswer {
  /** The newest revision: a new one unless nothing changed or it was a dry run. */
  readonly revision: number;
  readonly changes: readonly ChangeAnswer[];
  readonly dryRun: boolean;
}

export interface ResourceAnswer {
  readonly key: string;
  readonly origin: Origin;
  readonly revision: number;
  readonly t: number;
  readonly resource: Resource;
  /** Only where something is wrong with a document that was accepted all the same. */
  readonly status?: ResourceStatus;
}

export interface RevisionAnswer {
  readonly revision: number;
  readonly hash: string;
  readonly author: string;
  readonly message: string;
  readonly t: number;
  /** The revision of the bus that carried it; null until it was published. */
  readonly busRev: number | null;
  /** `before` and `after` only when one revision is asked for. */
  readonly changes: readonly (Pick<ChangeAnswer, "key" | "op"> & Partial<ChangeAnswer>)[];
}

export interface DiffAnswer {
  readonly from: number;
  readonly to: number;
  readonly items: readonly ChangeAnswer[];
}

export interface ProxyAnswer {
  readonly instance: string;
  readonly namespace: string;
  readonly service: string;
  readonly identity: string;
  /** `up`: lease is current; `suspect`: lapsed but kept; `down`: not registered. */
  readonly state: "up" | "suspect" | "down";
  /** `healthy`, `unhealthy`, or "" while unknown. */
  readonly health: string;
  /** The newest revision it acknowledged; 0 for none. */
  readonly revision: number;
  readonly ackedRev: number;
  readonly ackedEpoch: number;
  readonly refused: readonly { readonly key: string; readonly reason: string }[];
  /** Since its last sign of life; null when never heard. */
  readonly leaseAgeMs: number | null;
  /** Unix milliseconds; null when no certificate is known. */
  readonly certificateIssued: number | null;
  readonly certificateExpires: number | null;
  readonly address: string;
  readonly meshPort: number;
  readonly version: string;
  readonly locality: string;
  readonly labels: Readonly<Record<string, string>>;
}

export interface StatusAnswer {
  readonly version: string;
  readonly trustDomain: string;
  readonly startedAt: number;
  readonly revision: number;
  /** Newest revision that is on the bus. */
  readonly publishedRevision: number;
  readonly bus: {
    readonly rev: number;
    readonly epoch: number;
    readonly status: "up" | "down";
    readonly url: string;
    /** Why nothing can be published now; absent while all is well. */
    readonly problem?: { readonly code: string; readonly reason: string; readonly fix: string };
  };
  readonly store: { readonly present: boolean };
  /** What is wrong with accepted documents; the first hundred. */
  readonly conditions: readonly (Condition & { readonly key: string })[];
  readonly proxies: readonly ProxyAnswer[];
}

export interface TokenAnswer {
  readonly id: string;
  readonly kind: "admin" | "join";
  readonly scope: TokenScope;
  readonly description: string;
  readonly createdBy: string;
  readonly createdAt: number;
  readonly expiresAt: number | null;
  readonly once: boolean;
  readonly usedAt: number | null;
  readonly revokedAt: number | null;
}

/** The only time a token's text is shown. */
export interface CreatedToken extends TokenAnswer {
  readonly token: string;
}

export interface TrustBundleAnswer {
  readonly trustDomain: string;
  /** PEM. */
  readonly bundle: readonly string[];
}
