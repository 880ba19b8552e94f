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

/** Busy is a service of whose connections one in so many is in use. */
const BUSY_SHARE = 16;
/** Of an application behind its own proxy, where no policy says how many it may have. */
const BUSY_APP = 64;

/** So many connections are in use that the others are for requests which are here as a whole. */
export function isBusy({ destination, endpoint }: Forward): boolean {
  if (destination === undefined) return endpoint !== undefined && endpoint.active >= BUSY_APP;
  return destination.active * BUSY_SHARE >= destination.target.policy.maxConnections;
}
