/** A registered workload, and what others are told of it. */
import { Failure } from "../error.ts";
import type { EndpointDocument } from "../snapshot/document.ts";
import type { WorkloadRow } from "../store/rows.ts";
import type { Registration } from "./registration.ts";

/** An endpoint that registered itself. */
export interface LiveEndpoint extends EndpointDocument {
  readonly namespace: string;
  readonly service: string;
  readonly shard: number;
}

export interface Member {
  readonly row: WorkloadRow;
  readonly registration: Registration;
  readonly shard: number;
  until: number;
  suspectAt: number | undefined;
  failing: boolean;
  inflight: number;
  lastSeen: number;
}

/** A proxy must never be made to dial its own ports as if they were an application's. */
export function checkPorts({ ports, meshPort, metrics }: Registration): void {
  const own = [meshPort, Number(metrics?.slice(metrics.lastIndexOf(":") + 1) ?? 0)];
  for (const { app } of Object.values(ports)) {
    if (!own.includes(app)) continue;
    throw new Failure(
      "port_reserved",
      `port ${app} is weft's own and cannot be an application's`,
      "name the port of the application by --app",
    );
  }
}

export function endpointOf(member: Member): LiveEndpoint {
  const { row, registration, shard } = member;
  const ports: Record<string, number> = {};
  for (const [port, { app }] of Object.entries(registration.ports)) ports[port] = app;
  return {
    namespace: row.namespace,
    service: row.service,
    shard,
    id: row.instance,
    address: registration.addr,
    meshPort: registration.meshPort,
    identity: row.identity,
    ports,
    labels: registration.labels,
    locality: registration.locality,
    weight: registration.weight,
    ...(member.suspectAt === undefined ? {} : { suspect: true as const }),
  };
}

export function sameEndpoint(a: Member, b: Member): boolean {
  const same = JSON.stringify(endpointOf(a)) === JSON.stringify(endpointOf(b));
  return same && a.failing === b.failing;
}

export function serviceOf(row: WorkloadRow): string {
  return `${row.namespace}/${row.service}`;
}

export function nameOf({ row }: Member): string {
  return `${row.namespace}/${row.service}/${row.instance}`;
}
