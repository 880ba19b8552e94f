/** What is recorded of a request when it is over: its metrics, and its line in the access log. */
import type { RequestHead } from "../http/message.ts";
import type { Connection } from "../net/connection.ts";
import type { Ends } from "../net/proxy-protocol.ts";
import type { AccessRecord } from "../telemetry/access-log.ts";
import type { RequestMeter } from "../telemetry/golden.ts";
import { readIdLines } from "../telemetry/trace.ts";
import type { Attempts } from "./attempts.ts";
import type { Forward } from "./forward.ts";
import type { Side } from "./side.ts";

export class Tally {
  /** Body bytes from the caller, and to it. */
  received = 0;
  sent = 0;
  readonly #side: Side<never>;
  readonly #attempts: Attempts;
  readonly #caller: Connection;
  #startedAt = 0;

  constructor(side: Side<never>, attempts: Attempts, caller: Connection) {
    this.#side = side;
    this.#attempts = attempts;
    this.#caller = caller;
  }

  begin(): void {
    this.#startedAt = this.#side.state.now();
    this.received = 0;
    this.sent = 0;
  }

  /** Where requests to this destination are counted. */
  meter(to: Forward | undefined): RequestMeter {
    const destination = to?.destination;
    if (destination === undefined) return this.#side.meter;
    return destination.meters.http(this.#attempts.endpoint?.security ?? "none");
  }

  /**
   * The request is over. `head`: undefined if it could not be read; `to`: undefined if it went
   * nowhere; `tunnel`: bytes that its meter has counted already.
   */
  record(
    status: number,
    reason: string,
    head: RequestHead | undefined,
    to: Forward | undefined,
    tunnel: { readonly received: number; readonly sent: number } | undefined,
  ): void {
    const side = this.#side;
    const { state } = side;
    const durationMs = state.now() - this.#startedAt;
    const meter = this.meter(to);
    meter.record(status, reason, durationMs);
    if (this.received > 0) meter.received.value += this.received;
    if (this.sent > 0) meter.sent.value += this.sent;
    if (state.accessLog === undefined) return;
    const target = to?.destination?.target;
    const added = readIdLines(this.#attempts.ids);
    state.accessLog.record({
      direction: side.direction,
      workload: side.workload,
      source: side.source,
      peer: target === undefined ? "" : `${target.namespace}/${target.service}`,
      method: head?.method ?? "",
      authority: head?.authority ?? "",
      path: head?.target ?? "",
      status,
      reason,
      durationMs: Math.round(durationMs * 1000) / 1000,
      endpoint: this.#attempts.endpoint?.name ?? "",
      attempts: this.#attempts.count,
      bytesReceived: this.received + (tunnel?.received ?? 0),
      bytesSent: this.sent + (tunnel?.sent ?? 0),
      requestId: head?.requestId ?? added.requestId,
      trace: head?.traceparent ?? added.traceparent,
      route: to?.rule?.name ?? "",
      ...this.#client(),
    });
  }

  /** Whom no identity names: announced by a relay, or in plaintext at the mesh port. */
  #client(): Pick<AccessRecord, "client"> {
    const caller = this.#caller;
    const plaintext = this.#side.direction === "inbound" && this.#side.source === "";
    const source = caller.announced?.source ?? (plaintext ? caller.ends.source : undefined);
    return source === undefined || source.address === "" ? {} : { client: addressOf(source) };
  }
}

function addressOf({ address, port }: Ends["source"]): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
