/** From the store and the registry to the bus: compiles what is true now and has it published. */
import { EXIT, Failure } from "../error.ts";
import type { LiveEndpoint } from "../registry/member.ts";
import { MESSAGE_BYTES_MAX } from "../snapshot/envelope.ts";
import {
  allResources,
  lastRevision,
  markPublished,
  revisionCarriedBy,
} from "../store/revisions.ts";
import type { Store } from "../store/store.ts";
import type { Logger } from "../telemetry/log.ts";
import { compileDocuments, type MeshFacts } from "./documents.ts";
import type { Publisher } from "./publish.ts";

export interface DistributionOptions {
  readonly store: Store;
  readonly publisher: Publisher;
  readonly endpoints: () => readonly LiveEndpoint[];
  readonly mesh: MeshFacts;
  readonly log: Logger;
}

/** How long a caller waits for the bus before it is told that publishing goes on behind it. */
const FLUSH_MS = 5_000;
/** After a failure that may pass, such as a full disk. */
const AGAIN_MS = 1_000;

export class Distribution {
  readonly #options: DistributionOptions;
  #onBus = 0;
  #soon: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor(options: DistributionOptions) {
    this.#options = options;
  }

  /** The newest revision that the bus has. */
  get publishedRevision(): number {
    const { store, publisher } = this.#options;
    const rev = publisher.current ? publisher.position.rev : this.#onBus;
    return revisionCarriedBy(store, rev);
  }

  /** Publishes after the caller's transaction; several calls are one publication. */
  schedule(afterMs = 0): void {
    if (this.#closed) return;
    this.#soon ??= setTimeout(() => {
      this.#soon = undefined;
      this.publish().catch((error: unknown) => {
        this.#options.log.error("cannot publish; trying again", { error });
        this.schedule(AGAIN_MS);
      });
    }, afterMs);
  }

  /** Resolves to the bus's revision of what is true now, when the bus has it or takes longer. */
  async publish(): Promise<number> {
    const { store, publisher, endpoints, mesh } = this.#options;
    const number = lastRevision(store);
    const rows = allResources(store);
    const created = new Map(rows.map((row) => [row.key, row.created]));
    const resources = rows.map((row) => row.resource);
    const rev = publisher.publish(compileDocuments(resources, endpoints(), mesh, created));
    markPublished(store, number, rev);
    const flushed = await publisher.flushed(rev, FLUSH_MS);
    if (flushed) this.#onBus = Math.max(this.#onBus, rev);
    return rev;
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#soon);
  }
}

/**
 * Refuses documents that would not fit a message of the bus.
 *
 * @throws Failure `document_too_big` (422).
 */
export function refuseTooBig(
  resources: Parameters<typeof compileDocuments>[0],
  mesh: MeshFacts,
): void {
  for (const { key, body } of compileDocuments(resources, [], mesh)) {
    // 2 KiB covers signature and header line.
    const bytes = Buffer.byteLength(JSON.stringify(body)) + 2048;
    if (bytes <= MESSAGE_BYTES_MAX) continue;
    throw new Failure(
      "document_too_big",
      `${key} would be ${bytes} bytes on the bus; the limit is ${MESSAGE_BYTES_MAX}`,
      "split the service or its routes into several",
      { status: 422, exit: EXIT.refused },
    );
  }
}
