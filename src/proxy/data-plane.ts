/** The data plane of one process: its local workloads, their listeners, and the mesh port. */
import { lookup } from "node:dns/promises";
import { guarded } from "../net/boundary.ts";
import { pendingBytes } from "../net/connection.ts";
import { HostNames } from "../net/host-names.ts";
import type { Listener } from "../net/listen.ts";
import { Relays } from "../net/relays.ts";
import { Room } from "../net/room.ts";
import type { AccessLog } from "../telemetry/access-log.ts";
import { Golden } from "../telemetry/golden.ts";
import { labelText, type Metrics, type Sample } from "../telemetry/metrics.ts";
import { Inbound } from "./inbound.ts";
import { listenOutbound, listenUpstream, OutboundSide } from "./outbound.ts";
import { OutsideHosts } from "./outside.ts";
import type { ProxyState } from "./state.ts";
import { LocalWorkload, type WorkloadOptions } from "./workload.ts";

export interface DataPlaneOptions {
  readonly metrics: Metrics;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  readonly random: () => number;
  /** Absent: requests are not logged. */
  readonly accessLog?: AccessLog;
  /** Descriptors in each direction, for callers and what they need; absent: as many as come. */
  readonly descriptors?: number;
  /** Bytes held for slow receivers above which nothing more is begun; absent: no limit. */
  readonly pendingMax?: number;
  /** weft's own ports on this host: no caller reaches them through a proxy. */
  readonly ownPorts: ReadonlySet<number>;
  /** Ranges of addresses whose connections to local listeners begin with a PROXY header. */
  readonly relays?: readonly string[];
  /** How long what connections count as a second is; absent: a second. */
  readonly tickMs?: number;
  /** Name resolution for hosts without a proxy; absent: the system's. */
  readonly lookup?: (host: string) => Promise<readonly string[]>;
  /** Addresses that such a name may not lead to; absent: those of this host and its link. */
  readonly forbidden?: (address: string) => boolean;
}

export interface UpstreamPortOptions {
  readonly namespace: string;
  readonly service: string;
  /** Absent: the service's only port. */
  readonly servicePort?: number;
}

const TICK_MS = 1000;
const DRAIN_POLL_MS = 20;
/** How often slow receivers may be ended for those who would begin, milliseconds. */
const SHED_EVERY_MS = 100;
/** What is held afterwards, of what may be. */
const SHED_TO = 3 / 4;

export class DataPlane {
  readonly #state: ProxyState;
  readonly #inbound: Inbound;
  readonly #outside: OutsideHosts;
  readonly #workloads = new Set<LocalWorkload>();
  /** Listeners that a drain closes first; those of the applications stay to the end. */
  readonly #meshListeners: Listener[] = [];
  readonly #localListeners: Listener[] = [];
  readonly #timer: ReturnType<typeof setInterval>;
  #shedCount = 0;
  #shedAt = Number.NEGATIVE_INFINITY;

  constructor(o: DataPlaneOptions) {
    const { pendingMax = Number.POSITIVE_INFINITY } = o;
    const descriptors = o.descriptors ?? Number.POSITIVE_INFINITY;
    this.#state = {
      now: o.now,
      random: o.random,
      golden: new Golden(o.metrics),
      accessLog: o.accessLog,
      rooms: { inbound: new Room(descriptors, true), outbound: new Room(descriptors) },
      flooded: () => pendingBytes() > pendingMax && !this.#relieved(pendingMax),
      names: new HostNames({ lookup: systemLookup, ...o }),
      relays: o.relays && relaysOf(o.relays, o.metrics),
      draining: false,
      open: new Set(),
    };
    this.#inbound = new Inbound(this.#state);
    this.#outside = new OutsideHosts(this.#state.names);
    o.metrics.observe(
      "weft_connections_active",
      "Callers' connections that are open.",
      "gauge",
      () => this.#connectionsActive(),
    );
    o.metrics.observe(
      "weft_pending_bytes",
      "Bytes held because their receivers have not taken them yet.",
      "gauge",
      () => [{ suffix: "", labels: "", value: pendingBytes() }],
    );
    o.metrics.observe(
      "weft_connections_shed_total",
      "Connections ended because too many bytes were held, and most of them for these.",
      "counter",
      () => [{ suffix: "", labels: "", value: this.#shedCount }],
    );
    o.metrics.observe(
      "weft_connections_refused_total",
      "Callers turned away because too many were there.",
      "counter",
      () =>
        Object.entries(this.#state.rooms).map(([direction, { refused }]) => ({
          suffix: "",
          labels: labelText(["direction"], [direction]),
          value: refused,
        })),
    );
    this.#timer = setInterval(() => this.#tick(), o.tickMs ?? TICK_MS);
    this.#timer.unref();
  }

  addWorkload(o: WorkloadOptions): LocalWorkload {
    const local = new LocalWorkload(o, this.#state);
    this.#workloads.add(local);
    this.#state.rooms.outbound.shared = this.#workloads.size > 1;
    this.#inbound.add(local);
    return local;
  }

  /** The mesh port, shared by all workloads. Returns the port. @throws EADDRINUSE */
  listenMesh(host: string, port: number): number {
    const listener = this.#inbound.listen(host, port);
    this.#meshListeners.push(listener);
    return listener.port;
  }

  /** Where a workload's application names services by Host or CONNECT. Returns the port. */
  listenOutbound(local: LocalWorkload, host: string, port: number): number {
    const side = new OutboundSide(local, this.#outside, undefined);
    const listener = listenOutbound(side, host, port);
    this.#localListeners.push(listener);
    return listener.port;
  }

  /** A port of a workload that leads to one service. Returns the port. */
  listenUpstream(
    local: LocalWorkload,
    service: UpstreamPortOptions,
    host: string,
    port: number,
  ): number {
    const suffix = service.servicePort === undefined ? "" : `:${service.servicePort}`;
    const authority = `${service.service}.${service.namespace}.mesh${suffix}`;
    const side = new OutboundSide(local, this.#outside, authority);
    const listener = listenUpstream(side, authority, service, host, port);
    this.#localListeners.push(listener);
    return listener.port;
  }

  /** Requests and tunnels under way. */
  get active(): number {
    let count = 0;
    for (const one of this.#state.open) if (!one.idle) count++;
    return count;
  }

  /** Callers turned away so far because there was no room. */
  get turnedAway(): number {
    const { inbound, outbound } = this.#state.rooms;
    return inbound.refused + outbound.refused;
  }

  get draining(): boolean {
    return this.#state.draining;
  }

  /**
   * Ends in order: for `graceMs` callers that have not heard of our leaving are still served, each
   * answer closing its connection; then nothing new is accepted; what is under way may take until
   * `limitMs`, counted from the call. Resolves when all is closed.
   */
  async drain(graceMs: number, limitMs: number): Promise<void> {
    const end = this.#state.now() + limitMs;
    this.#state.draining = true;
    await Bun.sleep(Math.min(graceMs, limitMs));
    for (const listener of this.#meshListeners) listener.stop();
    this.#shutAll(false);
    while (this.active > 0 && this.#state.now() < end) await Bun.sleep(DRAIN_POLL_MS);
    this.stop();
  }

  /** Closes everything at once. */
  stop(): void {
    clearInterval(this.#timer);
    this.#shutAll(true);
    for (const listener of [...this.#meshListeners, ...this.#localListeners]) listener.closeAll();
    for (const local of this.#workloads) local.stop();
    this.#state.accessLog?.flush();
  }

  #shutAll(force: boolean): void {
    for (const one of this.#state.open) guarded("shut", undefined, () => one.shut(force));
  }

  #connectionsActive(): Iterable<Sample> {
    const counts = new Map<string, number>();
    for (const { direction, workload } of this.#state.open) {
      const labels = labelText(["direction", "workload"], [direction, workload]);
      counts.set(labels, (counts.get(labels) ?? 0) + 1);
    }
    return [...counts].map(([labels, value]) => ({ suffix: "", labels, value }));
  }

  #tick(): void {
    this.#state.rooms.inbound.tick();
    this.#state.rooms.outbound.tick();
    for (const one of this.#state.open) {
      guarded("tick", { destroy: () => one.shut(true) }, () => one.tick());
    }
    this.#state.flooded();
    for (const local of this.#workloads) guarded("sweep", undefined, () => local.sweep());
  }

  /** Makes room unless it did just now: the collector needs its time, too. */
  #relieved(pendingMax: number): boolean {
    const now = this.#state.now();
    if (now - this.#shedAt < SHED_EVERY_MS) return false;
    this.#shedAt = now;
    this.#shed(pendingMax * SHED_TO);
    return pendingBytes() <= pendingMax;
  }

  /** Ends the connections for which most is held, until no more than `left` bytes are. */
  #shed(left: number): void {
    const { open } = this.#state;
    const held = [...open].map((one) => ({ one, bytes: one.pendingBytes }));
    held.sort((a, b) => b.bytes - a.bytes);
    for (const { one, bytes } of held) {
      if (bytes === 0 || pendingBytes() <= left) return;
      this.#shedCount++;
      guarded("shed", undefined, () => one.shut(true));
    }
  }
}

function relaysOf(ranges: readonly string[], metrics: Metrics): Relays {
  const refused = metrics.counters(
    "weft_proxy_headers_refused_total",
    "Relays turned away for a PROXY header that was malformed, or not there in time.",
    ["reason"],
  );
  return new Relays(ranges, (why) => {
    refused.slot(why).value++;
  });
}

async function systemLookup(host: string): Promise<readonly string[]> {
  return (await lookup(host, { all: true })).map(({ address }) => address);
}
