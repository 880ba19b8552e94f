/** What was decided about a request, and the line that the access log gets of it. */
import type { RequestHead } from "../http/message.ts";
import type { CompiledBackend, CompiledRule } from "../snapshot/snapshot.ts";
import type { AccessLog } from "../telemetry/access-log.ts";
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

/** A request that is over. */
export interface Outcome {
  /** Undefined: the request could not be read. */
  readonly head: RequestHead | undefined;
  /** Undefined: it went nowhere. */
  readonly to: Forward | undefined;
  readonly endpoint: Endpoint | undefined;
  readonly attempts: number;
  readonly received: number;
  readonly sent: number;
  readonly status: number;
  readonly reason: string;
  readonly durationMs: number;
}

interface Whose {
  readonly direction: "inbound" | "outbound";
  readonly workload: string;
  readonly source: string;
}

export function logRequest(log: AccessLog, whose: Whose, outcome: Outcome): void {
  const { head, to, endpoint, durationMs } = outcome;
  const target = to?.destination?.target;
  log.record({
    direction: whose.direction,
    workload: whose.workload,
    source: whose.source,
    peer: target === undefined ? "" : `${target.namespace}/${target.service}`,
    method: head?.method ?? "",
    authority: head?.authority ?? "",
    path: head?.target ?? "",
    status: outcome.status,
    reason: outcome.reason,
    durationMs: Math.round(durationMs * 1000) / 1000,
    endpoint: endpoint?.name ?? "",
    attempts: outcome.attempts,
    bytesReceived: outcome.received,
    bytesSent: outcome.sent,
    requestId: head?.requestId ?? "",
    trace: head?.traceparent ?? "",
    route: to?.rule?.name ?? "",
  });
}
