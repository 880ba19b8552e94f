/** What the control plane counts, read when somebody scrapes. */
import type { Distribution } from "../../src/control/distribute.ts";
import type { Publisher } from "../../src/control/publish.ts";
import type { Registry } from "../../src/registry/registry.ts";
import { lastRevision } from "../../src/store/revisions.ts";
import type { Store } from "../../src/store/store.ts";
import { labelText, type Metrics, type Sample } from "../../src/telemetry/metrics.ts";

export interface Observed {
  readonly store: Store;
  readonly publisher: Publisher;
  readonly registry: Registry;
  readonly distribution: Distribution;
  readonly busStatus: () => "up" | "down";
  /** Callers of the API turned away so far. */
  readonly turnedAway: () => number;
  readonly now: () => number;
}

function plain(value: number): Sample[] {
  return [{ suffix: "", labels: "", value }];
}

export function observe(metrics: Metrics, parts: Observed): void {
  const { store, publisher, registry, distribution, busStatus } = parts;
  const gauge = (name: string, help: string, value: () => number) =>
    metrics.observe(`weft_controlplane_${name}`, help, "gauge", () => plain(value()));
  const counter = (name: string, help: string, value: () => number) =>
    metrics.observe(`weft_controlplane_${name}_total`, help, "counter", () => plain(value()));
  gauge("revision", "Newest revision", () => lastRevision(store));
  gauge("published_revision", "Newest revision on the bus", () => distribution.publishedRevision);
  gauge("bus_revision", "Revision of the bus", () => publisher.position.rev);
  gauge("bus_epoch", "Epoch of the bus", () => publisher.position.epoch);
  gauge("bus_up", "Whether the bus answers", () => (busStatus() === "up" ? 1 : 0));
  gauge("store_present", "Whether the store's file is there", () => (store.present() ? 1 : 0));
  counter("lapses", "Workloads removed because they fell silent", () => registry.lapses);
  counter(
    "connections_refused",
    "Callers turned away because too many were there",
    parts.turnedAway,
  );
  counter("repairs", "Documents put again on the bus", () => publisher.repaired);
  metrics.observe("weft_controlplane_workloads", "Registered workloads", "gauge", () => {
    const counts = new Map<string, number>();
    for (const { state } of registry.workloads()) counts.set(state, (counts.get(state) ?? 0) + 1);
    return samples("state", counts);
  });
  metrics.observe(
    "weft_controlplane_refused_registrations_total",
    "Registrations refused",
    "counter",
    () => samples("code", registry.refusals),
  );
}

function samples(label: string, counts: ReadonlyMap<string, number>): Sample[] {
  return [...counts].map(([name, value]) => ({
    ...{ suffix: "", labels: labelText([label], [name]), value },
  }));
}
