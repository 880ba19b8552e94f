import { callbackErrors, countCallbackError, onCallbackError } from "../src/net/boundary.ts";
import type { Logger } from "../src/telemetry/log.ts";
import { labelText, type Metrics } from "../src/telemetry/metrics.ts";

/** A bug that many callers meet fills no disk: the counter has all of them. */
const TELL_MS = 1000;

/**
 * One broken callback must not end everybody's traffic, nor what the whole mesh depends on. All of
 * them are counted by site, and logged as far as they are not too many.
 */
export function guard(log: Logger, metrics: Metrics): void {
  const toldAt = new Map<string, number>();
  onCallbackError((site, error) => {
    const at = performance.now();
    if (at - (toldAt.get(site) ?? Number.NEGATIVE_INFINITY) < TELL_MS) return;
    toldAt.set(site, at);
    const stack = error instanceof Error ? error.stack : undefined;
    log.error("an exception in a callback", { site, error, stack });
  });
  process.on("uncaughtException", (error) => countCallbackError("uncaught", error));
  process.on("unhandledRejection", (error) => countCallbackError("unhandled", error));
  metrics.observe(
    "weft_callback_errors_total",
    "Exceptions that cost one connection, by callback.",
    "counter",
    () =>
      [...callbackErrors()].map(([site, value]) => ({
        suffix: "",
        labels: labelText(["site"], [site]),
        value,
      })),
  );
}
