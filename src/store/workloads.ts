/** Instances that joined, and what they registered. */
import { and, asc, count, eq, gt, isNotNull, lt } from "drizzle-orm";
import type { Grant, WorkloadRow } from "./rows.ts";
import { grants, workloads } from "./schema.ts";
import type { Store } from "./store.ts";

export type Joined = Omit<
  WorkloadRow,
  "boot" | "shard" | "registration" | "registeredAt" | "lastSeen"
>;

/** Records a join; joining again as the same instance keeps its registration. */
export function putJoined(store: Store, row: Joined): void {
  store.write(() =>
    store.db
      .insert(workloads)
      .values(row)
      .onConflictDoUpdate({ target: workloads.instance, set: row })
      .run(),
  );
}

export function workload(store: Store, instance: string): WorkloadRow | undefined {
  return store.db.select().from(workloads).where(eq(workloads.instance, instance)).get();
}

/** A page in order of instance, after `after`. */
export function listWorkloads(store: Store, after = "", limit = -1): WorkloadRow[] {
  return store.db
    .select()
    .from(workloads)
    .where(gt(workloads.instance, after))
    .orderBy(asc(workloads.instance))
    .limit(limit)
    .all();
}

/** Those with a registration. */
export function registeredWorkloads(store: Store): WorkloadRow[] {
  return store.db
    .select()
    .from(workloads)
    .where(isNotNull(workloads.registration))
    .orderBy(asc(workloads.instance))
    .all();
}

/** Number of registered instances of a service in each shard; the index is the shard. */
export function shardSizes(store: Store, namespace: string, service: string): number[] {
  const rows = store.db
    .select({ shard: workloads.shard, size: count() })
    .from(workloads)
    .where(
      and(
        eq(workloads.namespace, namespace),
        eq(workloads.service, service),
        isNotNull(workloads.registration),
      ),
    )
    .groupBy(workloads.shard)
    .all();
  const sizes: number[] = [];
  for (const { shard, size } of rows) if (shard !== null) sizes[shard] = size;
  return Array.from(sizes, (size) => size ?? 0);
}

export interface RegistrationFields {
  readonly boot: string;
  readonly shard: number;
  /** JSON text. */
  readonly registration: string;
  readonly registeredAt: number;
  readonly lastSeen: number;
}

/** @returns false when the instance never joined. */
export function putRegistration(
  store: Store,
  instance: string,
  fields: RegistrationFields,
): boolean {
  return store.write(
    () =>
      store.db
        .update(workloads)
        .set(fields)
        .where(eq(workloads.instance, instance))
        .returning({ instance: workloads.instance })
        .all().length > 0,
  );
}

/** Forgets the registration; the instance stays known and may register again. */
export function dropRegistration(store: Store, instance: string): void {
  store.write(() =>
    store.db
      .update(workloads)
      .set({ boot: null, shard: null, registration: null, registeredAt: null })
      .where(eq(workloads.instance, instance))
      .run(),
  );
}

/** Notes when instances were last heard; batch it, a disk write each costs 0.3 ms. */
export function touchWorkloads(store: Store, seen: ReadonlyMap<string, number>): void {
  store.write(() => {
    for (const [instance, lastSeen] of seen) {
      store.db.update(workloads).set({ lastSeen }).where(eq(workloads.instance, instance)).run();
    }
  });
}

/** Forgets unregistered instances whose certificates have all run out before `t`. */
export function forgetWorkloads(store: Store, instances: readonly string[]): void {
  store.write(() => {
    for (const instance of instances) {
      store.db.delete(workloads).where(eq(workloads.instance, instance)).run();
    }
  });
}

/** Joined before `t` and not registered now. */
export function idleWorkloads(store: Store, t: number): WorkloadRow[] {
  return store.db
    .select()
    .from(workloads)
    .where(lt(workloads.joinedAt, t))
    .all()
    .filter((row) => row.registration === null);
}

export function grantsOfInstance(store: Store, instance: string): Grant[] {
  return store.db
    .select({ namespace: grants.namespace, service: grants.service })
    .from(grants)
    .where(eq(grants.instance, instance))
    .all();
}

export function putGrant(store: Store, instance: string, grant: Grant, t: number): void {
  store.write(() =>
    store.db
      .insert(grants)
      .values({ instance, namespace: grant.namespace, service: grant.service, t })
      .onConflictDoNothing()
      .run(),
  );
}
