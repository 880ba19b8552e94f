/** What only goes together in the `tls` of a TrafficPolicy. */
import type { Report } from "./findings.ts";
import type { ServiceResource, TrafficPolicyResource } from "./resource.ts";

/** Fields that contradict each other, and ports whose callers speak TLS themselves. */
export function checkOutsideTls(
  { spec }: TrafficPolicyResource,
  service: ServiceResource | undefined,
  report: Report,
): void {
  const { tls, target } = spec;
  if (tls === undefined) return;
  const path = ["spec", "tls"];
  if (tls.mode === "DISABLE") {
    for (const field of Object.keys(tls)) {
      if (field === "mode") continue;
      const reason = `without TLS ${field} means nothing`;
      report([...path, field], "", "conflict", reason, "remove it, or write mode: SIMPLE");
    }
    return;
  }
  for (const field of ["clientCertificate", "privateKey"] as const) {
    if (tls.mode === "MUTUAL" && tls[field] === undefined) {
      const reason = "MUTUAL shows a certificate, which is two files on the proxy's host";
      report(path, field, "missing_field", reason, `add ${field}, or write mode: SIMPLE`);
    } else if (tls.mode === "SIMPLE" && tls[field] !== undefined) {
      const reason = `SIMPLE shows no certificate, so ${field} means nothing`;
      report([...path, field], "", "conflict", reason, "remove it, or write mode: MUTUAL");
    }
  }
  if (tls.insecureSkipVerify === true) {
    for (const field of ["caCertificates", "subjectAltNames"] as const) {
      if (tls[field] === undefined) continue;
      const reason = `nothing is verified, so ${field} means nothing`;
      report([...path, field], "", "conflict", reason, "remove insecureSkipVerify");
    }
  }
  for (const { port, protocol } of service?.spec.ports ?? []) {
    if (protocol !== "tls" || (target.port !== undefined && target.port !== port)) continue;
    const reason = `callers of port ${port} speak TLS themselves: it is declared tls`;
    const fix = `declare port ${port} http or tcp, or give the policy the port it is for`;
    report([...path, "mode"], tls.mode, "wrong_protocol", reason, fix);
  }
}
