/**
 * One local application with its own identity, configuration and connections. A sidecar has one,
 * a node has many; nothing here is shared between them.
 */
import type { Svid } from "../identity/svid.ts";
import { countCallbackError, guarded } from "../net/boundary.ts";
import { type TlsContext, tlsContext } from "../net/tls.ts";
import { Authorities, serviceNamed } from "../snapshot/authority.ts";
import type { Protocol } from "../snapshot/document.ts";
import type { Snapshot } from "../snapshot/snapshot.ts";
import type { Cell } from "../std/cell.ts";
import type { RequestMeter } from "../telemetry/golden.ts";
import { Endpoint } from "../upstream/endpoint.ts";
import { Upstreams } from "../upstream/upstreams.ts";
import type { ProxyState } from "./state.ts";
import { Verdicts } from "./verdicts.ts";

/** A service port and where the application behind it listens. */
export interface AppPort {
  readonly servicePort: number;
  readonly host: string;
  readonly port: number;
  readonly protocol?: Protocol;
}

export interface WorkloadOptions {
  readonly namespace: string;
  readonly service: string;
  readonly app: readonly AppPort[];
  /** Undefined until the first certificate; a new value serves the next handshake. */
  readonly identity: Cell<Svid | undefined>;
  /** Undefined until the first configuration. */
  readonly snapshot: Cell<Snapshot | undefined>;
  /**
   * Asks for the right to call a service this proxy was not granted yet. True: its documents will
   * arrive through `snapshot`.
   */
  access(namespace: string, service: string): Promise<boolean>;
}

/** One configuration, and what was resolved with it. */
export interface View {
  readonly snapshot: Snapshot;
  readonly authorities: Authorities;
}

/** How long a request waits for a service this proxy does not know yet, milliseconds. */
const LEARN_MS = 2000;
/** How long a refusal is remembered, milliseconds. */
const REFUSED_MS = 3000;
const REFUSED_MAX = 1000;
/** The proxy and the application are on one host. */
const APP_WEIGHT = 1;

export class LocalWorkload {
  /** `<namespace>/<service>`. */
  readonly name: string;
  readonly namespace: string;
  readonly service: string;
  readonly state: ProxyState;
  readonly upstreams: Upstreams;
  /** What ports without a declared protocol turned out to speak. */
  readonly verdicts: Verdicts;
  /** By service port. */
  readonly apps: ReadonlyMap<number, { readonly app: AppPort; readonly endpoint: Endpoint }>;
  /** Counts requests that find no service. */
  readonly unrouted: RequestMeter;
  readonly #options: WorkloadOptions;
  readonly #unsubscribe: readonly (() => void)[];
  readonly #learning = new Map<string, ((known: boolean) => void)[]>();
  readonly #refused = new Map<string, number>();
  #view: View | undefined;
  #context: TlsContext | undefined;
  #contextOf = "";

  constructor(options: WorkloadOptions, state: ProxyState) {
    this.#options = options;
    this.state = state;
    this.namespace = options.namespace;
    this.service = options.service;
    this.name = `${options.namespace}/${options.service}`;
    this.upstreams = new Upstreams({
      workload: this.name,
      golden: state.golden,
      now: state.now,
      context: () => this.#context,
      room: state.rooms.outbound,
      names: state.names,
    });
    this.verdicts = new Verdicts(state.now);
    this.apps = new Map(
      options.app.map((app) => {
        const address = { host: app.host, port: app.port, weight: APP_WEIGHT };
        return [
          app.servicePort,
          { app, endpoint: new Endpoint(address, state.now, state.rooms.inbound) },
        ];
      }),
    );
    this.unrouted = state.golden.meter({
      ...{ direction: "outbound", workload: this.name, source: this.name },
      ...{ peer: "", port: "", subset: "", tls: "none" },
    });
    this.#unsubscribe = [
      options.snapshot.subscribe(() => this.#refresh()),
      options.identity.subscribe(() => this.#refresh()),
    ];
    this.#refresh();
  }

  /** The configuration in force; undefined until the first arrives. */
  get view(): View | undefined {
    return this.#view;
  }

  /** Undefined until certificate and trust bundle are there. */
  get context(): TlsContext | undefined {
    return this.#context;
  }

  get identity(): Svid | undefined {
    return this.#options.identity.value;
  }

  /** Whether a Host (lower case, without port) means this service. */
  answersTo(host: string): boolean {
    if (this.#view === undefined) return false;
    const named = serviceNamed(this.#view.snapshot, host, this.namespace);
    return named?.service === this.service && named.namespace === this.namespace;
  }

  #refresh(): void {
    const snapshot = this.#options.snapshot.value;
    const svid = this.#options.identity.value;
    if (snapshot !== undefined && snapshot !== this.#view?.snapshot) {
      this.#view = { snapshot, authorities: new Authorities(snapshot, this.namespace) };
    }
    if (snapshot === undefined || svid === undefined) return;
    const { bundle } = snapshot.mesh;
    const of = `${svid.chainPem}\n${bundle.join("\n")}`;
    if (of === this.#contextOf) return;
    this.#contextOf = of;
    try {
      this.#context = tlsContext({ cert: svid.chainPem, key: svid.keyPem, ca: bundle });
    } catch (error) {
      // The certificate in use stays in use: it is better than none.
      countCallbackError("tls_context", error);
    }
  }

  /**
   * Calls `done` once the configuration knows the service, or it is clear that it will not soon:
   * at once where a refusal is remembered, at the latest after two seconds.
   */
  learn(namespace: string, service: string, done: (known: boolean) => void): void {
    const key = `${namespace}/${service}`;
    const refusedUntil = this.#refused.get(key);
    if (refusedUntil !== undefined && this.state.now() < refusedUntil) {
      done(false);
      return;
    }
    const waiting = this.#learning.get(key);
    if (waiting !== undefined) {
      waiting.push(done);
      return;
    }
    this.#learning.set(key, [done]);
    const known = () => this.#view?.snapshot.services.has(key) === true;
    const settle = () => {
      const waiters = this.#learning.get(key);
      if (waiters === undefined) return;
      this.#learning.delete(key);
      clearTimeout(timer);
      unsubscribe();
      if (!known()) this.#remember(key);
      for (const waiter of waiters) guarded("learn", undefined, () => waiter(known()));
    };
    const timer = setTimeout(settle, LEARN_MS);
    const unsubscribe = this.#options.snapshot.subscribe(() => {
      this.#refresh();
      if (known()) settle();
    });
    this.#options.access(namespace, service).then(
      (granted) => {
        if (!granted || known()) settle();
      },
      () => settle(),
    );
  }

  #remember(key: string): void {
    if (this.#refused.size >= REFUSED_MAX) this.#refused.clear();
    this.#refused.set(key, this.state.now() + REFUSED_MS);
  }

  sweep(): void {
    this.upstreams.sweep();
    for (const { endpoint } of this.apps.values()) endpoint.sweep(this.state.now());
  }

  /** Stops following its cells and closes kept connections. */
  stop(): void {
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    this.upstreams.retire();
    for (const { endpoint } of this.apps.values()) endpoint.retire();
  }
}
