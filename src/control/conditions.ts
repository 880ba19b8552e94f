/** The state of every stored document, worked out once for each revision. */
import { type ResourceStatus, statusesOf } from "../config/conditions.ts";
import { allResources, lastRevision } from "../store/revisions.ts";
import type { Store } from "../store/store.ts";

export class Conditions {
  readonly #store: Store;
  readonly #trustDomain: string;
  #revision = -1;
  #statuses: ReadonlyMap<string, ResourceStatus> = new Map();

  constructor(store: Store, trustDomain: string) {
    this.#store = store;
    this.#trustDomain = trustDomain;
  }

  /** By resource key; only those with which something is wrong. */
  current(): ReadonlyMap<string, ResourceStatus> {
    const revision = lastRevision(this.#store);
    if (revision !== this.#revision) {
      const set = allResources(this.#store).map(({ resource }) => resource);
      this.#statuses = statusesOf(set, this.#trustDomain);
      this.#revision = revision;
    }
    return this.#statuses;
  }
}
