/** One local workload of a proxy: its agent, its compiled configuration, its application. */
import { connect } from "node:net";
import { join } from "node:path";
import type { ReadyCheck } from "../../src/admin/admin.ts";
import { Agent } from "../../src/agent/agent.ts";
import type { PresentPort } from "../../src/agent/presence.ts";
import type { Svid } from "../../src/identity/svid.ts";
import type { DocumentSet, RefusedKey } from "../../src/snapshot/assemble.ts";
import { compileSnapshot } from "../../src/snapshot/compile.ts";
import { SCHEMA } from "../../src/snapshot/document.ts";
import type { Snapshot } from "../../src/snapshot/snapshot.ts";
import { Cell } from "../../src/std/cell.ts";
import { type Logger, messageOf } from "../../src/telemetry/log.ts";
import type { ProxyOptions, WorkloadSpec } from "../options.ts";
import { AppProbe } from "./app-health.ts";

/** What a registration says besides the workload itself. */
export interface ListeningAt {
  readonly boot: string;
  readonly meshPort: number;
  readonly metrics: string;
}

export class Member {
  readonly name: string;
  readonly spec: WorkloadSpec;
  readonly agent: Agent;
  readonly snapshot: Cell<Snapshot | undefined>;
  readonly identity: Cell<Svid | undefined>;
  readonly #options: ProxyOptions;
  readonly #log: Logger;
  #probe: AppProbe | undefined;
  #at: ListeningAt | undefined;
  #leaving = false;
  #registering = false;
  /** Compiled while a set is judged, used when it is committed. */
  readonly #compiled = new WeakMap<DocumentSet, Snapshot>();

  /** @throws Failure when the workload can neither join nor go on. */
  constructor(options: ProxyOptions, spec: WorkloadSpec, log: Logger) {
    this.#options = options;
    this.spec = spec;
    this.name = `${spec.namespace}/${spec.service}`;
    this.#log = options.mode === "node" ? log.with({ workload: this.name }) : log;
    const own = join(options.data, `${spec.namespace}.${spec.service}`);
    this.agent = new Agent({
      namespace: spec.namespace,
      service: spec.service,
      serviceAccount: spec.serviceAccount,
      upstreams: spec.upstream.map(({ namespace, service }) => ({
        namespace: namespace ?? spec.namespace,
        service,
      })),
      folder: options.mode === "node" ? own : options.data,
      controlplane: options.controlplane,
      token: options.token,
      check: (set) => this.#judge(set),
      now: Date.now,
      random: Math.random,
      log: this.#log,
    });
    const initial = this.agent.documents.value;
    this.snapshot = new Cell(initial === undefined ? undefined : this.#compiled.get(initial));
    this.identity = new Cell(this.agent.svid.value?.svid);
    this.agent.documents.subscribe((set) => {
      const snapshot = set === undefined ? undefined : this.#compiled.get(set);
      if (snapshot !== undefined) this.snapshot.set(snapshot);
      this.#registerIfReady();
    });
    this.agent.svid.subscribe((material) => this.identity.set(material?.svid));
  }

  /** Watches the application, and registers it when all is ready. */
  listening(at: ListeningAt): void {
    this.#at = at;
    this.#probe = new AppProbe({
      app: this.spec.app,
      probe: this.#options.health,
      changed: ({ ok, detail }) => {
        this.#log[ok ? "info" : "warn"](`application ${detail}`);
        this.agent.health(ok, 0);
        this.#registerIfReady();
      },
      late: (detail) => {
        const fix = "start it, or correct --app; no one is sent here before it answers";
        this.#log.warn(`the application is not there: ${detail}`, { fix });
      },
    });
    this.#registerIfReady();
  }

  /** Leaves the registry. */
  async leave(timeoutMs: number): Promise<void> {
    this.#leaving = true;
    await this.agent.deregister(timeoutMs);
  }

  async close(): Promise<void> {
    this.#probe?.stop();
    await this.agent.close();
  }

  checks(): readonly ReadyCheck[] {
    const svid = this.identity.value;
    const snapshot = this.snapshot.value;
    const missing = this.agent.missing;
    const valid = svid !== undefined && svid.notAfter > Date.now();
    const app = this.#probe?.value ?? { ok: false, detail: "not checked yet" };
    const { registered, cutOff } = this.agent;
    const standing = registered ? "in the registry" : "not yet in the registry";
    return [
      {
        name: "identity",
        ok: valid,
        detail: valid ? svid.spiffeId : (missing[0] ?? "the certificate has expired"),
      },
      {
        name: "configuration",
        ok: snapshot !== undefined,
        detail:
          snapshot === undefined
            ? "none received yet"
            : `revision ${snapshot.rev} of epoch ${snapshot.epoch}`,
      },
      { name: "application", ok: app.ok, detail: app.detail },
      {
        name: "registration",
        ok: registered || cutOff,
        detail: cutOff ? "the bus is away; serving from the last configuration" : standing,
      },
    ].map((check) =>
      this.#options.mode === "node" ? { ...check, name: `${this.name} ${check.name}` } : check,
    );
  }

  /** Everything but secrets. */
  dump(): object {
    const { documents, membership, messageCounts } = this.agent;
    const set = documents.value;
    return {
      workload: this.name,
      instance: membership?.instance,
      identity: this.identity.value?.spiffeId,
      notAfter: this.identity.value?.notAfter,
      linked: this.agent.linked,
      registered: this.agent.registered,
      epoch: set?.epoch,
      rev: set?.rev,
      messages: Object.fromEntries(messageCounts),
      documents: Object.fromEntries(set?.documents ?? []),
    };
  }

  #judge(set: DocumentSet): readonly RefusedKey[] {
    try {
      this.#compiled.set(set, compileSnapshot(set.documents, this.spec, set));
      return [];
    } catch (error) {
      return [{ key: "head", reason: messageOf(error) }];
    }
  }

  #registerIfReady(): void {
    const ready = this.#at !== undefined && this.#probe?.value.ok === true;
    if (!ready || this.#leaving || this.#registering || this.snapshot.value === undefined) return;
    this.#registering = true;
    void this.#register(this.#at as ListeningAt);
  }

  async #register(at: ListeningAt): Promise<void> {
    const { spec } = this;
    const { advertise, bind, version } = this.#options;
    const addr = advertise ?? (await this.#sourceAddress(bind));
    if (this.#leaving) return;
    const ports: Record<string, PresentPort> = {};
    for (const { servicePort, port: app, protocol } of spec.app) {
      const undeclared = { app, protocol: "tcp", detect: true } as const;
      ports[servicePort] = protocol === undefined ? undeclared : { app, protocol };
    }
    this.agent.register({
      ...at,
      addr,
      ports,
      labels: spec.labels,
      locality: spec.locality,
      weight: spec.weight,
      version,
      schema: SCHEMA,
    });
  }

  /** The address of this host that others see: the source towards the control plane. */
  #sourceAddress(bind: string): Promise<string> {
    if (bind !== "0.0.0.0" && bind !== "::") return Promise.resolve(bind);
    const url = this.#options.controlplane ?? this.agent.membership?.controlplane;
    const fallback = "127.0.0.1";
    if (url === undefined) return Promise.resolve(fallback);
    const { hostname, port } = new URL(url);
    return new Promise((resolve) => {
      const host = hostname.replace(/^\[|\]$/g, "");
      const socket = connect({ host, port: Number(port) || 443 });
      const finish = (address: string) => {
        socket.destroy();
        resolve(address.replace(/^::ffff:/, ""));
      };
      socket.setTimeout(2_000, () => finish(fallback));
      socket.once("error", () => finish(fallback));
      socket.once("connect", () => finish(socket.localAddress ?? fallback));
    });
  }
}
