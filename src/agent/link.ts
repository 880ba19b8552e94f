/**
 * One workload's connection to the bus: it hears its documents, reads what it missed, and speaks
 * on the workload's own subjects. What is heard becomes whole sets in the assembler.
 */
import { type Bus, type BusOptions, openBus } from "../bus/bus.ts";
import { BusError } from "../bus/bus-error.ts";
import type { NatsCredentials } from "../identity/nats-auth.ts";
import { type InstanceName, inboxPrefix, ownKeys, subjectId } from "../identity/rights.ts";
import { CONTROL_SERVER_NAME } from "../identity/spiffe.ts";
import {
  Assembler,
  type DocumentSet,
  type RefusedKey,
  type SetCheck,
} from "../snapshot/assemble.ts";
import type { ConfigKeys } from "../snapshot/envelope.ts";
import { Cell } from "../std/cell.ts";
import type { Logger } from "../telemetry/log.ts";

export interface LinkOptions {
  readonly name: InstanceName;
  /** Several with commas. */
  readonly url: string;
  readonly credentials: () => NatsCredentials;
  /** Roots for a `tls://` bus of the mesh's own. */
  readonly bundle: readonly string[];
  /** Roots for a `tls://` bus of somebody else's; none: public ones. */
  readonly ca: readonly string[] | undefined;
  readonly configKeys: ConfigKeys;
  /** Document keys granted besides the workload's own. */
  readonly grants: readonly string[];
  /** A verified set to start from. */
  readonly initial: DocumentSet | undefined;
  readonly check: SetCheck;
  readonly now: () => number;
  readonly random: () => number;
  readonly log: Logger;
}

/** Without a fresh head for this long the link counts as dead. */
const HEAD_SILENCE_MS = 30_000;
const TICK_MS = 500;
/** Acknowledgements are at least this far apart. */
const ACK_INTERVAL_MS = 250;
const RPC_TIMEOUT_MS = 3_000;
const REFUSED_TOLD_MAX = 50;
const REASON_CHARS_MAX = 300;

export type RpcAnswer =
  | { readonly kind: "ok" }
  | { readonly kind: "refused"; readonly code: string; readonly message: string }
  | { readonly kind: "unreachable"; readonly message: string };

export class Link {
  readonly set: Cell<DocumentSet | undefined>;
  readonly #options: LinkOptions;
  readonly #bus: Bus;
  readonly #assembler: Assembler;
  readonly #subscribed = new Set<string>();
  #settling = false;
  #readingNow = false;
  #adopting = 0;
  /** Counts connections: what an earlier one was asked gets no answer any more. */
  #connection = 0;
  /** When a fresh head last came, by this machine's clock; 0 = never since the start. */
  #headSeenAt = 0;
  #headTime = 0;
  #resumedAt = 0;
  #ack:
    | { readonly epoch: number; readonly rev: number; readonly refused: readonly RefusedKey[] }
    | undefined;
  #ackTimer: ReturnType<typeof setTimeout> | undefined;
  #ackedAt = 0;
  readonly #stops: (() => void)[] = [];

  constructor(options: LinkOptions) {
    this.#options = options;
    const grants = [...ownKeys(options.name), ...options.grants];
    this.#assembler = new Assembler(options.configKeys, grants);
    if (options.initial !== undefined) this.#assembler.restore(options.initial);
    this.set = new Cell(options.initial);
    if (options.initial !== undefined) {
      const { epoch, rev } = options.initial;
      this.#ack = { epoch, rev, refused: [] };
    }
    this.#headTime = this.#assembler.headTime;
    this.#bus = openBus({
      servers: options.url.split(","),
      inboxPrefix: inboxPrefix(options.name),
      credentials: options.credentials,
      name: subjectId(options.name),
      random: options.random,
      failed: (where, error) => options.log.debug("the bus reported an error", { where, error }),
      ...(options.url.startsWith("tls://") ? { tls: tlsOf(options) } : {}),
    });
    for (const key of grants) this.#listen(key);
    const stop = this.#bus.status.subscribe((status) => {
      if (status === "up") this.#resume();
    });
    const timer = setInterval(() => this.#tick(), TICK_MS);
    this.#stops.push(stop, () => clearInterval(timer));
  }

  /** Whether the connection is up and the control plane is heard on it. */
  get alive(): boolean {
    return this.#bus.status.value === "up" && this.headAge() < HEAD_SILENCE_MS;
  }

  get connected(): boolean {
    return this.#bus.status.value === "up";
  }

  get lastError(): string {
    return this.#bus.lastError;
  }

  get counts(): ReadonlyMap<string, number> {
    return this.#assembler.counts;
  }

  /** Milliseconds since a fresh head was heard; Infinity if none was since the start. */
  headAge(): number {
    return this.#headSeenAt === 0
      ? Number.POSITIVE_INFINITY
      : this.#options.now() - this.#headSeenAt;
  }

  /** Hears about every change of the connection; `planned` when credentials are replaced. */
  onStatus(listener: (up: boolean, planned: boolean) => void): void {
    const hear = (status: string) => listener(status === "up", this.#adopting > 0);
    this.#stops.push(this.#bus.status.subscribe(hear));
  }

  /** Connects anew, with what `credentials` gives now, and uses further keys. */
  async adopt(keys: readonly string[]): Promise<void> {
    for (const key of keys) this.#listen(key);
    this.#adopting += 1;
    try {
      await this.#bus.reconnect();
    } catch (error) {
      // It goes on connecting by itself, with the new credentials.
      this.#options.log.debug("the bus is away", { error });
    } finally {
      this.#adopting -= 1;
    }
    this.#assembler.grant(keys);
    this.#read();
  }

  /** Asks the registry. */
  async rpc(kind: "register" | "renew" | "deregister", body: object): Promise<RpcAnswer> {
    const subject = `weft.rpc.${kind}.${subjectId(this.#options.name)}`;
    try {
      const bytes = Buffer.from(JSON.stringify(body));
      const answer = await this.#bus.request(subject, bytes, RPC_TIMEOUT_MS);
      return readAnswer(answer);
    } catch (error) {
      if (!(error instanceof BusError)) throw error;
      return { kind: "unreachable", message: error.message };
    }
  }

  async close(): Promise<void> {
    for (const stop of this.#stops) stop();
    clearTimeout(this.#ackTimer);
    await this.#bus.close();
  }

  #listen(key: string): void {
    if (this.#subscribed.has(key)) return;
    this.#subscribed.add(key);
    const refused = (error: Error) =>
      this.#options.log.debug("not allowed to hear a document yet", { document: key, error });
    this.#bus.kvSubscribe(key, (on, bytes) => this.#heard(on, bytes), { refused });
  }

  #heard(key: string, bytes: Uint8Array): void {
    this.#assembler.offer(key, bytes);
    this.#noteHead();
    this.#settle();
  }

  /** A head that is fresh proves that the control plane is alive and heard. */
  #noteHead(): void {
    if (this.#assembler.headTime <= this.#headTime) return;
    this.#headTime = this.#assembler.headTime;
    this.#headSeenAt = this.#options.now();
    // Said again at each sign of life, for a control plane that started anew; but never while a
    // newer set is on its way, whose acknowledgement would have to wait behind this one.
    if (!this.#assembler.behind) this.#sendAck();
  }

  #resume(): void {
    this.#resumedAt = this.#options.now();
    this.#connection += 1;
    this.#readingNow = false;
    this.#assembler.resume();
    this.#read();
    this.#sendAck();
  }

  #tick(): void {
    if (this.#bus.status.value === "down") return;
    // Heads have stopped on a connection that seems alive: look for one.
    const silent = Math.min(this.headAge(), this.#options.now() - this.#resumedAt);
    if (silent > HEAD_SILENCE_MS / 2) this.#resume();
    this.#assembler.retry();
    this.#settle();
    this.#read();
  }

  /** Reads what the assembler wants until it wants nothing more; false when a read failed. */
  async #readAll(): Promise<boolean> {
    for (;;) {
      const keys = this.#bus.status.value === "up" ? this.#assembler.take() : [];
      if (keys.length === 0) return true;
      let failed = false;
      await Promise.all(
        keys.map(async (key) => {
          try {
            this.#assembler.answered(key, await this.#bus.kvGet(key));
          } catch (error) {
            failed = true;
            // Rights that are missing do not come by asking again.
            if (error instanceof BusError && error.code === "denied") {
              this.#assembler.answered(key, undefined);
            } else this.#assembler.failed(key);
            this.#options.log.debug("a document could not be read", { document: key, error });
          }
        }),
      );
      this.#noteHead();
      if (failed) return false;
    }
  }

  #read(): void {
    if (this.#readingNow) return;
    this.#readingNow = true;
    const connection = this.#connection;
    const done = (ok: boolean) => {
      if (connection !== this.#connection) return;
      this.#readingNow = false;
      // A failed read is tried again by the tick, not at once.
      if (ok) this.#settle();
    };
    this.#readAll().then(done, (error: unknown) => {
      this.#options.log.error("reading documents failed", { error });
      done(false);
    });
  }

  /** Commits what is complete; once per turn, however many messages came in it. */
  #settle(): void {
    if (this.#settling) return;
    this.#settling = true;
    setImmediate(() => {
      this.#settling = false;
      this.#commit();
    });
  }

  #commit(): void {
    const commit = this.#assembler.commit(this.#options.check);
    if (commit?.kind === "set") {
      const { epoch, rev } = commit.set;
      this.set.set(commit.set);
      this.#ack = { epoch, rev, refused: [] };
      this.#sendAck();
    } else if (commit?.kind === "refused") {
      this.#options.log.error("a configuration was refused; the last good one stays", {
        ...commit.version,
        refused: commit.refused,
      });
      this.#ack = { ...commit.version, refused: commit.refused };
      this.#sendAck();
    } else if (this.#assembler.wants) this.#read();
  }

  #sendAck(): void {
    if (this.#ack === undefined || this.#ackTimer !== undefined) return;
    const wait = Math.max(0, this.#ackedAt + ACK_INTERVAL_MS - this.#options.now());
    this.#ackTimer = setTimeout(
      () => {
        this.#ackTimer = undefined;
        this.#ackedAt = this.#options.now();
        if (this.#ack === undefined) return;
        const subject = `weft.ack.${subjectId(this.#options.name)}`;
        // The server closes a connection whose message is too long.
        const refused = this.#ack.refused.slice(0, REFUSED_TOLD_MAX).map(({ key, reason }) => ({
          key,
          reason: reason.slice(0, REASON_CHARS_MAX),
        }));
        this.#bus.publish(subject, Buffer.from(JSON.stringify({ ...this.#ack, refused })));
      },
      Math.min(wait, ACK_INTERVAL_MS),
    );
  }
}

function tlsOf({ bundle, ca }: LinkOptions): NonNullable<BusOptions["tls"]> {
  if (ca === undefined) return { ca: bundle, serverName: CONTROL_SERVER_NAME };
  return ca.length === 0 ? {} : { ca };
}

function readAnswer(bytes: Uint8Array): RpcAnswer {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch {
    return { kind: "unreachable", message: "the answer is not JSON" };
  }
  const error =
    typeof value === "object" && value !== null && "error" in value ? value.error : null;
  if (typeof error !== "object" || error === null) return { kind: "ok" };
  const { code, message } = error as { readonly code?: unknown; readonly message?: unknown };
  return { kind: "refused", code: String(code), message: String(message) };
}
