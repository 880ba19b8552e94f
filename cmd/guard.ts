import type { Logger } from "../src/telemetry/log.ts";

/** One broken callback must not end everybody's traffic, nor what the whole mesh depends on. */
export function guard(log: Logger): void {
  process.on("uncaughtException", (error) => log.error("an error nobody caught", { error }));
  process.on("unhandledRejection", (error) => log.error("a failure nobody awaited", { error }));
}
