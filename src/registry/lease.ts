/**
 * Which leases have run out, and whether to believe it.
 *
 * One silent workload is dead. When most of a service falls silent together, the likelier reason
 * lies between them and the registry: they are kept, marked suspect, and chosen last.
 */

/** How long a registration holds without being renewed. */
export const LEASE_MS = 12_000;
/** How often a workload renews. */
export const RENEW_MS = 4_000;
/** A suspect that stays silent this long is gone. */
export const SUSPECT_MS = 600_000;

export interface Lease {
  readonly id: string;
  /** `<namespace>/<service>`. */
  readonly service: string;
  /** On a clock that never jumps, milliseconds. */
  readonly until: number;
  /** When it became suspect. */
  readonly suspectAt: number | undefined;
}

/** A lease that ran out and was removed. */
export interface Lapse {
  readonly service: string;
  readonly at: number;
}

export interface Sweep {
  readonly remove: readonly string[];
  readonly suspect: readonly string[];
}

/**
 * Decides about every lease that has run out by `now`. `lapsed` are the removals of the last
 * lease: they count with those that run out now.
 */
export function sweepLeases(leases: Iterable<Lease>, lapsed: readonly Lapse[], now: number): Sweep {
  const services = new Map<string, Lease[]>();
  for (const lease of leases) {
    const list = services.get(lease.service);
    if (list === undefined) services.set(lease.service, [lease]);
    else list.push(lease);
  }
  const remove: string[] = [];
  const suspect: string[] = [];
  for (const [service, all] of services) {
    const out = all.filter((lease) => lease.until <= now);
    const fresh = out.filter((lease) => lease.suspectAt === undefined);
    const gone = lapsed.filter((lapse) => lapse.service === service && now - lapse.at < LEASE_MS);
    const silent = out.length + gone.length;
    const frozen = silent > 1 && silent * 2 > all.length + gone.length;
    for (const { id } of fresh) (frozen ? suspect : remove).push(id);
    for (const { id, suspectAt } of out) {
      if (suspectAt !== undefined && now - suspectAt >= SUSPECT_MS) remove.push(id);
    }
  }
  return { remove, suspect };
}
