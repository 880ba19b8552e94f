/** What the two directions of a proxy do differently with a request. */
import type { H1Limits } from "../http/h1/limits.ts";
import type { RequestMeter } from "../telemetry/golden.ts";
import type { ProxyState } from "./state.ts";

/** `Request` is what it decides about. */
export interface Side<Request> {
  readonly direction: "inbound" | "outbound";
  /** `<namespace>/<service>` of the local workload. */
  readonly workload: string;
  /** The caller's identity as `<namespace>/<service account>`; "" unknown. */
  readonly source: string;
  readonly state: ProxyState;
  /** Counts requests that reach no destination. */
  readonly meter: RequestMeter;
  /** For what callers send. */
  readonly limits: H1Limits;
  /** How long a kept connection may be idle, seconds. */
  readonly idleSeconds: number;
  /** False: callers may not be here any more, and what has no end of its own is ended. */
  readonly permitted: boolean;
  /** Decides about the request at hand: forwards it, answers it, or comes back to it later. */
  begin(exchange: Request): void;
}
