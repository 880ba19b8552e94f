/** What was decided about a request. */
import type { CompiledBackend, CompiledRule } from "../snapshot/snapshot.ts";
import type { Destination } from "../upstream/destination.ts";
import type { Endpoint } from "../upstream/endpoint.ts";

/** Where a request goes. */
export interface Forward {
  /** Undefined: the application behind this proxy. */
  readonly destination: Destination | undefined;
  /** Set where there is nothing to choose. */
  readonly endpoint: Endpoint | undefined;
  readonly rule: CompiledRule | undefined;
  readonly backend: CompiledBackend | undefined;
  /** Trimmed prefix the route matched. */
  readonly prefix: string;
  readonly connectTimeoutMs: number;
  readonly idleTimeoutMs: number;
}
