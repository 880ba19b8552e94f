/** Numbers of a proxy that are not about traffic: configuration, certificates, registration. */
import type { Admission } from "../../src/net/admission.ts";
import { labelText, type Metrics, type Sample } from "../../src/telemetry/metrics.ts";
import type { Member } from "./member.ts";

export function observeMembers(
  metrics: Metrics,
  members: readonly Member[],
  version: string,
): void {
  const each = (value: (member: Member) => number) => () =>
    members.map(
      (member): Sample => ({
        suffix: "",
        labels: labelText(["workload"], [member.name]),
        value: value(member),
      }),
    );
  metrics.observe("weft_build_info", "The version that runs.", "gauge", () => [
    { suffix: "", labels: labelText(["version"], [version]), value: 1 },
  ]);
  metrics.observe(
    "weft_config_messages_total",
    "Configuration messages, by what became of them: accepted, or why they were refused.",
    "counter",
    () =>
      members.flatMap((member) =>
        [...member.agent.messageCounts].map(([outcome, value]) => ({
          suffix: "",
          labels: labelText(["workload", "outcome"], [member.name, outcome]),
          value,
        })),
      ),
  );
  metrics.observe(
    "weft_config_revision",
    "Revision of the configuration in force.",
    "gauge",
    each((member) => member.snapshot.value?.rev ?? 0),
  );
  metrics.observe(
    "weft_config_epoch",
    "Epoch of the configuration in force.",
    "gauge",
    each((member) => member.snapshot.value?.epoch ?? 0),
  );
  metrics.observe(
    "weft_config_age_seconds",
    "Time since the control plane was last heard; 0 while it is.",
    "gauge",
    each((member) => member.agent.configAgeMs() / 1000),
  );
  metrics.observe(
    "weft_certificate_expiry_timestamp_seconds",
    "When the certificate in use ends, unix time.",
    "gauge",
    each((member) => (member.identity.value?.notAfter ?? 0) / 1000),
  );
  metrics.observe(
    "weft_registered",
    "1 while the registry lists this workload.",
    "gauge",
    each((member) => (member.agent.registered ? 1 : 0)),
  );
  metrics.observe(
    "weft_bus_connected",
    "1 while the connection to the bus is up.",
    "gauge",
    each((member) => (member.agent.linked ? 1 : 0)),
  );
}

/** Counts whom the metrics port turns away. Returns what hears the codes of refused requests. */
export function countRefused(metrics: Metrics, admission: Admission): (code: string) => void {
  metrics.observe(
    "weft_metrics_connections_refused_total",
    "Callers of the metrics port turned away because too many were there.",
    "counter",
    () => [{ suffix: "", labels: "", value: admission.refused }],
  );
  const requests = metrics.counters(
    "weft_metrics_requests_refused_total",
    "Requests to the metrics port refused unanswered, and answers that nobody read.",
    ["code"],
  );
  return (code) => {
    requests.slot(code).value++;
  };
}
