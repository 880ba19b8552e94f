/**
 * Whether workloads can use a NATS that an operator configured: it may let the control plane in and
 * lack the workloads' account, which the control plane alone would never notice.
 */
import { type Bus, type BusOptions, openBus } from "../bus/bus.ts";
import { Failure } from "../error.ts";
import type { NatsAuthority } from "../identity/nats-auth.ts";
import { createNkey } from "../identity/nkey.ts";
import { inboxPrefix, subjectId, userRights } from "../identity/rights.ts";
import { CONTROL_NAMESPACE } from "../identity/spiffe.ts";

export interface WorkloadWayOptions {
  /** The control plane's own connection: while it is down there is nothing to find out. */
  readonly bus: Bus;
  readonly dial: Pick<BusOptions, "servers" | "tls">;
  readonly nats: NatsAuthority;
  readonly now: () => number;
  /** What is wrong, or undefined again. */
  readonly found: (problem: Failure | undefined) => void;
}

/** No workload can join in this namespace. */
const NAME = { namespace: CONTROL_NAMESPACE, service: "probe", instance: "probe" };
const ANSWER_MS = 3_000;
const AGAIN_MS = 10_000;
const SOON_MS = 1_000;
const TTL_MS = 60_000;

/** Tries the way of a workload whenever the bus comes up, and until it works. */
export function watchWorkloadWay(options: WorkloadWayOptions): () => void {
  const { bus, found } = options;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let closed = false;
  const look = async () => {
    clearTimeout(timer);
    // What the control plane cannot read itself, as before it made the bucket, proves nothing.
    const readable = await reads(bus);
    const problem = readable ? await tryWay(options) : undefined;
    if (closed || bus.status.value === "down") return;
    found(problem);
    clearTimeout(timer);
    const again = readable ? AGAIN_MS : SOON_MS;
    if (!readable || problem !== undefined) timer = setTimeout(() => void look(), again);
  };
  const stop = bus.status.subscribe((status) => {
    if (status === "up") void look();
  });
  if (bus.status.value === "up") void look();
  return () => {
    closed = true;
    clearTimeout(timer);
    stop();
  };
}

function reads(bus: Bus): Promise<boolean> {
  return bus.kvGet("head").then(
    () => true,
    () => false,
  );
}

async function tryWay({ dial, nats, now }: WorkloadWayOptions): Promise<Failure | undefined> {
  const { publicKey, seed } = createNkey("user");
  const user = { name: subjectId(NAME), publicKey, rights: userRights(NAME, []) };
  const jwt = nats.issueUser({ ...user, expiresAt: now() + TTL_MS }, now());
  const bus = openBus({
    ...dial,
    inboxPrefix: inboxPrefix(NAME),
    credentials: () => ({ jwt, seed }),
    name: subjectId(NAME),
    external: true,
  });
  try {
    await bus.ready(ANSWER_MS);
    if (await reads(bus)) return undefined;
  } catch {
    // Not even let in.
  } finally {
    await bus.close();
  }
  const at = dial.servers.join(",");
  return new Failure(
    "bus_workloads",
    `NATS at ${at} lets the control plane in, but workloads cannot read documents there`,
    "preload both the mesh and the workloads account that `weft nats config` prints",
    { status: 503 },
  );
}
