/**
 * The control plane's pen on the bus. SQLite says what every document should be; the bus is only
 * its last-value copy, and is brought up to date from any state: behind, wiped, restored, tampered.
 *
 * `publish` writes SQLite and returns; putting the documents, then `head`, goes on behind it and
 * coalesces: what changed while the bus was away is one head when it returns.
 */
import type { Bus } from "../bus/bus.ts";
import { BusError } from "../bus/bus-error.ts";
import { EXIT, Failure } from "../error.ts";
import { headOf } from "../snapshot/assemble.ts";
import type { HeadDocument } from "../snapshot/document.ts";
import {
  compareVersions,
  configKeysOf,
  MESSAGE_BYTES_MAX,
  openMessage,
  type SigningKey,
  sha256Hex,
  signMessage,
} from "../snapshot/envelope.ts";
import { publishedDocuments, putPublished } from "../store/documents.ts";
import type { PublishedDocument } from "../store/rows.ts";
import { dropSetting, numberSetting, putSetting, setting } from "../store/settings.ts";
import type { Store } from "../store/store.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Desired } from "./documents.ts";

export interface PublisherOptions {
  readonly store: Store;
  readonly bus: Bus;
  /** With its public half, which the control plane checks its own heads by. */
  readonly key: SigningKey & { readonly publicKey: string };
  /** The operator says that SQLite is right although the bus is ahead. */
  readonly restored: boolean;
  readonly now: () => number;
  readonly log: Logger;
}

export interface BusPosition {
  readonly epoch: number;
  readonly rev: number;
}

/** How often `head` is signed anew: proxies take 30 s without one for a dead link. */
const BEAT_MS = 10_000;
/** How often the bus is compared with SQLite. */
const AUDIT_MS = 2_000;
/** Documents compared in one audit, besides `head`. */
const AUDIT_KEYS = 20;
/** Puts on the wire at once; the server syncs each to disk. */
const PUTS_AT_ONCE = 64;
/** A longer list would not fit a message: proxies then read everything they use. */
const CHANGED_MAX = 1_000;
const RETRY_FIRST_MS = 50;
const RETRY_LAST_MS = 500;

export class Publisher {
  readonly #options: PublisherOptions;
  readonly #documents = new Map<string, PublishedDocument>();
  #position: BusPosition;
  /** What the bus has; undefined while it must be compared first. */
  #onBus: { readonly head: HeadDocument; readonly bytes: Uint8Array } | undefined;
  #compared = false;
  #announced = false;
  #pumping = false;
  #closed = false;
  #auditAt = 0;
  #problem: Failure | undefined;
  readonly #waiting = new Set<{ readonly rev: number; readonly done: () => void }>();
  readonly #stops: (() => void)[] = [];
  /** Documents found missing or altered on the bus and put again. */
  repaired = 0;

  private constructor(options: PublisherOptions) {
    this.#options = options;
    const { store } = options;
    this.#position = { epoch: numberSetting(store, "epoch"), rev: numberSetting(store, "busRev") };
    for (const row of publishedDocuments(store)) this.#documents.set(row.key, row);
  }

  /**
   * Compares SQLite with the bus, if the bus is up, and starts publishing.
   *
   * @throws Failure `bus_ahead` when the bus holds newer documents than SQLite, `bus_foreign` when
   *   another mesh wrote them; both unless `restored`.
   */
  static async start(options: PublisherOptions): Promise<Publisher> {
    const publisher = new Publisher(options);
    try {
      if (options.bus.status.value === "up") await publisher.#compare();
    } catch (error) {
      if (!(error instanceof BusError)) throw error;
      options.log.warn("the bus did not answer; publishing goes on in the background", { error });
    }
    publisher.#run();
    return publisher;
  }

  get position(): BusPosition {
    return this.#position;
  }

  /** Whether the bus has everything, as far as is known. */
  get current(): boolean {
    const head = this.#onBus?.head;
    return head !== undefined && compareVersions(head, this.#position) === 0;
  }

  /** Why nothing can be published now. */
  get problem(): Failure | undefined {
    return this.#problem ?? this.#options.bus.problem;
  }

  /**
   * Makes `desired` what the bus should hold and returns the revision that carries it: a new one
   * if anything differs. Call it after the transaction that led to it.
   *
   * @throws Failure `document_too_big`; what the store throws. Nothing has changed then.
   */
  publish(desired: readonly Desired[]): number {
    const rev = this.#position.rev + 1;
    const t = this.#options.now();
    const { epoch } = this.#position;
    const rows: Omit<PublishedDocument, "sha256">[] = [];
    const wanted = new Set<string>();
    for (const { key, body } of desired) {
      wanted.add(key);
      const text = JSON.stringify(body);
      refuseTooBig(key, text);
      const stored = this.#documents.get(key);
      if (stored?.op === "put" && stored.body === text) continue;
      rows.push({ key, op: "put", epoch, rev, t, body: text });
    }
    for (const { key, op } of this.#documents.values()) {
      if (op === "put" && !wanted.has(key)) rows.push({ key, op: "del", epoch, rev, t, body: "" });
    }
    if (rows.length === 0) {
      this.#announce();
      return this.#position.rev;
    }
    const { store } = this.#options;
    store.write(() => {
      putPublished(store, rows);
      putSetting(store, "busRev", rev);
      putSetting(store, "epoch", Math.max(epoch, 1));
    });
    for (const row of rows) this.#documents.set(row.key, { ...row, sha256: sha256Hex(row.body) });
    this.#position = { epoch: Math.max(epoch, 1), rev };
    this.#wake();
    return rev;
  }

  /** Resolves true when the bus has revision `rev`, false after `timeoutMs`. */
  flushed(rev: number, timeoutMs: number): Promise<boolean> {
    if (this.#has(rev)) return Promise.resolve(true);
    return new Promise((resolve) => {
      const waiter = {
        rev,
        done: () => {
          clearTimeout(timer);
          this.#waiting.delete(waiter);
          resolve(true);
        },
      };
      const timer = setTimeout(() => {
        this.#waiting.delete(waiter);
        resolve(false);
      }, timeoutMs);
      this.#waiting.add(waiter);
    });
  }

  close(): void {
    this.#closed = true;
    for (const stop of this.#stops) stop();
  }

  #has(rev: number): boolean {
    return this.#compared && (this.#onBus?.head.rev ?? -1) >= rev;
  }

  #run(): void {
    const { bus } = this.#options;
    const stop = bus.status.subscribe((status) => {
      // Whatever happened to the bus meanwhile: compare before writing.
      if (status === "up") {
        this.#compared = false;
        this.#wake();
      }
    });
    const beat = setInterval(() => void this.#quietly(() => this.#beat()), BEAT_MS);
    const audit = setInterval(() => void this.#quietly(() => this.#audit()), AUDIT_MS);
    this.#stops.push(
      stop,
      () => clearInterval(beat),
      () => clearInterval(audit),
    );
    this.#wake();
  }

  #wake(): void {
    if (!this.#pumping) void this.#pump();
  }

  /** Until the bus has everything, is down, or an operator must act. */
  async #pump(): Promise<void> {
    this.#pumping = true;
    let delay = RETRY_FIRST_MS;
    while (!this.#closed && this.#options.bus.status.value === "up") {
      try {
        if (!this.#compared) await this.#compare();
        if (this.#position.rev === 0 || (this.current && this.#compared)) break;
        await this.#push();
        delay = RETRY_FIRST_MS;
      } catch (error) {
        if (error instanceof Failure) {
          // Compared again and again; told once.
          if (this.#problem?.message !== error.message) {
            this.#options.log.error(error.message, { fix: error.fix });
          }
          this.#problem = error;
          break;
        }
        this.#options.log.debug("publishing failed; trying again", { error });
        // The bucket itself may be gone.
        this.#compared = false;
        await Bun.sleep(delay);
        delay = Math.min(delay * 2, RETRY_LAST_MS);
      }
    }
    this.#pumping = false;
  }

  /** Finds out what the bus has, and under which epoch to go on. */
  async #compare(): Promise<void> {
    const { bus, store, restored } = this.#options;
    const { created } = await bus.ensureBucket();
    const bytes = created ? undefined : await bus.kvGet("head");
    const insist = restored || setting(store, "restored") !== undefined;
    if (bytes === undefined) {
      // A bucket that was never written is no loss.
      this.#newEpoch(0);
    } else {
      const head = this.#ownHead(bytes);
      if (head === undefined) {
        if (!insist && this.#onBus === undefined) throw foreign();
        if (insist) this.#newEpoch(0);
        this.#onBus = undefined;
      } else if (compareVersions(head, this.#position) > 0) {
        if (!insist) throw ahead(head, this.#position);
        this.#newEpoch(head.epoch);
      } else if (insist && this.#onBus === undefined) {
        this.#newEpoch(head.epoch);
      } else {
        this.#onBus = head.epoch === this.#position.epoch ? { head, bytes } : undefined;
      }
    }
    if (insist) dropSetting(store, "restored");
    this.#problem = undefined;
    this.#compared = true;
  }

  #ownHead(bytes: Uint8Array): HeadDocument | undefined {
    const { kid, publicKey } = this.#options.key;
    const opened = openMessage(bytes, "head", configKeysOf([{ kid, key: publicKey }]));
    return opened.kind === "opened" ? headOf(opened) : undefined;
  }

  #newEpoch(atLeast: number): void {
    const epoch = Math.max(this.#position.epoch, atLeast) + 1;
    putSetting(this.#options.store, "epoch", epoch);
    this.#position = { epoch, rev: this.#position.rev };
    this.#onBus = undefined;
    this.#options.log.info("a new epoch of the configuration", { epoch });
  }

  /** Puts what the bus lacks, then the head that makes it take effect. */
  async #push(): Promise<void> {
    const { epoch, rev } = this.#position;
    const before = this.#onBus?.head;
    const all = [...this.#documents.values()];
    const changed = before === undefined ? all : all.filter((row) => row.rev > before.rev);
    const messages = changed.map((row) => [row.key, this.#sign(row, epoch)] as const);
    for (let at = 0; at < messages.length; at += PUTS_AT_ONCE) {
      const some = messages.slice(at, at + PUTS_AT_ONCE);
      await Promise.all(some.map(([key, bytes]) => this.#options.bus.kvPut(key, bytes)));
    }
    const listed = messages.length <= CHANGED_MAX;
    await this.#putHead({
      epoch,
      rev,
      prev: listed ? (before?.rev ?? 0) : 0,
      t: this.#headTime(before),
      changed: listed ? messages.map(([key, bytes]) => [key, sha256Hex(bytes)] as const) : [],
    });
    for (const waiter of [...this.#waiting]) if (waiter.rev <= rev) waiter.done();
  }

  /** Proxies take a head for fresh when its time is later: a clock may be set back. */
  #headTime(before: HeadDocument | undefined): number {
    return Math.max(this.#options.now(), (before?.t ?? 0) + 1);
  }

  async #putHead(head: HeadDocument): Promise<void> {
    const { epoch, rev, t } = head;
    const header = { epoch, rev, key: "head", op: "put", t } as const;
    const bytes = signMessage(this.#options.key, header, Buffer.from(JSON.stringify(head)));
    await this.#options.bus.kvPut("head", bytes);
    this.#onBus = { head, bytes };
  }

  #sign(row: PublishedDocument, epoch: number): Uint8Array {
    return signMessage(this.#options.key, { ...row, epoch }, Buffer.from(row.body));
  }

  /** Once after the start: proxies answer a fresh head with what they run. */
  #announce(): void {
    if (this.#announced) return;
    this.#announced = true;
    void this.#quietly(() => this.#beat());
  }

  /** Timers must neither overlap with a push nor end the process. */
  async #quietly(task: () => Promise<void>): Promise<void> {
    const idle = !this.#pumping && this.#compared && this.#options.bus.status.value === "up";
    if (!idle || this.#closed || this.#onBus === undefined) return this.#wake();
    this.#pumping = true;
    try {
      await task();
    } catch (error) {
      this.#compared = false;
      this.#options.log.debug("the bus failed a check", { error });
    }
    this.#pumping = false;
    this.#wake();
  }

  async #beat(): Promise<void> {
    const head = this.#onBus?.head;
    if (head !== undefined) await this.#putHead({ ...head, t: this.#headTime(head) });
  }

  /** Reads back the head and some documents, in turn, and puts right what is not. */
  async #audit(): Promise<void> {
    const { bus } = this.#options;
    const head = this.#onBus;
    if (head === undefined) return;
    const bytes = await bus.kvGet("head");
    if (bytes === undefined) {
      this.#compared = false;
      return;
    }
    if (!Buffer.from(bytes).equals(head.bytes)) {
      const found = this.#ownHead(bytes);
      if (found !== undefined && compareVersions(found, this.#position) > 0) {
        this.#compared = false;
        return;
      }
      await this.#repair("head", head.bytes);
    }
    const rows = [...this.#documents.values()].filter((row) => row.rev <= head.head.rev);
    for (let n = 0; n < Math.min(AUDIT_KEYS, rows.length); n++) {
      const row = rows[this.#auditAt++ % rows.length] as PublishedDocument;
      const right = this.#sign(row, head.head.epoch);
      const found = await bus.kvGet(row.key);
      if (found === undefined || !Buffer.from(found).equals(right)) {
        await this.#repair(row.key, right);
      }
    }
  }

  async #repair(key: string, bytes: Uint8Array): Promise<void> {
    this.repaired += 1;
    this.#options.log.warn("a document on the bus was missing or altered; put again", {
      document: key,
    });
    await this.#options.bus.kvPut(key, bytes);
  }
}

function refuseTooBig(key: string, text: string): void {
  // 2 KiB covers signature and header line.
  const bytes = Buffer.byteLength(text) + 2048;
  if (bytes <= MESSAGE_BYTES_MAX) return;
  throw new Failure(
    "document_too_big",
    `${key} would be ${bytes} bytes on the bus; the limit is ${MESSAGE_BYTES_MAX}`,
    "split the service or its routes into several",
    { status: 422, exit: EXIT.refused },
  );
}

function ahead(bus: BusPosition, own: BusPosition): Failure {
  return new Failure(
    "bus_ahead",
    `the bus holds revision ${bus.rev} of epoch ${bus.epoch}, ` +
      `the data folder only ${own.rev} of epoch ${own.epoch}`,
    "if this folder was restored from a backup, start once with --restored; otherwise another " +
      "control plane uses this NATS",
    { exit: EXIT.refused },
  );
}

function foreign(): Failure {
  return new Failure(
    "bus_foreign",
    "the bus holds configuration that this control plane did not sign",
    "use another NATS account for this mesh, or start once with --restored to overwrite it",
    { exit: EXIT.refused },
  );
}
