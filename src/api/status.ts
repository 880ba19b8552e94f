/** State of documents, and what every proxy runs: from its join, its registration and its acknowledgements. */
import { faultsOf } from "../config/conditions.ts";
import type { AckState } from "../registry/acks.ts";
import type { RegisteredWorkload } from "../registry/registry.ts";
import { certificateLives } from "../store/certificates.ts";
import { lastRevision, revisionCarriedBy } from "../store/revisions.ts";
import type { WorkloadRow } from "../store/rows.ts";
import { listWorkloads } from "../store/workloads.ts";
import type { ProxyAnswer, StatusAnswer } from "./answers.ts";
import type { ApiParts } from "./route.ts";

const CONDITIONS_MAX = 100;

export function statusAnswer(parts: ApiParts): StatusAnswer {
  const { store, publisher, distribution } = parts;
  const { rev, epoch } = publisher.position;
  const { problem } = publisher;
  const told = problem && { code: problem.code, reason: problem.message, fix: problem.fix };
  return {
    version: parts.version,
    trustDomain: parts.trustDomain,
    startedAt: parts.startedAt,
    revision: lastRevision(store),
    publishedRevision: distribution.publishedRevision,
    bus: {
      ...{ rev, epoch, status: parts.busStatus(), url: parts.busUrl },
      ...(told === undefined ? {} : { problem: told }),
    },
    store: { present: store.present() },
    conditions: [...parts.conditions.current()]
      .flatMap(([key, status]) => faultsOf(status).map((fault) => ({ key, ...fault })))
      .slice(0, CONDITIONS_MAX),
    proxies: proxyAnswers(parts, listWorkloads(store)).sort(byService),
  };
}

/** As people look for them; instances are named at random. */
function byService(a: ProxyAnswer, b: ProxyAnswer): number {
  return (
    compare(a.namespace, b.namespace) ||
    compare(a.service, b.service) ||
    compare(a.instance, b.instance)
  );
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

export function proxyAnswers(parts: ApiParts, rows: readonly WorkloadRow[]): ProxyAnswer[] {
  const registered = new Map(parts.registry.workloads().map((row) => [row.instance, row]));
  const lives = certificateLives(parts.store);
  const now = parts.now();
  const revisions = new Map<number, number>();
  const revisionOf = (ack: AckState | undefined) => {
    if (ack === undefined) return 0;
    const known = revisions.get(ack.rev) ?? revisionCarriedBy(parts.store, ack.rev);
    revisions.set(ack.rev, known);
    return known;
  };
  return rows.map((row) => {
    const ack = parts.registry.acks.get(row.instance);
    const live = registered.get(row.instance);
    const { instance, namespace, service, identity } = row;
    return {
      ...{ instance, namespace, service, identity },
      state: stateOf(live),
      health: live === undefined ? "" : live.state === "failing" ? "unhealthy" : "healthy",
      revision: revisionOf(ack),
      ackedRev: ack?.rev ?? 0,
      ackedEpoch: ack?.epoch ?? 0,
      refused: ack?.refused ?? [],
      leaseAgeMs: live === undefined ? null : Math.max(0, now - live.lastSeen),
      certificateIssued: lives.get(instance)?.issuedAt ?? null,
      certificateExpires: lives.get(instance)?.notAfter ?? null,
      address: live?.registration.addr ?? "",
      meshPort: live?.registration.meshPort ?? 0,
      version: live?.registration.version ?? "",
      locality: live?.registration.locality ?? "",
      labels: live?.registration.labels ?? {},
    };
  });
}

function stateOf(live: RegisteredWorkload | undefined): ProxyAnswer["state"] {
  if (live === undefined) return "down";
  return live.state === "suspect" ? "suspect" : "up";
}
