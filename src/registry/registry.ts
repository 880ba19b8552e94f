/**
 * The workloads that run now. Each registers over the bus, renews its lease, and leaves; who it is
 * comes from the subject, which its credentials pin, and from the record of its join.
 *
 * Registrations are kept in the store: a control plane that starts anew knows every endpoint, and
 * gives each one lease to be heard of again.
 */
import type { Bus } from "../bus/bus.ts";
import { Failure } from "../error.ts";
import { ENDPOINTS_PER_SHARD } from "../snapshot/document.ts";
import { Allowance } from "../std/allowance.ts";
import type { WorkloadRow } from "../store/rows.ts";
import type { Store } from "../store/store.ts";
import { token } from "../store/tokens.ts";
import {
  dropRegistration,
  putRegistration,
  registeredWorkloads,
  touchWorkloads,
  workload,
} from "../store/workloads.ts";
import type { Logger } from "../telemetry/log.ts";
import { Acks } from "./acks.ts";
import { type Lapse, LEASE_MS, RENEW_MS, sweepLeases } from "./lease.ts";
import {
  checkPorts,
  endpointOf,
  type LiveEndpoint,
  type Member,
  nameOf,
  sameEndpoint,
  serviceOf,
} from "./member.ts";
import {
  type AddressFacts,
  mayRegister,
  metricsHost,
  type Registration,
  readAcknowledgement,
  readRegistration,
  readRenewal,
  senderOf,
} from "./registration.ts";

export interface RegisteredService {
  readonly namespace: string;
  readonly service: string;
  /** `protocol`: absent where none is declared. */
  readonly ports: readonly { readonly port: number; readonly protocol?: string }[];
}

export interface RegistryOptions {
  readonly store: Store;
  readonly bus: Bus;
  /** Stores a Service for a registration that has none. May throw a `Failure`: it is refused. */
  readonly ensureService: (service: RegisteredService) => void;
  /**
   * Endpoints changed: compile and publish. Resolves to the revision of the bus that tells it, when
   * the bus has it, or cannot.
   */
  readonly publish: () => Promise<number>;
  /** Unix milliseconds. */
  readonly now: () => number;
  /** Milliseconds on a clock that never jumps. */
  readonly clock: () => number;
  /** Addresses of this host. */
  readonly hostAddresses: () => readonly string[];
  readonly log: Logger;
}

/** A registered workload as lists show it. */
export interface RegisteredWorkload {
  readonly instance: string;
  readonly namespace: string;
  readonly service: string;
  readonly identity: string;
  readonly registration: Registration;
  readonly state: "ready" | "failing" | "suspect";
  readonly inflight: number;
  /** Unix milliseconds. */
  readonly lastSeen: number;
}

const SWEEP_MS = 500;
const PROBE_MS = 1_000;
/** The bus must have answered this recently, or silence says nothing about workloads. */
const BLIND_MS = 3_000;
const TOUCH_MS = 10_000;
/** What one workload may ask: a proxy renews every 4 s, and when its application's health changes. */
const ASKS_MAX = 30;
const ASKS_MS = 10_000;
/** A proxy acknowledges at most every 250 ms; what is dropped is said again with the next head. */
const ACKS_MAX = 100;
/** How long a workload that leaves waits for the others to know it, milliseconds. */
const LEAVE_MS = 1_000;
/** Named in the log of those that did not in time. */
const UNAWARE_MAX = 10;
/** Changes within this time are one publication. */
const COALESCE_MS = 10;

type Reply = Readonly<Record<string, unknown>>;

export class Registry {
  readonly acks = new Acks();
  readonly #options: RegistryOptions;
  readonly #members = new Map<string, Member>();
  /** Where the API saw each instance come from. */
  readonly #sources = new Map<string, string>();
  #lapsed: Lapse[] = [];
  /** No lease runs out before this time. */
  #frozenUntil: number;
  #sweptAt: number;
  /** When the bus last answered. */
  #answeredAt: number;
  #probing = false;
  readonly #allowance = new Allowance(ASKS_MAX, ASKS_MS);
  /** Beyond the allowance this many are told so; the rest gets no answer, which costs nothing. */
  readonly #refusalAllowance = new Allowance(ASKS_MAX, ASKS_MS);
  readonly #ackAllowance = new Allowance(ACKS_MAX, ASKS_MS);
  #touchedAt: number;
  #publishing: Promise<number> | undefined;
  readonly #stops: (() => void)[] = [];
  /** Registrations refused, by code. */
  readonly refusals = new Map<string, number>();
  lapses = 0;

  constructor(options: RegistryOptions) {
    this.#options = options;
    const at = options.clock();
    this.#frozenUntil = at + LEASE_MS;
    this.#sweptAt = at;
    this.#answeredAt = at;
    this.#touchedAt = at;
    for (const row of registeredWorkloads(options.store)) this.#restore(row);
  }

  /** Answers on the bus from now on. */
  start(): void {
    const { bus } = this.#options;
    const answer = (
      prefix: string,
      act: (id: Sender, data: Uint8Array) => Reply | Promise<Reply>,
    ) =>
      bus.reply(`${prefix}>`, async (subject, data) => {
        const sender = senderOf(subject, prefix);
        const reply = sender && (await this.#answer(sender, data, act));
        return reply && Buffer.from(JSON.stringify(reply));
      });
    this.#stops.push(
      answer("weft.rpc.register.", (sender, data) => this.#register(sender, data)),
      answer("weft.rpc.renew.", (sender, data) => this.#renew(sender, data)),
      answer("weft.rpc.deregister.", (sender, data) => this.#deregister(sender, data)),
      bus.subscribe("weft.ack.>", (subject, data) => {
        const { instance } = senderOf(subject, "weft.ack.") ?? {};
        const { clock, now } = this.#options;
        if (instance === undefined || !this.#ackAllowance.take(instance, clock())) return;
        const ack = readAcknowledgement(data);
        if (ack !== undefined) this.acks.record(instance, ack, now());
      }),
      bus.status.subscribe((status) => {
        if (status === "up") this.#freeze();
      }),
    );
    const sweep = setInterval(() => this.sweep(), SWEEP_MS);
    const probe = setInterval(() => void this.probe(), PROBE_MS);
    this.#stops.push(
      () => clearInterval(sweep),
      () => clearInterval(probe),
    );
  }

  close(): void {
    for (const stop of this.#stops) stop();
    this.#touch();
  }

  /** Endpoints to publish: alive or suspect, healthy, with a port. */
  endpoints(): LiveEndpoint[] {
    const all: LiveEndpoint[] = [];
    for (const member of this.#members.values()) {
      if (member.failing || Object.keys(member.registration.ports).length === 0) continue;
      all.push(endpointOf(member));
    }
    return all;
  }

  workloads(): RegisteredWorkload[] {
    return [...this.#members.values()].map((member) => ({
      instance: member.row.instance,
      namespace: member.row.namespace,
      service: member.row.service,
      identity: member.row.identity,
      registration: member.registration,
      state: stateOf(member),
      inflight: member.inflight,
      lastSeen: member.lastSeen,
    }));
  }

  /** Instances that should acknowledge: those whose lease holds. */
  listening(): readonly string[] {
    const ids: string[] = [];
    for (const [id, member] of this.#members) if (member.suspectAt === undefined) ids.push(id);
    return ids;
  }

  /** The API saw this instance come from `address`. */
  noteSource(instance: string, address: string): void {
    this.#sources.set(instance, address);
  }

  /** Its membership was ended: it is no endpoint any more, whatever it says. */
  forget(instance: string): void {
    this.#sources.delete(instance);
    if (!this.#members.has(instance)) return;
    this.#remove(instance);
    void this.#changed();
  }

  /** Removes what has been silent too long; called by a timer. */
  sweep(): void {
    const now = this.#options.clock();
    // A sweep that comes late means that this process stood still, not that workloads did.
    if (now - this.#sweptAt > LEASE_MS / 2) this.#freeze();
    this.#sweptAt = now;
    if (now - this.#touchedAt >= TOUCH_MS) this.#touch();
    const blind = now - this.#answeredAt > BLIND_MS;
    if (blind || this.#options.bus.status.value === "down") this.#freeze();
    if (now < this.#frozenUntil) return;
    this.#lapsed = this.#lapsed.filter((lapse) => now - lapse.at < LEASE_MS);
    const leases = [...this.#members].map(([id, member]) => ({
      id,
      service: serviceOf(member.row),
      until: member.until,
      suspectAt: member.suspectAt,
    }));
    const { remove, suspect } = sweepLeases(leases, this.#lapsed, now);
    if (remove.length === 0 && suspect.length === 0) return;
    for (const id of remove) this.#lapse(id, now);
    for (const id of suspect) this.#suspect(id, now);
    void this.#changed();
  }

  /**
   * Sees whether the bus answers: a server that stands still keeps its connections, and would make
   * every workload look dead. Called by a timer.
   */
  async probe(): Promise<void> {
    if (this.#probing) return;
    this.#probing = true;
    try {
      await this.#options.bus.kvGet("head");
      const now = this.#options.clock();
      if (now - this.#answeredAt > BLIND_MS) this.#freeze();
      this.#answeredAt = now;
    } catch {
      // The next sweep draws the conclusion.
    }
    this.#probing = false;
  }

  #freeze(): void {
    this.#frozenUntil = Math.max(this.#frozenUntil, this.#options.clock() + LEASE_MS);
  }

  #lapse(id: string, at: number): void {
    const member = this.#members.get(id);
    if (member === undefined) return;
    this.#lapsed.push({ service: serviceOf(member.row), at });
    this.lapses += 1;
    this.#options.log.warn("a workload fell silent and was removed", { workload: nameOf(member) });
    this.#remove(id);
  }

  #suspect(id: string, at: number): void {
    const member = this.#members.get(id);
    if (member === undefined) return;
    member.suspectAt = at;
    this.#options.log.error("most of a service fell silent together: kept, and chosen last", {
      workload: nameOf(member),
    });
  }

  #remove(id: string): void {
    this.#members.delete(id);
    this.acks.forget(id);
    this.#kept("that a workload is gone", () => dropRegistration(this.#options.store, id));
  }

  /** Whoever starts after this process should not send requests to an application that is ill. */
  #keepHealth(member: Member, failing: boolean): void {
    const { row, registration, shard, lastSeen } = member;
    const { health: _, ...well } = registration;
    const text = JSON.stringify(failing ? { ...well, health: "failing" } : well);
    const { boot } = registration;
    this.#kept("a workload's health", () =>
      putRegistration(this.#options.store, row.instance, {
        ...{ boot, shard, registration: text, registeredAt: lastSeen, lastSeen },
      }),
    );
  }

  /** What the store cannot take, the next start learns from the workloads: leases must go on. */
  #kept(what: string, write: () => void): void {
    try {
      write();
    } catch (error) {
      this.#options.log.error(`cannot note ${what}`, { error });
    }
  }

  async #answer(
    sender: Sender,
    data: Uint8Array,
    act: (sender: Sender, data: Uint8Array) => Reply | Promise<Reply>,
  ): Promise<Reply | undefined> {
    try {
      const now = this.#options.clock();
      if (!this.#allowance.take(sender.instance, now)) {
        if (!this.#refusalAllowance.take(sender.instance, now)) return undefined;
        throw tooOften();
      }
      return await act(sender, data);
    } catch (error) {
      const known = error instanceof Failure;
      const code = known ? error.code : "internal";
      this.refusals.set(code, (this.refusals.get(code) ?? 0) + 1);
      if (!known) this.#options.log.error("a request on the bus failed", { error });
      const message = known ? error.message : "the control plane could not do this";
      return { error: { code, message, fix: known ? error.fix : "see its log" } };
    }
  }

  #register(sender: Sender, data: Uint8Array): Reply {
    const { store, ensureService } = this.#options;
    const row = this.#joined(sender);
    const asked = readRegistration(data);
    if ("wrong" in asked) {
      throw new Failure("registration_invalid", asked.wrong, "use a proxy of this version");
    }
    this.#checkAddress(row, asked.addr);
    const registration = this.#withOwnMetrics(row, asked);
    checkPorts(registration);
    const ports = Object.entries(registration.ports).map(([text, { protocol, detect }]) => {
      const port = Number(text);
      return detect === true ? { port } : { port, protocol };
    });
    if (ports.length > 0) ensureService({ ...sender, ports });
    const before = this.#members.get(sender.instance);
    const shard = before?.shard ?? this.#freeShard(serviceOf(row));
    const t = this.#options.now();
    putRegistration(store, sender.instance, {
      boot: registration.boot,
      shard,
      registration: JSON.stringify(registration),
      registeredAt: t,
      lastSeen: t,
    });
    const member = this.#admit(row, registration, shard, t);
    if (before === undefined || !sameEndpoint(before, member)) {
      this.#options.log.info("a workload registered", { workload: nameOf(member) });
      void this.#changed();
    }
    return { leaseMs: LEASE_MS, renewMs: RENEW_MS };
  }

  #renew(sender: Sender, data: Uint8Array): Reply {
    const member = this.#members.get(sender.instance);
    const renewal = readRenewal(data);
    if (member === undefined || member.registration.boot !== renewal?.boot) {
      throw new Failure("not_registered", "this workload is not registered", "register again");
    }
    const failing = renewal.health === "failing";
    const changed = member.failing !== failing || member.suspectAt !== undefined;
    if (member.failing !== failing) this.#keepHealth(member, failing);
    member.until = this.#options.clock() + LEASE_MS;
    member.suspectAt = undefined;
    member.failing = failing;
    member.inflight = renewal.inflight;
    member.lastSeen = this.#options.now();
    if (changed) void this.#changed();
    return { leaseMs: LEASE_MS, renewMs: RENEW_MS };
  }

  async #deregister(sender: Sender, data: Uint8Array): Promise<Reply> {
    const member = this.#members.get(sender.instance);
    const boot = readRenewal(data)?.boot;
    // A leaving process must not take down the one that replaced it.
    if (member === undefined || member.registration.boot !== boot) return {};
    this.#remove(sender.instance);
    const rev = await this.#changed();
    const others = await this.acks.wait(rev, () => this.listening(), LEAVE_MS);
    const { waiting } = others;
    const unaware = waiting.length === 0 ? {} : { unaware: waiting.slice(0, UNAWARE_MAX) };
    this.#options.log.info("a workload left", { workload: nameOf(member), ...unaware });
    return {};
  }

  #joined(sender: Sender): WorkloadRow {
    const row = workload(this.#options.store, sender.instance);
    if (row?.namespace === sender.namespace && row.service === sender.service) return row;
    throw new Failure("not_joined", "this instance never joined here", "join again with a token");
  }

  #addressFacts(row: WorkloadRow): AddressFacts {
    const { store, hostAddresses } = this.#options;
    return {
      source: this.#sources.get(row.instance),
      last: this.#members.get(row.instance)?.registration.addr,
      cidr: token(store, row.tokenId)?.scope.cidr,
      host: hostAddresses(),
    };
  }

  /** Whoever monitors the mesh goes where metrics are said to be: only to the workload itself. */
  #withOwnMetrics(row: WorkloadRow, registration: Registration): Registration {
    const { metrics, ...rest } = registration;
    if (metrics === undefined) return rest;
    const host = metricsHost(metrics);
    const facts = { ...this.#addressFacts(row), last: registration.addr };
    if (host !== undefined && mayRegister(host, facts)) return registration;
    this.#options.log.info("metrics of a workload are not listed: they are somewhere else", {
      workload: row.instance,
      metrics,
    });
    return rest;
  }

  #checkAddress(row: WorkloadRow, addr: string): void {
    const facts = this.#addressFacts(row);
    if (mayRegister(addr, facts)) return;
    if (facts.cidr === undefined && facts.source === undefined) {
      throw new Failure(
        "address_unknown",
        `where ${row.instance} is was not seen since the control plane started`,
        "renew the certificate, then register again",
      );
    }
    throw new Failure(
      "address_refused",
      `${addr} is neither where this workload connects from nor inside its token's range`,
      "give the address by --advertise, and create the token with a --cidr that contains it",
    );
  }

  #freeShard(service: string): number {
    const sizes: number[] = [];
    for (const { row, shard } of this.#members.values()) {
      if (serviceOf(row) === service) sizes[shard] = (sizes[shard] ?? 0) + 1;
    }
    let shard = 0;
    while ((sizes[shard] ?? 0) >= ENDPOINTS_PER_SHARD) shard += 1;
    return shard;
  }

  #admit(row: WorkloadRow, registration: Registration, shard: number, lastSeen: number): Member {
    const until = this.#options.clock() + LEASE_MS;
    const failing = registration.health === "failing";
    const fields = { until, suspectAt: undefined, failing, inflight: 0, lastSeen };
    const member: Member = { row, registration, shard, ...fields };
    this.#members.set(row.instance, member);
    return member;
  }

  #restore(row: WorkloadRow): void {
    const registration = readRegistration(Buffer.from(row.registration ?? ""));
    if ("wrong" in registration) return;
    this.#admit(row, registration, row.shard ?? 0, row.lastSeen ?? 0);
  }

  /**
   * Publishes soon; resolves when it is done to the revision that tells it, 0 if none does. Calls
   * within a few milliseconds share one.
   */
  #changed(): Promise<number> {
    this.#publishing ??= new Promise<number>((resolve) => {
      setTimeout(() => {
        this.#publishing = undefined;
        this.#options.publish().then(resolve, (error: unknown) => {
          this.#options.log.error("endpoints could not be published", { error });
          resolve(0);
        });
      }, COALESCE_MS);
    });
    return this.#publishing;
  }

  #touch(): void {
    this.#touchedAt = this.#options.clock();
    const seen = new Map<string, number>();
    for (const [id, { lastSeen }] of this.#members) seen.set(id, lastSeen);
    if (seen.size === 0) return;
    this.#kept("when workloads were last seen", () => touchWorkloads(this.#options.store, seen));
  }
}

type Sender = NonNullable<ReturnType<typeof senderOf>>;

function tooOften(): Failure {
  return new Failure(
    "too_often",
    `this workload asked more than ${ASKS_MAX} times in ${ASKS_MS / 1000} s`,
    "ask less often; a lease needs one renewal every 4 s",
  );
}

function stateOf(member: Member): RegisteredWorkload["state"] {
  if (member.suspectAt !== undefined) return "suspect";
  return member.failing ? "failing" : "ready";
}
