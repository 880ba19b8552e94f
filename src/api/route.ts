/** One table row per operation: it makes the handler, the access check and the description. */
import type { ControlState } from "../control/apply.ts";
import type { Conditions } from "../control/conditions.ts";
import type { Distribution } from "../control/distribute.ts";
import type { Issuer } from "../control/issue.ts";
import type { Publisher } from "../control/publish.ts";
import type { Registry } from "../registry/registry.ts";
import type { ServeEnv } from "../serve/serve.ts";
import type { Store } from "../store/store.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { OpenStreams } from "./events.ts";
import type { QueryShape } from "./query.ts";

/** What the API works on. */
export interface ApiParts {
  readonly state: ControlState;
  readonly store: Store;
  readonly conditions: Conditions;
  readonly issuer: Issuer;
  readonly registry: Registry;
  readonly publisher: Publisher;
  readonly distribution: Distribution;
  readonly busStatus: () => "up" | "down";
  readonly busUrl: string;
  readonly trustDomain: string;
  /** Root certificates, PEM. */
  readonly bundle: readonly string[];
  /** SHA-256 of the roots, pinned by new tokens. */
  readonly rootHashes: readonly string[];
  /** `https://host:port`, named by new tokens. */
  readonly url: string;
  /** Data folder, whose keys go into a backup when asked for. */
  readonly dataFolder: string;
  readonly version: string;
  readonly startedAt: number;
  readonly now: () => number;
  readonly log: Logger;
  readonly metrics: Metrics;
}

/** Who may call: everybody, holders of an admin or join token, or of a mesh certificate. */
export type Access = "open" | "admin" | "join" | "peer";

/** A checked request. */
export interface Call {
  readonly parts: ApiParts;
  readonly streams: OpenStreams;
  /** `token:<id>`, a SPIFFE ID, or "" where access is open. */
  readonly actor: string;
  /** The bearer token as sent; "" without one. */
  readonly token: string;
  readonly env: ServeEnv;
  /** Host by which the caller reached the API, without port. */
  readonly host: string;
  readonly signal: AbortSignal;
  param(name: string): string;
  query(name: string): string | undefined;
  /** Whether a boolean parameter is true. */
  flag(name: string): boolean;
  /** Value of an integer parameter. */
  count(name: string): number | undefined;
  /** The JSON body; `{}` where none is taken. */
  readonly body: Readonly<Record<string, unknown>>;
}

export interface Route {
  readonly method: "GET" | "POST" | "DELETE";
  /** As OpenAPI writes it: `/v1/tokens/{id}`. */
  readonly path: string;
  readonly access: Access;
  readonly summary: string;
  /** Parameters of the query, all optional. */
  readonly query?: QueryShape;
  /** Field of the body to its JSON type; a `?` marks optional ones. */
  readonly body?: Readonly<Record<string, string>>;
  /** Status on success; 200 unless given. */
  readonly status?: number;
  readonly handle: (call: Call) => unknown | Promise<unknown>;
}
