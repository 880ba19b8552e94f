/**
 * The last good configuration on disk, so that a proxy serves with everything else down.
 *
 * `config.set` is replaced whole (written aside, synced, renamed) and its predecessor kept as
 * `config.prev.set`. A set is used only when its own hash, every signature and the hashes its head
 * names are right. `newest.json` remembers the highest version ever held: an older set put in its
 * place is refused. A damaged set falls back to the one before it.
 *
 * Format: `weft-set 1\n`, then per message its key length (2 bytes), its length (4 bytes), key and
 * message, the head first; last the SHA-256 of all before.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { chmod, mkdir, open, rename } from "node:fs/promises";
import { join } from "node:path";
import { Failure } from "../error.ts";
import { type DocumentSet, documentSet, headOf, type Version } from "../snapshot/assemble.ts";
import {
  type ConfigKeys,
  compareVersions,
  type Opened,
  openMessage,
} from "../snapshot/envelope.ts";

const MAGIC = Buffer.from("weft-set 1\n");
const HASH_BYTES = 32;
const CURRENT = "config.set";
const PREVIOUS = "config.prev.set";
const NEWEST = "newest.json";

interface Newest extends Version {
  /** Version of the predecessor on disk: as far back as a damaged set may fall. */
  readonly previous: Version;
}

/** What was found on disk, and what was wrong with it. */
export interface LoadedSet {
  readonly set: DocumentSet | undefined;
  readonly problems: readonly Failure[];
}

/** Loads the newest good set of `folder`. Never throws: problems are told beside the result. */
export function loadSet(folder: string, keys: ConfigKeys): LoadedSet {
  const problems: Failure[] = [];
  const newest = readNewest(folder);
  const floor: Version = newest ?? NOTHING;
  const current = readSet(join(folder, CURRENT), keys);
  if (current.kind === "good") {
    if (compareVersions(current.set, floor) >= 0) return { set: current.set, problems };
    return { set: undefined, problems: [rolledBack(join(folder, CURRENT), current.set, floor)] };
  }
  if (current.kind === "damaged") problems.push(damaged(join(folder, CURRENT), current.why));
  const previous = readSet(join(folder, PREVIOUS), keys);
  if (previous.kind === "damaged") problems.push(damaged(join(folder, PREVIOUS), previous.why));
  if (previous.kind !== "good") return { set: undefined, problems };
  if (compareVersions(previous.set, newest?.previous ?? NOTHING) >= 0) {
    return { set: previous.set, problems };
  }
  problems.push(rolledBack(join(folder, PREVIOUS), previous.set, newest?.previous ?? NOTHING));
  return { set: undefined, problems };
}

const NOTHING: Version = { epoch: 0, rev: 0 };

/** Writes sets in the background, the newest last; a burst costs one write. */
export class SetWriter {
  readonly #folder: string;
  readonly #failed: (error: unknown) => void;
  #written: Version;
  #next: DocumentSet | undefined;
  #busy: Promise<void> | undefined;

  /** `written`: the version that is on disk now. */
  constructor(folder: string, written: Version | undefined, failed: (error: unknown) => void) {
    this.#folder = folder;
    this.#failed = failed;
    this.#written = written ?? readNewest(folder) ?? NOTHING;
  }

  write(set: DocumentSet): void {
    this.#next = set;
    this.#busy ??= this.#drain();
  }

  /** Resolves when everything given so far is on disk, or has failed. */
  async settled(): Promise<void> {
    await this.#busy;
  }

  async #drain(): Promise<void> {
    for (let set = this.#next; set !== undefined; set = this.#next) {
      this.#next = undefined;
      try {
        await this.#replace(set);
      } catch (error) {
        this.#failed(error);
      }
    }
    this.#busy = undefined;
  }

  async #replace(set: DocumentSet): Promise<void> {
    const folder = this.#folder;
    const current = join(folder, CURRENT);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await writeSynced(`${current}.new`, encodeSet(set));
    const previous = existsSync(current) ? this.#written : NOTHING;
    if (existsSync(current)) await rename(current, join(folder, PREVIOUS));
    await rename(`${current}.new`, current);
    const newest: Newest = { epoch: set.epoch, rev: set.rev, previous };
    const path = join(folder, NEWEST);
    await writeSynced(`${path}.new`, Buffer.from(JSON.stringify(newest)));
    await rename(`${path}.new`, path);
    await syncFolder(folder);
    this.#written = { epoch: set.epoch, rev: set.rev };
  }
}

async function writeSynced(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(path, "w", 0o600);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
  await chmod(path, 0o600);
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export function encodeSet(set: DocumentSet): Uint8Array {
  const parts: Uint8Array[] = [MAGIC];
  for (const [key, { bytes }] of [["head", set.head] as const, ...set.messages]) {
    const name = Buffer.from(key, "utf8");
    const lengths = Buffer.alloc(6);
    lengths.writeUInt16BE(name.length, 0);
    lengths.writeUInt32BE(bytes.length, 2);
    parts.push(lengths, name, bytes);
  }
  const content = Buffer.concat(parts);
  return Buffer.concat([content, createHash("sha256").update(content).digest()]);
}

type Read =
  | { readonly kind: "good"; readonly set: DocumentSet }
  | { readonly kind: "damaged"; readonly why: string }
  | { readonly kind: "absent" };

function readSet(path: string, keys: ConfigKeys): Read {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      return { kind: "absent" };
    }
    return { kind: "damaged", why: String(error) };
  }
  const set = decodeSet(bytes, keys);
  return "why" in set ? { kind: "damaged", why: set.why } : { kind: "good", set };
}

/** The set in `bytes`, verified throughout, or what is wrong with it. */
export function decodeSet(bytes: Buffer, keys: ConfigKeys): DocumentSet | { readonly why: string } {
  const end = bytes.length - HASH_BYTES;
  if (end < MAGIC.length || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) {
    return { why: "it is not a configuration set" };
  }
  const hash = createHash("sha256").update(bytes.subarray(0, end)).digest();
  if (!hash.equals(bytes.subarray(end))) return { why: "its hash does not match its content" };
  const messages = new Map<string, Opened>();
  for (let at = MAGIC.length; at < end; ) {
    if (end - at < 6) return { why: "it ends inside a message" };
    const start = at + 6 + bytes.readUInt16BE(at);
    const stop = start + bytes.readUInt32BE(at + 2);
    if (stop > end) return { why: "it ends inside a message" };
    const key = bytes.toString("utf8", at + 6, start);
    const message = openMessage(bytes.subarray(start, stop), key, keys);
    if (message.kind === "refused") return { why: `${key}: ${message.cause}, ${message.detail}` };
    messages.set(key, message);
    at = stop;
  }
  return verified(messages);
}

function verified(messages: Map<string, Opened>): DocumentSet | { readonly why: string } {
  const message = messages.get("head");
  const head = message === undefined ? undefined : headOf(message);
  if (message === undefined || head === undefined) return { why: "it has no head" };
  messages.delete("head");
  for (const [key, sha256] of head.changed) {
    const named = messages.get(key);
    if (named !== undefined && named.sha256 !== sha256) {
      return { why: `${key} is not the one its head names` };
    }
  }
  for (const [key, { header }] of messages) {
    if (compareVersions(header, head) > 0) return { why: `${key} is newer than its head` };
  }
  return documentSet(message, messages);
}

function readNewest(folder: string): Newest | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(join(folder, NEWEST), "utf8"));
    const version = asVersion(value);
    if (version === undefined) return undefined;
    const previous = asVersion((value as { readonly previous?: unknown }).previous);
    return { ...version, previous: previous ?? NOTHING };
  } catch {
    return undefined;
  }
}

function asVersion(value: unknown): Version | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { epoch, rev } = value as { readonly epoch?: unknown; readonly rev?: unknown };
  return typeof epoch === "number" && typeof rev === "number" ? { epoch, rev } : undefined;
}

function damaged(path: string, why: string): Failure {
  return new Failure(
    "set_damaged",
    `${path} is damaged and was refused: ${why}`,
    "nothing to do if the control plane is reachable: a new set is written then",
  );
}

function rolledBack(path: string, found: Version, floor: Version): Failure {
  return new Failure(
    "set_rolled_back",
    `${path} was refused: it holds revision ${found.rev} of epoch ${found.epoch}, but revision ` +
      `${floor.rev} of epoch ${floor.epoch} was in force here before`,
    "do not put back old sets; start the control plane, and a current one is fetched",
  );
}
