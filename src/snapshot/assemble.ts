/**
 * From single verified messages to whole configurations.
 *
 * Messages are staged; a set is committed only when it has every changed key this proxy uses, as
 * named by `head`. Versions only rise. Absence changes nothing: a document leaves the set only by a
 * signed removal that a head covers. No I/O here: the owner reads what `take` asks for.
 */
import type { HeadDocument, MeshDocument } from "./document.ts";
import {
  type ConfigKeys,
  compareVersions,
  configKeysOf,
  type Opened,
  openMessage,
  type RefusalCause,
} from "./envelope.ts";

export interface Version {
  readonly epoch: number;
  readonly rev: number;
}

/** One whole, verified configuration. */
export interface DocumentSet extends Version {
  /** Verified messages by key, removals included: they keep older puts from coming back. */
  readonly messages: ReadonlyMap<string, Opened>;
  readonly head: Opened;
  /** The documents in force, by key; without `head` and removals. */
  readonly documents: ReadonlyMap<string, object>;
}

/** Why a message was not applied. `replayed`: not newer than what is known. */
export type MessageOutcome = RefusalCause | "replayed" | "unexpected_key";

/** `known`: read again and unchanged. */
type Outcome = MessageOutcome | "accepted" | "known";

export interface RefusedKey {
  readonly key: string;
  readonly reason: string;
}

export type Commit =
  | { readonly kind: "set"; readonly set: DocumentSet }
  | {
      readonly kind: "refused";
      readonly version: Version;
      readonly refused: readonly RefusedKey[];
    };

export type SetCheck = (set: DocumentSet) => readonly RefusedKey[] | "later";

interface PendingHead {
  readonly head: HeadDocument;
  readonly message: Opened;
  /** Keys changed since the committed head, with the hash they must have. */
  readonly changed: ReadonlyMap<string, string>;
}

export class Assembler {
  /** Messages by what became of them. */
  readonly counts = new Map<MessageOutcome | "accepted", number>();
  #keys: ConfigKeys;
  /** Granted keys; `eps.<ns>.<svc>.*` covers the shards of one service. */
  readonly #grants = new Set<string>();
  #set: DocumentSet | undefined;
  readonly #staged = new Map<string, Opened>();
  #pending: PendingHead | undefined;
  /** Newest signing time of a current head: older copies of it prove nothing. */
  #headTime = 0;
  /** Keys to read, and being read. */
  readonly #queue = new Set<string>();
  readonly #reading = new Set<string>();
  /** Keys whose chain was lost: their staged value must be covered by the head. */
  readonly #lost = new Set<string>();
  /** Keys that were read for the pending head and still did not match. */
  readonly #tried = new Set<string>();
  #rejected: Version | undefined;

  constructor(keys: ConfigKeys, grants: readonly string[]) {
    this.#keys = keys;
    for (const key of grants) this.#grants.add(key);
  }

  get set(): DocumentSet | undefined {
    return this.#set;
  }

  /** Keys that may sign; changed only by a committed `mesh` document. */
  get configKeys(): ConfigKeys {
    return this.#keys;
  }

  get grants(): readonly string[] {
    return [...this.#grants];
  }

  /** Signing time of the newest head, unix milliseconds; 0 before the first. */
  get headTime(): number {
    return this.#headTime;
  }

  /** Starts from a set that was verified before. */
  restore(set: DocumentSet): void {
    this.#set = set;
    this.#headTime = set.head.header.t;
    this.#adoptKeys(set);
  }

  /** Adds keys to use; the new ones are read. */
  grant(keys: readonly string[]): void {
    const fresh = keys.filter((key) => !this.#grants.has(key));
    for (const key of fresh) this.#grants.add(key);
    this.#lose(fresh.filter((key) => !key.endsWith(".*")));
  }

  /** The link was away: reads the head, which tells what else is needed. */
  resume(): void {
    this.#reading.clear();
    this.#tried.clear();
    this.#queue.add("head");
    const known = this.#set?.messages;
    this.#lose([...this.#literals()].filter((key) => known?.has(key) !== true));
  }

  /** Lets keys be read again that were read in vain. */
  retry(): void {
    this.#tried.clear();
  }

  /** Whether a head newer than the set waits to be committed. */
  get behind(): boolean {
    return this.#pending !== undefined;
  }

  /** Whether `take` would give something. */
  get wants(): boolean {
    return this.#queue.size > 0 && !this.#reading.has("head");
  }

  /** Keys whose current value is wanted now; each must come back by `offer` or `answered`. */
  take(): readonly string[] {
    if (this.#reading.has("head")) return [];
    const keys = this.#queue.has("head") ? ["head"] : [...this.#queue];
    for (const key of keys) {
      this.#queue.delete(key);
      this.#reading.add(key);
    }
    return keys;
  }

  /** A value that was read; undefined when the bus has none under this key. */
  answered(key: string, bytes: Uint8Array | undefined): void {
    if (!this.#reading.delete(key)) return;
    if (bytes !== undefined) this.#offer(key, bytes, true);
    if (key.startsWith("out.")) this.#wantShards(key);
  }

  /** A read that could not be done; it is asked for again. */
  failed(key: string): void {
    if (this.#reading.delete(key)) this.#queue.add(key);
  }

  /** A value that came by itself. */
  offer(key: string, bytes: Uint8Array): void {
    this.#offer(key, bytes, false);
  }

  /**
   * The next whole set, if there is one. `check` may name documents that this proxy cannot use:
   * nothing of that revision is applied then, and the next one is tried. "later" keeps it for
   * another call.
   */
  commit(check: SetCheck): Commit | undefined {
    const head = this.#pending?.message ?? this.#set?.head;
    if (head === undefined || this.#queue.size > 0 || this.#reading.size > 0) return undefined;
    const { epoch, rev } = head.header;
    const version: Version = { epoch, rev };
    if (this.#pending === undefined && this.#lost.size === 0) return undefined;
    if (this.#rejected !== undefined && compareVersions(this.#rejected, version) === 0) {
      return undefined;
    }
    if (!this.#complete(version)) return undefined;
    const covered = [...this.#staged].filter(([key, it]) => this.#covers(key, it, version));
    if (this.#pending === undefined && covered.length === 0) {
      this.#lost.clear();
      return undefined;
    }
    const messages = new Map([...(this.#set?.messages ?? []), ...covered]);
    const set = documentSet(head, messages);
    const refused = check(set);
    if (refused === "later") return undefined;
    if (refused.length > 0) {
      this.#rejected = version;
      return { kind: "refused", version, refused };
    }
    this.#apply(set);
    return { kind: "set", set };
  }

  #apply(set: DocumentSet): void {
    for (const [key, message] of this.#staged) {
      if (set.messages.get(key) === message) this.#staged.delete(key);
    }
    this.#set = set;
    this.#pending = undefined;
    this.#rejected = undefined;
    this.#lost.clear();
    this.#tried.clear();
    this.#adoptKeys(set);
  }

  /** Whether a staged message belongs to the set of this head. */
  #covers(key: string, message: Opened, version: Version): boolean {
    if (compareVersions(message.header, version) > 0) return false;
    return this.#lost.has(key) || this.#pending?.changed.has(key) === true;
  }

  /** Whether every key this proxy uses has the value that the head speaks of. */
  #complete(version: Version): boolean {
    let complete = true;
    for (const [key, sha256] of this.#pending?.changed ?? []) {
      if (!this.#uses(key)) continue;
      const best = this.#best(key);
      if (best?.sha256 === sha256) continue;
      complete = false;
      const ahead = best !== undefined && compareVersions(best.header, version) > 0;
      if (ahead || this.#tried.has(key)) continue;
      this.#tried.add(key);
      this.#queue.add(key);
    }
    for (const key of this.#lost) {
      const staged = this.#staged.get(key);
      if (staged !== undefined && compareVersions(staged.header, version) > 0) complete = false;
    }
    return complete;
  }

  #best(key: string): Opened | undefined {
    return this.#staged.get(key) ?? this.#set?.messages.get(key);
  }

  #offer(key: string, bytes: Uint8Array, wasRead: boolean): void {
    const outcome = this.#stage(key, bytes, wasRead);
    if (outcome !== "known") this.counts.set(outcome, (this.counts.get(outcome) ?? 0) + 1);
  }

  #stage(key: string, bytes: Uint8Array, wasRead: boolean): Outcome {
    const message = openMessage(bytes, key, this.#keys);
    if (message.kind === "refused") return message.cause;
    if (key === "head") return this.#stageHead(message, wasRead);
    if (!this.#uses(key)) return "unexpected_key";
    const best = this.#best(key);
    const order = best === undefined ? 1 : compareVersions(message.header, best.header);
    // A revision signed twice differs only in its time: the one the head names is wanted.
    const resigned = order === 0 && this.#pending?.changed.get(key) === message.sha256;
    if (order > 0 || (resigned && best?.sha256 !== message.sha256)) {
      this.#staged.set(key, message);
      return "accepted";
    }
    return order === 0 && wasRead ? "known" : "replayed";
  }

  #stageHead(message: Opened, wasRead: boolean): Outcome {
    const head = headOf(message);
    if (head === undefined) return "malformed";
    const last = this.#pending?.head ?? this.#set?.head.header;
    const order = last === undefined ? 1 : compareVersions(head, last);
    if (order < 0) return "replayed";
    if (order === 0) {
      if (message.header.t <= this.#headTime) return wasRead ? "known" : "replayed";
      this.#headTime = message.header.t;
      return "accepted";
    }
    this.#headTime = Math.max(this.#headTime, message.header.t);
    this.#tried.clear();
    const chained = last !== undefined && last.epoch === head.epoch && last.rev === head.prev;
    const before = chained ? (this.#pending?.changed ?? []) : [];
    this.#pending = { head, message, changed: new Map([...before, ...head.changed]) };
    if (!chained) this.#lose(this.#literals());
    return "accepted";
  }

  /** Marks keys as unknown since the last head and reads them. */
  #lose(keys: Iterable<string>): void {
    for (const key of keys) {
      this.#lost.add(key);
      this.#queue.add(key);
    }
  }

  /** Every key with a name of its own: granted, and in the set. */
  #literals(): Set<string> {
    const keys = new Set([...this.#grants].filter((key) => !key.endsWith(".*")));
    for (const key of this.#set?.messages.keys() ?? []) if (this.#uses(key)) keys.add(key);
    keys.delete("head");
    return keys;
  }

  /** The endpoint documents a service says it has, as far as they are granted and not known. */
  #wantShards(key: string): void {
    const service = key.slice("out.".length);
    if (!this.#grants.has(`eps.${service}.*`)) return;
    const out = this.#best(key);
    if (out === undefined || out.header.op === "del") return;
    const shards = "shards" in out.document ? Number(out.document.shards) : 0;
    for (let shard = 0; shard < shards && shard < SHARDS_MAX; shard++) {
      const name = `eps.${service}.${shard}`;
      if (!this.#lost.has(name)) this.#lose([name]);
    }
  }

  #uses(key: string): boolean {
    if (this.#grants.has(key)) return true;
    const dot = key.lastIndexOf(".");
    return key.startsWith("eps.") && this.#grants.has(`${key.slice(0, dot)}.*`);
  }

  #adoptKeys(set: DocumentSet): void {
    const mesh = set.documents.get("mesh");
    if (mesh === undefined) return;
    const keys = configKeysOf((mesh as Partial<MeshDocument>).configKeys);
    // A list without keys would cut this proxy off for ever.
    if (keys.size > 0) this.#keys = keys;
  }
}

/** 50,000 endpoints of one service: a limit against a number that makes no sense. */
const SHARDS_MAX = 1000;

/** A set from verified messages. */
export function documentSet(head: Opened, messages: ReadonlyMap<string, Opened>): DocumentSet {
  const documents = new Map<string, object>();
  for (const [key, message] of messages) {
    if (message.header.op === "put") documents.set(key, message.document);
  }
  const { epoch, rev } = head.header;
  return { epoch, rev, head, messages, documents };
}

/** The body of a head message; undefined when it is not one or contradicts its header. */
export function headOf(message: Opened): HeadDocument | undefined {
  const { header } = message;
  if (header.key !== "head" || header.op !== "put") return undefined;
  const body = message.document as Partial<Record<keyof HeadDocument, unknown>>;
  if (body.epoch !== header.epoch || body.rev !== header.rev) return undefined;
  if (typeof body.prev !== "number" || !Array.isArray(body.changed)) return undefined;
  const changed: (readonly [string, string])[] = [];
  for (const entry of body.changed as readonly unknown[]) {
    if (!Array.isArray(entry)) return undefined;
    const [key, sha256] = entry as readonly unknown[];
    if (typeof key !== "string" || typeof sha256 !== "string") return undefined;
    changed.push([key, sha256]);
  }
  return { epoch: header.epoch, rev: header.rev, prev: body.prev, t: header.t, changed };
}
