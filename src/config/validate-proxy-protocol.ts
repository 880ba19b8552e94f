/** Where `proxyProtocol` of a TrafficPolicy has a meaning: on ports of opaque bytes. */
import type { Report } from "./findings.ts";
import type { ServiceResource, TrafficPolicyResource } from "./resource.ts";

/** A header names one caller, and connections for HTTP carry requests of many. */
export function checkProxyProtocol(
  { spec }: TrafficPolicyResource,
  service: ServiceResource | undefined,
  report: Report,
): void {
  const { proxyProtocol, target } = spec;
  if (proxyProtocol === undefined) return;
  for (const { port, protocol } of service?.spec.ports ?? []) {
    const meant = target.port === undefined || target.port === port;
    if (!meant || (protocol !== undefined && protocol !== "http")) continue;
    const why = "requests of many callers share its connections, and a PROXY header names one";
    const reason =
      protocol === "http"
        ? `port ${port} is declared http: ${why}`
        : `port ${port} may turn out to speak HTTP: ${why}`;
    const fix = `declare port ${port} tcp or tls, or give the policy the port it is for`;
    const at = ["spec", "proxyProtocol", "version"];
    report(at, proxyProtocol.version, "wrong_protocol", reason, fix);
  }
}
