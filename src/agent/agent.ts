/**
 * One local workload's membership of the mesh: it joins once, keeps its certificate fresh, follows
 * its documents, and stays registered while its application is well.
 *
 * Everything it learned is on disk, so that it starts again with control plane and bus both down,
 * and links later.
 */
import { EXIT, Failure } from "../error.ts";
import { pemCertificates, pemToDer, readCertificate } from "../identity/certificate.ts";
import { createNkey, nkeyFromSeed } from "../identity/nkey.ts";
import { createSvidRequest, type Svid } from "../identity/svid.ts";
import { parseToken } from "../identity/token.ts";
import type { DocumentSet, RefusedKey } from "../snapshot/assemble.ts";
import { configKeysOf } from "../snapshot/envelope.ts";
import { Cell } from "../std/cell.ts";
import type { Logger } from "../telemetry/log.ts";
import { unreadBackends } from "./backends.ts";
import {
  type AccessAnswer,
  fetchBundle,
  type JoinAnswer,
  join,
  renew,
  requestAccess,
  type ServiceName,
} from "./control-client.ts";
import { loadSet, SetWriter } from "./disk-set.ts";
import { keepMembership, type Membership, readMembership } from "./identity-file.ts";
import { Link } from "./link.ts";
import { Presence, type PresenceFacts } from "./presence.ts";
import { refuseOther, tokenExpired, tokenMalformed, tokenMissing } from "./refusals.ts";
import { Renewal } from "./renewal.ts";

export interface AgentOptions extends ServiceName {
  readonly serviceAccount: string;
  /** Services it declares to call. */
  readonly upstreams: readonly ServiceName[];
  /** This workload's own folder. */
  readonly folder: string;
  /** `https://host:port`; absent: what the token, or the last join, says. */
  readonly controlplane: string | undefined;
  readonly token: string | undefined;
  /** Whether this proxy can use a set; a reason for every document it cannot. */
  readonly check: (set: DocumentSet) => readonly RefusedKey[];
  readonly now: () => number;
  readonly random: () => number;
  readonly log: Logger;
}

/** Certificate and roots in force. */
export interface SvidMaterial {
  readonly svid: Svid;
  readonly bundle: readonly string[];
  readonly trustDomain: string;
}

const RETRY_FIRST_MS = 250;
const RETRY_LAST_MS = 10_000;
/** How long a refused or failed request for access is not repeated. */
const ACCESS_PAUSE_MS = 1_000;
const ACCESS_WAIT_MS = 2_000;
/** An application may name anything: requests and refusals that are remembered are bounded. */
const ASKING_MAX = 32;
const REFUSED_MAX = 1_000;
/** How long a set waits for the documents of backends that its routes name. */
const BACKENDS_WAIT_MS = 3_000;

/** Answers that mean: renewing will never work. */
const FORGOTTEN: ReadonlySet<string> = new Set(["instance_unknown", "identity_mismatch"]);

export class Agent {
  readonly svid: Cell<SvidMaterial | undefined>;
  readonly documents: Cell<DocumentSet | undefined>;
  readonly #options: AgentOptions;
  readonly #presence: Presence;
  #membership: Membership | undefined;
  #writer: SetWriter | undefined;
  #link: Link | undefined;
  readonly #renewal: Renewal;
  #renewalFails = false;
  #closed = false;
  #joinError = "";
  /** Requests for access, by service: running, and when the last one ended in vain. */
  readonly #asking = new Map<string, Promise<boolean>>();
  readonly #refusedAt = new Map<string, number>();
  #accessQueue: Promise<unknown> = Promise.resolve();
  #waitingFor: { readonly rev: number; readonly since: number } | undefined;

  /**
   * Reads what the folder holds.
   *
   * @throws Failure when there is neither a membership nor a token, the folder belongs to another
   *   workload, or a secret in it is exposed or damaged.
   */
  constructor(options: AgentOptions) {
    this.#options = options;
    this.#presence = new Presence(
      options,
      () => this.#link,
      async () => void (await this.#renewal.now()),
    );
    this.#renewal = new Renewal({
      life: () => {
        const held = this.#membership;
        return held && { issuedAt: held.issuedAt, notAfter: held.svid.notAfter };
      },
      linked: () => this.linked,
      renew: () => this.#renew(),
      now: options.now,
      random: options.random,
    });
    const membership = readMembership(options.folder);
    if (membership !== undefined) refuseOther(options, membership);
    const usable = membership !== undefined && membership.svid.notAfter > options.now();
    if (!usable && options.token === undefined) throw tokenMissing(options, membership);
    this.#membership = membership;
    const initial = membership === undefined ? undefined : this.#load(membership);
    this.svid = new Cell(membership === undefined ? undefined : materialOf(membership));
    this.documents = new Cell(initial);
  }

  /**
   * Joins if need be, and links. Resolves when the workload has its identity; an unreachable
   * control plane is tried for ever.
   *
   * @throws Failure when the control plane refuses.
   */
  async start(): Promise<void> {
    const { now } = this.#options;
    if (this.#membership !== undefined && this.#membership.svid.notAfter > now()) {
      this.#open(this.#membership);
      this.#renewal.schedule();
      void this.#askForNew();
      return;
    }
    await this.#joinForEver();
  }

  get membership(): Membership | undefined {
    return this.#membership;
  }

  get linked(): boolean {
    return this.#link?.connected === true;
  }

  /** The bus was tried and is not to be had; false also while the first try is under way. */
  get cutOff(): boolean {
    return this.#link !== undefined && !this.linked && this.#link.lastError !== "";
  }

  /** What is missing, for people; empty when all is well. */
  get missing(): readonly string[] {
    const missing: string[] = [];
    if (this.svid.value === undefined) missing.push(`identity: ${this.#joinError || "joining"}`);
    if (this.documents.value === undefined) missing.push("configuration: none received yet");
    return missing;
  }

  /** Milliseconds since a head was last signed that this proxy has heard; 0 while fresh. */
  configAgeMs(): number {
    const set = this.documents.value;
    if (this.#link?.alive === true || set === undefined) return 0;
    const age = this.#link?.headAge() ?? Number.POSITIVE_INFINITY;
    return Number.isFinite(age) ? age : Math.max(0, this.#options.now() - set.head.header.t);
  }

  /** Messages by what became of them: `accepted`, or the cause of their refusal. */
  get messageCounts(): ReadonlyMap<string, number> {
    return this.#link?.counts ?? new Map();
  }

  /** Registers, and stays registered; call again when facts change. */
  register(facts: PresenceFacts): void {
    this.#presence.register(facts);
  }

  /** Tells the registry how the application is, with the next renewal or at once if it changed. */
  health(ok: boolean, inflight: number): void {
    this.#presence.health(ok, inflight);
  }

  get registered(): boolean {
    return this.#presence.registered;
  }

  /** Leaves the registry; resolves when callers have been told, or after `timeoutMs`. */
  deregister(timeoutMs: number): Promise<void> {
    return this.#presence.leave(timeoutMs);
  }

  /**
   * Asks for the right to call a service that was not declared, and waits for its documents.
   * False when there is no such service, it may not be seen, or the control plane is away.
   */
  access(service: ServiceName): Promise<boolean> {
    const name = `${service.namespace}.${service.service}`;
    if (this.documents.value?.documents.has(`out.${name}`) === true) return Promise.resolve(true);
    const running = this.#asking.get(name);
    if (running !== undefined) return running;
    const refusedAt = this.#refusedAt.get(name) ?? Number.NEGATIVE_INFINITY;
    const paused = this.#options.now() - refusedAt < ACCESS_PAUSE_MS;
    if (paused || this.#asking.size >= ASKING_MAX) return Promise.resolve(false);
    const asking = this.#accessQueue
      .then(() => this.#ask(service))
      .catch((error: unknown) => {
        this.#options.log.debug("no access to a service", { service: name, error });
        return false;
      })
      .then((granted) => {
        this.#asking.delete(name);
        if (this.#refusedAt.size >= REFUSED_MAX) this.#refusedAt.clear();
        if (granted) this.#refusedAt.delete(name);
        else this.#refusedAt.set(name, this.#options.now());
        return granted;
      });
    this.#asking.set(name, asking);
    this.#accessQueue = asking;
    return asking;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#renewal.close();
    this.#presence.close();
    await this.#link?.close();
    await this.#writer?.settled();
  }

  #load(membership: Membership): DocumentSet | undefined {
    const keys = configKeysOf(membership.configKeys);
    const { set, problems } = loadSet(this.#options.folder, keys);
    for (const { message, fix } of problems) this.#options.log.error(message, { fix });
    if (set === undefined) return undefined;
    const refused = this.#options.check(set);
    if (refused.length === 0) return set;
    this.#options.log.error("the configuration on disk cannot be used", { refused });
    return undefined;
  }

  async #joinForEver(): Promise<void> {
    let delay = RETRY_FIRST_MS;
    while (!this.#closed) {
      try {
        await this.#joinOnce();
        return;
      } catch (error) {
        if (!(error instanceof Failure) || error.exit !== EXIT.unreachable) throw error;
        if (this.#joinError !== error.message)
          this.#options.log.warn(error.message, { fix: error.fix });
        this.#joinError = error.message;
      }
      await Bun.sleep(delay * (0.5 + this.#options.random() / 2));
      delay = Math.min(delay * 2, RETRY_LAST_MS / 5);
    }
  }

  async #joinOnce(): Promise<void> {
    const { token: text, namespace, service, serviceAccount, upstreams } = this.#options;
    const token = parseToken(text ?? "");
    if (token === undefined || text === undefined) throw tokenMalformed();
    if (token.exp > 0 && token.exp <= this.#options.now()) throw tokenExpired(token.id);
    const url = (this.#options.controlplane ?? token.cp).replace(/\/+$/, "");
    const roots = await fetchBundle(url, token);
    const request = createSvidRequest();
    const nkey = createNkey("user");
    const instance = this.#membership?.instance;
    const answer = await join(url, roots, text, {
      csr: request.csrPem,
      natsKey: nkey.publicKey,
      ...{ namespace, service, serviceAccount, upstreams },
      ...(instance === undefined ? {} : { instance }),
    });
    for (const { namespace: ns, service: name, reason } of answer.refused) {
      this.#options.log.warn("a declared upstream may not be called", {
        upstream: `${ns}/${name}`,
        reason,
      });
    }
    this.#options.log.info("joined the mesh", { instance: answer.instance });
    this.#take(answer, request.keyPem, url, nkey.seed);
    if (this.#membership !== undefined) this.#open(this.#membership);
    this.#renewal.schedule();
  }

  #take(answer: JoinAnswer, keyPem: string, controlplane: string, natsSeed: string): void {
    const { namespace, service, serviceAccount, now } = this.#options;
    const membership: Membership = {
      ...{ namespace, service, serviceAccount, controlplane, natsSeed },
      instance: answer.instance,
      trustDomain: answer.trustDomain,
      svid: svidOf(keyPem, answer.chain),
      bundle: answer.bundle,
      configKeys: answer.configKeys,
      natsUrl: answer.natsUrl,
      ...(answer.natsCa === undefined ? {} : { natsCa: answer.natsCa }),
      natsJwt: answer.natsJwt,
      keys: answer.keys,
      issuedAt: now(),
      natsExpiresAt: answer.expiresAt,
    };
    this.#keep(membership);
    this.svid.set(materialOf(membership));
  }

  #keep(membership: Membership): void {
    const { folder, log } = this.#options;
    keepMembership(folder, membership, this.#membership && log);
    this.#membership = membership;
  }

  #open(membership: Membership): void {
    const { folder, now, random, log } = this.#options;
    const initial = this.documents.value;
    const failed = (error: unknown) =>
      log.error("the configuration could not be kept on disk", { error });
    this.#writer ??= new SetWriter(folder, initial, failed);
    const link = new Link({
      name: membership,
      url: membership.natsUrl,
      credentials: () => {
        const { natsJwt, natsSeed } = this.#membership ?? membership;
        return { jwt: natsJwt, seed: natsSeed };
      },
      bundle: membership.bundle,
      ca: membership.natsCa,
      configKeys: configKeysOf(membership.configKeys),
      grants: membership.keys,
      initial,
      check: (set) => this.#check(set),
      ...{ now, random, log },
    });
    this.#link = link;
    link.set.subscribe((set) => {
      if (set === undefined) return;
      this.documents.set(set);
      this.#writer?.write(set);
    });
    link.onStatus((up, planned) => {
      const level = planned ? "debug" : "info";
      log[level](up ? "linked to the bus" : "the bus is away; serving on", {
        url: membership.natsUrl,
        ...(up ? {} : { why: link.lastError }),
      });
      if (up) this.#presence.wake();
      if (!planned) this.#renewal.linkChanged();
    });
    this.#renewal.linkChanged();
  }

  /** Holds a set back for a moment while the documents of its routes' backends are asked for. */
  #check(set: DocumentSet): readonly RefusedKey[] | "later" {
    const { now } = this.#options;
    const unread = unreadBackends(set.documents, this.#membership?.keys ?? []);
    if (unread.length > 0) {
      if (this.#waitingFor?.rev !== set.rev) {
        this.#waitingFor = { rev: set.rev, since: now() };
        for (const service of unread) void this.access(service);
      }
      if (now() - this.#waitingFor.since < BACKENDS_WAIT_MS) {
        const refused = unread.every(({ namespace, service }) =>
          this.#refusedAt.has(`${namespace}.${service}`),
        );
        if (!refused) return "later";
      }
    }
    return this.#options.check(set);
  }

  /** Upstreams that were declared since the last join. */
  async #askForNew(): Promise<void> {
    const keys = this.#membership?.keys ?? [];
    for (const upstream of this.#options.upstreams) {
      if (!keys.includes(`out.${upstream.namespace}.${upstream.service}`))
        await this.access(upstream);
    }
  }

  async #ask(service: ServiceName): Promise<boolean> {
    const membership = this.#membership;
    const link = this.#link;
    if (membership === undefined || link === undefined) return false;
    const { controlplane, instance, natsSeed, svid, bundle } = membership;
    const url = this.#options.controlplane ?? controlplane;
    const by = { keyPem: svid.keyPem, chainPem: svid.chainPem, bundle };
    const natsKey = nkeyFromSeed("user", natsSeed)?.publicKey ?? "";
    const answer = await requestAccess(url, by, { ...service, instance, natsKey });
    this.#adopt(answer);
    await link.adopt(answer.keys);
    return this.#arrived(`out.${service.namespace}.${service.service}`);
  }

  #adopt(answer: AccessAnswer): void {
    if (this.#membership === undefined) return;
    this.#keep({
      ...this.#membership,
      natsJwt: answer.natsJwt,
      keys: answer.keys,
      natsExpiresAt: answer.expiresAt,
    });
  }

  #arrived(key: string): Promise<boolean> {
    const has = () => this.documents.value?.documents.has(key) === true;
    if (has()) return Promise.resolve(true);
    return new Promise((resolve) => {
      const finish = () => {
        clearTimeout(timer);
        stop();
        resolve(has());
      };
      const timer = setTimeout(finish, ACCESS_WAIT_MS);
      const stop = this.documents.subscribe(() => {
        if (has()) finish();
      });
    });
  }

  /** Renews certificate and NATS credentials; false when that failed. */
  async #renew(): Promise<boolean> {
    const membership = this.#membership;
    if (membership === undefined || this.#closed) return true;
    const { svid, bundle, instance, natsSeed } = membership;
    const url = this.#options.controlplane ?? membership.controlplane;
    try {
      const request = createSvidRequest();
      const natsKey = nkeyFromSeed("user", natsSeed)?.publicKey ?? "";
      const by = { keyPem: svid.keyPem, chainPem: svid.chainPem, bundle };
      const answer = await renew(url, by, { instance, csr: request.csrPem, natsKey });
      this.#take(answer, request.keyPem, url, natsSeed);
      this.#renewalFails = false;
      this.#options.log.debug("certificate renewed", { notAfter: this.#membership?.svid.notAfter });
      this.#renewal.schedule();
      if (sameBus(answer, membership)) await this.#link?.adopt(answer.keys);
      else await this.#move();
      return true;
    } catch (error) {
      if (await this.#rejoined(error, svid)) return true;
      const remaining = svid.notAfter - this.#options.now();
      // Told once: it is tried every few seconds.
      const level = this.#renewalFails ? "debug" : "warn";
      this.#renewalFails = true;
      this.#options.log[level]("the certificate was not renewed", {
        error,
        remainingMs: remaining,
      });
      return false;
    }
  }

  /** The control plane uses another bus than before. */
  async #move(): Promise<void> {
    const old = this.#link;
    if (this.#membership !== undefined) this.#open(this.#membership);
    await old?.close();
  }

  /**
   * A control plane that does not know this instance (any more), or a certificate that ran out
   * while this machine slept: the token may still be good.
   */
  async #rejoined(error: unknown, svid: Svid): Promise<boolean> {
    const forgotten = error instanceof Failure && FORGOTTEN.has(error.code);
    const expired = svid.notAfter <= this.#options.now();
    if ((!forgotten && !expired) || this.#options.token === undefined) return false;
    const why = forgotten
      ? "the control plane does not know this instance"
      : "its certificate ended";
    if (!this.#renewalFails) this.#options.log.warn(`${why}; joining again`, { error });
    try {
      const old = this.#link;
      await this.#joinOnce();
      await old?.close();
      this.#presence.again();
      this.#renewalFails = false;
      return true;
    } catch (cause) {
      const level = this.#renewalFails ? "debug" : "error";
      this.#options.log[level]("joining again failed", { error: cause });
      return false;
    }
  }
}

function sameBus(a: Pick<Membership, "natsUrl" | "natsCa">, b: typeof a): boolean {
  return a.natsUrl === b.natsUrl && a.natsCa?.join() === b.natsCa?.join();
}

function materialOf({ svid, bundle, trustDomain }: Membership): SvidMaterial {
  return { svid, bundle, trustDomain };
}

function svidOf(keyPem: string, chainPem: string): Svid {
  const [leaf = ""] = pemCertificates(chainPem);
  const facts = readCertificate(pemToDer(leaf) ?? Buffer.alloc(0));
  if (facts === undefined) {
    throw new Failure(
      "certificate_unreadable",
      "the control plane sent a certificate that cannot be read",
      "use the same version of weft on both sides",
      { exit: EXIT.unreachable },
    );
  }
  const { notBefore, notAfter, uris } = facts;
  return { keyPem, chainPem, spiffeId: uris[0] ?? "", notBefore, notAfter };
}
